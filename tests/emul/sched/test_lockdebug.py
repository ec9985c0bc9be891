"""LockDebug: holders, misuse, and the order of locks."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.lock import lock_all, unlock_all
from syspuffs.emul.sched import (
    RW_READER,
    RW_WRITER,
    Condvar,
    DebugKrwlock,
    DebugMutex,
    DebugVnodeLock,
    LockDebug,
    LockOrderError,
    blocking,
    callers,
    curlwp,
    kthread_create_real,
    nonblocking,
)

from ..caller import now

HERE = "sched/test_lockdebug.py"


def vnode_locks(debug: LockDebug, count: int) -> list[DebugVnodeLock]:
    return [DebugVnodeLock(debug, "tmpfs vnode", str(i + 1)) for i in range(count)]


# Callers.


def _called() -> str:
    return str(callers())


def test_callers_are_named_by_file_line_and_function() -> None:
    text = _called()
    assert re.match(rf"{HERE}:\d+ _called < {HERE}:\d+ test_callers_are", text), text
    assert HERE not in str(callers(__file__))


async def test_callers_of_a_real_thread_are_found_in_the_thread() -> None:
    async def inner() -> str:
        return _called()

    def thread() -> tuple[str, str]:
        return blocking(inner), nonblocking(_called)

    async with Kernel() as kernel:
        deep, flat = await kthread_create_real(kernel, thread, name="thread").join()
    assert re.fullmatch(rf"{HERE}:\d+ _called < {HERE}:\d+ inner < {HERE}:\d+ thread", deep), deep
    assert re.fullmatch(rf"{HERE}:\d+ _called < {HERE}:\d+ thread", flat), flat


# Holders.


def test_a_free_lock_does_not_yield() -> None:
    debug = LockDebug()
    lock = DebugVnodeLock(debug, "tmpfs vnode", "1")
    now(lock.exclusive())
    assert debug.holds(lock)
    assert debug.holds(lock, exclusive=True)
    assert not debug.holds(lock, exclusive=False)
    lock.downgrade()
    assert debug.holds(lock, exclusive=False)
    assert not debug.holds(lock, exclusive=True)
    assert lock.tryupgrade()
    assert debug.holds(lock, exclusive=True)
    lock.downgrade()
    assert now(lock.upgrade())
    lock.release()
    assert not debug.holds(lock)
    now(lock.shared())
    assert debug.holds(lock, exclusive=False)
    lock.release()
    mutex = DebugMutex(debug, "m")
    now(mutex.enter())
    assert debug.holds(mutex)
    mutex.exit()
    rwlock = DebugKrwlock(debug, "rw")
    for op in (RW_READER, RW_WRITER):
        now(rwlock.enter(op))
        rwlock.exit()
    now(rwlock.enter(RW_READER))
    assert rwlock.tryupgrade()
    rwlock.downgrade()
    rwlock.exit()
    assert debug.held_by() == ()
    assert debug.report() == []
    assert not lock.holders


async def test_each_holder_is_known_and_where_it_took_the_lock() -> None:
    debug = LockDebug()
    lock = DebugVnodeLock(debug, "tmpfs vnode", "7")
    leave = trio.Event()

    async def reader() -> None:
        await lock.shared()
        await leave.wait()
        lock.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader, name="reader one")
        nursery.start_soon(reader, name="reader two")
        await wait_all_tasks_blocked()
        assert not debug.holds(lock)
        assert sorted(hold.lwp.name for hold in lock.holders) == ["reader one", "reader two"]
        task = lock.holders[0].lwp
        assert debug.holds(lock, task, exclusive=False)
        assert [hold.lock for hold in debug.held_by(task)] == [lock]
        lines = debug.report()
        assert len(lines) == 2
        pattern = (
            rf"still held: tmpfs vnode 7 held shared by reader one, taken at {HERE}:\d+ reader"
        )
        assert any(re.match(pattern, line) for line in lines), lines
        with pytest.raises(RuntimeError, match=r"release of tmpfs vnode 7 by .*reader one"):
            lock.release()
        leave.set()
    assert len(debug.report()) == 1  # the attempt to release it
    assert not lock.is_locked


async def test_a_lock_that_was_waited_for_has_its_new_holder() -> None:
    debug = LockDebug()
    lock, mutex = DebugVnodeLock(debug, "tmpfs vnode"), DebugMutex(debug, "m")
    seen: list[bool] = []

    async def waiter() -> None:
        await lock.exclusive()
        seen.append(debug.holds(lock, exclusive=True))
        await mutex.enter()
        seen.append(debug.holds(mutex))
        mutex.exit()
        lock.release()

    async def upgrader() -> None:
        await lock.shared()
        assert await lock.upgrade()
        seen.append(debug.holds(lock, exclusive=True))
        lock.release()

    await lock.shared()
    await mutex.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upgrader)
        await wait_all_tasks_blocked()
        nursery.start_soon(waiter)
        await wait_all_tasks_blocked()
        assert seen == []
        lock.release()
        await wait_all_tasks_blocked()
        mutex.exit()
    assert seen == [True] * 3
    assert debug.report() == []


async def test_cancelled_waiter_is_no_holder() -> None:
    debug = LockDebug()
    lock = DebugVnodeLock(debug, "tmpfs vnode")
    await lock.shared()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lock.exclusive)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    lock.release()
    assert debug.report() == []


def test_kinds_are_checked() -> None:
    debug = LockDebug()
    lock = DebugVnodeLock(debug, "tmpfs vnode", "1")
    now(lock.shared())
    with pytest.raises(RuntimeError, match=r"downgrade of tmpfs vnode 1 .* held shared by lwp0"):
        lock.downgrade()
    lock.release()
    now(lock.exclusive())
    with pytest.raises(RuntimeError, match=r"upgrade of .* held exclusive by lwp0"):
        lock.tryupgrade()
    lock.release()
    with pytest.raises(RuntimeError, match="nobody holds it"):
        lock.release()
    rwlock = DebugKrwlock(debug, "rw")
    now(rwlock.enter(RW_READER))
    with pytest.raises(RuntimeError, match="downgrade of rwlock rw"):
        rwlock.downgrade()
    rwlock.exit()
    assert len(debug.report()) == 4


@pytest.mark.parametrize("again", ["shared", "exclusive"])
def test_waiting_for_oneself(again: str) -> None:
    debug = LockDebug()
    lock = DebugVnodeLock(debug, "tmpfs vnode", "1")
    now(lock.shared())
    with pytest.raises(RuntimeError, match=r"wants tmpfs vnode 1 .* but has it"):
        now(getattr(lock, again)())
    lock.release()
    assert not lock.is_locked


def test_complaints_are_bounded() -> None:
    debug = LockDebug()
    for i in range(1000):
        debug.complain(str(i))
    assert debug.report() == [str(i) for i in range(100)]


async def test_condition_variables_give_the_mutex_up_and_take_it_back() -> None:
    debug = LockDebug()
    mutex, cv = DebugMutex(debug, "m"), Condvar("cv")

    async def sleeper(catch: bool) -> None:
        async with mutex:
            try:
                await (cv.wait_sig(mutex) if catch else cv.wait(mutex))
            finally:
                assert debug.holds(mutex)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeper, False)
        nursery.start_soon(sleeper, True)
        await wait_all_tasks_blocked()
        assert debug.report() == []
        cv.signal()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        cv.broadcast()
    assert debug.report() == []


# The order.


async def _in_turn(*afns: Callable[[], Awaitable[object]]) -> None:
    """Run each to its end, in a task of its own."""
    for afn in afns:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(afn)


async def test_two_orders_of_two_vnodes() -> None:
    debug = LockDebug()
    a, b = vnode_locks(debug, 2)

    async def down() -> None:
        await a.exclusive()
        await b.shared()
        b.release()
        a.release()

    async def up() -> None:
        await b.exclusive()
        with pytest.raises(LockOrderError):
            await a.shared()
        assert not debug.holds(a)
        assert not a.is_locked
        b.release()

    await _in_turn(down, down, up)
    (line,) = debug.report()
    place = rf"{HERE}:\d+"
    assert re.match(
        rf"order of locks: \S*up wants tmpfs vnode 1 at {place} up\b.* while it holds"
        rf" tmpfs vnode 2, taken at {place} up\b.*; but \S*down wants tmpfs vnode 2 at {place}"
        rf" down\b.* while it holds tmpfs vnode 1, taken at {place} down\b",
        line,
    ), line


async def test_circle_of_three() -> None:
    debug = LockDebug()
    locks = vnode_locks(debug, 3)

    async def both(first: int, second: int) -> None:
        await locks[first].exclusive()
        try:
            await locks[second].exclusive()
            locks[second].release()
        finally:
            locks[first].release()

    await both(0, 1)
    await both(1, 2)
    await both(0, 2)
    with pytest.raises(LockOrderError) as caught:
        await both(2, 0)
    assert str(caught.value).count("while it holds") == 2  # the shortest way: 0, 2
    debug.forget(locks[2])
    await both(1, 2)
    with pytest.raises(LockOrderError) as caught:
        await both(2, 0)
    assert str(caught.value).count("while it holds") == 3
    assert len(debug.report()) == 2


async def test_who_tries_says_nothing_about_the_order() -> None:
    debug = LockDebug()
    a, b = vnode_locks(debug, 2)
    mutex, other = DebugMutex(debug, "m"), DebugMutex(debug, "n")
    for first, second in ((a, b), (b, a)):
        assert first.try_exclusive()
        assert second.try_shared()
        second.release()
        first.release()
    for one, two in ((mutex, other), (other, mutex)):
        assert one.try_enter()
        assert two.try_enter()
        two.exit()
        one.exit()
    assert len(debug.order) == 0
    # But what was got that way is held, when something else is waited for.
    assert a.try_exclusive()
    await b.exclusive()
    assert len(debug.order) == 1
    b.release()
    a.release()


async def test_lock_all_has_no_order() -> None:
    debug = LockDebug()
    locks = vnode_locks(debug, 4)

    async def visit(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(20):
            some = rng.sample(locks, rng.randrange(1, 5))
            await lock_all(*some)
            await trio.lowlevel.checkpoint()
            unlock_all(*some)

    async with trio.open_nursery() as nursery:
        for seed in range(6):
            nursery.start_soon(visit, seed)
    assert len(debug.order) == 0
    assert debug.report() == []


async def test_classes_among_mutexes() -> None:
    debug = LockDebug()
    first = [DebugMutex(debug, "first") for _ in range(2)]
    second = [DebugKrwlock(debug, "second") for _ in range(2)]
    async with first[0]:
        await second[0].enter(RW_READER)
        second[0].exit()
    await second[1].enter(RW_WRITER)  # others of the same classes
    with pytest.raises(LockOrderError, match="mutex first"):
        await first[1].enter()
    second[1].exit()
    async with first[0]:
        with pytest.raises(LockOrderError, match="no order among locks of one class"):
            await first[1].enter()
    assert len(debug.report()) == 2


async def test_vnodes_are_one_class_to_mutexes() -> None:
    debug = LockDebug()
    a, b = vnode_locks(debug, 2)
    devvp = DebugVnodeLock(debug, "spec vnode", "1")
    mutex = DebugMutex(debug, "alloc")
    await a.exclusive()
    async with mutex:
        await devvp.shared()  # a vnode, but of another class
        devvp.release()
    a.release()
    async with mutex:
        with pytest.raises(LockOrderError):
            await b.shared()
    assert not b.is_locked
    assert len(debug.report()) == 1


async def test_vnodes_of_different_classes_have_an_order_of_instances() -> None:
    """A directory, what is mounted on it, and in there the same the other way round."""
    debug = LockDebug()
    outer, covered = (DebugVnodeLock(debug, "tmpfs vnode", name) for name in "12")
    root, inner = (DebugVnodeLock(debug, "ext2fs vnode", name) for name in "12")
    for above, below in ((outer, root), (inner, covered)):
        await above.shared()
        await below.shared()
        below.release()
        above.release()
    assert debug.report() == []
    await root.shared()
    with pytest.raises(LockOrderError):
        await outer.shared()
    root.release()


async def test_renamed_vnodes_get_another_order() -> None:
    debug = LockDebug()
    a, b = vnode_locks(debug, 2)
    for above, below in ((a, b), (b, a)):
        await above.shared()
        await below.shared()
        below.release()
        above.release()
        assert len(debug.order) == 1
        debug.forget(b)
        assert len(debug.order) == 0
    debug.forget(b)  # nothing is known: nothing happens
    assert debug.report() == []


async def test_upgrade_waits_too() -> None:
    debug = LockDebug()
    a, b = vnode_locks(debug, 2)
    await a.shared()
    await b.shared()
    b.release()
    a.release()
    await b.exclusive()
    assert a.try_shared()
    with pytest.raises(LockOrderError):
        await a.upgrade()
    assert debug.holds(a, exclusive=False)
    a.release()
    b.release()


async def test_who_sleeps_enters_the_mutex_again() -> None:
    debug = LockDebug()
    mutex, cv = DebugMutex(debug, "m"), Condvar("cv")
    lock = DebugMutex(debug, "n")
    async with mutex, lock:
        with pytest.raises(LockOrderError):  # it would wait for `m` with `n` in hand
            await cv.wait(mutex)
        assert debug.holds(mutex)
    async with lock, DebugMutex(debug, "other"):
        pass
    assert len(debug.report()) == 1


async def test_order_between_a_task_and_a_real_thread() -> None:
    debug = LockDebug()
    mutex, lock = DebugMutex(debug, "m"), DebugVnodeLock(debug, "tmpfs vnode", "1")

    def thread() -> None:
        blocking(lock.exclusive)
        assert nonblocking(debug.holds, lock)
        with pytest.raises(LockOrderError):
            blocking(mutex.enter)
        nonblocking(lock.release)

    async with Kernel() as kernel:
        async with mutex:
            await lock.shared()
            lock.release()
        await kthread_create_real(kernel, thread, name="real one").join()
    (line,) = debug.report()
    place = rf"{HERE}:\d+"
    assert re.match(
        rf"order of locks: real one wants mutex m at {place} thread while it holds tmpfs vnode 1,"
        rf" taken at {place} thread; but ",
        line,
    ), line


async def test_found_before_it_happens_and_not_only_then() -> None:
    """Two tasks that would deadlock: one of them is told, the other one goes on."""
    debug = LockDebug()
    a, b = vnode_locks(debug, 2)
    told: list[str] = []

    async def visit(first: DebugVnodeLock, second: DebugVnodeLock) -> None:
        await first.exclusive()
        try:
            await trio.lowlevel.checkpoint()
            await second.exclusive()
            second.release()
        except LockOrderError:
            told.append(curlwp().name)
        finally:
            first.release()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit, a, b)
            nursery.start_soon(visit, b, a)
    assert len(told) == 1
    assert len(debug.report()) == 1


async def test_who_keeps_to_an_order_is_never_told() -> None:
    debug = LockDebug()
    locks = vnode_locks(debug, 12)
    rng = random.Random(1)

    async def take(some: list[int]) -> None:
        taken = []
        try:
            for i in some:
                await locks[i].exclusive()
                taken.append(i)
        finally:
            for i in taken:
                locks[i].release()

    for _ in range(300):
        await take(sorted(rng.sample(range(12), 4)))
    assert len(debug.order) == 12 * 11 / 2
    for _ in range(50):
        some = rng.sample(range(12), 3)
        if some != sorted(some):
            with pytest.raises(LockOrderError):
                await take(some)
    assert len(debug.order) == 12 * 11 / 2
    for lock in locks:
        debug.forget(lock)
    assert len(debug.order) == 0
