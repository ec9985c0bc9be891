"""A file system without names on a disk in memory, for the page cache to work on.

It knows which block is whose, and fails a write that lands in a block of another file or of
none. New blocks have old octets in them, and lie next to each other only sometimes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from errno import EIO, ENOSPC
from random import Random

import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import B_READ, Buf
from syspuffs.emul.dead import DeadFs
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import Disk
from syspuffs.emul.specfs import spec_mount, spec_unmount
from syspuffs.emul.uvm import (
    UvmObject,
    genfs_getpages,
    genfs_putpages,
    ubc_read,
    ubc_write,
    uvm_vnp_setsize,
    uvm_vnp_terminate,
)
from syspuffs.emul.uvm.pagedaemon import FOLIO_COST
from syspuffs.emul.vnode import Vnode, vrele
from syspuffs.native.constants import (
    DEV_BSHIFT,
    PAGE_SIZE,
    PGO_ALLPAGES,
    PGO_CLEANIT,
    PGO_FREE,
    PGO_SYNCIO,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import FSCRED, Buffer, Cred, Statvfs

KIB = 1024
MIB = 1024 * KIB
OLD = b"\xff"
"""An octet that `cold` puts into no file."""


class SlowDisk(Disk):
    """A disk in memory that does what it was asked for later, in any order.

    The memory of a transfer is read or written when it is over, or when it begins: `rng` says. With
    `is_fast` all is done at once. `fail` names the next transfers that fail (None: all).
    """

    def __init__(self, size: int, rng: Random) -> None:
        super().__init__("slow", size, rdonly=False)
        self.image = bytearray(rng.randbytes(64 * KIB) * (size // (64 * KIB)))
        self.rng = rng
        self.is_fast = False
        self.queue: list[tuple[Buf, int]] = []
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.bad_reads = False
        self.bad_writes = False
        self.on_write: Callable[[Buf, int], None] = lambda bp, offset: None
        self._asked = trio.Event()

    def _start(self, bp: Buf, offset: int) -> None:
        (self.reads if bp.flags & B_READ else self.writes).append((offset, bp.bcount))
        if self.is_fast:
            self.complete(bp, offset)
            return
        if not bp.flags & B_READ and not self.bad_writes and self.rng.random() < 0.5:
            self._transfer(bp, offset)
        self.queue.append((bp, offset))
        self._asked.set()

    def _transfer(self, bp: Buf, offset: int) -> None:
        if not bp.flags & B_READ:
            self.on_write(bp, offset)
        for piece in bp.iov:
            view = memoryview(piece)
            if bp.flags & B_READ:
                view[:] = self.image[offset : offset + len(view)]
            else:
                self.image[offset : offset + len(view)] = view
            offset += len(view)

    def complete(self, bp: Buf, offset: int) -> None:
        """Do a transfer."""
        if self.bad_reads if bp.flags & B_READ else self.bad_writes:
            if bp.flags & B_READ:  # as much as half of it came
                memoryview(bp.iov[0])[: len(bp.iov[0]) // 2] = OLD * (len(bp.iov[0]) // 2)
            self._done(bp, bp.bcount, EIO)
            return
        self._transfer(bp, offset)
        self._done(bp, 0, 0)

    def step(self) -> None:
        """Complete one transfer of those that wait."""
        bp, offset = self.queue.pop(self.rng.randrange(len(self.queue)))
        self.complete(bp, offset)

    def finish(self) -> None:
        """Complete all that wait now."""
        while self.queue:
            self.step()

    async def run(self) -> None:
        """Complete transfers whenever nobody else has anything to do."""
        while True:
            await self._asked.wait()
            await wait_all_tasks_blocked()
            if self.queue:
                self.step()
            if not self.queue:
                self._asked = trio.Event()

    async def _flush(self) -> None:
        """Do nothing: there is no cache."""

    async def _close(self) -> None:
        """Do nothing."""


class File:
    """What a node of the file system is on the disk: its blocks, and its number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.blocks: dict[int, int] = {}


