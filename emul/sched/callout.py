"""Callouts: functions that are called some time later."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from .kthread import kthread_create

if TYPE_CHECKING:
    from ..kernel import Kernel
    from .workqueue import Workqueue

_SLACK: Final = 64
"""How many entries of callouts that were stopped the heap may have, beyond half of it."""

_serials = count()


class CalloutStatistics(NamedTuple):
    """Figures of a kernel's callouts: how many are pending, and how many have fired so far."""

    pending: int
    fired: int


class Callouts:
    """The pending callouts of a kernel, and the kernel thread that fires them all.

    The thread exists once there was a callout. It wakes up for what is due; and if the one that it
    sleeps for is stopped or put off, once for that.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        # (when, serial, callout). A callout has one entry that counts, the one of time `_entry`; it
        # may be too early, for a callout that is put off keeps its entry until that is due.
        self._heap: list[tuple[float, int, Callout]] = []
        self._pending = 0
        self._fired = 0
        self._scope: trio.CancelScope | None = None  # the thread sleeps until its deadline

    def statistics(self) -> CalloutStatistics:
        """Return the figures of now."""
        return CalloutStatistics(self._pending, self._fired)

    def set(self, callout: Callout, when: float) -> None:
        """Have `callout` fire at `when` in place of any earlier time (for Callout)."""
        if callout.when == math.inf:
            self._pending += 1
        callout.when = when
        if when < callout.entry:
            self._push(callout)
            if self._scope is None:
                self._scope = trio.CancelScope()
                kthread_create(self._kernel, self._softclock, name="softclock")
            self._scope.deadline = self._settle()

    def unset(self, callout: Callout) -> None:
        """Have `callout`, which is pending, not fire (for Callout)."""
        callout.when = math.inf
        self._pending -= 1
        heap = self._heap
        if len(heap) > 2 * self._pending + _SLACK:
            # Those that are put off get their true time: what is left is what is pending.
            live = dict.fromkeys(other for _, _, other in sorted(heap) if other.is_pending)
            for _, _, other in heap:
                other.entry = other.when
            heap[:] = [(other.when, next(_serials), other) for other in live]
            heapify(heap)

    def _push(self, callout: Callout) -> None:
        callout.entry = callout.when
        heappush(self._heap, (callout.when, next(_serials), callout))

    async def _softclock(self) -> None:
        assert self._scope is not None
        while True:
            with self._scope:
                await trio.sleep_forever()
            self._scope = trio.CancelScope()
            self._fire(trio.current_time())
            self._scope.deadline = self._settle()

    def _settle(self) -> float:
        """Clear the head of the heap of entries that do not count; return when the first is due."""
        heap = self._heap
        while heap:
            when, _, callout = heap[0]
            if callout.entry == when:
                if callout.when == when:
                    return when
                callout.entry = math.inf
            heappop(heap)
            if callout.when < callout.entry:
                self._push(callout)
        return math.inf

    def _fire(self, now: float) -> None:
        """Call what is due. What is scheduled meanwhile waits for the next time, if due at once."""
        due = []
        while self._settle() <= now:
            _, _, callout = heappop(self._heap)
            callout.entry = math.inf
            due.append(callout)
        for callout in due:
            if callout.when <= now:  # not stopped or put off by one before it
                callout.when = math.inf
                self._pending -= 1
                self._fired += 1
                callout.fire()


class Callout:
    """Calls `func(*args)` once, some seconds after `schedule`, unless it is stopped before.

    `func` never waits: it is called by the thread that fires all callouts, as a software interrupt.
    What has to wait goes to a workqueue: with `workqueue`, made with `Callout.work` as its function
    (`Workqueue(kernel, name, Callout.work, bound=...)`), `func` is a coroutine function which is
    awaited there; one that comes due again before that had its turn is not awaited twice.
    What `func` raises ends the kernel. When the kernel ends no callout fires any more.
    """

    __slots__ = (
        "_args",
        "_callouts",
        "_func",
        "_halting",
        "_has_fired",
        "_workqueue",
        "entry",
        "when",
    )

    def __init__(
        self,
        kernel: Kernel,
        func: Callable[..., Any],
        *args: Any,
        workqueue: Workqueue[Callout] | None = None,
    ) -> None:
        self._callouts = kernel.callouts
        self._func = func
        self._args = args
        self._workqueue = workqueue
        self._has_fired = False
        self._halting = 0  # how many wait in `halt`
        # For Callouts: when to fire, and the time of the entry in its heap; inf for none.
        self.when = math.inf
        self.entry = math.inf

    @property
    def is_pending(self) -> bool:
        """Whether it is scheduled and has not fired."""
        return self.when < math.inf

    def schedule(self, seconds: float) -> None:
        """Fire that many seconds from now, and at no earlier or later time set before."""
        self._has_fired = False
        self._callouts.set(self, trio.current_time() + seconds)

    def reset(self, seconds: float, func: Callable[..., Any], *args: Any) -> None:
        """Schedule it with another function, of the same kind."""
        self._func = func
        self._args = args
        self.schedule(seconds)

    def stop(self) -> bool:
        """Do not fire; return whether it has fired since it was scheduled.

        With a workqueue the function may still be on its way, or running: see `halt`.
        """
        if self.is_pending:
            self._callouts.unset(self)
        fired, self._has_fired = self._has_fired, False
        return fired

    async def halt(self) -> bool:
        """Stop it, and wait until its function is not running; return as `stop`.

        A function that schedules it again does so in vain. Does not yield if there is nothing to
        wait for. Not for the function about itself.
        """
        fired = self.stop()
        if self._workqueue is not None:
            self._halting += 1
            try:
                await self._workqueue.wait(self)
            finally:
                self._halting -= 1
                self.stop()
        return fired

    def fire(self) -> None:
        """Do what is due (for Callouts)."""
        self._has_fired = True
        if self._workqueue is None:
            self._func(*self._args)
        elif not self._halting:
            self._workqueue.enqueue_once(self)

    async def work(self) -> None:
        """Await the function (for a workqueue)."""
        await self._func(*self._args)
