"""Moves the octets of one SSH channel to a socket and back.

Copies and wake-ups are what this costs, so: what arrives in one batch leaves in one system call,
sending is tried at once and a writer is registered only when the socket is full, and both
directions stop reading as soon as the other side cannot take more.
"""

from __future__ import annotations

import asyncio
import socket as _socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

READ_SIZE: Final = 1 << 18
"""Octets asked from the socket at once: one answer with 255 KiB of data and more."""
_IOV: Final = 64
"""Pieces sent by one system call."""


class Channel(Protocol):
    """What is needed of asyncssh's SSHServerChannel."""

    def write(self, data: bytes) -> None:
        """Send; never refuses, but asks the session to pause when much is queued."""

    def pause_reading(self) -> None:
        """Deliver nothing more until resumed; the window then holds the client back."""

    def resume_reading(self) -> None:
        """Deliver again, what is queued first."""


class Relay:
    """Moves octets between `socket` (non-blocking, owned by this) and a channel.

    `ended` is called once, when the near end has closed or broken its socket; never after `stop`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: _socket.socket,
        channel: Channel,
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._fd = socket.fileno()
        self._channel = channel
        self._ended: Callable[[], None] | None = ended
        self._pieces: list[bytes | memoryview] = []
        self._is_due = False
        self._is_batch = False
        self._is_full = False
        self._is_over = False
        self._holds = 0

    def start(self) -> None:
        """Begin to move octets to the channel; the other direction begins with `deliver`."""
        if not self._holds and self._ended is not None:
            self._loop.add_reader(self._fd, self._read)

    def stop(self) -> None:
        """Move nothing more and close the socket; harmless when called twice."""
        if self._fd >= 0:
            self._ended = None
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
            self._pieces.clear()
            self._socket.close()

    # Channel to socket.

    def deliver(self, data: bytes) -> None:
        """Take octets of the client; they leave with the batch, or soon when there is none."""
        self._pieces.append(data)
        if not (self._is_due or self._is_full or self._is_batch):
            self._is_due = True
            self._loop.call_soon(self._flush)

    def finish(self) -> None:
        """The client sends no more: say so to the near end, after what is still to be sent."""
        self._is_over = True
        if self._fd >= 0 and not self._pieces:
            self._shut()

    def begin_batch(self) -> None:
        """Say that more may come at once; `end_batch` follows in the same turn of the loop."""
        self._is_batch = True

    def end_batch(self) -> None:
        """Send what came since `begin_batch`."""
        self._is_batch = False
        if self._pieces and not self._is_full:
            self._send()

    def _flush(self) -> None:
        self._is_due = False
        if self._pieces and not self._is_full:
            self._send()

    def _send(self) -> None:
        pieces = self._pieces
        while pieces:
            try:
                if len(pieces) == 1:
                    sent = self._socket.send(pieces[0])
                else:
                    sent = self._socket.sendmsg(pieces[:_IOV])
            except BlockingIOError:
                break
            except OSError:
                self._end()
                return
            done = 0
            for piece in pieces:
                if sent < len(piece):
                    break
                sent -= len(piece)
                done += 1
            del pieces[:done]
            if sent:
                pieces[0] = memoryview(pieces[0])[sent:]
                break
        if pieces:
            if not self._is_full:
                self._is_full = True
                self._channel.pause_reading()
                self._loop.add_writer(self._fd, self._send)
            return
        if self._is_full:
            self._is_full = False
            self._loop.remove_writer(self._fd)
            self._channel.resume_reading()
        if self._is_over and not self._pieces:
            self._shut()

    def _shut(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(_socket.SHUT_WR)

    # Socket to channel.

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        with suppress(OSError):  # closed by the client, which is about to be told
            self._channel.write(data)

    def hold(self) -> None:
        """Read nothing more from the socket until as many `release` have come."""
        self._holds += 1
        if self._holds == 1 and self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def release(self) -> None:
        """Take back one `hold`."""
        self._holds -= 1
        if not self._holds and self._ended is not None:
            self._loop.add_reader(self._fd, self._read)

    def _end(self) -> None:
        ended = self._ended
        self.stop()
        if ended is not None:
            ended()
