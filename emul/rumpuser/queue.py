"""The queue of a disk with threads of its own.

The trio thread owns the queue and puts neighbours together. The threads share nothing with
it but the jobs they have in hand, and report many that are over with one wake-up.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import trio
from trio.lowlevel import TrioToken, current_trio_token

from ...native.constants import MAXPHYS
from ..bio.buf import B_READ, Buf
from .hostio import datasync, move

IO_THREADS: Final = 2
"""Threads of a disk: one moves data while the other waits, or is in fdatasync."""
_DEPTH: Final = 2 * IO_THREADS
"""Jobs in the hands of the threads: one more for each, so that none waits for the trio thread."""


class Job(ABC):
    """What a thread does in one go."""

    @abstractmethod
    def run(self, fd: int) -> None:
        """Do it, in the thread."""

    @abstractmethod
    def over(self) -> None:
        """Hear that it was done, in the trio thread."""

    def absorb(self, _other: Job) -> bool:
        """Take over `other`, which comes next in the queue, if that is its neighbour."""
        return False


class FlushJob(Job):
    """fdatasync; `on_end` gets the errno."""

    def __init__(self, on_end: Callable[[int], object]) -> None:
        self._on_end = on_end
        self._errno = 0

    def run(self, fd: int) -> None:
        """See Job."""
        self._errno = datasync(fd)

    def over(self) -> None:
        """See Job."""
        self._on_end(self._errno)


class TransferJob(Job):
    """Buffers that lie one behind the other on the medium, from `offset`, all read or all written.

    `on_end` gets each with the octets that were not transferred and the errno.
    """

    def __init__(
        self, bp: Buf, offset: int, moved: int, on_end: Callable[[Buf, int, int], object]
    ) -> None:
        self._is_read = bool(bp.flags & B_READ)
        self._bufs = [bp]
        self._offset = offset
        self._length = bp.bcount
        self._moved = moved  # octets of the first buffer that are there already
        self._on_end = on_end
        self._outcome: list[tuple[int, int]] = []

    def absorb(self, other: Job) -> bool:
        """See Job."""
        if (
            not isinstance(other, TransferJob)
            or other._is_read != self._is_read
            or other._offset != self._offset + self._length
            or self._length + other._length > MAXPHYS
            or other._moved
        ):
            return False
        self._bufs += other._bufs
        self._length += other._length
        return True

    def run(self, fd: int) -> None:
        """See Job."""
        iov = [view for bp in self._bufs for view in bp.iov]
        left, errno = move(fd, self._is_read, iov, self._offset, self._moved)
        if errno and len(self._bufs) > 1:
            # One of them is bad: it must not be the end of its neighbours.
            offset = self._offset
            for bp in self._bufs:
                self._outcome.append(move(fd, self._is_read, bp.iov, offset, 0))
                offset += bp.bcount
            return
        self._outcome = [(left, errno)] * len(self._bufs)

    def over(self) -> None:
        """See Job."""
        for bp, (resid, errno) in zip(self._bufs, self._outcome, strict=True):
            self._on_end(bp, resid, errno)


class DiskQueue:
    """Jobs for `fd`, done by threads that are started when there is work for them.

    `put` and `stop` are the trio thread's.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._waiting: deque[Job] = deque()
        self._active = 0
        self._hand: SimpleQueue[Job | None] = SimpleQueue()
        self._over: deque[Job] = deque()
        self._is_announced = False
        self._threads: list[threading.Thread] = []
        self._token: TrioToken | None = None

    def put(self, job: Job) -> None:
        """Have `job` done, at the latest after all that are here."""
        self._waiting.append(job)
        self._dispatch()

    def _dispatch(self) -> None:
        waiting = self._waiting
        while waiting and self._active < _DEPTH:
            job = waiting.popleft()
            while waiting and job.absorb(waiting[0]):
                waiting.popleft()
            self._active += 1
            if self._active > len(self._threads) < IO_THREADS:
                self._start_thread()
            self._hand.put(job)

    def _start_thread(self) -> None:
        self._token = current_trio_token()
        thread = threading.Thread(target=self._work, name=f"disk {self._name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        """Do jobs, in a thread."""
        assert self._token is not None
        while (job := self._hand.get()) is not None:
            job.run(self._fd)
            self._over.append(job)
            # Read after the append, and cleared before the deque is emptied: whichever comes
            # first, nothing is left lying.
            if not self._is_announced:
                self._is_announced = True
                try:
                    self._token.run_sync_soon(self._collect)
                except trio.RunFinishedError:
                    return  # nobody is left to be told

    def _collect(self) -> None:
        """End the jobs that are over, and hand out new ones first; in the trio thread."""
        self._is_announced = False
        over = self._over
        jobs = [over.popleft() for _ in range(len(over))]
        self._active -= len(jobs)
        self._dispatch()
        for job in jobs:
            job.over()

    async def stop(self) -> None:
        """End the threads; there is nothing to do any more."""
        for _ in self._threads:
            self._hand.put(None)
        for thread in self._threads:
            await trio.to_thread.run_sync(thread.join, abandon_on_cancel=True)
        self._threads.clear()
