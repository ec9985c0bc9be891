"""Measuring a stack: meters on top of each of its file servers, as long as somebody looks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ...layers.meter import Figures, Meter
from ...layers.ops import FileServer
from ...native.records import Cookie
from .elements import elements
from .ends import End
from .joints import Joints

_PATHS_MAX: Final = 100


class Measuring:
    """The meters of one who looks. `measuring` makes it."""

    def __init__(self, end: End, meters: list[Meter]) -> None:
        self._end = end
        self._meters = meters
        self._since = time.monotonic()

    def take(self) -> dict[str, Any]:
        """Return what went by since the last call: times in ns, counts, paths asked about most.

        A layer's times are those of the layer with all that is below it.
        """
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        layers: list[dict[str, Any]] = []
        asked: dict[int, int] = {}
        names = [e.name for e in elements(self._end) if not isinstance(e.part, Meter)]
        number = 0
        for element in elements(self._end):
            if not isinstance(element.part, Meter):
                number += 1
            elif element.part in self._meters:
                figures = element.part.take()
                asked = asked or figures.nodes
                found = {"layer": number + 1, "name": names[number]}
                layers.append(found | {"operations": _operations(figures)})
        return {
            "seconds": seconds,
            "in_flight": len(self._end.requests()),
            "layers": layers,
            "paths": self._paths(asked),
        }

    def _paths(self, asked: dict[int, int]) -> list[dict[str, Any]]:
        busiest = sorted(asked.items(), key=lambda item: -item[1])[:_PATHS_MAX]
        return [
            {
                "path": (self._end.path(Cookie(cookie)) or b"#%d" % cookie).decode(
                    "utf-8", "backslashreplace"
                ),
                "count": count,
            }
            for cookie, count in busiest
        ]


def _operations(figures: Figures) -> dict[str, Any]:
    return {
        name: {
            "count": tally.times.count,
            "errors": tally.errors,
            "octets": tally.octets,
            "p50": tally.times.percentile(0.5),
            "p99": tally.times.percentile(0.99),
            "longest": tally.times.longest,
            "total": tally.times.total,
        }
        for name, tally in figures.tallies.items()
    }


@contextmanager
def measuring(end: End, joints: Joints) -> Iterator[Measuring]:
    """Have meters in the stack while the context lasts."""
    meters: list[Meter] = []
    try:
        for element in elements(end):
            part = element.part
            if isinstance(part, FileServer) and not isinstance(part, Meter):
                meter = Meter(part)
                joints.join(meter, part)
                meters.append(meter)
        yield Measuring(end, meters)
    finally:
        for meter in meters:
            joints.part(meter)
