"""Traces done again, on the same kind of file system and on others, and made small."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.fault import Faulty, Rule, Rules
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.passing import Passing
from syspuffs.layers.replay import compared, replay, shrink
from syspuffs.layers.trace import DataKept, Event, events, traced
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.records import Buffer, Cookie, Cred, Vattr, lookup_cn

from ...support.server import ServerTarget
from ...support.stacks import STACKS
from ...support.wander import wander

CRED = Cred(0, 0, (), 1)
FILE = Vattr(Vtype.VREG, 0o644)


@asynccontextmanager
async def tmpfs() -> AsyncIterator[FileServer]:
    async with p2k_over(TmpFs(mntfromname=b"none")) as server:
        yield server
        await server.unmount(0)


async def record(file: Path, count: int, seed: int, keep: DataKept) -> list[Event]:
    async with tmpfs() as below, traced(below, file, keep) as server:
        await wander(server, count, seed)
    return list(events(file))


STACKS_BY_NAME = {stack.name: stack for stack in STACKS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keep", "count"),
    [
        ("p2k|tmpfs", DataKept.DIGEST, 10_000),
        ("p2k|ext2fs", DataKept.DIGEST, 10_000),
        ("psshfs", DataKept.DIGEST, 10_000),
        ("p2k|tmpfs", DataKept.LENGTH, 3000),
        ("p2k|puffs|psshfs", DataKept.FULL, 3000),
    ],
)
async def test_no_difference(tmp_path: Path, name: str, keep: DataKept, count: int) -> None:
    """On any stack, also where lengths alone are known. long.py does it 100,000 times."""
    trace = await record(tmp_path / "t", count * 13 // 10, 1, keep)
    assert len(trace) > count
    stack = STACKS_BY_NAME[name]
    assert stack.build is not None
    place = tmp_path / "place"
    place.mkdir()
    async with stack.build(place, None) as target:
        assert isinstance(target, ServerTarget)
        run = await replay(target.server, trace)
        assert list(compared(run.events, run.expected, run.seen)) == []
        assert run.skipped == 0


async def test_what_ran_together_runs_together(tmp_path: Path) -> None:
    file = tmp_path / "t"
    async with tmpfs() as below, traced(Slow(below), file) as server:
        async with trio.open_nursery() as nursery:
            for name in (b"a", b"b", b"c"):
                cn = lookup_cn(name, CRED, NameiOp.CREATE)
                nursery.start_soon(server.create, server.kargs.root.cookie, cn, FILE)
        await server.readdir(server.kargs.root.cookie, 0, 4096, 0, CRED)
    async with tmpfs() as below:
        slow = Slow(below)
        run = await replay(slow, events(file))
        assert slow.most == 3
        assert list(compared(run.events, run.expected, run.seen)) == []


class Slow(Passing):
    """Takes a trip through the scheduler to create; counts how many do at the same time."""

    name = "slow"

    def __init__(self, below: FileServer) -> None:
        super().__init__(below)
        self._now = 0
        self.most = 0

    async def create(self, opc, cn, va):  # type: ignore[no-untyped-def]
        self._now += 1
        self.most = max(self.most, self._now)
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self._now -= 1
        return await self.below.create(opc, cn, va)


@pytest.mark.parametrize(
    ("rule", "kind", "operation"),
    [
        (Rule(op="read", flip=1), "data", "read"),
        (Rule(op="write", torn=0), "attributes", "getattr"),
        (Rule(op="remove", lost=True), "type", "lookup"),
        (Rule(op="setattr", errno="EIO"), "", ""),
        (Rule(op="symlink", errno="ENOSPC"), "errno", "symlink"),
    ],
)
async def test_differences(tmp_path: Path, rule: Rule, kind: str, operation: str) -> None:
    trace = await record(tmp_path / "t", 1500, 2, DataKept.FULL)
    async with tmpfs() as below:
        run = await replay(Faulty(below, Rules([rule])), trace)
        found = list(compared(run.events, run.expected, run.seen))
    if not kind:
        assert found == []
        return
    assert (kind, operation) in {(one.kind, one.event.name) for one in found}


class Forgetful(Passing):
    """A server with a bug: once a file was written to thrice while it was open, it reads zeros."""

    name = "forgetful"

    def __init__(self, below: FileServer) -> None:
        super().__init__(below)
        self._writes: dict[int, int] = {}

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        self._writes[opc] = self._writes.get(opc, 0) + 1
        await self.below.write(opc, offset, data, ioflag, cred)

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        data = await self.below.read(opc, offset, resid, ioflag, cred)
        return bytes(len(data)) if self._writes.get(opc, 0) >= 3 else data


@asynccontextmanager
async def forgetful() -> AsyncIterator[FileServer]:
    async with tmpfs() as below:
        yield Forgetful(below)


async def test_a_long_trace_becomes_a_small_one(tmp_path: Path) -> None:
    """A planted failure in 10,000 operations comes down to fewer than ten."""
    trace = await record(tmp_path / "t", 13000, 3, DataKept.FULL)
    assert len(trace) > 10_000
    small = await shrink(trace, forgetful, tmpfs)
    names = [event.name for event in small]
    assert len(small) < 10, names
    assert names[-1] == "read"
    assert names.count("write") == 3
    assert await shrink(small, forgetful, tmpfs) == small
    assert await shrink(trace[:500], tmpfs, tmpfs) == []


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    """A trace that ends in the middle of something."""
    trace = await record(tmp_path / "t", 400, 4, DataKept.LENGTH)
    for end in range(0, len(trace), 37):
        async with tmpfs() as server:
            run = await replay(server, trace[:end])
            assert list(compared(run.events, run.expected, run.seen)) == []


async def test_a_trace_that_does_not_fit(tmp_path: Path) -> None:
    """Nodes that are not there: what depends on them is left out, the first is reported."""
    trace = await record(tmp_path / "t", 400, 4, DataKept.LENGTH)
    rest = [event for event in trace if event.name != "create"]
    async with tmpfs() as server:
        run = await replay(server, rest)
        found = list(compared(run.events, run.expected, run.seen))
    assert found
    assert run.skipped
