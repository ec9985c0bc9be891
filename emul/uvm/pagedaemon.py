"""PageMemory: the bound on a kernel's pages, and the page daemon that keeps it.

Clean pages that nobody needs make room for others at once, oldest first, in the task
that wants memory. Dirty ones have to be written before, which is the daemon's work.
"""

from __future__ import annotations

from collections import OrderedDict
from errno import EIO
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary

import trio
from trio.lowlevel import ParkingLot

from ...native.constants import MAXPHYS, PAGE_SHIFT, PGO_CLEANIT, PGO_SYNCIO
from ...native.errors import VfsError
from ..vnode import holdrele, vhold
from .folio import Folio

if TYPE_CHECKING:
    from ..mount import Mount
    from .object import UvmObject

PAGEMEM: Final = 64 * 1024 * 1024
"""Memory for the pages of a kernel, octets."""
FOLIO_COST: Final = 512
"""What a folio takes beside its pages, octets."""
PATIENCE: Final = 5.0
"""How long a writer waits while nothing at all gets written, seconds."""


class Statistics(NamedTuple):
    """Figures of a page memory: what there is now, and what was done so far.

    `octets` are all pages'; `dirty`, `writing` and `failed` count pages, `failed` those of the
    dirty ones that the device would not have when they were written last. `evicted` counts folios
    that made room, `throttled` writers that had to wait, the rest clusters of pages.
    """

    octets: int
    folios: int
    dirty: int
    writing: int
    failed: int
    evicted: int
    throttled: int
    pageins: int
    pagein_errors: int
    pageouts: int
    pageout_errors: int


class Backlog:
    """How many pages of one mount are dirty, are being written, could not be written."""

    __slots__ = ("dirty", "failed", "writing")

    def __init__(self) -> None:
        self.dirty = 0
        self.writing = 0
        self.failed = 0

    @property
    def load(self) -> int:
        """How many the device has before it. Refused ones are not: nobody knows when it will."""
        return self.dirty + self.writing - self.failed


