"""Tasks that come to a lock, stay in it until they are told to go, and tell who is inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio.testing import wait_all_tasks_blocked


class Visitors:
    """Each visitor takes the lock by `enter(name)` and leaves it by `leave()`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        enter: Callable[[str], Awaitable[object]],
        leave: Callable[[], object],
    ) -> None:
        self.inside: list[str] = []
        self._nursery = nursery
        self._enter = enter
        self._leave = leave
        self._scopes: dict[str, trio.CancelScope] = {}
        self._gates: dict[str, trio.Event] = {}

    async def arrive(self, *names: str) -> None:
        """Let them come one after the other."""
        for name in names:
            self._scopes[name] = trio.CancelScope()
            self._gates[name] = trio.Event()
            self._nursery.start_soon(self._visit, name)
            await wait_all_tasks_blocked()

    async def leave(self, *names: str) -> None:
        for name in names:
            self._gates[name].set()
        await wait_all_tasks_blocked()

    async def cancel(self, name: str) -> None:
        self._scopes[name].cancel()
        await wait_all_tasks_blocked()

    async def _visit(self, name: str) -> None:
        with self._scopes[name]:
            await self._enter(name)
            self.inside.append(name)
            try:
                await self._gates[name].wait()
            finally:
                self.inside.remove(name)
                self._leave()


class Steps(trio.abc.Instrument):
    """Counts how often tasks of a name were given the processor."""

    def __init__(self, name: str) -> None:
        self.count = 0
        self._name = name

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == self._name:
            self.count += 1

    def __enter__(self) -> Steps:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)
