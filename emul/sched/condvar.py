"""Condvar: sleep until somebody says that something has changed."""

from __future__ import annotations

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled

from .mutex import Mutex


class Condvar:
    """A condition variable.

    A sleeper gives up the mutex that it owns and has it again when it goes on, whatever woke it.
    Who is signalled gets in line for the mutex there and then: one wake-up, however long that
    is owned by others. A signal is never lost to a sleeper that is cancelled or timed out.

    What NetBSD calls a signal is cancellation here. `wait` and `timedwait` are not interrupted by
    it: for changes that somebody is bound to bring about soon. An idle thread that waits for work
    uses `wait_sig`, else its kernel cannot end.
    """

    __slots__ = ("_sleepers", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._sleepers: dict[Task, Mutex] = {}  # oldest first

    def __repr__(self) -> str:
        return f"<Condvar {self.name} sleepers={len(self._sleepers)}>"

    def has_waiters(self) -> bool:
        """Return whether anybody sleeps here."""
        return bool(self._sleepers)

    async def wait(self, mutex: Mutex) -> None:
        """Sleep until signalled, come what may. RuntimeError: the caller does not own `mutex`."""
        await self._sleep(mutex, False)

    async def wait_sig(self, mutex: Mutex) -> None:
        """Sleep until signalled or cancelled; `mutex` is owned in either case."""
        await self._sleep(mutex, True)

    async def timedwait(self, mutex: Mutex, seconds: float) -> bool:
        """Sleep as `wait` for `seconds` at most; return whether it was signalled."""
        with trio.move_on_after(seconds, shield=True) as scope:
            await self._sleep(mutex, True)
        return not scope.cancelled_caught

    async def timedwait_sig(self, mutex: Mutex, seconds: float) -> bool:
        """Sleep as `wait_sig` for `seconds` at most; return whether it was signalled."""
        with trio.move_on_after(seconds) as scope:
            await self._sleep(mutex, True)
        return not scope.cancelled_caught

    def signal(self) -> None:
        """Wake who has slept longest, if anybody does."""
        if self._sleepers:
            task = next(iter(self._sleepers))
            self._sleepers.pop(task).admit(task)

    def broadcast(self) -> None:
        """Wake all who sleep now."""
        sleepers, self._sleepers = self._sleepers, {}
        for task, mutex in sleepers.items():
            mutex.admit(task)

    def destroy(self) -> None:
        """End it. RuntimeError: somebody sleeps here."""
        if self._sleepers:
            raise RuntimeError(f"destroy of {self!r}")

    async def _sleep(self, mutex: Mutex, catch: bool) -> None:
        mutex.exit_to_sleep()
        task = current_task()
        self._sleepers[task] = mutex
        interrupt: RaiseCancelT | None = None

        def abort(raise_cancel: RaiseCancelT) -> Abort:
            nonlocal interrupt
            if catch and self._sleepers.pop(task, None) is not None:
                interrupt = raise_cancel
                mutex.admit(task)
            return Abort.FAILED

        await wait_task_rescheduled(abort)
        mutex.entered()
        if interrupt is not None:
            interrupt()
