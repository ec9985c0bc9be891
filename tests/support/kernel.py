"""VfsTarget: a mount inside an emulated kernel, used by vnode operations.

Plays the system calls of that kernel: takes references and locks as emul/vfs.py
asks for at "Entry", looks names up again under the lock before it acts on them, and
checks what is the same for all file systems (read-only mounts).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EROFS

import trio

from syspuffs.emul.lock import lock_all, unlock_all
from syspuffs.emul.mount import Mount
from syspuffs.emul.syncer import vfs_sync
from syspuffs.emul.vfs import Lookup
from syspuffs.emul.vnode import Vnode, vref, vrele
from syspuffs.native.constants import (
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    ISDOTDOT,
    ISLASTCN,
    MNT_WAIT,
    READDIR_PLUS,
    VWRITE,
    NameiOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import VTYPE_TO_IFMT, Buffer, Componentname, Cred, Flock, Vattr

from .nodes import OURSELVES, RawEntry, StaleNameError, system_call
from .target import DirEntry, Statvfs, system_statvfs
from .walk import WalkTarget


class VfsTarget(WalkTarget[Vnode]):
    """The tree of `mount`, asked as `cred`.

    `resid` is what one readdir may answer, octets; `plus` asks for nodes with the names.
    """

    def __init__(
        self,
        mount: Mount,
        *,
        cred: Cred = OURSELVES,
        resid: int = 1024,
        plus: bool = False,
    ) -> None:
        self.mount = mount
        self.fs = mount.fs
        self.root = mount.root
        self.cred = cred
        self.resid = resid
        self.flags = READDIR_PLUS if plus else 0
        self._base = self.root.usecount
        self._rename_lock = trio.Lock()

    def _cn(self, name: bytes, op: NameiOp = NameiOp.LOOKUP) -> Componentname:
        flags = ISLASTCN | (ISDOTDOT if name == b".." else 0)
        return Componentname(op, name, self.cred, flags)

    def _writable(self) -> None:
        if self.mount.is_rdonly:
            raise VfsError(EROFS)

    @asynccontextmanager
    async def _shared(self, vp: Vnode) -> AsyncIterator[None]:
        await vp.lock.shared()
        try:
            yield
        finally:
            vp.lock.release()

    @asynccontextmanager
    async def _exclusive(self, *vps: Vnode) -> AsyncIterator[None]:
        locks = [vp.lock for vp in vps]
        await lock_all(*locks)
        try:
            yield
        finally:
            unlock_all(*locks)

    def hold(self, node: Vnode) -> Vnode:
        vref(node)
        return node

    async def put(self, node: Vnode) -> None:
        with trio.CancelScope(shield=True):
            await vrele(node)

    def _made(self, found: Lookup, vtype: int | None) -> Vnode:
        assert found.vp is not None, "made a node and got none"
        assert vtype is None or found.vp.vtype == vtype
        return found.vp

    async def _is(self, parent: Vnode, name: bytes, node: Vnode) -> bool:
        """Return whether `name` still names `node`. Entry: `parent` locked."""
        found = await self.fs.lookup(parent, self._cn(name))
        if found.vp is None:
            return False
        await self.put(found.vp)
        return found.vp is node

    async def node_lookup(self, parent: Vnode, name: bytes) -> Vnode | None:
        async with self._shared(parent):
            found = await self.fs.lookup(parent, self._cn(name))
        if found.vp is not None and found.va is not None:
            assert found.va.vtype == found.vp.vtype
        return found.vp

    async def node_make(self, parent: Vnode, name: bytes, va: Vattr) -> Vnode:
        self._writable()
        cn = self._cn(name, NameiOp.CREATE)
        async with self._exclusive(parent):
            if va.vtype == Vtype.VREG:
                found = await self.fs.create(parent, cn, va)
            elif va.vtype == Vtype.VDIR:
                found = await self.fs.mkdir(parent, cn, va)
            else:
                found = await self.fs.mknod(parent, cn, va)
        return self._made(found, va.vtype)

    async def node_symlink(self, parent: Vnode, name: bytes, va: Vattr, target: bytes) -> Vnode:
        self._writable()
        async with self._exclusive(parent):
            cn = self._cn(name, NameiOp.CREATE)
            return self._made(await self.fs.symlink(parent, cn, va, target), Vtype.VLNK)

    async def node_readlink(self, node: Vnode) -> bytes:
        async with self._shared(node):
            return await self.fs.readlink(node, self.cred)

    async def node_remove(self, parent: Vnode, node: Vnode, name: bytes) -> None:
        self._writable()
        async with self._exclusive(parent, node):
            if not await self._is(parent, name, node):
                raise StaleNameError
            await self.fs.remove(parent, node, self._cn(name, NameiOp.DELETE))

    async def node_rmdir(self, parent: Vnode, node: Vnode, name: bytes) -> None:
        self._writable()
        async with self._exclusive(parent, node):
            if not await self._is(parent, name, node):
                raise StaleNameError
            await self.fs.rmdir(parent, node, self._cn(name, NameiOp.DELETE))

    async def node_link(self, parent: Vnode, node: Vnode, name: bytes) -> None:
        self._writable()
        async with self._exclusive(parent, node):
            va, _ = await self.fs.link(parent, node, self._cn(name, NameiOp.CREATE))
        assert va.vtype == node.vtype

    async def node_rename(
        self,
        fdir: Vnode,
        fnode: Vnode,
        fname: bytes,
        tdir: Vnode,
        tnode: Vnode | None,
        tname: bytes,
    ) -> None:
        self._writable()
        involved = [fdir, tdir, fnode] + ([] if tnode is None else [tnode])
        async with self._rename_lock, self._exclusive(*involved):
            if not await self._is(fdir, fname, fnode):
                raise StaleNameError
            found = await self.fs.lookup(tdir, self._cn(tname))
            if found.vp is not None:
                await self.put(found.vp)
            if found.vp is not tnode:
                raise StaleNameError
            await self.fs.rename(
                fdir,
                fnode,
                self._cn(fname, NameiOp.DELETE),
                tdir,
                tnode,
                self._cn(tname, NameiOp.RENAME),
            )

    async def node_getattr(self, node: Vnode) -> Vattr:
        async with self._shared(node):
            va, ttl = await self.fs.getattr(node, self.cred)
        assert ttl >= 0
        return va

    async def node_setattr(self, node: Vnode, va: Vattr) -> None:
        self._writable()
        async with self._exclusive(node):
            after, _ = await self.fs.setattr(node, va, self.cred)
        assert after.vtype == node.vtype

    async def node_access(self, node: Vnode, mode: int) -> None:
        if mode & VWRITE:
            self._writable()
        async with self._shared(node):
            await self.fs.access(node, mode, self.cred)

    async def node_open(self, node: Vnode, mode: int) -> None:
        if mode & FWRITE:
            self._writable()
        async with self._exclusive(node):
            await self.fs.open(node, mode, self.cred)

    async def node_close(self, node: Vnode, mode: int) -> None:
        self.fs.close(node, mode, self.cred)

    async def node_read(self, node: Vnode, offset: int, length: int) -> Buffer:
        async with self._shared(node):
            return await self.fs.read(node, offset, length, 0, self.cred)

    async def node_write(self, node: Vnode, offset: int, data: Buffer, append: bool) -> None:
        async with self._exclusive(node):
            ioflag = IO_APPEND if append else 0
            await self.fs.write(node, offset, data, ioflag, self.cred)

    async def node_fsync(self, node: Vnode, *, closing: bool) -> None:
        async with self._shared(node):
            flags = FSYNC_CLOSE if closing else FSYNC_WAIT
            await self.fs.fsync(node, flags, 0, 0, self.cred)

    async def node_handle(self, node: Vnode) -> bytes:
        return await self.fs.vptofh(node)

    async def node_of_handle(self, handle: bytes) -> Vnode:
        return await self.fs.fhtovp(handle)

    async def node_advlock(self, node: Vnode, owner: int, op: int, flock: Flock) -> Flock:
        return await self.fs.advlock(node, owner, op, flock, 0)

    @system_call
    async def sync(self) -> None:
        await vfs_sync(self.mount, MNT_WAIT)

    async def node_readdir(self, node: Vnode, offset: int) -> tuple[list[RawEntry], bool]:
        async with self._shared(node):
            entries, end = await self.fs.readdir(node, offset, self.resid, self.flags, self.cred)
        raw = []
        for entry in entries:
            if entry.found is not None:
                assert self.flags & READDIR_PLUS
                await self.put(self._made(entry.found, entry.vtype))
            ifmt = VTYPE_TO_IFMT.get(Vtype(entry.vtype), 0)
            raw.append(RawEntry(DirEntry(entry.name, ifmt, entry.fileid), entry.offset))
        return raw, end

    @system_call
    async def statvfs(self) -> Statvfs:
        return system_statvfs(await self.fs.statvfs())

    async def verify(self) -> None:
        await super().verify()
        assert self.root.usecount == self._base, f"references left on the root: {self.root!r}"
        used = [vp for vp in self.mount if vp.usecount and vp is not self.root]
        assert not used, f"references left: {used}"
        locked = [vp for vp in self.mount if vp.lock.is_locked]
        assert not locked, f"locks left: {locked}"
