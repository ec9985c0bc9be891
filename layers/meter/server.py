"""Meter: the FileServer that measures what goes by."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from ...native.errors import VfsError
from ..operations import Operation
from ..ops import FileServer
from ..passing import Answers, Around
from .histogram import Histogram

NODES_MAX: Final = 4096
"""Most nodes that are told apart; then those asked about least are dropped."""
_NODES_KEPT: Final = 512


class Tally:
    """What has come of one operation. `octets` are of file data."""

    __slots__ = ("errors", "octets", "times")

    def __init__(self) -> None:
        self.errors = 0
        self.octets = 0
        self.times = Histogram()


class Figures(NamedTuple):
    """What went by in some time: by operation, and how often each node was asked about."""

    tallies: dict[str, Tally]
    nodes: dict[int, int]


class Meter(Around):
    """A server that counts. Fire-and-forget is not counted: it takes no time."""

    name = "meter"

    def __init__(self, below: FileServer) -> None:
        self._tallies: dict[str, Tally] = {}
        self._nodes: dict[int, int] = {}
        super().__init__(below)

    def take(self) -> Figures:
        """Return what went by since the last call; what is under way belongs to the next."""
        found = Figures(self._tallies, self._nodes)
        self._tallies, self._nodes = {}, {}
        return found

    def around(self, operation: Operation, call: Callable[..., Answers]) -> Callable[..., Answers]:
        """See Around."""
        name = operation.name
        has_node = bool(operation.parameters) and operation.parameters[0][0] == "opc"
        is_read, is_write = name == "read", name == "write"

        async def measured(*args: Any) -> Any:
            failed = 0
            octets = 0
            start = monotonic_ns()
            try:
                answer = await call(*args)
                if is_read:
                    octets = len(answer)
                elif is_write:
                    octets = len(args[2])
                return answer
            except VfsError:
                failed = 1
                raise
            finally:
                self._count(name, monotonic_ns() - start, failed, octets)
                if has_node:
                    self._asked_about(args[0])

        return measured

    def _count(self, name: str, duration: int, failed: int, octets: int) -> None:
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies[name] = Tally()
        tally.times.add(duration)
        tally.errors += failed
        tally.octets += octets

    def _asked_about(self, cookie: int) -> None:
        nodes = self._nodes
        nodes[cookie] = nodes.get(cookie, 0) + 1
        if len(nodes) > NODES_MAX:
            kept = sorted(nodes, key=nodes.__getitem__, reverse=True)[:_NODES_KEPT]
            self._nodes = {cookie: nodes[cookie] for cookie in kept}
