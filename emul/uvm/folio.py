"""Folios: up to 64 KiB of one file in memory, with the state of each page of it.

Sixteen pages share one piece of memory and one table entry, so that a large transfer is a
few copies and a few look-ups. What is known of each page is a bit in an integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ...native.constants import PAGE_SHIFT

FOLIO_SHIFT: Final = 16
FOLIO: Final = 1 << FOLIO_SHIFT
"""Octets of a folio."""
FOLIO_MASK: Final = FOLIO - 1
ALL_PAGES: Final = (1 << (FOLIO >> PAGE_SHIFT)) - 1
"""The mask of all pages of a folio."""
ZEROS: Final = memoryview(bytes(FOLIO))


def page_mask(start: int, end: int) -> int:
    """Return the mask of the pages that the octets from `start` to `end` of a folio touch."""
    return (2 << ((end - 1) >> PAGE_SHIFT)) - (1 << (start >> PAGE_SHIFT))


def runs(mask: int) -> Iterator[tuple[int, int]]:
    """Return where in a folio the runs of pages in `mask` begin and end, octets."""
    while mask:
        first = (mask & -mask).bit_length() - 1
        above = mask >> first
        last = first + (~above & (above + 1)).bit_length() - 1
        yield first << PAGE_SHIFT, last << PAGE_SHIFT
        mask &= -1 << last


def spans(offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range of a file at the edges of folios: index, start and end within the folio."""
    index = offset >> FOLIO_SHIFT
    start = offset & FOLIO_MASK
    left = end - offset
    while left > 0:
        stop = min(FOLIO, start + left)
        yield index, start, stop
        left -= stop - start
        index += 1
        start = 0


def merged(pieces: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join ranges that touch; `pieces` are in ascending order."""
    start = end = 0
    for first, last in pieces:
        if first == end:
            end = last
            continue
        if start < end:
            yield start, end
        start, end = first, last
    if start < end:
        yield start, end


class Folio:
    """The pages of a file from `index` * FOLIO on.

    `data` is their memory, from the first page on: what lies behind its end reads as zeros, so
    that small files and holes take none. Masks of pages: `valid` have what the file has, `dirty`
    are newer than the device (and valid), `failed` are those of them that could not be written the
    last time, `reading` and `writing` are on their way from and to the device. A page may be dirty
    and being written at once: it was changed on the way, and is written again. `wired` counts who
    needs it to stay. `referenced` says that it was used since the page daemon last looked.

    Who transfers pages keeps the memory that he was given: `data` is replaced, not resized, while
    there is a view of it, and what is read into memory that has been replaced is copied over.
    """

    __slots__ = (
        "data",
        "dirty",
        "failed",
        "index",
        "reading",
        "referenced",
        "valid",
        "wired",
        "writing",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.data = bytearray()
        self.valid = 0
        self.dirty = 0
        self.failed = 0
        self.reading = 0
        self.writing = 0
        self.wired = 0
        self.referenced = False

    def __repr__(self) -> str:
        masks = " ".join(
            f"{name}={getattr(self, name):04x}"
            for name in ("valid", "dirty", "failed", "reading", "writing")
        )
        return f"<Folio {self.index} octets={len(self.data)} {masks} wired={self.wired}>"

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss it: its pages are on the device, or can be read again."""
        return not (self.dirty or self.reading or self.writing or self.wired)

    def extend(self, length: int) -> None:
        """Have memory for the first `length` octets; what is added is zero."""
        missing = length - len(self.data)
        if missing > 0:
            try:
                self.data += ZEROS[:missing]
            except BufferError:
                self.data = self.data + ZEROS[:missing]

    def shorten(self, length: int) -> None:
        """Give up the memory behind the first `length` octets, which read as zeros then."""
        if length < len(self.data):
            try:
                del self.data[length:]
            except BufferError:
                self.data = self.data[:length]

    def store(self, start: int, octets: memoryview) -> None:
        """Copy `octets` to `start`, with memory for them and no more."""
        end = start + len(octets)
        stored = len(self.data)
        if start >= stored < end:
            # The usual growth: at the end, without writing zeros first.
            try:
                if stored < start:
                    self.data += ZEROS[: start - stored]
                self.data += octets
            except BufferError:
                self.data = self.data + ZEROS[: start - stored] + octets
            return
        if stored < end:
            self.extend(end)
        # A view: a bytearray would make a copy of what it is assigned.
        with memoryview(self.data) as view:
            view[start:end] = octets

    def zero(self, start: int, end: int) -> None:
        """Make the octets from `start` to `end` zero; takes no memory for it."""
        end = min(end, len(self.data))
        if start < end:
            with memoryview(self.data) as view:
                view[start:end] = ZEROS[: end - start]
