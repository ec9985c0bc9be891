"""The operations on one node: they go to its tree as they are."""

from __future__ import annotations

from ...native.constants import Setback
from ...native.records import (
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Flock,
    Statvfs,
    Vattr,
)
from ..ops import FileServer
from .nodes import NodeTable


class NodeOperations(FileServer):
    """The part of the server that only says whose node it is."""

    def __init__(self) -> None:
        self.nodes = NodeTable()

    async def statvfs_at(self, opc: Cookie) -> Statvfs:
        """See FileServer. In a directory that leads to trees, all of them together."""
        node = self.nodes.node(opc)
        if node.place is not None and node.place.server is None:
            return await self.statvfs()
        return await node.server.statvfs_at(node.cookie)

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """See FileServer."""
        node = self.nodes.node(opc)
        flags, setback = await node.server.open(node.cookie, mode, cred)
        if setback & Setback.INACT_N1:
            node.wants_inactive = True
        return flags, setback

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """See FileServer."""
        node = self.nodes.known(opc)
        if node is not None:
            node.server.close(node.cookie, fflag, cred)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.access(node.cookie, mode, cred)

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        node = self.nodes.node(opc)
        answer = await node.server.getattr(node.cookie, cred)
        if node.place is not None:
            node.va = answer[0]
        return answer

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.setattr(node.cookie, va, cred)

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.read(node.cookie, offset, resid, ioflag, cred)

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.write(node.cookie, offset, data, ioflag, cred)

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.fsync(node.cookie, flags, offlo, offhi, cred)

    async def seek(self, opc: Cookie, old: int, new: int, cred: Cred) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.seek(node.cookie, old, new, cred)

    async def mmap(self, opc: Cookie, prot: int, cred: Cred) -> int:
        """See FileServer."""
        node = self.nodes.node(opc)
        setback = await node.server.mmap(node.cookie, prot, cred)
        if setback & Setback.INACT_N1:
            node.wants_inactive = True
        return setback

    async def poll(self, opc: Cookie, events: int) -> int:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.poll(node.cookie, events)

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """See FileServer. A target is not changed: an absolute one begins in the root of all."""
        node = self.nodes.node(opc)
        return await node.server.readlink(node.cookie, cred)

    def abortop(self, opc: Cookie, cn: Componentname) -> None:
        """See FileServer."""
        node = self.nodes.known(opc)
        if node is not None:
            node.server.abortop(node.cookie, cn)

    async def inactive(self, opc: Cookie) -> int:
        """See FileServer. Trees that want to hear of it only on demand hear no more than that."""
        node = self.nodes.known(opc)
        if node is None or (node.tree.inactive_on_demand and not node.wants_inactive):
            return 0
        node.wants_inactive = False
        setback = await node.server.inactive(node.cookie)
        if setback & Setback.INACT_N1:
            node.wants_inactive = True
        return setback

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """See FileServer."""
        self.nodes.reclaim(opc, nlookup)

    async def print(self, opc: Cookie) -> bytes:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.print(node.cookie)

    async def pathconf(self, opc: Cookie, name: int) -> int:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.pathconf(node.cookie, name)

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.advlock(node.cookie, owner, op, flock, flags)

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.getextattr(node.cookie, namespace, name, cred)

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.setextattr(node.cookie, namespace, name, value, flags, cred)

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        """See FileServer."""
        node = self.nodes.node(opc)
        return await node.server.listextattr(node.cookie, namespace, cred)

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.deleteextattr(node.cookie, namespace, name, cred)

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.fallocate(node.cookie, offset, length)

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        node = self.nodes.node(opc)
        await node.server.fdiscard(node.cookie, offset, length)
