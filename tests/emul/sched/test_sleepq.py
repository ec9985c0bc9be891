"""tsleep and wakeup. (NetBSD's t_tsleep is in test_netbsd.py.)"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.sched import sleepers, tsleep, wakeup, wakeup_one


class Beds:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.up: list[tuple[str, object]] = []
        self.scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery

    async def sleep(
        self, name: str, ident: object, timo: float = 1000, catch: bool = False
    ) -> None:
        self.scopes[name] = trio.CancelScope()
        self._nursery.start_soon(self._sleeper, name, ident, timo, catch, name=name)
        await wait_all_tasks_blocked()

    async def _sleeper(self, name: str, ident: object, timo: float, catch: bool) -> None:
        with self.scopes[name]:
            self.up.append((name, await tsleep(ident, "bed", timo, catch=catch)))


async def test_wakeup_wakes_who_sleeps_on_the_same_thing() -> None:
    one, two = [1], [1]  # equal, not hashable, and not the same
    async with trio.open_nursery() as nursery:
        beds = Beds(nursery)
        for name in "abc":
            await beds.sleep(name, one)
        await beds.sleep("z", two, float("inf"))
        assert [(name, wmesg) for name, wmesg, _ in sleepers()] == [
            (name, "bed") for name in "abcz"
        ]
        assert sleepers()[3].ident is two
        wakeup_one(one)
        await wait_all_tasks_blocked()
        assert beds.up == [("a", True)]
        wakeup(one)
        await wait_all_tasks_blocked()
        assert sorted(beds.up) == [(name, True) for name in "abc"]
        wakeup(one)  # nobody there
        wakeup_one(one)
        wakeup_one(two)
        await wait_all_tasks_blocked()
        assert beds.up[3:] == [("z", True)]
    assert sleepers() == []


async def test_sleeps_again_after_a_wakeup() -> None:
    ident = object()
    async with trio.open_nursery() as nursery:
        beds = Beds(nursery)
        await beds.sleep("a", ident)
        wakeup(ident)
        await beds.sleep("b", ident)  # a new queue, while a was on its way out of the old one
        wakeup(ident)
        await wait_all_tasks_blocked()
        assert sorted(beds.up) == [("a", True), ("b", True)]


@pytest.mark.parametrize("timo", [1000, float("inf")])
async def test_interrupted_only_if_it_says_so(timo: float) -> None:
    ident = object()
    async with trio.open_nursery() as nursery:
        beds = Beds(nursery)
        await beds.sleep("deep", ident, timo)
        await beds.sleep("light", ident, timo, catch=True)
        beds.scopes["deep"].cancel()
        beds.scopes["light"].cancel()
        await wait_all_tasks_blocked()
        assert beds.up == []
        assert [sleeper.name for sleeper in sleepers()] == ["deep"]
        wakeup(ident)
        await wait_all_tasks_blocked()
        assert beds.up == [("deep", True)]


async def test_timed_out_and_the_others_sleep_on(autojump_clock: MockClock) -> None:
    ident = object()
    async with trio.open_nursery() as nursery:
        beds = Beds(nursery)
        await beds.sleep("a", ident, 2)
        await beds.sleep("b", ident, 9)
        await trio.sleep(5)
        assert beds.up == [("a", False)]
        assert [sleeper.name for sleeper in sleepers()] == ["b"]
        wakeup(ident)
        await wait_all_tasks_blocked()
        assert beds.up == [("a", False), ("b", True)]
