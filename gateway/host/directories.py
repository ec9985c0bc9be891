"""Open directories of the host: entries fetched from the server, told in READDIRPLUS replies."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from errno import ENOENT, ESTALE
from typing import TYPE_CHECKING

from ...native.constants import ISLASTCN, READDIR_PLUS, NameiOp
from ...native.device_replies import NO_ATTR, ROWS_MAX, Attr, DirentRow, dirent_length, dirents
from ...native.errors import VfsError
from ...native.records import Componentname, Cred, Dirent, Newinfo
from .nodes import Node

if TYPE_CHECKING:
    from .handlers import FuseEnd

_CHUNK = 32 * 1024
"""What one READDIR may bring, octets: some 600 entries. The host asks for 4 KiB, some 25."""


class _Told:
    """Entries of one reply, at most `size` octets of them."""

    __slots__ = ("_left", "names", "nodes", "rows")

    def __init__(self, size: int) -> None:
        self._left = size
        self.rows: list[DirentRow] = []
        self.names: list[bytes] = []
        self.nodes: list[Node] = []

    def has_room(self, name: bytes) -> bool:
        return dirent_length(len(name)) <= self._left and len(self.rows) < ROWS_MAX

    def add(self, entry: Dirent, ino: int, entry_ttl: int, attr_ttl: int, attr: Attr) -> None:
        name = entry.name
        self._left -= dirent_length(len(name))
        self.names.append(name)
        kind = attr[6] >> 12  # as directory entries have the type
        self.rows.append((len(name), kind, entry.offset, ino, entry_ttl, attr_ttl, *attr))


class OpenDirectory:
    """One open directory.

    The server gives some hundred entries at once, the host takes what fits into its buffer; the
    rest waits here, each entry's node pinned, until the host asks again, goes elsewhere
    (seekdir, rewinddir) or closes. Each entry that is told counts as a lookup at the host,
    "." and ".." excepted. The host asks from one task at a time: it holds the position's lock.
    """

    __slots__ = ("_end", "_entries", "_eof", "_next", "_offset", "_told", "cred", "node")

    def __init__(self, end: FuseEnd, node: Node, cred: Cred) -> None:
        self._end = end
        self.node = node
        self.cred = cred
        self._entries: Sequence[Dirent] = ()
        self._next = 0  # index of the next entry to tell
        self._offset = 0  # offset of that entry
        self._eof = False
        self._told: list[Node] = []

    async def tell(self, unique: int, start: int, size: int) -> bytes:
        """Return the reply to READDIRPLUS number `unique`: entries from `start` on, up to `size`.

        None are the end.
        """
        if start != self._offset or start == 0:
            self.drop()
            self._offset = start
            self._eof = False
        told = _Told(size)
        self._told = told.nodes
        try:
            await self._fill(told)
        except VfsError:
            if not told.rows:
                raise
            # The host gets what there is; it asks again and then meets the error.
        except BaseException:
            self.untell()
            raise
        return dirents(unique, told.rows, b"".join(told.names))

    async def _fill(self, told: _Told) -> None:
        while True:
            while self._next < len(self._entries):
                entry = self._entries[self._next]
                if not told.has_room(entry.name):
                    return
                await self._tell_entry(entry, told)
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

    def untell(self) -> None:
        """Take back what the last reply told: the host did not get it, and asks again."""
        for node in self._told:
            self._end.nodes.forget(node.ino, 1)
        self._told = []

    async def _tell_entry(self, entry: Dirent, told: _Told) -> None:
        """Tell one entry, unless it is none any more."""
        end = self._end
        if entry.newinfo is not None:
            node = end.nodes.by_cookie(entry.newinfo.cookie)
            assert node is not None, "an entry that waits pins its node"
            await self._tell_node(entry, entry.newinfo, node, told)
            end.nodes.settle(node)
            return
        if entry.name in (b".", b".."):
            # The host takes the number and the type of these; no node is told it.
            node = self.node
            if entry.name == b".." and node.parent is not None:
                node = node.parent
            told.add(entry, 0, 0, 0, (node.ino, *NO_ATTR[:5], stat.S_IFDIR, *NO_ATTR[7:]))
            return
        # An entry that came without its node: look it up now.
        cn = Componentname(NameiOp.LOOKUP, entry.name, self.cred, ISLASTCN)
        info = await end.server.lookup(self.node.cookie, cn)
        if not info.cookie:
            return  # removed meanwhile
        node = end.nodes.absorb(info)
        try:
            await self._tell_node(entry, info, node, told)
        finally:
            end.nodes.settle(node)

    async def _tell_node(self, entry: Dirent, info: Newinfo, node: Node, told: _Told) -> None:
        end = self._end
        try:
            va, ttl = await end.attributes_of(info, self.cred)
        except VfsError as exc:
            if exc.errno in (ENOENT, ESTALE):
                return  # removed meanwhile
            raise
        told.add(entry, node.ino, *end.shown(node.ino, va, ttl, info.cn_ttl))
        told.nodes.append(node)
        end.nodes.tell(self.node, entry.name, node)

    def drop(self) -> None:
        """Give back the nodes of entries that the host was not told."""
        rest = self._entries[self._next :]
        self._entries, self._next = (), 0
        for entry in rest:
            if entry.newinfo is not None:
                node = self._end.nodes.by_cookie(entry.newinfo.cookie)
                if node is not None:
                    self._end.nodes.settle(node)
