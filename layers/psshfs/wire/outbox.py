"""What is on its way to the server: at once where the socket takes it, else through a queue."""

from __future__ import annotations

import socket as _socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

import trio

from ....native.records import Buffer

IOVEC_MAX: Final = 64
"""Buffers in one call of sendmsg."""


def constant(payload: Buffer) -> Buffer:
    """Return `payload` such that nobody changes it: itself where it is bytes or a view of them."""
    if isinstance(payload, memoryview):
        return payload if type(payload.obj) is bytes else bytes(payload)
    return payload if type(payload) is bytes else bytes(payload)


class Outbox:
    """Sends octets in order over `socket`, which is non-blocking.

    `run` is the body of a task that sends what the socket did not take; `on_room` is called
    when it has sent something, `on_error` with a text when the socket fails. A batch (`with
    outbox:`, which nests) holds packets back so that they leave in one call. So does what may
    wait, until there is something that may not, or nothing else to do in this process.
    """

    def __init__(
        self,
        socket: _socket.socket,
        on_room: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._socket = socket
        self._on_room = on_room
        self._on_error = on_error
        self._queue: deque[Buffer] = deque()
        self._depth = 0
        self._is_waiting = False
        """All that is queued may wait: the socket did not refuse it."""
        self._task: trio.lowlevel.Task | None = None
        self.queued = 0
        """Octets that wait."""
        self.sent = 0
        """Octets that the socket has taken since the beginning."""

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if not self._depth and self._queue:
            self._is_waiting = False
            self._drain()
            if self._queue:
                self._wake()

    def send(self, head: bytes, payload: Buffer, *, may_wait: bool = False) -> None:
        """Send `head` and `payload`; the latter may change after the return."""
        if self._depth or self._is_waiting:
            self._add(head, payload)
            if not self._depth and not may_wait:
                self._is_waiting = False
                self._drain()
                if self._queue:
                    self._wake()
            return
        taken = 0
        if not self._queue:
            if may_wait:
                self._is_waiting = True
                self._add(head, payload)
                self._wake()
                return
            try:
                if payload:
                    taken = self._socket.sendmsg((head, payload))
                else:
                    taken = self._socket.send(head)
            except BlockingIOError:
                pass
            except OSError as exc:
                self._on_error(f"sending to the server: {exc.strerror}")
                return
            self.sent += taken
            if taken == len(head) + len(payload):
                return
        self._add(head, payload, taken)
        self._wake()

    def _add(self, head: bytes, payload: Buffer, taken: int = 0) -> None:
        rest = len(head) - taken
        if rest > 0:
            self._queue.append(head[taken:])
            self.queued += rest
        if payload:
            data = memoryview(constant(payload))[max(0, -rest) :]
            self._queue.append(data)
            self.queued += len(data)

    def flush(self) -> None:
        """Send what was told that it may wait."""
        if self._is_waiting and not self._depth:
            self._is_waiting = False
            self._drain()
            if self._queue:
                self._wake()

    @property
    def is_empty(self) -> bool:
        """Tell whether the socket has taken everything, and nothing is held back."""
        return not self._queue and not self._depth

    def clear(self) -> None:
        """Forget what waits."""
        self._queue.clear()
        self.queued = 0
        self._is_waiting = False

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            try:
                taken = self._socket.sendmsg(list(islice(queue, IOVEC_MAX)))
            except BlockingIOError:
                return
            except OSError as exc:
                self._on_error(f"sending to the server: {exc.strerror}")
                return
            self.sent += taken
            self.queued -= taken
            while taken:
                first = queue[0]
                if taken < len(first):
                    queue[0] = memoryview(first)[taken:]
                    break
                taken -= len(first)
                queue.popleft()

    def _wake(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    async def run(self) -> None:
        """Send what waits whenever the socket can take it; ends by cancellation only."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        task = trio.lowlevel.current_task()
        while True:
            self.flush()
            while self._queue:
                await trio.lowlevel.wait_writable(self._socket)
                self._drain()
                self._on_room()
            self._task = task
            await trio.lowlevel.wait_task_rescheduled(abort)
