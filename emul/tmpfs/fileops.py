"""Operations on one node: attributes, opening, data."""

from __future__ import annotations

import os
from errno import EACCES, EFBIG, EINVAL, EISDIR, ELOOP, ENOSPC, ENXIO, EOPNOTSUPP
from time import time_ns
from typing import Final

from ...native.constants import (
    FREAD,
    FWRITE,
    IO_APPEND,
    NAME_MAX,
    PATH_MAX,
    TTL_FOREVER,
    VREAD,
    VWRITE,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Buffer, Cred, Flock, Vattr
from ..cred import (
    check_access,
    check_chown,
    check_owner,
    is_owner,
    may_access,
    mode_after_chmod,
    mode_after_chown,
    mode_after_write,
)
from ..lockf import lf_advlock
from ..uvm import ubc_read, ubc_write, uvm_vnp_setsize
from ..vnode import Vnode
from .node import Node, RegularFile, SymbolicLink
from .vfsops import VfsOps

SIZE_MAX: Final = 2**63 - 1
"""Largest size of a file, octets."""
LINK_MAX: Final = 2**31 - 1
_RELATIME: Final = 86_400 * 10**9

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
        atime = node.atime
        if (
            atime <= node.mtime or atime <= node.ctime or now - atime > _RELATIME
        ) and not self.mount.is_rdonly:
            node.atime = now

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """Check `mode` against the permissions; count writers. Errors: EACCES, EISDIR, ENXIO."""
        node: Node = vp.data
        wanted = (VREAD if mode & FREAD else 0) | (VWRITE if mode & FWRITE else 0)
        if type(node) is not RegularFile:
            if node.vtype == Vtype.VDIR:
                if mode & FWRITE:
                    raise VfsError(EISDIR)
            elif node.vtype == Vtype.VLNK:
                raise VfsError(ELOOP)
            check_access(cred, node.vtype, node.mode, node.uid, node.gid, wanted)
            if node.vtype != Vtype.VDIR:
                raise VfsError(ENXIO, "no device, pipe or socket is behind the node")
            return 0
        creator, node.creator = node.creator, None
        if creator is None or creator != cred.uid:
            check_access(cred, Vtype.VREG, node.mode, node.uid, node.gid, wanted)
        if mode & FWRITE:
            node.writers += 1
        return 0

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        """Count writers."""
        node = vp.data
        if fflag & FWRITE and type(node) is RegularFile and node.writers:
            node.writers -= 1

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """Check the permissions."""
        node: Node = vp.data
        check_access(cred, node.vtype, node.mode, node.uid, node.gid, mode)

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """Return all attributes; they hold until somebody changes them here."""
        return self._vattr(vp.data), TTL_FOREVER

    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change mode, owner, group, times and size, all or nothing.

        The size may be changed by who may write, and by the owner while somebody has the file
        open for writing: `ftruncate` arrives without its descriptor, and must work after
        `open(O_CREAT | O_RDWR, 0444)`. A mode beside an owner or a size is the last word.

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
        if va.flags is not None:
            raise VfsError(EOPNOTSUPP)
        if any(
            field is not None
            for field in (
                va.vtype,
                va.nlink,
                va.fsid,
                va.fileid,
                va.blocksize,
                va.gen,
                va.rdev,
                va.bytes,
            )
        ):
            raise VfsError(EINVAL)
        # All checks first; below them nothing fails.
        mode = node.mode
        is_owned_anew = va.uid is not None or va.gid is not None
        gid = node.gid if va.gid is None else va.gid
        if is_owned_anew:
            check_chown(cred, node.uid, node.gid, va.uid, va.gid)
            mode = mode_after_chown(node.vtype, mode)
        if va.size is not None:
            self._check_size(vp, va.size, cred)
            mode = mode_after_write(cred, node.vtype, mode)
        if va.mode is not None:
            mode = mode_after_chmod(cred, node.uid, gid, va.mode & 0o7777)
        if not va.atime is va.mtime is va.ctime is va.birthtime is None:
            check_owner(cred, node.uid)
        now = time_ns()
        if va.size is not None:
            await self._resize(vp, va.size)
            node.mtime = now
        node.mode = mode
        node.gid = gid
        if va.uid is not None:
            node.uid = va.uid
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
        if may_access(cred, Vtype.VREG, node.mode, node.uid, node.gid, VWRITE):
            return
        if not (node.writers and is_owner(cred, node.uid)):
            raise VfsError(EACCES)

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
