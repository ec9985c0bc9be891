"""Kernel threads of both kinds: results, failures, being stopped, and the end of the kernel."""

from __future__ import annotations

import threading
from errno import EIO

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.sched import (
    Kthread,
    Lwp,
    blocking,
    curlwp,
    kthread,
    kthread_create,
    kthread_create_real,
    lwp0,
    nonblocking,
)
from syspuffs.native.errors import VfsError

from ...support.logs import LogWatch
from ..caller import fails, now


async def wait_for(*values: object) -> tuple[object, ...]:
    """Return what it was given, a step of the scheduler later."""
    await trio.lowlevel.checkpoint()
    return values


def test_without_a_scheduler_it_is_lwp0() -> None:
    assert curlwp() is lwp0
    assert repr(lwp0) == "<lwp0>"


async def test_a_task_is_an_lwp() -> None:
    assert curlwp() is trio.lowlevel.current_task()


async def test_result_of_a_task() -> None:
    async with Kernel() as kernel:
        thread = kthread_create(kernel, wait_for, 1, 2, name="worker")
        assert thread.is_alive
        assert repr(thread) == "<Kthread worker task>"
        assert await thread.join() == (1, 2)
        assert not thread.is_alive
        assert repr(thread) == "<Kthread worker task ended>"
        assert now(thread.join()) == (1, 2)  # again, and without waiting
        assert thread.statistics().calls == 0


async def test_result_of_a_real_thread() -> None:
    def work(value: int) -> tuple[object, ...]:
        assert threading.current_thread().name == "worker"
        return blocking(wait_for, value, threading.get_ident())

    async with Kernel() as kernel:
        thread = kthread_create_real(kernel, work, 1, name="worker")
        assert repr(thread) == "<Kthread worker thread>"
        value, ident = await thread.join()
        assert value == 1
        assert ident != threading.get_ident()
        assert now(thread.join()) == (value, ident)
        assert thread.statistics().calls == 1
        assert not thread.is_alive


async def test_a_real_thread_is_one_lwp_in_all_its_calls() -> None:
    async def waited() -> Lwp:
        await trio.lowlevel.checkpoint()
        return curlwp()

    def work() -> set[Lwp]:
        assert curlwp() is lwp0  # out here it is nobody
        return {nonblocking(curlwp), blocking(waited), blocking(waited, shield=True)}

    async with Kernel() as kernel:
        one = await kthread_create_real(kernel, work, name="one").join()
        two = await kthread_create_real(kernel, work, name="two").join()
    assert len(one) == len(two) == 1
    assert not one & two
    assert {lwp.name for lwp in one} == {"one"}


async def test_as_many_real_threads_as_are_asked_for() -> None:
    many = 45  # trio's own limit is 40
    barrier = threading.Barrier(many)
    async with Kernel() as kernel:
        threads = [kthread_create_real(kernel, barrier.wait, name=str(i)) for i in range(many)]
        assert sorted([await thread.join() for thread in threads]) == list(range(many))


class Trouble(Exception):
    pass


def _fail_now() -> None:
    raise Trouble


async def _fail() -> None:
    await trio.lowlevel.checkpoint()
    raise Trouble


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_failure_ends_the_kernel(kind: str) -> None:
    async def run() -> None:
        async with Kernel() as kernel:
            if kind == "task":
                kthread_create(kernel, _fail, name="failing")
            else:
                kthread_create_real(kernel, _fail_now, name="failing")
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(Trouble)


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_a_failure_waits_for_who_must_join(kind: str) -> None:
    async with Kernel() as kernel:
        if kind == "task":
            thread = kthread_create(kernel, _fail, name="failing", mustjoin=True)
        else:
            thread = kthread_create_real(kernel, _fail_now, name="failing", mustjoin=True)
        for _ in range(2):
            with pytest.raises(Trouble):
                await thread.join()
        assert not thread.is_alive


async def test_nobody_joins_itself() -> None:
    thread: Kthread

    async def narcissus() -> None:
        await thread.join()

    def real_narcissus() -> None:
        blocking(thread.join)

    async with Kernel() as kernel:
        thread = kthread_create(kernel, narcissus, name="narcissus", mustjoin=True)
        with pytest.raises(RuntimeError, match="its own end"):
            await thread.join()
        thread = kthread_create_real(kernel, real_narcissus, name="narcissus", mustjoin=True)
        with pytest.raises(RuntimeError, match="its own end"):
            await thread.join()


async def test_errors_pass_through_blocking() -> None:
    async def broken() -> None:
        raise VfsError(EIO, "no such luck")

    def work() -> int:
        with fails(EIO):
            blocking(broken)
        with pytest.raises(Trouble):
            nonblocking(_fail_now)
        with pytest.raises(TypeError, match="may wait"):
            _ = nonblocking(broken)
        return 1

    async with Kernel() as kernel:
        assert await kthread_create_real(kernel, work, name="worker").join() == 1


async def test_blocking_is_for_real_threads_of_a_kernel() -> None:
    with pytest.raises(RuntimeError, match="no real thread"):
        blocking(trio.lowlevel.checkpoint)
    with pytest.raises(RuntimeError, match="no real thread"):
        await trio.to_thread.run_sync(nonblocking, curlwp)


