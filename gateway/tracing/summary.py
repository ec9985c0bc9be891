"""What a trace comes to: counts, times and orders, for a report. One pass, bounded memory.

Time is cut into BINS pieces; of durations a bounded sample is kept for each operation, which is
the same for the same trace.
"""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2
from random import Random
from typing import Final

from ...layers.trace import Event

BINS: Final = 240
_SAMPLE: Final = 20_000
_FILES_MAX: Final = 100_000
"""Files of which it is remembered where the last transfer ended."""


class Sample:
    """Durations of one operation, ns: all of them, or a fair choice (Vitter's algorithm R)."""

    def __init__(self, seed: str) -> None:
        self.count = 0
        self.total = 0
        self.values: list[int] = []
        self._random = Random(seed)

    def add(self, value: int) -> None:
        """Count one more."""
        self.count += 1
        self.total += value
        if len(self.values) < _SAMPLE:
            self.values.append(value)
        elif (at := self._random.randrange(self.count)) < _SAMPLE:
            self.values[at] = value

    def percentile(self, percent: float) -> int:
        """Return what so many of a hundred do not exceed."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def histogram(self) -> list[tuple[float, float]]:
        """Return (middle, ns; share of all) of classes, two for each doubling, without gaps."""
        classes = Counter(round(2 * log2(max(value, 1))) for value in self.values)
        first, last = min(classes) - 1, max(classes) + 1
        total = len(self.values)
        return [(2 ** (at / 2), classes[at] / total) for at in range(first, last + 1)]


@dataclass
class Summary:
    """One layer's part of a trace. `begin` and `end` are ns, as `Event.start`; bins are by time."""

    title: str
    begin: int
    end: int
    durations: dict[str, Sample] = field(default_factory=dict)
    operations: dict[str, list[int]] = field(default_factory=dict)
    octets: dict[str, list[int]] = field(default_factory=dict)
    in_flight: list[int] = field(default_factory=lambda: [0] * BINS)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    paths: Counter[bytes] = field(default_factory=Counter)
    orders: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: list[Event] = field(default_factory=list)

    def bin(self, time: int) -> int:
        """Return the piece of time in which `time` lies."""
        return min(BINS - 1, (time - self.begin) * BINS // max(1, self.end - self.begin))


def summarized(events: Sequence[Event]) -> list[Summary]:
    """Return a summary for each layer, by its number."""
    found: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        found[event.layer].append(event)
    if not found:
        return []
    begin = min(event.start for event in events)
    end = max(event.start + event.duration for event in events)
    return [_summary(found[layer], begin, end) for layer in sorted(found)]


def _summary(events: list[Event], begin: int, end: int) -> Summary:
    first = events[0]
    summary = Summary(f"{first.layer}: {first.info.typename}", begin, end)
    ends: dict[tuple[str, int], int] = {}
    turns: list[tuple[int, int]] = []
    for event in sorted(events, key=lambda event: event.start):
        name, at = event.name, summary.bin(event.start)
        if name not in summary.durations:
            summary.durations[name] = Sample(name)
            summary.operations[name] = [0] * BINS
        summary.durations[name].add(event.duration)
        summary.operations[name][at] += 1
        turns += ((event.start, 1), (event.start + event.duration, -1))
        if event.path:
            summary.paths[event.path] += 1
        if event.outcome > 0:
            code = errno.errorcode.get(event.outcome, str(event.outcome))
            summary.errors[name, code] += 1
        if event.octets:
            summary.octets.setdefault(name, [0] * BINS)[at] += event.octets
            _ordered(summary, event, ends)
    _flights(summary, turns)
    summary.slowest = sorted(events, key=lambda event: -event.duration)[:20]
    return summary


def _ordered(summary: Summary, event: Event, ends: dict[tuple[str, int], int]) -> None:
    """Note whether a transfer goes on where the last one of its kind ended in the file."""
    cookie, offset = event.args[0], event.args[1]
    last = ends.get((event.name, cookie), 0)
    kind = "sequential" if offset == last else "random"
    summary.orders[event.name][kind] += 1
    if len(ends) < _FILES_MAX or (event.name, cookie) in ends:
        ends[event.name, cookie] = offset + event.octets


def _flights(summary: Summary, turns: list[tuple[int, int]]) -> None:
    """Find the most operations under way at any moment of each piece of time."""
    now, last = 0, 0
    for time, change in sorted(turns):
        at = summary.bin(time)
        for between in range(last + 1, at + 1):
            summary.in_flight[between] = now
        now += change
        last = at
        summary.in_flight[at] = max(summary.in_flight[at], now)
