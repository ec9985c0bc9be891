"""Vnode locks: many readers or one writer, first come, first served.

An uncontended acquisition does not yield, and a contended one costs one wake-up:
`release` hands the lock to the next waiters before they run, so that nobody who
comes by in between can take it from them.
"""

from __future__ import annotations

from typing import Final

from trio import move_on_after
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

_EXCLUSIVE: Final = -1

_TRIES: Final = 3
"""How often `lock_all` tries to get all at once."""
_PATIENCE: Final = 0.001
"""How long it waits with locks in hand afterwards, seconds; twice as long each time."""

# What a waiter wants (for this module and sched.lockdebug).
SHARED_HOLD: Final = 0
EXCLUSIVE_HOLD: Final = 1
UPGRADE: Final = 2  # it has a shared hold


class VnodeLock:
    """A lock held shared by any number of holders or exclusively by one.

    The lock counts its holders and does not know them: `release` gives up one hold of whatever
    kind there is, and only its holder may call it. It is not recursive. Waiters are served in
    order of arrival, a run of shared ones together; a shared request waits behind an exclusive
    one that came earlier, so that neither kind starves. A cancelled waiter leaves the queue
    and has what it had before; once the lock was handed over, cancellation waits for the next
    checkpoint.
    """

    __slots__ = ("_held", "_waiters")

    def __init__(self) -> None:
        self._held = 0  # number of shared holders, or _EXCLUSIVE
        # Waiting task -> what it wants, oldest first. None until somebody had to wait: most vnodes
        # never see that, and there are many of them.
        self._waiters: dict[Task, int] | None = None

    def __repr__(self) -> str:
        held = "exclusive" if self._held < 0 else f"shared={self._held}" if self._held else "free"
        return f"<VnodeLock {held} waiters={len(self._waiters or ())}>"

    @property
    def is_locked(self) -> bool:
        """Whether anybody holds it."""
        return self._held != 0

    @property
    def is_exclusive(self) -> bool:
        """Whether somebody holds it exclusively."""
        return self._held < 0

    @property
    def shared_holds(self) -> int:
        """How many hold it shared."""
        return max(self._held, 0)

    @property
    def waiting(self) -> tuple[tuple[Task, int], ...]:
        """Who waits, oldest first, and for what: SHARED_HOLD, EXCLUSIVE_HOLD or UPGRADE."""
        return tuple((self._waiters or {}).items())

    def try_shared(self) -> bool:
        """Take it shared if that needs no waiting; return whether it was taken."""
        if self._held < 0 or self._waiters:
            return False
        self._held += 1
        return True

    def try_exclusive(self) -> bool:
        """Take it exclusively if that needs no waiting; return whether it was taken."""
        # Nobody waits for a free lock, so there is no queue to look at.
        if self._held:
            return False
        self._held = _EXCLUSIVE
        return True

    async def shared(self) -> None:
        """Take it shared; does not yield when it is free."""
        if not self.try_shared():
            await self._wait(SHARED_HOLD)

    async def exclusive(self) -> None:
        """Take it exclusively; does not yield when it is free."""
        if not self.try_exclusive():
            await self._wait(EXCLUSIVE_HOLD)

    async def exclusive_within(self, seconds: float) -> bool:
        """Take it exclusively within that time; return whether it was taken.

        A wait that ends by itself: it says nothing about the order of locks.
        """
        if not self.try_exclusive():
            with move_on_after(seconds) as scope:
                await self._wait(EXCLUSIVE_HOLD)
            return not scope.cancelled_caught
        return True

    def tryupgrade(self) -> bool:
        """Turn a shared hold into the exclusive one if there is no other; return whether it was."""
        if self._held != 1:
            if not self._held > 0:
                raise RuntimeError("upgrade of a lock that is not held shared")
            return False
        self._held = _EXCLUSIVE
        return True

    async def upgrade(self) -> bool:
        """Turn a shared hold into the exclusive one, before all who wait; return whether it was.

        Does not yield when there is no other hold, and lets nobody in before the others have gone.
        False, at once: somebody else waits for that already, for our hold among others. The caller
        has to release it, and what it saw under the lock may change. Cancelled, it has its shared
        hold.
        """
        if self.tryupgrade():
            return True
        waiters = self._waiters
        if waiters and next(iter(waiters.values())) == UPGRADE:
            return False
        await self._wait(UPGRADE)
        return True

    def downgrade(self) -> None:
        """Turn an exclusive hold into a shared one; waiting readers at the head come in, too."""
        if self._held >= 0:
            raise RuntimeError("downgrade of a lock that is not held exclusively")
        self._held = 1
        if self._waiters:
            self._grant()

    def release(self) -> None:
        """Give up one hold."""
        if self._held > 0:
            self._held -= 1
        elif self._held < 0:
            self._held = 0
        else:
            raise RuntimeError("release of a lock that nobody holds")
        if self._waiters:
            self._grant()

    async def _wait(self, want: int) -> None:
        task = current_task()
        if want == UPGRADE:
            self._waiters = {task: want} | (self._waiters or {})  # to the head of the queue
        elif self._waiters is None:
            self._waiters = {task: want}
        else:
            self._waiters[task] = want

        def abort(_: RaiseCancelT) -> Abort:
            assert self._waiters is not None
            del self._waiters[task]
            self._grant()  # a writer that gives up may have been all that held readers back
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def _grant(self) -> None:
        """Hand the lock to as many waiters at the head of the queue as may have it."""
        waiters = self._waiters
        while waiters:
            task, want = next(iter(waiters.items()))
            if want == SHARED_HOLD:
                if self._held < 0:
                    return
                self._held += 1
            else:
                if self._held != (1 if want == UPGRADE else 0):
                    return
                self._held = _EXCLUSIVE
            del waiters[task]
            reschedule(task)


async def lock_all(*locks: VnodeLock) -> None:
    """Take all of `locks` exclusively, each once however often it is named.

    Whatever their order, it cannot deadlock with others, does not wait for ever for a moment at
    which all are free, and cancelled it holds nothing. (A caller that knows which of its vnodes is
    above which still gains by naming the upper one first.)
    """
    wanted = list(dict.fromkeys(locks))
    busy = wanted[0]
    for _ in range(_TRIES):
        # Wait with empty hands for the one that was busy, then try for the rest with it in hand.
        await busy.exclusive()
        held = [busy]
        for lock in wanted:
            if lock is not held[0]:
                if not lock.try_exclusive():
                    busy = lock
                    break
                held.append(lock)
        else:
            return
        unlock_all(*held)
    await _lock_in_order(sorted(wanted, key=id))


async def _lock_in_order(wanted: list[VnodeLock]) -> None:
    """Take all of `wanted`, in this order, which is the same for all who come here.

    Those who go on trying hand the locks they let go of to each other, and none ever has all (6
    tasks on 4 locks never came to an end); and two vnodes that are always being read are never
    free at once. So here one waits with locks in hand, though not long: against those who hold
    others and want these that is all that helps. They go on, and next time it is twice as long.
    """
    patience = _PATIENCE
    while True:
        held: list[VnodeLock] = []
        try:
            await wanted[0].exclusive()
            held.append(wanted[0])
            for lock in wanted[1:]:
                if not await lock.exclusive_within(patience):
                    break
                held.append(lock)
            else:
                return
        except BaseException:
            unlock_all(*held)
            raise
        unlock_all(*held)
        await lock.exclusive()
        lock.release()
        patience *= 2


def unlock_all(*locks: VnodeLock) -> None:
    """Release all of `locks`, each once however often it is named."""
    for lock in dict.fromkeys(locks):
        lock.release()
