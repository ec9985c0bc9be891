"""Callouts: when they fire, and that they do not when they were stopped."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.sched import Callout, Workqueue

from ..caller import now
from .visitors import Steps


class Log:
    """What fired, and how many seconds after the beginning."""

    def __init__(self) -> None:
        self.start = trio.current_time()
        self.lines: list[tuple[object, float]] = []

    def __call__(self, what: object) -> None:
        self.lines.append((what, trio.current_time() - self.start))


async def test_fires_once_when_it_is_due(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        log = Log()
        callouts = {name: Callout(kernel, log, name) for name in "abc"}
        callouts["a"].schedule(5)
        callouts["b"].schedule(2)  # earlier than what the thread sleeps for
        callouts["c"].schedule(5)
        assert callouts["a"].is_pending
        assert kernel.callouts.statistics() == (3, 0)
        await trio.sleep(100)
        assert log.lines == [("b", 2), ("a", 5), ("c", 5)]
        assert not callouts["a"].is_pending
        assert kernel.callouts.statistics() == (0, 3)
        callouts["a"].schedule(0)
        await wait_all_tasks_blocked()
        assert log.lines[3:] == [("a", 100)]


async def test_rescheduled_earlier_and_later(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        log = Log()
        callout = Callout(kernel, log, "a")
        callout.schedule(10)
        callout.schedule(20)
        await trio.sleep(15)
        assert log.lines == []
        callout.schedule(30)
        callout.schedule(1)
        callout.reset(2, log, "b")
        await trio.sleep(100)
        assert log.lines == [("b", 17)]


async def test_stopped(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        log = Log()
        callout = Callout(kernel, log, "a")
        assert not callout.stop()  # never scheduled
        callout.schedule(10)
        assert not callout.stop()
        await trio.sleep(20)
        assert log.lines == []
        callout.schedule(10)
        await trio.sleep(20)
        assert log.lines == [("a", 30)]
        assert callout.stop()  # has fired since it was scheduled
        assert not callout.stop()
        callout.schedule(10)
        assert not now(callout.halt())
        callout.schedule(1)
        await trio.sleep(20)
        assert now(callout.halt())


async def test_function_that_schedules_and_stops(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        log = Log()

        def tick() -> None:
            log("tick")
            other.stop()  # due at the same moment, after us
            if len(log.lines) < 3:
                callout.schedule(0 if len(log.lines) == 1 else 2)

        callout = Callout(kernel, tick)
        other = Callout(kernel, log, "other")
        callout.schedule(1)
        other.schedule(1)
        await trio.sleep(100)
        assert log.lines == [("tick", 1), ("tick", 1), ("tick", 3)]
        assert not other.stop()


async def test_the_thread_wakes_up_for_nothing_else(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        with Steps("softclock") as steps:
            callouts = [Callout(kernel, int) for _ in range(100)]
            for seconds in (9, 8, 7):
                for callout in callouts:
                    callout.schedule(seconds)
            callouts[0].schedule(8)
            await trio.sleep(50)
        # Its start, 100 at 7 s (at once), one at 8 s.
        assert steps.count == 3


async def test_what_the_function_raises_ends_the_kernel() -> None:
    async def run() -> None:
        async with Kernel() as kernel:
            Callout(kernel, int, "x").schedule(0)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ValueError)


async def test_none_fires_after_the_kernel(autojump_clock: MockClock) -> None:
    log = Log()
    async with Kernel() as kernel:
        callout = Callout(kernel, log, "a")
        callout.schedule(10)
    await trio.sleep(20)
    callout.schedule(1)
    await trio.sleep(20)
    assert log.lines == []


async def test_what_waits_goes_to_a_workqueue(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        log = Log()

        async def work(name: str) -> None:
            log(f"{name} begins")
            await trio.sleep(10)
            log(f"{name} ends")

        queue = Workqueue(kernel, "callouts", Callout.work, bound=1)
        a, b, c = (Callout(kernel, work, name, workqueue=queue) for name in "abc")
        for callout in (a, b, c):
            callout.schedule(1)
        await trio.sleep(5)
        assert log.lines == [("a begins", 1)]
        assert a.stop()
        b.schedule(1)  # comes due again while it waits for its turn
        assert not await a.halt()
        assert log.lines[:2] == [("a begins", 1), ("a ends", 11)]
        await trio.sleep(100)
        assert log.lines == [
            ("a begins", 1),
            ("a ends", 11),
            ("b begins", 11),
            ("b ends", 21),
            ("c begins", 21),
            ("c ends", 31),
        ]


@pytest.mark.parametrize(("seconds", "begins", "end"), [(2, [1, 13, 25], 36), (0, [1, 12, 23], 34)])
async def test_halt_of_one_that_schedules_itself(
    seconds: float, begins: list[float], end: float, autojump_clock: MockClock
) -> None:
    async with Kernel() as kernel:
        log = Log()

        async def work() -> None:
            log("work")
            await trio.sleep(10)
            callout.schedule(seconds)  # 0: it is in the queue again before it has ended
            await trio.sleep(1)

        queue = Workqueue(kernel, "callouts", Callout.work, bound=1)
        callout = Callout(kernel, work, workqueue=queue)
        callout.schedule(1)
        await trio.sleep(30)
        await callout.halt()
        assert trio.current_time() - log.start == end
        await trio.sleep(100)
        assert log.lines == [("work", time) for time in begins]


async def test_stopped_ones_do_not_fill_the_heap(autojump_clock: MockClock) -> None:
    async with Kernel() as kernel:
        log = Log()
        for round in range(100):
            callouts = [Callout(kernel, log, (round, i)) for i in range(10)]
            for seconds in (3000, 2000):
                for callout in callouts:
                    callout.schedule(seconds)
            callouts[1].schedule(2500)
            for callout in callouts[2:]:
                callout.stop()
        assert kernel.callouts.statistics().pending == 200
        assert len(kernel.callouts._heap) <= 2 * 200 + 64 + 20
        await trio.sleep(4000)
        expected = [((i, j), when) for i in range(100) for j, when in ((0, 2000), (1, 2500))]
        assert set(log.lines) == set(expected)
        assert len(log.lines) == 200


async def test_against_a_model(autojump_clock: MockClock) -> None:
    rng = random.Random(3)
    async with Kernel() as kernel:
        log = Log()
        callouts = [Callout(kernel, log, i) for i in range(20)]
        expected: list[tuple[object, float]] = []
        due: dict[int, int] = {}
        await trio.sleep(0.5)  # what is due in a second has fired by then
        for second in range(1000):
            expected += sorted((i, float(when)) for i, when in due.items() if when == second)
            due = {i: when for i, when in due.items() if when > second}
            for i in rng.sample(range(20), 3):
                if rng.random() < 0.4:
                    callouts[i].stop()
                    due.pop(i, None)
                else:
                    seconds = rng.randrange(1, 60)
                    callouts[i].schedule(seconds - 0.5)
                    due[i] = second + seconds
            assert kernel.callouts.statistics().pending == len(due)
            assert len(kernel.callouts._heap) <= 2 * 20 + 64 + 20
            await trio.sleep(1)
        assert len(expected) > 150
        fired = sorted(log.lines, key=lambda line: (line[1], line[0]))
        assert fired[: len(expected)] == expected
