"""A kernel with a `BlockFs`, and a client of it that keeps the rules of locks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.uvm import UvmObject
from syspuffs.emul.uvm.pagedaemon import FOLIO_COST
from syspuffs.emul.vnode import Vnode, vrele
from syspuffs.native.constants import (
    PAGE_SIZE,
    PGO_ALLPAGES,
    PGO_CLEANIT,
    PGO_FREE,
    PGO_SYNCIO,
)
from syspuffs.native.records import FSCRED, Buffer

from .blockfs import BlockFs
from .slowdisk import MIB, SlowDisk


class Bench:
    """A kernel with one such file system, and a client that keeps the rules of locks."""

    cred = FSCRED

    def __init__(self, kernel: Kernel, fs: BlockFs) -> None:
        self.kernel = kernel
        self.memory = kernel.pages
        self.fs = fs
        self.disk = fs.disk

    async def read(self, vp: Vnode, offset: int = 0, resid: int = 1 << 40) -> bytes:
        await vp.lock.shared()
        try:
            return bytes(await self.fs.read(vp, offset, resid, 0, FSCRED))
        finally:
            vp.lock.release()

    async def write(self, vp: Vnode, offset: int, data: Buffer) -> None:
        await self._exclusively(vp, lambda: self.fs.write(vp, offset, data, 0, FSCRED))

    async def truncate(self, vp: Vnode, size: int) -> None:
        await self._exclusively(vp, lambda: self.fs.truncate(vp, size))

    async def _exclusively(self, vp: Vnode, operation: Callable[[], Awaitable[None]]) -> None:
        await vp.lock.exclusive()
        try:
            await operation()
        finally:
            vp.lock.release()

    async def fsync(self, vp: Vnode) -> None:
        await vp.lock.shared()
        try:
            await self.fs.fsync(vp, 0, 0, 0, FSCRED)
        finally:
            vp.lock.release()

    def check_accounts(self) -> None:
        """Check that the page memory counts what there is."""
        folios = [
            folio
            for mount in self.kernel.mounts
            for vp in mount
            if vp.uobj is not None
            for folio in vp.uobj.folios.values()
        ]
        figures = self.memory.statistics()
        assert figures.folios == len(folios)
        assert figures.octets == sum(len(folio.data) + FOLIO_COST for folio in folios)
        for name in ("dirty", "failed", "writing"):
            count = sum(getattr(folio, name).bit_count() for folio in folios)
            assert getattr(figures, name) == count

    async def quiet(self) -> None:
        """Return when the disk, which is driven, has nothing to do."""
        while self.disk.queue:
            await wait_all_tasks_blocked()

    def heal(self) -> None:
        """Make the disk fast and well, so that everything ends."""
        self.disk.is_fast = True
        self.disk.bad_reads = self.disk.bad_writes = self.fs.bad_maps = False
        self.disk.finish()

    @asynccontextmanager
    async def nursery(self) -> AsyncIterator[trio.Nursery]:
        """Open a nursery in which tasks may wait for the disk; a failure heals that."""
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException:
                self.heal()
                raise

    async def putpages(self, vp: Vnode, flags: int, lo: int = 0, hi: int = 0) -> None:
        """Without a lock, as the page daemon does it."""
        await self.fs.putpages(vp, lo, hi, flags | (0 if lo or hi else PGO_ALLPAGES))


@asynccontextmanager
async def bench(
    *,
    bsize: int = PAGE_SIZE,
    size: int = 16 * MIB,
    limit: int = 64 * MIB,
    seed: int = 0,
    contiguity: float = 1,
    lazy: bool = False,
    driven: bool = True,
) -> AsyncIterator[Bench]:
    """Give a `Bench`; if `driven`, its disk completes what it is asked for by itself.

    In the end the disk is fast and well, so that everything ends, whatever has failed.
    """
    disk = SlowDisk(size, Random(seed))
    fs = BlockFs(disk, bsize, contiguity=contiguity, lazy=lazy)
    async with trio.open_nursery() as nursery:
        async with Kernel(pagemem=limit) as kernel:
            mount = await kernel.mount(fs)
            if driven:
                nursery.start_soon(disk.run)
            here = Bench(kernel, fs)
            try:
                yield here
            finally:
                here.heal()
            await kernel.unmount(mount)
        nursery.cancel_scope.cancel()


async def put(*vps: Vnode) -> None:
    """Drop references."""
    for vp in vps:
        await vrele(vp)


def pages(vp: Vnode) -> UvmObject:
    assert isinstance(vp.uobj, UvmObject)
    return vp.uobj


async def cold(here: Bench, size: int) -> Vnode:
    """Return a file of `size` octets that is on the disk and not in memory."""
    vp = here.fs.vnode(1)
    here.disk.is_fast = True
    await here.write(vp, 0, (bytes(range(1, 251)) * (size // 250 + 1))[:size])
    await here.putpages(vp, PGO_CLEANIT | PGO_FREE | PGO_SYNCIO)
    assert not pages(vp).folios
    here.disk.is_fast = False
    here.disk.reads.clear()
    here.disk.writes.clear()
    return vp


@asynccontextmanager
async def second(here: Bench) -> AsyncIterator[Bench]:
    """Give another mount, with a disk of its own, in the kernel of `here`."""
    fs = BlockFs(SlowDisk(16 * MIB, Random(1)), contiguity=1)
    mount = await here.kernel.mount(fs)
    there = Bench(here.kernel, fs)
    try:
        yield there
    finally:
        there.heal()
    await here.kernel.unmount(mount)
