"""The operations on names: locks are taken, the vnode operation runs, its answer gets a cookie."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EBUSY, EISDIR, ENOTDIR, ENOTEMPTY, EXDEV

from ...emul.lock import lock_all, unlock_all
from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import Componentname, Cookie, Cred, Dirent, Newinfo, Vattr
from .nodes import Nodes


class NameOperations(Nodes):
    """The part of a P2k that finds, makes, renames, removes and lists names."""

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """See FileServer. The directory is locked shared: lookups in it run side by side."""
        dvp = self._vp(opc)
        lock = dvp.lock
        if not lock.try_shared():
            await lock.shared()
        try:
            found = await dvp.fs.lookup(dvp, cn)
        finally:
            lock.release()
        return self._newinfo(found)

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        self._writable()
        dvp = self._vp(opc)
        lock = dvp.lock
        if not lock.try_exclusive():
            await lock.exclusive()
        try:
            made = await dvp.fs.create(dvp, cn, va)
        finally:
            lock.release()
        return self._newinfo(made)

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        self._writable()
        dvp = self._vp(opc)
        await dvp.lock.exclusive()
        try:
            made = await dvp.fs.mknod(dvp, cn, va)
        finally:
            dvp.lock.release()
        return self._newinfo(made)

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        self._writable()
        dvp = self._vp(opc)
        await dvp.lock.exclusive()
        try:
            made = await dvp.fs.mkdir(dvp, cn, va)
        finally:
            dvp.lock.release()
        return self._newinfo(made)

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """See FileServer."""
        self._writable()
        dvp = self._vp(opc)
        await dvp.lock.exclusive()
        try:
            made = await dvp.fs.symlink(dvp, cn, va, target)
        finally:
            dvp.lock.release()
        return self._newinfo(made)

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer."""
        self._writable()
        dvp, vp = self._vp(opc), self._vp(targ)
        if vp.vtype == Vtype.VDIR:
            raise VfsError(EISDIR)
        await lock_all(dvp.lock, vp.lock)
        try:
            await dvp.fs.remove(dvp, vp, cn)
        finally:
            unlock_all(dvp.lock, vp.lock)
        return 0

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer."""
        self._writable()
        dvp, vp = self._vp(opc), self._vp(targ)
        if vp.vtype != Vtype.VDIR:
            raise VfsError(ENOTDIR)
        if vp.mount is not dvp.mount or vp is self._root or vp.mountedhere is not None:
            raise VfsError(EBUSY)
        if vp is dvp or cn.name == b"..":
            raise VfsError(ENOTEMPTY)
        await lock_all(dvp.lock, vp.lock)
        try:
            await dvp.fs.rmdir(dvp, vp, cn)
        finally:
            unlock_all(dvp.lock, vp.lock)
        return 0

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """See FileServer."""
        self._writable()
        dvp, vp = self._vp(opc), self._vp(targ)
        if vp.mount is not dvp.mount:
            raise VfsError(EXDEV)
        await lock_all(dvp.lock, vp.lock)
        try:
            return await dvp.fs.link(dvp, vp, cn)
        finally:
            unlock_all(dvp.lock, vp.lock)

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        """See FileServer. One rename at a time in a mount: the tree cannot turn under it."""
        await self._rename(opc, src, cn_src, targ_dir, targ, cn_targ, 0)

    async def rename_with(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
        flags: int,
    ) -> None:
        """See FileServer."""
        await self._rename(opc, src, cn_src, targ_dir, targ, cn_targ, flags)

    async def _rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
        flags: int,
    ) -> None:
        self._writable()
        fdvp, fvp, tdvp = self._vp(opc), self._vp(src), self._vp(targ_dir)
        tvp = None if targ is None else self._vp(targ)
        if fdvp.mount is not tdvp.mount:
            raise VfsError(EXDEV)
        if fvp.mountedhere is not None or (tvp is not None and tvp.mountedhere is not None):
            raise VfsError(EBUSY)
        vnodes = [fdvp, tdvp, fvp] if tvp is None else [fdvp, tdvp, fvp, tvp]
        locks = [vp.lock for vp in vnodes]
        await self._mount.renamelock.exclusive()
        try:
            await lock_all(*locks)
            try:
                fs, args = fdvp.fs, (fdvp, fvp, cn_src, tdvp, tvp, cn_targ)
                await (fs.rename_with(*args, flags) if flags else fs.rename(*args))
            finally:
                unlock_all(*locks)
        finally:
            self._mount.renamelock.release()

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """See FileServer."""
        vp = self._vp(opc)
        lock = vp.lock
        if not lock.try_shared():
            await lock.shared()
        try:
            entries, eof = await vp.fs.readdir(vp, offset, resid, flags, cred)
        finally:
            lock.release()
        newinfo = self._newinfo
        return [
            Dirent(fileid, vtype, name, after, None if found is None else newinfo(found))
            for fileid, vtype, name, after, found in entries
        ], eof

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            return await vp.fs.readlink(vp, cred)
        finally:
            vp.lock.release()

    def abortop(self, opc: Cookie, cn: Componentname) -> None:
        """See FileServer."""
        vp = self._vp(opc)
        vp.fs.abortop(vp, cn)
