"""The vnodes of a kernel that nobody uses, and the bound on all its vnodes.

When there are more vnodes than `desiredvnodes`, unused ones are recycled, least recently used
first. One that is clean goes at once. One that is not is set apart until the `vdrain` task has
had it written; it stays, and is tried again later, when that fails: nothing is ever lost for
lack of room. Vnodes in use are not touched and may be more than the bound, but then each one that
becomes unused goes at once.

Who makes vnodes faster than vdrain can clean them pays for it: see `wait_room`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import ParkingLot

from ..native.constants import FSYNC_VFS, FSYNC_WAIT
from ..native.errors import VfsError
from ..native.records import FSCRED
from .dead import REVOKED
from .vnode import is_clean, reclaim, vhold, vput_locked

if TYPE_CHECKING:
    from .vnode import Vnode

RETRY: Final = 10.0
"""For how long a vnode that could not be cleaned is left alone, seconds."""

_log = logging.getLogger(__name__)


class FreeList:
    """The unused vnodes of one kernel and the number of all; they should be at most `limit`.

    A vnode that is unused and not dead is in exactly one of three tables: those that may be
    recycled as soon as it is their turn, those whose turn it is and that must be cleaned first, and
    those whose cleaning failed. In each the least recently used one comes first.
    """

    __slots__ = (
        "_cleaning",
        "_dirty",
        "_failed",
        "_unused",
        "_wakeup",
        "cleaned",
        "limit",
        "numvnodes",
        "recycled",
        "revived",
    )

    def __init__(self, limit: int) -> None:
        self._unused: OrderedDict[Vnode, None] = OrderedDict()
        self._dirty: OrderedDict[Vnode, None] = OrderedDict()
        self._failed: OrderedDict[Vnode, float] = OrderedDict()  # when to try again
        self._cleaning: set[Vnode] = set()
        self._wakeup = ParkingLot()
        self.limit = limit
        self.numvnodes = 0
        """How many vnodes there are, used ones included, dead ones not."""
        self.recycled = 0
        """How many were reclaimed to keep the limit."""
        self.cleaned = 0
        """How many were written because they were in the way."""
        self.revived = 0
        """How many were found again in time."""

    def __len__(self) -> int:
        return len(self._unused) + len(self._dirty) + len(self._failed)

    def add(self, vp: Vnode) -> None:
        """Put `vp`, which has become unused, at the young end, and recycle what is too many."""
        self._unused[vp] = None
        if vp in self._cleaning:  # by the kernel, not by a user: it is as old as it was
            self._unused.move_to_end(vp, last=False)
        if self.numvnodes > self.limit:
            self._trim()

    def remove(self, vp: Vnode) -> None:
        """Take `vp` off the list."""
        if vp in self._unused:
            del self._unused[vp]
        elif vp in self._dirty:
            del self._dirty[vp]
        else:
            del self._failed[vp]

    def revive(self, vp: Vnode) -> None:
        """Take `vp` off the list for somebody who has found it."""
        self.revived += 1
        self.remove(vp)

    def count(self) -> None:
        """Hear of a new vnode (for `Mount.insert`)."""
        self.numvnodes += 1
        if self.numvnodes > self.limit:
            self._trim()

    def discount(self) -> None:
        """Hear that a vnode is dead (for `vnode.reclaim`)."""
        self.numvnodes -= 1

    def _trim(self) -> None:
        """Recycle what is too many, or set it apart to be cleaned.

        No more is set apart than is too many: younger ones do not have to go because older ones
        take a moment.
        """
        unused = self._unused
        while unused and self.numvnodes - len(self._dirty) > self.limit:
            oldest, _ = unused.popitem(last=False)
            if is_clean(oldest):
                self.recycled += 1
                reclaim(oldest, REVOKED)
            else:
                self._dirty[oldest] = None
        if (self._dirty or self._failed) and self.numvnodes > self.limit:
            self._wakeup.unpark()

    # Cleaning.

    async def vdrain(self) -> None:
        """Clean and recycle while there are too many; never returns (a task of the kernel)."""
        while True:
            if self._dirty:
                await self._drain_one()
            elif not self._failed or self.numvnodes <= self.limit:
                await self._wakeup.park()
            elif (wait := self._retry()) > 0:
                with trio.move_on_after(wait):
                    await self._wakeup.park()

    def _retry(self) -> float:
        """Make ready the one that failed first, if it is due; return how long until then."""
        vp, due = next(iter(self._failed.items()))
        wait = due - trio.current_time()
        if wait <= 0:
            del self._failed[vp]
            self._dirty[vp] = None
        return wait

    @property
    def is_crowded(self) -> bool:
        """Whether so many are too many, for want of cleaning, that makers of vnodes must wait."""
        return self.numvnodes > self.limit + self.limit // 16 and bool(self._dirty)

    async def wait_room(self) -> None:
        """Clean the oldest vnode that needs it, in the caller's time (for `vrele`).

        Without this nothing would bound the vnodes of a task that makes files faster than vdrain
        can have them written. What cannot be cleaned is not waited for.
        """
        if self.is_crowded:
            await self._drain_one()

    async def _drain_one(self) -> None:
        """Clean the oldest vnode that needs it; it is recycled if nobody uses it then."""
        vp = next(iter(self._dirty))
        vhold(vp)
        self._cleaning.add(vp)
        # Who holds a lock has a reference. (Were it waited for, a caller of `vrele` who holds the
        # lock of something below might wait for himself.)
        if not vp.lock.try_exclusive():
            raise RuntimeError(f"locked by somebody without a reference: {vp!r}")
        failure: VfsError | None = None
        try:
            await vp.fs.fsync(vp, FSYNC_VFS | FSYNC_WAIT, 0, 0, FSCRED)
            self.cleaned += 1
        except VfsError as exc:
            failure = exc
            if not self._failed:  # the first of perhaps many
                _log.warning("cannot clean %r, it stays in memory: %s", vp, exc)
        finally:
            # Somebody may have used it while we waited, so the file system hears `inactive` again.
            # If it is clean and one too many, it is recycled here.
            await vput_locked(vp)
            self._cleaning.remove(vp)
            vp.mount.unhold()
        # No await below.
        if not vp.usecount and not vp.is_dead and (failure is not None or not is_clean(vp)):
            self.remove(vp)
            self._failed[vp] = trio.current_time() + RETRY
        if self.numvnodes > self.limit:
            self._trim()
