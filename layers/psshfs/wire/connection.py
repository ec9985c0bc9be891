"""One SFTP session over one byte stream at a time: how it begins, is lost, goes on and ends.

Three tasks, owned by `open_connection`, serve a connection: one reads and
completes slots, one sends what the socket did not take at once, one watches
for silence. This module knows packets' types and ids and nothing of files.

What ends a connection ends every wait at once: the request whose answer broke
the protocol gets EPROTO, requests that met silence get ETIMEDOUT, and all others and
all later ones get ENOTCONN.

A connection that `retains` is lost by the same causes and does not end: all requests but the
culprit, and those made meanwhile, wait for `resume`, which sends them over another socket
(`link.py` brings it), or for `give_up`. So who awaits a slot hears of a loss only when patience
has ended. The order of requests stays as it was.
"""

from __future__ import annotations

import errno
import logging
import socket as _socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

import trio

from ....native import sftp
from ....native.errors import VfsError
from ...background import background
from .inbox import Inbox
from .outbox import Outbox
from .requests import Requests
from .slot import VERSION, Slot

_log = logging.getLogger(__name__)

PACKET_MAX: Final = 256 * 1024 + 4096
"""Longest packet taken from a server that has not stated longer reads (OpenSSH's limit)."""
REQUEST_TIMEOUT: Final = 120.0
"""Seconds without an octet, while answers are owed, after which a server counts as dead."""
LATE: Final = 5.0
"""Seconds after its time at which the watcher wakes up only if this process was stopped."""


class ConnectionStatistics(NamedTuple):
    """Counters since the connection was opened, and what is going on now.

    `is_up`: it has not ended, and is not waiting to be made again. `losses` is how often it was
    lost, `loss` why it was the last time, or why it has ended.
    """

    is_up: bool
    losses: int
    loss: str
    requests: int
    replies: int
    octets_sent: int
    octets_received: int
    waits: int
    in_flight: int
    octets_queued: int