class BlockFs(DeadFs):
    """Files by number, in blocks of `bsize` octets of `disk`.

    `contiguity` is how often a block lies behind the one before. bmap waits now and then, if
    `lazy` says so.
    """

    before_map: Callable[[], Awaitable[None]] | None = None
    """What comes between the next question where blocks are and its answer."""

    def __init__(
        self,
        disk: SlowDisk,
        bsize: int = PAGE_SIZE,
        *,
        contiguity: float = 0.8,
        lazy: bool = False,
    ) -> None:
        super().__init__(forgives=False)
        self.disk = disk
        self.bsize = bsize
        self.contiguity = contiguity
        self.lazy = lazy
        self.rng = disk.rng
        self.free = set(range(disk.size // bsize))
        self.owner: dict[int, int] = {}
        self.files = {0: File(0)}
        self.bad_maps = False
        disk.on_write = self._check_write

    @property
    def typename(self) -> str:
        return "block"

    async def start(self) -> None:
        self.devvp = spec_mount(self.mount.kernel, self.disk)

    async def unmount(self, flags: int) -> None:
        devvp, self.devvp = self.devvp, None
        if devvp is not None:
            await spec_unmount(devvp)

    async def root(self) -> Vnode:
        vp = self.mount.vget(0)
        return vp or self.mount.insert(0, Vtype.VDIR, self.files[0])

    async def statvfs(self) -> Statvfs:
        raise VfsError(EIO)

    async def sync(self, waitfor: int, cred: Cred) -> None:
        for vp in self.mount:
            if vp.uobj is not None:
                await self.putpages(vp, 0, 0, PGO_CLEANIT | PGO_SYNCIO)

    async def inactive(self, vp: Vnode) -> bool:
        return False

    def reclaim(self, vp: Vnode) -> None:
        uvm_vnp_terminate(vp)

    def vnode(self, number: int) -> Vnode:
        """Return the vnode of a file, which is made if there is none, with a reference."""
        vp = self.mount.vget(number)
        if vp is None:
            file = self.files.setdefault(number, File(number))
            size = 0
            vp = self.mount.insert(number, Vtype.VREG, file, size=size)
            vp.uobj = UvmObject(vp, self.bsize)
        return vp

    # Blocks.

    async def bmap(self, vp: Vnode, offset: int, length: int) -> tuple[int, int]:
        assert 0 <= offset < -(-vp.size & -self.bsize)
        assert length > 0
        file: File = vp.data
        if self.lazy and self.rng.random() < 0.3:
            await wait_all_tasks_blocked()
        before_map, self.before_map = self.before_map, None
        if before_map is not None:
            await before_map()
        if self.bad_maps:
            raise VfsError(EIO, "no map")
        start = offset % self.bsize
        index = offset // self.bsize
        block = file.blocks.get(index)
        run = self.bsize - start
        while run < length:
            index += 1
            following = file.blocks.get(index)
            if following != (None if block is None else block + index - offset // self.bsize):
                break
            run += self.bsize
        blkno = -1 if block is None else (block * self.bsize + start) >> DEV_BSHIFT
        return blkno, min(run, length)

    def take(self, file: File, offset: int, end: int) -> None:
        """Take the blocks of a range. Errors: ENOSPC; none was taken then."""
        missing = [
            index
            for index in range(offset // self.bsize, -(-end // self.bsize))
            if index not in file.blocks
        ]
        if len(missing) > len(self.free):
            raise VfsError(ENOSPC)
        for index in missing:
            near = file.blocks.get(index - 1, -2) + 1
            if near in self.free and self.rng.random() < self.contiguity:
                block = near
            else:
                block = self.rng.choice(sorted(self.free))
            self.free.remove(block)
            self.owner[block] = file.number
            file.blocks[index] = block

    def give_back(self, file: File, first: int) -> None:
        """Free the blocks from the one of index `first` on."""
        for index in [index for index in file.blocks if index >= first]:
            block = file.blocks.pop(index)
            del self.owner[block]
            self.free.add(block)

    def _check_write(self, bp: Buf, offset: int) -> None:
        file: File = bp.vp.data
        for block in range(offset // self.bsize, -(-(offset + bp.bcount) // self.bsize)):
            assert self.owner.get(block) == file.number, f"block {block} is not of file {file}"

    def on_disk(self, vp: Vnode) -> bytes:
        """Return what is on the disk of a file, whole blocks, zeros for holes."""
        file: File = vp.data
        count = -(-vp.size // self.bsize)
        zeros = bytes(self.bsize)
        return b"".join(
            zeros
            if (block := file.blocks.get(index)) is None
            else self.disk.image[block * self.bsize : (block + 1) * self.bsize]
            for index in range(count)
        )

    # Data.

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        return await ubc_read(vp, offset, resid)

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        file: File = vp.data

        async def alloc() -> None:
            if self.lazy and self.rng.random() < 0.3:
                await wait_all_tasks_blocked()
            self.take(file, offset, offset + len(data))

        await ubc_write(vp, offset, data, alloc)

    async def truncate(self, vp: Vnode, size: int) -> None:
        """Set the size of a file."""
        await uvm_vnp_setsize(vp, size)
        self.give_back(vp.data, -(-size // self.bsize))

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        await self.putpages(vp, offlo, offhi, PGO_CLEANIT | PGO_SYNCIO)

    async def getpages(self, vp: Vnode, offset: int, length: int, flags: int) -> None:
        await genfs_getpages(vp, offset, length, flags)

    async def putpages(self, vp: Vnode, offlo: int, offhi: int, flags: int) -> None:
        await genfs_putpages(vp, offlo, offhi, flags)


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
