"""Each kind of fault of operations, over a tree in memory."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.fault import Faulty, Rule, Rules
from syspuffs.layers.p2k import p2k_over
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Newinfo, Vattr, lookup_cn

CRED = Cred(0, 0, (), 1)
FILE = Vattr(Vtype.VREG, 0o644)


class Tree:
    """A file server with one file "/f" that holds "contents"."""

    def __init__(self, server: Faulty, file: Newinfo) -> None:
        self.server = server
        self.root = server.kargs.root.cookie
        self.file = file.cookie

    async def read(self, cookie: Cookie | None = None) -> bytes:
        return bytes(await self.server.read(cookie or self.file, 0, 100, 0, CRED))

    async def write(self, data: bytes) -> None:
        await self.server.write(self.file, 0, data, 0, CRED)

    async def make(self, name: bytes) -> Newinfo:
        return await self.server.create(self.root, lookup_cn(name, CRED, NameiOp.CREATE), FILE)


@asynccontextmanager
async def tree(*rules: Rule) -> AsyncIterator[Tree]:
    async with p2k_over(TmpFs(mntfromname=b"none")) as below:
        root = below.kargs.root.cookie
        file = await below.create(root, lookup_cn(b"f", CRED, NameiOp.CREATE), FILE)
        await below.write(file.cookie, 0, b"contents", 0, CRED)
        server = Faulty(below, Rules(rules))
        found = await server.lookup(root, lookup_cn(b"f", CRED))
        yield Tree(server, found)
        await server.unmount(0)


def failing(number: int) -> pytest.RaisesExc[VfsError]:
    return pytest.RaisesExc(VfsError, check=lambda error: error.errno == number)


async def test_errno() -> None:
    async with tree(Rule(op="write", errno="ENOSPC", path="/f", nth=2)) as t:
        await t.write(b"Contents")
        with failing(errno.ENOSPC):
            await t.write(b"nothing!")
        assert await t.read() == b"Contents"


async def test_errno_afterwards() -> None:
    async with tree(
        Rule(op="write", errno="EIO", after=True), Rule(op="create", errno="EINTR", after=True)
    ) as t:
        with failing(errno.EIO):
            await t.write(b"CONTENTS")
        assert await t.read() == b"CONTENTS"
        with failing(errno.EINTR):
            await t.make(b"g")
        assert (await t.server.lookup(t.root, lookup_cn(b"g", CRED))).cookie


async def test_delay(autojump_clock: trio.testing.MockClock) -> None:
    async with tree(Rule(op="read", delay=2.5, nth=1)) as t:
        start = trio.current_time()
        assert await t.read() == b"contents"
        assert trio.current_time() - start == 2.5
        await t.read()
        assert trio.current_time() - start == 2.5


async def test_hang_until_released() -> None:
    async with tree(Rule(name="stuck", op="read", hang=True, nth=1)) as t:
        done = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                done.append(await t.read())

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert done == []
            assert t.server.rules.statistics()[0][2:] == (1, 1, 1)
            assert t.server.rules.release("other") == 0
            assert t.server.rules.release("stuck") == 1
        assert done == [b"contents"]


async def test_a_hanging_operation_can_be_given_up() -> None:
    async with tree(Rule(op="read", hang=True)) as t:
        with trio.move_on_after(0) as scope:
            await t.read()
        assert scope.cancelled_caught
        assert t.server.rules.statistics()[0].hanging == 0
        t.server.rules.clear()
        assert await t.read() == b"contents"


async def test_short() -> None:
    async with tree(Rule(op=["read", "write"], short=3, times=2)) as t:
        assert await t.read() == b"con"
        with failing(errno.EIO):
            await t.write(b"CONTENTS")
        assert await t.read() == b"CONtents"


async def test_flipped_bits() -> None:
    async with tree(Rule(op="read", flip=1, nth=1), Rule(op="write", flip=1)) as t:
        flipped = await t.read()
        assert _distance(flipped, b"contents") == 1
        assert await t.read() == b"contents"
        await t.write(b"contents")
        assert _distance(await t.read(), b"contents") == 1


def _distance(a: bytes, b: bytes) -> int:
    assert len(a) == len(b)
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


async def test_lost_and_torn_writes() -> None:
    async with tree(Rule(op="write", lost=True, nth=1), Rule(op="write", torn=3)) as t:
        await t.write(b"CONTENTS")
        assert await t.read() == b"contents"
        await t.write(b"CONTENTS")
        assert await t.read() == b"CONtents"


async def test_a_lost_removal() -> None:
    async with tree(Rule(op="remove", lost=True)) as t:
        assert await t.server.remove(t.root, t.file, lookup_cn(b"f", CRED, NameiOp.DELETE)) == 0
        assert (await t.server.lookup(t.root, lookup_cn(b"f", CRED))).cookie == t.file


async def test_reordered(autojump_clock: trio.testing.MockClock) -> None:
    async with tree(Rule(op="read", reorder=2, nth=1)) as t:
        order = []

        async def first() -> None:
            await t.read()
            order.append("read")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                await t.server.getattr(t.file, CRED)
                order.append("getattr")
                await trio.testing.wait_all_tasks_blocked()
        assert order == ["getattr", "getattr", "read", "getattr"]
    async with tree(Rule(op="read", reorder=2)) as t:
        start = trio.current_time()
        await t.read()
        assert trio.current_time() - start == 5.0


async def test_death() -> None:
    async with tree(Rule(op="getattr", death=True, path="/f")) as t:
        await t.server.getattr(t.root, CRED)
        for _ in range(2):
            with failing(errno.ENOTCONN):
                await t.server.getattr(t.file, CRED)
        with failing(errno.ENOTCONN):
            await t.read()
        t.server.reclaim(t.file, 1)
        await t.server.unmount(0)
        t.server.is_dead = False


async def test_rules_follow_names() -> None:
    """A path is that of now: renames are followed."""
    async with tree(Rule(op="read", path="/d/*", errno="EIO")) as t:
        made = await t.server.mkdir(
            t.root, lookup_cn(b"d", CRED, NameiOp.CREATE), Vattr(Vtype.VDIR, 0o755)
        )
        assert await t.read() == b"contents"
        cn = lookup_cn(b"f", CRED, NameiOp.DELETE)
        to = lookup_cn(b"g", CRED, NameiOp.RENAME)
        await t.server.rename(t.root, t.file, cn, made.cookie, None, to)
        with failing(errno.EIO):
            await t.read()
