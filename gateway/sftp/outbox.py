"""What waits to be sent to the client, in as few system calls as possible."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

import trio

from ...native.records import Buffer

_IOVEC_MAX: Final = 1024
"""Pieces that one writev(2) takes (Linux' UIO_MAXIOV)."""


class Outbox:
    """Packets on their way to the descriptor `fd`, which does not block.

    Nothing is sent before `flush`, so that the answers to a batch of requests leave in one call.
    What the descriptor does not take then is sent as it becomes ready, by a task that `spawn`
    starts. `on_room` is called when something was sent by that task, `on_error` with a text when
    the descriptor fails; what is put in afterwards is dropped.
    """

    def __init__(
        self,
        fd: int,
        spawn: Callable[[Callable[[], object]], object],
        on_room: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._fd = fd
        self._spawn = spawn
        self._on_room = on_room
        self._on_error = on_error
        self._queue: deque[Buffer] = deque()
        self._is_sending = False
        self._is_broken = False
        self.queued = 0
        """Octets that wait."""
        self.sent = 0
        """Octets that the descriptor has taken."""

    def put(self, packet: bytes) -> None:
        """Queue a packet."""
        self._queue.append(packet)
        self.queued += len(packet)

    def put_data(self, head: bytes, payload: Buffer) -> None:
        """Queue a packet whose data lie elsewhere; they must stay as they are until it is sent."""
        self._queue.append(head)
        self.queued += len(head)
        count = len(payload)
        if count:
            self._queue.append(payload)
            self.queued += count

    def flush(self) -> None:
        """Send what the descriptor takes now; the rest follows by itself."""
        if not self.queued or self._is_sending:
            return
        if self._is_broken:
            self._clear()
            return
        self._drain()
        if self.queued and not self._is_broken:
            self._is_sending = True
            self._spawn(self._send_rest)

    def _clear(self) -> None:
        self._queue.clear()
        self.queued = 0

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            pieces = queue if len(queue) <= _IOVEC_MAX else islice(queue, _IOVEC_MAX)
            try:
                taken = os.writev(self._fd, tuple(pieces))
            except BlockingIOError:
                return
            except OSError as exc:
                self._is_broken = True
                self._clear()
                self._on_error(f"sending to the client: {exc.strerror}")
                return
            self.sent += taken
            self.queued -= taken
            if not self.queued:
                queue.clear()
                return
            while taken:
                first = queue[0]
                if taken < len(first):
                    queue[0] = memoryview(first)[taken:]
                    break
                taken -= len(first)
                queue.popleft()

    async def _send_rest(self) -> None:
        try:
            while self.queued:
                await trio.lowlevel.wait_writable(self._fd)
                self._drain()
                self._on_room()
        finally:
            self._is_sending = False
