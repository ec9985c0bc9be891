"""open(2): from a path and flags to a descriptor."""

from __future__ import annotations

import os
from errno import EEXIST, EINVAL, EISDIR, ELOOP, ENOTDIR, EOPNOTSUPP, EROFS
from typing import Final

from ...native.constants import FAPPEND, FREAD, FWRITE, VWRITE, NameiOp, Vtype
from ...native.errors import VfsError
from ...native.records import VATTR_NULL, Vattr
from ..nameidata import FOLLOW, LOCKPARENT, NOFOLLOW, WANTPARENT, Nameidata
from ..vnode import Vnode
from ..vnops import vn_access, vn_open, vn_rele, vn_setattr
from .filedesc import File
from .proc import AT_FDCWD, Proc, check_writable

_TO_FMODE: Final = {os.O_RDONLY: FREAD, os.O_WRONLY: FWRITE, os.O_RDWR: FREAD | FWRITE}
_VDIR: Final = Vtype.VDIR
_TMPFILE: Final = os.O_TMPFILE & ~os.O_DIRECTORY
_PATH_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_CREATION_FLAGS: Final = (
    os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
)
"""What F_GETFL does not tell."""


class OpenCalls(Proc):
    """Calls that open."""

    async def open(
        self, path: bytes, flags: int, mode: int = 0o666, *, dirfd: int = AT_FDCWD
    ) -> int:
        """Open what `path` names and return the lowest free descriptor.

        Of the flags, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW, O_SYNC, O_DSYNC
        and O_PATH do what they do on Linux; O_CLOEXEC, O_NONBLOCK, O_DIRECT and others that only
        give hints do nothing.

        Errors, first match wins:
            EINVAL      no access mode; O_CREAT with O_DIRECTORY
            EOPNOTSUPP  O_TMPFILE
            EMFILE      no descriptor is free
            EISDIR      O_CREAT with a slash behind the name
            EROFS, EACCES and others  the file is to be made, and that cannot be done
            EEXIST      O_CREAT with O_EXCL, and it is there
            EISDIR      O_CREAT, and it is a directory
            ENOTDIR     O_DIRECTORY, and it is none
            ELOOP       O_NOFOLLOW, and it is a link
            EISDIR      to write (or truncate) a directory
            EROFS       to write (or truncate) on a read-only mount
            EACCES      not permitted
            ENXIO       nothing is behind a device, fifo or socket
        """
        if flags & os.O_PATH:
            flags &= _PATH_FLAGS
        fmode = _fmode(flags)
        fd = self.files.reserve()
        try:
            file = await self._open(path, flags, fmode, mode, dirfd)
        except BaseException:
            self.files.cancel(fd)
            raise
        self.files.install(fd, file)
        return fd

    async def creat(self, path: bytes, mode: int = 0o666) -> int:
        """Open for writing a file that is made or truncated."""
        return await self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)

    async def open_vnode(self, vp: Vnode, flags: int) -> int:
        """Open `vp`, whose reference is taken over in any case; return a descriptor as `open`."""
        fmode = _fmode(flags)
        try:
            fd = self.files.reserve()
        except VfsError:
            await vn_rele(vp)
            raise
        try:
            file = await self._opened(vp, flags, fmode)
        except BaseException:
            self.files.cancel(fd)
            raise
        self.files.install(fd, file)
        return fd

    async def _open(self, path: bytes, flags: int, fmode: int, mode: int, dirfd: int) -> File:
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        follow = NOFOLLOW if exclusive or flags & os.O_NOFOLLOW else FOLLOW
        if flags & os.O_CREAT:
            if path.endswith(b"/"):
                async with await self.namei(path, NameiOp.CREATE, WANTPARENT, dirfd) as nd:
                    # Whatever is there, if anything.
                    raise VfsError(EEXIST if exclusive and nd.is_special else EISDIR)
            async with await self.namei(path, NameiOp.CREATE, LOCKPARENT | follow, dirfd) as nd:
                if nd.is_special:
                    raise VfsError(EEXIST if exclusive else EISDIR)
                if nd.ni_slash:  # a link's
                    raise VfsError(EISDIR)
                if nd.ni_vp is None:
                    await self._create(nd, mode)
                    flags &= ~os.O_TRUNC
                elif exclusive:
                    raise VfsError(EEXIST)
                elif nd.vp.vtype == _VDIR:
                    raise VfsError(EISDIR)
                await nd.release_parent()
                return await self._opened(nd.take(), flags, fmode)
        async with await self.namei(path, NameiOp.LOOKUP, follow, dirfd) as nd:
            if flags & os.O_DIRECTORY and nd.vp.vtype != _VDIR:
                raise VfsError(ENOTDIR)
            if flags & os.O_PATH:
                return File(nd.take(), 0, os.O_PATH, self.cred)
            return await self._opened(nd.take(), flags, fmode)

    async def _create(self, nd: Nameidata, mode: int) -> None:
        """Make the file that is missing, and let it be the leaf."""
        dvp = nd.dvp
        check_writable(dvp)
        va = Vattr(vtype=Vtype.VREG, mode=mode & 0o7777 & ~self._cmask)
        nd.ni_vp = (await dvp.fs.create(dvp, nd.ni_cnd, va)).vp

    async def _opened(self, vp: Vnode, flags: int, fmode: int) -> File:
        """Open `vp`, which is not locked; its reference is taken over in any case."""
        truncate = bool(flags & os.O_TRUNC)
        try:
            self._check_type(vp, truncate or bool(fmode & FWRITE))
            if truncate and not fmode & FWRITE:
                await vn_access(vp, VWRITE, self.cred)  # Linux truncates for reading, too
            await vn_open(vp, fmode, self.cred)
        except BaseException:
            await vn_rele(vp)
            raise
        file = File(vp, fmode, flags & ~_CREATION_FLAGS, self.cred)
        if truncate and vp.vtype == Vtype.VREG:
            try:
                await vn_setattr(vp, VATTR_NULL._replace(size=0), self.cred)
            except BaseException:
                await file.drop()
                raise
        return file

    def _check_type(self, vp: Vnode, writing: bool) -> None:
        if vp.vtype == Vtype.VLNK:
            raise VfsError(ELOOP)
        if writing and vp.vtype == _VDIR:
            raise VfsError(EISDIR)
        if writing and vp.vtype == Vtype.VREG and vp.mount.is_rdonly:
            raise VfsError(EROFS)


def _fmode(flags: int) -> int:
    """Return FREAD, FWRITE and FAPPEND for the flags of open(2). Errors: EINVAL, EOPNOTSUPP."""
    fmode = _TO_FMODE.get(flags & os.O_ACCMODE)
    if fmode is None or (flags & os.O_CREAT and flags & os.O_DIRECTORY):
        raise VfsError(EINVAL)
    if flags & _TMPFILE:
        raise VfsError(EOPNOTSUPP)
    return fmode | FAPPEND if flags & os.O_APPEND else fmode
