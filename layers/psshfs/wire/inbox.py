"""What comes in from the server: answers are found in it and complete their slots.

As a rule a task waits for octets (`run`), and who awaits a slot is a task that it wakes. On a short
way, that is a trip through the scheduler for each side, several times what the answer itself costs
(measured on two busy cores: 10.5 system calls for a page read, of which 4 are the answer's). So
who waits alone, with a server that answers within a millisecond, stays where it is and receives
itself (`stay`). While it does everything else in this process stands still, which is why it is done
only as long as nobody else turns up:

* After _STAYS waits in place one is made by the scheduler, and others can run meanwhile.
* When a second one waits then, requests overlap, and go on so until _LONE_AFTER_CROWD waits in a
  row had no company.
* An answer that takes longer than _STAY_SECONDS is waited for by the scheduler, as are the next
  _LONE_AFTER_MISS, twice as many with each one more, until _STAYS waits in place went well.
"""

from __future__ import annotations

import errno
import select
import socket as _socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import trio

from ....native import sftp
from ....native.errors import RemoteProtocolError
from ...busypoll import BusyPoll

if TYPE_CHECKING:
    from .connection import Connection
    from .slot import Slot

CHUNK: Final = 1024 * 1024
"""Size of a receive buffer, octets: several of the longest replies."""
CHUNK_REST: Final = 64 * 1024
"""A receive buffer with less room than this is not received into any more."""

_ROUND_TRIP_MAX: Final = 0.001
"""Seconds, the shortest round trip, up to which waits are made in place."""
_STAY_SECONDS: Final = 0.002
"""How long a wait in place may take; poll(2) counts in milliseconds."""
_AWAKE_SECONDS: Final = 0.0003
"""For how much of that the processor is kept, with a server that has answered as soon."""
_STAYS: Final = 32
_LONE_AFTER_CROWD: Final = 16
_LONE_AFTER_MISS: Final = 4
_LONE_AFTER_MISSES: Final = 256
"""At most."""


class Inbox:
    """Receives over `socket`, which is non-blocking, for `connection`.

    File data is handed out as views of the chunk that it was received into; such a chunk is
    never received into again, its views alone keep it alive.
    """

    def __init__(self, connection: Connection, socket: _socket.socket) -> None:
        self._connection = connection
        self._socket = socket
        self._chunk = memoryview(bytearray(CHUNK))
        self._start = self._end = 0
        self._is_loaned = False
        self._poll = select.poll()
        self._poll.register(socket, select.POLLIN)
        self._busy_poll = BusyPoll(socket.fileno(), _AWAKE_SECONDS)
        self._stays = 0
        self._lone_wanted = _LONE_AFTER_CROWD
        self._lone_after_miss = _LONE_AFTER_MISS
        self._parked = 0
        self.stayed = 0
        """Answers that were waited for in place."""

    async def run(self) -> None:
        """Receive until the socket has failed: the body of the receiver's task."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if not self.receive():
                return

    def receive(self) -> bool:
        """Take in what there is; return False when the socket has failed, or had before."""
        connection = self._connection
        chunk, start = self._chunk, self._start
        try:
            count = self._socket.recv_into(chunk[self._end :])
        except BlockingIOError:
            return True
        except OSError as exc:
            connection.failed(f"receiving from the server: {exc.strerror}")
            return False
        if not count:
            connection.failed("the server closed the connection")
            return False
        connection.octets_came(count)
        end = self._end + count
        slot: Slot[Any] | None = None
        breach = ""
        try:
            start, packets = sftp.scan(chunk, start, end, connection.packet_max)
            # What the answers give rise to (the READs behind OPENs) leaves in one call.
            with connection.batch:
                for kind, number, body_start, body_end in packets:
                    slot = connection.take_slot(number)
                    if slot is None:
                        raise RemoteProtocolError(f"an answer to request {number}, never made")
                    if slot.deliver(kind, chunk[body_start:body_end]):
                        self._is_loaned = True
            slot = None
        except RemoteProtocolError as exc:
            breach = f"the server broke the protocol: {exc}"
        if breach:
            # Not above: what is cancelled while an exception is handled keeps that as its
            # context, and with it views of buffers that C has open. Python 3.11 crashes
            # when such a circle is collected (CPython issue 77894).
            connection.failed(breach, errno.EPROTO, slot)
            return False
        self._make_room(start, end)
        connection.unpark()
        return True

    def _make_room(self, start: int, end: int) -> None:
        """Go on behind a partial packet in `start:end`, in another chunk where this one is full."""
        if start == end and not self._is_loaned:
            start = end = 0
        elif len(self._chunk) - end < CHUNK_REST:
            # A partial packet moves to the front; a chunk holds two of the longest.
            rest = end - start
            old = self._chunk
            longest = self._connection.packet_max
            if self._is_loaned or len(old) < 2 * longest:
                self._chunk = memoryview(bytearray(max(CHUNK, 2 * longest)))
                self._is_loaned = False
            self._chunk[:rest] = old[start:end]
            start, end = 0, rest
        self._start, self._end = start, end

    # Waiting in place.

    def stay(self, slot: Slot[Any]) -> bool:
        """Wait for `slot` in place where that is worth it; return whether it is done.

        Otherwise the caller waits by the scheduler, between `parked` and `unparked`.
        """
        if self._stays <= 0 or self._parked or not self._connection.is_prompt(_ROUND_TRIP_MAX):
            return False
        self._stays -= 1
        is_near = self._connection.round_trip.seconds <= _AWAKE_SECONDS
        deadline = monotonic() + _STAY_SECONDS
        while not slot.done:
            # Also of what comes all the time: a long answer, or a server that dribbles.
            left = deadline - monotonic()
            if left <= 0 or not (
                (is_near and self._busy_poll.is_readable()) or self._poll.poll(left * 1000)
            ):
                self._stays = 0
                self._lone_wanted = self._lone_after_miss
                self._lone_after_miss = min(2 * self._lone_after_miss, _LONE_AFTER_MISSES)
                return False
            if not self.receive():
                return slot.done
        if not self._stays:
            self._lone_after_miss = _LONE_AFTER_MISS
        self.stayed += 1
        return True

    def parked(self) -> None:
        """Hear that a task waits for an answer by the scheduler."""
        if self._parked:
            self._stays = 0
            self._lone_wanted = _LONE_AFTER_CROWD
        self._parked += 1

    def unparked(self) -> None:
        """Hear that it does not any more."""
        self._parked -= 1
        self._lone_wanted -= 1
        if self._lone_wanted <= 0:
            self._stays = _STAYS
            self._lone_wanted = 1
