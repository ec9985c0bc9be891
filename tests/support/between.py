"""Stacks of the battery with an element between two file servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.fault import Faulty, Rule, Rules
from syspuffs.layers.null import Null
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.readonly import Readonly
from syspuffs.layers.throttle import Pace, Throttle
from syspuffs.layers.trace import DataKept, events, traced

from .server import ServerTarget
from .target import Target

Fill = Callable[[Target], Awaitable[None]]


@asynccontextmanager
async def _tmpfs_below(
    make: Callable[[FileServer], FileServer], fill: Fill | None
) -> AsyncIterator[Target]:
    fs = TmpFs(mntfromname=b"none")
    async with p2k_over(fs) as below:
        server = make(below)
        target = ServerTarget(server)
        if fill is not None:
            await fill(target)
            fs.mount.is_rdonly = True
        yield target
        await server.unmount(0)


@asynccontextmanager
async def null_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """What passes everything on, five times."""

    def five(server: FileServer) -> FileServer:
        for _ in range(5):
            server = Null(server)
        return server

    async with _tmpfs_below(five, fill) as target:
        yield target


@asynccontextmanager
async def throttle_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """What could be slow, and is not."""
    pace = Pace(10**9, 10**12, 0.0)
    async with _tmpfs_below(lambda below: Throttle(below, pace), fill) as target:
        yield target


@asynccontextmanager
async def readonly_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """A tree that can be written to, below what lets nobody write."""
    async with p2k_over(TmpFs(mntfromname=b"none")) as below:
        target = ServerTarget(below)
        if fill is not None:
            await fill(target)
            await target.verify()
            target = ServerTarget(Readonly(below))
        yield target
        await target.server.unmount(0)


@asynccontextmanager
async def trace_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """What writes everything down; it has to be readable afterwards."""
    file = place / "trace"
    fs = TmpFs(mntfromname=b"none")
    async with p2k_over(fs) as below:
        async with traced(below, file, DataKept.FULL) as server:
            target = ServerTarget(server)
            if fill is not None:
                await fill(target)
                fs.mount.is_rdonly = True
            yield target
            await server.unmount(0)
            recorder = server.recorder
        assert not recorder.lost
        found = list(events(file))
        assert len(found) == recorder.written
        assert found[-1].name == "unmount"


@asynccontextmanager
async def fault_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """Where something could go wrong, and does not."""
    rules = Rules([Rule(path="/nobody-has-this-name", errno="EIO")])
    async with _tmpfs_below(lambda below: Faulty(below, rules), fill) as target:
        yield target
