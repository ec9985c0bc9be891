"""Names, asked for by the host: found, made, removed, moved.

A name that is to be removed or renamed is known to a file server by its cookie too, which the host
does not say: it is found here, as a rule among the names that the host looked up.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...native import device_replies as replies
from ...native.constants import NameiOp, Setback, Vtype
from ...native.device_requests import Request
from ...native.errors import VfsError
from ...native.fuse_protocol import RENAME_EXCHANGE, RENAME_NOREPLACE, Opcode
from ...native.records import IFMT_TO_VTYPE, Componentname, Cookie, Newinfo, Vattr
from .nodes import Node
from .worker import Answer

if TYPE_CHECKING:
    from .handlers import FuseEnd


class Names:
    """The handlers of these requests, for one host end."""

    def __init__(self, end: FuseEnd) -> None:
        self._end = end
        self.handlers: dict[int, Callable[..., Any]] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.SYMLINK: self.symlink,
            Opcode.LINK: self.link,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename,
            Opcode.READLINK: self.readlink,
        }

    async def lookup(self, request: Request, name: bytes) -> bytes:
        """Find a name; a missing one that may be remembered is an entry with number 0."""
        end = self._end
        parent = end.node(request.nodeid)
        cn = end.cn(name, request)
        info = await end.server.lookup(parent.cookie, cn)
        if not info.cookie:
            end.nodes.unname(parent, name)
            if not info.cn_ttl or end.no_names:
                raise VfsError(errno.ENOENT)
            return replies.entry(request.unique, 0, info.cn_ttl, 0, replies.NO_ATTR)
        return await end.told(request, parent, cn, info)

    async def _make(
        self,
        request: Request,
        name: bytes,
        make: Callable[[Cookie, Componentname], Awaitable[Newinfo]],
    ) -> bytes:
        parent = self._end.node(request.nodeid)
        cn = self._end.cn(name, request, NameiOp.CREATE)
        return await self._end.told(request, parent, cn, await make(parent.cookie, cn))

    async def mknod(self, request: Request, mode: int, rdev: int, name: bytes) -> bytes:
        """Make a file, device, fifo or socket."""
        vtype = IFMT_TO_VTYPE.get(stat.S_IFMT(mode) or stat.S_IFREG)
        if vtype is None:
            raise VfsError(errno.EINVAL)
        va = Vattr(
            vtype, stat.S_IMODE(mode), rdev=rdev if vtype in (Vtype.VBLK, Vtype.VCHR) else None
        )
        server = self._end.server
        if vtype == Vtype.VREG:
            return await self._make(request, name, lambda opc, cn: server.create(opc, cn, va))
        return await self._make(request, name, lambda opc, cn: server.mknod(opc, cn, va))

    async def mkdir(self, request: Request, mode: int, name: bytes) -> bytes:
        """Make a directory."""
        va = Vattr(Vtype.VDIR, stat.S_IMODE(mode))
        return await self._make(request, name, lambda opc, cn: self._end.server.mkdir(opc, cn, va))

    async def symlink(self, request: Request, name: bytes, target: bytes) -> bytes:
        """Make a symbolic link."""
        va = Vattr(Vtype.VLNK, 0o777)
        return await self._make(
            request, name, lambda opc, cn: self._end.server.symlink(opc, cn, va, target)
        )

    async def link(self, request: Request, ino: int, name: bytes) -> bytes:
        """Add a name to a node."""
        node, parent = self._end.node(ino), self._end.node(request.nodeid)
        cn = self._end.cn(name, request, NameiOp.CREATE)
        va, ttl = await self._end.server.link(parent.cookie, node.cookie, cn)
        self._end.nodes.tell(parent, name, node)
        return replies.entry(request.unique, node.ino, *self._end.shown(node.ino, va, ttl, ttl))

    async def _remove(self, request: Request, name: bytes, *, directory: bool) -> bytes:
        parent = self._end.node(request.nodeid)
        cn = self._end.cn(name, request, NameiOp.DELETE)
        victim = await self._victim(parent, cn)
        try:
            remove = self._end.server.rmdir if directory else self._end.server.remove
            setback = await remove(parent.cookie, victim.cookie, cn)
            if setback & Setback.INACT_N2:
                victim.wants_inactive = True
            self._end.nodes.unname(parent, name)
        finally:
            self._end.nodes.settle(victim)
        return replies.error(request.unique, 0)

    async def unlink(self, request: Request, name: bytes) -> bytes:
        """Remove a name of a node that is no directory."""
        return await self._remove(request, name, directory=False)

    async def rmdir(self, request: Request, name: bytes) -> bytes:
        """Remove an empty directory."""
        return await self._remove(request, name, directory=True)

    async def rename(
        self, request: Request, new_parent: int, flags: int, name_old: bytes, name_new: bytes
    ) -> bytes:
        """Rename, replacing what is there, or as one of renameat2's flags says.

        Errors: EINVAL for flags that the server does not have, or that exclude each other.
        """
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise VfsError(errno.EINVAL)
        old_dir, new_dir = self._end.node(request.nodeid), self._end.node(new_parent)
        cn_src = self._end.cn(name_old, request, NameiOp.DELETE)
        cn_targ = self._end.cn(name_new, request, NameiOp.RENAME)
        src = await self._victim(old_dir, cn_src)
        targ: Node | None = None
        try:
            targ = await self._present(new_dir, cn_targ)
            if targ is not None and flags == RENAME_NOREPLACE:
                raise VfsError(errno.EEXIST)
            args = (old_dir.cookie, src.cookie, cn_src, new_dir.cookie)
            targ_cookie = None if targ is None else targ.cookie
            if flags:
                await self._rename_with(*args, targ_cookie, cn_targ, flags)
            else:
                await self._end.server.rename(*args, targ_cookie, cn_targ)
            if src is not targ:  # two names of one file: rename(2) leaves both
                self._end.nodes.unname(old_dir, name_old)
                self._end.nodes.unname(new_dir, name_new)
                if src.nlookup > 0:
                    self._end.nodes.name(new_dir, name_new, src)
                if targ is not None and flags == RENAME_EXCHANGE and targ.nlookup > 0:
                    self._end.nodes.name(old_dir, name_old, targ)
        finally:
            if targ is not None:
                self._end.nodes.settle(targ)
            self._end.nodes.settle(src)
        return replies.error(request.unique, 0)

    async def _rename_with(self, *args: Any) -> None:
        try:
            await self._end.server.rename_with(*args)
        except VfsError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
            raise VfsError(errno.EINVAL) from None  # as file systems without flags say it

    async def readlink(self, request: Request) -> Answer:
        """Return the target of a symbolic link."""
        node = self._end.node(request.nodeid)
        target = await self._end.server.readlink(node.cookie, self._end.cred(request))
        return replies.data_head(request.unique, len(target)), target

    async def _victim(self, parent: Node, cn: Componentname) -> Node:
        """Return the node that the host means by a name, pinned; as a rule it looked it up."""
        node = await self._present(parent, cn)
        if node is None:
            raise VfsError(errno.ENOENT)
        return node

    async def _present(self, parent: Node, cn: Componentname) -> Node | None:
        node = self._end.nodes.child(parent, cn.name)
        if node is not None:
            node.pins += 1
            return node
        info = await self._end.server.lookup(parent.cookie, cn)
        return self._end.nodes.absorb(info) if info.cookie else None
