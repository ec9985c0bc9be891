"""Holding something back until a number of others have gone by."""

from __future__ import annotations

from typing import Final

import trio

WAIT_MAX: Final = 5.0
"""How long to wait for others that never come, seconds."""


class Held:
    """One that lets others go first."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.free = trio.Event()


class Queue:
    """Those who let others go first."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def __bool__(self) -> bool:
        """Whether anyone waits."""
        return bool(self._held)

    def gone_by(self) -> None:
        """Hear that one more has gone by."""
        for held in self._held:
            held.left -= 1
            if held.left <= 0:
                held.free.set()

    def hold(self, count: int) -> Held:
        """Return one that lets `count` go first from now on; it has to be waited for."""
        held = Held(count)
        self._held.append(held)
        return held

    async def wait(self, held: Held) -> None:
        """Wait until all have gone by, at most WAIT_MAX."""
        try:
            with trio.move_on_after(WAIT_MAX):
                await held.free.wait()
        finally:
            self._held.remove(held)
