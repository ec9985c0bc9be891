"""What we know of the tree, for how long, and what new knowledge does to older.

`AttrCache` is the part of the server that all operations stand on. Knowledge
comes in by three ways: an answer about one path (`learn`), a directory's
listing (`load`), and our own changes. An answer to a question that was asked
before a change of ours is older than the change and never overwrites it.
"""

from __future__ import annotations

import errno
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

from ...native import sftp
from ...native.constants import FREAD, TTL_FOREVER, FlushOp, Vtype
from ...native.errors import VfsError
from ...native.records import Cookie, Newinfo, Vattr
from ..ops import FileServer, Upcalls
from .attributes import Translator, vtype_of, with_vtype
from .channels import Channels, Opener
from .connection import Connection
from .counts import Counts
from .errmap import StatusError
from .fetching import DEPTH_MAX
from .flusher import Flusher
from .gate import Gate
from .listing import Entry, Listing, Listings
from .node import CHECKED_NEVER, DirectoryNode, Node
from .nodetable import NodeTable
from .openfile import OpenFile
from .opening import OpenDirectories
from .options import PsshfsOptions
from .pace import Pace
from .prefetch import WINDOW_MAX, Prefetch
from .readahead import AGE_MIN, ReadAhead
from .refine import Refiner
from .session import Session
from .slot import ATTRS, HANDLE
from .space import Space
from .walking import Walk
from .writeback import FILES_MAX, WriteBack

LACKING_TRIPS: Final = 5
"""For so many round trips longer a listing is believed that a name is not there, as its own fetch
takes two: at 200 ms a program asks for few names in a second."""
RACY: Final = 2 * 10**9
"""A file changed so recently, ns, may change again and still show the same whole second."""


