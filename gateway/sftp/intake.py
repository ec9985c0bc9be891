"""What comes in from the client: octets into chunks of memory, packets out of them."""

from __future__ import annotations

import os
import select
from errno import EPERM
from time import monotonic_ns
from typing import Final

import trio

from ...native import sftp_server as sftp
from ...native.memory import unset_memory

SMALL: Final = 32 * 1024
"""A chunk for requests, octets: all that an idle session has."""
LARGE: Final = 1024 * 1024
"""A chunk for file data, octets: four of the longest WRITEs."""
_ROOM: Final = 64 * 1024
"""A large chunk with less room than this at its end is not received into any more, octets."""

_MOMENT: Final = 1
"""How long to linger, ms: the least that poll(2) knows."""
_QUICK: Final = 1_000_000
"""A client that sends its next request in less than this, ns, is worth lingering for."""
_LINGERS: Final = 32
"""How often to linger before the scheduler is asked again."""


class Chunk:
    """Memory that is received into. `users` counts requests whose data lie in it and which wait:
    while there are any, nothing is received over what is there."""

    __slots__ = ("users", "view")

    def __init__(self, length: int) -> None:
        self.view = unset_memory(length)
        self.users = 0


class Intake:
    """Takes packets from the descriptor `fd`, which does not block, each at most `packet_max`."""

    def __init__(self, fd: int, packet_max: int) -> None:
        self._fd = fd
        self._packet_max = packet_max
        self._start = 0
        self._end = 0
        self._is_eager = False
        self._wants_large = False
        self._is_large = False
        self._poll: select.poll | None = None
        self._lingered = _LINGERS
        """How often it was lingered since the scheduler was last asked."""
        self.chunk = Chunk(SMALL)
        """Where the packets that were returned last lie."""
        self.received = 0
        """Octets since the beginning."""

    async def packets(self, *, linger: bool = False) -> list[tuple[int, int, int, int]] | None:
        """Wait for packets and return (type, id, start and end of the body in `chunk`) of each.

        They are good until the next call; None is the end of the stream. With `linger` nobody else
        in the process has anything to do: where the client has been quick to send its next
        request, that one is waited for a moment in the kernel, without the scheduler, whose way
        round takes longer than most requests. Errors: OSError; RemoteProtocolError for a length
        that no packet has.
        """
        while True:
            if not self._is_eager:
                if self._is_large:
                    self._make_small()
                if not (linger and self._linger()):
                    since = monotonic_ns()
                    await self._readable()
                    self._lingered = 0 if monotonic_ns() - since < _QUICK else _LINGERS
            if self._start == self._end and not self._wants_large and not self.chunk.users:
                self._start = self._end = 0  # the usual case of `_make_room`
            else:
                self._make_room()
            chunk = self.chunk
            try:
                count = os.readv(self._fd, [chunk.view[self._end :]])
            except BlockingIOError:
                self._is_eager = False
                continue
            if not count:
                return None
            self.received += count
            self._end += count
            self._wants_large = self._end == len(chunk.view)
            self._start, packets = sftp.scan(chunk.view, self._start, self._end, self._packet_max)
            # Where much came at once there may be more by now; who sends one request waits for it.
            self._is_eager = len(packets) > 1 or self._wants_large
            if packets:
                return packets

    def _linger(self) -> bool:
        """Wait for a moment; return whether something is there. Others get their turn between."""
        if self._lingered >= _LINGERS:
            return False
        self._lingered += 1
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
        if self._poll.poll(_MOMENT):
            return True
        self._lingered = _LINGERS
        return False

    async def _readable(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except OSError as exc:
            if exc.errno != EPERM:
                raise
            # A file or /dev/null, which epoll does not take, is always ready.
            await trio.lowlevel.checkpoint()

    def _make_small(self) -> None:
        """Give large memory up while nothing is in it: the session may be idle for long."""
        if self._start == self._end and not self._wants_large:
            self.chunk = Chunk(SMALL)
            self._is_large = False
            self._start = self._end = 0

    def _make_room(self) -> None:
        """See to it that something can be received; a beginning of a packet moves to the front."""
        chunk, start, end = self.chunk, self._start, self._end
        rest = end - start
        length = len(chunk.view)
        if not rest and not chunk.users:
            self._start = self._end = end = 0
        wants_large = self._wants_large and length < LARGE
        if rest >= 4:
            # `scan` has accepted the length, so it is no longer than a packet may be.
            size = 4 + int.from_bytes(chunk.view[start : start + 4], "big")
            wants_large = wants_large or size > length
            if size <= length - start and not wants_large:
                return
        elif length - end >= (_ROOM if length == LARGE else SMALL // 2) and not wants_large:
            return
        if wants_large or chunk.users:
            length = LARGE if wants_large else length
            new = Chunk(length)
            new.view[:rest] = chunk.view[start:end]
            self.chunk = new
            self._is_large = length == LARGE
        else:
            chunk.view[:rest] = chunk.view[start:end]
        self._start, self._end = 0, rest
