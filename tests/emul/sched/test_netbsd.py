"""NetBSD's cases about locks and threads in rump kernels, in our words.

    t_kern      lockme_*: what is done wrong with locks, and is found out
    t_threads   threadjoin, kthread
    t_tsleep    sleeps that end by themselves and sleeps that are ended

lockme_DOUBLEINIT has no counterpart: a lock is initialised by being made.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.sched import (
    RW_READER,
    RW_WRITER,
    Condvar,
    DebugKrwlock,
    DebugMutex,
    Krwlock,
    Kthread,
    LockDebug,
    Mutex,
    blocking,
    kthread_create,
    kthread_create_real,
    mutex_init,
    nonblocking,
    rw_init,
    tsleep,
    wakeup,
)

from ..caller import now


@pytest.fixture(params=["plain", "debug"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """A kernel that makes locks, of the one kind or the other."""
    kernel = Kernel()
    kernel.lockdebug = LockDebug() if request.param == "debug" else None
    return kernel


def _check_reported(kernel: Kernel, *words: str) -> None:
    if kernel.lockdebug is not None:
        report = "\n".join(kernel.lockdebug.report())
        assert "test_netbsd.py" in report
        assert all(word in report for word in words), report


def test_kernels_choose_the_class() -> None:
    kernel = Kernel()
    kernel.lockdebug = None
    assert type(mutex_init(kernel, "m")) is Mutex
    assert type(rw_init(kernel, "rw")) is Krwlock
    kernel.lockdebug = LockDebug()
    assert type(mutex_init(kernel, "m")) is DebugMutex
    assert type(rw_init(kernel, "rw")) is DebugKrwlock


def test_lockme_destroyheld(kernel: Kernel) -> None:
    mutex = mutex_init(kernel, "m")
    now(mutex.enter())
    with pytest.raises(RuntimeError, match="destroy of"):
        mutex.destroy()
    _check_reported(kernel, "destroy", "still held: mutex m")
    mutex.exit()
    mutex.destroy()
    for op in (RW_READER, RW_WRITER):
        lock = rw_init(kernel, "rw")
        now(lock.enter(op))
        with pytest.raises(RuntimeError, match="destroy of"):
            lock.destroy()
        _check_reported(kernel, "still held: rwlock rw")
        lock.exit()
        lock.destroy()


async def test_destroy_of_a_condition_somebody_waits_for() -> None:
    mutex, cv = Mutex("m"), Condvar("cv")

    async def sleeper() -> None:
        async with mutex:
            await cv.wait(mutex)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeper)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="destroy of"):
            cv.destroy()
        cv.signal()
    cv.destroy()


def test_lockme_doublefree(kernel: Kernel) -> None:
    mutex = mutex_init(kernel, "m")
    mutex.destroy()
    assert "destroyed" in repr(mutex)
    with pytest.raises(RuntimeError, match="destroy of"):
        mutex.destroy()
    _check_reported(kernel, "destroy")


async def test_use_of_what_was_destroyed(kernel: Kernel) -> None:
    mutex = mutex_init(kernel, "m")
    mutex.destroy()
    assert not mutex.try_enter()
    with pytest.raises(RuntimeError, match="destroyed"):
        await mutex.enter()
    with pytest.raises(RuntimeError):
        mutex.exit()


def test_lockme_memfree() -> None:
    """The memory of a lock that is held is freed: who debugs hears of it."""
    kernel = Kernel()
    kernel.lockdebug = LockDebug()

    def forgetful() -> None:
        now(mutex_init(kernel, "forgotten").enter())

    forgetful()
    _check_reported(kernel, "still held: mutex forgotten", "by lwp0", "forgetful")


async def test_lockme_mtx(kernel: Kernel) -> None:
    """A mutex is entered twice."""
    mutex = mutex_init(kernel, "m")
    await mutex.enter()
    with pytest.raises(RuntimeError):
        await mutex.enter()
    _check_reported(kernel, "mutex m", "but has it")
    assert mutex.owned()
    mutex.exit()
    assert not mutex.is_locked


async def test_lockme_rwdoublex(kernel: Kernel) -> None:
    """A writer writes twice."""
    lock = rw_init(kernel, "rw")
    await lock.enter(RW_WRITER)
    with pytest.raises(RuntimeError):
        await lock.enter(RW_WRITER)
    _check_reported(kernel, "rwlock rw", "but has it")
    lock.exit()
    assert not lock.lock_held


async def test_lockme_rwxr(kernel: Kernel) -> None:
    """A writer reads."""
    lock = rw_init(kernel, "rw")
    await lock.enter(RW_WRITER)
    with pytest.raises(RuntimeError):
        await lock.enter(RW_READER)
    _check_reported(kernel, "rwlock rw", "but has it")
    lock.exit()
    assert not lock.lock_held


async def test_lockme_rwrx() -> None:
    """A reader writes: only who debugs knows its readers, the others wait for ever."""
    lockdebug = LockDebug()
    lock = DebugKrwlock(lockdebug, "rw")
    await lock.enter(RW_READER)
    with pytest.raises(RuntimeError, match="but has it"):
        await lock.enter(RW_WRITER)
    lock.exit()
    assert not lock.lock_held
    plain = Krwlock("rw")
    await plain.enter(RW_READER)
    with pytest.raises(AssertionError, match="yielded"):
        now(plain.enter(RW_WRITER))


async def test_exit_by_who_does_not_own_it(kernel: Kernel) -> None:
    mutex, lock = mutex_init(kernel, "m"), rw_init(kernel, "rw")

    async def other() -> None:
        with pytest.raises(RuntimeError):
            mutex.exit()
        with pytest.raises(RuntimeError):
            lock.exit()

    await mutex.enter()
    await lock.enter(RW_WRITER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
    _check_reported(kernel, "exit of mutex m", "exit of rwlock rw")
    assert mutex.owned()
    assert lock.write_held()
    lock.exit()
    mutex.exit()


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_threadjoin(kind: str) -> None:
    """Four threads are made, three of them joined in another order than they end."""
    async with Kernel() as kernel:
        gates = [trio.Event() for _ in range(4)]

        async def work(me: int) -> int:
            await gates[me].wait()
            return me

        def work_really(me: int) -> int:
            return blocking(work, me)

        threads: list[Kthread] = [
            kthread_create(kernel, work, i, name=f"w{i}")
            if kind == "task"
            else kthread_create_real(kernel, work_really, i, name=f"w{i}")
            for i in range(4)
        ]
        for i in (2, 0, 1):
            gates[i].set()
        assert [await threads[i].join() for i in range(3)] == [0, 1, 2]
        assert threads[3].is_alive  # the kernel ends it


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_kthread(kind: str) -> None:
    """A thread is made, says that it is there, and its maker sleeps until it has."""
    mutex, cv = Mutex("m"), Condvar("cv")
    said: list[str] = []

    async def speak() -> None:
        async with mutex:
            said.append("here")
            cv.signal()

    def really_speak() -> None:
        blocking(speak)

    async with Kernel() as kernel:
        async with mutex:
            if kind == "task":
                kthread_create(kernel, speak, name="speaker")
            else:
                kthread_create_real(kernel, really_speak, name="speaker")
            while not said:
                await cv.wait(mutex)


async def test_tsleep_that_nobody_wakes(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    for timo in (0.001, 0.1, 1, 10):
        assert not await tsleep(started, "nap", timo)
    assert trio.current_time() - started == pytest.approx(11.101)


async def test_tsleep_of_real_threads_is_ended_by_wakeup() -> None:
    """Sleepers count themselves; the last one to be woken leaves the stage empty."""
    stage = [0]

    async def lie_down() -> bool:
        stage[0] += 1
        wakeup(stage)
        return await tsleep(stage, "stage", 60) and await tsleep(lie_down, "asleep", 60)

    def sleeper() -> bool:
        return blocking(lie_down)

    def waker() -> None:
        nonblocking(wakeup, stage)
        nonblocking(wakeup, lie_down)

    async with Kernel() as kernel:
        threads = [kthread_create_real(kernel, sleeper, name=f"sleeper {i}") for i in range(3)]
        while any(thread.is_alive for thread in threads):
            await kthread_create_real(kernel, waker, name="waker").join()
        assert [await thread.join() for thread in threads] == [True] * 3
        assert stage == [3]
