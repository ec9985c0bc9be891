"""How many turns a request takes: answers that are there, and requests that go together."""

from __future__ import annotations

import random
import struct
from errno import EIO, ENOENT
from itertools import count

import pytest
import trio
import trio.testing

from syspuffs.layers.perfuse import Perfuse
from syspuffs.native.constants import FREAD, READDIR_PLUS
from syspuffs.native.errors import VfsError
from syspuffs.native.fuse_protocol import Opcode
from syspuffs.native.records import Dirent, lookup_cn

from .harness import CRED, FILE, ROOT, both, entry

DIRECTORY = FILE[:60] + struct.pack("=I", 0o40755) + FILE[64:]
ATTR = struct.pack("=Q8x", 1) + DIRECTORY
NAMES = [b".", b"..", *(b"name%02d" % number for number in range(40))]


def listing(nodeid: int, body: bytes) -> bytes:
    """Answer READDIR with the rest of NAMES."""
    start = struct.unpack_from("=Q", body, 8)[0]
    out = b""
    for place, name in enumerate(NAMES[start:], start + 1):
        out += struct.pack("=QQII", 7, place, len(name), 8) + name.ljust(
            -len(name) // 8 * -8, b"\0"
        )
    return out


async def test_an_answer_that_comes_at_once_costs_no_turn() -> None:
    """But for kinds of requests whose answers came late: the next one is not waited for."""
    async with both() as (perfuse, server):
        server.answers[Opcode.GETATTR] = lambda *_: ATTR
        await perfuse.getattr(ROOT, CRED)  # late: the server has no turn while we stand still
        server.answers[Opcode.GETATTR] = lambda *_: None
        server.reply_ahead(Opcode.GETATTR, ATTR)
        with trio.fail_after(5), trio.testing.assert_checkpoints():
            await perfuse.getattr(ROOT, CRED)
        await trio.testing.wait_all_tasks_blocked()
        server.reply_ahead(Opcode.GETATTR, ATTR)
        with trio.fail_after(5), trio.testing.assert_no_checkpoints():
            va, _ = await perfuse.getattr(ROOT, CRED)
        assert va.mode == 0o755
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.bodies(Opcode.GETATTR)) == 3


async def test_who_waits_already_is_not_kept_from_his_answer() -> None:
    """We stand still for what is alone in flight only."""
    async with both() as (perfuse, server):
        server.answers[Opcode.STATFS] = server.answers[Opcode.GETATTR] = lambda *_: None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(perfuse.statvfs)
            await server.seen(Opcode.STATFS)
            server.reply_ahead(Opcode.STATFS, ATTR)
            with trio.fail_after(5), trio.testing.assert_checkpoints():
                await perfuse.getattr(ROOT, CRED)
            nursery.cancel_scope.cancel()


async def listed(perfuse: Perfuse) -> list[Dirent]:
    entries, _ = await perfuse.readdir(ROOT, 0, 32768, READDIR_PLUS, CRED)
    return list(entries)


