"""Vnode locks: who gets in, in what order, and that free locks cost no trip to the scheduler."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.lock import VnodeLock, lock_all, unlock_all

from .caller import now


class Tickets:
    """Tasks that take a lock, say so, and hold it until they are told to let go."""

    def __init__(self, nursery: trio.Nursery, lock: VnodeLock) -> None:
        self.nursery = nursery
        self.lock = lock
        self.inside: set[str] = set()
        self.scopes: dict[str, trio.CancelScope] = {}
        self._leave: dict[str, trio.Event] = {}

    async def arrive(self, *names: str) -> None:
        """Start a task for each name in turn; "w..." wants the lock exclusively."""
        for name in names:
            self._leave[name] = trio.Event()
            self.scopes[name] = trio.CancelScope()
            self.nursery.start_soon(self._visit, name)
            await wait_all_tasks_blocked()

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
        await wait_all_tasks_blocked()

    async def cancel(self, name: str) -> None:
        self.scopes[name].cancel()
        await wait_all_tasks_blocked()

    async def _visit(self, name: str) -> None:
        with self.scopes[name]:
            if name.startswith("w"):
                await self.lock.exclusive()
            else:
                await self.lock.shared()
            self.inside.add(name)
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)
                self.lock.release()


def test_a_free_lock_does_not_yield() -> None:
    lock = VnodeLock()
    now(lock.exclusive())
    assert lock.is_locked
    assert lock.is_exclusive
    assert not lock.try_shared()
    assert not lock.try_exclusive()
    lock.release()
    now(lock.shared())
    now(lock.shared())
    assert lock.is_locked
    assert not lock.is_exclusive
    assert not lock.try_exclusive()
    lock.release()
    assert not lock.try_exclusive()
    lock.release()
    assert not lock.is_locked
    assert lock.try_exclusive()


def test_release_and_downgrade_want_a_holder() -> None:
    lock = VnodeLock()
    with pytest.raises(RuntimeError):
        lock.release()
    with pytest.raises(RuntimeError):
        lock.downgrade()
    lock.try_shared()
    with pytest.raises(RuntimeError):
        lock.downgrade()


async def test_served_in_order_of_arrival_readers_together() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        await visitors.arrive("r1", "r2", "w1", "r3", "r4", "w2")
        assert visitors.inside == {"r1", "r2"}  # r3 and r4 came after a writer and wait for it
        assert not visitors.lock.try_shared()
        await visitors.leave("r1")
        assert visitors.inside == {"r2"}
        await visitors.leave("r2")
        assert visitors.inside == {"w1"}
        await visitors.leave("w1")
        assert visitors.inside == {"r3", "r4"}
        await visitors.leave("r3", "r4")
        assert visitors.inside == {"w2"}
        await visitors.leave("w2")
        assert not visitors.lock.is_locked


async def test_writer_is_not_starved_by_readers() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        await visitors.arrive("r0", "w")
        for i in range(5):  # there is always a reader inside or at the door
            await visitors.arrive(f"r{i + 1}")
        await visitors.leave("r0")
        assert visitors.inside == {"w"}
        await visitors.leave("w")
        assert visitors.inside == {f"r{i + 1}" for i in range(5)}
        await visitors.leave(*visitors.inside)


async def test_reader_is_not_starved_by_writers() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        await visitors.arrive("w1", "r", "w2")
        await visitors.leave("w1")
        assert visitors.inside == {"r"}
        await visitors.leave("r", "w2")


async def test_released_lock_is_handed_over_not_up_for_grabs() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        visitors.lock.try_exclusive()
        await visitors.arrive("w")
        visitors.lock.release()
        assert not visitors.lock.try_exclusive()  # w has it, although it has not run yet
        await wait_all_tasks_blocked()
        await visitors.leave("w")


async def test_cancelled_waiter_neither_holds_nor_blocks() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        await visitors.arrive("r1", "w1", "r2", "w2")
        await visitors.cancel("w1")
        assert visitors.inside == {"r1", "r2"}  # w1 was all that kept r2 out
        await visitors.leave("r1")
        await visitors.cancel("r2")
        assert visitors.inside == {"w2"}
        await visitors.leave("w2")
        assert not visitors.lock.is_locked


async def test_cancelled_after_the_handover_holds_and_releases() -> None:
    lock = VnodeLock()
    lock.try_exclusive()
    got_it = False

    async def waiter(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        nonlocal got_it
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await lock.exclusive()
            got_it = True
            lock.release()

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(waiter)
        await wait_all_tasks_blocked()
        lock.release()
        scope.cancel()  # too late: the lock is theirs
    assert got_it
    assert not lock.is_locked


async def test_last_waiter_cancelled_leaves_a_usable_lock() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        await visitors.arrive("w1", "w2")
        await visitors.cancel("w2")
        await visitors.leave("w1")
        assert visitors.lock.try_exclusive()


async def test_downgrade_lets_the_readers_in() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        visitors.lock.try_exclusive()
        await visitors.arrive("r1", "r2", "w", "r3")
        visitors.lock.downgrade()
        await wait_all_tasks_blocked()
        assert visitors.inside == {"r1", "r2"}
        assert not visitors.lock.is_exclusive
        await visitors.leave("r1", "r2")
        assert not visitors.inside
        visitors.lock.release()
        await wait_all_tasks_blocked()
        assert visitors.inside == {"w"}
        await visitors.leave("w", "r3")


async def test_one_wake_up_for_a_contended_lock() -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name.endswith("holder"):
                self.count += 1

    lock = VnodeLock()

    async def holder() -> None:
        await lock.exclusive()
        lock.release()

    lock.try_exclusive()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(holder)
            await wait_all_tasks_blocked()
            lock.release()
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert steps.count == 2  # its start, and once more


async def test_lock_all_cannot_deadlock_with_itself() -> None:
    a, b, c = VnodeLock(), VnodeLock(), VnodeLock()
    rounds = 0

    async def visit(*locks: VnodeLock) -> None:
        nonlocal rounds
        for _ in range(20):
            await lock_all(*locks)
            try:
                assert all(lock.is_exclusive for lock in locks)
                await trio.lowlevel.checkpoint()
                rounds += 1
            finally:
                unlock_all(*locks)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for locks in ((a, b, c), (c, b, a), (b, a, b), (c, a)):
                nursery.start_soon(visit, *locks)
    assert rounds == 80
    assert not any(lock.is_locked for lock in (a, b, c))


def test_lock_all_of_free_locks_does_not_yield() -> None:
    a, b = VnodeLock(), VnodeLock()
    now(lock_all(a, b, a))
    unlock_all(a, b, a)
    assert not a.is_locked
    assert not b.is_locked
