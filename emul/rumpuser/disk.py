"""Disk: what a block device of the emulated kernel is, whatever is behind it.

Checks what is the same for all, counts, and lets those who want a cache flush at the
same time share one. Owned by the trio thread; threads of a disk are its own affair.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from errno import EINVAL, EIO, ENOSPC, ENXIO, EROFS, errorcode
from typing import Final, NamedTuple

import trio
from trio.lowlevel import (
    ParkingLot,
    Task,
    current_task,
    reschedule,
    spawn_system_task,
    wait_task_rescheduled,
)

from ...native.constants import DEV_BSHIFT, DEV_BSIZE
from ...native.errors import VfsError
from ..bio.buf import B_ORDERED, B_READ, Buf, uninterruptible
from ..bio.io import biodone

_logger = logging.getLogger(__name__)

CLOSE_GRACE: Final = 5.0
"""How long `close` waits for a disk that does not answer, seconds."""
_MASK: Final = DEV_BSIZE - 1


class DiskStatistics(NamedTuple):
    """Figures of a disk: transfers that are over, failed ones included; octets that moved.

    `pending` are transfers that have begun and are not over.
    """

    reads: int
    octets_read: int
    writes: int
    octets_written: int
    errors: int
    flushes: int
    pending: int


class Disk(ABC):
    """A block device. Made with its medium opened; ended by `close`.

    `name` is for people, `size` in octets and a multiple of DEV_BSIZE, `sectsize` what the medium
    writes at once, octets. An implementation offers `_start`, `_flush` and `_close`.

    `typename` is what the trace of a stack says of it: nothing if it is the host's or in memory.

    How many transfers are under way at a time is bounded by who issues them: the buffer cache by
    its memory, the page cache by its clusters, tasks by their number. A disk queues what it gets.
    """

    typename = ""

    def __init__(
        self, name: str, size: int, *, rdonly: bool = False, sectsize: int = DEV_BSIZE
    ) -> None:
        self.name = name
        self.size = size & ~_MASK
        self.sectsize = sectsize
        self.is_rdonly = rdonly
        self.is_open = True
        self._reads = 0
        self._octets_read = 0
        self._writes = 0
        self._octets_written = 0
        self._errors = 0
        self._flushes = 0
        self._reported: set[int] = set()
        self._pending: set[Buf] = set()
        self._writing = 0  # those of them that are writes and have been started
        self._idle = ParkingLot()
        # Barriers, and writes that came after one and wait for it.
        self._held: deque[Buf] = deque()
        self._has_barrier = False
        self._is_unflushed = False  # a write has ended since the last flush began
        self._flush_running: _Flush | None = None
        self._flush_next: _Flush | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} size={self.size} pending={len(self._pending)}>"

    def statistics(self) -> DiskStatistics:
        """Return the figures of now."""
        return DiskStatistics(
            reads=self._reads,
            octets_read=self._octets_read,
            writes=self._writes,
            octets_written=self._octets_written,
            errors=self._errors,
            flushes=self._flushes,
            pending=len(self._pending),
        )

    def report(self, errno: int) -> None:
        """Log that a write failed for which nobody waits; once for each errno."""
        if errno not in self._reported:
            self._reported.add(errno)
            _logger.warning(
                "%s: delayed writes fail with %s; their data stay dirty and are tried again",
                self.name,
                errorcode.get(errno, errno),
            )

    # Transfers.

    def strategy(self, bp: Buf) -> None:
        """Begin the transfer that `bp` describes; `biodone(bp)` is called when it is over.

        Never waits, cannot fail, never raises but for nonsense. `biodone` may be called before it
        returns: what the caller has to do it does first. Transfers under way at the same time
        are done in any order, B_ORDERED ones excepted; of two that overlap, nobody knows.

        Errors, in `bp.error`, first match wins:
            ENXIO   the disk was closed
            EINVAL  not whole sectors of DEV_BSIZE octets
            EROFS   a write to a disk that was opened read-only
            EIO     a read beyond the end
            ENOSPC  a write beyond the end
            other   what the medium says; `bp.resid` octets at the end were not transferred
        """
        error = self._refusal(bp)
        self._pending.add(bp)
        if bp.flags & B_READ:
            if error:
                self._done(bp, bp.bcount, error)
            else:
                self._start(bp, bp.blkno << DEV_BSHIFT)
        elif not error and (self._has_barrier or bp.flags & B_ORDERED):
            self._held.append(bp)
            if not self._has_barrier:
                self._has_barrier = True
                spawn_system_task(self._keep_order)
        else:
            self._start_write(bp, error)

    def _start_write(self, bp: Buf, error: int = 0) -> None:
        """Begin a write, or end it at once with an error."""
        self._writing += 1
        if error:
            self._done(bp, bp.bcount, error)
        else:
            self._start(bp, bp.blkno << DEV_BSHIFT)

    def _refusal(self, bp: Buf) -> int:
        """Return the errno of what is not even tried, or 0."""
        length = bp.bcount
        if not self.is_open:
            return ENXIO
        if length & _MASK or length <= 0:
            return EINVAL
        is_read = bp.flags & B_READ
        if not is_read and self.is_rdonly:
            return EROFS
        if bp.blkno < 0 or (bp.blkno << DEV_BSHIFT) + length > self.size:
            return EIO if is_read else ENOSPC
        return 0

    @abstractmethod
    def _start(self, bp: Buf, offset: int) -> None:
        """Begin a transfer at `offset`, octets; `_done` ends it. As `strategy` otherwise."""

    def _done(self, bp: Buf, resid: int, error: int) -> None:
        """End a transfer; nothing happens if it has been given up."""
        if bp not in self._pending:
            return
        self._pending.remove(bp)
        bp.resid = resid
        bp.error = error
        self._errors += error != 0
        moved = bp.bcount - resid
        if bp.flags & B_READ:
            self._reads += 1
            self._octets_read += moved
        else:
            self._writes += 1
            self._octets_written += moved
            self._writing -= 1
            self._is_unflushed = True  # if it failed, a part of it may be there
        if not self._writing and self._idle:
            self._idle.unpark_all()
        biodone(bp)

    async def _keep_order(self) -> None:
        """Start the writes that are held, each barrier alone, between two flushes (a task)."""
        while self._held:
            bp = self._held.popleft()
            error = 0
            if bp.flags & B_ORDERED:
                await self._wait_written()
                error = await self._flush_errno()
            is_barrier = bp.flags & B_ORDERED
            self._start_write(bp, error)
            if is_barrier and not error:
                await self._wait_written()
                await self._flush_errno()  # who wants to know asks for a flush himself
        self._has_barrier = False

    async def _wait_written(self) -> None:
        while self._writing:
            await self._idle.park()

    async def _flush_errno(self) -> int:
        try:
            await self.flush()
        except VfsError as exc:
            return exc.errno
        return 0

    # The cache of the medium.

    async def flush(self) -> None:
        """Return when all writes that are over when it is called are on the medium.

        Those who call while a flush is under way share the next one, for the one under way may
        have passed their writes already. Does not yield if there is nothing to flush. Not
        cancellable.
        Errors: ENXIO when closed; what the medium says.
        """
        if not self.is_open:
            raise VfsError(ENXIO, "the disk was closed")
        running = self._flush_running
        if running is None:
            if self._is_unflushed:
                running = self._flush_running = _Flush()
                await self._lead(running)
            return
        if not (running.has_begun and self._is_unflushed):
            await running.join()
            return
        following = self._flush_next
        if following is not None:
            await following.join()
            return
        following = self._flush_next = _Flush()
        await running.wait()
        await self._lead(following)

    async def _lead(self, flush: _Flush) -> None:
        """Do a flush, for all who have joined it; it is `_flush_running`."""
        flush.has_begun = True
        self._is_unflushed = False
        flush.errno = EIO  # for the others, should this one end in a bug
        try:
            with flush.scope:
                await self._flush()
                flush.errno = 0
            if flush.scope.cancelled_caught:
                raise VfsError(EIO, f"{self.name}: does not answer")
        except VfsError as exc:
            flush.errno = exc.errno
            raise
        finally:
            self._flushes += 1
            if flush.errno:
                self._is_unflushed = True
            self._flush_running, self._flush_next = self._flush_next, None
            flush.end()
            self._idle.unpark_all()

    @abstractmethod
    async def _flush(self) -> None:
        """Bring all writes that are over to the medium; one call at a time.

        Cancelled by `close`, which has lost patience, and by nobody else.
        """

    async def close(self) -> None:
        """End, when what is under way is over; the second time nothing happens.

        Flushes nothing. Not cancellable. What a disk has not answered within CLOSE_GRACE ends with
        EIO, the memory in its hands is left to it, and the log says so.
        """
        if not self.is_open:
            return
        self.is_open = False
        with trio.move_on_after(CLOSE_GRACE, shield=True) as scope:
            while self._pending or self._flush_running:
                await self._idle.park()
            await self._close()
        if scope.cancelled_caught:
            _logger.error("does not answer and is left behind: %r", self)
            if self._flush_running is not None:
                self._flush_running.scope.cancel()
            self._writing += len(self._held)
            self._held.clear()
            for bp in list(self._pending):
                self._done(bp, bp.bcount, EIO)

    @abstractmethod
    async def _close(self) -> None:
        """Let go of the medium; nothing is under way. Cancelled if it takes too long."""


class _Flush:
    """One flush of a cache, and those who wait for it."""

    __slots__ = ("_waiters", "errno", "has_begun", "scope")

    def __init__(self) -> None:
        self.scope = trio.CancelScope(shield=True)
        self.has_begun = False
        self.errno = 0
        self._waiters: list[Task] = []

    async def wait(self) -> None:
        """Wait for its end, however it ends."""
        self._waiters.append(current_task())
        await wait_task_rescheduled(uninterruptible)

    async def join(self) -> None:
        """Wait for its end, and share its error."""
        await self.wait()
        if self.errno:
            raise VfsError(self.errno, "cache flush failed")

    def end(self) -> None:
        """Wake all."""
        for task in self._waiters:
            reschedule(task)
