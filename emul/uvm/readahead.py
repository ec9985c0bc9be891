"""Read-ahead: who reads a file from front to back finds the pages there already."""

from __future__ import annotations

from typing import Final

from ...native.constants import MAXPHYS
from .folio import FOLIO

RA_MIN: Final = 2 * FOLIO
"""The first window, octets."""
RA_MAX: Final = 4 * MAXPHYS
"""How far ahead of its reader a file is read, octets."""
RA_SLACK: Final = MAXPHYS
"""By how much a request may be out of order, octets: a host sends several at once."""


class ReadAhead:
    """What is known of the reading of one file.

    A request that begins where the last one ended, not far before that, or where it was read ahead
    is sequential; so is the first one of the file when it begins at its beginning. The window
    doubles each time that half of it was used up. Any other request closes it: who reads at random
    is left alone.
    """

    __slots__ = ("_end", "_next", "_window")

    def __init__(self) -> None:
        self._next = 0  # where the furthest request ended
        self._end = 0  # how far was read ahead
        self._window = 0  # how far to go ahead of a request, octets

    @property
    def is_sequential(self) -> bool:
        """Whether the last request was."""
        return self._window > 0

    def advance(self, offset: int, end: int, limit: int) -> tuple[int, int] | None:
        """Hear of a request; return the range to begin reading now, beside it, if there is one.

        `limit` bounds the window, octets. The range begins behind the request or behind what was
        returned before, and ends at an edge of a folio.
        """
        if not self._next - RA_SLACK <= offset <= max(self._next, self._end):
            self._next = self._end = end
            self._window = 0
            return None
        self._next = max(self._next, end)
        start = max(self._end, end)
        # Not each request a bit: half a window at a time makes large transfers.
        if self._window and start - end > self._window // 2:
            return None
        window = self._window = min(max(2 * self._window, RA_MIN), limit)
        self._end = (end + window) & -FOLIO
        return (start, self._end) if start < self._end else None
