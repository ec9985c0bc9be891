"""The buffer cache against a model: random operations by many tasks, answered in any order."""

from __future__ import annotations

import struct
from random import Random

import pytest
import trio
import trio.testing

from syspuffs.emul.bio import (
    B_AGE,
    B_BUSY,
    B_DELWRI,
    B_DONE,
    B_INVAL,
    bawrite,
    bdwrite,
    bread,
    breadn,
    brelse,
    bufs_sync,
    bwillwrite,
    bwrite,
    getblk,
    vflushbuf,
)
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.vnode import Vnode
from syspuffs.native.errors import VfsError

from ...support.logs import LogWatch
from .told import BSIZE, SECTORS, ToldDisk, device

BLOCKS = 40
TASKS = 8
STEPS = 120
_STAMP = struct.Struct("<II")


class Model:
    """What each block has in it: a version that grows with every change.

    A block's version is what its last owner wrote; nobody else may change it, so it is also what
    the next one has to find. The medium may be behind, but not behind what a sync has promised.
    """

    def __init__(self, disk: ToldDisk, devvp: Vnode, seed: int) -> None:
        self.disk = disk
        self.devvp = devvp
        self.cache = devvp.mount.kernel.bufs
        self.rng = Random(seed)
        self.versions = [0] * BLOCKS
        self.errors = 0

    def stamp(self, number: int, data: bytearray | bytes) -> int:
        """Return the version of what is in a block."""
        block, version = _STAMP.unpack_from(data)
        assert (block, data[-1]) == (number, version & 0xFF) or (block, version) == (0, 0)
        return int(version)

    async def read(self, number: int) -> None:
        if self.rng.random() < 0.3:
            ahead = [(number + step) % BLOCKS * SECTORS for step in (1, 2)]
            bp = await breadn(self.devvp, number * SECTORS, BSIZE, ahead)
        else:
            bp = await bread(self.devvp, number * SECTORS, BSIZE)
        assert self.stamp(number, bp.data) == self.versions[number]
        if self.rng.random() < 0.2:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            assert self.stamp(number, bp.data) == self.versions[number]
        brelse(bp, B_AGE if self.rng.random() < 0.2 else 0)

    async def change(self, number: int) -> None:
        rng = self.rng
        await bwillwrite(self.devvp)
        if rng.random() < 0.5:
            bp = await bread(self.devvp, number * SECTORS, BSIZE)
            assert self.stamp(number, bp.data) == self.versions[number]
        else:
            bp = await getblk(self.devvp, number * SECTORS, BSIZE)
        version = self.versions[number] + 1
        _STAMP.pack_into(bp.data, 0, number, version)
        bp.data[-1] = version & 0xFF
        if rng.random() < 0.2:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
        self.versions[number] = version  # no await up to the release: a sync has to know of it
        how = rng.random()
        if how < 0.6:
            bdwrite(bp)
        elif how < 0.8:
            bawrite(bp)
        else:
            await bwrite(bp)
            self.promised({number: version})

    async def sync(self, number: int) -> None:
        promise = dict(enumerate(self.versions))
        if self.rng.random() < 0.3:
            await vflushbuf(self.devvp, True)
        else:
            some = {number, (number + 1) % BLOCKS, (number + 7) % BLOCKS}
            promise = {number: promise[number] for number in some}
            found = (self.cache.find(self.devvp, number * SECTORS) for number in some)
            await bufs_sync([bp for bp in found if bp is not None])
        self.promised(promise)

    def promised(self, promise: dict[int, int]) -> None:
        """Check that the medium has at least these versions."""
        for number, version in promise.items():
            assert self.stamp(number, self.disk.block(number)) >= version

    async def work(self) -> None:
        rng = self.rng
        for _ in range(STEPS):
            number = min(rng.randrange(BLOCKS), rng.randrange(BLOCKS))  # some more than others
            operation = rng.choices((self.read, self.change, self.sync), (6, 6, 1))[0]
            try:
                await operation(number)
            except VfsError:
                self.errors += 1
            self.check()

    def check(self) -> None:
        """Check what holds whenever nobody runs."""
        buffers = self.cache.buffers(self.devvp)
        dirty = {bp for bp in buffers if bp.flags & B_DELWRI}
        assert set(self.devvp.dirtyblks or ()) == dirty
        statistics = self.cache.statistics()
        assert statistics.octets == len(buffers) * BSIZE
        assert statistics.dirty == len(dirty) * BSIZE
        busy = {bp for bp in buffers if bp.flags & B_BUSY}
        assert len(buffers) <= max(self.cache.limit // BSIZE, len(dirty | busy))
        writes = [bp for bp in self.disk.queue if bp.flags & B_DELWRI]
        assert self.devvp.numoutput == len(writes)
        assert busy.issuperset(self.disk.queue)
        for bp in buffers:
            assert bp in busy or (not bp.waiters and not bp.flags & B_INVAL)
            assert bp in busy or bp.flags & (B_DONE | B_DELWRI)


@pytest.mark.parametrize("errors", [0.0, 0.25])
@pytest.mark.parametrize("seed", range(8))
async def test_model(
    seed: int, errors: float, log_watch: LogWatch, autojump_clock: trio.testing.MockClock
) -> None:
    log_watch.expect("delayed writes fail with EIO")
    disk = ToldDisk(BLOCKS)
    kernel = Kernel(bufmem=16 * BSIZE)
    kernel.bufs.lodirty = 4 * BSIZE
    kernel.bufs.hidirty = 8 * BSIZE
    async with device(disk, kernel) as devvp:
        model = Model(disk, devvp, seed)
        async with trio.open_nursery() as devices:
            with trio.CancelScope() as scope:
                devices.start_soon(disk.drive, Random(seed), errors)
                async with trio.open_nursery() as nursery:
                    for _ in range(TASKS):
                        nursery.start_soon(model.work)
                scope.cancel()
            devices.cancel_scope.cancel()
        assert bool(model.errors) == bool(errors)
        async with trio.open_nursery() as devices:
            devices.start_soon(disk.drive, Random(seed))
            await vflushbuf(devvp, True)  # all is well again: nothing was lost
            devices.cancel_scope.cancel()
        disk.complete_all()  # what was read ahead and nobody waits for
        assert not devvp.dirtyblks
        for number, version in enumerate(model.versions):
            assert model.stamp(number, disk.block(number)) == version
        model.check()
        statistics = kernel.bufs.statistics()
        assert min(statistics.hits, statistics.evicted, statistics.waits, statistics.throttled) > 0