class AttrCache(FileServer):
    """Nodes, attributes and listings of one mount; the operations are in the subclasses.

    `clock` gives monotonic ns, `wall` ns since 1970; tests have their own.
    """

    def __init__(
        self,
        connection: Connection,
        session: Session,
        options: PsshfsOptions,
        nursery: trio.Nursery,
        *,
        opener: Opener | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self.connection = connection
        self.channels = Channels(
            connection, nursery, opener, options.max_conns, options.request_timeout
        )
        self.session = session
        self.options = options
        self.clock = clock
        self.wall = wall
        self.timeouts = options.timeouts
        self.counts = Counts()
        self.flusher = Flusher(nursery)
        self.readdir_depth = DEPTH_MAX
        """READDIRs that the server takes at once."""
        self._write_pace = Pace(connection.round_trip)
        self.loading: dict[DirectoryNode, trio.Lock] = {}
        """The directories whose listings are being fetched."""
        self.gate = Gate()
        self.translator = Translator(options, session.home)
        self.refiner = Refiner(connection, session)
        root_attrs = session.root_attrs
        if vtype_of(root_attrs) is None:
            # A server that tells no types: the root was asked for as a directory.
            root_attrs = with_vtype(root_attrs, Vtype.VDIR)
        self.table = NodeTable(
            session.root,
            self.translator.vattr(root_attrs, 1, 1),
            Listings(options.names_max),
            self._node_of,
        )
        self.table.root.expiry = clock() + self.timeouts.attr
        self.readahead = ReadAhead(
            self.channels,
            session.max_read,
            options.read_ahead,
            options.read_ahead_total,
            age_max=max(self.timeouts.attr, AGE_MIN),
            clock=clock,
        )

        is_on = options.prefetch > 0 and self.timeouts.directory > 0
        self.opening = OpenDirectories(connection, self.table, nursery, is_on=is_on, clock=clock)
        self.space = Space(connection, self.table, clock)
        self.walk = Walk(
            self.load,
            self.learn_entry,
            self.table,
            nursery,
            is_on=is_on,
            round_trip=connection.round_trip,
            clock=clock,
        )
        handles = session.max_handles
        self.prefetch = Prefetch(
            connection,
            self.table,
            self.gate,
            nursery,
            total_max=options.prefetch if is_on else 0,
            size_max=session.max_read,
            files_max=handles // 4 if handles else WINDOW_MAX,
            following=self.walk.following,
            clock=clock,
        )

        self.writeback = WriteBack(
            self, is_on=options.writeback, files_max=handles // 4 if handles else FILES_MAX
        )

    @abstractmethod
    def release_file(self, node: Node, file: OpenFile) -> None:
        """Close what nobody has open; let go of the open side of a node that has nothing left."""

    @abstractmethod
    def written_back(self, node: Node, attrs: sftp.Attrs, stamp: int) -> None:
        """Take in attributes that were asked for behind the last write of a file."""

    @abstractmethod
    async def load(self, directory: DirectoryNode) -> Listing:
        """Return the listing of a directory, fetched now unless it is fresh."""

    def attach(self, upcalls: Upcalls) -> None:
        """Learn whom to tell that cached data and names are no longer right."""
        self.flusher.upcalls = upcalls

    def renew(self, session: Session) -> None:
        """Take in what the server said when it was reached again."""
        self.session = session
        self.refiner.session = session

    # What all operations begin with.

    def regular(self, cookie: Cookie) -> Node:
        """Return the node of a regular file. Errors: ESTALE; EISDIR; EINVAL for other types."""
        node = self.table.node(cookie)
        if node.vtype != Vtype.VREG:
            raise VfsError(errno.EISDIR if node.vtype == Vtype.VDIR else errno.EINVAL)
        return node

    async def ready(self, node: Node, name: bytes | None = None) -> None:
        """Wait until a request by the path of `node`, or of `name` in it, may be made.

        Paths are made after this and before the next wait.
        """
        if self.connection.is_congested:
            await self.connection.room()
        if self.gate.busy:
            await self.gate.wait(node, name)

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

    def require_writable(self) -> None:
        """Errors: EROFS on a read-only mount."""
        if self.options.ro:
            raise VfsError(errno.EROFS)

    def any_path(self, node: Node) -> bytes:
        """Return a path on the file system of `node`."""
        return self.table.path(self.table.root if node.is_gone else node)

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

    def _node_of(self, entry: Entry) -> Node:
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
                if moves != table.moves:
                    continue  # the path was another one by the time the server looked
                self.lose(node)
                if node.file is None or node.file.handle is None:
                    raise
            else:
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

    def lose(self, node: Node) -> None:
        """Forget the name of a node that the server does not have any more."""
        if node.parent is not None:
            self.forget_name(node.parent, node.name)

    def forget_name(self, directory: DirectoryNode, name: bytes) -> None:
        """Note that a name is gone, by whomever."""
        self.table.drop_name(directory, name)
        if directory.listing is not None:
            directory.listing.discard(name)

    def doubt(self, directory: DirectoryNode) -> None:
        """Ask again what a directory holds: what we know did not explain an answer."""
        directory.missing = None
        if directory.listing is not None:
            directory.listing.expiry = directory.listing.own_until = 0

    async def present_va(self, node: Node) -> Vattr:
        """Return attributes of `node` that are as true as the time-outs promise."""
        self.counts.attributes += 1
        if self.clock() >= node.expiry:
            self.counts.attributes_missed += 1
            await self.fetch(node)
        return node.va

    def open_file(self, node: Node) -> OpenFile:
        """Return the open side of a node, which is made if there is none."""
        file = node.file
        if file is None:
            file = node.file = OpenFile(
                self.channels, self.readahead, self.options.write_behind, self._write_pace
            )
        return file

    async def keep_readable(self, node: Node) -> None:
        """Get the SFTP handle that readers of `node` did without so far, for its name goes: nothing
        else will reach the file. Where the server refuses they keep what they have."""
        file = node.file
        if file is None or not file.readers or file.reader is not None or node.is_gone:
            return
        await self.ready(node)
        if file.reader is not None or node.is_gone:
            return
        with suppress(VfsError):
            handle = await self.connection.submit(
                HANDLE, sftp.open_, self.table.path(node), sftp.FXF_READ
            )
            file.adopt(handle, FREAD)

    def list_came(self, directory: DirectoryNode, listing: Listing) -> int:
        """Note that the listing of a directory is complete as of now; return when it expires."""
        heard = self.clock()
        self.table.listings.grow(directory, len(listing.entries) - listing.counted, heard)
        listing.counted = len(listing.entries)
        listing.heard = heard
        listing.attr_expiry = heard + self.timeouts.attr
        listing.expiry = heard + self.timeouts.directory
        listing.is_doubted = False
        # Far away it is fetched with the first name asked for: what others make there shall not
        # stay unseen longer for that. Near, several names were asked for, or it is read.
        round_trip = self.connection.round_trip
        if round_trip.is_far:
            listing.lacking_until = heard + self.timeouts.missing
            if self.options.negative_timeout_ns is None:
                listing.lacking_until += int(LACKING_TRIPS * round_trip.seconds * 10**9)
        else:
            listing.lacking_until = listing.expiry
        directory.missing = None
        return listing.expiry

    # Own changes, and none that we know of.

    def touched(self, directory: DirectoryNode) -> None:
        """Note that we changed what a directory holds: its times are the server's to tell."""
        self.table.changed(directory)
        directory.expiry = 0

    async def forget(self, path: bytes = b"") -> None:
        """Drop what is remembered of `path` (from the root of the mount, empty: of all) and of what
        lies below, and have the kernel above do the same (SIGHUP, puffsctl).

        Nodes, file ids, open files and unacknowledged writes stay. Must not be called from
        inside an operation.
        """
        table = self.table
        top: Node = table.root
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        for at, name in enumerate(names):
            child = table.child(top, name) if isinstance(top, DirectoryNode) else None
            if at == len(names) - 1 or child is None:
                if isinstance(top, DirectoryNode):
                    self.doubt(top)
                if child is None:
                    # Nothing is known of it but, perhaps, that it is not there.
                    await self.flusher.flush_name(top.cookie, name)
                    return
                await self.flusher.flush_name(top.cookie, name)
            top = child
        self.prefetch.drop()
        self.opening.drop()
        flushes: list[tuple[FlushOp, Cookie]] = []
        for node in [top] if top.vtype != Vtype.VDIR else list(table.nodes.values()):
            if top is table.root or table.is_ancestor(top, node):
                self._forget_node(node)
                if names and node.vtype == Vtype.VDIR:
                    flushes.append((FlushOp.INVAL_NAMECACHE_DIR, node.cookie))
                kind = (
                    FlushOp.INVAL_PAGECACHE_NODE_RANGE
                    if node.vtype == Vtype.VREG
                    else FlushOp.INVAL_ATTR_NODE
                )
                flushes.append((kind, node.cookie))
        for entry in table.told.values():
            if top is table.root or table.is_ancestor(top, entry.directory):
                kind = (
                    FlushOp.INVAL_PAGECACHE_NODE_RANGE
                    if entry.vtype == Vtype.VREG
                    else FlushOp.INVAL_ATTR_NODE
                )
                flushes.append((kind, Cookie(entry.fileid)))
        if not names:
            flushes.insert(0, (FlushOp.INVAL_NAMECACHE_ALL, table.root.cookie))
        await self.flusher.flush_all(flushes)

    def _forget_node(self, node: Node) -> None:
        node.expiry = node.name_expiry = 0
        node.target = None
        node.checked_at = -CHECKED_NEVER
        node.known_data = None
        if isinstance(node, DirectoryNode):
            self.doubt(node)
            if node.listing is not None:
                node.listing.heard, node.listing.attr_expiry = -CHECKED_NEVER, 0
        if node.file is not None:
            node.file.drop_blocks()
