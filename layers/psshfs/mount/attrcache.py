"""What we know of the tree, for how long, and what new knowledge does to older.

Knowledge comes in by three ways: an answer about one path (`learn`), a
directory's listing (`load`), and our own changes. An answer to a question that
was asked before a change of ours is older than the change and never overwrites
it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ....native import sftp
from ....native.constants import TTL_FOREVER, FlushOp, Vtype
from ....native.errors import VfsError
from ....native.records import Newinfo, Vattr
from ..tree.attributes import vtype_of, with_vtype
from ..tree.listing import Entry, Listing
from ..tree.node import DirectoryNode, Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS
from .parts import Parts


class AttrCache(Parts):
    """What the nodes and listings of one mount tell; the operations are in the subclasses."""

    # Answers.

    def newinfo(self, node: Node, now: int) -> Newinfo:
        """Return the answer that gives `node` out once more: one lookup is counted.

        Attributes that a change of ours has overtaken (`expiry` 0) are not among it.
        """
        node.nlookup += 1
        va = node.va
        return Newinfo(
            node.cookie,
            va.vtype or 0,
            va.size or 0,
            0,
            va if node.expiry else None,
            max(node.expiry - now, 0),
            max(node.name_expiry - now, 0),
        )

    def attr_ttl(self, node: Node) -> int:
        """Return for how many ns the attributes of `node` may be believed."""
        return min(max(node.expiry - self.clock(), 0), TTL_FOREVER)

    # Learning about one node.

    def learn(
        self,
        directory: DirectoryNode,
        name: bytes,
        attrs: sftp.Attrs,
        stamp: int,
        heard: int,
    ) -> Node:
        """Take in `attrs` for a name; return its node, which is made if there is none.

        `stamp` is the change count when the question was asked, `heard` when the answer came
        (monotonic ns). A name that leads to another type of file now leads to another node.
        """
        child = self.table.child(directory, name)
        vtype = vtype_of(attrs)
        if vtype is None:
            vtype = Vtype.VREG if child is None else Vtype(child.vtype)
            attrs = with_vtype(attrs, vtype)
        if child is not None and child.vtype == vtype:
            fileid, nlink = child.fileid, child.nlink
        else:
            fileid, nlink = self.fileid_of(directory, name), 1
        va = self.translator.vattr(attrs, fileid, nlink)
        return self._learn(directory, name, va, stamp, heard)

    def learn_entry(self, directory: DirectoryNode, listing: Listing, entry: Entry) -> Node:
        """As `learn`, of an entry whose attributes the listing of `directory` has brought."""
        if entry.nlookup:
            return self.table.promote(entry)
        va = self.translator.unpacked(entry)
        return self._learn(directory, entry.name, va, listing.stamp, listing.heard)

    def _learn(
        self, directory: DirectoryNode, name: bytes, va: Vattr, stamp: int, heard: int
    ) -> Node:
        child = self.table.child(directory, name)
        if child is not None:
            if heard < child.checked_at:
                return child  # a listing from before the server was last asked
            if self.gate.is_changing(directory, name):
                return child  # nobody can tell whether this is of the file before or after
            if child.vtype == va.vtype:
                self.take(child, va, stamp, heard)
                child.name_expiry = max(child.name_expiry, heard + self.timeouts.name)
                return child
            if child.changed_at > stamp:
                return child
            self.table.drop_name(directory, name)
            fileid = self.table.fileid_at(directory, name)
            if directory.listing is not None:
                directory.listing.set_fileid(name, fileid)
            va = va._replace(fileid=fileid)
        return self._known(directory, name, va, heard)

    def node_of(self, entry: Entry) -> Node:
        """Return the node of an entry, which has none, with what its listing knows."""
        directory, listing = entry.directory, entry.directory.listing
        assert listing is not None
        return self._known(directory, entry.name, self.translator.unpacked(entry), listing.heard)

    def _known(self, directory: DirectoryNode, name: bytes, va: Vattr, heard: int) -> Node:
        child = self.table.make(directory, name, va)
        child.checked_at = heard
        child.expiry = self._attr_expiry(directory, heard)
        child.name_expiry = (
            child.expiry if self.timeouts.name == self.timeouts.attr else heard + self.timeouts.name
        )
        return child

    def fileid_of(self, directory: DirectoryNode, name: bytes) -> int:
        """Return the file id that a name has, or the one that it is to have."""
        child = self.table.child(directory, name)
        if child is not None:
            return child.fileid
        if directory.listing is not None:
            entry = directory.listing.entries.get(name)
            if entry is not None and not self.table.is_displaced(entry.fileid):
                return entry.fileid
        return self.table.fileid_at(directory, name)

    def update(
        self,
        node: Node,
        attrs: sftp.Attrs,
        stamp: int,
        heard: int,
        *,
        is_after_close: bool = False,
    ) -> None:
        """Take in `attrs` for a node of the same type, as `learn` does.

        `is_after_close`: asked right behind our last write, so that a new mtime is our own.
        """
        va = self.translator.vattr(attrs, node.fileid, node.nlink)
        self.take(node, va, stamp, heard, is_after_close=is_after_close)

    def take(
        self, node: Node, va: Vattr, stamp: int, heard: int, *, is_after_close: bool = False
    ) -> None:
        """As `update`, with attributes that are translated and tell the links."""
        file = node.file
        old = node.va
        if node.changed_at > stamp:
            return  # asked before our change: what is known here is younger
        if va.fileid != node.fileid:
            va = va._replace(fileid=node.fileid)
        if file is not None and not file.writes.is_idle:
            # The server may not have done all writes yet, and mtime is still moving.
            if file.writes.end > (va.size or 0):
                va = va._replace(size=file.writes.end)
            node.va = va
            node.expiry = 0
            return
        if node.is_modified:
            node.is_modified = False
            node.known_data = None
            if is_after_close and va.size == old.size:
                node.known_data = (va.size or 0, va.mtime or 0, self.wall())
        elif va.mtime != old.mtime or va.size != old.size:
            self._changed_elsewhere(node, va)
        node.va = va
        node.checked_at = heard
        node.expiry = self._attr_expiry(node.parent, heard)

    def _attr_expiry(self, directory: DirectoryNode | None, heard: int) -> int:
        """Return until when attributes heard of at `heard` are believed: one number, not many
        that are equal, for all that the listing of `directory` brought."""
        listing = None if directory is None else directory.listing
        if listing is not None and heard is listing.heard:
            return listing.attr_expiry
        return heard + self.timeouts.attr

    def _changed_elsewhere(self, node: Node, va: Vattr) -> None:
        """React to a change that was not ours."""
        if node.vtype == Vtype.VREG:
            node.known_data = None
            file = node.file
            if file is not None:
                file.drop_blocks()
                if file.is_open:
                    self.flusher.request(FlushOp.INVAL_PAGECACHE_NODE_RANGE, node.cookie)
        elif node.vtype == Vtype.VLNK:
            node.target = None
        elif isinstance(node, DirectoryNode):
            listing = node.listing
            if listing is not None and listing.stamp >= node.changed_at:
                listing.expiry = 0
                node.missing = None

    async def fetch(self, node: Node) -> None:
        """Ask the server for the attributes of `node`.

        By path, for that is what a program's stat means; by handle when no name is left.
        Errors: the server's; ESTALE when the name leads to another type of file now, or no
        name and no handle is left. Wire: LSTAT (FSTAT), one round trip.
        """
        connection = self.connection
        table = self.table
        while not node.is_gone:
            await self.ready(node)
            if node.is_gone:
                break
            if node.parent is not None:
                self.walk.missed(node.parent)
            stamp = table.changes
            moves = table.moves
            try:
                attrs = await connection.submit(ATTRS, sftp.lstat, table.path(node))
            except StatusError as exc:
                if exc.errno != errno.ENOENT or node is table.root:
                    raise
                if moves != table.moves or self.gate.is_closed(node):
                    continue  # the path was another one by the time the server looked
                self.lose(node)
                if node.file is None or node.file.handle is None:
                    raise
            else:
                if self.gate.is_closed(node):
                    continue  # a change of ours has begun: it may be another file's
                self.take_attrs(node, attrs, stamp)
                return
        stamp = table.changes
        handle = node.file.handle if node.file is not None else None
        if handle is None:
            raise VfsError(errno.ESTALE, "the last name of the node is gone")
        self.take_attrs(node, await connection.submit(ATTRS, sftp.fstat, handle), stamp)

    def take_attrs(self, node: Node, attrs: sftp.Attrs, stamp: int) -> None:
        """Take in the answer to a question about a node itself. Errors: ESTALE, see `fetch`."""
        vtype = vtype_of(attrs)
        if vtype is None or node is self.table.root:
            attrs = with_vtype(attrs, node.vtype)
        elif vtype != node.vtype:
            self.lose(node)
            raise VfsError(errno.ESTALE, "the name leads to another file now")
        heard = self.clock()
        self.update(node, attrs, stamp, heard)
        node.name_expiry = max(node.name_expiry, heard + self.timeouts.name)

    async def present_va(self, node: Node) -> Vattr:
        """Return attributes of `node` that are as true as the time-outs promise."""
        self.counts.attributes += 1
        if self.clock() >= node.expiry:
            self.counts.attributes_missed += 1
            await self.fetch(node)
        return node.va

    # Own changes.

    @contextmanager
    def changing(self, *names: tuple[DirectoryNode, bytes]) -> Iterator[None]:
        """Keep requests by path away from `names` while a request changes them.

        When its outcome stays unknown, for its caller was cancelled, what we know of the names
        is dropped: the next look will tell.
        """
        try:
            with self.gate.closed(*names):
                yield
        except StatusError:
            raise
        except BaseException:
            for directory, name in names:
                self.forget_name(directory, name)
                self.touched(directory)
                if directory.listing is not None:
                    directory.listing.expiry = 0
            raise

    def touched(self, directory: DirectoryNode) -> None:
        """Note that we changed what a directory holds: its times are the server's to tell."""
        self.table.changed(directory)
        directory.expiry = 0
