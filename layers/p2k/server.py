"""P2k: the FileServer over one mount of an emulated kernel. See the package for who holds what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...emul.kernel import Kernel
from ...emul.syncer import vfs_sync
from ...emul.vfs import FileSystem, Lookup
from ...emul.vnode import vref
from ...native.constants import PGO_ALLPAGES, PGO_FREE, Setback
from ...native.records import FSCRED, Cookie, Cred, Newinfo, Statvfs
from .fileops import FileOperations
from .nameops import NameOperations
from .nodes import Node


class P2k(NameOperations, FileOperations):
    """A mount of the emulated kernel, served. Made by `p2k_over`, which owns kernel and mount.

    The cookie of a node is the serial number of its vnode, which the kernel never uses twice.
    """

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

    def _take_back(self, nodes: dict[int, Node]) -> None:
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

    async def print(self, opc: Cookie) -> bytes:
        """See FileServer."""
        vp = self._vp(opc)
        return await vp.fs.print(vp)

    async def pathconf(self, opc: Cookie, name: int) -> int:
        """See FileServer."""
        vp = self._vp(opc)
        return await vp.fs.pathconf(vp, name)

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
