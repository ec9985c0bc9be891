"""A trace in the form that chrome://tracing and ui.perfetto.dev show.

Complete events ("ph": "X"), microseconds; a layer is a process, and operations that ran at the
same time are on threads of their own, as many as there were at most. Flows ("s", "f") go from a
request to what was done for it in a layer below.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from typing import Any, Final, TextIO

from ...layers.trace import Event
from .text import outcome

_PATH_MAX: Final = 512
"""Octets of a path that are shown."""


def write_chrome(events: Iterable[Event], out: TextIO) -> int:
    """Write `events` as Trace Event Format and return how many there were."""
    count = 0
    seen: dict[int, _Lanes] = {}
    places: dict[tuple[int, int], tuple[int, int]] = {}
    out.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
    for event in sorted(events, key=lambda event: event.start):
        lanes = seen.get(event.layer)
        if lanes is None:
            lanes = seen[event.layer] = _Lanes()
            name = {"name": f"{event.layer}: {event.info.typename}"}
            head = {"ph": "M", "name": "process_name", "pid": event.layer, "tid": 0, "args": name}
            out.write(("," if count or len(seen) > 1 else "") + json.dumps(head) + "\n")
        lane = lanes.lane(event)
        out.write("," + json.dumps(_complete(event, lane)) + "\n")
        places[event.info.pid, event.id] = event.layer, lane
        above = places.get((event.info.pid, event.parent)) if event.parent else None
        if above is not None:
            for end in _flow(event, above, (event.layer, lane)):
                out.write("," + json.dumps(end) + "\n")
        count += 1
    out.write("]}\n")
    return count


class _Lanes:
    """Threads of one layer: an operation takes the first that is free."""

    def __init__(self) -> None:
        self._busy: list[tuple[int, int]] = []
        self._free: list[int] = []
        self._count = 0

    def lane(self, event: Event) -> int:
        """Return the thread of an operation; they come in the order of their beginnings."""
        while self._busy and self._busy[0][0] <= event.start:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        if self._free:
            lane = heapq.heappop(self._free)
        else:
            self._count += 1
            lane = self._count
        heapq.heappush(self._busy, (event.start + event.duration, lane))
        return lane


def _flow(
    event: Event, above: tuple[int, int], place: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both ends of the arrow to an operation from the one that it was done for."""
    both = {"name": "for", "cat": "flow", "id": event.id, "ts": event.start / 1000}
    return (
        {"ph": "s", **both, "pid": above[0], "tid": above[1]},
        {"ph": "f", "bp": "e", **both, "pid": place[0], "tid": place[1]},
    )


def _complete(event: Event, lane: int) -> dict[str, Any]:
    cred = event.operation.cred(event.args)
    args: dict[str, Any] = {
        "path": event.path[:_PATH_MAX].decode("utf-8", "backslashreplace"),
        "result": outcome(event),
        "id": event.id,
    }
    if event.parent:
        args["parent"] = event.parent
    if event.octets:
        args["octets"] = event.octets
    if cred is not None:
        args["pid"], args["uid"] = cred.pid, cred.uid
    return {
        "ph": "X",
        "name": event.name,
        "cat": "error" if event.outcome else "op",
        "ts": event.start / 1000,
        "dur": event.duration / 1000,
        "pid": event.layer,
        "tid": lane,
        "args": args,
    }
