"""Directories listed before they are read, because somebody goes through a tree.

A listing costs two round trips. While a program reads a directory, those that follow it in the
listing of its parent are fetched as well, and, once it has come for one of them, the ones below
what it reads. The same where names of a directory are asked for one by one: a listing answers
for all of them, so it is fetched when it costs less than to go on asking.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from ...native.constants import Vtype
from ...native.errors import VfsError
from .directory import Entry
from .node import DirectoryNode
from .pace import RoundTrip
from .scanning import Cursor, Scan, Scans

WINDOW_MAX: Final = 32
"""Directories ahead of one program."""
TASKS_MAX: Final = 16
"""Directories fetched ahead at the same time."""
RECENT: Final = 2 * 10**9
"""Who has begun to read a directory so recently, ns, may be about to go through those below."""
AHEAD_MAX: Final = 1024
"""Directories of which is remembered that they were fetched ahead."""
MISSED_MAX: Final = 64
"""Directories in which names asked for one by one are counted."""
MISSED_KNOWN: Final = 2
MISSED_UNKNOWN: Final = 4
"""So many names asked for make a listing worth while, of a directory whose size is known or not."""
NAMES_PER_MISS: Final = 200
"""OpenSSH lists 100 names for one request and at half the cost for each of asking for it alone."""
FAR: Final = 0.004
"""Round trips from which on, seconds, a short listing is fetched with the first name asked for: the
trips that it spares are worth more than what it costs."""
SHORT_MAX: Final = 4096
"""Directories of so many octets, by what the server says, are short: one block of ext4 holds 340
names at most, tmpfs counts 20 octets a name, btrfs twice its length."""


class Walk:
    """Fetches listings ahead, by `load`, in tasks of `nursery`; errors are for who asks later."""

    def __init__(
        self,
        load: Callable[[DirectoryNode], Awaitable[Any]],
        nursery: trio.Nursery,
        *,
        is_on: bool,
        round_trip: RoundTrip,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._round_trip = round_trip
        self._load = load
        self._nursery = nursery
        self._is_on = is_on
        self._clock = clock
        self._scans = Scans()
        self._loading: set[DirectoryNode] = set()
        self._ahead: set[int] = set()
        self._missed: dict[int, tuple[int, int]] = {}
        self._last_hit = -RECENT

    def entered(self, directory: DirectoryNode) -> None:
        """Note that a reader begins with a directory; fetch what follows it."""
        parent = directory.parent
        if parent is None or not self._is_on:
            return
        now = self._clock()
        if directory.cookie in self._ahead:
            self._ahead.discard(directory.cookie)
            self._last_hit = now
        listing = parent.listing
        if listing is None or not listing.is_loaded or now >= listing.expiry:
            return
        scans = self._scans
        scan = scans.scan(parent.cookie)
        if scan.order < 0 and now - listing.read_at < RECENT:
            order = scan.is_first(listing, _is_directory, directory.name)
            if order >= 0:
                scan.begin(listing, _is_directory, order)
        cursor, _ = scan.note(listing, _is_directory, directory.name, scans.preferred)
        if cursor is not None:
            scans.preferred = scan.order
            self._extend(parent, scan, cursor)

    def listed(self, directory: DirectoryNode) -> None:
        """Note that a reader has all entries of a directory; fetch those below, if he is one who
        has come for what was fetched ahead."""
        listing = directory.listing
        now = self._clock()
        if listing is None or not self._is_on or now - self._last_hit >= RECENT:
            return
        scan = self._scans.scan(directory.cookie)
        if scan.order < 0:
            cursor = scan.begin(listing, _is_directory, self._scans.preferred)
            self._extend(directory, scan, cursor)

    def following(self, directory: DirectoryNode) -> DirectoryNode | None:
        """Return the directory that comes after another one below the same parent, if it is
        known who goes through them, and in which order."""
        parent = directory.parent
        scan = None if parent is None else self._scans.known(parent.cookie)
        place = None if scan is None else scan.place(directory.name)
        if scan is None or parent is None or place is None or place + 1 >= len(scan.entries):
            return None
        node = (parent.children or {}).get(scan.entries[place + 1].name)
        return node if isinstance(node, DirectoryNode) else None

    def begun(self, root: DirectoryNode) -> None:
        """Note the mount: what is done with it begins with a name of the root, often at once."""
        if self._enough(root) == 1:
            self.missed(root)

    def missed(self, directory: DirectoryNode) -> None:
        """Note that the server is asked for one name of a directory."""
        if not self._is_on or directory in self._loading:
            return
        cookie = directory.cookie
        now = self._clock()
        count, since = self._missed.pop(cookie, (0, now))
        if now - since > RECENT:
            count, since = 0, now
        count += 1
        if count >= self._enough(directory):
            if len(self._loading) < TASKS_MAX:
                self._start(directory)
            return
        if len(self._missed) >= MISSED_MAX:
            del self._missed[next(iter(self._missed))]
        self._missed[cookie] = count, since

    def _enough(self, directory: DirectoryNode) -> int:
        """Return how many names asked for make a listing worth while."""
        listing = directory.listing
        is_far = self._round_trip.seconds >= FAR
        if listing is not None and listing.is_loaded:
            least = 1 if is_far else MISSED_KNOWN
            return max(least, listing.counted // NAMES_PER_MISS)
        size = directory.va.size
        is_short = size is not None and size <= SHORT_MAX
        return 1 if is_far and is_short else MISSED_UNKNOWN

    def _extend(self, parent: DirectoryNode, scan: Scan, cursor: Cursor) -> None:
        children = parent.children or {}
        end = min(cursor.at + 1 + cursor.window, len(scan.entries))
        while cursor.front < end and len(self._loading) < TASKS_MAX:
            child = children.get(scan.entries[cursor.front].name)
            cursor.front += 1
            if not isinstance(child, DirectoryNode) or child in self._loading:
                continue
            listing = child.listing
            if listing is None or self._clock() >= listing.expiry:
                if len(self._ahead) >= AHEAD_MAX:
                    self._ahead.clear()
                self._ahead.add(child.cookie)
                self._start(child, parent, scan, cursor)
        if self._clock() - self._last_hit < RECENT:
            cursor.window = min(2 * cursor.window, WINDOW_MAX)

    def _start(self, directory: DirectoryNode, *then: Any) -> None:
        self._loading.add(directory)
        self._nursery.start_soon(self._fetch, directory, *then)

    async def _fetch(
        self,
        directory: DirectoryNode,
        parent: DirectoryNode | None = None,
        scan: Scan | None = None,
        cursor: Cursor | None = None,
    ) -> None:
        try:
            if not directory.is_gone:
                await self._load(directory)
        except VfsError:
            pass  # who reads it will ask, and hear
        finally:
            self._loading.discard(directory)
        if parent is not None and scan is not None and cursor is not None:
            self._extend(parent, scan, cursor)


def _is_directory(entry: Entry) -> bool:
    return entry.vtype == Vtype.VDIR
