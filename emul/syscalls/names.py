"""System calls on names: make, link, rename, remove, read a link."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from errno import (
    EBUSY,
    EINVAL,
    EISDIR,
    ENAMETOOLONG,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
    EXDEV,
)
from typing import Final

from ...native.constants import PATH_MAX, VEXEC, VWRITE, NameiOp, Vtype
from ...native.errors import VfsError
from ...native.records import IFMT_TO_VTYPE, Componentname, Vattr
from ..cred import check_sticky
from ..lock import VnodeLock, lock_all, unlock_all
from ..namei import relookup
from ..nameidata import LOCKPARENT, WANTPARENT, Nameidata
from ..vfs import Lookup
from ..vnode import Vnode
from ..vnops import vn_getattr, vn_readlink
from .proc import AT_FDCWD, Proc, check_new, check_writable

_VDIR: Final = Vtype.VDIR


class NameCalls(Proc):
    """Calls that make, change and read names.

    All of them say first what the walk says (see `namei`), and EROFS on a read-only mount as soon
    as the name's directory is known; creation prefers EEXIST to it, and the ENOENT of a slash.
    """

    async def mkdir(self, path: bytes, mode: int = 0o777, *, dirfd: int = AT_FDCWD) -> None:
        """Make a directory. Errors: EEXIST, EROFS, ENOENT (its parent was removed), EACCES."""
        va = Vattr(vtype=_VDIR, mode=mode & 0o1777 & ~self._cmask)

        def operation(dvp: Vnode, cn: Componentname) -> Awaitable[Lookup]:
            return dvp.fs.mkdir(dvp, cn, va)

        await self.make(path, dirfd, operation, directory=True)

    async def mknod(self, path: bytes, mode: int, rdev: int = 0, *, dirfd: int = AT_FDCWD) -> None:
        """Make a device, fifo, socket or, with no type in `mode`, a regular file.

        Errors: EPERM (the type of a directory), EINVAL (a type that is none), and then as mkdir.
        """
        vtype = IFMT_TO_VTYPE.get(stat.S_IFMT(mode) or stat.S_IFREG)
        if vtype == _VDIR:
            raise VfsError(EPERM)
        if vtype is None or vtype == Vtype.VLNK:
            raise VfsError(EINVAL)
        is_device = vtype in (Vtype.VBLK, Vtype.VCHR)
        va = Vattr(vtype=vtype, mode=mode & 0o7777 & ~self._cmask, rdev=rdev if is_device else None)

        def operation(dvp: Vnode, cn: Componentname) -> Awaitable[Lookup]:
            return dvp.fs.mknod(dvp, cn, va)

        await self.make(path, dirfd, operation)

    async def symlink(self, target: bytes, path: bytes, *, dirfd: int = AT_FDCWD) -> None:
        """Make a symbolic link. Errors: ENOENT (no target), ENAMETOOLONG, and then as mkdir."""
        if not target:
            raise VfsError(ENOENT)
        if len(target) >= PATH_MAX:
            raise VfsError(ENAMETOOLONG)
        va = Vattr(vtype=Vtype.VLNK, mode=0o777)

        def operation(dvp: Vnode, cn: Componentname) -> Awaitable[Lookup]:
            return dvp.fs.symlink(dvp, cn, va, target)

        await self.make(path, dirfd, operation)

    async def readlink(self, path: bytes, *, dirfd: int = AT_FDCWD) -> bytes:
        """Return the target of a link. Errors: EINVAL."""
        async with await self.lookup(path, dirfd, follow=False) as nd:
            if nd.vp.vtype != Vtype.VLNK:
                raise VfsError(EINVAL)
            return await vn_readlink(nd.vp, self.cred)

    async def link(
        self,
        old: bytes,
        new: bytes,
        *,
        olddirfd: int = AT_FDCWD,
        newdirfd: int = AT_FDCWD,
        follow: bool = False,
    ) -> None:
        """Give `old` one more name; a link itself, unless `follow`.

        Errors, first match wins: EEXIST; ENOENT (slash); EROFS; EXDEV; EACCES; EPERM (directory);
        EMLINK; ENOENT (the last name of `old` was removed).
        """
        async with (
            await self.lookup(old, olddirfd, follow=follow) as source,
            await self.namei(new, NameiOp.CREATE, LOCKPARENT, newdirfd) as nd,
        ):
            check_new(nd)
            vp, dvp = source.vp, nd.dvp
            if vp.mount is not dvp.mount:
                raise VfsError(EXDEV)
            if vp.vtype == _VDIR:  # may be above `dvp`: not to be locked after it
                await dvp.fs.access(dvp, VEXEC | VWRITE, self.cred)
                raise VfsError(EPERM)
            await vp.lock.exclusive()
            try:
                await dvp.fs.link(dvp, vp, nd.ni_cnd)
            finally:
                vp.lock.release()

    async def unlink(self, path: bytes, *, dirfd: int = AT_FDCWD) -> None:
        """Remove a name of what is no directory.

        Errors, first match wins: EISDIR ("." and the like); EROFS; ENOENT; EISDIR and ENOTDIR
        (slash); EACCES; EPERM (sticky directory); EISDIR; EBUSY (mounted on).
        """
        async with await self.namei(path, NameiOp.DELETE, LOCKPARENT, dirfd) as nd:
            if nd.is_special:
                raise VfsError(EISDIR)
            check_writable(nd.dvp)
            vp = nd.vp
            if nd.ni_slash:
                raise VfsError(EISDIR if vp.vtype == _VDIR else ENOTDIR)
            if vp.vtype == _VDIR:
                await self._refuse_removal(nd, EISDIR)
            if vp.mountedhere is not None:
                raise VfsError(EBUSY)
            await self._remove(nd, nd.dvp.fs.remove)

    async def rmdir(self, path: bytes, *, dirfd: int = AT_FDCWD) -> None:
        """Remove an empty directory.

        Errors, first match wins: EBUSY (the root), EINVAL ("."), ENOTEMPTY (".."); EROFS; ENOENT;
        EACCES; EPERM; ENOTDIR; EBUSY (mounted on); ENOTEMPTY.
        """
        async with await self.namei(path, NameiOp.DELETE, LOCKPARENT, dirfd) as nd:
            if nd.is_special:
                raise VfsError({b".": EINVAL, b"..": ENOTEMPTY, b"": EBUSY}[nd.ni_cnd.name])
            check_writable(nd.dvp)
            if nd.vp.vtype != _VDIR:
                await self._refuse_removal(nd, ENOTDIR)
            if nd.vp.mountedhere is not None:
                raise VfsError(EBUSY)
            await self._remove(nd, nd.dvp.fs.rmdir)

    async def _remove(
        self,
        nd: Nameidata,
        operation: Callable[[Vnode, Vnode, Componentname], Awaitable[None]],
    ) -> None:
        await nd.lock_leaf()
        await operation(nd.dvp, nd.vp, nd.ni_cnd)

    async def _refuse_removal(self, nd: Nameidata, errno: int) -> None:
        """Fail with `errno` unless the directory's permissions come first. Entry: it is locked."""
        dvp, cred = nd.dvp, self.cred
        await dvp.fs.access(dvp, VEXEC | VWRITE, cred)
        above, _ = await dvp.fs.getattr(dvp, cred)
        node = await vn_getattr(nd.vp, cred)
        check_sticky(cred, above.mode or 0, above.uid or 0, node.uid or 0)
        raise VfsError(errno)

    async def rename(
        self,
        old: bytes,
        new: bytes,
        *,
        olddirfd: int = AT_FDCWD,
        newdirfd: int = AT_FDCWD,
    ) -> None:
        """Move a name, in place of what has the new one; of two names of one node both stay.

        Errors, first match wins:
            EXDEV    the names are in two mounts
            EBUSY    one of them is "." or the like
            EROFS
            ENOENT   there is no `old`
            ENOTDIR  a slash, and `old` is no directory
            EBUSY    one is mounted on
            others   what the file system says: EINVAL (into itself), ENOTEMPTY, EACCES, EPERM,
                     EISDIR, ENOTDIR
        """
        async with (
            await self.namei(old, NameiOp.DELETE, WANTPARENT, olddirfd) as fnd,
            await self.namei(new, NameiOp.RENAME, WANTPARENT, newdirfd) as tnd,
        ):
            mount = fnd.dvp.mount
            if mount is not tnd.dvp.mount:
                raise VfsError(EXDEV)
            if fnd.is_special or tnd.is_special:
                raise VfsError(EBUSY)
            check_writable(fnd.dvp)
            await mount.renamelock.exclusive()
            try:
                await _rename(fnd, tnd)
            finally:
                mount.renamelock.release()


