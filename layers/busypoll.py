"""Looking at a descriptor again and again for a short while, before anybody sleeps for it.

To sleep and be woken costs a trip through the scheduler of trio, and on an idle machine it costs
far more that the processor has gone to sleep, too: in a virtual machine it has to be asked for
again, which makes each hop between processes on the way several times as long (measured on two
idle cores: a page read through ssh took 205 us when all slept, 118 us when the mount stayed awake,
and all processes together used less of the processors).

That is good only where the answer comes soon and nobody else wants the processor. So each time in
a row that nothing came is followed by twice as many in which nobody looks, and seeing that somebody
else had our processor meanwhile counts as many.
"""

from __future__ import annotations

import os
import select
from time import monotonic
from typing import Final

_TAKEN_SECONDS: Final = 0.0002
"""Between two looks: the processor was given to somebody else."""
_SKIPS_MAX: Final = 256


class BusyPoll:
    """Looks for `seconds` at most whether `fd` can be read; the descriptor stays its owner's."""

    __slots__ = ("_misses", "_poll", "_seconds", "_skips")

    def __init__(self, fd: int, seconds: float) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._poll = poll.poll
        # With a processor of its own only: those who are to answer may need the one there is.
        self._seconds = seconds if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._misses = 1
        self._skips = 0

    def is_readable(self) -> bool:
        """Tell whether there is something to read, or an error; False also where looking for it
        has not been worth it of late."""
        if self._skips > 0:
            self._skips -= 1
            return False
        poll = self._poll
        now = monotonic()
        end = now + self._seconds
        while not poll(0):
            last, now = now, monotonic()
            if now - last > _TAKEN_SECONDS:
                self._skips = _SKIPS_MAX
                return False
            if now >= end:
                self._misses = min(2 * self._misses, _SKIPS_MAX)
                self._skips = self._misses
                return False
        self._misses = 1
        return True
