"""Workqueues: order, bounds, waiting for work, and their end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.sched import Workqueue

from ..caller import now


class Works:
    """Work that waits until it may go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.gates: dict[str, trio.Event] = {}

    async def do(self, work: str) -> None:
        self.begun.append(work)
        gate = self.gates[work] = trio.Event()
        await gate.wait()
        self.done.append(work)

    async def finish(self, *works: str) -> None:
        for work in works:
            self.gates[work].set()
            await wait_all_tasks_blocked()


async def test_in_order_by_so_many_threads() -> None:
    works = Works()
    async with Kernel() as kernel:
        queue = Workqueue(kernel, "wq", works.do, threads=2, bound=10)
        for work in "abcd":
            now(queue.enqueue(work))
        await wait_all_tasks_blocked()
        assert works.begun == ["a", "b"]
        assert queue.statistics() == (2, 2, 0)
        assert repr(queue) == "<Workqueue wq queued=2 running=2>"
        await works.finish("b")
        assert works.begun == ["a", "b", "c"]
        await works.finish("a", "c", "d")
        assert works.done == ["b", "a", "c", "d"]
        assert queue.statistics() == (0, 0, 4)
        queue.enqueue_nowait("e")  # an idle thread wakes up
        await wait_all_tasks_blocked()
        assert works.begun[-1] == "e"
        await works.finish("e")


async def test_bound() -> None:
    works = Works()
    async with Kernel() as kernel:
        queue = Workqueue(kernel, "wq", works.do, bound=2)
        queue.enqueue_nowait("a")
        await wait_all_tasks_blocked()
        for work in "bc":
            queue.enqueue_nowait(work)
        with pytest.raises(trio.WouldBlock):
            queue.enqueue_nowait("d")
        with trio.CancelScope() as scope:
            kernel.nursery.start_soon(queue.enqueue, "d")
            await wait_all_tasks_blocked()
            scope.cancel()
            await queue.enqueue("e")  # cancelled while it waits: has not been enqueued
        await works.finish("a", "b", "c", "d")
        assert works.done == ["a", "b", "c", "d"]


async def test_not_twice_in_the_queue() -> None:
    works = Works()
    async with Kernel() as kernel:
        queue = Workqueue(kernel, "wq", works.do, bound=2)
        queue.enqueue_nowait("a")
        with pytest.raises(RuntimeError, match="already"):
            queue.enqueue_nowait("a")
        with pytest.raises(RuntimeError, match="already"):
            await queue.enqueue("a")
        await wait_all_tasks_blocked()
        queue.enqueue_nowait("a")  # the first one has left the queue
        await works.finish("a")
        await works.finish("a")
        assert works.done == ["a", "a"]


async def test_wait() -> None:
    works = Works()
    waited: list[str] = []

    async def wait(work: str) -> None:
        await queue.wait(work)
        waited.append(work)

    async with Kernel() as kernel:
        queue = Workqueue(kernel, "wq", works.do, bound=2)
        now(queue.wait("a"))
        for work in "ab":
            queue.enqueue_nowait(work)
            kernel.nursery.start_soon(wait, work)
        await wait_all_tasks_blocked()
        assert waited == []
        await works.finish("a")
        assert waited == ["a"]
        await works.finish("b")
        assert waited == ["a", "b"]
        now(queue.wait("b"))


async def test_destroy_does_what_is_left() -> None:
    works = Works()
    async with Kernel() as kernel:
        queue = Workqueue(kernel, "wq", works.do, bound=1)
        await queue.enqueue("a")
        await wait_all_tasks_blocked()
        await queue.enqueue("b")

        async def too_late() -> None:
            with pytest.raises(RuntimeError, match="destroyed"):
                await queue.enqueue("c")

        kernel.nursery.start_soon(too_late)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.destroy)
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="destroyed"):
                queue.enqueue_nowait("d")
            await works.finish("a", "b")
        assert works.done == ["a", "b"]
        now(queue.destroy())


async def test_cancelled_destroy_still_destroys() -> None:
    works = Works()
    async with Kernel() as kernel:
        queue = Workqueue(kernel, "wq", works.do, bound=1)
        await queue.enqueue("a")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await queue.destroy()
        await wait_all_tasks_blocked()
        assert queue.statistics() == (0, 0, 0)


async def test_what_work_raises_ends_the_kernel() -> None:
    async def fail(work: str) -> None:
        raise ValueError(work)

    async def run() -> None:
        async with Kernel() as kernel:
            await Workqueue(kernel, "wq", fail, bound=1).enqueue("a")
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ValueError)


async def test_work_that_never_waits_lets_others_run() -> None:
    done: list[int] = []

    async def quick(work: int) -> None:
        done.append(work)

    async with Kernel() as kernel:
        queue = Workqueue(kernel, "wq", quick, bound=1000)
        for work in range(1000):
            queue.enqueue_nowait(work)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert 0 < len(done) < 1000
        await queue.wait(999)
        assert done == list(range(1000))
