"""The writing end of a trace: records gather in a batch and go to the file in one write(2)."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import trio

from ...native.records import Kargs
from .format import UNFINISHED, DataKept, LayerInfo, encode_layer, encode_records

_log = logging.getLogger(__name__)

BATCH: Final = 512
"""Records that are written together: encoding them takes 0.2 ms, and nobody waits longer."""
BATCH_OCTETS: Final = 1024 * 1024
"""The same in octets of data that are kept."""
DELAY: Final = 0.2
"""How old a record may become before it can be read, seconds."""


class Recorder:
    """One writer of the trace in `file`, which is made if it is not there and else appended to.

    Writes in place, for a write to the page cache is quicker than a thread. What the file cannot
    take is lost and counted (`lost`): tracing never makes an operation fail.
    """

    def __init__(self, file: Path, kargs: Kargs, typename: str, keep: DataKept) -> None:
        self.lost = 0
        self.written = 0
        self.batch: list[tuple[Any, ...]] = []
        self.octets = 0
        """Data in the batch."""
        self.in_flight: dict[int, tuple[int, int, int, tuple[Any, ...]]] = {}
        """Operations without an answer: by id, (number, parent, start, arguments)."""
        self._writer = os.getpid() << 32 | int.from_bytes(os.urandom(4), "little")
        self._wake = trio.Event()
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
            self.flush()
        elif count == 1:
            self._wake.set()

    def flush(self) -> None:
        """Write the batch."""
        batch = self.batch
        if batch:
            chunk = encode_records(self._writer, batch)
            count = len(batch)
            batch.clear()
            self.octets = 0
            self._write(chunk, count)

    async def keep_fresh(self) -> None:
        """Write what is older than DELAY, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(DELAY)
            self.flush()

    def close(self) -> None:
        """Write what there is, with what has no answer yet, and end."""
        now = time.monotonic_ns()
        for ident, (number, parent, start, args) in self.in_flight.items():
            self.batch.append((number, ident, parent, start, now - start, UNFINISHED, args, None))
        self.in_flight.clear()
        self.flush()
        os.close(self._fd)

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
