"""Perfuse against a FUSE server of which each octet is ours to say."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from errno import EIO, ENOENT, ENOSYS, ENOTCONN

import pytest
import trio
import trio.testing

from syspuffs.layers.perfuse import Perfuse, fuse_pair, perfuse_on
from syspuffs.native.constants import FlushOp
from syspuffs.native.errors import VfsError
from syspuffs.native.fuse_protocol import Opcode
from syspuffs.native.records import Cookie, Cred, lookup_cn

CRED = Cred(0, 0)
FILE = struct.pack("=6Q10I", 7, 5, 1, 0, 0, 0, 0, 0, 0, 0o100644, 1, 0, 0, 0, 512, 0)


def entry(nodeid: int, generation: int = 0, attr: bytes = FILE) -> bytes:
    return struct.pack("=4Q2I", nodeid, generation, 1, 1, 0, 0) + attr


SILENT = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY)


def absent(nodeid: int, body: bytes) -> int:
    return -ENOSYS


class Server:
    """The other end: answers by a table, by opcode; notes what was asked."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = trio.socket.from_stdlib_socket(sock)
        self.asked: list[tuple[int, int, bytes]] = []
        self.answers: dict[int, Callable[[int, bytes], bytes | int | None]] = {
            Opcode.INIT: lambda *_: struct.pack(
                "=4IHHIIHH32x", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0
            )
        }

    async def serve(self) -> None:
        while message := await self.sock.recv(1 << 20):
            _, opcode, unique, nodeid = struct.unpack_from("=IIQQ", message)
            body = message[40:]
            self.asked.append((opcode, nodeid, body))
            if opcode in SILENT:
                continue
            answer = self.answers.get(opcode, absent)(nodeid, body)
            if answer is not None:
                await self.reply(unique, answer)

    async def reply(self, unique: int, answer: bytes | int) -> None:
        error, body = (answer, b"") if isinstance(answer, int) else (0, answer)
        await self.sock.send(struct.pack("=IiQ", 16 + len(body), error, unique) + body)

    def bodies(self, opcode: int) -> list[tuple[int, bytes]]:
        return [(nodeid, body) for code, nodeid, body in self.asked if code == opcode]

    async def seen(self, opcode: int) -> None:
        with trio.fail_after(5):
            while not self.bodies(opcode):
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Perfuse, Server]]:
    ours, theirs = fuse_pair()
    server = Server(theirs)
    async with trio.open_nursery() as nursery:
        async with perfuse_on(ours) as perfuse:
            nursery.start_soon(server.serve)
            await perfuse.begin()
            yield perfuse, server
        nursery.cancel_scope.cancel()
    server.sock.close()


ROOT = Cookie(1)


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
