"""A bound on octets a second that several users share."""

from __future__ import annotations

from typing import Final

import trio

BURST_SECONDS: Final = 1.0
"""How long nobody need have taken anything for a burst of as many octets as that time allows."""


class Bucket:
    """Octets at `rate` a second, in the order in which they were asked for.

    What is taken is owed: the bucket is full again when as much time has passed as the octets
    need. So a piece may be larger than the bucket, and whoever comes next waits for it.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._full_at = float("-inf")

    async def take(self, count: int, *, is_done: bool = False) -> None:
        """Take `count` octets and wait until they may pass; at once while the bucket has some.

        Cancelled: they are given back, unless they have passed already (`is_done`).
        """
        now = trio.current_time()
        need = count / self.rate
        self._full_at = max(self._full_at, now) + need
        wait = self._full_at - now - BURST_SECONDS
        if wait <= 0:
            return
        try:
            await trio.sleep(wait)
        except trio.Cancelled:
            if not is_done:
                self._full_at -= need
            raise
