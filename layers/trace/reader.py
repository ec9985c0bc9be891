"""The reading end of a trace: events, with the paths that they are about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from ...native.errors import VfsError
from ..operations import OPERATIONS, Operation
from ..outcomes import length
from ..paths import Paths
from .format import (
    LAYER,
    RECORDS,
    Chunk,
    LayerInfo,
    RawRecord,
    TraceError,
    checked_cookies,
    decode_layer,
    decode_records,
    decode_values,
    take_chunks,
)

_READ: Final = 1024 * 1024
_POLL: Final = 0.1
"""How often a growing file is looked at, seconds."""


class Event(NamedTuple):
    """One operation as it was recorded; see format.py. `layer` counts writers in the file."""

    operation: Operation
    id: int
    parent: int
    start: int
    duration: int
    outcome: int
    args: tuple[Any, ...]
    result: Any
    path: bytes
    layer: int
    info: LayerInfo

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.operation.name

    @property
    def when(self) -> int:
        """When it began, ns since 1970."""
        return self.start - self.info.monotonic + self.info.realtime

    @property
    def octets(self) -> int:
        """How much file data was moved."""
        if self.outcome:
            return 0
        if self.name == "read":
            return length(self.result)
        return length(self.args[2]) if self.name == "write" else 0

    def error(self) -> VfsError | None:
        """Return the failure, if it was one that operations may have."""
        return VfsError(self.outcome) if self.outcome > 0 else None


class _Writer:
    """What is known of one writer."""

    def __init__(self, number: int, info: LayerInfo) -> None:
        self.number = number
        self.info = info
        self.paths = Paths(info.root)


class TraceReader:
    """Octets of a trace in, events out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._writers: dict[int, _Writer] = {}

    @property
    def layers(self) -> list[LayerInfo]:
        """The layers that have written so far, by their numbers in events."""
        return [writer.info for writer in self._writers.values()]

    @property
    def pending(self) -> int:
        """Octets of a chunk that is not there as a whole."""
        return len(self._buffer)

    def feed(self, octets: bytes) -> Iterator[Event]:
        """Yield the events that `octets` complete. Errors: TraceError."""
        self._buffer += octets
        for chunk in take_chunks(self._buffer):
            yield from self._events(chunk)

    def _events(self, chunk: Chunk) -> Iterator[Event]:
        if chunk.kind == LAYER:
            info = decode_layer(chunk.body)
            self._writers[chunk.writer] = _Writer(len(self._writers), info)
        elif chunk.kind == RECORDS:
            writer = self._writers.get(chunk.writer)
            if writer is None:
                raise TraceError("records of a layer that has not said what it is")
            for record in decode_records(chunk.body):
                yield _event(writer, record)


def _event(writer: _Writer, record: RawRecord) -> Event:
    number, ident, parent, start, duration, outcome, _, _ = record
    if not 0 <= number < len(OPERATIONS):
        raise TraceError(f"operation {number} is of a newer version")
    args, result = decode_values(record)
    checked_cookies(number, args)
    operation = OPERATIONS[number]
    path = writer.paths.of(operation, args)
    if not outcome:
        writer.paths.learn(operation, args, result)
    return Event(
        operation,
        ident,
        parent,
        start,
        duration,
        outcome,
        args,
        result,
        path,
        writer.number,
        writer.info,
    )


def events(file: Path) -> Iterator[Event]:
    """Yield what is in a trace, in the order in which it was written.

    A chunk that is not whole at the end is left out: it is being written, or its writer was
    killed. Errors: OSError, TraceError.
    """
    reader = TraceReader()
    with open(file, "rb") as stream:
        while octets := stream.read(_READ):
            yield from reader.feed(octets)


def growing(stream: BinaryIO) -> Iterator[Event | None]:
    """Yield what is in a trace and what comes to it, for ever; None each time there is no more."""
    reader = TraceReader()
    while True:
        octets = stream.read(_READ)
        if octets:
            yield from reader.feed(octets)
        else:
            yield None
            time.sleep(_POLL)
