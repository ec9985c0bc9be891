"""Perfuse against a FUSE server of which each octet is ours to say."""

from __future__ import annotations

import random
import socket
import struct
from errno import EIO, ENOENT, ENOSYS, ENOTCONN

import pytest
import trio
import trio.testing

from syspuffs.layers.perfuse import Perfuse
from syspuffs.native.constants import FREAD, FWRITE, IO_APPEND, FlushOp
from syspuffs.native.errors import VfsError
from syspuffs.native.fuse_protocol import Opcode
from syspuffs.native.records import Cookie, lookup_cn

from .harness import CRED, FILE, ROOT, Server, both, entry


async def test_lookups_are_given_back_exactly() -> None:
    async with both() as (perfuse, server):
        server.answers[Opcode.LOOKUP] = lambda *_: entry(2**64 - 1)
        for _ in range(3):
            info = await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))
        perfuse.reclaim(info.cookie, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert not server.bodies(Opcode.FORGET)
        perfuse.reclaim(info.cookie, 1)
        await server.seen(Opcode.FORGET)
        assert server.bodies(Opcode.FORGET) == [(2**64 - 1, struct.pack("=Q", 3))]
        with pytest.raises(VfsError):
            await perfuse.getattr(info.cookie, CRED)


async def test_forgets_of_one_moment_go_together() -> None:
    async with both() as (perfuse, server):
        cookies = []
        for nodeid in (5, 6):
            server.answers[Opcode.LOOKUP] = lambda *_, nodeid=nodeid: entry(nodeid)
            cookies.append((await perfuse.lookup(ROOT, lookup_cn(b"n", CRED))).cookie)
        for cookie in cookies:
            perfuse.reclaim(cookie, 1)
        await server.seen(Opcode.BATCH_FORGET)
        wanted = struct.pack("=I4x4Q", 2, 5, 1, 6, 1)
        assert server.bodies(Opcode.BATCH_FORGET) == [(0, wanted)]


async def test_cancellation_interrupts_and_gives_a_late_lookup_back() -> None:
    async with both() as (perfuse, server):
        server.answers[Opcode.LOOKUP] = lambda *_: None
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(perfuse.lookup, ROOT, lookup_cn(b"name", CRED))
                await server.seen(Opcode.LOOKUP)
                scope.cancel()
        await server.seen(Opcode.INTERRUPT)
        ((_, body),) = server.bodies(Opcode.INTERRUPT)
        await server.reply(struct.unpack("=Q", body)[0], entry(9))
        await server.seen(Opcode.FORGET)
        assert server.bodies(Opcode.FORGET) == [(9, struct.pack("=Q", 1))]


@pytest.mark.logs("the FUSE server answered nonsense")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        entry(9)[:-1],
        entry(9) + b"\0",
        entry(1),
        entry(9, attr=FILE[:60] + bytes(28)),
    ],
)
async def test_nonsense_is_an_error_of_that_request_alone(answer: bytes) -> None:
    async with both() as (perfuse, server):
        server.answers[Opcode.LOOKUP] = lambda *_: answer
        with pytest.raises(VfsError) as caught:
            await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))
        assert caught.value.errno == EIO
        server.answers[Opcode.LOOKUP] = lambda *_: -ENOENT
        assert not (await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))).cookie


@pytest.mark.logs("the FUSE server (sent nonsense|answered what nobody asked)")
async def test_messages_that_nobody_asked_for_are_passed_over() -> None:
    async with both() as (perfuse, server):
        for message in (b"x", bytes(16), struct.pack("=IiQ", 16, 0, 998), b"y" * 300_000):
            await server.sock.send(message)
        server.answers[Opcode.LOOKUP] = lambda *_: entry(9)
        assert (await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))).cookie


