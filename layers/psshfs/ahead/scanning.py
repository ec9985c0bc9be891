"""Recognizing who goes through a directory, and in which order.

Programs take the entries of a directory as it lists them (tar, find), by inode number (cp, rm,
du: fts(3) and savedir sort so), or by name (shells, git). A `Scan` learns the order from two
uses that are neighbours in one of these, and keeps a `Cursor` for each of the programs that go
through the directory at the same time. Nothing here waits or asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ..tree.listing import Entry, Listing

ORDERS: Final[tuple[Callable[[Entry], int | bytes], ...]] = (
    lambda entry: entry.serial,
    lambda entry: entry.fileid,
    lambda entry: entry.name,
)
BY_NAME: Final = 2
FIRST: Final = 4
"""Entries that a cursor has ahead when it begins."""
STRIDE: Final = 3
"""A program that leaves out entries is still followed over gaps of less than this."""
CURSORS_MAX: Final = 8
SORTED_MAX: Final = 10_000
"""In directories with more entries names are not sorted: the sorting of so many takes 5 ms, in
which nothing else is served."""
NUMBERED_MAX: Final = 50_000
"""In directories with more entries only the order of the listing is tried. Numbers matter more than
names there: cp sorts by them, and find, grep and rm do from 10,000 entries on. 40 ms, once."""
PATIENCE_MAX: Final = 32
"""So many uses are let pass, at most, between attempts to find the order: one more after each
that has failed, from FREE_FAILURES on."""
FREE_FAILURES: Final = 16
STRAY_MAX: Final = 16
"""So many uses one after the other that no cursor foresaw show that the order is another one."""
SCANS_MAX: Final = 64


class Cursor:
    """One program's place: `at` is the entry used last, `front` the first one not asked for.

    `window` entries may be ahead; 0 for a place that nobody has gone on from yet.
    """

    __slots__ = ("at", "front", "window")

    def __init__(self, at: int, window: int) -> None:
        self.at = at
        self.front = at + 1
        self.window = window


class Scan:
    """What is known of the order in which the entries of one directory are used."""

    __slots__ = (
        "_failures",
        "_passes",
        "_places",
        "_recent",
        "_strays",
        "cursors",
        "entries",
        "heard",
        "is_guess",
        "order",
    )

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        """The entries in their order; empty until that is known."""
        self.order = -1
        """Index into ORDERS, -1 until it is known."""
        self.is_guess = False
        """The order was taken for granted, and two uses have not shown yet that it is right."""
        self.heard = 0
        """When the listing came for which a cursor was put before the first entry."""
        self.cursors: list[Cursor] = []
        self._places: dict[bytes, int] = {}
        self._recent: deque[bytes] = deque(maxlen=CURSORS_MAX)
        self._strays = 0
        self._failures = 0
        self._passes = 0

    def begin(self, listing: Listing, is_wanted: Callable[[Entry], bool], order: int) -> Cursor:
        """Take `order` for granted, with a cursor before the first entry; return that."""
        self._arrange(listing, is_wanted, order)
        cursor = Cursor(-1, FIRST)
        self.cursors = [cursor]
        self.is_guess = True
        return cursor

    def note(
        self, listing: Listing, is_wanted: Callable[[Entry], bool], name: bytes, preferred: int
    ) -> tuple[Cursor | None, int]:
        """Note the use of an entry; return the cursor that it moves on, and where that was.

        None for a use that no other foreshadowed. `preferred` is the order to be tried first.
        """
        if self.order < 0:
            cursor = self._match(listing, is_wanted, name, preferred)
            self._recent.append(name)
            return cursor, 0 if cursor is None else cursor.at - 1
        place = self._places.get(name)
        if place is None:
            return None, 0  # made since, or no file of the kind: says nothing of the order
        if self.is_guess:
            at = self.cursors[0].at
            if not at - STRIDE < place <= at + STRIDE:
                # In a window that has grown nearly every other order would seem to be this one with
                # gaps.
                return self._guess_again(listing, is_wanted, name, preferred)
            self.is_guess = at < 0
        cursors = self.cursors
        for index, cursor in enumerate(cursors):
            before = cursor.at
            if 0 < place - before <= max(STRIDE, cursor.window):
                cursor.at = place
                cursor.front = max(cursor.front, place + 1)
                if not cursor.window:
                    cursor.window = FIRST
                if index:
                    del cursors[index]
                    cursors.insert(0, cursor)
                self._strays = 0
                return cursor, before
        self._strays += 1
        if self._strays > STRAY_MAX:
            self._forget()
        else:
            cursors.insert(0, Cursor(place, 0))
            del cursors[CURSORS_MAX:]
        return None, 0

    def _guess_again(
        self, listing: Listing, is_wanted: Callable[[Entry], bool], name: bytes, preferred: int
    ) -> tuple[Cursor | None, int]:
        """Find another order by the first use of all, or the second, which the one that was taken
        for granted did not foresee."""
        at = self.cursors[0].at
        used = [entry.name for entry in self.entries[at : at + 1]] if at >= 0 else []
        self._forget()
        self._recent.clear()
        self._recent.extend(used)
        if at < 0 and len(listing.entries) <= SORTED_MAX:
            order = self.is_first(listing, is_wanted, name)
            if order >= 0:
                cursor = self.begin(listing, is_wanted, order)
                cursor.at = 0
                cursor.front = 1
                return cursor, -1
        return self.note(listing, is_wanted, name, preferred)

    def _forget(self) -> None:
        self.order = -1
        self.is_guess = False
        self.entries = []
        self.cursors = []
        self._places = {}
        self._strays = 0

    @property
    def is_unused(self) -> bool:
        """Tell whether no use has been noted yet, nor an order been taken for granted."""
        return self.order < 0 and not self._recent

    @property
    def is_begun(self) -> bool:
        """Tell whether there is a cursor before the first entry."""
        return any(cursor.at < 0 for cursor in self.cursors)

    @property
    def is_under_way(self) -> bool:
        """Tell whether a program is somewhere between the first entry and the last one."""
        last = len(self.entries) - 1
        return any(0 <= cursor.at < last for cursor in self.cursors)

    def restart(self) -> Cursor:
        """Return a cursor before the first entry, which is made if there is none; the order must
        be known."""
        for cursor in self.cursors:
            if cursor.at < 0:
                return cursor
        cursor = Cursor(-1, FIRST)
        self.cursors.insert(0, cursor)
        del self.cursors[CURSORS_MAX:]
        return cursor

    def place(self, name: bytes) -> int | None:
        """Return where an entry stands in the order, None when it or the order is not known."""
        return self._places.get(name)

    def is_first(
        self,
        listing: Listing,
        is_wanted: Callable[[Entry], bool],
        name: bytes,
        preferred: int = 0,
    ) -> int:
        """Return the order in which an entry is the first of all, `preferred` if it is in several;
        -1 for none."""
        entries = [entry for entry in listing.after(0) if is_wanted(entry)]
        for order in sorted(range(len(ORDERS)), key=lambda order: order != preferred):
            if entries and min(entries, key=ORDERS[order]).name == name:
                return order
        return -1

    def _arrange(self, listing: Listing, is_wanted: Callable[[Entry], bool], order: int) -> None:
        entries = [entry for entry in listing.after(0) if is_wanted(entry)]
        if order:
            entries.sort(key=ORDERS[order])
        self.entries = entries
        self._places = {entry.name: place for place, entry in enumerate(entries)}
        self.order = order

    def _match(
        self, listing: Listing, is_wanted: Callable[[Entry], bool], name: bytes, preferred: int
    ) -> Cursor | None:
        if not self._recent:
            return None
        if self._passes:
            self._passes -= 1
            return None
        count = len(listing.entries)
        tried = 3 if count <= SORTED_MAX else 2 if count <= NUMBERED_MAX else 1
        for order in sorted(range(tried), key=lambda order: order != preferred):
            self._arrange(listing, is_wanted, order)
            places = self._places
            here = places.get(name)
            if here is None:
                break
            if _is_run(here, {places[other] for other in self._recent if other in places}):
                self._failures = 0
                cursor = Cursor(here, FIRST)
                self.cursors = [cursor]
                return cursor
        self._forget()
        self._failures = min(self._failures + 1, FREE_FAILURES + PATIENCE_MAX)
        self._passes = max(0, self._failures - FREE_FAILURES)
        return None


def _is_run(here: int, before: set[int]) -> bool:
    """Tell whether a place follows one that was used before, or two with gaps between them.

    One neighbour may be chance: among 400 files two orders that nobody follows have one within
    STRIDE of eight in every tenth use, which four programs at once met in one test of six.
    """
    if here - 1 in before:
        return True
    steps = range(1, STRIDE + 1)
    return any(
        here - far in before and any(here - far - more in before for more in steps) for far in steps
    )


class Scans:
    """The scans of a mount, by directory; the directory that was used longest ago is forgotten.

    `preferred` is the order that was recognized last: who goes through a tree keeps his way.
    """

    def __init__(self) -> None:
        self._scans: dict[int, Scan] = {}
        self.preferred = 0

    def scan(self, cookie: int) -> Scan:
        """Return the scan of a directory, which is made if there is none."""
        scans = self._scans
        scan = scans.pop(cookie, None)
        if scan is None:
            scan = Scan()
            if len(scans) >= SCANS_MAX:
                del scans[next(iter(scans))]
        scans[cookie] = scan
        return scan

    def known(self, cookie: int) -> Scan | None:
        """Return the scan of a directory, None when there is none."""
        return self._scans.get(cookie)

    def clear(self) -> None:
        """Forget all."""
        self._scans.clear()
