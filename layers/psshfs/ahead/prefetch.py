"""Small files read before they are opened, because somebody reads their directory one by one.

A cold small file costs two round trips, its OPEN and its READ, and a program that reads
thousands waits for nothing else. So once two files of a directory were opened in one of the
orders that programs go by (`scanning.py`), the next ones are opened, checked, read whole and
closed before they are asked for, many at once: OPEN; then FSTAT, READ and CLOSE together. How
many is doubled as they are used, and halved when one was passed over, or grew old.

Why an open may believe them. An open shall see what another host closed before, by size and
mtime. Version 3 has mtimes of whole seconds, so the check itself cannot see one change that
follows another within a second, however young it is. Attributes that were asked for less than
FRESH, a second, before the open are therefore taken for the check, or a round trip more, for an
open that asks hears no sooner what was true half a trip before; older ones are dropped and
the server is asked. Our own changes count at once, whatever their age, as everywhere (the
change count `stamp`). The attributes are asked for before the data: what changes between the
two is seen by the next check.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from ....native.constants import Vtype
from ....native.errors import VfsError
from ..tree.listing import Entry
from ..wire.connection import Connection
from .scanning import FIRST, Cursor, Scan, Scans
from .smallfile import Ahead

if TYPE_CHECKING:
    from ..tree.gate import Gate
    from ..tree.node import DirectoryNode, Node
    from ..tree.nodetable import NodeTable

SMALL: Final = 64 * 1024
"""Longest file that is read ahead whole, octets."""
FRESH: Final = 10**9
"""Age up to which a check that was made before an open does for it, ns."""
WINDOW_MAX: Final = 128
"""Files ahead of one program."""
FIRST_OCTETS: Final = 128 * 1024
"""What a program has ahead, octets, that opens the first file of a directory right after it has
read that, where the server is far: as much as a guess may cost where it is wrong."""
FIRST_MAX: Final = 32
"""The same in files."""
HOT: Final = 2 * 10**9
"""Who has used a file read ahead so recently, ns, is taken to go on in the next directory."""


class Prefetch:
    """The files read ahead of one mount.

    `total_max`: octets of all of them; nothing is read ahead with 0. `files_max`: how many SFTP
    handles the server may have open for it. `following` tells which directory comes after one.
    What was not used within FRESH is dropped by a task in `nursery`, which lives while there is
    anything.
    """

    def __init__(
        self,
        connection: Connection,
        table: NodeTable,
        gate: Gate,
        nursery: trio.Nursery,
        *,
        total_max: int,
        size_max: int,
        files_max: int,
        following: Callable[[DirectoryNode], DirectoryNode | None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._following = following
        self.connection = connection
        self.table = table
        self.clock = clock
        self._gate = gate
        self._nursery = nursery
        self._total_max = total_max
        self._size_max = min(SMALL, size_max)
        self._window_max = max(1, min(WINDOW_MAX, files_max))
        self._files: dict[tuple[int, bytes], Ahead] = {}
        self._scans = Scans()
        self._is_sweeping = False
        self._last_hit = -HOT
        self._begun = self._answered = 0
        self._think = 0
        self._window = FIRST
        """That of the cursor which moved on last: who goes on in another directory keeps it."""
        self.octets = 0
        """Octets of all files read ahead and not yet used."""
        self.hits = 0
        self.wasted = 0

    @property
    def is_on(self) -> bool:
        """Tell whether anything is ever read ahead."""
        return self._total_max > 0

    def __len__(self) -> int:
        return len(self._files)

    @property
    def _age_max(self) -> int:
        return FRESH + int(self.connection.round_trip.seconds * 10**9)

    # Use.

    async def take(self, node: Node) -> Ahead | None:
        """Note that a file is being opened for reading, and read ahead what will follow it. Return
        what was read ahead of the file itself, when it is answered; it is not kept here any more.
        None where there is nothing that an open may believe."""
        self._begun = self.clock()
        parent = node.parent
        if parent is None:
            return None
        ahead = self._remove((parent.cookie, node.name))
        # Before the wait: what follows is not to be asked for a trip later.
        self._used(parent, node.name)
        if ahead is None:
            return None
        if not ahead.is_done:
            await ahead.wait()
        if (
            ahead.attrs is None
            or (ahead.data is None and not ahead.is_check)
            or self.clock() - ahead.asked > self._age_max
            or ahead.moves != self.table.moves
            or ahead.stamp < node.changed_at
            or node.is_gone
        ):
            return None
        return ahead

    def opened(self, *, is_hit: bool) -> None:
        """Note that an open is done, and whether what was read ahead did for it."""
        now = self.clock()
        if is_hit:
            self.hits += 1
            if self._last_hit == self._answered:
                # From the end of one hit to the next open nothing but the program takes time.
                think = min(self._begun - self._answered, FRESH // 4)
                self._think += (think - self._think) // 8
            self._last_hit = now
        self._answered = now

    def _used(self, directory: DirectoryNode, name: bytes) -> None:
        listing = directory.listing
        now = self.clock()
        if listing is None or not listing.is_loaded or now >= listing.expiry:
            return
        scans = self._scans
        scan = scans.scan(directory.cookie)
        is_news = self.connection.round_trip.is_far and now - listing.read_at < HOT
        if is_news:
            # Who has read the directory and opens its first file is about to open the others.
            if scan.is_unused:
                order = scan.is_first(listing, _is_file, name)
                if order >= 0:
                    scan.begin(listing, _is_file, order)
            elif scan.place(name) == 0:
                scan.restart()
                scan.heard = listing.heard
        cursor, before = scan.note(listing, _is_file, name, scans.preferred)
        if cursor is None:
            return
        if is_news and cursor.at == 0:
            cursor.window = max(cursor.window, _first_window(scan.entries))
        scans.preferred = scan.order
        for place in range(before + 1, cursor.at):
            if self._remove((directory.cookie, scan.entries[place].name)) is not None:
                self._waste(cursor)
        self._extend(directory, scan, cursor)

    def entered(self, directory: DirectoryNode) -> None:
        """Note that somebody lists a directory: who has just read files will read these."""
        if self._total_max and self.clock() - self._last_hit < HOT:
            room = self._window if self.connection.round_trip.is_far else FIRST
            self._begin(directory, room, is_read=True)

    def _begin(self, directory: DirectoryNode, room: int, *, is_read: bool = False) -> None:
        """Read ahead up to `room` files of a directory of which nobody has read any yet, since it
        was listed or, where a reader begins with it (`is_read`), lately."""
        listing = directory.listing
        if listing is None or not listing.is_loaded or self.clock() >= listing.expiry:
            return
        scan = self._scans.scan(directory.cookie)
        preferred = self._scans.preferred
        if scan.order < 0 or (scan.cursors[0].at == -1 and scan.order != preferred):
            cursor = scan.begin(listing, _is_file, preferred)
        elif not scan.is_begun and (
            scan.is_under_way or (scan.heard == listing.heard and not is_read)
        ):
            return
        else:
            cursor = scan.restart()
        scan.heard = listing.heard
        cursor.window = max(cursor.window, room)
        self._extend(directory, scan, cursor)

    # Asking.

    def _extend(self, directory: DirectoryNode, scan: Scan, cursor: Cursor) -> None:
        """Ask for the next files of a cursor, half a window at a time: one call of the socket
        sends them all, and one brings the answers."""
        window = min(cursor.window, self._window_max)
        if self._think:
            window = min(window, FRESH // 2 // self._think)
        ahead = cursor.front - cursor.at - 1
        if ahead > window // 2:
            return
        listing = directory.listing
        assert listing is not None
        known = listing.entries
        entries = scan.entries
        connection = self.connection
        end = min(cursor.at + 1 + window, len(entries))
        with connection.batch:
            while cursor.front < end and not connection.is_busy:
                entry = entries[cursor.front]
                if known.get(entry.name) is entry and not self._ask(directory, entry, cursor):
                    break
                cursor.front += 1
            room = window - (cursor.front - cursor.at - 1)
            if cursor.front == len(entries) and room > 0:
                following = self._following(directory)
                if following is not None:
                    self._begin(following, room - 1)
        cursor.window = self._window = min(2 * cursor.window, self._window_max)
        if not self._is_sweeping and self._files:
            self._is_sweeping = True
            self._nursery.start_soon(self._sweep)

    def _ask(self, directory: DirectoryNode, entry: Entry, cursor: Cursor) -> bool:
        """Ask for a file, if it is one to be read ahead; return False when there is no room."""
        size, name = entry.size, entry.name
        key = (directory.cookie, name)
        if size is None or size > self._size_max:
            return True
        if key in self._files or self._gate.is_closed(directory, name):
            return True
        node = (directory.children or {}).get(name)
        if node is not None and node.file is not None:
            return True
        if self.octets + size > self._total_max:
            return False
        known = None if node is None else node.known_data
        is_check = known is not None and known[:2] == (size, entry.mtime)
        if is_check:
            size = 0
        try:
            path = self.table.path_of(directory, name)
        except VfsError:
            return True  # too long, or the directory is gone
        ahead = Ahead(self.table, self.clock, cursor, path, size, is_check=is_check)
        try:
            ahead.start(self.connection)
        except VfsError:
            return False
        self._files[key] = ahead
        self.octets += size
        return True

    # Dropping.

    def _remove(self, key: tuple[int, bytes]) -> Ahead | None:
        ahead = self._files.pop(key, None)
        if ahead is not None:
            self.octets -= ahead.size
        return ahead

    def _waste(self, cursor: Cursor) -> None:
        self.wasted += 1
        cursor.window = self._window = max(FIRST, cursor.window // 2)

    def drop(self) -> None:
        """Forget all that was read ahead, and who reads what."""
        self._files.clear()
        self.octets = 0
        self._scans.clear()
        self._last_hit = -HOT

    async def _sweep(self) -> None:
        """Drop what has grown old."""
        try:
            while self._files:
                await trio.sleep(FRESH / 10**9)
                now = self.clock()
                for key, ahead in list(self._files.items()):
                    if ahead.is_done and now - ahead.asked > self._age_max:
                        self._remove(key)
                        self._waste(ahead.cursor)
                        # Should he come yet, he is served from where he is.
                        ahead.cursor.front = ahead.cursor.at + 1
        finally:
            self._is_sweeping = False


def _first_window(entries: list[Entry]) -> int:
    """Return how many of the first files have FIRST_OCTETS in all."""
    octets = 0
    for count, entry in enumerate(entries[:FIRST_MAX]):
        octets += entry.size or 0
        if octets > FIRST_OCTETS:
            return max(FIRST, count)
    return FIRST_MAX


def _is_file(entry: Entry) -> bool:
    return entry.vtype == Vtype.VREG