@pytest.mark.logs("the FUSE server answered what nobody asked")
async def test_a_refused_forget_is_not_the_answer_to_the_next_request() -> None:
    """libfuse-lite knows no BATCH_FORGET and says ENOSYS to it."""
    async with both() as (perfuse, server):
        server.answers[Opcode.LOOKUP] = lambda *_: entry(9)
        info = await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))
        perfuse.reclaim(info.cookie, 1)
        await server.seen(Opcode.FORGET)
        server.answers[Opcode.LOOKUP] = lambda *_: None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(perfuse.lookup, ROOT, lookup_cn(b"other", CRED))
            while len(server.bodies(Opcode.LOOKUP)) < 2:
                await trio.lowlevel.checkpoint()
            await server.reply(server.uniques[Opcode.FORGET], -ENOSYS)
            await server.reply(server.uniques[Opcode.LOOKUP], entry(9))


async def test_death_of_the_server_ends_what_waits() -> None:
    async with both() as (perfuse, server):
        server.answers[Opcode.LOOKUP] = lambda *_: None
        errors = []

        async def look() -> None:
            with pytest.raises(VfsError) as caught:
                await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))
            errors.append(caught.value.errno)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await server.seen(Opcode.LOOKUP)
            server.sock.shutdown(socket.SHUT_RDWR)
        await look()
        assert errors == [ENOTCONN, ENOTCONN]


class Heard:
    """Notes flushes."""

    def __init__(self) -> None:
        self.flushes: list[tuple[int, int, int, int, bytes]] = []

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        self.flushes.append((op, cookie, start, end, name))

    def unmount(self) -> None:
        raise AssertionError


async def test_notifications_are_passed_up() -> None:
    async with both() as (perfuse, server):
        heard = Heard()
        perfuse.attach(heard)
        server.answers[Opcode.LOOKUP] = lambda *_: entry(9)
        cookie = (await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))).cookie
        for code, body in (
            (3, struct.pack("=QII", 1, 4, 0) + b"name\0"),
            (2, struct.pack("=Qqq", 9, 4096, 100)),
            (4, struct.pack("=QQI4x", 9, 0, 4) + b"data"),
            (2, struct.pack("=Qqq", 77, 0, 0)),
            (5, struct.pack("=QQQI4x", 6, 9, 0, 4096)),
        ):
            await server.sock.send(struct.pack("=IiQ", 16 + len(body), code, 0) + body)
        await server.seen(Opcode.NOTIFY_REPLY)
        await trio.testing.wait_all_tasks_blocked()
        assert (FlushOp.INVAL_NAMECACHE_NAME, ROOT, 0, 0, b"name") in heard.flushes
        pages = [f for f in heard.flushes if f[0] == FlushOp.INVAL_PAGECACHE_NODE_RANGE]
        assert min(start for _, _, start, _, _ in pages) == 0
        assert max(end for _, _, _, end, _ in pages) == 4196
        assert (FlushOp.INVAL_ATTR_NODE, cookie, 0, 0, b"") in heard.flushes


OPENED = struct.pack("=QII", 77, 0, 0)
WRITTEN = struct.pack("=II", 1, 0)


async def opened(perfuse: Perfuse, server: Server, mode: int) -> Cookie:
    """Look a file up and open it."""
    server.answers[Opcode.LOOKUP] = lambda *_: entry(9)
    server.answers[Opcode.OPEN] = lambda *_: OPENED
    cookie = (await perfuse.lookup(ROOT, lookup_cn(b"name", CRED))).cookie
    await perfuse.open(cookie, mode, CRED)
    return cookie


async def test_a_file_is_released_when_nothing_is_asked_through_it() -> None:
    """A server with threads may take the one for the other: the write would meet no open file."""
    async with both() as (perfuse, server):
        cookie = await opened(perfuse, server, FWRITE)
        server.answers[Opcode.WRITE] = lambda *_: None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(perfuse.write, cookie, 0, b"x", 0, CRED)
            await server.seen(Opcode.WRITE)
            perfuse.close(cookie, FWRITE, CRED)
            await trio.testing.wait_all_tasks_blocked()
            assert not server.bodies(Opcode.FLUSH) + server.bodies(Opcode.RELEASE)
            await server.reply(server.uniques[Opcode.WRITE], WRITTEN)
        await server.seen(Opcode.RELEASE)


