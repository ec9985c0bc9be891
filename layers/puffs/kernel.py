"""The kernel half: a FileSystem whose vnode operations become frames to a server.

How a request goes out and its reply comes back is in `requests`, the operations on names and
files in `nameops` and `fileops`; here are those on the whole file system and on the life of
vnodes. The rules are those of kernel puffs: CLOSE, RECLAIM and ABORTOP are fire-and-forget;
INACTIVE is sent where it was asked for and never lost; an answer is held against what was asked.
"""

from __future__ import annotations

import math
from errno import E2BIG, ENXIO, ETIMEDOUT
from typing import Final

import trio

from ...emul.vnode import Vnode
from ...native.constants import MNT_FORCE, VfsOp, VnOp
from ...native.errors import VfsError
from ...native.records import FSCRED, Cred, Flock, Statvfs
from .fileops import FileOperations
from .nameops import NameOperations
from .nodes import PuffsNode, apply_setbacks

INACTIVE_WAIT: Final = 10.0
"""How long a node that becomes unused waits for the server, seconds."""

# As plain numbers: members of an enumeration are slow to reach.
_INACTIVE: Final = int(VnOp.INACTIVE)
_RECLAIM: Final = int(VnOp.RECLAIM)


class PuffsFs(NameOperations, FileOperations):
    """The operations of a kernel half. Made by `puffs_over` and `puffs_over_socket`."""

    # The whole file system.

    async def start(self) -> None:
        """See FileSystem. Errors: ENXIO when the server is gone already."""
        if self.touser.is_dead:
            raise VfsError(ENXIO, "the server is gone")
        self.is_mounted = True

    async def root(self) -> Vnode:
        """See FileSystem."""
        return self._nodes.root()

    async def statvfs(self) -> Statvfs:
        """See FileSystem."""
        answer: Statvfs = await self._ask_vfs(VfsOp.STATVFS, ())
        return answer

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """See FileSystem."""
        if self.touser.is_dead and cred == FSCRED:
            return  # the kernel, about to unmount: there is nothing left to lose
        await self._ask_vfs(VfsOp.SYNC, (waitfor, cred))

    async def unmount(self, flags: int) -> None:
        """See FileSystem; the server's error vetoes, and so does silence, but for MNT_FORCE.

        A dead server is not asked. Errors: the server's; ETIMEDOUT.
        """
        if self.touser.is_dead:
            self.is_mounted = False
            return
        self.is_unmounting = True
        try:
            with trio.move_on_after(self._unmount_wait) as scope:
                await self._ask_vfs(VfsOp.UNMOUNT, (flags,), urgent=True)
            if scope.cancelled_caught:
                raise VfsError(ETIMEDOUT, "the server does not answer the unmount")
        except BaseException as exc:
            if flags & MNT_FORCE or (isinstance(exc, VfsError) and self.touser.is_dead):
                self._end()
                if isinstance(exc, VfsError):
                    return
            raise
        finally:
            self.is_unmounting = False
        self._end()

    def _end(self) -> None:
        self.is_mounted = False
        self.touser.end()

    async def fhtovp(self, handle: bytes) -> Vnode:
        """See FileSystem."""
        return self._nodes.of_handle(await self._ask_vfs(VfsOp.FHTOVP, (handle,)))

    async def vptofh(self, vp: Vnode) -> bytes:
        """See FileSystem."""
        handle: bytes = await self._ask_vfs(VfsOp.VPTOFH, (), vp.data.cookie)
        return handle

    async def extattrctl(self, cmd: int, vp: Vnode | None, namespace: int, name: bytes) -> None:
        """See FileSystem."""
        cookie = 0 if vp is None else vp.data.cookie
        await self._ask_vfs(VfsOp.EXTATTRCTL, (cmd, namespace, name), cookie)

    # Life cycle.

    async def inactive(self, vp: Vnode) -> bool:
        """See FileSystem. The server hears of it if it wants to, whatever happens to the caller.

        A cancelled caller sends it as fire-and-forget; one who is cancelled while he waits goes
        on waiting, at most INACTIVE_WAIT seconds.
        """
        node: PuffsNode = vp.data
        if self._has[_INACTIVE] and (node.wants_inactive or not self._inactive_on_demand):
            node.wants_inactive = False
            if trio.current_effective_deadline() == -math.inf:
                self._post(_INACTIVE, node.cookie, ())
            else:
                with trio.move_on_after(INACTIVE_WAIT, shield=True):
                    try:
                        setbacks = await self._ask(_INACTIVE, node.cookie, ())
                        if setbacks:
                            apply_setbacks(setbacks, node)
                    except VfsError:
                        pass  # it cannot fail; a broken answer has been complained about
        return node.is_dying

    def reclaim(self, vp: Vnode) -> None:
        """See FileSystem. The root was not looked up and is not given back."""
        node: PuffsNode = vp.data
        if node.nlookup and node.cookie != self.kargs.root.cookie:
            self._post(_RECLAIM, node.cookie, (node.nlookup,))

    # The rest.

    async def print(self, vp: Vnode) -> bytes:
        """See FileSystem."""
        line = repr(vp).encode()
        if self._has[VnOp.PRINT]:
            line += b" " + await self._ask(VnOp.PRINT, vp.data.cookie, ())
        return line

    async def pathconf(self, vp: Vnode, name: int) -> int:
        """See FileSystem."""
        limit: int = await self._ask(VnOp.PATHCONF, vp.data.cookie, (name,))
        return limit

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """See FileSystem."""
        args = (owner, op, flock, flags)
        answer: Flock = await self._ask(VnOp.ADVLOCK, vp.data.cookie, args)
        return answer

    async def getextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileSystem."""
        value: bytes = await self._ask(VnOp.GETEXTATTR, vp.data.cookie, (namespace, name, cred))
        return value

    async def setextattr(
        self, vp: Vnode, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileSystem. Errors: E2BIG for what does not fit in a frame."""
        if len(value) > self._maxdata:
            raise VfsError(E2BIG)
        args = (namespace, name, value, flags, cred)
        await self._ask(VnOp.SETEXTATTR, vp.data.cookie, args)

    async def listextattr(self, vp: Vnode, namespace: int, cred: Cred) -> bytes:
        """See FileSystem."""
        names: bytes = await self._ask(VnOp.LISTEXTATTR, vp.data.cookie, (namespace, cred))
        return names

    async def deleteextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileSystem."""
        await self._ask(VnOp.DELETEEXTATTR, vp.data.cookie, (namespace, name, cred))
