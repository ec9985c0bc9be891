"""The one writer of the audit: a bounded queue of lines, and a thread that waits for the disk."""

from __future__ import annotations

import logging
import os
import syslog
import time
from collections import deque
from collections.abc import Callable
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

    A line for which there is no room is lost; the next line that
    can be written says how many were. `clock` gives seconds since 1970.
    """

    def __init__(self, settings: AuditSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._batch = memoryview(b"")
        """What is being written, and `_lines` how many lines that were."""
        self._lines = 0
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._ending = trio.Event()
        self._fd: int | None = None
        self._is_to_reopen = False
        self._is_broken = False
        self._written = 0
        self._lost = 0
        self._untold = 0

    def statistics(self) -> WriterStatistics:
        """Return the figures of now."""
        return WriterStatistics(self._written, self._lost, len(self._queue) + self._lines)

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
        """Write until cancelled, and then what is left: for some seconds, and only once."""
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope(shield=True)
            nursery.start_soon(self._work, scope)
            try:
                await trio.sleep_forever()
            finally:
                self._ending.set()
                self._wake.set()
                scope.deadline = trio.current_time() + END_SECONDS

    async def _work(self, scope: trio.CancelScope) -> None:
        """Write until the end. A write that is under way then is waited for within the bound."""
        with scope:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._queue or self._batch or self._is_to_reopen:
                    if await self._write_some():
                        continue
                    if self._ending.is_set():
                        break
                    with trio.move_on_after(_RETRY_SECONDS):
                        await self._ending.wait()
                if self._ending.is_set():
                    break
            self._close()
        left = len(self._queue) + self._lines
        if left:
            _log.error("%d lines of the audit were not written", left)

    async def _write_some(self) -> bool:
        """Write some lines; return False when that failed, and then the rest of them is kept."""
        if self._is_to_reopen:
            self._is_to_reopen = False
            self._close()
        if not self._batch:
            taken = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]
            self._lines = len(taken)
            if self._untold:
                fields = {"time": timestamp(self._clock()), "operation": "lost"}
                taken.append(line({**fields, "lines": self._untold}))
                self._untold = 0
            self._batch = memoryview(b"".join(taken))
        try:
            await trio.to_thread.run_sync(self._write, abandon_on_cancel=True)
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
        self._written += self._lines
        self._lines = 0
        return True

    def _write(self) -> None:
        """Write the batch, in a thread of its own; what was written is taken off it."""
        target = self._settings.target
        if target is Target.SYSLOG:
            for text in bytes(self._batch).decode().splitlines():
                syslog.syslog(syslog.LOG_INFO | syslog.LOG_AUTHPRIV, text)
            self._batch = memoryview(b"")
            return
        fd = 2
        if target is Target.FILE:
            if self._fd is None:
                assert self._settings.file is not None
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = os.open(self._settings.file, flags, 0o600)
            fd = self._fd
        while self._batch:
            self._batch = self._batch[os.write(fd, self._batch) :]

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)
