"""A sleep of the machine and a change of its network are heard of."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.layers.psshfs.recovery.roaming import Roaming

SECOND = 10**9


class Sleep:
    """The time that a machine has slept, ns."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self) -> int:
        return self.total


@pytest.mark.parametrize(("seconds", "is_told"), [(1, False), (3600, True)])
async def test_a_sleep_is_told(autojump_clock: MockClock, seconds: int, is_told: bool) -> None:
    """A second of it may be the two clocks' being read one after the other."""
    sleep = Sleep()
    with Roaming(slept=sleep) as roaming:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(roaming.run)
            changed = roaming.changed
            with trio.move_on_after(60) as scope:
                await changed.wait()
            assert scope.cancelled_caught, "awake all the time"
            sleep.total += seconds * SECOND
            with trio.move_on_after(60):
                await changed.wait()
            assert changed.is_set() == is_told
            assert roaming.changed.is_set() is False
            nursery.cancel_scope.cancel()


async def test_nothing_stays_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with Roaming() as roaming:
        opened = set(os.listdir("/proc/self/fd")) - before
        links = [f"/proc/self/fd/{fd}" for fd in opened]
        kinds = {os.readlink(path) for path in links if os.path.lexists(path)}
        assert "anon_inode:[timerfd]" in kinds, "who wakes up is not told at once"
        assert roaming.changed.is_set() is False
    assert set(os.listdir("/proc/self/fd")) == before


async def test_who_cannot_hear_any_more_does_not_try_again_and_again() -> None:
    with Roaming() as roaming:
        assert roaming._netlink is not None
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), roaming._netlink.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(roaming.run)
            with trio.fail_after(5):
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
