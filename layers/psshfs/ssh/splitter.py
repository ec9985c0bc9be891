"""Hands asyncssh one SSH packet at a time: what it does with larger pieces is copy them.

asyncssh appends what arrives to one immutable buffer and cuts packets off its front, which
moves everything behind them each time. Given exactly a block, then exactly the rest of
the packet, it moves nothing. With AES-GCM the length stands in clear before each packet, so
packets can be found without a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_SIZE = 1 << 20
_ROOM = 1 << 17
"""Least room for a read; with less the buffer is moved to its front."""
_BLOCK = 16
"""Octets that asyncssh takes first of a packet: the cipher's block."""
_TAG = 16
_SMALL = 4096
_PACKET_MAX = (1 << 18) + 4096


class Splitter(asyncio.BufferedProtocol):
    """Stands between a transport and an asyncssh connection.

    Everything is passed on as it comes until `find_packets`. `before` and `after` are called
    around each batch.
    """

    def __init__(self, connection: Any) -> None:
        self._finds = False
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None
        self.take: Callable[[memoryview], bool] | None = None
        """Tried first, with each whole packet; True: the connection need not see it."""
        self.connection = connection
        self._view = memoryview(bytearray(_SIZE))
        self._start = 0
        self._end = 0

    def find_packets(self) -> bool:
        """Pass on packet by packet from now on, and return whether that could be done.

        AES-GCM must be in use.

        Done only at the border of two packets, or lengths would be read from the midst of one and
        octets held back that the connection waits for. Only the connection knows; when its
        insides are not those that we know, everything goes on as before.
        """
        inside = vars(self.connection)
        if inside.get("_inpbuf") == b"" and inside.get("_packet") == b"":
            self._finds = True
        return self._finds

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give where the transport reads to."""
        if _SIZE - self._end < _ROOM:
            rest = self._end - self._start
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what is complete."""
        self._end += nbytes
        if self.before is not None:
            self.before()
        if self._finds:
            self._pass_packets()
        else:
            self._pass_all()
        if self._start == self._end:
            self._start = self._end = 0
        if self.after is not None:
            self.after()

    def _pass_packets(self) -> None:
        view, start, end = self._view, self._start, self._end
        receive, take = self.connection.data_received, self.take
        while end - start >= _BLOCK:
            length = int.from_bytes(view[start : start + 4], "big") + 4 + _TAG
            if length > _PACKET_MAX:
                self._pass_all()
                return
            if end - start < length:
                return
            if take is not None and take(view[start : start + length]):
                pass
            elif length <= _SMALL:  # one call more costs more than the copy
                receive(bytes(view[start : start + length]))
            else:
                receive(bytes(view[start : start + _BLOCK]))
                receive(bytes(view[start + _BLOCK : start + length]))
            self._start = start = start + length

    def _pass_all(self) -> None:
        if self._start < self._end:
            data = bytes(self._view[self._start : self._end])
            self._start = self._end
            self.connection.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on."""
        self.connection.connection_made(transport)

    def eof_received(self) -> None:
        """Pass on, with what is left."""
        self._pass_all()
        self.connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on, with what is left."""
        self._pass_all()
        self.connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on."""
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self.connection.resume_writing()