class Connection(Requests):
    """One SFTP session's packets over `socket`, a stream socket that somebody else owns.

    Made by `open_connection`. All methods must be called from the task tree's thread.
    """

    def __init__(self, socket: _socket.socket, *, timeout: float = REQUEST_TIMEOUT) -> None:
        super().__init__()
        self._timeout = timeout
        self._received = 0
        self.packet_max = PACKET_MAX
        """Longest packet that the server may send, octets."""
        self.lost: trio.Event
        """Set when the socket has failed; another event for each socket."""
        self.resumed = trio.Event()
        """Set by `resume`; another event after each loss."""
        self._is_whole = True
        self.broken = trio.Event()
        """Set when the connection has ended, by whatever cause."""
        self.loss_level = logging.WARNING
        """How loudly its loss is told."""
        self.take(socket)

    def take(self, socket: _socket.socket) -> None:
        """Go on over `socket`, which stays the caller's and is made non-blocking; `serve` it now.

        Until `resume` only `Restoring` gets requests through.
        """
        socket.setblocking(False)
        self._socket = socket
        self._outbox = Outbox(socket, self.unpark, self.failed)
        self.inbox = Inbox(self, socket)
        self.batch = self._outbox
        self._scope = trio.CancelScope()
        self.lost = trio.Event()
        self.heard = trio.current_time()
        self._alone = -1
        self._alone_since = 0.0

    def submit_ahead(self, slot: Slot[Any], encode: Callable[..., bytes], *args: Any) -> None:
        """As `submit_slot`, although the connection is not whole yet; for `Restoring` alone."""
        if self._scope.cancel_called:
            raise VfsError(errno.ENOTCONN, self.cause or self.loss)
        held, self._is_held = self._is_held, False
        try:
            self.submit_slot(slot, encode, *args)
        finally:
            self._is_held = held

    async def greet(self) -> tuple[int, dict[bytes, bytes]]:
        """Exchange INIT and VERSION, the first thing on a connection; return version, extensions.

        Errors: EPROTO for a peer that speaks something else, ENOTCONN, ETIMEDOUT.
        """
        slot = Slot(self, VERSION)
        self.heard = trio.current_time()
        self._slots[0] = slot
        self._requests += 1
        self._outbox.send(sftp.init(), b"")
        return await slot

    def set_packet_max(self, octets: int) -> None:
        """Say how long a packet the server may send, octets."""
        self.packet_max = octets

    # Receiving; see `inbox.py`.

    def octets_came(self, count: int) -> None:
        """Hear from the inbox that the server is alive."""
        self.heard = trio.current_time()
        self._received += count

    def is_prompt(self, seconds: float) -> bool:
        """Tell whether all requests have left for a server that is seen to answer within
        `seconds`."""
        self._outbox.flush()
        return (
            0 < self.round_trip.seconds <= seconds
            and self._outbox.is_empty
            and not self._is_held
            and not self._scope.cancel_called
        )

    async def _watch(self) -> None:
        """End the connection when answers are owed and nothing comes: the watcher's body."""
        while True:
            now = trio.current_time()
            due = self.heard + self._timeout
            if not self._slots:
                due = now + self._timeout
            elif now > due + LATE:
                # It was we who were stopped: what came meanwhile has yet to be read.
                self.heard = now
                due = now + self._timeout
            elif now >= due:
                self.failed(f"no octet from the server for {self._timeout:g} s", errno.ETIMEDOUT)
                return
            await trio.sleep_until(due)

    # The end.

    def close(self) -> None:
        """End the connection from our side; does nothing when it has ended."""
        self.failed("the connection was closed", is_ours=True)

    def drop(self, cause: str) -> None:
        """Take the socket for dead; does nothing when it is known to be."""
        self.failed(cause)

    def failed(
        self,
        cause: str,
        number: int = errno.ENOTCONN,
        culprit: Slot[Any] | None = None,
        *,
        is_ours: bool = False,
    ) -> None:
        """End, or be lost: fail `culprit` and, where there is none, all slots with `number`."""
        if self.cause or (self._scope.cancel_called and not is_ours):
            return
        self._scope.cancel()
        with suppress(OSError):
            # So that the process behind the stream hears of it, too.
            self._socket.shutdown(_socket.SHUT_RDWR)
        if not is_ours and self._is_whole:
            _log.log(self.loss_level, "SFTP connection lost: %s", cause)
        if culprit is not None:
            culprit.fail(number)
            number = errno.ENOTCONN
        self._outbox.clear()
        slots = list(self._slots.values())
        self._slots.clear()
        if self.retains and not is_ours:
            self._lose(cause, slots)
            return
        self.cause = cause
        self._is_held = True
        for slot in (*slots, *self.retained):
            slot.fail(number)
        self.retained.clear()
        self._unpark_all()
        self.broken.set()

    # Loss and return, for a connection that retains.

    def _lose(self, cause: str, slots: list[Slot[Any]]) -> None:
        self.loss = cause
        self.lost.set()
        if not self._is_whole:
            for slot in slots:
                slot.fail(errno.ENOTCONN)  # of `Restoring`, for there are no others
            return
        self.losses += 1
        self._is_held = True
        self._is_whole = False
        self._retention.lose(slots)
        self.resumed = trio.Event()

    def give_up(self, number: int, age: float = 0.0) -> None:
        """Fail what is retained with errno `number`, and all requests until `resume`.

        With `age`, only requests that were lost for the first time so many seconds ago, and none
        that is made later.
        """
        self._retention.give_up(number, age)
        if not age:
            self._unpark_all()

    def resume(self) -> None:
        """Send all that was retained, in order, and hold back nothing from now on."""
        self._is_held = False
        self._is_whole = True
        self.round_trip.forget()
        self.resumed.set()
        with self.batch:
            for slot in self._retention.take():
                try:
                    self.submit_slot(slot, slot.encode, *slot.args, payload=slot.payload)
                except VfsError as exc:
                    slot.fail(exc.errno)
        self.unpark()

    async def serve(self) -> None:
        """Serve the socket that was taken last; return when it has failed."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.inbox.run)
                nursery.start_soon(self._outbox.run)
                nursery.start_soon(self._watch)

    def statistics(self) -> ConnectionStatistics:
        """Return the counters."""
        return ConnectionStatistics(
            not self.cause and not self.lost.is_set() and self._is_whole,
            self.losses,
            self.cause or self.loss,
            self._requests,
            self._replies,
            self._outbox.sent,
            self._received,
            self.waits,
            len(self._slots),
            self._outbox.queued,
        )


@asynccontextmanager
async def open_connection(
    socket: _socket.socket, *, timeout: float = REQUEST_TIMEOUT
) -> AsyncIterator[Connection]:
    """Serve an SFTP session over `socket` while the context lasts.

    The socket stays the caller's; it is made non-blocking, and shut down at the end.
    `timeout`: seconds of silence, while answers are owed, that end the connection.
    """
    connection = Connection(socket, timeout=timeout)
    async with background(connection.serve):
        try:
            yield connection
        finally:
            connection.close()
