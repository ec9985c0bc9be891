"""Trace: the FileServer that has everything written down."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final, NamedTuple

import trio

from ...native.errors import VfsError
from ..operations import Operation
from ..ops import FileServer
from ..passing import Answers, Around
from .format import CANCELLED, FAILED, DataKept, encode
from .recorder import Recorder

_current: ContextVar[int] = ContextVar("syspuffs_trace_current", default=0)
"""The operation of the nearest trace layer above, in this task or the one that started it."""
_ids: Final = itertools.count(1)


class TraceStatistics(NamedTuple):
    """Records written, those that the file could not take, and operations under way."""

    written: int
    lost: int
    in_flight: int


class Trace(Around):
    """A server whose operations are recorded. `traced` makes one."""

    name = "trace"

    def __init__(self, below: FileServer, file: Path, keep: DataKept) -> None:
        typename = f"{self.name}|{below.kargs.typename}"
        self.recorder = Recorder(file, below.kargs, typename, keep)
        super().__init__(below)

    def statistics(self) -> TraceStatistics:
        """Return the figures of now."""
        recorder = self.recorder
        return TraceStatistics(recorder.written, recorder.lost, len(recorder.in_flight))

    def around(self, operation: Operation, call: Callable[..., Answers]) -> Callable[..., Answers]:
        """See Around. The body is written out for speed: it runs for each operation."""
        recorder, number = self.recorder, operation.number
        is_read, is_write = operation.name == "read", operation.name == "write"
        append, in_flight, added = recorder.parts.append, recorder.in_flight, recorder.added
        get, put, reset = _current.get, _current.set, _current.reset
        new_id = _ids.__next__

        async def recorded(*args: Any) -> Any:
            if recorder.is_full:
                await recorder.room()
            parent, ident = get(), new_id()
            token = put(ident)
            start = monotonic_ns()
            in_flight[ident] = (number, parent, start, args)
            answer, outcome = None, FAILED
            try:
                answer = await call(*args)
                outcome = 0
                return answer
            except VfsError as exc:
                outcome = exc.errno
                raise
            except trio.Cancelled:
                outcome = CANCELLED
                raise
            finally:
                duration = monotonic_ns() - start
                reset(token)
                if in_flight.pop(ident, None) is not None:
                    record = (number, ident, parent, start, duration, outcome, args, answer)
                    try:
                        if is_write or (is_read and not outcome):
                            recorder.add_with_data(record)
                        else:
                            append(encode(record))
                            added()
                    except (TypeError, ValueError, OverflowError) as exc:
                        recorder.lose(exc)

        return recorded

    def around_told(self, operation: Operation, call: Callable[..., None]) -> Callable[..., None]:
        """See Around."""
        recorder, number = self.recorder, operation.number

        def recorded(*args: Any) -> None:
            parent, ident = _current.get(), next(_ids)
            token = _current.set(ident)
            start = monotonic_ns()
            call(*args)
            _current.reset(token)
            record = (number, ident, parent, start, monotonic_ns() - start, 0, args, None)
            recorder.parts.append(encode(record))
            recorder.added()

        return recorded


@asynccontextmanager
async def traced(
    below: FileServer, file: Path, keep: DataKept = DataKept.LENGTH
) -> AsyncIterator[Trace]:
    """Record what is asked of `below`, which stays the caller's. Errors: OSError for the file."""
    trace = Trace(below, file, keep)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trace.recorder.write_out)
            yield trace
            nursery.cancel_scope.cancel()
    finally:
        trace.recorder.close()
