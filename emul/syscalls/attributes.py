"""System calls on attributes, by path and by descriptor."""

from __future__ import annotations

from errno import EACCES, EINVAL, EISDIR, EPERM, EROFS
from time import time_ns
from typing import Final, NamedTuple

from ...native.constants import FWRITE, VEXEC, VREAD, VWRITE, Vtype
from ...native.errors import VfsError
from ...native.records import FSCRED, VATTR_NULL, VTYPE_TO_IFMT, Cred, Vattr
from ..vnode import Vnode
from ..vnops import vn_access, vn_getattr, vn_setattr
from .proc import AT_FDCWD, Proc, check_writable

R_OK: Final = VREAD
W_OK: Final = VWRITE
X_OK: Final = VEXEC
F_OK: Final = 0

UTIME_NOW: Final = (1 << 30) - 1
"""In place of a time: the time of the call."""
UTIME_OMIT: Final = (1 << 30) - 2
"""In place of a time: leave it as it is."""

_S_BLKSIZE: Final = 512
_READONLY_TYPES: Final = frozenset((Vtype.VREG, Vtype.VDIR, Vtype.VLNK))


class Stat(NamedTuple):
    """What stat(2) tells. Times are ns, `st_blocks` counts 512 octets each.

    What a file system does not know is 0; `st_nlink` is then 1, `st_dev` the mount's serial number.
    """

    st_dev: int
    st_ino: int
    st_mode: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_rdev: int
    st_size: int
    st_blksize: int
    st_blocks: int
    st_atime: int
    st_mtime: int
    st_ctime: int


async def vn_stat(vp: Vnode, cred: Cred) -> Stat:
    """Return what stat(2) tells of `vp`, which is referenced and not locked by the caller."""
    va = await vn_getattr(vp, cred)
    size = vp.size if va.size is None else va.size
    return Stat(
        vp.mount.serial if va.fsid is None else va.fsid,
        va.fileid or 0,
        VTYPE_TO_IFMT[Vtype(vp.vtype)] | (va.mode or 0),
        1 if va.nlink is None else va.nlink,
        va.uid or 0,
        va.gid or 0,
        va.rdev or 0,
        size,
        va.blocksize or 0,
        ((size if va.bytes is None else va.bytes) + _S_BLKSIZE - 1) // _S_BLKSIZE,
        va.atime or 0,
        va.mtime or 0,
        va.ctime or 0,
    )


