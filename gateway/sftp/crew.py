"""The workers of one session, who take turns at leading.

As in layers/puffs/stream.py: the leader takes packets and does each request itself. Only when a
request really has to wait does another worker take the lead, and the one that waits goes on as
that request's task. So a session over a file server that answers from memory is one task that
never changes, and no request costs a trip through the scheduler.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any, Final

import trio
from trio.lowlevel import Abort, Task

from ...layers.resume import resume
from .intake import Chunk
from .order import Parts, Traffic
from .turns import Turn

_log = logging.getLogger(__name__)

WORKERS_MAX: Final = 129
"""Requests in flight, and one worker who leads."""
_IDLE_MAX: Final = 8
"""Workers that are kept for the next time."""


class Worker(Turn):
    """One worker, with the turn of the request that it has."""

    __slots__ = ("begun", "chunk", "is_leader", "is_over", "owed", "scope", "started")

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(traffic)
        self.is_leader = True
        self.is_over = False
        """Set when the session ends, or it is one too many."""
        self.chunk: Chunk | None = None
        """Memory that its request uses while it waits."""
        self.owed = 0
        """Octets that its request holds or is going to answer, while it waits."""
        self.begun = 0.0
        """When its request was taken, monotonic seconds; kept for a journal only."""
        self.started = inf
        """When the file server began to keep it waiting."""
        self.scope: trio.CancelScope


class Crew:
    """The workers of a session. One leads, unless all are waiting for the file server.

    `work` is what a worker does: lead, until it is no leader any more, then `lead_again`.
    `on_late` hears of a request that took longer than `timeout` seconds (None: any time) and was
    cancelled; `on_wait` that a request begins to wait, `on_done` that one has ended which had.
    """

    def __init__(
        self,
        work: Callable[[Worker], Awaitable[None]],
        *,
        timeout: float | None,
        label: str,
        on_late: Callable[[Worker], None],
        on_wait: Callable[[], None],
        on_done: Callable[[], None],
    ) -> None:
        self._work = work
        self._timeout = timeout
        self._label = label
        self._on_late = on_late
        self._on_wait = on_wait
        self._on_done = on_done
        self._nursery: trio.Nursery
        self._idle: list[Task] = []
        self._nobody_leads = False
        self._is_watched = False
        self.traffic = Traffic()
        self.workers = 0
        self.waiting: set[Worker] = set()
        """Those whose requests wait for their turn, or for the file server."""
        self.owed = 0
        """Octets that requests in flight hold or are going to answer."""

    async def run(self) -> None:
        """Work until `stop`."""
        async with trio.open_nursery() as self._nursery:
            self._add()

    def stop(self) -> None:
        """Cancel everything that is under way."""
        self._nursery.cancel_scope.cancel()

    def spawn(self, function: Callable[[], Any]) -> None:
        """Run `function` beside the workers."""
        self._nursery.start_soon(function)

    def _add(self) -> None:
        self.workers += 1
        self._nursery.start_soon(self._worker)

    async def _worker(self) -> None:
        worker = Worker(self.traffic)
        try:
            while not worker.is_over:
                with trio.CancelScope() as worker.scope:
                    await self._work(worker)
                if worker.scope.cancelled_caught:
                    # The watcher did that, and nobody else cancels one worker alone.
                    self._on_late(worker)
        finally:
            self.workers -= 1

    # Waiting.

    async def wait_turn(self, worker: Worker, held: int, chunk: Chunk | None) -> None:
        """Wait until no earlier request stands in the way; see `finish` for `held`, `chunk`."""
        assert worker.claim is not None
        self._hold(worker, held, chunk)
        await worker.claim.wait()

    async def finish(
        self,
        worker: Worker,
        operation: Coroutine[Any, Any, Any],
        trap: Any,
        parts: Parts | None,
        held: int,
        chunk: Chunk | None,
    ) -> Any:
        """Go on with an operation that the file server keeps waiting, and return its result.

        `parts` is what it touches, if it is a request through handles. It holds `held` octets
        meanwhile, and `chunk` is the memory that its data lie in, if they do.
        """
        if worker.claim is None:
            worker.start(parts)
        if not worker.owed:
            self._hold(worker, held, chunk)
        worker.started = trio.current_time()
        if self._timeout is not None and not self._is_watched:
            self._is_watched = True
            self._nursery.start_soon(self._watch, self._timeout)
        try:
            return await resume(operation, trap)
        finally:
            worker.started = inf

    def _hold(self, worker: Worker, held: int, chunk: Chunk | None) -> None:
        worker.owed = held
        self.owed += held
        if chunk is not None:
            worker.chunk = chunk
            if not chunk.users:
                self.owed += len(chunk.view)
            chunk.users += 1
        self.waiting.add(worker)
        self._hand_over(worker)

    def leave(self, worker: Worker) -> None:
        """Take a request that may have waited out of the traffic, and out of the counts."""
        worker.end()
        if not worker.owed:
            return
        self.waiting.discard(worker)
        self.owed -= worker.owed
        worker.owed = 0
        chunk = worker.chunk
        if chunk is not None:
            worker.chunk = None
            chunk.users -= 1
            if not chunk.users:
                self.owed -= len(chunk.view)
        self._on_done()

    # Leading.

    def _hand_over(self, worker: Worker) -> None:
        """Let another worker lead."""
        worker.is_leader = False
        self._on_wait()
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop())
        elif self.workers < WORKERS_MAX:
            self._add()
        else:
            self._nobody_leads = True

    async def lead_again(self, worker: Worker) -> bool:
        """Wait until this worker is to lead; False: it is not needed any more."""
        if self._nobody_leads:
            self._nobody_leads = False
        elif len(self._idle) >= _IDLE_MAX:
            return False
        else:
            task = trio.lowlevel.current_task()
            self._idle.append(task)

            def abort(_: Any) -> Abort:
                self._idle.remove(task)
                return Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        worker.is_leader = True
        return True

    # Time.

    async def _watch(self, timeout: float) -> None:
        """End requests that take too long, for as long as there are any in flight."""
        while self.waiting:
            now = trio.current_time()
            due = inf
            for worker in self.waiting:
                if worker.started + timeout > now:
                    due = min(due, worker.started + timeout)
                elif not worker.scope.cancel_called:
                    name = type(worker.request).__name__
                    _log.warning("%s: %s took longer than %g s", self._label, name, timeout)
                    worker.scope.cancel()
            await trio.sleep_until(min(due, now + timeout))
        self._is_watched = False

    def got_on(self, turn: Turn) -> None:
        """Hear that a request that takes long is getting on."""
        assert isinstance(turn, Worker)
        if turn.started != inf:
            turn.started = trio.current_time()
