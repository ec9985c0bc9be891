"""Histogram: durations in classes, four to each doubling."""

from __future__ import annotations

from typing import Final

_SHIFT: Final = 2
_MASK: Final = (1 << _SHIFT) - 1


class Histogram:
    """Counts of durations (ns). Its answers are in the middle of a class: off by an eighth."""

    __slots__ = ("_classes", "count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.longest = 0
        self._classes: dict[int, int] = {}

    def add(self, duration: int) -> None:
        """Count one."""
        self.count += 1
        self.total += duration
        if duration > self.longest:
            self.longest = duration
        bits = duration.bit_length()
        at = duration if bits <= _SHIFT + 1 else bits << _SHIFT | duration >> bits - 3 & _MASK
        classes = self._classes
        classes[at] = classes.get(at, 0) + 1

    def percentile(self, share: float) -> int:
        """Return the duration that `share` (0 to 1) of all did not exceed; 0 without any."""
        wanted = share * self.count
        seen = 0
        for at in sorted(self._classes, key=_middle):
            seen += self._classes[at]
            if seen >= wanted:
                return min(_middle(at), self.longest)
        return 0


def _middle(at: int) -> int:
    """Return what a class stands for."""
    if at < 2 << _SHIFT:
        return at
    bits, part = at >> _SHIFT, at & _MASK
    width = 1 << bits - 3
    return (1 << bits - 1) + part * width + width // 2
