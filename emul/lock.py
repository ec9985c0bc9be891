"""Vnode locks: many readers or one writer, first come, first served.

An uncontended acquisition does not yield, and a contended one costs one wake-up:
`release` hands the lock to the next waiters before they run, so that nobody who
comes by in between can take it from them.
"""

from __future__ import annotations

from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

_EXCLUSIVE = -1


class VnodeLock:
    """A lock held shared by any number of holders or exclusively by one.

    The lock counts its holders and does not know them: `release` gives up one hold of whatever
    kind there is, and only its holder may call it. It is not recursive. Waiters are served in
    order of arrival, a run of shared ones together; a shared request waits behind an exclusive
    one that came earlier, so that neither kind starves. A cancelled waiter leaves the queue
    and has nothing; once the lock was handed over, cancellation waits for the next checkpoint.
    """

    __slots__ = ("_held", "_waiters")

    def __init__(self) -> None:
        self._held = 0  # number of shared holders, or _EXCLUSIVE
        # Waiting task -> wants it exclusively, oldest first. None until somebody had to wait:
        # most vnodes never see that, and there are many of them.
        self._waiters: dict[Task, bool] | None = None

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
            await self._wait(False)

    async def exclusive(self) -> None:
        """Take it exclusively; does not yield when it is free."""
        if not self.try_exclusive():
            await self._wait(True)

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

    async def _wait(self, exclusive: bool) -> None:
        waiters = self._waiters
        if waiters is None:
            waiters = self._waiters = {}
        task = current_task()
        waiters[task] = exclusive

        def abort(_: RaiseCancelT) -> Abort:
            del waiters[task]
            self._grant()  # a writer that gives up may have been all that held readers back
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def _grant(self) -> None:
        """Hand the lock to as many waiters at the head of the queue as may have it."""
        waiters = self._waiters
        while waiters:
            task, exclusive = next(iter(waiters.items()))
            if exclusive:
                if self._held:
                    return
                self._held = _EXCLUSIVE
            elif self._held < 0:
                return
            else:
                self._held += 1
            del waiters[task]
            reschedule(task)


async def lock_all(*locks: VnodeLock) -> None:
    """Take all of `locks` exclusively, each once however often it is named.

    Whatever their order, it cannot deadlock with others: while it waits for one lock it holds
    none of the rest. Cancelled, it holds nothing. (A caller that knows which of its vnodes is
    above which still gains by naming the upper one first.)
    """
    wanted = list(dict.fromkeys(locks))
    busy = wanted[0]
    while True:
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
        for lock in held:
            lock.release()


def unlock_all(*locks: VnodeLock) -> None:
    """Release all of `locks`, each once however often it is named."""
    for lock in dict.fromkeys(locks):
        lock.release()
