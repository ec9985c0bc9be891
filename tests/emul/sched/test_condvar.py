"""Condition variables: the mutex is owned on every way out, and no signal is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.sched import Condvar, Mutex

from .visitors import Steps


class Place:
    """A mutex and a condition variable, and sleepers that say how they woke up."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.mutex = Mutex("m")
        self.cv = Condvar("cv")
        self.woken: list[tuple[str, object]] = []
        self.scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery

    async def sleep(self, *names: str, how: str = "wait", seconds: float | None = None) -> None:
        """Put sleepers to sleep, one after the other."""
        for name in names:
            self.scopes[name] = trio.CancelScope()
            self._nursery.start_soon(self._sleeper, name, how, seconds, name=name)
            await wait_all_tasks_blocked()

    async def _sleeper(self, name: str, how: str, seconds: float | None) -> None:
        with self.scopes[name]:
            async with self.mutex:
                method = getattr(self.cv, how)
                try:
                    arguments = () if seconds is None else (seconds,)
                    self.woken.append((name, await method(self.mutex, *arguments)))
                except trio.Cancelled:
                    self.woken.append((name, "cancelled"))
                    raise
                finally:
                    assert self.mutex.owned()

    async def do(self, action: Callable[[], None]) -> None:
        async with self.mutex:
            action()
        await wait_all_tasks_blocked()


async def test_signal_wakes_the_oldest_and_broadcast_all() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a", "b", "c", "d")
        assert not place.mutex.is_locked
        assert place.cv.has_waiters()
        assert repr(place.cv) == "<Condvar cv sleepers=4>"
        await place.do(place.cv.signal)
        assert place.woken == [("a", None)]
        await place.do(place.cv.broadcast)
        assert place.woken == [(name, None) for name in "abcd"]
        assert not place.cv.has_waiters()
        await place.do(place.cv.signal)  # nobody there: nothing is kept for who comes later
        await place.sleep("e")
        assert len(place.woken) == 4
        await place.do(place.cv.signal)


async def test_one_wake_up_even_when_the_mutex_is_owned() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        with Steps("a") as steps:
            await place.sleep("a")
            await place.mutex.enter()
            place.cv.signal()
            await wait_all_tasks_blocked()
            assert place.woken == []
            place.mutex.exit()
            await wait_all_tasks_blocked()
        assert steps.count == 2  # its start, and once more
        assert place.woken == [("a", None)]


async def test_signalled_without_the_mutex() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a")
        place.cv.signal()
        assert place.mutex.is_locked  # it is the sleeper's already
        await wait_all_tasks_blocked()
        assert place.woken == [("a", None)]


async def test_signalled_sleepers_get_in_line_with_the_others() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a", "b")
        order: list[str] = []

        async def visit(name: str) -> None:
            async with place.mutex:
                order.append(name + str(len(place.woken)))

        await place.mutex.enter()
        for name in ("x", "y"):
            nursery.start_soon(visit, name)
            await wait_all_tasks_blocked()
            place.cv.signal()
        place.mutex.exit()
        await wait_all_tasks_blocked()
        assert order == ["x0", "y1"]
        assert place.woken == [("a", None), ("b", None)]


async def test_only_for_the_owner_of_the_mutex() -> None:
    with pytest.raises(RuntimeError, match="does not own it"):
        await Condvar("cv").wait(Mutex("m"))


@pytest.mark.parametrize("how", ["wait", "timedwait"])
async def test_not_interrupted(how: str) -> None:
    seconds = 1000.0 if how == "timedwait" else None
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a", how=how, seconds=seconds)
        place.scopes["a"].cancel()
        await wait_all_tasks_blocked()
        assert place.woken == []
        await place.do(place.cv.signal)
        assert place.woken == [("a", None if seconds is None else True)]


@pytest.mark.parametrize("how", ["wait_sig", "timedwait_sig"])
async def test_interrupted(how: str) -> None:
    seconds = 1000.0 if how == "timedwait_sig" else None
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a", "b", how=how, seconds=seconds)
        place.scopes["a"].cancel()
        await wait_all_tasks_blocked()
        assert place.woken == [("a", "cancelled")]
        await place.do(place.cv.signal)
        assert place.woken[1:] == [("b", None if seconds is None else True)]


async def test_interrupted_it_waits_for_the_mutex_all_the_same() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a", how="wait_sig")
        await place.mutex.enter()
        place.scopes["a"].cancel()
        await wait_all_tasks_blocked()
        assert place.woken == []
        assert not place.cv.has_waiters()
        place.mutex.exit()
        await wait_all_tasks_blocked()
        assert place.woken == [("a", "cancelled")]
        assert not place.mutex.is_locked


async def test_a_signal_is_not_lost_to_who_is_cancelled_after_it() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a", how="wait_sig")
        await place.mutex.enter()
        place.cv.signal()
        place.scopes["a"].cancel()
        place.mutex.exit()
        await wait_all_tasks_blocked()
        assert place.woken == [("a", None)]


@pytest.mark.parametrize("how", ["timedwait", "timedwait_sig"])
async def test_timed_out(how: str, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        started = trio.current_time()
        await place.sleep("a", how=how, seconds=3)
        await trio.sleep(4)
        assert place.woken == [("a", False)]
        assert not place.cv.has_waiters()
        await place.sleep("b", how=how, seconds=3)
        await place.do(place.cv.signal)
        assert place.woken[1:] == [("b", True)]
        assert trio.current_time() == started + 4


async def test_timed_out_it_waits_for_the_mutex_all_the_same(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        await place.sleep("a", how="timedwait", seconds=3)
        async with place.mutex:
            await trio.sleep(5)
            assert place.woken == []
        await wait_all_tasks_blocked()
        assert place.woken == [("a", False)]


async def test_bounded_buffer() -> None:
    mutex, not_empty, not_full = Mutex("buffer"), Condvar("not empty"), Condvar("not full")
    buffer: deque[int] = deque()
    got: list[int] = []

    async def produce(start: int) -> None:
        for i in range(start, start + 50):
            async with mutex:
                while len(buffer) == 3:
                    await not_full.wait(mutex)
                buffer.append(i)
                not_empty.signal()

    async def consume() -> None:
        for _ in range(50):
            async with mutex:
                while not buffer:
                    await not_empty.wait(mutex)
                got.append(buffer.popleft())
                not_full.signal()

    async with trio.open_nursery() as nursery:
        for i in range(4):
            nursery.start_soon(produce, 50 * i)
            nursery.start_soon(consume)
    assert sorted(got) == list(range(200))
