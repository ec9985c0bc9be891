"""What comes in from the client: octets into chunks of memory, packets out of them."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from errno import EPERM
from time import monotonic_ns
from typing import Final, TypeAlias

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
_UNYIELDED_MAX: Final = 32
"""How often to receive before the scheduler is asked again: others may wait."""

Packets: TypeAlias = Sequence[tuple[int, int, int, int]]
"""Packets in a chunk: type, id, start and end of the body of each."""


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
        self._is_quick = False
        """Whether the client sends its next request in a moment."""
        self._unyielded = 0
        """How often something was received since the scheduler was last asked."""
        self._is_at_end = False
        self.chunk = Chunk(SMALL)
        """Where the packets that were returned last lie."""
        self.received = 0
        """Octets since the beginning."""

    def take(self, *, linger: bool) -> Packets:
        """Return packets that can be had without the scheduler; none: await `packets`.

        Where much came at once there may be more by now. With `linger` nobody else in the process
        has anything to do: where the client has been quick to send its next request, that one is
        waited for a moment in the kernel, for the way round the scheduler takes longer than most
        requests. Others get their turn now and then all the same. Errors: as `packets`.
        """
        if self._unyielded >= _UNYIELDED_MAX:
            return ()
        if not self._is_eager and not (linger and self._linger()):
            return ()
        self._unyielded += 1
        return self._receive()

    async def packets(self) -> Packets:
        """Wait for packets and return (type, id, start and end of the body in `chunk`) of each.

        They are good until the next call. None are the end of the stream. Errors: OSError;
        RemoteProtocolError for a length that no packet has.
        """
        while True:
            if self._is_eager:
                await trio.lowlevel.checkpoint()
            else:
                if self._is_large:
                    self._make_small()
                since = monotonic_ns()
                await self._readable()
                self._is_quick = monotonic_ns() - since < _QUICK
            self._unyielded = 0
            found = self._receive()
            if found or self._is_at_end:
                return found

    def _receive(self) -> Packets:
        """Receive once; return the packets that are whole now."""
        chunk, end = self.chunk, self._end
        if self._start == end and not self._wants_large and not chunk.users:
            self._start = self._end = end = 0  # the usual case of `_make_room`
        else:
            self._make_room()
            chunk, end = self.chunk, self._end
        view = chunk.view
        try:
            count = os.readv(self._fd, (view[end:] if end else view,))
        except BlockingIOError:
            self._is_eager = False
            return ()
        if not count:
            self._is_at_end = True
            self._is_eager = False
            return ()
        self.received += count
        self._end = end = end + count
        self._wants_large = end == len(view)
        self._start, found = sftp.scan(view, self._start, end, self._packet_max)
        # Who sends one request waits for its answer.
        self._is_eager = len(found) > 1 or self._wants_large
        return found

    def _linger(self) -> bool:
        """Wait for a moment; return whether something is there."""
        if not self._is_quick:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
        if not self._poll.poll(_MOMENT):
            self._is_quick = False
        return self._is_quick

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
