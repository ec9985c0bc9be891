"""Open directories of the host: entries fetched from the server, told in READDIRPLUS replies."""

from __future__ import annotations

from collections.abc import Sequence
from errno import ENOENT, ESTALE
from typing import TYPE_CHECKING

import pyfuse3

from ..native.constants import ISLASTCN, READDIR_PLUS, NameiOp, Vtype
from ..native.errors import VfsError
from ..native.records import Componentname, Cred, Dirent, Newinfo, Vattr
from .nodes import Node

if TYPE_CHECKING:
    from .handlers import FuseEnd

_CHUNK = 32 * 1024
"""What one READDIR may bring, octets: some 600 entries. The host asks for 4 KiB, some 25."""


class OpenDirectory:
    """One open directory.

    The server gives some hundred entries at once, the host takes what fits into its buffer; the
    rest waits here, each entry's node pinned, until the host asks again, goes elsewhere
    (seekdir, rewinddir) or closes. Each entry that is told counts as a lookup at the host,
    "." and ".." excepted. The host asks from one task at a time: it holds the position's lock.
    """

    __slots__ = ("_end", "_entries", "_eof", "_next", "_offset", "cred", "node")

    def __init__(self, end: FuseEnd, node: Node, cred: Cred) -> None:
        self._end = end
        self.node = node
        self.cred = cred
        self._entries: Sequence[Dirent] = ()
        self._next = 0  # index of the next entry to tell
        self._offset = 0  # offset of that entry
        self._eof = False

    async def tell(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Tell entries from offset `start` on until the buffer behind `token` is full."""
        if start != self._offset or start == 0:
            self.drop()
            self._offset = start
            self._eof = False
        while True:
            while self._next < len(self._entries):
                entry = self._entries[self._next]
                if not await self._tell_entry(entry, token):
                    return
                self._next += 1
                self._offset = entry.offset
            if self._eof:
                return
            self._entries, self._next = (), 0
            self._entries, self._eof = await self._end.server.readdir(
                self.node.cookie, self._offset, _CHUNK, READDIR_PLUS, self.cred
            )
            for entry in self._entries:
                if entry.newinfo is not None:
                    self._end.nodes.absorb(entry.newinfo)
            if not self._entries:
                return

    async def _tell_entry(self, entry: Dirent, token: pyfuse3.ReaddirToken) -> bool:
        """Tell one entry; return whether it fitted (or is none any more)."""
        end = self._end
        if entry.newinfo is not None:
            node = end.nodes.by_cookie(entry.newinfo.cookie)
            assert node is not None, "an entry that waits pins its node"
            if not await self._tell_node(entry, entry.newinfo, node, token):
                return False
            end.nodes.settle(node)
            return True
        if entry.name in (b".", b".."):
            # The host takes the number and the type of these and counts no lookup.
            node = self.node
            if entry.name == b".." and node.parent is not None:
                node = node.parent
            shown = end.entry(node.ino, Vattr(Vtype.VDIR, 0), 0)
            return pyfuse3.readdir_reply(token, entry.name, shown, entry.offset)
        # An entry that came without its node: look it up now.
        cn = Componentname(NameiOp.LOOKUP, entry.name, self.cred, ISLASTCN)
        info = await end.server.lookup(self.node.cookie, cn)
        if not info.cookie:
            return True  # removed meanwhile
        node = end.nodes.absorb(info)
        try:
            return await self._tell_node(entry, info, node, token)
        finally:
            end.nodes.settle(node)

    async def _tell_node(
        self, entry: Dirent, info: Newinfo, node: Node, token: pyfuse3.ReaddirToken
    ) -> bool:
        end = self._end
        try:
            va, ttl = await end.attributes_of(info, self.cred)
        except VfsError as exc:
            if exc.errno in (ENOENT, ESTALE):
                return True  # removed meanwhile
            raise
        shown = end.entry(node.ino, va, ttl, info.cn_ttl)
        if not pyfuse3.readdir_reply(token, entry.name, shown, entry.offset):
            return False
        end.nodes.tell(self.node, entry.name, node)
        return True

    def drop(self) -> None:
        """Give back the nodes of entries that the host was not told."""
        rest = self._entries[self._next :]
        self._entries, self._next = (), 0
        for entry in rest:
            if entry.newinfo is not None:
                node = self._end.nodes.by_cookie(entry.newinfo.cookie)
                if node is not None:
                    self._end.nodes.settle(node)
