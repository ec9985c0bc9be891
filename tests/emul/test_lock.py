"""Vnode locks: who gets in, in what order, and that free locks cost no trip to the scheduler."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

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


def test_upgrade_of_the_only_hold_does_not_yield() -> None:
    lock = VnodeLock()
    now(lock.shared())
    assert lock.tryupgrade()
    assert lock.is_exclusive
    lock.downgrade()
    assert now(lock.upgrade())
    assert lock.is_exclusive
    lock.release()
    assert not lock.is_locked


def test_upgrade_wants_a_shared_hold() -> None:
    lock = VnodeLock()
    with pytest.raises(RuntimeError):
        lock.tryupgrade()
    lock.try_exclusive()
    with pytest.raises(RuntimeError):
        lock.tryupgrade()
    with pytest.raises(RuntimeError):
        now(lock.upgrade())


class Upgrader:
    """A task that upgrades its shared hold; `result` is None until that has come to an end."""

    def __init__(self, nursery: trio.Nursery, lock: VnodeLock) -> None:
        self.scope = trio.CancelScope()
        self.result: bool | None = None
        self.leave = trio.Event()
        self.lock = lock
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        await self.lock.shared()
        try:
            with self.scope:
                self.result = await self.lock.upgrade()
            await self.leave.wait()
        finally:
            self.lock.release()


async def test_upgrade_waits_for_the_other_readers_and_for_nobody_else() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        await visitors.arrive("r1", "r2")
        upgrader = Upgrader(nursery, visitors.lock)
        await wait_all_tasks_blocked()
        assert not visitors.lock.tryupgrade()
        await visitors.arrive("w", "r3")
        assert not visitors.lock.try_shared()  # no new readers meanwhile
        await visitors.leave("r1")
        assert upgrader.result is None
        await visitors.leave("r2")
        assert upgrader.result is True
        assert visitors.lock.is_exclusive
        assert not visitors.inside
        upgrader.leave.set()
        await wait_all_tasks_blocked()
        assert visitors.inside == {"w"}
        await visitors.leave("w", "r3")


async def test_upgrade_goes_before_writers_that_came_earlier() -> None:
    async with trio.open_nursery() as nursery:
        lock = VnodeLock()
        visitors = Tickets(nursery, lock)
        await visitors.arrive("r1")
        assert lock.try_shared()
        await visitors.arrive("w")
        nursery.start_soon(visitors.leave, "r1")
        assert await lock.upgrade()
        assert not visitors.inside
        lock.release()
        await wait_all_tasks_blocked()
        assert visitors.inside == {"w"}
        await visitors.leave("w")


async def test_of_two_upgrades_one_is_refused() -> None:
    async with trio.open_nursery() as nursery:
        lock = VnodeLock()
        lock.try_shared()
        upgrader = Upgrader(nursery, lock)
        await wait_all_tasks_blocked()
        assert not now(lock.upgrade())  # it waits for us
        assert upgrader.result is None
        lock.release()
        await wait_all_tasks_blocked()
        assert upgrader.result is True
        upgrader.leave.set()


async def test_cancelled_upgrade_keeps_the_shared_hold() -> None:
    async with trio.open_nursery() as nursery:
        visitors = Tickets(nursery, VnodeLock())
        await visitors.arrive("r1")
        upgrader = Upgrader(nursery, visitors.lock)
        await wait_all_tasks_blocked()
        await visitors.arrive("r2", "w")
        assert visitors.inside == {"r1"}
        upgrader.scope.cancel()
        await wait_all_tasks_blocked()
        assert visitors.inside == {"r1", "r2"}  # it was all that kept r2 out
        assert upgrader.result is None
        await visitors.leave("r1", "r2")
        assert visitors.lock.is_locked
        assert not visitors.lock.is_exclusive
        upgrader.leave.set()
        await wait_all_tasks_blocked()
        assert visitors.inside == {"w"}
        await visitors.leave("w")


async def test_lock_all_comes_to_an_end_among_many() -> None:
    locks = [VnodeLock() for _ in range(4)]
    rounds = 0

    async def visit(seed: int) -> None:
        nonlocal rounds
        rng = random.Random(seed)
        for _ in range(20):
            some = rng.sample(locks, rng.randrange(1, 5))
            await lock_all(*some)
            try:
                await trio.lowlevel.checkpoint()
                rounds += 1
            finally:
                unlock_all(*some)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for seed in range(6):
                nursery.start_soon(visit, seed)
    assert rounds == 120
    assert not any(lock.is_locked for lock in locks)


async def test_lock_all_does_not_wait_for_a_moment_when_all_are_free(
    autojump_clock: MockClock,
) -> None:
    locks = [VnodeLock() for _ in range(2)]

    async def read(lock: VnodeLock, start: float) -> None:
        await trio.sleep(start)
        while True:
            await lock.shared()
            await trio.sleep(0.03)  # a round trip; two of these and the lock is never free
            lock.release()

    async with trio.open_nursery() as nursery:
        for lock in locks:
            nursery.start_soon(read, lock, 0)
            nursery.start_soon(read, lock, 0.02)
        await trio.sleep(1)
        with trio.fail_after(1):
            await lock_all(*locks)
        unlock_all(*locks)
        cancelled = 0
        for i in range(100):
            with trio.move_on_after(i / 200) as scope:
                await lock_all(*locks)
                unlock_all(*locks)
            cancelled += scope.cancelled_caught
            await trio.sleep(0.1)
        assert 5 < cancelled < 95
        with trio.fail_after(1):
            await lock_all(*locks)
        nursery.cancel_scope.cancel()
    assert all(lock.is_exclusive for lock in locks)


@pytest.mark.parametrize("above", [0, 1])
async def test_lock_all_gives_way_to_who_holds_one_and_waits_for_the_other(
    above: int, autojump_clock: MockClock
) -> None:
    locks = [VnodeLock() for _ in range(2)]
    done = 0

    async def walk() -> None:
        """Locks the upper one and then the lower, as namei does."""
        nonlocal done
        while True:
            await locks[above].shared()
            await trio.sleep(0.01)
            await locks[not above].exclusive()
            await trio.sleep(0.01)
            locks[not above].release()
            locks[above].release()
            done += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk)
        nursery.start_soon(walk)
        for _ in range(20):
            with trio.fail_after(1):
                await lock_all(*locks)
            await trio.sleep(0.01)
            unlock_all(*locks)
        assert done > 10
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("busy", [0, 1])
async def test_cancelled_lock_all_holds_nothing(busy: int, autojump_clock: MockClock) -> None:
    locks = [VnodeLock() for _ in range(3)]
    assert locks[busy].try_exclusive()
    for seconds in (0, 0.0005, 0.01, 1):
        with trio.move_on_after(seconds) as scope:
            await lock_all(*locks)
        assert scope.cancelled_caught
        assert [lock.is_locked for lock in locks] == [lock is locks[busy] for lock in locks]


async def test_exclusive_within(autojump_clock: MockClock) -> None:
    lock = VnodeLock()
    assert now(lock.exclusive_within(1))
    started = trio.current_time()
    assert not await lock.exclusive_within(1)
    assert trio.current_time() - started == 1
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def holder() -> None:
            await trio.sleep(0.5)
            lock.release()

        assert await lock.exclusive_within(1)
    assert lock.is_exclusive


class Room:
    """What a lock protects: says when somebody is inside who should not be."""

    def __init__(self) -> None:
        self.readers = 0
        self.writers = 0

    def enter(self, writer: bool) -> None:
        assert not self.writers
        assert not (writer and self.readers)
        self.readers += not writer
        self.writers += writer

    def leave(self, writer: bool) -> None:
        self.readers -= not writer
        self.writers -= writer


@pytest.mark.parametrize("seed", range(4))
async def test_random_use_with_cancellations(seed: int, autojump_clock: MockClock) -> None:
    lock, room = VnodeLock(), Room()
    done = {"shared": 0, "exclusive": 0, "upgraded": 0, "refused": 0, "cancelled": 0}

    async def stay(rng: random.Random) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(rng.choice((0, 0.5, 1)))

    async def read(rng: random.Random) -> None:
        await lock.shared()
        writer = False
        room.enter(writer)
        try:
            done["shared"] += 1
            await stay(rng)
            if rng.random() < 0.5:
                room.leave(False)
                try:
                    writer = await lock.upgrade()
                finally:
                    room.enter(writer)
                done["upgraded" if writer else "refused"] += 1
                await stay(rng)
        finally:
            room.leave(writer)
            lock.release()

    async def write(rng: random.Random) -> None:
        await lock.exclusive()
        room.enter(True)
        done["exclusive"] += 1
        await stay(rng)
        room.leave(True)
        if rng.random() < 0.5:
            lock.downgrade()
            room.enter(False)
            await stay(rng)
            room.leave(False)
        lock.release()

    async def visit(rng: random.Random) -> None:
        for _ in range(40):
            await trio.sleep(rng.choice((0, 0.5, 3)))
            with trio.move_on_after(rng.choice((0.5, 2, 20))) as scope:
                await rng.choice((read, read, write))(rng)
            done["cancelled"] += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for i in range(6):
            nursery.start_soon(visit, random.Random(f"{seed}/{i}"))
    assert not lock.is_locked
    assert lock.try_exclusive()
    assert min(done.values()) > 0, done
