"""Operations on one node: attributes, opening, data."""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL, EISDIR, EPERM
from time import time_ns
from typing import Final

from ...native.constants import (
    DEV_BSIZE,
    FAPPEND,
    FSYNC_CACHE,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FSYNC_LAZY,
    FSYNC_VFS,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    MAXPHYS,
    NAME_MAX,
    PATH_MAX,
    PGO_CLEANIT,
    PGO_SYNCIO,
    TTL_FOREVER,
    VWRITE,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Buffer, Cred, Flock, Vattr
from ..bio import Buf, brelse, bwillwrite
from ..cred import mode_after_write
from ..lockf import lf_advlock
from ..unixnode import (
    check_node,
    check_open,
    check_resize,
    check_setattr,
    close_file,
    is_atime_due,
    open_file,
)
from ..uvm import (
    genfs_getpages,
    genfs_putpages,
    ubc_read,
    ubc_write,
    ubc_zerorange,
    uvm_vnp_setsize,
)
from ..vnode import Vnode
from .features import RO_COMPAT_LARGE_FILE
from .inode import APPEND_FL, FAST_SYMLINK_MAX, IMMUTABLE_FL, NOATIME_FL
from .node import Node
from .vfsops import VfsOps

LINK_MAX: Final = 32_000
"""How many names a file may have, and how many subdirectories, as Linux's ext2 has it."""
_LARGE: Final = (1 << 31) - 1

_PATHCONF: Final = {
    os.pathconf_names[name]: value
    for name, value in {
        "PC_LINK_MAX": LINK_MAX,
        "PC_NAME_MAX": NAME_MAX,
        "PC_PATH_MAX": PATH_MAX,
        "PC_PIPE_BUF": 4096,
        "PC_CHOWN_RESTRICTED": 1,
        "PC_NO_TRUNC": 1,
        "PC_FILESIZEBITS": 64,
    }.items()
}
_SYMLINK_MAX: Final = os.pathconf_names["PC_SYMLINK_MAX"]


def regular(vp: Vnode) -> Node:
    """Return the node of a regular file. Errors: EISDIR, EINVAL for what else has no data."""
    node: Node = vp.data
    if node.vtype == Vtype.VREG:
        return node
    raise VfsError(EISDIR if node.vtype == Vtype.VDIR else EINVAL)


def check_mutable(node: Node, *, append: bool = False) -> None:
    """Return if the node is not marked as one that nobody may change, root included.

    With `append` one that may only grow will do. Errors: EPERM.
    """
    if node.flags & (IMMUTABLE_FL if append else IMMUTABLE_FL | APPEND_FL):
        raise VfsError(EPERM, "immutable, or append-only")


class FileOps(VfsOps):
    """The vnode operations that concern no name."""

    def _accessed(self, node: Node) -> None:
        """Keep the time of access as Linux' relatime does."""
        now = time_ns()
        if is_atime_due(node, now) and not self.mount.is_rdonly and not node.flags & NOATIME_FL:
            node.atime = node.rounded(now)
            self._order.changed(node)

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """Check `mode` against the permissions; count writers.

        Errors: EACCES, EISDIR, ENXIO; EPERM (a file that is immutable, or not opened to append).
        """
        node: Node = vp.data
        if node.vtype != Vtype.VREG:
            check_open(node, mode, cred)
            return 0
        if mode & FWRITE:
            check_mutable(node, append=bool(mode & FAPPEND))
        open_file(node, mode, cred)
        return 0

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        """Count writers."""
        node: Node | None = vp.data
        if node is not None and node.vtype == Vtype.VREG:
            close_file(node, fflag)

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """Check the permissions. Errors: EPERM (immutable), EACCES."""
        node: Node = vp.data
        if mode & VWRITE:
            check_mutable(node, append=True)
        check_node(node, cred, mode)

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """Return all attributes; they hold until somebody changes them here."""
        return self._vattr(vp), TTL_FOREVER

    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change mode, owner, group, times and size; see `check_setattr`, `check_resize`.

        Errors, first match wins; nothing has changed then:
            EPERM       immutable or append-only
            EOPNOTSUPP EINVAL EPERM     see `check_setattr`
            EISDIR      the size of a directory
            EINVAL      the size of any other node that has none, or one below 0
            EFBIG       a size beyond `Blocks.size_max`
            EACCES      the size, without permission to write
            EIO         the block with the new end cannot be read
        """
        node: Node = vp.data
        check_mutable(node)
        change = check_setattr(node, va, cred)
        now = time_ns()
        if va.size is not None:
            regular(vp)
            self._check_size(va.size)
            check_resize(node, cred)
            await bwillwrite(self.devvp)
            await self._resize(vp, node, va.size)
            node.mtime = node.rounded(now)
        node.mode, node.uid, node.gid = change
        if va.atime is not None:
            node.atime = node.rounded(va.atime)
        if va.mtime is not None:
            node.mtime = node.rounded(va.mtime)
        if va.birthtime is not None and node.has_birthtime:
            node.birthtime = node.rounded(va.birthtime)
        node.ctime = node.rounded(now if va.ctime is None else va.ctime)
        self._order.changed(node)
        return self._vattr(vp), TTL_FOREVER

    def _check_size(self, size: int) -> None:
        if size < 0:
            raise VfsError(EINVAL)
        if size > self._blocks.size_max:
            raise VfsError(EFBIG)

    async def _resize(self, vp: Vnode, node: Node, size: int) -> None:
        """Set the size. Errors: EIO; nothing has changed then."""
        before = vp.size
        await uvm_vnp_setsize(vp, size)
        self._sized(vp, node)
        if size < before:
            node.goal = 0
            await self._blocks.free(node, -(-size // self._volume.block_size))

    def _sized(self, vp: Vnode, node: Node) -> None:
        """Take over the size that the page cache has."""
        if node.size != vp.size:
            node.size = vp.size
            self._order.changed(node, data=True)
            if node.size > _LARGE:
                self._volume.sb.ro_compat |= RO_COMPAT_LARGE_FILE

    # Data.

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Return octets, zeros for holes."""
        node = regular(vp)
        if offset < 0 or resid < 0:
            raise VfsError(EINVAL)
        self._accessed(node)
        return await ubc_read(vp, offset, resid)

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Store all of `data`, or nothing. Errors: EINVAL, EISDIR, EFBIG, ENOSPC, EIO."""
        node = regular(vp)
        if ioflag & IO_APPEND:
            offset = vp.size
        if offset < 0:
            raise VfsError(EINVAL)
        if not len(data):
            return
        await self._write(vp, node, offset, data, cred)
        node.mtime = node.ctime = node.rounded(time_ns())
        node.mode = mode_after_write(cred, Vtype.VREG, node.mode)
        self._order.changed(node)
        if ioflag & IO_SYNC:
            await self.fsync(vp, FSYNC_WAIT | FSYNC_DATAONLY, 0, 0, cred)

    async def _write(self, vp: Vnode, node: Node, offset: int, data: Buffer, cred: Cred) -> None:
        end = offset + len(data)
        if end > self._blocks.size_max:
            raise VfsError(EFBIG)
        await bwillwrite(self.devvp)
        size = self._volume.block_size

        async def alloc() -> None:
            await self._blocks.allocate(node, offset // size, -(-end // size), cred)

        try:
            await ubc_write(vp, offset, data, alloc)
        finally:
            self._sized(vp, node)

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Make the file and its names stable, a directory with what it names.

        Without FSYNC_WAIT its data begin their way; FSYNC_VFS waits for these and no more,
        FSYNC_CLOSE for nothing at all. With FSYNC_DATAONLY times may be left behind.
        Errors: EIO, ENOSPC.
        """
        if self._volume.is_rdonly or flags & FSYNC_CLOSE:
            return
        node: Node = vp.data
        wait = flags & (FSYNC_WAIT | FSYNC_CACHE) and not flags & FSYNC_LAZY
        if vp.uobj is not None:
            await genfs_putpages(vp, offlo, offhi, PGO_CLEANIT | (PGO_SYNCIO if wait else 0))
        if not wait or flags & FSYNC_VFS:
            return
        dep = node.dep
        if dep is not None and (
            not flags & FSYNC_DATAONLY or dep.changed_data or dep.blocks or dep.names
        ):
            await self._order.commit(node)
        else:
            await self._volume.flush()

    async def bmap(self, vp: Vnode, offset: int, length: int) -> tuple[int, int]:
        """Say where octets of a regular file are."""
        node: Node = vp.data
        size = self._volume.block_size
        lbn, skip = divmod(offset, size)
        block, run = await self._blocks.map(node, lbn, -(-(skip + length) // size))
        octets = min(run * size - skip, length)
        if not block:
            return -1, octets
        return self._volume.blkno(block) + skip // DEV_BSIZE, octets

    def strategy(self, vp: Vnode, bp: Buf) -> None:
        """Hand a transfer to the device."""
        self.devvp.fs.strategy(self.devvp, bp)

    async def getpages(self, vp: Vnode, offset: int, length: int, flags: int) -> None:
        """Make pages valid."""
        await genfs_getpages(vp, offset, length, flags)

    async def putpages(self, vp: Vnode, offlo: int, offhi: int, flags: int) -> None:
        """Write pages, and let go of them."""
        await genfs_putpages(vp, offlo, offhi, flags)

    async def fallocate(self, vp: Vnode, offset: int, length: int) -> None:
        """Fill holes with zeros, and extend the file if it ends before: ext2 has no other way.

        Errors: EINVAL, EISDIR, EFBIG; ENOSPC, EIO (some of it may have been done then).
        """
        node = regular(vp)
        if offset < 0 or length <= 0:
            raise VfsError(EINVAL)
        check_mutable(node)
        end = offset + length
        if end > self._blocks.size_max:
            raise VfsError(EFBIG)
        size = self._volume.block_size
        cred = Cred(node.uid, node.gid)
        zeros = memoryview(bytes(min(MAXPHYS, length)))
        while offset < end:
            block, run = await self._blocks.map(node, offset // size, -(-end // size))
            stop = min((offset // size + run) * size, end)
            while offset < stop:
                here = min(stop - offset, len(zeros))
                if not block:
                    await self._write(vp, node, offset, zeros[:here], cred)
                offset += here
        if end > vp.size:
            await self._resize(vp, node, end)
        node.mtime = node.ctime = node.rounded(time_ns())
        self._order.changed(node)

    async def fdiscard(self, vp: Vnode, offset: int, length: int) -> None:
        """Make a range read as zeros and free its whole blocks; the size stays.

        Errors: EINVAL, EISDIR; EIO (some of it may have been done then).
        """
        node = regular(vp)
        if offset < 0 or length <= 0:
            raise VfsError(EINVAL)
        check_mutable(node)
        await bwillwrite(self.devvp)
        size = self._volume.block_size
        end = min(offset + length, vp.size)
        while offset < end:
            block, run = await self._blocks.map(node, offset // size, -(-end // size))
            stop = min((offset // size + run) * size, end)
            while offset < stop:
                here = min(stop, (offset & -MAXPHYS) + MAXPHYS)
                if block:
                    await self._punch(vp, node, offset, here)
                offset = here
        node.mtime = node.ctime = node.rounded(time_ns())
        self._order.changed(node)

    async def _punch(self, vp: Vnode, node: Node, offset: int, end: int) -> None:
        """Make zeros of a range that has blocks, and free those that lie in it as a whole."""
        await ubc_zerorange(vp, offset, end - offset)
        size = self._volume.block_size
        first, last = -(-offset // size), end // size
        if end == vp.size:
            last = -(-end // size)
        if first < last:
            # Afterwards all pages are valid and clean, so none goes to a block that was freed or
            # comes from there; and nobody can make them dirty while we have the vnode.
            await genfs_putpages(vp, offset, end, PGO_CLEANIT | PGO_SYNCIO)
            await self._blocks.free(node, first, last)

    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        """Return the target. Errors: EINVAL, EIO, EUCLEAN."""
        node: Node = vp.data
        if node.vtype != Vtype.VLNK:
            raise VfsError(EINVAL)
        limit = self._volume.block_size - 1
        if self._is_fast_link(node):
            limit, target = FAST_SYMLINK_MAX, node.fast_target
        else:
            block, _ = await self._blocks.map(node, 0, 1)
            if not block:
                raise self._volume.corrupt(f"link {node.ino}: no target")
            bp = await self._volume.bread(block)
            target = bytes(bp.data[: min(node.size, limit)])
            brelse(bp)
        if not 0 < node.size <= limit or b"\0" in target:
            raise self._volume.corrupt(f"link {node.ino}: target of {node.size} octets")
        self._accessed(node)
        return target

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """Lock a range; the kernel keeps the locks."""
        return await lf_advlock(vp, owner, op, flock, flags)

    async def pathconf(self, vp: Vnode, name: int) -> int:
        """Return a limit. Errors: EINVAL."""
        if name == _SYMLINK_MAX:
            return min(self._volume.block_size, PATH_MAX) - 1
        try:
            return _PATHCONF[name]
        except KeyError:
            raise VfsError(EINVAL) from None
