"""P2k: the FileServer over one mount of an emulated kernel. See the package for who holds what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from errno import EBUSY, EISDIR, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EROFS, ESTALE, EXDEV
from typing import Final

from ...emul.kernel import Kernel
from ...emul.lock import lock_all, unlock_all
from ...emul.lockf import lf_advlock
from ...emul.mount import Mount
from ...emul.syncer import vfs_sync
from ...emul.vfs import FileSystem, Lookup
from ...emul.vnode import Vnode, vref, vrele_nowait
from ...native.constants import (
    FWRITE,
    MAXMSGLEN_MAX,
    PGO_ALLPAGES,
    PGO_FREE,
    VWRITE,
    FlushOp,
    KFlag,
    Setback,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import (
    FSCRED,
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Flock,
    Kargs,
    Newinfo,
    Statvfs,
    Vattr,
)
from ..ops import FileServer, Upcalls

_ON_MEDIUM: Final = frozenset((Vtype.VREG, Vtype.VDIR, Vtype.VLNK))
"""Types of nodes that cannot be written when the file system cannot."""


class _Node:
    """What stands behind a cookie: the vnode with our one reference, and the lookups given out."""

    __slots__ = ("nlookup", "vp")

    def __init__(self, vp: Vnode) -> None:
        self.vp = vp
        self.nlookup = 1


class P2k(FileServer):
    """A mount of the emulated kernel, served. Made by `p2k_over`, which owns kernel and mount.

    The cookie of a node is the serial number of its vnode, which the kernel never uses twice.
    """

    def __init__(self, kernel: Kernel, mount: Mount) -> None:
        root = mount.root
        vref(root)
        self._kernel = kernel
        self._mount = mount
        self._fs = mount.fs
        self._root = root
        self._nodes: dict[int, _Node] = {root.serial: _Node(root)}
        self._upcalls: Upcalls | None = None
        self._unmounted = False
        self._kargs = Kargs(
            typename="p2k|" + self._fs.typename,
            mntfromname=self._fs.mntfromname,
            root=Newinfo(Cookie(root.serial), root.vtype, root.size),
            kflags=KFlag.CACHE_FS_TTL,
            ops=self._fs.ops,
            maxmsglen=MAXMSGLEN_MAX,
        )

    @property
    def kargs(self) -> Kargs:
        """Return the mount arguments; the type is "p2k|" and the trace of what is below."""
        return self._kargs

    @property
    def mount(self) -> Mount:
        """The mount in the emulated kernel."""
        return self._mount

    @property
    def below(self) -> FileSystem:
        """The file system that is served."""
        return self._fs

    def attach(self, upcalls: Upcalls) -> None:
        """Learn whom to hand flushes to."""
        self._upcalls = upcalls

    # Requests from below, through the emulated mount (emul.mount.Client).

    async def flush(
        self, op: FlushOp, vp: Vnode | None, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """Hand a flush of the file system below on to the kernel above."""
        if self._upcalls is not None and (vp is None or vp.serial in self._nodes):
            cookie = Cookie(0 if vp is None else vp.serial)
            await self._upcalls.flush(op, cookie, start, end, name)

    def request_unmount(self) -> None:
        """Hand a wish to be unmounted on."""
        if self._upcalls is not None:
            self._upcalls.unmount()

    # From cookies to vnodes and back.

    def _vp(self, opc: int) -> Vnode:
        try:
            return self._nodes[opc].vp
        except KeyError:
            raise VfsError(ESTALE, f"no node behind cookie {opc}") from None

    def _newinfo(self, found: Lookup) -> Newinfo:
        """Turn a lookup's answer with its reference into a newinfo. No await: see `_Node`."""
        vp = found.vp
        if vp is None:
            return Newinfo(Cookie(0), Vtype.VNON, 0, 0, None, 0, found.cn_ttl)
        node = self._nodes.get(vp.serial)
        if node is None:
            self._nodes[vp.serial] = _Node(vp)
        else:
            node.nlookup += 1
            vrele_nowait(vp)  # not the last one: the cookie has its own
        va = found.va
        rdev = 0 if va is None or va.rdev is None else va.rdev
        return Newinfo(Cookie(vp.serial), vp.vtype, vp.size, rdev, va, found.va_ttl, found.cn_ttl)

    def _writable(self) -> None:
        if self._mount.is_rdonly:
            raise VfsError(EROFS)

    # The whole file system.

    async def statvfs(self) -> Statvfs:
        """See FileServer."""
        return await self._fs.statvfs()

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """See FileServer. What belongs to other mounts is neither written nor waited for."""
        await vfs_sync(self._mount, waitfor, cred)

    async def unmount(self, flags: int) -> None:
        """Unmount inside the emulated kernel; whoever mounted above has given up all nodes.

        Lookups that were never given back (a host that went away) are dropped here. If the unmount
        is vetoed they are as before, but for nodes that have no name any more.
        """
        if self._unmounted:
            return
        nodes = self._nodes
        self.let_go()
        try:
            await self._kernel.unmount(self._mount, flags)
        except BaseException:
            if self._mount.is_alive:
                self._take_back(nodes)
            raise
        self._unmounted = True

    def let_go(self) -> None:
        """Drop the references of all nodes: no cookie is known any more."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            self._kernel.vrele_async(node.vp)

    def _take_back(self, nodes: dict[int, _Node]) -> None:
        """Reference again what still is in memory of `nodes`."""
        for serial, node in nodes.items():
            vp = self._mount.vget(node.vp.key)
            if vp is node.vp:
                self._nodes[serial] = node
            elif vp is not None:  # it was read anew
                self._kernel.vrele_async(vp)

    async def fhtonode(self, handle: bytes) -> Newinfo:
        """See FileServer."""
        vp = await self._fs.fhtovp(handle)
        try:
            await vp.lock.shared()
            try:
                va, ttl = await vp.fs.getattr(vp, FSCRED)
            finally:
                vp.lock.release()
        except BaseException:
            self._kernel.vrele_async(vp)
            raise
        return self._newinfo(Lookup(vp, 0, va, ttl))

    async def nodetofh(self, opc: Cookie) -> bytes:
        """See FileServer."""
        return await self._fs.vptofh(self._vp(opc))

    async def extattrctl(self, cmd: int, opc: int, namespace: int, name: bytes) -> None:
        """See FileServer."""
        await self._fs.extattrctl(cmd, self._vp(opc) if opc else None, namespace, name)

    # Names.

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

    # Files.

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """See FileServer."""
        vp = self._vp(opc)
        if mode & FWRITE and self._mount.is_rdonly and vp.vtype in _ON_MEDIUM:
            raise VfsError(EROFS)
        lock = vp.lock
        if not lock.try_exclusive():
            await lock.exclusive()
        try:
            return await vp.fs.open(vp, mode, cred), 0
        finally:
            lock.release()

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """See FileServer."""
        node = self._nodes.get(opc)
        if node is not None:
            node.vp.fs.close(node.vp, fflag, cred)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """See FileServer. What is behind a device or a pipe may be written on a read-only mount."""
        vp = self._vp(opc)
        if mode & VWRITE and self._mount.is_rdonly and vp.vtype in _ON_MEDIUM:
            raise VfsError(EROFS)
        await vp.lock.shared()
        try:
            await vp.fs.access(vp, mode, cred)
        finally:
            vp.lock.release()

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        vp = self._vp(opc)
        lock = vp.lock
        if not lock.try_shared():
            await lock.shared()
        try:
            return await vp.fs.getattr(vp, cred)
        finally:
            lock.release()

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            return await vp.fs.setattr(vp, va, cred)
        finally:
            vp.lock.release()

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileServer."""
        vp = self._vp(opc)
        lock = vp.lock
        if not lock.try_shared():
            await lock.shared()
        try:
            return await vp.fs.read(vp, offset, resid, ioflag, cred)
        finally:
            lock.release()

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        lock = vp.lock
        if not lock.try_exclusive():
            await lock.exclusive()
        try:
            await vp.fs.write(vp, offset, data, ioflag, cred)
        finally:
            lock.release()

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            await vp.fs.fsync(vp, flags, offlo, offhi, cred)
        finally:
            vp.lock.release()

    async def seek(self, opc: Cookie, old: int, new: int, cred: Cred) -> None:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            await vp.fs.seek(vp, old, new, cred)
        finally:
            vp.lock.release()

    async def mmap(self, opc: Cookie, prot: int, cred: Cred) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.fs.mmap(vp, prot, cred)
        return 0

    async def poll(self, opc: Cookie, events: int) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        return await vp.fs.poll(vp, events)

    async def print(self, opc: Cookie) -> bytes:
        """See FileServer."""
        vp = self._vp(opc)
        return await vp.fs.print(vp)

    async def pathconf(self, opc: Cookie, name: int) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        return await vp.fs.pathconf(vp, name)

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """See FileServer. What a file system has no locks for, the kernel keeps."""
        vp = self._vp(opc)
        try:
            return await vp.fs.advlock(vp, owner, op, flock, flags)
        except VfsError as exc:
            if exc.errno != EOPNOTSUPP:
                raise
        return await lf_advlock(vp, owner, op, flock, flags)

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            return await vp.fs.getextattr(vp, namespace, name, cred)
        finally:
            vp.lock.release()

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.setextattr(vp, namespace, name, value, flags, cred)
        finally:
            vp.lock.release()

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            return await vp.fs.listextattr(vp, namespace, cred)
        finally:
            vp.lock.release()

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.deleteextattr(vp, namespace, name, cred)
        finally:
            vp.lock.release()

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.fallocate(vp, offset, length)
        finally:
            vp.lock.release()

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        self._writable()
        vp = self._vp(opc)
        await vp.lock.exclusive()
        try:
            await vp.fs.fdiscard(vp, offset, length)
        finally:
            vp.lock.release()

    async def seek_data(self, opc: Cookie, offset: int, whence: int, cred: Cred) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        await vp.lock.shared()
        try:
            return await vp.fs.seek_data(vp, offset, whence, cred)
        finally:
            vp.lock.release()

    async def copy_file_range(
        self, opc: Cookie, offset: int, targ: Cookie, targ_offset: int, length: int, cred: Cred
    ) -> int:
        """See FileServer. Errors: EXDEV between two file systems."""
        self._writable()
        vp, tvp = self._vp(opc), self._vp(targ)
        if vp.mount is not tvp.mount:
            raise VfsError(EXDEV)
        await lock_all(vp.lock, tvp.lock)
        try:
            return await vp.fs.copy_file_range(vp, offset, tvp, targ_offset, length, cred)
        finally:
            unlock_all(vp.lock, tvp.lock)

    # Life cycle.

    async def inactive(self, opc: Cookie) -> int:
        """See FileServer. A file system that wants the vnode recycled makes this NOREF_N1.

        Clean pages go, unless they are all there is of the file: whoever is above caches them.
        Dirty ones stay until they are written: the syncer sees to that, or an fsync.
        """
        vp = self._vp(opc)
        if vp.uobj is not None:
            await vp.fs.putpages(vp, 0, 0, PGO_FREE | PGO_ALLPAGES)
        lock = vp.lock
        if not lock.try_exclusive():
            await lock.exclusive()
        # The cookie's reference is not the last one: a host that has looked the name up before it
        # went may open the file yet. A file system sees that by another reference, and lets go of
        # the data with the cookie.
        vref(vp)
        try:
            recycle = await vp.fs.inactive(vp)
        finally:
            lock.release()
            self._kernel.vrele_async(vp)  # at once, unless the cookie was given back meanwhile
        return Setback.NOREF_N1 if recycle else 0

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """Take lookups back; with the last one our reference goes, in the kernel's own time."""
        node = self._nodes.get(opc)
        if node is None:
            return
        node.nlookup -= nlookup
        if node.nlookup > 0 or node.vp is self._root:
            return
        del self._nodes[opc]
        self._kernel.vrele_async(node.vp)


@asynccontextmanager
async def p2k_over(fs: FileSystem, *, rdonly: bool = False) -> AsyncIterator[P2k]:
    """Mount `fs` in an emulated kernel of its own and serve it.

    On exit it is unmounted, if `unmount` has not been called, in the kernel's way: properly if
    that works, else by force.
    """
    async with Kernel() as kernel:
        mount = await kernel.mount(fs, rdonly=rdonly)
        server = P2k(kernel, mount)
        mount.set_client(server)
        try:
            yield server
        finally:
            # The kernel unmounts what is still mounted.
            mount.set_client(None)
            server.let_go()
