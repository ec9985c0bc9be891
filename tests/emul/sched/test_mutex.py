"""Mutexes: owners, order of arrival, and that a free one costs no trip to the scheduler."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.sched import Mutex

from ..caller import now
from .visitors import Steps, Visitors


def visitors(nursery: trio.Nursery, mutex: Mutex) -> Visitors:
    async def enter(_: str) -> None:
        await mutex.enter()

    return Visitors(nursery, enter, mutex.exit)


def test_a_free_mutex_does_not_yield() -> None:
    mutex = Mutex("m")
    assert not mutex.owned()
    now(mutex.enter())
    assert mutex.owned()
    assert mutex.is_locked
    assert not mutex.try_enter()
    mutex.exit()
    assert not mutex.is_locked
    assert mutex.try_enter()
    mutex.exit()

    async def block() -> None:
        async with mutex:
            assert mutex.owned()

    now(block())
    assert not mutex.is_locked


async def test_owner_is_a_task_not_everybody() -> None:
    mutex = Mutex("m")

    async def other() -> None:
        assert not mutex.owned()
        with pytest.raises(RuntimeError, match="does not own it"):
            mutex.exit()

    await mutex.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
    assert mutex.owned()
    assert "owner=" in repr(mutex)
    mutex.exit()


async def test_served_in_order_of_arrival() -> None:
    mutex = Mutex("m")
    async with trio.open_nursery() as nursery:
        guests = visitors(nursery, mutex)
        await guests.arrive("a", "b", "c", "d")
        assert "waiters=3" in repr(mutex)
        for name in "abcd":
            assert guests.inside == [name]
            await guests.leave(name)
    assert repr(mutex) == "<Mutex m free waiters=0>"


async def test_handed_over_and_not_up_for_grabs() -> None:
    mutex = Mutex("m")
    async with trio.open_nursery() as nursery:
        guests = visitors(nursery, mutex)
        await guests.arrive("a", "b")
        await mutex_exit_of(guests, "a")
        assert mutex.is_locked
        assert not mutex.try_enter()
        await wait_all_tasks_blocked()
        assert guests.inside == ["b"]
        await guests.leave("b")


async def mutex_exit_of(guests: Visitors, name: str) -> None:
    """Let one leave, and return before the next one has run."""
    guests._gates[name].set()
    while name in guests.inside:
        await trio.lowlevel.checkpoint()


async def test_cancelled_waiter_has_nothing() -> None:
    mutex = Mutex("m")
    async with trio.open_nursery() as nursery:
        guests = visitors(nursery, mutex)
        await guests.arrive("a", "b", "c")
        await guests.cancel("b")
        await guests.leave("a")
        assert guests.inside == ["c"]
        await guests.leave("c")
    assert mutex.try_enter()


async def test_cancelled_after_the_hand_over_owns_it() -> None:
    mutex = Mutex("m")
    scope = trio.CancelScope()
    owned = False

    async def waiter() -> None:
        nonlocal owned
        with scope:
            await mutex.enter()
            owned = mutex.owned()
            mutex.exit()

    await mutex.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter)
        await wait_all_tasks_blocked()
        mutex.exit()
        scope.cancel()  # too late
    assert owned
    assert not mutex.is_locked


async def test_one_wake_up_for_a_contended_mutex() -> None:
    mutex = Mutex("m")

    async def waiter() -> None:
        async with mutex:
            pass

    await mutex.enter()
    with Steps("waiter") as steps:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter, name="waiter")
            await wait_all_tasks_blocked()
            mutex.exit()
    assert steps.count == 2  # its start, and once more
