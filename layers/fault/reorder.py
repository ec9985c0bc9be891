"""Holding something back until a number of others have gone by."""

from __future__ import annotations

from typing import Final

import trio

WAIT_MAX: Final = 5.0
"""How long to wait for others that never come, seconds."""


class Queue:
    """Those who let others go first."""

    def __init__(self) -> None:
        self._held: list[tuple[list[int], trio.Event]] = []

    def gone_by(self) -> None:
        """Hear that one more has gone by."""
        for left, event in self._held:
            left[0] -= 1
            if left[0] <= 0:
                event.set()

    async def after(self, count: int) -> None:
        """Wait until `count` others have gone by, at most WAIT_MAX."""
        held = ([count], trio.Event())
        self._held.append(held)
        try:
            with trio.move_on_after(WAIT_MAX):
                await held[1].wait()
        finally:
            self._held.remove(held)
