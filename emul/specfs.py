"""specfs: the device nodes of a kernel, one for each disk that a file system uses.

A file system gets its device with `spec_mount` and gives it back with `spec_unmount`. What it
reads and writes through buffers of the device and what others read and write through the node
is the same, for the node uses the same buffers.

The mount of the nodes is hidden: it stands in no list of mounts, and no name leads to it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from errno import EBUSY, EINVAL, ENOSPC, ENOTDIR, EOPNOTSUPP, EROFS
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from ..native.constants import (
    DEV_BSHIFT,
    DEV_BSIZE,
    FSYNC_CACHE,
    FSYNC_WAIT,
    FWRITE,
    IO_SYNC,
    TTL_FOREVER,
    Vtype,
)
from ..native.errors import VfsError
from ..native.records import Buffer, Componentname, Cred, Statvfs, Vattr
from .bio import (
    B_READ,
    B_WRITE,
    Buf,
    bdwrite,
    bread,
    breadn,
    brelse,
    bwillwrite,
    bwrite,
    getblk,
    vflushbuf,
    vinvalbuf,
)
from .mount import Mount
from .rumpuser.disk import CLOSE_GRACE, Disk
from .vfs import Entry, FileSystem, Lookup
from .vnode import Vnode, vgone, vrele

if TYPE_CHECKING:
    from .kernel import Kernel

_logger = logging.getLogger(__name__)

BLKDEV_IOSIZE: Final = 4096
"""Largest size of a device's buffers before its file system says what it wants, octets."""
_READ_AHEAD: Final = 8
"""Blocks of a read that are begun before the first has come."""


class SpecNode:
    """What is behind a device node: the disk, and the size of its buffers, octets."""

    __slots__ = ("blksize", "disk")

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        # The largest that divides the disk, so that every octet can be reached.
        self.blksize = min(disk.size & -disk.size or DEV_BSIZE, BLKDEV_IOSIZE)

    @property
    def end(self) -> int:
        """Where the last whole block ends, octets."""
        return self.disk.size - self.disk.size % self.blksize


def mount_devices(kernel: Kernel) -> Mount:
    """Return the mount of a new kernel's device nodes (for the kernel)."""
    fs = SpecFs()
    fs.mount = Mount(kernel, fs, rdonly=False)
    return fs.mount


def spec_mount(kernel: Kernel, disk: Disk) -> Vnode:
    """Return the device vnode of `disk`, with a reference, for one file system alone.

    From then on the disk belongs to the node: `spec_unmount` closes it. Errors: EBUSY somebody
    has it mounted.
    """
    devices = kernel.devices
    if any(vp.key is disk for vp in devices):
        raise VfsError(EBUSY, f"{disk.name} is mounted")
    return devices.insert(disk, Vtype.VBLK, SpecNode(disk), size=disk.size)


async def spec_setblksize(devvp: Vnode, blksize: int) -> None:
    """Let the buffers of a device have this size, octets, a power of two from DEV_BSIZE on.

    For a file system that has read its super block, by `read` of the device node, and knows the
    size of its blocks now. Octets that fill no whole block at the end are not reached any more.
    Errors: as `vinvalbuf` with `save`.
    """
    node: SpecNode = devvp.data
    if blksize < DEV_BSIZE or blksize & (blksize - 1):
        raise RuntimeError(f"{blksize} is no size of a block")
    await vinvalbuf(devvp, True)
    node.blksize = blksize


async def spec_unmount(devvp: Vnode) -> None:
    """Give back a device and close its disk; the caller's reference is gone afterwards.

    The disk first: who still waits for it is answered in bounded time, then nothing is under way
    any more. What is dirty is lost, and the log says so: the caller has written it (`fsync`),
    unless he was forced. Buffers that a task has in its hands are waited for, CLOSE_GRACE at most.
    Not cancellable.
    """
    node: SpecNode = devvp.data
    await node.disk.close()
    with trio.move_on_after(CLOSE_GRACE, shield=True) as scope:
        await vinvalbuf(devvp, False)
    if scope.cancelled_caught:
        _logger.error("%s: somebody does not release its buffers", node.disk.name)
        devvp.mount.kernel.bufs.abandon(devvp)
    await vgone(devvp)
    await vrele(devvp)


def _no_directory() -> NoReturn:
    raise VfsError(ENOTDIR, "a device")


