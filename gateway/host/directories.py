"""Open directories of the host: entries fetched from the server, told in READDIRPLUS replies."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from errno import ENOENT, ESTALE
from typing import TYPE_CHECKING

from ...native.constants import ISLASTCN, READDIR_PLUS, NameiOp
from ...native.device_replies import (
    NO_ATTR,
    ROWS_MAX,
    Attr,
    DirentRow,
    dirent_length,
    dirents,
    dirents_and_page,
)
from ...native.device_replies import page as dirent_page
from ...native.errors import VfsError
from ...native.packed import Page
from ...native.records import Componentname, Cred, Dirent, Newinfo
from .nodes import Node

if TYPE_CHECKING:
    from .handlers import FuseEnd

_CHUNK = 32 * 1024
"""What one READDIR may bring, octets: some 600 entries. The host asks for 4 KiB, some 25."""


class _Told:
    """Entries of one reply, at most `size` octets of them: rows, then pages."""

    __slots__ = ("_names", "_rows", "inos", "left", "pages")

    def __init__(self, size: int) -> None:
        self.left = size
        self._rows: list[DirentRow] = []
        self._names: list[bytes] = []
        self.pages: list[bytes] = []
        self.inos: list[int] = []
        """Of the nodes."""

    def __bool__(self) -> bool:
        return bool(self._rows or self.pages)

    def has_room(self, name: bytes) -> bool:
        fits = dirent_length(len(name)) <= self.left
        return fits and len(self._rows) < ROWS_MAX and not self.pages

    def reply(self, unique: int) -> bytes:
        rows = dirents(unique, self._rows, b"".join(self._names))
        return dirents_and_page(rows, b"".join(self.pages)) if self.pages else rows

    def add(self, entry: Dirent, ino: int, entry_ttl: int, attr_ttl: int, attr: Attr) -> None:
        name = entry.name
        length = len(name)
        self.left -= dirent_length(length)
        self._names.append(name)
        kind = attr[6] >> 12  # as directory entries have the type
        self._rows.append((length, kind, entry.offset, ino, entry_ttl, attr_ttl, *attr))


class OpenDirectory:
    """One open directory.

    The server gives some hundred entries at once, the host takes what fits into its buffer; the
    rest waits here, each entry's node pinned, until the host asks again, goes elsewhere
    (seekdir, rewinddir) or closes. Each entry that is told counts as a lookup at the host,
    "." and ".." excepted. The host asks from one task at a time: it holds the position's lock.
    """

    __slots__ = ("_end", "_entries", "_eof", "_next", "_nodes", "_offset", "_told", "cred", "node")

    def __init__(self, end: FuseEnd, node: Node, cred: Cred) -> None:
        self._end = end
        self.node = node
        self.cred = cred
        self._entries: Sequence[Dirent] = ()
        self._nodes: list[Node | None] = []
        """Those of `_entries`, each pinned until it is told; none of a page."""
        self._next = 0  # index of the next entry to tell
        self._offset = 0  # offset of that entry
        self._eof = False
        self._told: list[int] = []

    async def tell(self, unique: int, start: int, size: int) -> bytes:
        """Return the reply to READDIRPLUS number `unique`: entries from `start` on, up to `size`.

        None are the end.
        """
        if start != self._offset or start == 0:
            self.drop()
            self._offset = start
            self._eof = False
        told = _Told(size)
        self._told = told.inos
        try:
            await self._fill(told)
        except VfsError:
            if not told:
                raise
            # The host gets what there is; it asks again and then meets the error.
        except BaseException:
            self.untell()
            raise
        return told.reply(unique)

    async def _fill(self, told: _Told) -> None:
        while True:
            if type(self._entries) is Page and not self._tell_page(self._entries, told):
                return
            while self._next < len(self._entries):
                entry = self._entries[self._next]
                if not told.has_room(entry.name):
                    return
                if not self._tell_known(entry, told):
                    await self._tell_entry(entry, told)
                self._next += 1
                self._offset = entry.offset
            if self._eof:
                return
            self._entries, self._nodes, self._next = (), [], 0
            self._entries, self._eof = await self._end.server.readdir(
                self.node.cookie, self._offset, _CHUNK, READDIR_PLUS, self.cred
            )
            if not self._entries:
                return
            if type(self._entries) is not Page:
                self._absorb(self._entries)

    def _absorb(self, entries: Sequence[Dirent]) -> None:
        absorb = self._end.nodes.absorb
        self._nodes = [None if info is None else absorb(info) for _, _, _, _, info in entries]

    def _tell_page(self, page: Page, told: _Told) -> bool:
        """Tell what has room of the files of a page, without looking at each; its dots, and pages
        that are to be looked at, are left to `_tell_entry`. Return False when there is no room.

        What is not told yet has no nodes here: its lookups wait in the page (see `drop`).
        """
        end = self._end
        dots = len(page.dots)
        shown = end.shown_page(page)
        if shown is None:
            # One by one, and as a list: each entry of a page is made anew for each look.
            self._entries, self._next = page[self._next :], 0
            self._absorb(self._entries)
            return True
        while self._next < dots:
            if not told.has_room(page.dots[self._next].name):
                return False
            self._tell_dot(page.dots[self._next], told)
            self._next += 1
            self._offset = page.dots[self._next - 1].offset
        files = page.files
        at = self._next - dots
        octets, count = dirent_page(files, at, told.left, *shown)
        if count:
            fileids = files.fileids[at : at + count]
            end.nodes.tell_page(self.node, files.names[at : at + count], fileids)
            told.pages.append(octets)
            told.left -= len(octets)
            told.inos += fileids
            self._next += count
            self._offset = files.offsets[at + count - 1]
        return self._next == len(page)

    def untell(self) -> None:
        """Take back what the last reply told: the host did not get it, and asks again."""
        for ino in self._told:
            self._end.nodes.forget(ino, 1)
        self._told = []

    def _tell_known(self, entry: Dirent, told: _Told) -> bool:
        """Tell an entry that came with its attributes, as most do; return whether it did."""
        node, info = self._nodes[self._next], entry.newinfo
        if node is None or info is None or info.va is None:
            return False
        end, ino = self._end, node.ino
        told.add(entry, ino, *end.shown(ino, info.va, info.va_ttl, info.cn_ttl))
        told.inos.append(ino)
        end.nodes.tell_pinned(self.node, entry.name, node)
        return True

    async def _tell_entry(self, entry: Dirent, told: _Told) -> None:
        """Tell one entry, unless it is none any more."""
        end = self._end
        node = self._nodes[self._next]
        if entry.newinfo is not None and node is not None:
            await self._tell_node(entry, entry.newinfo, node, told)
            end.nodes.settle(node)
            return
        if entry.name in (b".", b".."):
            self._tell_dot(entry, told)
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

    def _tell_dot(self, entry: Dirent, told: _Told) -> None:
        """Tell "." or "..": the host takes their number and type, and is told no node."""
        node = self.node
        if entry.name == b".." and node.parent is not None:
            node = node.parent
        told.add(entry, 0, 0, 0, (node.ino, *NO_ATTR[:5], stat.S_IFDIR, *NO_ATTR[7:]))

    async def _tell_node(self, entry: Dirent, info: Newinfo, node: Node, told: _Told) -> None:
        end = self._end
        try:
            va, ttl = await end.attributes_of(info, self.cred)
        except VfsError as exc:
            if exc.errno in (ENOENT, ESTALE):
                return  # removed meanwhile
            raise
        told.add(entry, node.ino, *end.shown(node.ino, va, ttl, info.cn_ttl))
        told.inos.append(node.ino)
        end.nodes.tell(self.node, entry.name, node)

    def drop(self) -> None:
        """Give back the nodes of entries that the host was not told."""
        entries, at = self._entries, self._next
        self._entries, self._next = (), 0
        if type(entries) is Page:
            self._end.nodes.give_back(entries.files.fileids[max(at - len(entries.dots), 0) :])
            return
        nodes, self._nodes = self._nodes, []
        for node in nodes[at:]:
            if node is not None:
                self._end.nodes.settle(node)
