"""The parts of one mount that stand together, and what every operation begins with.

What is known of the tree, and how it is learnt, is in `attrcache.py`, which stands on this.
"""

from __future__ import annotations

import errno
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress

import trio

from ....native import sftp
from ....native.constants import FREAD, Vtype
from ....native.errors import VfsError
from ....native.records import Cookie
from ...ops import FileServer, Upcalls
from ..ahead.opening import OpenDirectories
from ..ahead.prefetch import WINDOW_MAX, Prefetch
from ..ahead.walking import Walk
from ..data.openfile import OpenFile
from ..data.readahead import AGE_MIN, ReadAhead
from ..data.writeback import FILES_MAX, WriteBack
from ..options import PsshfsOptions
from ..tree.attributes import Translator, vtype_of, with_vtype
from ..tree.fetching import DEPTH_MAX
from ..tree.gate import Gate
from ..tree.listing import Entry, Listing, Listings
from ..tree.node import DirectoryNode, Node
from ..tree.nodetable import NodeTable
from ..wire.channels import Channels, Opener
from ..wire.connection import Connection
from ..wire.pace import Pace
from ..wire.slot import HANDLE
from .counts import Counts
from .flusher import Flusher
from .refine import Refiner
from .session import Session
from .space import Space


class Parts(FileServer):
    """The connection, the nodes, and who reads ahead and writes behind, for one mount.

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
            self.node_of,
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

    # What the parts call back.

    @abstractmethod
    def node_of(self, entry: Entry) -> Node:
        """Return the node of an entry, which has none, with what its listing knows."""

    @abstractmethod
    def learn_entry(self, directory: DirectoryNode, listing: Listing, entry: Entry) -> Node:
        """Return the node of an entry whose attributes the listing of `directory` has brought."""

    @abstractmethod
    async def load(self, directory: DirectoryNode) -> Listing:
        """Return the listing of a directory, fetched now unless it is fresh."""

    @abstractmethod
    def release_file(self, node: Node, file: OpenFile) -> None:
        """Close what nobody has open; let go of the open side of a node that has nothing left."""

    @abstractmethod
    def written_back(self, node: Node, attrs: sftp.Attrs, stamp: int) -> None:
        """Take in attributes that were asked for behind the last write of a file."""

    # Above, and below.

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

    def require_writable(self) -> None:
        """Errors: EROFS on a read-only mount."""
        if self.options.ro:
            raise VfsError(errno.EROFS)

    def any_path(self, node: Node) -> bytes:
        """Return a path on the file system of `node`."""
        return self.table.path(self.table.root if node.is_gone else node)

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

    # Names that are no more.

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