class SpecFs(FileSystem):
    """Device nodes. `vp.data` is a SpecNode; the disk is the key."""

    @property
    def typename(self) -> str:
        """Name of the type."""
        return "specfs"

    @property
    def mntfromname(self) -> bytes:
        """Nothing in particular."""
        return b"specfs"

    async def root(self) -> Vnode:
        """Fail: there is no directory of devices."""
        raise VfsError(EOPNOTSUPP)

    async def statvfs(self) -> Statvfs:
        """Fail: a device is no file system."""
        raise VfsError(EOPNOTSUPP)

    async def unmount(self, flags: int) -> None:
        """Close the disks that nobody gave back."""
        for vp in self.mount:
            await spec_unmount(vp)

    # Data.

    def strategy(self, vp: Vnode, bp: Buf) -> None:
        """Begin a transfer; see `Disk.strategy`. Counts a write as output of `bp.vp`."""
        flags = bp.flags & (B_READ | B_WRITE)
        if bp.dev is not None or flags == 0 or flags == B_READ | B_WRITE:
            raise RuntimeError(f"strategy of {bp!r}")
        node: SpecNode = vp.data
        if flags == B_WRITE:
            bp.vp.numoutput += 1
        bp.dev = node.disk
        node.disk.strategy(bp)

    async def bmap(self, vp: Vnode, offset: int, length: int) -> tuple[int, int]:
        """Return the address itself."""
        return offset >> DEV_BSHIFT, length

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """Check that the disk can be written if that is wanted. Errors: EROFS."""
        node: SpecNode = vp.data
        if mode & FWRITE and node.disk.is_rdonly:
            raise VfsError(EROFS, node.disk.name)
        return 0

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Return octets of the disk, through its buffers."""
        node: SpecNode = vp.data
        if offset < 0 or resid < 0:
            raise VfsError(EINVAL)
        size = node.blksize
        end = min(offset + resid, node.end)
        pieces = []
        while offset < end:
            start = offset % size
            base = offset - start
            ahead = range(base + size, min(end, base + size * (_READ_AHEAD + 1)), size)
            bp = await breadn(
                vp, base >> DEV_BSHIFT, size, [there >> DEV_BSHIFT for there in ahead]
            )
            pieces.append(bytes(bp.data[start : min(size, end - base)]))
            brelse(bp)
            offset = base + size
        return b"".join(pieces)

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Write octets through the buffers, with IO_SYNC to the disk. Errors: EROFS, ENOSPC."""
        node: SpecNode = vp.data
        if offset < 0:
            raise VfsError(EINVAL)
        if node.disk.is_rdonly:
            raise VfsError(EROFS, node.disk.name)
        end = offset + len(data)
        if end > node.end:
            raise VfsError(ENOSPC, "beyond the end of the device")
        size = node.blksize
        done = 0
        while offset < end:
            await bwillwrite(vp)
            start = offset % size
            blkno = (offset - start) >> DEV_BSHIFT
            here = min(size - start, end - offset)
            bp = await (getblk if here == size else bread)(vp, blkno, size)
            bp.data[start : start + here] = data[done : done + here]
            if ioflag & IO_SYNC:
                await bwrite(bp)
            else:
                bdwrite(bp)
            offset += here
            done += here

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Write what is dirty; with FSYNC_WAIT or FSYNC_CACHE return when the medium has it.

        The whole device, whatever the range says.
        """
        node: SpecNode = vp.data
        wait = bool(flags & (FSYNC_WAIT | FSYNC_CACHE))
        await vflushbuf(vp, wait)
        if wait:
            await node.disk.flush()

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """Return the size of the disk, and that it is root's."""
        node: SpecNode = vp.data
        return Vattr(
            vtype=vp.vtype,
            mode=0o600,
            nlink=1,
            uid=0,
            gid=0,
            fsid=self.mount.serial,
            fileid=vp.serial,
            size=node.disk.size,
            blocksize=node.blksize,
            atime=0,
            mtime=0,
            ctime=0,
            bytes=0,
        ), TTL_FOREVER

    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Fail: the node of a disk is what it is."""
        raise VfsError(EOPNOTSUPP)

    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        """Fail: no link."""
        raise VfsError(EINVAL)

    async def inactive(self, vp: Vnode) -> bool:
        """Let the node go at once: who had it has closed the disk."""
        return True

    def reclaim(self, vp: Vnode) -> None:
        """Do nothing: the disk is closed."""

    # Names, which a device has none of.

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        """Fail."""
        _no_directory()

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Fail."""
        _no_directory()

    async def mknod(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Fail."""
        _no_directory()

    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Fail."""
        _no_directory()

    async def symlink(self, dvp: Vnode, cn: Componentname, va: Vattr, target: bytes) -> Lookup:
        """Fail."""
        _no_directory()

    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Fail."""
        _no_directory()

    async def link(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> tuple[Vattr, int]:
        """Fail."""
        _no_directory()

    async def rename(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
    ) -> None:
        """Fail."""
        _no_directory()

    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Fail."""
        _no_directory()

    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        """Fail."""
        _no_directory()
