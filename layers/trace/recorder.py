"""The writing end of a trace: records gather in batches, which a thread writes to the file."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from ...native.records import Kargs
from .format import UNFINISHED, DataKept, LayerInfo, encode_layer, encode_records

_log = logging.getLogger(__name__)

BATCH: Final = 512
"""Records that are written together."""
BATCH_OCTETS: Final = 1024 * 1024
"""The same in octets of data that are kept."""
DELAY: Final = 0.2
"""How old a record may become before it can be read, seconds."""
QUEUE_OCTETS: Final = 32 * 1024 * 1024
"""What may wait to be written; then operations wait, too."""
_RECORD_OCTETS: Final = 256
"""What a record is taken to need, without data."""

Record: TypeAlias = tuple[Any, ...]


class Recorder:
    """One writer of the trace in `file`, which is made if it is not there and else appended to.

    A thread makes digests, encodes and writes, one batch at a time and in order: with a megabyte of
    data that takes as long as hundreds of operations, and a disk may take any time. Who is ahead
    of it by QUEUE_OCTETS waits for `room`, so nothing is lost to haste. What the file cannot take
    is lost and counted (`lost`): tracing never makes an operation fail.
    """

    def __init__(self, file: Path, kargs: Kargs, typename: str, keep: DataKept) -> None:
        self.lost = 0
        self.written = 0
        self.batch: list[Record] = []
        self.octets = 0
        """Data in the batch."""
        self.is_full = False
        """Whether operations have to wait for `room`."""
        self.in_flight: dict[int, tuple[int, int, int, tuple[Any, ...]]] = {}
        """Operations without an answer: by id, (number, parent, start, arguments)."""
        self._queue: deque[tuple[list[Record], int]] = deque()
        self._queued = 0
        """Octets in the queue and in the thread's hand."""
        self._wake = trio.Event()
        self._is_due = trio.Event()
        self._room = trio.Event()
        self._one_thread = trio.CapacityLimiter(1)
        self._keep = keep
        self._writer = os.getpid() << 32 | int.from_bytes(os.urandom(4), "little")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(file, flags, 0o600)
        info = LayerInfo(
            typename=typename,
            mntfromname=kargs.mntfromname,
            root=kargs.root.cookie,
            pid=os.getpid(),
            program=os.path.basename(sys.argv[0]),
            realtime=time.time_ns(),
            monotonic=time.monotonic_ns(),
            data=keep.value,
        )
        self._write(encode_layer(self._writer, info), 0)

    def added(self) -> None:
        """Hear that the batch has one more record."""
        count = len(self.batch)
        if count >= BATCH or self.octets >= BATCH_OCTETS:
            self._cut()
            self._is_due.set()
            self._wake.set()
        elif count == 1:
            self._wake.set()

    async def room(self) -> None:
        """Wait until the writer has caught up."""
        while self.is_full:
            await self._room.wait()

    async def write_out(self) -> None:
        """Write what is due, and what is older than DELAY, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if not self._queue:
                with trio.move_on_after(DELAY):
                    await self._is_due.wait()
                self._cut()
            self._is_due = trio.Event()
            while self._queue:
                records, octets = self._queue[0]
                # Cancelled, this does nothing at all, or returns when everything is done.
                await trio.to_thread.run_sync(
                    self._write_records, records, limiter=self._one_thread
                )
                self._queue.popleft()
                self._queued -= octets
                if self.is_full and self._queued < QUEUE_OCTETS // 2:
                    self.is_full = False
                    self._room.set()

    def _cut(self) -> None:
        """Begin a new batch."""
        if self.batch:
            octets = self.octets + len(self.batch) * _RECORD_OCTETS
            self._queue.append((self.batch[:], octets))
            self.batch.clear()
            self.octets = 0
            self._queued += octets
            if self._queued >= QUEUE_OCTETS and not self.is_full:
                self.is_full = True
                self._room = trio.Event()

    def close(self) -> None:
        """Write what there is, with what has no answer yet, and end."""
        now = time.monotonic_ns()
        for ident, (number, parent, start, args) in self.in_flight.items():
            self.batch.append((number, ident, parent, start, now - start, UNFINISHED, args, None))
        self.in_flight.clear()
        self._cut()
        for records, _ in self._queue:
            self._write_records(records)
        self._queue.clear()
        self.is_full = False
        self._room.set()
        os.close(self._fd)

    def _write_records(self, records: list[Record]) -> None:
        written = self._keep.written
        chunk = encode_records(self._writer, [written(record) for record in records])
        self._write(chunk, len(records))

    def _write(self, chunk: bytes, records: int) -> None:
        try:
            # A regular file takes all of it, or what there is room for.
            done = os.write(self._fd, chunk)
            if done != len(chunk):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - done)
                raise OSError(0, "there was room for a part only")
        except OSError as exc:
            if not self.lost:
                _log.error("a trace cannot be written (%s); what happens now is lost", exc)
            self.lost += max(records, 1)
        else:
            self.written += records
