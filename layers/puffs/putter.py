"""The putter: carries whole frames over a byte stream and knows nothing of files.

Both halves of a puffs that is cut by a descriptor have one: the kernel half under
`touser`, the server half under `server`. In one process there is no stream and no
putter (see `touser.DirectTouser`).

State rule, the only one: a putter is *running* until its stream ends, fails or
carries something that cannot be a frame (`TransportBroken`), or until `close`
(`TransportClosed`); it never runs again. From then on nothing is sent or received,
what was queued is dropped, and whoever uses the putter ends every pending call at
once with ENXIO and answers every later call with ENXIO.

Sending: `push` writes at once what the descriptor takes and queues the rest for
`pump`, which the owner runs as a task; so an idle stream costs one system call a
frame and no trip through the scheduler. The queue has a bound (`full`), which callers
that can wait respect by `wait_room`. Those that cannot wait (fire and forget) may
pass it; they are short, and bounded by the nodes and opens which they end.

Receiving: one task at a time calls `next_frame`. Each frame that comes out is memory
of its own, which the caller may keep: short ones are copied out of the receive
buffer, long ones are received into their own memory to begin with.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Final, NoReturn

import trio
from trio.lowlevel import Abort

from ...native.errors import (
    RemoteProtocolError,
    TransportBroken,
    TransportClosed,
    TransportError,
)
from ...native.frames import frame_length
from ...native.memory import unset_memory
from ...native.records import Buffer

BACKLOG: Final = 64
"""Frames that may wait for the descriptor before callers have to wait, too."""

_RECEIVE: Final = 64 * 1024


class Outgoing:
    """A frame that waits to be written. `payload` belongs to the sender until it is written."""

    __slots__ = ("head", "payload", "sent")

    def __init__(self, head: Buffer, payload: Buffer | None, sent: int) -> None:
        self.head = head
        self.payload = payload
        self.sent = sent

    def rest(self) -> list[Buffer]:
        """Return what is still to be written."""
        head, payload, sent = self.head, self.payload, self.sent
        if payload is None:
            return [memoryview(head)[sent:]]
        if sent < len(head):
            return [memoryview(head)[sent:], payload]
        return [memoryview(payload)[sent - len(head) :]]


class Putter:
    """Frames over a stream, `rfd` and `wfd` (the same one for a socket), which it owns.

    Makes the descriptors nonblocking. `broken` is None while it runs.
    """

    def __init__(self, rfd: int, wfd: int) -> None:
        os.set_blocking(rfd, False)
        os.set_blocking(wfd, False)
        self._rfd = rfd
        self._wfd = wfd
        self.broken: TransportError | None = None
        self.frames_in = 0
        self.frames_out = 0
        self._closed = False
        # Sending. The first of the queue may be partly written, the others are not.
        self._queue: deque[Outgoing] = deque()
        self._room = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        self._pump_task: trio.lowlevel.Task | None = None
        # Receiving. What has come and is not yet cut lies in _buf[_start:_end].
        self._buf = bytearray(_RECEIVE)
        self._view = memoryview(self._buf)
        self._start = 0
        self._end = 0
        self._long: memoryview | None = None  # a long frame that is not complete,
        self._have = 0  # and how much of it has come
        self._got_all = True  # the last read left nothing behind

    @classmethod
    def of_socket(cls, sock: socket.socket) -> Putter:
        """Return a putter over a connected stream socket, which belongs to it from now on."""
        if sock.type != socket.SOCK_STREAM:
            raise ValueError("frames need a stream socket")
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            # So that a frame of usual size goes out in one call; the system lowers it to its bound.
            sock.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = sock.detach()
        return cls(fd, fd)

    # Sending.

    @property
    def full(self) -> bool:
        """Whether a caller that can wait has to."""
        return len(self._queue) >= BACKLOG

    @property
    def queued(self) -> int:
        """How many frames wait for the descriptor."""
        return len(self._queue)

    async def wait_room(self) -> None:
        """Return when the queue has room, at once if it has."""
        while len(self._queue) >= BACKLOG and self.broken is None:
            await self._room.park()

    def push(self, head: Buffer, payload: Buffer | None = None) -> Outgoing | None:
        """Send a frame; return None when it is out, or the entry that waits in the queue.

        Never waits. While an entry waits, `payload` must stay as it is.
        """
        if self.broken is not None:
            raise self._ended()
        self.frames_out += 1
        sent = 0
        if not self._queue:
            try:
                if payload is None:
                    sent = os.write(self._wfd, head)
                    if sent == len(head):
                        return None
                else:
                    sent = os.writev(self._wfd, (head, payload))
                    if sent == len(head) + len(payload):
                        return None
            except BlockingIOError:
                pass
            except OSError as exc:
                self._fail("writing failed", exc)
        entry = Outgoing(head, payload, sent)
        self._queue.append(entry)
        if self._pump_task is not None:
            trio.lowlevel.reschedule(self._pump_task)
            self._pump_task = None
        return entry

    def withdraw(self, entry: Outgoing) -> bool:
        """Take `entry` out of the queue if nothing of it has been written; return whether.

        If it has been begun it must go on, and then from a copy: the payload is free again.
        """
        if entry.sent == 0:
            try:
                self._queue.remove(entry)
            except ValueError:
                return False  # written completely meanwhile
            self.frames_out -= 1
            self._room.unpark()
            if not self._queue:
                self._emptied.unpark_all()
            return True
        if entry.payload is not None:
            entry.payload = bytes(entry.payload)
        return False

    async def pump(self) -> None:
        """Write the queue as the descriptor takes it, until the putter ends; a task of the owner.

        Returns when the putter does not run any more.
        """
        while self.broken is None:
            if not self._queue:
                self._pump_task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_pump)
                continue
            try:
                await trio.lowlevel.wait_writable(self._wfd)
            except trio.ClosedResourceError:
                return
            self._drain()

    def _stop_pump(self, _: object) -> Abort:
        self._pump_task = None
        return Abort.SUCCEEDED

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            entry = queue[0]
            parts = entry.rest()
            try:
                sent = os.writev(self._wfd, parts)
            except BlockingIOError:
                return
            except OSError as exc:
                self._set_broken(TransportBroken("writing failed"), exc)
                return
            entry.sent += sent
            if sent < sum(map(len, parts)):
                return
            queue.popleft()
            entry.payload = None
            self._room.unpark()
        self._emptied.unpark_all()

    # Receiving.

    async def next_frame(self) -> Buffer:
        """Return the next frame, memory of its own which nobody writes to any more.

        One task at a time. A cancelled call loses nothing. Raises what `broken` says once it is
        set, also if whole frames have come before.
        """
        frame: Buffer
        while True:
            if self.broken is not None:
                raise self._ended()
            if self._long is not None:
                await self._receive_long(self._long)
                frame, self._long = self._long, None
                break
            start, end = self._start, self._end
            try:
                length = frame_length(self._buf, start, end)
            except RemoteProtocolError as exc:
                self._fail("no frame where one should begin", exc)
            if length and length <= end - start:
                frame = bytes(self._view[start : start + length])
                self._start = start + length
                break
            if length > _RECEIVE // 2:
                # Most of it is still to come: straight into memory of its own.
                self._long = unset_memory(length)
                self._long[: end - start] = self._view[start:end]
                self._have = end - start
                self._start = self._end = 0
                continue
            if start:
                # At most half of the buffer is used, see above, so this is short.
                self._buf[: end - start] = self._buf[start:end]
                self._start, self._end = 0, end - start
            self._end += await self._receive((self._view[self._end :],))
        self.frames_in += 1
        return frame

    async def _receive_long(self, frame: memoryview) -> None:
        """Complete `frame`; what comes after it goes into the receive buffer, which is empty."""
        missing = len(frame) - self._have
        while missing > 0:
            # Eagerly only inside one frame: a peer that never stops must not starve other tasks.
            count = await self._receive((frame[self._have :], self._view), not self._got_all)
            if count > missing:
                self._end = count - missing
            self._have += count
            missing -= count

    async def _receive(self, where: tuple[memoryview, ...], eager: bool = False) -> int:
        """Read at least one octet; `eager` tries before it waits, without asking the scheduler."""
        while True:
            if not eager:
                try:
                    await trio.lowlevel.wait_readable(self._rfd)
                except trio.ClosedResourceError:
                    self._set_broken(TransportBroken("the descriptor was closed"), None)
                if self.broken is not None:
                    raise self._ended()
            eager = False
            try:
                count = os.readv(self._rfd, where)
            except BlockingIOError:
                continue
            except OSError as exc:
                self._fail("reading failed", exc)
            if count == 0:
                inside = self._end > self._start or self._long is not None
                self._fail("end of the stream" + " in the middle of a frame" * inside, None)
            self._got_all = count < sum(map(len, where))
            return count

    # The end.

    def _ended(self) -> TransportError:
        """Return what `broken` says as an exception to raise: each needs a traceback of its own."""
        assert self.broken is not None
        error = type(self.broken)(*self.broken.args)
        error.__cause__ = self.broken.__cause__
        return error

    def _fail(self, text: str, cause: BaseException | None) -> NoReturn:
        self._set_broken(TransportBroken(text), cause)
        raise self._ended()

    def _set_broken(self, error: TransportError, cause: BaseException | None) -> None:
        if self.broken is not None:
            return
        error.__cause__ = cause
        self.broken = error
        self._queue.clear()
        self._room.unpark_all()
        self._emptied.unpark_all()
        if self._pump_task is not None:
            trio.lowlevel.reschedule(self._pump_task)
            self._pump_task = None
        # Whoever waits for one of the descriptors must learn it now.
        trio.lowlevel.notify_closing(self._rfd)
        if self._wfd != self._rfd:
            trio.lowlevel.notify_closing(self._wfd)

    def fail(self, cause: BaseException) -> None:
        """Break the putter on behalf of its user, to whom the peer has become intolerable."""
        self._set_broken(TransportBroken("the peer broke the protocol"), cause)

    def close(self) -> None:
        """End, and close the descriptors. May be called again."""
        self._set_broken(TransportClosed("closed"), None)
        if not self._closed:
            self._closed = True
            os.close(self._rfd)
            if self._wfd != self._rfd:
                os.close(self._wfd)

    async def flush(self) -> None:
        """Return when the queue is empty (or the putter ended)."""
        while self._queue:
            await self._emptied.park()
