"""Listing a directory on both servers: where an answer ends is every server's own business."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ...native.records import Cookie, Cred, Dirent
from ..ops import FileServer
from ..outcomes import Names

_RESID: Final = 64 * 1024
_LISTINGS_MAX: Final = 64
"""Listings that may be in progress; of more, the oldest are not compared to their ends."""


@dataclass
class Listing:
    """One listing: all names of the second server, and those that the first has given so far.

    `began` is the number of changes before it.
    """

    names: frozenset[bytes]
    began: int
    given: set[bytes] = field(default_factory=set)

    def add(self, entries: Sequence[Dirent], is_end: bool) -> tuple[Names, Names]:
        """Take what the first server gave; return what is to be compared."""
        here = {entry.name for entry in entries}
        self.given |= here
        first = Names(frozenset(self.given if is_end else here), is_end)
        return first, Names(self.names, True)


class Listings:
    """Listings in progress, by directory and the offset where each goes on."""

    def __init__(self) -> None:
        self._going: OrderedDict[tuple[Cookie, int], Listing] = OrderedDict()

    def take(self, cookie: Cookie, offset: int) -> Listing | None:
        """Return the listing that goes on there; it is not kept any longer."""
        return self._going.pop((cookie, offset), None)

    def keep(self, cookie: Cookie, offset: int, listing: Listing) -> None:
        """Keep a listing that will go on there."""
        self._going[cookie, offset] = listing
        while len(self._going) > _LISTINGS_MAX:
            self._going.popitem(last=False)


async def names_of(server: FileServer, cookie: Cookie, cred: Cred) -> frozenset[bytes]:
    """Return all names of a directory. Errors: those of readdir."""
    names: set[bytes] = set()
    offset, is_end = 0, False
    while not is_end:
        entries, is_end = await server.readdir(cookie, offset, _RESID, 0, cred)
        if not entries:
            break
        names |= {entry.name for entry in entries}
        offset = entries[-1].offset
    return frozenset(names)
