"""Directories listed before they are read, because somebody goes through a tree.

A listing costs two round trips. While a program reads a directory, those that follow it in the
listing of its parent are fetched as well, and, once it has come for one of them, the ones below
what it reads. The same where names of a directory are asked for one by one: a listing answers
for all of them, so it is fetched when it costs less than to go on asking.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Final

import trio

from ....native.constants import Vtype
from ....native.errors import VfsError
from ..tree.listing import Entry, Listing
from ..tree.node import DirectoryNode, Node
from ..tree.nodetable import NodeTable
from ..wire.pace import RoundTrip
from .scanning import BY_NAME, Cursor, Scan, Scans

WINDOW_MAX: Final = 32
"""Directories ahead of one program."""
TASKS_MAX: Final = 32
"""Directories fetched ahead at the same time."""
FIRST_FAR: Final = 32
"""Directories ahead of a program that begins with the first one right after it has read the parent,
where the server is far. With fewer it would wait for two round trips once more."""
MADE_AGE: Final = 30 * 10**9
"""How long a listing fetched ahead waits for a reader, if the host was not told the node, ns."""
RECENT: Final = 2 * 10**9
"""Who has begun to read a directory so recently, ns, may be about to go through those below."""
AHEAD_MAX: Final = 1024
"""Directories of which is remembered that they were fetched ahead."""
RENEWED_AGE: Final = 120 * 10**9
"""A listing that was used so recently, ns, is fetched again with the first name that is asked for
above it, where the server is far."""
RENEWED_MAX: Final = 1000
"""Names in listings that are fetched so, and nodes of a directory that are looked at for them."""
MISSED_MAX: Final = 64
"""Directories in which names asked for one by one are counted."""
MISSED_KNOWN: Final = 2
MISSED_UNKNOWN: Final = 4
"""So many names asked for make a listing worth while, of a directory whose size is known or not."""
NAMES_PER_MISS: Final = 200
"""OpenSSH lists 100 names for one request and at half the cost for each of asking for it alone."""
SHORT_MAX: Final = 4096
"""Directories of so many octets, by what the server says, are short: one block of ext4 holds 340
names at most, tmpfs counts 20 octets a name, btrfs twice its length."""


class Walk:
    """Fetches listings ahead, by `load`, in tasks of `nursery`; errors are for who asks later."""

    def __init__(
        self,
        load: Callable[[DirectoryNode], Awaitable[Any]],
        learn: Callable[[DirectoryNode, Listing, Entry], Node],
        table: NodeTable,
        nursery: trio.Nursery,
        *,
        is_on: bool,
        round_trip: RoundTrip,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._round_trip = round_trip
        self._load = load
        self._learn = learn
        self._table = table
        self._nursery = nursery
        self._is_on = is_on
        self._clock = clock
        self._scans = Scans()
        self._loading: set[DirectoryNode] = set()
        self._ahead: set[int] = set()
        self._missed: dict[int, tuple[int, int]] = {}
        self._last_hit = -RECENT
        self._entered: dict[DirectoryNode, DirectoryNode] = {}
        """What a reader began with while the listing of its parent was on its way, by that."""
        self._made: dict[DirectoryNode, int] = {}
        """Nodes made for listings that nobody had come for, and when, monotonic ns."""

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
            if parent in self._loading:
                self._entered[parent] = directory
            return
        scans = self._scans
        scan = scans.scan(parent.cookie)
        has_read = now - listing.read_at < RECENT
        if scan.order < 0 and (has_read or now - listing.heard < RECENT):
            # Who has not read the parent was told the names one by one, by a shell most likely.
            preferred = scans.preferred if has_read else BY_NAME
            order = scan.is_first(listing, _is_directory, directory.name, preferred)
            if order >= 0:
                cursor = scan.begin(listing, _is_directory, order)
                if has_read and self._round_trip.is_far:
                    cursor.window = FIRST_FAR
        moved, _ = scan.note(listing, _is_directory, directory.name, scans.preferred)
        if moved is not None:
            scans.preferred = scan.order
            self._extend(parent, scan, moved)

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
        listing = directory.listing
        if listing is not None and now < listing.expiry and not listing.is_doubted:
            return  # it has what there is to know, and that is not enough
        count, since = self._missed.pop(cookie, (0, now))
        if now - since > RECENT:
            count, since = 0, now
        count += 1
        if self._round_trip.is_far:
            self._renew(directory, now)
        if count >= self._enough(directory):
            if len(self._loading) < TASKS_MAX:
                self._start(directory)
            return
        if len(self._missed) >= MISSED_MAX:
            del self._missed[next(iter(self._missed))]
        self._missed[cookie] = count, since

    def _renew(self, directory: DirectoryNode, now: int) -> None:
        """Have those listings fetched anew that have grown old below a directory, and were used
        lately: who begins again at the top most likely comes for the same ones."""
        names = 0
        tops = deque([directory])
        while tops:
            for child in islice((tops.popleft().children or {}).values(), RENEWED_MAX):
                listing = child.listing
                if (
                    listing is None
                    or not isinstance(child, DirectoryNode)
                    or now - listing.used_at > RENEWED_AGE
                ):
                    continue
                if listing.is_loaded and now >= listing.expiry and child not in self._loading:
                    names += listing.counted
                    if names > RENEWED_MAX or len(self._loading) >= TASKS_MAX:
                        return
                    self._start(child)
                tops.append(child)

    def _enough(self, directory: DirectoryNode) -> int:
        """Return how many names asked for make a listing worth while."""
        listing = directory.listing
        is_far = self._round_trip.is_far
        if listing is not None and listing.is_loaded:
            least = 1 if is_far else MISSED_KNOWN
            return max(least, listing.counted // NAMES_PER_MISS)
        size = directory.va.size
        is_short = size is not None and size <= SHORT_MAX
        return 1 if is_far and is_short else MISSED_UNKNOWN

    def _extend(self, parent: DirectoryNode, scan: Scan, cursor: Cursor) -> None:
        listing = parent.listing
        if listing is None:
            return
        end = min(cursor.at + 1 + cursor.window, len(scan.entries))
        while cursor.front < end and len(self._loading) < TASKS_MAX:
            child = self._child(parent, listing, scan.entries[cursor.front])
            cursor.front += 1
            if child is None or child in self._loading:
                continue
            if child.listing is None or self._clock() >= child.listing.expiry:
                if len(self._ahead) >= AHEAD_MAX:
                    self._ahead.clear()
                self._ahead.add(child.cookie)
                self._start(child, parent, scan, cursor)
        if self._clock() - self._last_hit < RECENT:
            cursor.window = min(2 * cursor.window, WINDOW_MAX)

    def _child(self, parent: DirectoryNode, listing: Listing, entry: Entry) -> DirectoryNode | None:
        """Return the node of a directory, which is made if there is none."""
        node = (parent.children or {}).get(entry.name)
        if node is None:
            if (
                listing.entries.get(entry.name) is not entry
                or entry.packed is None
                or parent.is_gone
            ):
                return None
            node = self._learn(parent, listing, entry)
            if isinstance(node, DirectoryNode):
                if not self._made:
                    self._nursery.start_soon(self._sweep)
                self._made[node] = self._clock()
        return node if isinstance(node, DirectoryNode) else None

    async def _sweep(self) -> None:
        """Forget the nodes that nobody has come for."""
        while self._made:
            await trio.sleep(MADE_AGE / 10**9)
            now = self._clock()
            for node, since in list(self._made.items()):
                if node.nlookup or self._table.nodes.get(node.cookie) is not node:
                    del self._made[node]
                elif now - since >= MADE_AGE and node not in self._loading:
                    del self._made[node]
                    self._table.forget(node.cookie, 0)

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
            entered = self._entered.pop(directory, None)
        if entered is not None:
            self.entered(entered)
        if parent is not None and scan is not None and cursor is not None:
            self._extend(parent, scan, cursor)


def _is_directory(entry: Entry) -> bool:
    return entry.vtype == Vtype.VDIR
