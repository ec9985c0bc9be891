"""UvmAobj: an anonymous object, whose pages are all that there is of the data.

There is no pager behind it: nothing is read, written or reclaimed, and its memory is no concern
of the kernel's page memory but of whoever owns it.
"""

from __future__ import annotations

from ...native.constants import PAGE_SIZE
from ...native.records import Buffer
from .folio import ALL_PAGES, FOLIO, FOLIO_MASK, FOLIO_SHIFT, ZEROS, Folio, spans
from .pages import Pages


def _round_page(length: int) -> int:
    """Return the octets of whole pages that `length` octets take."""
    return -(-length & -PAGE_SIZE)


class UvmAobj(Pages):
    """Octets from 0 to wherever; the size of the file is its owner's affair.

    A vnode may point to it (`vp.uobj`) while it lives. A folio that is missing reads as zeros, and
    so does what lies behind the memory of one that is there: small files take the memory that they
    need, the tail of a truncated folio needs no zeroing, and an extension costs nothing.

    `allocated` is the space taken, octets, whole pages. Offsets are not negative, lengths are
    positive. No view of a folio outlives a call.
    """

    __slots__ = ("allocated",)

    ndirty = 0
    """There is nowhere for pages to be written to."""
    error = 0
    is_clean = True

    def __init__(self) -> None:
        super().__init__()
        self.allocated = 0

    def absent(self, length: int) -> memoryview:
        """Return zeros."""
        return ZEROS[:length]

    def growth(self, offset: int, length: int) -> int:
        """Return by how much `allocated` would grow if `length` octets were stored at `offset`."""
        folios = self.folios
        end = offset + length
        grown = 0
        for index in range(offset >> FOLIO_SHIFT, (end + FOLIO_MASK) >> FOLIO_SHIFT):
            folio = folios.get(index)
            stored = 0 if folio is None else len(folio.data)
            needed = min(end - (index << FOLIO_SHIFT), FOLIO)
            if needed > stored:
                grown += _round_page(needed) - _round_page(stored)
        return grown

    def copyin(self, offset: int, data: Buffer) -> None:
        """Store `data` at `offset`; it is copied once and not kept."""
        with memoryview(data) as whole, whole.cast("B") as octets:
            start = offset & FOLIO_MASK
            if start + len(octets) <= FOLIO:
                self._store(offset >> FOLIO_SHIFT, start, octets)
                return
            done = 0
            for index, start, end in spans(offset, offset + len(octets)):
                self._store(index, start, octets[done : done + end - start])
                done += end - start

    def _store(self, index: int, start: int, octets: memoryview) -> None:
        folio = self._folio(index)
        stored = len(folio.data)
        folio.store(start, octets)
        end = start + len(octets)
        if end > stored:
            self.allocated += _round_page(end) - _round_page(stored)

    def truncate(self, size: int) -> None:
        """Forget everything from `size` on."""
        keep = size & FOLIO_MASK
        last = size >> FOLIO_SHIFT
        folios = self.folios
        if keep:
            self._shorten(last, keep)
            last += 1
        if last == 0:
            folios.clear()
            self.allocated = 0
            return
        for index in [index for index in folios if index >= last]:
            self.allocated -= _round_page(len(folios.pop(index).data))

    def discard(self, offset: int, length: int) -> None:
        """Make `length` octets from `offset` read as zeros; whole folios are freed."""
        for folio, start, end in list(self.within(offset, offset + length)):
            if end >= len(folio.data):
                self._shorten(folio.index, start)
            else:
                folio.zero(start, end)

    def reserve(self, offset: int, length: int) -> None:
        """Take space for `length` octets at `offset`; what they read as does not change."""
        for index, _, end in spans(offset, offset + length):
            folio = self._folio(index)
            stored = len(folio.data)
            if end > stored:
                folio.extend(end)
                self.allocated += _round_page(end) - _round_page(stored)

    def _folio(self, index: int) -> Folio:
        folio = self.folios.get(index)
        if folio is None:
            folio = self.folios[index] = Folio(index)
            folio.valid = ALL_PAGES
        return folio

    def _shorten(self, index: int, length: int) -> None:
        """Cut the memory of a folio down to `length` octets."""
        folio = self.folios.get(index)
        if folio is None or len(folio.data) <= length:
            return
        self.allocated -= _round_page(len(folio.data)) - _round_page(length)
        if length:
            folio.shorten(length)
        else:
            del self.folios[index]