class AttributeCalls(Proc):
    """Calls that tell and change attributes; changes say EROFS on a read-only mount."""

    async def stat(self, path: bytes, *, dirfd: int = AT_FDCWD, follow: bool = True) -> Stat:
        """Return the attributes of what `path` names; of a link itself unless `follow`."""
        async with await self.lookup(path, dirfd, follow=follow) as nd:
            return await vn_stat(nd.vp, self.cred)

    async def lstat(self, path: bytes, *, dirfd: int = AT_FDCWD) -> Stat:
        """Return the attributes of what `path` names, of a link itself."""
        return await self.stat(path, dirfd=dirfd, follow=False)

    async def fstat(self, fd: int) -> Stat:
        """Return the attributes of an open file. Errors: EBADF."""
        async with self.files.get(fd) as file:
            return await vn_stat(file.f_vp, self.cred)

    async def access(self, path: bytes, mode: int, *, dirfd: int = AT_FDCWD) -> None:
        """Return if all of `mode` (R_OK, W_OK, X_OK; F_OK: it exists) may be done to a file.

        (By the effective user and group: there are no others.) Errors: EINVAL, EROFS, EACCES.
        """
        if mode & ~(R_OK | W_OK | X_OK):
            raise VfsError(EINVAL)
        async with await self.lookup(path, dirfd) as nd:
            vp = nd.vp
            if mode & W_OK and vp.mount.is_rdonly and vp.vtype in _READONLY_TYPES:
                raise VfsError(EROFS)
            if mode:
                await vn_access(vp, mode, self.cred)

    # Changes.

    async def _change(self, vp: Vnode, va: Vattr) -> None:
        check_writable(vp)
        await vn_setattr(vp, va, self.cred)

    async def chmod(self, path: bytes, mode: int, *, dirfd: int = AT_FDCWD) -> None:
        """Set the permissions of what `path` names. Errors: EROFS, EPERM (not the owner)."""
        async with await self.lookup(path, dirfd) as nd:
            await self._change(nd.vp, Vattr(mode=mode & 0o7777))

    async def fchmod(self, fd: int, mode: int) -> None:
        """Set the permissions of an open file. Errors: EBADF, and as chmod."""
        async with self.files.get_open(fd) as file:
            await self._change(file.f_vp, Vattr(mode=mode & 0o7777))

    async def chown(
        self, path: bytes, uid: int, gid: int, *, dirfd: int = AT_FDCWD, follow: bool = True
    ) -> None:
        """Set owner and group; -1 leaves one as it is. Errors: EROFS, EPERM."""
        async with await self.lookup(path, dirfd, follow=follow) as nd:
            await self._change(nd.vp, _owner(uid, gid))

    async def lchown(self, path: bytes, uid: int, gid: int, *, dirfd: int = AT_FDCWD) -> None:
        """Set owner and group as chown, of a link itself."""
        await self.chown(path, uid, gid, dirfd=dirfd, follow=False)

    async def fchown(self, fd: int, uid: int, gid: int) -> None:
        """Set owner and group of an open file. Errors: EBADF, and as chown."""
        async with self.files.get_open(fd) as file:
            await self._change(file.f_vp, _owner(uid, gid))

    async def utimensat(
        self,
        path: bytes,
        atime: int,
        mtime: int,
        *,
        dirfd: int = AT_FDCWD,
        follow: bool = True,
    ) -> None:
        """Set times, ns, or UTIME_NOW or UTIME_OMIT; to leave both needs not even the file.

        Errors: EROFS; EACCES (both the time of now: neither the owner nor who may write); EPERM
        (others, not the owner).
        """
        if atime == mtime == UTIME_OMIT:
            return
        async with await self.lookup(path, dirfd, follow=follow) as nd:
            await self._set_times(nd.vp, atime, mtime)

    async def futimens(self, fd: int, atime: int, mtime: int) -> None:
        """Set times of an open file. Errors: EBADF, and as utimensat."""
        async with self.files.get_open(fd) as file:
            if not atime == mtime == UTIME_OMIT:
                await self._set_times(file.f_vp, atime, mtime)

    async def _set_times(self, vp: Vnode, atime: int, mtime: int) -> None:
        now = time_ns()
        va = Vattr(atime=_time(atime, now), mtime=_time(mtime, now))
        try:
            await self._change(vp, va)
        except VfsError as exc:
            if exc.errno != EPERM or not atime == mtime == UTIME_NOW:
                raise
            # "Touched" may be by whoever may write, and a file system cannot tell that apart.
            await vn_access(vp, VWRITE, self.cred)
            await vn_setattr(vp, va, FSCRED)

    async def truncate(self, path: bytes, length: int, *, dirfd: int = AT_FDCWD) -> None:
        """Set the size, octets. Errors: EINVAL (negative); EISDIR; EINVAL (no size); EROFS; EACCES.

        EFBIG and ENOSPC are the file system's.
        """
        if length < 0:
            raise VfsError(EINVAL)
        async with await self.lookup(path, dirfd) as nd:
            vp = nd.vp
            if vp.vtype != Vtype.VREG:
                raise VfsError(EISDIR if vp.vtype == Vtype.VDIR else EINVAL)
            check_writable(vp)
            await vn_access(vp, VWRITE, self.cred)
            await vn_setattr(vp, VATTR_NULL._replace(size=length), self.cred)

    async def ftruncate(self, fd: int, length: int) -> None:
        """Set the size of a file that is open for writing, octets; its mode does not matter.

        Errors: EINVAL (negative); EBADF; EINVAL (not open for writing, no regular file); EROFS.
        """
        if length < 0:
            raise VfsError(EINVAL)
        async with self.files.get_open(fd) as file:
            vp = file.f_vp
            if not file.f_mode & FWRITE or vp.vtype != Vtype.VREG:
                raise VfsError(EINVAL)
            check_writable(vp)
            va = VATTR_NULL._replace(size=length)
            try:
                await vn_setattr(vp, va, self.cred)
            except VfsError as exc:
                if exc.errno != EACCES:
                    raise
                # The permission came with the descriptor, which a file system does not see.
                await vn_setattr(vp, va, FSCRED)


def _owner(uid: int, gid: int) -> Vattr:
    return Vattr(uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)


def _time(value: int, now: int) -> int | None:
    if value == UTIME_OMIT:
        return None
    return now if value == UTIME_NOW else value
