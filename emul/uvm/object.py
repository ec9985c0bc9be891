"""UvmObject: the pages of one file that are in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from ...native.constants import PAGE_SIZE
from ...native.records import Buffer
from .folio import (
    FOLIO,
    FOLIO_MASK,
    FOLIO_SHIFT,
    Folio,
    merged,
    page_mask,
    runs,
    spans,
)
from .pages import Pages
from .readahead import ReadAhead

if TYPE_CHECKING:
    from ..vnode import Vnode
    from .cluster import Pageout


class UvmObject(Pages):
    """The pages of the file `vp`, found by their place in it.

    A vnode file system makes one for a regular file (`vp.uobj = UvmObject(vp, bsize)`); it ends
    with `uvm_vnp_terminate`. `bsize` is the file system's block, octets: DEV_BSIZE to PAGE_SIZE, a
    power of two. No page lies wholly behind the end of the file, and memory behind the end is zero,
    unless a page is just being read.

    `folios` has what is in memory, by index; `dirty` those with dirty pages, `ndirty` how many
    pages these are and `nfailed` how many of them the device would not have; `pageouts` the
    transfers to the device that are not over. No await is between two steps of a change here: the
    state is whole whenever another task runs.
    """

    __slots__ = (
        "_waiters",
        "backlog",
        "bsize",
        "dirty",
        "error",
        "generation",
        "memory",
        "ndirty",
        "nfailed",
        "pageouts",
        "readahead",
        "vp",
    )

    def __init__(self, vp: Vnode, bsize: int) -> None:
        super().__init__()
        self.vp = vp
        self.bsize = bsize
        self.memory = vp.mount.kernel.pages
        self.backlog = self.memory.backlog(vp.mount)
        self.dirty: dict[int, Folio] = {}
        self.ndirty = 0
        self.pageouts: dict[Pageout, None] = {}
        self.nfailed = 0
        self.error = 0
        """With which errno pages could not be written that still are not, 0 if there are none."""
        self.generation = 0
        """Grows when data or blocks change: where a page belongs must then be asked again."""
        self.readahead = ReadAhead()
        self._waiters: dict[Task, None] | None = None

    def __repr__(self) -> str:
        return (
            f"<UvmObject folios={len(self.folios)} dirty={self.ndirty}"
            f" pageouts={len(self.pageouts)} of {self.vp!r}>"
        )

    @property
    def is_clean(self) -> bool:
        """Whether the device has said of all pages that it has them."""
        return not self.ndirty and not self.pageouts

    # Data.

    def copyin(self, offset: int, data: Buffer) -> None:
        """Store `data` at `offset`, dirty; it is copied once and not kept.

        Pages that are covered in part are valid or behind the end; none is being read.
        """
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
        folio = self.folio(index)
        before = len(folio.data)
        folio.store(start, octets)
        after = len(folio.data)
        if after != before:
            folio.extend(-(-after & -PAGE_SIZE))
            self.memory.account(len(folio.data) - before)
        mask = page_mask(start, start + len(octets))
        folio.valid |= mask
        if mask & ~folio.dirty:
            self.set_dirty(folio, mask)

    def folio(self, index: int) -> Folio:
        """Return the folio of `index`, a new and empty one if there is none.

        A new one is on no list until somebody wires it, reads into it, or makes it dirty.
        """
        folio = self.folios.get(index)
        if folio is None:
            folio = self.folios[index] = Folio(index)
            self.memory.enter()
        return folio

    # States of pages.

    def is_valid(self, offset: int, end: int) -> bool:
        """Return whether all pages of a range are valid."""
        folios = self.folios
        for index, start, stop in spans(offset, end):
            folio = folios.get(index)
            if folio is None or page_mask(start, stop) & ~folio.valid:
                return False
        return True

    def is_reading(self, offset: int, end: int) -> bool:
        """Return whether a page of a range is being read."""
        return any(
            folio.reading & page_mask(start, stop)
            for folio, start, stop in self.within(offset, end)
        )

    def claim(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Mark as being read what is neither valid nor being read; return it, as few ranges.

        The caller reads them, and ends each with `unclaim` or a `Pagein`.
        """
        pieces = []
        for index, start, stop in spans(offset, end):
            folio = self.folio(index)
            missing = page_mask(start, stop) & ~(folio.valid | folio.reading)
            if missing:
                folio.reading |= missing
                self.memory.settle(self, folio)
                base = index << FOLIO_SHIFT
                pieces += [(base + first, base + last) for first, last in runs(missing)]
        return list(merged(pieces))

    def unclaim(self, offset: int, end: int) -> None:
        """Say that the pages of a range are not being read after all."""
        for folio, start, stop in list(self.within(offset, end)):
            folio.reading &= ~page_mask(start, stop)
            self.memory.settle(self, folio)
        self.wake()

    def writable(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges of pages to be written that are not on their way, as few as can be."""
        pieces = []
        for index in sorted(self.dirty):
            base = index << FOLIO_SHIFT
            start, stop = max(offset - base, 0), min(end - base, FOLIO)
            if start < stop:
                folio = self.dirty[index]
                mask = page_mask(start, stop) & folio.dirty & ~folio.writing
                pieces += [(base + first, base + last) for first, last in runs(mask)]
        return list(merged(pieces))

    def is_redirtied(self, offset: int, end: int) -> bool:
        """Return whether pages of a range were changed on their way to the device."""
        return any(
            folio.dirty & folio.writing & page_mask(start, stop)
            for folio, start, stop in self.within(offset, end)
        )

    def has_failed(self, offset: int, end: int) -> bool:
        """Return whether the device would not have pages of a range."""
        return any(
            folio.failed & page_mask(start, stop) for folio, start, stop in self.within(offset, end)
        )

    def set_dirty(self, folio: Folio, mask: int) -> None:
        """Say that pages, which are valid, are newer than the device."""
        new = mask & ~folio.dirty
        if new:
            if not folio.dirty:
                self.dirty[folio.index] = folio
            folio.dirty |= new
            count = new.bit_count()
            if not self.ndirty:
                self.memory.dirty_objects[self] = None
            if self.vp.synctime < 0 and not self.vp.is_dead:
                self.vp.mount.kernel.syncer.add(self.vp)
            self.ndirty += count
            self.backlog.dirty += count
            self.memory.settle(self, folio)

    def set_clean(self, folio: Folio, mask: int) -> None:
        """Say that pages need not be written, or that they are being written from now on."""
        old = mask & folio.dirty
        if old:
            folio.dirty &= ~old
            if not folio.dirty:
                del self.dirty[folio.index]
            count = old.bit_count()
            self.ndirty -= count
            self.backlog.dirty -= count
            if folio.failed & old:
                count = (folio.failed & old).bit_count()
                folio.failed &= ~old
                self.nfailed -= count
                self.backlog.failed -= count
                if not self.nfailed:
                    self.error = 0
            if not self.ndirty:
                del self.memory.dirty_objects[self]

    def set_failed(self, folio: Folio, mask: int, error: int) -> None:
        """Say that the device would not have pages: they are dirty again, and marked."""
        self.set_dirty(folio, mask)
        new = mask & ~folio.failed
        if new:
            folio.failed |= new
            self.nfailed += new.bit_count()
            self.backlog.failed += new.bit_count()
        if mask:
            self.error = error

    def zero(self, offset: int, end: int) -> None:
        """Make the octets of a range zero in memory; says nothing about states."""
        for folio, start, stop in self.within(offset, end):
            folio.zero(start, stop)

    def provide(self, folio: Folio, length: int) -> None:
        """Have memory for the pages of the first `length` octets of `folio`."""
        before = len(folio.data)
        if before < length:
            folio.extend(-(-length & -PAGE_SIZE))
            self.memory.account(len(folio.data) - before)

    # Folios that are wanted, and folios that are not.

    def wire(self, offset: int, end: int) -> list[Folio]:
        """Keep the folios of a range in memory, whatever is in them, until `unwire`."""
        folios = []
        for index in range(offset >> FOLIO_SHIFT, ((end - 1) >> FOLIO_SHIFT) + 1):
            folio = self.folio(index)
            folio.wired += 1  # at once: the next one may need room
            folios.append(folio)
        return folios

    def unwire(self, folios: Iterable[Folio]) -> None:
        """End a `wire`."""
        for folio in folios:
            folio.wired -= 1
            if not folio.dirty and self.folios.get(folio.index) is folio:
                self.memory.settle(self, folio)

    def free(self, folio: Folio, mask: int) -> None:
        """Let go of the pages in `mask` that nobody needs: the device has them."""
        if not folio.wired:
            folio.valid &= ~mask | folio.dirty | folio.writing
            self.memory.settle(self, folio)

    def cut(self, size: int) -> None:
        """Forget the pages behind `size`, dirty or not, and zero the rest of the last one.

        Nothing is being read into the folio of the last page.
        """
        for index in [index for index in self.folios if index << FOLIO_SHIFT >= size]:
            self.drop(self.folios[index])
        folio = self.folios.get(size >> FOLIO_SHIFT)
        if folio is not None:
            keep = size & FOLIO_MASK
            before = len(folio.data)
            if before > keep:
                folio.shorten(keep)
                folio.extend(-(-keep & -PAGE_SIZE))
                self.memory.account(len(folio.data) - before)
            gone = ~page_mask(0, keep)
            self.set_clean(folio, folio.dirty & gone)
            folio.valid &= ~gone
            self.memory.settle(self, folio)

    def drop(self, folio: Folio) -> None:
        """Forget a folio, whatever its state. Transfers that it is part of end unnoticed."""
        self.set_clean(folio, folio.dirty)
        del self.folios[folio.index]
        self.memory.leave(folio)

    def drop_all(self) -> int:
        """Forget all pages; return how many of them were dirty."""
        lost = self.ndirty
        for folio in list(self.folios.values()):
            self.drop(folio)
        self.wake()
        return lost

    # Waiting for transfers.

    async def wait(self, *, cancellable: bool) -> None:
        """Sleep until a transfer of a page has ended, or the state has changed otherwise."""
        waiters = self._waiters
        if waiters is None:
            waiters = self._waiters = {}
        task = current_task()
        waiters[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            if not cancellable:
                return Abort.FAILED
            del waiters[task]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Let those who wait look again."""
        waiters = self._waiters
        if waiters:
            self._waiters = None
            for task in waiters:
                reschedule(task)
