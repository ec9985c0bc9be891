"""Pages: what a vnode's and an anonymous object have in common, the table of folios."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...native.constants import PAGE_SHIFT
from .folio import ALL_PAGES, FOLIO, FOLIO_MASK, FOLIO_SHIFT, ZEROS, Folio, page_mask


class Pages:
    """Folios of one file by index; see `UvmObject` and `UvmAobj`."""

    __slots__ = ("folios",)

    def __init__(self) -> None:
        self.folios: dict[int, Folio] = {}

    def absent(self, length: int) -> memoryview | None:
        """Return `length` octets (at most FOLIO) of no valid page; None when they are unknown."""
        return None

    def copyout(self, offset: int, length: int) -> bytes | None:
        """Return `length` octets from `offset`, None if some of them are unknown. One copy."""
        folios = self.folios
        index = offset >> FOLIO_SHIFT
        start = offset & FOLIO_MASK
        folio = folios.get(index)
        if start + length <= FOLIO:
            # `page_mask`, written out: this is where small reads spend their time.
            last = (start + length - 1) >> PAGE_SHIFT
            if folio is None or (2 << last) - (1 << (start >> PAGE_SHIFT)) & ~folio.valid:
                absent = self.absent(length)
                return None if absent is None else bytes(absent)
            folio.referenced = True
            with memoryview(folio.data) as view:
                piece = bytes(view[start : start + length])
            return piece if len(piece) == length else piece.ljust(length, b"\0")
        pieces = []
        while length:
            here = min(FOLIO - start, length)
            if folio is None or (
                folio.valid != ALL_PAGES and page_mask(start, start + here) & ~folio.valid
            ):
                absent = self.absent(here)
                if absent is None:
                    return None
                pieces.append(absent)
            else:
                folio.referenced = True
                view = memoryview(folio.data)[start : start + here]
                pieces.append(view)
                if len(view) < here:
                    pieces.append(ZEROS[: here - len(view)])
            length -= here
            index += 1
            start = 0
            folio = folios.get(index)
        return b"".join(pieces)

    def within(self, offset: int, end: int) -> Iterator[tuple[Folio, int, int]]:
        """Return the folios there are in a range, each with start and end within it, in order."""
        folios = self.folios
        first, last = offset >> FOLIO_SHIFT, (end + FOLIO_MASK) >> FOLIO_SHIFT
        indices: Iterable[int] = range(first, last)
        if last - first > len(folios):
            indices = sorted(index for index in folios if first <= index < last)
        for index in indices:
            folio = folios.get(index)
            if folio is not None:
                base = index << FOLIO_SHIFT
                yield folio, max(offset - base, 0), min(end - base, FOLIO)
