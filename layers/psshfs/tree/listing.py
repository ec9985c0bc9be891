"""Listings: what a directory holds, in an order that outlives refreshes.

Every entry gets a serial number when it is first seen, and keeps it while the
name is there; a place in the directory is the serial number of the last entry
read. So a reader that goes on after the listing was fetched again, or after
names came and went, skips and repeats no other name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from ....native import sftp
from ....native.packed import mtime, size, vtype

if TYPE_CHECKING:
    from .node import DirectoryNode, Node

DOT_OFFSET: Final = 1
DOTDOT_OFFSET: Final = 2
IDLE: Final = 60 * 10**9
"""A listing unused for so long, ns, has no reader under way that would miss it."""


FileidsOf: TypeAlias = "Callable[[DirectoryNode, Sequence[bytes]], Sequence[int]]"


class Entry:
    """A name in a directory. `packed` are the attributes, None where they are unknown or no longer
    true.

    Most files are known from a listing alone, and a mount knows a million of them: of a file that
    is no directory there is no node until something is asked of it, though the kernel above may
    have lookups on it (`nlookup`). See `NodeTable.promote`.
    """

    __slots__ = ("directory", "fileid", "name", "nlookup", "packed", "serial")

    def __init__(
        self,
        directory: DirectoryNode,
        name: bytes,
        serial: int,
        fileid: int,
        packed: bytes | None = None,
    ) -> None:
        self.directory = directory
        self.name = name
        self.serial = serial
        self.fileid = fileid
        self.packed = packed
        self.nlookup = 0

    @property
    def vtype(self) -> int | None:
        """The type, None where it is unknown."""
        packed = self.packed
        return None if packed is None else vtype(packed)

    @property
    def size(self) -> int | None:
        """The size in octets, None where it is unknown."""
        return None if self.packed is None else size(self.packed)

    @property
    def mtime(self) -> int | None:
        """When its data were changed, ns since 1970, None where it is unknown."""
        return None if self.packed is None else mtime(self.packed)


class Listings:
    """The listings of a mount in the order of use, bounded by the names in them all.

    What is over `names_max` goes, oldest use first, but never a listing that was used less than
    IDLE ago: a reader under way finds his place in it.
    """

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._used: dict[DirectoryNode, int] = {}
        self.names = 0
        """Names in all listings, as they were counted."""

    def use(self, directory: DirectoryNode, now: int) -> None:
        """Note a use of the listing of `directory`, at `now` (monotonic ns)."""
        if self._used.pop(directory, None) is not None:
            self._used[directory] = now

    def count(self, directory: DirectoryNode, listing: Listing, now: int) -> None:
        """Note how many names the listing of `directory` has, after a fetch or a change of ours;
        make room."""
        self.names += len(listing.entries) - listing.counted
        listing.counted = len(listing.entries)
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
            if directory.told or listing.is_coming:
                listing.shrink()
            else:
                directory.listing = None


_serial: Final = attrgetter("serial")


class _Fetch:
    """What a fetch under way has found, and `journal`: names that we made (True) or removed."""

    __slots__ = ("fileids_of", "found", "journal", "news", "own")

    def __init__(self, fileids_of: FileidsOf) -> None:
        self.fileids_of = fileids_of
        self.journal: dict[bytes, bool] = {}
        self.clear()

    def clear(self) -> None:
        """Forget what was found."""
        self.found: dict[bytes, Entry] = {}
        self.news: list[tuple[Entry, bytes | None]] = []
        """Entries that the listing has already, and their attributes now."""
        self.own: bytes | None = None


class Listing:
    """The names of one directory; complete and true until `expiry` (monotonic ns).

    `heard` is when the last fetch ended, `attr_expiry` until when the attributes that it brought
    are believed.
    `stamp` is the change count at which the last fetch began. Own changes are applied at once,
    and while a fetch is under way they are also kept in a journal: its result may be older than
    they are.
    """

    __slots__ = (
        "_directory",
        "_fetch",
        "_order",
        "_serial",
        "attr_expiry",
        "counted",
        "dropped",
        "entries",
        "expiry",
        "heard",
        "is_doubted",
        "is_loaded",
        "lacking_until",
        "made_until",
        "own_until",
        "read_at",
        "stamp",
        "used_at",
    )

    def __init__(self, directory: DirectoryNode) -> None:
        self._directory = directory
        self.entries: dict[bytes, Entry] = {}
        self.expiry = 0
        self.heard = 0
        self.attr_expiry = 0
        self.stamp = 0
        self.is_loaded = False
        self.read_at = -IDLE
        """When a reader last began with it, monotonic ns."""
        self.used_at = -IDLE
        """When a name of it was last asked for, or a reader last began with it, monotonic ns."""
        self.lacking_until = 0
        """Until when a name that it lacks is believed not to be there, if it is believed itself."""
        self.is_doubted = False
        """A name that it lacks was asked for after that: it may be fetched before its time."""
        self.made_until = 0
        """Of a directory that we made: until when it most likely holds only what we made there."""
        self.own_until = 0
        """Until when that is believed of names that are asked for, monotonic ns."""
        self.counted = 0
        """Names, when they were last counted."""
        self.dropped = 0
        """Names of the last fetch that no file can have."""
        self._order: list[Entry] = []
        self._serial = DOTDOT_OFFSET
        self._fetch: _Fetch | None = None

    def after(self, offset: int) -> Iterator[Entry]:
        """Yield the entries after a place, in order; for use without an await between them."""
        order = self._order
        start = 0 if offset <= DOTDOT_OFFSET else bisect_right(order, offset, key=_serial)
        for index in range(start, len(order)):
            yield order[index]

    # Own changes.

    def add(self, name: bytes, fileid: int) -> None:
        """Note a name that we made; where it replaces another, it takes its place."""
        if self._fetch is not None:
            self._fetch.journal[name] = True
        entry = self.entries.get(name)
        if entry is None:
            self._append(name, fileid)
        else:
            entry.fileid = fileid
            entry.packed = None

    def discard(self, name: bytes) -> None:
        """Note a name that is no more."""
        if self._fetch is not None:
            self._fetch.journal[name] = False
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
        entry.packed = None
        self.entries[new] = entry
        if self._fetch is not None:
            self._fetch.journal[old] = False
            self._fetch.journal[new] = True

    def set_fileid(self, name: bytes, fileid: int) -> None:
        """Note that a name leads to another file now."""
        entry = self.entries.get(name)
        if entry is not None:
            entry.fileid = fileid

    def node_left(self, name: bytes, node: Node) -> None:
        """Hear that the node of a name is forgotten; what it knew better than we is lost."""
        entry = self.entries.get(name)
        if entry is not None and (node.changed_at > self.stamp or node.expiry != self.attr_expiry):
            entry.packed = None

    def _append(self, name: bytes, fileid: int) -> Entry:
        self._serial += 1
        entry = self.entries[name] = Entry(self._directory, name, self._serial, fileid)
        self._order.append(entry)
        return entry

    # Fetching.

    @property
    def is_coming(self) -> bool:
        """Tell whether a fetch is under way."""
        return self._fetch is not None

    def begin(self, stamp: int, fileids_of: FileidsOf) -> None:
        """Begin a fetch, at change count `stamp`. `fileids_of` gives the file ids of names."""
        self._fetch = _Fetch(fileids_of)
        self.stamp = stamp
        self.dropped = 0

    def clear(self) -> None:
        """Forget what the fetch has found so far: it begins once more."""
        assert self._fetch is not None
        self._fetch.clear()
        self.dropped = 0

    def abort(self) -> None:
        """Give a fetch up; what was known stays, as old as it was."""
        self._fetch = None

    def take(self, listed: sftp.Listed) -> None:
        """Take in what one READDIR has found. It is not seen before `end`."""
        fetch = self._fetch
        assert fetch is not None
        names, packed, own, dropped = listed
        found, old = fetch.found, self.entries
        self.dropped += dropped
        if own is not None:
            fetch.own = own
        directory = self._directory
        serial = self._serial
        fileids = fetch.fileids_of(directory, names)
        for name, fileid, attrs in zip(names, fileids, packed, strict=True):
            entry = old.get(name)
            if entry is None:
                serial += 1
                found[name] = Entry(directory, name, serial, fileid, attrs)
            else:
                found[name] = entry
                fetch.news.append((entry, attrs))
        self._serial = serial

    def end(self, promote: Callable[[Entry], object]) -> bytes | None:
        """End a fetch: what it has found holds from now on. Return the packed attributes of the
        directory, if they are known.

        `promote` gives nodes to those entries that were told above and are not what they were.
        """
        fetch, self._fetch = self._fetch, None
        assert fetch is not None
        journal, found = fetch.journal, fetch.found
        old = self.entries
        for name, is_there in journal.items():
            if not is_there:
                found.pop(name, None)
            elif name in old:
                found[name] = old[name]
        if self._directory.told:
            for name, entry in old.items():
                if entry.nlookup and found.get(name) is not entry:
                    promote(entry)
        for entry, packed in fetch.news:
            if entry.name in journal:
                packed = None  # made by us meanwhile, this may be older
            if entry.nlookup and (packed is None or vtype(packed) != entry.vtype):
                promote(entry)
            entry.packed = packed
        self.entries = found
        self._order = sorted(found.values(), key=_serial)
        self.is_loaded = True
        return fetch.own

    def shrink(self) -> None:
        """Forget all names but those of entries that the kernel above has lookups on, and those
        that we made while a fetch is under way."""
        made = () if self._fetch is None else self._fetch.journal
        self.entries = {
            name: entry for name, entry in self.entries.items() if entry.nlookup or name in made
        }
        self._order = sorted(self.entries.values(), key=_serial)
        self.is_loaded = False
        self.expiry = self.own_until = 0
        self.counted = 0
