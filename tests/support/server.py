"""ServerTarget: a `FileServer` used as the FUSE end uses it, without a host above.

Keeps the books that the host keeps (lookups of each cookie, users, opens) and
checks the rules of layers/ops.py on the way: a cookie is given back exactly as
often as it was handed out, closed as often as opened, and never used afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from syspuffs.layers.ops import FileServer
from syspuffs.native.constants import (
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    ISDOTDOT,
    ISLASTCN,
    MNT_WAIT,
    NAME_MAX,
    READDIR_PLUS,
    NameiOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import (
    VTYPE_TO_IFMT,
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Flock,
    Newinfo,
    Vattr,
)

from .nodes import OURSELVES, RawEntry, system_call
from .target import DirEntry, Statvfs, system_statvfs
from .walk import WalkTarget

DIRENT_HEAD = 24
"""What an entry counts beside its name against `resid` of readdir, octets."""


class ServerNode:
    """What the host knows of a cookie while it is in use."""

    __slots__ = ("cookie", "lock", "nlookup", "opens", "users", "vtype", "was_open")

    def __init__(self, cookie: Cookie, vtype: int) -> None:
        self.cookie = cookie
        self.vtype = vtype
        self.nlookup = 0
        self.users = 0
        self.opens: list[int] = []
        self.was_open = False
        self.lock = trio.Lock()

    def __repr__(self) -> str:
        return f"<cookie {self.cookie:#x} lookups {self.nlookup} opens {self.opens}>"


class ServerTarget(WalkTarget[ServerNode]):
    """The tree of `server`, asked as `cred`.

    Nodes are forgotten as soon as nobody uses them: the harshest life that a cookie
    can lead. `resid` is what one readdir may answer, octets; `plus` asks for nodes with it.
    """

    def __init__(
        self,
        server: FileServer,
        *,
        cred: Cred = OURSELVES,
        resid: int = 1024,
        plus: bool = True,
    ) -> None:
        self.server = server
        self.cred = cred
        self.resid = resid
        self.flags = READDIR_PLUS if plus else 0
        info = server.kargs.root
        assert info.vtype == Vtype.VDIR
        self.root = ServerNode(info.cookie, info.vtype)
        self._nodes: dict[Cookie, ServerNode] = {}
        self._rename_lock = trio.Lock()

    def _cn(self, name: bytes, op: NameiOp = NameiOp.LOOKUP) -> Componentname:
        flags = ISLASTCN | (ISDOTDOT if name == b".." else 0)
        return Componentname(op, name, self.cred, flags)

    def _learn(self, info: Newinfo) -> ServerNode:
        """Count one lookup and one user of the node in `info`."""
        assert 0 < info.cookie < 1 << 63, f"bad cookie {info.cookie}"
        assert Vtype.VNON < info.vtype < Vtype.VBAD, f"bad vtype {info.vtype}"
        if info.va is not None:
            assert info.va.vtype == info.vtype
        if info.cookie == self.root.cookie:
            node = self.root
        else:
            known = self._nodes.get(info.cookie)
            if known is None:
                known = self._nodes[info.cookie] = ServerNode(info.cookie, info.vtype)
            node = known
            node.nlookup += 1
        assert node.vtype == info.vtype, f"a cookie in use changed its type: {info}"
        node.users += 1
        return node

    @asynccontextmanager
    async def locked(self, *parents: ServerNode) -> AsyncIterator[None]:
        """Lock directories as Linux does: a server never sees two changes of one at a time."""
        async with AsyncExitStack() as stack:
            if len(set(parents)) > 1:
                await stack.enter_async_context(self._rename_lock)
            for node in sorted(set(parents), key=lambda node: node.cookie):
                await stack.enter_async_context(node.lock)
            yield

    def hold(self, node: ServerNode) -> ServerNode:
        node.users += 1
        return node

    async def put(self, node: ServerNode) -> None:
        node.users -= 1
        assert node.users >= 0
        if node.users or node is self.root:
            return
        if node.was_open:
            node.was_open = False
            with trio.CancelScope(shield=True):
                await self.server.inactive(node.cookie)
            if node.users:
                return  # somebody looked it up meanwhile
        if self._nodes.get(node.cookie) is node:
            del self._nodes[node.cookie]
            assert not node.opens
            self.server.reclaim(node.cookie, node.nlookup)

    async def node_lookup(self, parent: ServerNode, name: bytes) -> ServerNode | None:
        info = await self.server.lookup(parent.cookie, self._cn(name))
        return self._learn(info) if info.cookie else None

    async def node_make(self, parent: ServerNode, name: bytes, va: Vattr) -> ServerNode:
        cn = self._cn(name, NameiOp.CREATE)
        if va.vtype == Vtype.VREG:
            info = await self.server.create(parent.cookie, cn, va)
        elif va.vtype == Vtype.VDIR:
            info = await self.server.mkdir(parent.cookie, cn, va)
        else:
            info = await self.server.mknod(parent.cookie, cn, va)
        assert info.vtype == va.vtype
        return self._learn(info)

    async def node_symlink(
        self, parent: ServerNode, name: bytes, va: Vattr, target: bytes
    ) -> ServerNode:
        cn = self._cn(name, NameiOp.CREATE)
        return self._learn(await self.server.symlink(parent.cookie, cn, va, target))

    async def node_readlink(self, node: ServerNode) -> bytes:
        return await self.server.readlink(node.cookie, self.cred)

    async def node_remove(self, parent: ServerNode, node: ServerNode, name: bytes) -> None:
        await self.server.remove(parent.cookie, node.cookie, self._cn(name, NameiOp.DELETE))

    async def node_rmdir(self, parent: ServerNode, node: ServerNode, name: bytes) -> None:
        await self.server.rmdir(parent.cookie, node.cookie, self._cn(name, NameiOp.DELETE))

    async def node_link(self, parent: ServerNode, node: ServerNode, name: bytes) -> None:
        va, _ = await self.server.link(parent.cookie, node.cookie, self._cn(name, NameiOp.CREATE))
        assert va.vtype == node.vtype

    async def node_rename(
        self,
        fdir: ServerNode,
        fnode: ServerNode,
        fname: bytes,
        tdir: ServerNode,
        tnode: ServerNode | None,
        tname: bytes,
    ) -> None:
        await self.server.rename(
            fdir.cookie,
            fnode.cookie,
            self._cn(fname, NameiOp.DELETE),
            tdir.cookie,
            None if tnode is None else tnode.cookie,
            self._cn(tname, NameiOp.RENAME),
        )

    async def node_getattr(self, node: ServerNode) -> Vattr:
        va, ttl = await self.server.getattr(node.cookie, self.cred)
        assert ttl >= 0
        return va

    async def node_setattr(self, node: ServerNode, va: Vattr) -> None:
        after, _ = await self.server.setattr(node.cookie, va, self.cred)
        assert after.vtype == node.vtype
        if va.mode is not None:
            assert after.mode == va.mode, f"set the mode {va.mode:o}, told {after.mode!r}"

    async def node_access(self, node: ServerNode, mode: int) -> None:
        await self.server.access(node.cookie, mode, self.cred)

    async def node_open(self, node: ServerNode, mode: int) -> None:
        await self.server.open(node.cookie, mode, self.cred)
        node.opens.append(mode)
        node.was_open = True

    async def node_close(self, node: ServerNode, mode: int) -> None:
        node.opens.remove(mode)
        self.server.close(node.cookie, mode, self.cred)

    async def node_read(self, node: ServerNode, offset: int, length: int) -> Buffer:
        return await self.server.read(node.cookie, offset, length, 0, self.cred)

    async def node_write(self, node: ServerNode, offset: int, data: Buffer, append: bool) -> None:
        ioflag = IO_APPEND if append else 0
        await self.server.write(node.cookie, offset, data, ioflag, self.cred)

    async def node_fsync(self, node: ServerNode, *, closing: bool) -> None:
        if closing and not any(mode & FWRITE for mode in node.opens):
            return
        flags = FSYNC_CLOSE if closing else FSYNC_WAIT
        await self.server.fsync(node.cookie, flags, 0, 0, self.cred)

    async def node_handle(self, node: ServerNode) -> bytes:
        return await self.server.nodetofh(node.cookie)

    async def node_of_handle(self, handle: bytes) -> ServerNode:
        return self._learn(await self.server.fhtonode(handle))

    async def node_advlock(self, node: ServerNode, owner: int, op: int, flock: Flock) -> Flock:
        return await self.server.advlock(node.cookie, owner, op, flock, 0)

    async def node_readdir(self, node: ServerNode, offset: int) -> tuple[list[RawEntry], bool]:
        entries, end = await self.server.readdir(
            node.cookie, offset, self.resid, self.flags, self.cred
        )
        size = sum(DIRENT_HEAD + len(entry.name) for entry in entries)
        assert size <= self.resid or len(entries) == 1, f"{size} octets for {self.resid}"
        return [await self._entry(entry) for entry in entries], end

    async def _entry(self, entry: Dirent) -> RawEntry:
        assert 0 < len(entry.name) <= NAME_MAX
        if entry.newinfo is not None:
            assert self.flags & READDIR_PLUS
            assert entry.name not in (b".", b"..")
            node = self._learn(entry.newinfo)
            assert node.vtype == entry.vtype
            await self.put(node)
        ifmt = VTYPE_TO_IFMT.get(Vtype(entry.vtype), 0)
        return RawEntry(DirEntry(entry.name, ifmt, entry.fileid), entry.offset)

    @system_call
    async def statvfs(self) -> Statvfs:
        return system_statvfs(await self.server.statvfs())

    @system_call
    async def sync(self) -> None:
        await self.server.sync(MNT_WAIT, self.cred)

    async def verify(self) -> None:
        await super().verify()
        assert not self._nodes, f"nodes still in use: {list(self._nodes.values())}"
        assert self.root.users == 0
        try:
            await self.server.getattr(self.root.cookie, self.cred)
        except VfsError as error:
            raise AssertionError(f"the root does not answer any more: {error}") from error