async def _rename(fnd: Nameidata, tnd: Nameidata) -> None:
    """Lock both directories, look both names up and lock what they are; then rename.

    Names are what they are only while the directories are locked, and what they are cannot be
    waited for with a directory in hand (the victim may be above it). So when they are not free at
    once, everything is let go, and locked together, and looked up again.
    """
    held: list[VnodeLock] = []
    wanted = [fnd.dvp.lock, tnd.dvp.lock]
    try:
        while True:
            await lock_all(*wanted)
            held = wanted
            await _relookup(fnd)
            vp = fnd.vp  # ENOENT, if it is not there, before anything about the new name
            await _relookup(tnd)
            _check_rename(fnd, tnd)
            if tnd.ni_vp is vp:
                return
            leaves = [vp.lock] if tnd.ni_vp is None else [vp.lock, tnd.ni_vp.lock]
            missing = [lock for lock in leaves if lock not in held]
            if _try_all(missing):
                held = held + missing
                break
            unlock_all(*held)
            held, wanted = [], [fnd.dvp.lock, tnd.dvp.lock, *leaves]
        fdvp, tdvp = fnd.dvp, tnd.dvp
        await fdvp.fs.rename(fdvp, vp, fnd.ni_cnd, tdvp, tnd.ni_vp, tnd.ni_cnd)
    finally:
        unlock_all(*held)


async def _relookup(nd: Nameidata) -> None:
    """Look the last name up, again if need be. Entry: its directory is locked."""
    vp = await relookup(nd.dvp, nd.ni_cnd)
    before, nd.ni_vp = nd.ni_vp, vp
    if before is not None:
        before.mount.kernel.vrele_async(before)  # we may have its lock


def _check_rename(fnd: Nameidata, tnd: Nameidata) -> None:
    vp = fnd.vp
    if vp.vtype != _VDIR and (fnd.ni_slash or tnd.ni_slash):
        raise VfsError(ENOTDIR)
    if any(nd.ni_vp is not None and nd.ni_vp.mountedhere is not None for nd in (fnd, tnd)):
        raise VfsError(EBUSY)


def _try_all(locks: list[VnodeLock]) -> bool:
    """Take all of `locks` if that needs no waiting; return whether they were taken."""
    for number, lock in enumerate(locks):
        if not lock.try_exclusive():
            for taken in locks[:number]:
                taken.release()
            return False
    return True