async def test_entries_are_looked_up_together_where_readdirplus_is_not() -> None:
    async with both() as (perfuse, server):
        server.answers[Opcode.OPENDIR] = lambda *_: struct.pack("=QII", 1, 0, 0)
        server.answers[Opcode.READDIR] = listing
        held: list[tuple[int, bytes]] = []
        waiting: list[int] = []
        nodes = count(100)

        async def answer() -> None:
            """Answer half of what may be under way when all of it is, the last one first."""
            for size in (16, 16, 16, 16, 8):
                while len(held) < size:
                    await trio.lowlevel.checkpoint()
                waiting.append(len(held))
                half = held[:8][::-1]
                del held[:8]  # others come before the last answer's turn is over
                for unique, name in half:
                    await server.reply(unique, -ENOENT if b"13" in name else entry(next(nodes)))

        server.answers[Opcode.LOOKUP] = lambda _, body: held.append(
            (server.uniques[Opcode.LOOKUP], body)
        )
        await perfuse.open(ROOT, FREAD, CRED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(5):
                entries = await listed(perfuse)
        assert [item.name for item in entries] == NAMES
        assert waiting == [16, 16, 16, 16, 8]
        bare = [item.name for item in entries if item.newinfo is None]
        assert bare == [b".", b"..", b"name13"]
        asked = [body.rstrip(b"\0") for _, body in server.bodies(Opcode.LOOKUP)]
        assert asked == NAMES[2:]


async def test_a_listing_that_is_cancelled_gives_its_nodes_back() -> None:
    """Those of batches before, those of the batch, and those that are answered later."""
    async with both() as (perfuse, server):
        server.answers[Opcode.OPENDIR] = lambda *_: struct.pack("=QII", 1, 0, 0)
        server.answers[Opcode.READDIR] = listing
        nodes = count(100)
        late: list[int] = []

        def look(_: int, body: bytes) -> bytes | None:
            if body.startswith(b"name20"):
                late.append(server.uniques[Opcode.LOOKUP])
                return None
            return entry(next(nodes))

        server.answers[Opcode.LOOKUP] = look
        await perfuse.open(ROOT, FREAD, CRED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listed, perfuse)
            with trio.fail_after(5):
                while not late:
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await server.reply(late[0], entry(next(nodes)))
        await trio.testing.wait_all_tasks_blocked()
        forgotten = []
        for nodeid, body in server.bodies(Opcode.FORGET):
            forgotten += [(nodeid, *struct.unpack("=Q", body))]
        for _, body in server.bodies(Opcode.BATCH_FORGET):
            forgotten += struct.iter_unpack("=QQ", body[8:])
        assert sorted(forgotten) == [(nodeid, 1) for nodeid in range(100, next(nodes))]


PIECE = 131_072
WHOLE = random.Random(9).randbytes(3 * PIECE + 5000)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
async def test_pieces_of_a_read_come_in_any_order(order: tuple[int, ...]) -> None:
    """And among answers to others, which are as long."""
    async with both() as (perfuse, server):
        held: dict[int, tuple[int, bytes]] = {}

        def read(_: int, body: bytes) -> None:
            _, offset, size = struct.unpack_from("=QQI", body)
            held[offset // PIECE] = server.uniques[Opcode.READ], WHOLE[offset : offset + size]

        server.answers[Opcode.OPEN] = lambda *_: struct.pack("=QII", 1, 0, 0)
        server.answers[Opcode.LOOKUP] = lambda *_: entry(5)
        server.answers[Opcode.READ] = read
        cookie = (await perfuse.lookup(ROOT, lookup_cn(b"file", CRED))).cookie
        await perfuse.open(cookie, FREAD, CRED)
        found: dict[int, bytes] = {}

        async def ask(offset: int, length: int) -> None:
            found[offset] = bytes(await perfuse.read(cookie, offset, length, 0, CRED))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0, 4 * PIECE)
            while len(held) < 4:
                await trio.lowlevel.checkpoint()
            many, one = dict(held), 2 * PIECE
            held.clear()
            nursery.start_soon(ask, one, PIECE)
            while not held:
                await trio.lowlevel.checkpoint()
            await server.reply(*held[2])
            for number in order:
                await server.reply(*many[number])
        assert found[0] == WHOLE
        assert found[one] == WHOLE[one : one + PIECE]


async def test_a_read_ends_with_its_first_short_piece() -> None:
    """Whatever the others say; a piece that is too long is none."""
    async with both() as (perfuse, server):
        answers: list[bytes | int] = []
        server.answers[Opcode.OPEN] = lambda *_: struct.pack("=QII", 1, 0, 0)
        server.answers[Opcode.LOOKUP] = lambda *_: entry(5)
        server.answers[Opcode.READ] = lambda *_: answers.pop(0)
        cookie = (await perfuse.lookup(ROOT, lookup_cn(b"file", CRED))).cookie
        await perfuse.open(cookie, FREAD, CRED)
        full = WHOLE[:PIECE]
        answers += [full, WHOLE[:70_000], -EIO, full]
        told = await perfuse.read(cookie, 0, 4 * PIECE, 0, CRED)
        assert bytes(told) == full + WHOLE[:70_000]
        for wrong in (WHOLE[: PIECE + 1], -EIO):
            answers += [full, wrong, full, b""]
            with pytest.raises(VfsError) as caught:
                await perfuse.read(cookie, 0, 4 * PIECE, 0, CRED)
            assert caught.value.errno == EIO
