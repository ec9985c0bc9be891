"""The one writer of the audit: a bounded queue of lines, and a thread that waits for the disk."""

from __future__ import annotations

import logging
import os
import syslog
import time
from collections import deque
from typing import Final, NamedTuple

import trio

from .lines import line, timestamp
from .settings import AuditSettings, Target

_log = logging.getLogger(__name__)

_BATCH: Final = 500
"""Lines that are written at once."""
_RETRY_SECONDS: Final = 5.0
"""How long the writer waits after it could not write."""
END_SECONDS: Final = 5.0
"""How long the last lines may take when the gateway ends."""


class WriterStatistics(NamedTuple):
    """Lines so far, and those that wait now."""

    written: int
    lost: int
    queued: int


class LineWriter:
    """Writes lines where `settings` say. `put` never waits; `run` does the work until cancelled.

    A line for which there is no room, or that could not be written, is lost; the next line that
    can be written says how many were.
    """

    def __init__(self, settings: AuditSettings) -> None:
        self._settings = settings
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._fd: int | None = None
        self._is_to_reopen = False
        self._is_broken = False
        self._written = 0
        self._lost = 0
        self._untold = 0

    def statistics(self) -> WriterStatistics:
        """Return the figures of now."""
        return WriterStatistics(self._written, self._lost, len(self._queue))

    def put(self, text: bytes) -> None:
        """Have a line written, which ends in a newline."""
        if len(self._queue) >= self._settings.queue_max:
            self._lost += 1
            self._untold += 1
            return
        self._queue.append(text)
        self._wake.set()

    def reopen(self) -> None:
        """Write to the file that has the name now: the old one was moved away."""
        self._is_to_reopen = True
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled, and then what is left."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._queue or self._is_to_reopen:
                    if not await self._write_some():
                        await trio.sleep(_RETRY_SECONDS)
        finally:
            with trio.move_on_after(END_SECONDS, shield=True):
                while self._queue:
                    if not await self._write_some():
                        break
            if self._queue:
                _log.error("%d lines of the audit were not written", len(self._queue))
            self._close()

    async def _write_some(self) -> bool:
        """Write some lines; return False when that failed, and then they are still there."""
        if self._is_to_reopen:
            self._is_to_reopen = False
            self._close()
        untold = self._untold
        lines = [self._queue[at] for at in range(min(len(self._queue), _BATCH))]
        batch = lines
        if untold:
            told = {"time": timestamp(time.time()), "operation": "lost", "lines": untold}
            batch = [line(told), *lines]
        try:
            await trio.to_thread.run_sync(self._write, batch, abandon_on_cancel=True)
        except OSError as exc:
            if not self._is_broken:
                self._is_broken = True
                where = self._settings.file or self._settings.target.value
                _log.error("the audit cannot be written to %s: %s", where, exc.strerror)
            self._close()
            return False
        if self._is_broken:
            self._is_broken = False
            _log.warning("the audit is written again")
        for _ in lines:
            self._queue.popleft()
        self._written += len(lines)
        self._untold -= untold
        return True

    def _write(self, lines: list[bytes]) -> None:
        """Write lines, in a thread of its own."""
        target = self._settings.target
        if target is Target.SYSLOG:
            for text in lines:
                syslog.syslog(syslog.LOG_INFO | syslog.LOG_AUTHPRIV, text.decode().rstrip("\n"))
            return
        fd = 2
        if target is Target.FILE:
            if self._fd is None:
                assert self._settings.file is not None
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = os.open(self._settings.file, flags, 0o600)
            fd = self._fd
        left = memoryview(b"".join(lines))
        while left:
            left = left[os.write(fd, left) :]

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)
