"""Operations on one node: attributes, opening, data."""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL, EISDIR, ENOSPC
from time import time_ns
from typing import Final

from ...native.constants import (
    IO_APPEND,
    NAME_MAX,
    PATH_MAX,
    TTL_FOREVER,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Buffer, Cred, Flock, Vattr
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
from ..uvm import ubc_read, ubc_write, uvm_vnp_setsize
from ..vnode import Vnode
from .node import Node, RegularFile, SymbolicLink
from .vfsops import VfsOps

SIZE_MAX: Final = 2**63 - 1
"""Largest size of a file, octets."""
LINK_MAX: Final = 2**31 - 1

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
        "PC_SYMLINK_MAX": PATH_MAX - 1,
    }.items()
}


def regular(vp: Vnode) -> RegularFile:
    """Return the file of `vp`. Errors: EISDIR, EINVAL for what else has no data."""
    node = vp.data
    if type(node) is RegularFile:
        return node
    raise VfsError(EISDIR if vp.vtype == Vtype.VDIR else EINVAL)


class FileOps(VfsOps):
    """The vnode operations that concern no name."""

    def _accessed(self, node: Node) -> None:
        """Keep the time of access as Linux' relatime does."""
        now = time_ns()
        if is_atime_due(node, now) and not self.mount.is_rdonly:
            node.atime = now

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """Check `mode` against the permissions; count writers. Errors: EACCES, EISDIR, ENXIO."""
        node: Node = vp.data
        if type(node) is RegularFile:
            open_file(node, mode, cred)
        else:
            check_open(node, mode, cred)
        return 0

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        """Count writers."""
        node = vp.data
        if type(node) is RegularFile:
            close_file(node, fflag)

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """Check the permissions."""
        check_node(vp.data, cred, mode)

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """Return all attributes; they hold until somebody changes them here."""
        return self._vattr(vp.data), TTL_FOREVER

    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change mode, owner, group, times and size, all or nothing; see `check_setattr`.

        Errors, first match wins:
            EOPNOTSUPP  `flags`
            EINVAL      anything else that cannot be set; a size below 0
            EPERM       owner, group, mode or times by whom they do not belong to
            EISDIR      the size of a directory
            EINVAL      the size of any other node that has none
            EFBIG       a size beyond SIZE_MAX
            EACCES      the size, without permission to write
        """
        node: Node = vp.data
        # All checks first; below them nothing fails.
        change = check_setattr(node, va, cred)
        if va.size is not None:
            self._check_size(vp, va.size, cred)
        now = time_ns()
        if va.size is not None:
            await self._resize(vp, va.size)
            node.mtime = now
        node.mode, node.uid, node.gid = change
        if va.atime is not None:
            node.atime = va.atime
        if va.mtime is not None:
            node.mtime = va.mtime
        if va.birthtime is not None:
            node.birthtime = va.birthtime
        node.ctime = now if va.ctime is None else va.ctime
        return self._vattr(node), TTL_FOREVER

    def _check_size(self, vp: Vnode, size: int, cred: Cred) -> None:
        if size < 0:
            raise VfsError(EINVAL)
        node = regular(vp)
        if size > SIZE_MAX:
            raise VfsError(EFBIG)
        check_resize(node, cred)

    async def _resize(self, vp: Vnode, size: int) -> None:
        node = regular(vp)
        before = node.uobj.allocated
        await uvm_vnp_setsize(vp, size)
        self._used += node.uobj.allocated - before
        node.length = size

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Return octets, zeros for holes."""
        node = regular(vp)
        if offset < 0 or resid < 0:
            raise VfsError(EINVAL)
        self._accessed(node)
        return await ubc_read(vp, offset, resid)

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Store all of `data`, or nothing. Errors: EINVAL, EISDIR, EFBIG, ENOSPC."""
        node = regular(vp)
        if ioflag & IO_APPEND:
            offset = node.length
        length = len(data)
        if offset < 0:
            raise VfsError(EINVAL)
        if not length:
            return
        end = offset + length
        if end > SIZE_MAX:
            raise VfsError(EFBIG)
        self._take(node.uobj.growth(offset, length))
        await ubc_write(vp, offset, data)
        node.length = vp.size
        node.mtime = node.ctime = time_ns()
        node.mode = mode_after_write(cred, Vtype.VREG, node.mode)

    async def getpages(self, vp: Vnode, offset: int, length: int, flags: int) -> None:
        """Do nothing: the pages are there."""

    async def putpages(self, vp: Vnode, offlo: int, offhi: int, flags: int) -> None:
        """Do nothing: the pages are the storage, and there is no other."""

    def _take(self, octets: int) -> None:
        """Count `octets` more as used. Errors: ENOSPC."""
        if octets and self._used + octets > self._size_limit:
            raise VfsError(ENOSPC, "as much data as allowed")
        self._used += octets

    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        """Return the target."""
        node = vp.data
        if type(node) is not SymbolicLink:
            raise VfsError(EINVAL)
        self._accessed(node)
        return node.target

    async def pathconf(self, vp: Vnode, name: int) -> int:
        """Return a limit."""
        try:
            return _PATHCONF[name]
        except KeyError:
            raise VfsError(EINVAL) from None

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """Lock a range; the kernel keeps the locks."""
        return await lf_advlock(vp, owner, op, flock, flags)

    async def fallocate(self, vp: Vnode, offset: int, length: int) -> None:
        """Take space, and extend the file if it ends before. Errors: EINVAL, EFBIG, ENOSPC."""
        node = regular(vp)
        if offset < 0 or length <= 0:
            raise VfsError(EINVAL)
        end = offset + length
        if end > SIZE_MAX:
            raise VfsError(EFBIG)
        self._take(node.uobj.growth(offset, length))
        node.uobj.reserve(offset, length)
        node.ctime = time_ns()
        if end > node.length:
            node.length = vp.size = end
            node.mtime = node.ctime

    async def fdiscard(self, vp: Vnode, offset: int, length: int) -> None:
        """Make a range a hole; the size stays. Errors: EINVAL."""
        node = regular(vp)
        if offset < 0 or length <= 0:
            raise VfsError(EINVAL)
        before = node.uobj.allocated
        node.uobj.discard(offset, length)
        self._used += node.uobj.allocated - before
        node.mtime = node.ctime = time_ns()
