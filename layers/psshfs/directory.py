"""Listings: what a directory holds, in an order that outlives refreshes.

Every entry gets a serial number when it is first seen, and keeps it while the
name is there; a place in the directory is the serial number of the last entry
read. So a reader that goes on after the listing was fetched again, or after
names came and went, skips and repeats no other name.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import trio

from ...native import sftp
from ...native.constants import NAME_MAX
from ...native.errors import VfsError
from ...native.records import Vattr
from .attributes import link_count, type_by_longname, vtype_of
from .connection import Connection
from .errmap import StatusError
from .slot import HANDLE, NAMES, Slot

if TYPE_CHECKING:
    from .node import DirectoryNode, Node

DOT_OFFSET: Final = 1
DOTDOT_OFFSET: Final = 2
DEPTH_MAX: Final = 8
"""READDIRs in flight for one directory. OpenSSH answers with 100 names each."""
IDLE: Final = 60 * 10**9
"""A listing unused for so long, ns, has no reader under way that would miss it."""
FULL_REPLY: Final = 64
"""A reply with at least so many names was cut by its length, so that more will follow."""
ENTRIES_MAX: Final = 4_000_000
"""More names than this are no directory but an attack on our memory."""


class Entry:
    """A name in a directory. `va` is None where it is unknown or no longer true.

    The node that is made of an entry has the same `va`, not a copy: of 1,000,000 files each octet
    is a megabyte.
    """

    __slots__ = ("fileid", "name", "serial", "va")

    def __init__(self, name: bytes, serial: int, fileid: int) -> None:
        self.name = name
        self.serial = serial
        self.fileid = fileid
        self.va: Vattr | None = None

    @property
    def vtype(self) -> int | None:
        """The type, None where it is unknown."""
        return None if self.va is None else self.va.vtype


class Listings:
    """The listings of a mount in the order of use, bounded by the names in them all.

    What is over `names_max` goes, oldest use first, but never a listing that was used less than
    IDLE ago: a reader under way finds his place in it.
    """

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._used: dict[DirectoryNode, int] = {}
        self.names = 0
        """Names in all listings, as far as they were fetched."""

    def use(self, directory: DirectoryNode, now: int) -> None:
        """Note a use of the listing of `directory`, at `now` (monotonic ns)."""
        if self._used.pop(directory, None) is not None:
            self._used[directory] = now

    def grow(self, directory: DirectoryNode, by: int, now: int) -> None:
        """Note that a fetch has changed the number of names of `directory`; make room."""
        self.names += by
        self._used.pop(directory, None)
        self._used[directory] = now
        while self.names > self._names_max:
            oldest = next(iter(self._used))
            if now - self._used[oldest] < IDLE:
                return
            self.leave(oldest)

    def leave(self, directory: DirectoryNode) -> None:
        """Drop the listing of a directory."""
        listing = directory.listing
        if self._used.pop(directory, None) is not None and listing is not None:
            self.names -= listing.counted
            directory.listing = None


def _serial(entry: Entry) -> int:
    return entry.serial


class Listing:
    """The names of one directory; complete and true until `expiry` (monotonic ns).

    `heard` is when the last fetch ended, `attr_expiry` until when the attributes that it brought
    are believed.
    `stamp` is the change count at which the last fetch began. Own changes are applied at once,
    and while a fetch is under way they are also kept in a journal: its result may be older than
    they are.
    """

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.expiry = 0
        self.heard = 0
        self.attr_expiry = 0
        self.stamp = 0
        self.is_loaded = False
        self.read_at = -IDLE
        """When a reader last began with it, monotonic ns."""
        self.made_until = 0
        """Of a directory that we made: until when it most likely holds only what we made there."""
        self.own_until = 0
        """Until when that is believed of names that are asked for, monotonic ns."""
        self.counted = 0
        """Names that the last fetch has found."""
        self.dropped = 0
        """Names of the last fetch that no file can have."""
        self.lock = trio.Lock()
        """Held while fetching; others wait and then find the listing fresh."""
        self._order: list[Entry] = []
        self._serial = DOTDOT_OFFSET
        self._journal: dict[bytes, bool] | None = None

    def after(self, offset: int) -> Iterator[Entry]:
        """Yield the entries after a place, in order; for use without an await between them."""
        order = self._order
        start = 0 if offset <= DOTDOT_OFFSET else bisect_right(order, offset, key=_serial)
        for index in range(start, len(order)):
            yield order[index]

    # Own changes.

    def add(self, name: bytes, fileid: int) -> None:
        """Note a name that we made; where it replaces another, it takes its place."""
        if self._journal is not None:
            self._journal[name] = True
        entry = self.entries.get(name)
        if entry is None:
            self._append(name, fileid)
        else:
            entry.fileid = fileid
            entry.va = None

    def discard(self, name: bytes) -> None:
        """Note a name that is no more."""
        if self._journal is not None:
            self._journal[name] = False
        entry = self.entries.pop(name, None)
        if entry is not None:
            del self._order[bisect_right(self._order, entry.serial, key=_serial) - 1]

    def rename(self, old: bytes, new: bytes, fileid: int) -> None:
        """Note a rename within the directory. The entry keeps its place, so that a reader which
        renames all that it finds comes to an end."""
        entry = self.entries.get(old)
        if entry is None:
            self.discard(old)
            self.add(new, fileid)
            return
        if new in self.entries:
            self.discard(new)
        del self.entries[old]
        entry.name = new
        entry.va = None
        self.entries[new] = entry
        if self._journal is not None:
            self._journal[old] = False
            self._journal[new] = True

    def set_fileid(self, name: bytes, fileid: int) -> None:
        """Note that a name leads to another file now."""
        entry = self.entries.get(name)
        if entry is not None:
            entry.fileid = fileid

    def node_left(self, name: bytes, node: Node) -> None:
        """Hear that the node of a name is forgotten; what it knew better than we is lost."""
        entry = self.entries.get(name)
        if entry is not None and (node.changed_at > self.stamp or node.expiry != self.attr_expiry):
            entry.va = None

    def _append(self, name: bytes, fileid: int) -> Entry:
        self._serial += 1
        entry = self.entries[name] = Entry(name, self._serial, fileid)
        self._order.append(entry)
        return entry

    # Fetching.

    def begin(self, stamp: int) -> None:
        """Begin a fetch, at change count `stamp`."""
        self._journal = {}
        self.stamp = stamp

    def abort(self) -> None:
        """Give a fetch up; what was known stays, as old as it was."""
        self._journal = None

    def merge(
        self,
        names: Iterable[sftp.Name],
        fileid_of: Callable[[bytes], int],
        vattr: Callable[[sftp.Attrs, int, int], Vattr],
    ) -> sftp.Name | None:
        """Take in what a fetch has found; return the entry of the directory itself, if there.

        Names that no file can have are dropped: a server could aim them at other directories.
        `fileid_of` gives the file id of a name that is new to the listing, `vattr` translates
        attributes, with file id and link count.
        """
        journal = self._journal or {}
        self._journal = None
        old = self.entries
        entries: dict[bytes, Entry] = {}
        self.entries = entries
        own = None
        dropped = 0
        for item in names:
            name = item.name
            if name in _DOTS:
                if name == b".":
                    own = item
                continue
            if not name or len(name) > NAME_MAX or b"/" in name or b"\0" in name:
                dropped += 1
                continue
            if name in journal:
                if not journal[name]:
                    continue
                attrs: sftp.Attrs | None = None  # made by us meanwhile, these may be older
            else:
                attrs = item.attrs
                if vtype_of(attrs) is None:
                    attrs = type_by_longname(attrs, item.longname)
            entry = old.get(name)
            if entry is None:
                entry = entries.get(name)
                if entry is None:
                    entry = self._append(name, fileid_of(name))
            else:
                entries[name] = entry
            if attrs is None:
                entry.va = None
            else:
                entry.va = vattr(attrs, entry.fileid, link_count(item.longname))
        for name, is_there in journal.items():
            if is_there and name not in entries and name in old:
                entries[name] = old[name]
        if len(entries) != len(self._order):
            self._order = [entry for entry in self._order if entries.get(entry.name) is entry]
        self.is_loaded = True
        self.dropped = dropped
        return own


_DOTS: Final = (b".", b"..")


async def fetch_names(connection: Connection, path: bytes, depth_max: int) -> list[sftp.Name]:
    """Return all entries of the directory at `path`, with up to `depth_max` READDIRs in flight.

    Errors: StatusError as the server says; EIO for a listing without end; those of a
    connection. Wire: OPENDIR, then READDIRs; two round trips for up to 100 names on OpenSSH.
    """
    await connection.room()
    handle = await connection.submit(HANDLE, sftp.opendir, path)
    pending: deque[Slot[list[sftp.Name] | None]] = deque()
    result: list[sftp.Name] = []
    depth = min(2, depth_max)
    wanted = depth
    empty = 0
    try:
        while True:
            if len(pending) < wanted and not (pending and pending[0].done):
                await connection.room()
                with connection.batch:
                    while len(pending) < wanted:
                        pending.append(connection.submit(NAMES, sftp.readdir, handle))
            names = await pending[0]
            pending.popleft()
            if names is None:
                return result
            result += names
            empty = 0 if names else empty + 1
            if len(result) > ENTRIES_MAX or empty > DEPTH_MAX:
                raise VfsError(errno.EIO, "the server's listing does not end")
            if len(names) >= FULL_REPLY:
                depth = min(2 * depth, depth_max)
                wanted = depth
            else:
                wanted = 1
    finally:
        for slot in pending:
            slot.abandon()
        connection.close_handle(handle)


def is_pipelining_refused(exc: StatusError) -> bool:
    """Tell whether a failed fetch is worth another try with one READDIR at a time.

    Servers that work on several requests at once may trip over two READDIRs on one handle.
    """
    return exc.is_vague
