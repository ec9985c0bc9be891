"""Workqueue: work that is done later, by kernel threads of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import trio
from trio.lowlevel import ParkingLot, checkpoint

from .kthread import kthread_create

if TYPE_CHECKING:
    from ..kernel import Kernel

W = TypeVar("W", bound=Hashable)

_BATCH: Final = 64
"""How many pieces of work a thread does before it lets others run; work need not yield."""


class WorkqueueStatistics(NamedTuple):
    """Figures of a workqueue: what waits, what is being done, and what was done so far."""

    queued: int
    running: int
    done: int


class Workqueue(Generic[W]):
    """Awaits `afn(work)` for each piece of work, in order, in `threads` kernel threads.

    At most `bound` pieces wait. A piece that waits cannot be enqueued again; one that is being done
    can. `afn` deals with the errors that it expects: what it raises ends the kernel. Work that is
    left when the kernel ends is not done.
    """

    def __init__(
        self,
        kernel: Kernel,
        name: str,
        afn: Callable[[W], Awaitable[object]],
        *,
        threads: int = 1,
        bound: int,
    ) -> None:
        self.name = name
        self._afn = afn
        self._bound = bound
        self._queue: OrderedDict[W, None] = OrderedDict()
        self._running: dict[W, int] = {}
        self._done = 0
        self._is_open = True
        self._idle = ParkingLot()  # threads without work
        self._room = ParkingLot()  # who waits to enqueue
        self._progress = ParkingLot()  # who waits for work to be done
        self._threads = [
            kthread_create(kernel, self._thread, name=f"{name}/{i}") for i in range(threads)
        ]

    def __repr__(self) -> str:
        return f"<Workqueue {self.name} queued={len(self._queue)} running={len(self._running)}>"

    def statistics(self) -> WorkqueueStatistics:
        """Return the figures of now."""
        return WorkqueueStatistics(len(self._queue), sum(self._running.values()), self._done)

    def enqueue_nowait(self, work: W) -> None:
        """Enqueue `work`; never waits.

        Raises `trio.WouldBlock` when the queue is full. RuntimeError: the work waits already, or
        the queue was destroyed.
        """
        self._check(work)
        if len(self._queue) >= self._bound:
            raise trio.WouldBlock
        self._queue[work] = None
        self._idle.unpark()

    def enqueue_once(self, work: W) -> None:
        """Enqueue `work` unless it waits already, or the queue was destroyed; however full it is.

        For callouts, whose number is bound enough.
        """
        if self._is_open and work not in self._queue:
            self._queue[work] = None
            self._idle.unpark()

    async def enqueue(self, work: W) -> None:
        """Enqueue `work`; waits while the queue is full, and does not yield otherwise.

        RuntimeError: as `enqueue_nowait`.
        """
        self._check(work)
        while len(self._queue) >= self._bound:
            await self._room.park()
            self._check(work)
        self._queue[work] = None
        self._idle.unpark()

    async def wait(self, work: W) -> None:
        """Wait until `work` neither waits nor is being done; does not yield if that is so.

        Not for `afn` about its own work.
        """
        while work in self._queue or work in self._running:
            await self._progress.park()

    async def destroy(self) -> None:
        """Do what is left, then end the threads. Nothing can be enqueued from now on.

        Cancelled, it ends the threads at once.
        """
        self._is_open = False
        self._room.unpark_all()
        try:
            while self._queue or self._running:
                await self._progress.park()
        finally:
            for thread in self._threads:
                thread.stop()

    def _check(self, work: W) -> None:
        if not self._is_open:
            raise RuntimeError(f"enqueue to {self!r}, which was destroyed")
        if work in self._queue:
            raise RuntimeError(f"{work!r} is enqueued in {self!r} already")

    async def _thread(self) -> None:
        queue, running = self._queue, self._running
        batch = 0
        while True:
            while not queue:
                batch = 0
                await self._idle.park()
            work, _ = queue.popitem(last=False)
            self._room.unpark()
            running[work] = running.get(work, 0) + 1
            try:
                await self._afn(work)
            finally:
                running[work] -= 1
                if not running[work]:
                    del running[work]
                self._progress.unpark_all()
            self._done += 1
            batch += 1
            if batch >= _BATCH:
                batch = 0
                await checkpoint()
