"""The octets of one regular file in memory, with holes.

A file is a table of pages of PAGE octets. A page that is missing reads as zeros, and so
does what lies behind the end of a page that is shorter than it might be: small files
take the memory that they need, the tail of a truncated page needs no zeroing, and an
extension costs nothing.
"""

from __future__ import annotations

from typing import Final

from ...native.records import Buffer

PAGE: Final = 65_536
"""Octets of a page: large enough that a large transfer is a few copies."""
BLOCK: Final = 4096
"""Unit in which space is counted, octets."""

_MASK: Final = PAGE - 1
_SHIFT: Final = PAGE.bit_length() - 1
_ZEROS: Final = memoryview(bytes(PAGE))


def _blocks(length: int) -> int:
    """Return the octets of whole blocks that `length` octets take."""
    return (length + BLOCK - 1) & -BLOCK


class Store:
    """Octets from 0 to wherever; the size of the file is its owner's affair.

    `allocated` is the space taken, octets, whole blocks. Offsets are not negative, lengths
    positive. No view of a page outlives a call, so that pages can always be resized.
    """

    __slots__ = ("_pages", "allocated")

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self.allocated = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` octets from `offset`, zeros where there are none. One copy."""
        index = offset >> _SHIFT
        start = offset & _MASK
        page = self._pages.get(index)
        if start + length <= PAGE:
            if page is None:
                return bytes(length)
            with memoryview(page) as view:
                piece = bytes(view[start : start + length])
            return piece if len(piece) == length else piece.ljust(length, b"\0")
        pieces = []
        while length:
            here = min(PAGE - start, length)
            stored = 0
            if page is not None:
                view = memoryview(page)[start : start + here]
                pieces.append(view)
                stored = len(view)
            if stored < here:
                pieces.append(_ZEROS[: here - stored])
            length -= here
            index += 1
            start = 0
            page = self._pages.get(index)
        return b"".join(pieces)

    def growth(self, offset: int, length: int) -> int:
        """Return by how much `allocated` would grow if `length` octets were stored at `offset`."""
        end = offset + length
        grown = 0
        for index in range(offset >> _SHIFT, (end + _MASK) >> _SHIFT):
            page = self._pages.get(index)
            stored = 0 if page is None else len(page)
            needed = min(end - (index << _SHIFT), PAGE)
            if needed > stored:
                grown += _blocks(needed) - _blocks(stored)
        return grown

    def write(self, offset: int, data: Buffer) -> None:
        """Store `data` at `offset`; it is copied once and not kept."""
        pages = self._pages
        index = offset >> _SHIFT
        start = offset & _MASK
        with memoryview(data) as whole, whole.cast("B") as octets:
            done, length = 0, len(octets)
            while done < length:
                here = min(PAGE - start, length - done)
                end = start + here
                page = pages.get(index)
                if page is None:
                    page = pages[index] = bytearray()
                stored = len(page)
                if stored < start:
                    page += _ZEROS[: start - stored]
                # Views on both sides: a bytearray would make a copy of what it is assigned.
                inside = max(0, min(stored, end) - start)
                if inside:
                    with memoryview(page) as view:
                        view[start : start + inside] = octets[done : done + inside]
                if inside < here:
                    page += octets[done + inside : done + here]
                    self.allocated += _blocks(len(page)) - _blocks(stored)
                done += here
                index += 1
                start = 0

    def truncate(self, size: int) -> None:
        """Forget everything from `size` on."""
        keep = size & _MASK
        last = size >> _SHIFT
        pages = self._pages
        if keep:
            self._shorten(last, keep)
            last += 1
        if last == 0:
            pages.clear()
            self.allocated = 0
            return
        for index in [index for index in pages if index >= last]:
            self.allocated -= _blocks(len(pages.pop(index)))

    def discard(self, offset: int, length: int) -> None:
        """Make `length` octets from `offset` read as zeros; whole pages are freed."""
        end = offset + length
        first = offset >> _SHIFT
        last = (end + _MASK) >> _SHIFT
        for index in [index for index in self._pages if first <= index < last]:
            page = self._pages[index]
            base = index << _SHIFT
            start = max(offset - base, 0)
            stop = min(end - base, len(page))
            if stop == len(page):
                self._shorten(index, start)
            elif start < stop:
                with memoryview(page) as view:
                    view[start:stop] = _ZEROS[: stop - start]

    def reserve(self, offset: int, length: int) -> None:
        """Take space for `length` octets at `offset`; what they read as does not change."""
        end = offset + length
        for index in range(offset >> _SHIFT, (end + _MASK) >> _SHIFT):
            page = self._pages.setdefault(index, bytearray())
            stored = len(page)
            needed = min(end - (index << _SHIFT), PAGE)
            if needed > stored:
                page += _ZEROS[: needed - stored]
                self.allocated += _blocks(needed) - _blocks(stored)

    def _shorten(self, index: int, length: int) -> None:
        """Cut a page down to `length` octets."""
        page = self._pages.get(index)
        if page is None or len(page) <= length:
            return
        self.allocated -= _blocks(len(page)) - _blocks(length)
        if length:
            del page[length:]
        else:
            del self._pages[index]