async def test_stop_cancels_a_task_where_it_waits() -> None:
    got: list[str] = []

    async def waiter() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            got.append("cancelled")
            raise

    async with Kernel() as kernel:
        thread = kthread_create(kernel, waiter, name="waiter")
        await wait_all_tasks_blocked()
        thread.stop()
        assert await thread.join() is None
        assert got == ["cancelled"]
        thread.stop()  # late: nothing happens
        early = kthread_create(kernel, waiter, name="waiter")
        early.stop()
        assert await early.join() is None


class Recorder:
    """A real thread that waits in the kernel or outside of it, and says what it gets."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.gate = threading.Event()
        self.got: list[str] = []

    def inside(self) -> None:
        try:
            blocking(self._wait)
        except trio.Cancelled:
            self.got.append("cancelled")
            self._clean_up()
            raise

    def outside(self) -> None:
        nonblocking(self.ready.set)
        self.gate.wait()
        try:
            blocking(self.note, "never begun")
        except trio.Cancelled:
            self.got.append("cancelled")
            self._clean_up()
            raise

    def _clean_up(self) -> None:
        with pytest.raises(trio.Cancelled):
            blocking(self.note, "never begun")
        nonblocking(self.got.append, "nonblocking")
        blocking(self.note, "shielded", shield=True)

    async def _wait(self) -> None:
        self.ready.set()
        await trio.sleep_forever()

    async def note(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        self.got.append(what)


async def test_stop_cancels_a_real_thread_where_it_waits() -> None:
    recorder = Recorder()
    async with Kernel() as kernel:
        thread = kthread_create_real(kernel, recorder.inside, name="thread")
        await recorder.ready.wait()
        thread.stop()
        assert await thread.join() is None
    assert recorder.got == ["cancelled", "nonblocking", "shielded"]


async def test_stop_cancels_the_next_call_of_a_real_thread() -> None:
    recorder = Recorder()
    async with Kernel() as kernel:
        thread = kthread_create_real(kernel, recorder.outside, name="thread")
        await recorder.ready.wait()
        thread.stop()
        await wait_all_tasks_blocked()
        assert thread.is_alive
        recorder.gate.set()
        assert await thread.join() is None
    assert recorder.got == ["cancelled", "nonblocking", "shielded"]


async def test_stopped_before_it_began() -> None:
    async with Kernel() as kernel:
        thread = kthread_create_real(kernel, _fail_now, name="thread")
        thread.stop()
        assert await thread.join() is None


async def test_what_a_stopped_thread_returns_counts() -> None:
    def obstinate() -> str:
        try:
            blocking(trio.sleep_forever)
        except trio.Cancelled:
            return "well then"
        raise AssertionError

    async with Kernel() as kernel:
        thread = kthread_create_real(kernel, obstinate, name="thread")
        await wait_all_tasks_blocked()
        thread.stop()
        assert await thread.join() == "well then"


async def test_the_end_of_the_kernel_cancels_real_threads_and_waits() -> None:
    inside, outside = Recorder(), Recorder()
    async with Kernel() as kernel:
        threads = [
            kthread_create_real(kernel, inside.inside, name="inside"),
            kthread_create_real(kernel, outside.outside, name="outside"),
        ]
        await inside.ready.wait()
        await outside.ready.wait()
        threading.Timer(0.01, outside.gate.set).start()
    assert inside.got == outside.got == ["cancelled", "nonblocking", "shielded"]
    assert not any(thread.is_alive for thread in threads)
    assert [await thread.join() for thread in threads] == [None, None]


@pytest.mark.parametrize("calls", [True, False])
async def test_the_end_of_the_kernel_waits_with_a_bound(
    calls: bool, monkeypatch: pytest.MonkeyPatch, log_watch: LogWatch
) -> None:
    monkeypatch.setattr(kthread, "KTHREAD_GRACE", 0.01)
    log_watch.expect("sleepyhead does not end; it goes on without its kernel")
    ready = trio.Event()
    gate = threading.Event()
    late = threading.Event()

    def sleepyhead() -> None:
        nonblocking(ready.set)
        gate.wait()
        if calls:
            with pytest.raises(RuntimeError, match="has gone"):
                nonblocking(curlwp)
        late.set()

    async with Kernel() as kernel:
        thread = kthread_create_real(kernel, sleepyhead, name="sleepyhead")
        await ready.wait()
    assert not thread.is_alive
    gate.set()
    await trio.to_thread.run_sync(late.wait)


def test_a_thread_that_outlives_even_the_scheduler(
    monkeypatch: pytest.MonkeyPatch, log_watch: LogWatch
) -> None:
    monkeypatch.setattr(kthread, "KTHREAD_GRACE", 0.01)
    log_watch.expect("sleepyhead does not end")
    gate = threading.Event()
    late = threading.Event()

    def sleepyhead(ready: trio.Event) -> None:
        nonblocking(ready.set)
        gate.wait()
        with pytest.raises(RuntimeError, match="has gone"):
            blocking(trio.lowlevel.checkpoint)
        late.set()

    async def main() -> None:
        ready = trio.Event()
        async with Kernel() as kernel:
            kthread_create_real(kernel, sleepyhead, ready, name="sleepyhead")
            await ready.wait()

    trio.run(main)
    gate.set()
    assert late.wait(5)
