"""A file system without names on a disk in memory, for the page cache to work on.

It knows which block is whose, and fails a write that lands in a block of another file or of
none. New blocks have old octets in them, and lie next to each other only sometimes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from errno import EIO, ENOSPC

from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import Buf
from syspuffs.emul.dead import DeadFs
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
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import (
    DEV_BSHIFT,
    PAGE_SIZE,
    PGO_CLEANIT,
    PGO_SYNCIO,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Buffer, Cred, Statvfs

from .slowdisk import SlowDisk


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
