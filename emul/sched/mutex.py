"""Mutex: one owner, first come, first served."""

from __future__ import annotations

from types import TracebackType
from typing import Final

from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from .kthread import Lwp, Lwp0, curlwp

_DESTROYED: Final = Lwp0()
"""Owns the mutexes that are no more."""


class Mutex:
    """A lock that knows its owner. Not recursive; `exit` is for the owner only.

    A free mutex is entered without yielding; `exit` hands a contended one to who has waited
    longest, before that one runs. A cancelled waiter has nothing; once it owns the mutex,
    cancellation waits for the next checkpoint. `async with mutex` enters and exits.
    """

    __slots__ = ("_owner", "_waiters", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._owner: Lwp | None = None
        # Oldest first. None until somebody had to wait.
        self._waiters: dict[Task, None] | None = None

    def __repr__(self) -> str:
        owner = self._owner
        if owner is _DESTROYED:
            state = "destroyed"
        else:
            state = "free" if owner is None else f"owner={owner.name}"
        return f"<Mutex {self.name} {state} waiters={len(self._waiters or ())}>"

    @property
    def is_locked(self) -> bool:
        """Whether it has an owner."""
        return self._owner is not None

    def owned(self) -> bool:
        """Return whether the caller owns it."""
        return self._owner is curlwp()

    def try_enter(self) -> bool:
        """Become the owner if that needs no waiting; return whether it did not."""
        if self._owner is not None:
            return False
        self._owner = curlwp()
        return True

    async def enter(self) -> None:
        """Become the owner. RuntimeError: the caller is it already."""
        if not self.try_enter():
            await self._wait()

    def exit(self) -> None:
        """Cease to be the owner. RuntimeError: the caller is not."""
        if self._owner is not curlwp():
            raise RuntimeError(f"exit of {self!r} by {curlwp().name}, who does not own it")
        waiters = self._waiters
        if waiters:
            task = self._owner = next(iter(waiters))
            del waiters[task]
            reschedule(task)
        else:
            self._owner = None

    def destroy(self) -> None:
        """End it; nobody may use it afterwards. RuntimeError: it is in use, or destroyed."""
        if self._owner is not None:
            raise RuntimeError(f"destroy of {self!r}")
        self._owner = _DESTROYED

    async def __aenter__(self) -> None:
        if not self.try_enter():
            await self._wait()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.exit()

    async def _wait(self) -> None:
        task = current_task()
        if self._owner is task:
            raise RuntimeError(f"{task.name} enters {self!r} against itself")
        if self._owner is _DESTROYED:
            raise RuntimeError(f"enter of {self!r}")
        waiters = self._waiters
        if waiters is None:
            waiters = self._waiters = {}
        waiters[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            del waiters[task]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    # For condition variables: a sleeper gets in line for the mutex without having woken up.

    def exit_to_sleep(self) -> None:
        """Exit, in order to be admitted later."""
        self.exit()

    def admit(self, task: Task) -> None:
        """Make the sleeping `task` the owner, now or in its turn, and wake it up then."""
        if self._owner is None:
            self._owner = task
            reschedule(task)
        else:
            if self._waiters is None:
                self._waiters = {}
            self._waiters[task] = None

    def entered(self) -> None:
        """Hear that the caller owns it again after a sleep."""
