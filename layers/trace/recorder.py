"""The writing end of a trace: records gather in batches, which a thread writes to the file."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import trio

from ...native.records import Buffer, Kargs
from ..operations import BY_NAME
from .format import (
    UNFINISHED,
    DataKept,
    LayerInfo,
    Part,
    encode,
    encode_around,
    encode_layer,
    encode_records,
)

_log = logging.getLogger(__name__)

BATCH: Final = 2048
"""Records that are written together."""
BATCH_OCTETS: Final = 1024 * 1024
"""The same in octets of data that are kept."""
DELAY: Final = 0.2
"""How old a record may become before it can be read, seconds."""
QUEUE_OCTETS: Final = 32 * 1024 * 1024
"""What may wait to be written; then operations wait, too."""
_RECORD_OCTETS: Final = 128
"""What a record is taken to need, without data."""
_LONG: Final = 128 * 1024
"""Data from which on a read's are written from where they are, octets. Shorter ones are copied:
they may keep a much longer buffer alive."""
_NICE: Final = 5
"""What the thread is nicer by than the mount, which is to have a processor when it can go on."""

_READ: Final = BY_NAME["read"].number
_WRITE: Final = BY_NAME["write"].number


class _Batch(NamedTuple):
    """Records to be written together, `octets` long in memory."""

    parts: list[Part]
    records: int
    octets: int


class Recorder:
    """One writer of the trace in `file`, which is made if it is not there and else appended to.

    Records are encoded where they come from. A thread of its own makes digests and writes, one
    batch at a time and in order: with a megabyte of data that takes half a millisecond, of a disk
    any time. Who is ahead of it by QUEUE_OCTETS waits for `room`, so nothing is lost to haste.
    What the file cannot take is lost and counted (`lost`): tracing never makes an operation fail.
    """

    def __init__(self, file: Path, kargs: Kargs, typename: str, keep: DataKept) -> None:
        self.lost = 0
        self.written = 0
        self.is_full = False
        """Whether operations have to wait for `room`."""
        self.in_flight: dict[int, tuple[int, int, int, tuple[Any, ...]]] = {}
        """Operations without an answer: by id, (number, parent, start, arguments)."""
        self.parts: list[Part] = []
        """What is encoded of the batch that gathers: a part for each record, or three."""
        self._octets = 0
        """Data in it."""
        self._further = 0
        """Parts in it that are not the first of their record."""
        self._is_timed = False
        """Whether it is written after DELAY at the latest."""
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._queued = 0
        """Octets that the thread was ever given; here only."""
        self._taken = 0
        """Octets that it is done with; changed in the thread only."""
        self._thread: threading.Thread | None = None
        self._wake = trio.Event()
        self._room = trio.Event()
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
        self._write([encode_layer(self._writer, info)], 0)

    # Records.

    def add_with_data(self, record: tuple[Any, ...]) -> None:
        """Add the record of a write, or of a read that went well.

        The data of a write are copied. Those of a read, which belong to the caller, stay what they
        are as long as somebody has them.
        """
        number, *more, args, result = record
        is_write = number == _WRITE
        data: Buffer = args[2] if is_write else result
        length = len(data)
        kept: Any = data
        if self._keep is DataKept.LENGTH:
            kept = length
        elif self._keep is DataKept.DIGEST or length >= _LONG:
            kept = b""
        if is_write:
            args = (*args[:2], kept, *args[3:])
        else:
            result = kept
        record = (number, *more, args, result)
        if kept == b"" and length:
            held = bytes(data) if is_write or length < _LONG else data
            parts = encode_around(record, held)
            self._further += len(parts) - 1
            self.parts += parts
        else:
            self.parts.append(encode(record))
        if kept.__class__ is not int:
            self._octets += length
        self.added()

    def added(self) -> None:
        """Hear that the batch has one more record."""
        if len(self.parts) >= BATCH or self._octets >= BATCH_OCTETS:
            self._cut()
        elif not self._is_timed:
            self._is_timed = True
            self._wake.set()

    def lose(self, why: Exception) -> None:
        """Do without a record that cannot be encoded."""
        if not self.lost:
            _log.error("a trace cannot be written (%s); some of it is lost", why)
        self.lost += 1

    async def room(self) -> None:
        """Wait until the writer has caught up."""
        while self.is_full:
            await self._room.wait()

    async def write_out(self) -> None:
        """Have written what is older than DELAY, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(DELAY)
            self._is_timed = False
            self._cut()

    def close(self) -> None:
        """Write what there is, with what has no answer yet, and end."""
        now = time.monotonic_ns()
        for ident, (number, parent, start, args) in self.in_flight.items():
            record = (number, ident, parent, start, now - start, UNFINISHED, args, None)
            if number == _WRITE:
                self.add_with_data(record)
            else:
                self.parts.append(encode(record))
        self.in_flight.clear()
        self._cut()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self.is_full = False
        self._room.set()
        os.close(self._fd)

    # Batches.

    def _cut(self) -> None:
        """Hand the batch to the thread and begin a new one."""
        parts = self.parts
        if not parts:
            return
        records = len(parts) - self._further
        octets = self._octets + records * _RECORD_OCTETS
        batch = _Batch(parts[:], records, octets)
        parts.clear()
        self._octets = self._further = 0
        if self._thread is None:
            token = trio.lowlevel.current_trio_token()
            self._thread = threading.Thread(
                target=self._write_batches, args=(token.run_sync_soon,), name="trace"
            )
            self._thread.start()
        self._queued += octets
        if self._queued - self._taken >= QUEUE_OCTETS and not self.is_full:
            self.is_full = True
            self._room = trio.Event()
        self._queue.put(batch)

    def _make_room(self) -> None:
        if self.is_full and self._queued - self._taken < QUEUE_OCTETS // 2:
            self.is_full = False
            self._room.set()

    def _write_batches(self, run_sync_soon: Callable[[Callable[[], None]], None]) -> None:
        """Write one batch after the other until the end: the body of the thread.

        `close` waits for it, so trio still runs.
        """
        os.nice(_NICE)  # on Linux this thread only
        as_digest = self._keep is DataKept.DIGEST
        while (batch := self._queue.get()) is not None:
            parts, records, octets = batch
            pieces = encode_records(self._writer, records, parts, as_digest=as_digest)
            self._write(pieces, records)
            del batch, parts, pieces
            self._taken += octets
            if self.is_full and self._queued - self._taken < QUEUE_OCTETS // 2:
                run_sync_soon(self._make_room)

    def _write(self, pieces: list[Buffer], records: int) -> None:
        try:
            # A regular file takes all of it, or what there is room for.
            done = os.writev(self._fd, pieces)
            if done != sum(map(len, pieces)):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - done)
                raise OSError(0, "there was room for a part only")
        except OSError as exc:
            if not self.lost:
                _log.error("a trace cannot be written (%s); what happens now is lost", exc)
            self.lost += max(records, 1)
        else:
            self.written += records