async def test_a_file_is_released_although_its_flush_has_failed() -> None:
    async with both() as (perfuse, server):
        cookie = await opened(perfuse, server, FWRITE)
        server.answers[Opcode.WRITE] = lambda *_: WRITTEN
        server.answers[Opcode.FLUSH] = lambda *_: -EIO
        await perfuse.write(cookie, 0, b"x", 0, CRED)
        perfuse.close(cookie, FWRITE, CRED)
        await server.seen(Opcode.RELEASE)


async def test_a_name_is_removed_when_its_file_is_closed() -> None:
    """libfuse keeps a file that is open under a name of its own."""
    async with both() as (perfuse, server):
        cookie = await opened(perfuse, server, FREAD)
        server.answers[Opcode.RELEASE] = lambda *_: None
        server.answers[Opcode.UNLINK] = lambda *_: b""
        perfuse.close(cookie, FREAD, CRED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(perfuse.remove, ROOT, cookie, lookup_cn(b"name", CRED))
            await server.seen(Opcode.RELEASE)
            await trio.testing.wait_all_tasks_blocked()
            assert not server.bodies(Opcode.UNLINK)
            await server.reply(server.uniques[Opcode.RELEASE], b"")
        assert server.bodies(Opcode.UNLINK)


async def test_appends_follow_one_another() -> None:
    async with both() as (perfuse, server):
        cookie = await opened(perfuse, server, FWRITE)
        size = 0

        def getattr_(*_: object) -> bytes:
            return struct.pack("=Q8x", 1) + struct.pack("=QQ", 7, size) + FILE[16:]

        def write(nodeid: int, body: bytes) -> bytes:
            nonlocal size
            size = struct.unpack_from("=Q", body, 8)[0] + 1
            return WRITTEN

        server.answers[Opcode.GETATTR] = getattr_
        server.answers[Opcode.WRITE] = write
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(perfuse.write, cookie, 0, b"x", IO_APPEND, CRED)
        offsets = [struct.unpack_from("=Q", body, 8)[0] for _, body in server.bodies(Opcode.WRITE)]
        assert offsets == [0, 1, 2, 3, 4]


async def test_a_name_with_a_node_of_its_own_is_looked_up_again() -> None:
    async with both() as (perfuse, server):
        cookie = await opened(perfuse, server, FREAD)
        for nodeid, is_same in ((9, True), (10, False)):
            server.answers[Opcode.LINK] = lambda *_, nodeid=nodeid: entry(nodeid)
            _, ttl = await perfuse.link(ROOT, cookie, lookup_cn(b"other", CRED))
            assert bool(ttl) is is_same


async def test_an_answer_in_pieces_is_asked_for_again_in_small_ones() -> None:
    """libfuse splices so. What comes behind is nobody's answer, and no reason to complain."""
    whole = random.Random(5).randbytes(100_000)
    async with both() as (perfuse, server):
        cookie = await opened(perfuse, server, FREAD)

        async def split(unique: int, data: bytes) -> None:
            await server.sock.send(struct.pack("=IiQ", 16 + len(data), 0, unique) + data[:60_000])
            await server.sock.send(data[60_000:])

        def read(nodeid: int, body: bytes) -> bytes | None:
            _, offset, size = struct.unpack_from("=QQI", body)
            data = whole[offset : offset + size]
            if len(data) <= 57_344:
                return data
            nursery.start_soon(split, server.uniques[Opcode.READ], data)
            return None

        server.answers[Opcode.READ] = read
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                assert bytes(await perfuse.read(cookie, 0, 200_000, 0, CRED)) == whole
        sizes = [struct.unpack_from("=I", body, 16)[0] for _, body in server.bodies(Opcode.READ)]
        assert sizes[0] > 57_344 >= max(sizes[4:])
