"""Octets of one SSH channel to a socket and back: the data path of the pump, and of SSH servers.

Copies and wake-ups are what this costs, so: what arrives in one turn of the loop leaves in one
system call, sending is tried at once and a writer is registered only when the socket is full,
and both directions stop reading as soon as the other side cannot take more.
"""

from __future__ import annotations

import asyncio
import socket as _socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

READ_SIZE: Final = 1 << 18
"""Octets asked from the socket at once: one WRITE, or answer, with 255 KiB of data and more."""
_IOV: Final = 64
"""Pieces sent by one system call."""


class Channel(Protocol):
    """What is needed of asyncssh's SSHClientChannel or SSHServerChannel."""

    def write(self, data: bytes) -> None:
        """Send; never refuses, but asks the session to pause when much is queued."""

    def pause_reading(self) -> None:
        """Deliver nothing more until resumed; the window then holds the other side back."""

    def resume_reading(self) -> None:
        """Deliver again, what is queued first."""


class Relay:
    """Moves octets between `socket` (non-blocking, owned by the caller) and a channel.

    `ended` is called once, when the near end has closed or broken its socket.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: _socket.socket,
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._fd = socket.fileno()
        self._ended: Callable[[], None] | None = ended
        self._channel: Channel | None = None
        self._pieces: list[bytes | memoryview] = []
        self._flush_due = False
        self._batch = False
        self._full = False
        self._held = False
        self.received = 0
        """Octets that came from the channel."""

    def attach(self, channel: Channel) -> None:
        """Say which channel it is; before anything is delivered."""
        self._channel = channel

    def start(self) -> None:
        """Begin to move octets to the channel; the other direction begins with `deliver`."""
        self._loop.add_reader(self._fd, self._read)

    def stop(self) -> None:
        """Move nothing more; harmless when called twice."""
        self._ended = None
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._pieces.clear()

    # Channel to socket.

    def deliver(self, data: bytes | memoryview) -> None:
        """Take octets of the channel; they leave with the batch, or soon when there is none."""
        self.received += len(data)
        self._pieces.append(data)
        if not (self._flush_due or self._full or self._batch):
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def begin_batch(self) -> None:
        """Say that more may come at once; `end_batch` follows in the same turn of the loop."""
        self._batch = True

    def end_batch(self) -> None:
        """Send what came since `begin_batch`."""
        self._batch = False
        if self._pieces and not self._full:
            self._send()

    def _flush(self) -> None:
        self._flush_due = False
        if self._pieces and not self._full:
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
        if pieces and not self._full:
            self._full = True
            assert self._channel is not None
            self._channel.pause_reading()
            self._loop.add_writer(self._fd, self._send)
        elif not pieces and self._full:
            self._full = False
            self._loop.remove_writer(self._fd)
            assert self._channel is not None
            self._channel.resume_reading()

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
        assert self._channel is not None
        with suppress(OSError):  # closed by the other side; we are about to be told
            self._channel.write(data)

    def pause_writing(self) -> None:
        """Read nothing more from the socket: the other side takes nothing for now."""
        if not self._held and self._channel is not None and self._ended is not None:
            self._held = True
            self._loop.remove_reader(self._fd)

    def resume_writing(self) -> None:
        """Read from the socket again."""
        if self._held and self._ended is not None:
            self._held = False
            self._loop.add_reader(self._fd, self._read)

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        self.stop()
        if ended is not None:
            ended()
