"""The stream of one session, moved between its SSH channel and a socket to the gateway."""

from __future__ import annotations

import asyncio
import socket as _socket
from collections.abc import Callable
from contextlib import suppress

from ...layers.psshfs.ssh.relay import READ_SIZE, Channel, Relay

__all__ = ["READ_SIZE", "SessionRelay"]


class SessionRelay(Relay):
    """A relay that owns its socket, can be half closed, and be held for several reasons at once.

    `ended` is called once, when the near end has closed or broken its socket; never after `stop`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: _socket.socket,
        channel: Channel,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(loop, socket, ended)
        self.attach(channel)
        self._is_over = False
        self._holds = 0

    def start(self) -> None:
        """Begin to move octets to the channel, unless it is held; see `Relay`."""
        if not self._holds and self._ended is not None:
            super().start()

    def stop(self) -> None:
        """Move nothing more and close the socket; harmless when called twice."""
        if self._socket.fileno() >= 0:
            super().stop()
            self._socket.close()

    def finish(self) -> None:
        """The client sends no more: say so to the near end, after what is still to be sent."""
        self._is_over = True
        self._shut()

    def _send(self) -> None:
        super()._send()
        self._shut()

    def _shut(self) -> None:
        if self._is_over and not self._pieces and self._ended is not None:
            with suppress(OSError):
                self._socket.shutdown(_socket.SHUT_WR)

    def hold(self) -> None:
        """Read nothing more from the socket until as many `release` have come."""
        self._holds += 1
        if self._holds == 1:
            self.pause_writing()

    def release(self) -> None:
        """Take back one `hold`."""
        self._holds -= 1
        if not self._holds:
            self.resume_writing()