class PageMemory:
    """The pages of one kernel's files; at most `limit` octets while clean ones can make room.

    Half of it may be dirty or on its way to a device, divided by the mounts that have such pages: a
    device that is slow or broken is of no concern to the users of another. From a quarter on the
    daemon writes; who writes to a mount that has more than its share waits for its device. Who
    writes to a file with refused pages tries these again first, and hears the error.

    The pages of tmpfs are none of these: they do not count, and cannot make room.
    """

    def __init__(self, limit: int = PAGEMEM) -> None:
        self.limit = limit
        self.background = (limit // 4) >> PAGE_SHIFT
        self.dirty_max = (limit // 2) >> PAGE_SHIFT
        self.readahead_max = limit // 8
        self.octets = 0
        self.folios = 0
        self.evicted = 0
        self.throttled = 0
        self.pageins = 0
        self.pagein_errors = 0
        self.pageouts = 0
        self.pageout_errors = 0
        self.dirty_objects: dict[UvmObject, None] = {}
        """Those with dirty pages, by the age of the first of these."""
        self._backlogs: WeakKeyDictionary[Mount, Backlog] = WeakKeyDictionary()
        # Can make room, oldest first; wired ones may be among them.
        self._idle: OrderedDict[Folio, UvmObject] = OrderedDict()
        self._wakeup = ParkingLot()
        self._written = ParkingLot()

    def statistics(self) -> Statistics:
        """Return the figures of now."""
        backlogs = list(self._backlogs.values())
        return Statistics(
            octets=self.octets,
            folios=self.folios,
            dirty=sum(backlog.dirty for backlog in backlogs),
            writing=sum(backlog.writing for backlog in backlogs),
            failed=sum(backlog.failed for backlog in backlogs),
            evicted=self.evicted,
            throttled=self.throttled,
            pageins=self.pageins,
            pagein_errors=self.pagein_errors,
            pageouts=self.pageouts,
            pageout_errors=self.pageout_errors,
        )

    # What becomes of folios: for UvmObject and the clusters.

    def enter(self) -> None:
        """Count a new folio."""
        self.folios += 1
        self.account(FOLIO_COST)

    def account(self, octets: int) -> None:
        """Count memory that was taken, or given back if negative; make room."""
        self.octets += octets
        if self.octets > self.limit:
            self._make_room()

    def leave(self, folio: Folio) -> None:
        """Count a folio that is dropped."""
        self.folios -= 1
        self.octets -= FOLIO_COST + len(folio.data)
        self._idle.pop(folio, None)

    def settle(self, uobj: UvmObject, folio: Folio) -> None:
        """Hear that the state of a folio of `uobj` has changed: nobody may need it any more."""
        if not folio.is_idle:
            self._idle.pop(folio, None)
        elif not folio.valid:
            uobj.drop(folio)
        elif folio not in self._idle:
            self._idle[folio] = uobj
            if self.octets > self.limit:
                self._make_room()

    def deactivate(self, folio: Folio) -> None:
        """Let a folio be the next to make room, if it can."""
        folio.referenced = False
        if folio in self._idle:
            self._idle.move_to_end(folio, last=False)

    def _make_room(self) -> None:
        idle = self._idle
        while self.octets > self.limit and idle:
            folio, uobj = next(iter(idle.items()))
            if folio.wired:
                del idle[folio]  # `unwire` brings it back
            elif folio.referenced:  # a second chance, and no third one
                folio.referenced = False
                idle.move_to_end(folio)
            else:
                self.evicted += 1
                uobj.drop(folio)
        if self.octets > self.limit:
            self._wakeup.unpark()

    # Dirty pages.

    def backlog(self, mount: Mount) -> Backlog:
        """Return the backlog of a mount."""
        backlog = self._backlogs.get(mount)
        if backlog is None:
            backlog = self._backlogs[mount] = Backlog()
        return backlog

    def soiled(self, backlog: Backlog) -> None:
        """Hear that pages were made dirty."""
        if backlog.load > self.background:
            self._wakeup.unpark()

    def output_done(self) -> None:
        """Hear that a cluster was written, or could not be."""
        self._written.unpark_all()

    def is_full(self, uobj: UvmObject) -> bool:
        """Whether a writer of `uobj` has to go through `throttle`."""
        backlog = uobj.backlog
        return uobj.nfailed > 0 or backlog.failed > self.dirty_max or self._is_over(backlog)

    def _is_over(self, backlog: Backlog) -> bool:
        """Whether a mount has more dirty pages than its share."""
        load = backlog.load
        if load <= self.dirty_max // 8:
            return False
        return load * sum(other.load > 0 for other in self._backlogs.values()) > self.dirty_max

    async def throttle(self, uobj: UvmObject) -> None:
        """Return when a writer of `uobj` may make more pages dirty. Can be cancelled.

        Errors: with which the device refuses what was made dirty before; EIO, memory is full of
        such pages.
        """
        self.throttled += 1
        vp, backlog = uobj.vp, uobj.backlog
        if uobj.nfailed and uobj.ndirty >= MAXPHYS >> PAGE_SHIFT:
            await vp.fs.putpages(vp, 0, 0, PGO_CLEANIT | PGO_SYNCIO)
        if backlog.failed > self.dirty_max:
            raise VfsError(EIO, "memory is full of data that the device will not have")
        while self._is_over(backlog):
            if uobj.ndirty > uobj.nfailed and not uobj.pageouts:
                await vp.fs.putpages(vp, 0, 0, PGO_CLEANIT)
                if not self._is_over(backlog):
                    return
            self._wakeup.unpark()
            with trio.move_on_after(PATIENCE) as patience:
                await self._written.park()
            if patience.cancelled_caught:
                return

    async def daemon(self) -> None:
        """Have pages written while too many are dirty; never returns (a task of the kernel)."""
        while True:
            has_worked = False
            for uobj in list(self.dirty_objects):
                if not self._has_work:
                    break
                # Refused pages are for the syncer, who comes seldom enough.
                if uobj.ndirty > uobj.nfailed and not uobj.pageouts and not uobj.vp.is_dead:
                    has_worked |= await self._clean(uobj)
            if not has_worked:
                writing = any(backlog.writing for backlog in self._backlogs.values())
                await (self._written if writing and self._has_work else self._wakeup).park()

    @property
    def _has_work(self) -> bool:
        dirty = sum(backlog.dirty - backlog.failed for backlog in self._backlogs.values())
        return dirty > self.background or (dirty > 0 and self.octets > self.limit)

    async def _clean(self, uobj: UvmObject) -> bool:
        """Begin to write the pages of an object; return whether that has changed anything."""
        vp = uobj.vp
        before = uobj.ndirty - uobj.nfailed
        vhold(vp)
        try:
            await vp.fs.putpages(vp, 0, 0, PGO_CLEANIT)
        except VfsError:
            pass  # the pages are dirty as before, and marked
        finally:
            await holdrele(vp)
        return uobj.ndirty - uobj.nfailed < before
