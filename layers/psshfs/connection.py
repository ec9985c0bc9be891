"""Requests in flight on one SFTP byte stream.

A request is *submitted*, which sends it and returns a `Slot`; the slot is
*awaited*, which returns the decoded answer or raises. So a caller overlaps as
many requests as it likes without a task for any of them:

    with connection.batch:
        opened = connection.submit(HANDLE, sftp.open_, path, flags)
        looked = connection.submit(ATTRS, sftp.lstat, path)
    handle = await opened
    attrs = await looked

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
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar

import trio

from ...native import sftp
from ...native.errors import VfsError
from ...native.records import Buffer
from ..background import background
from .handle import translated
from .inbox import Inbox
from .outbox import Outbox, constant
from .pace import RoundTrip
from .retention import Retention
from .slot import STATUS, VERSION, Answer, Slot

_log = logging.getLogger(__name__)

T = TypeVar("T")

IN_FLIGHT_MAX: Final = 256
"""Requests in flight above which `room` waits."""
BUSY: Final = 192
"""Requests in flight above which nothing is read ahead, so that others find room."""
QUEUED_MAX: Final = 1024 * 1024
"""Octets that wait for the socket above which `room` waits."""
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


class Connection:
    """One SFTP session's packets over `socket`, a stream socket that somebody else owns.

    Made by `open_connection`. All methods must be called from the task tree's thread; only
    `room` and awaiting slots wait.
    """

    def __init__(self, socket: _socket.socket, *, timeout: float = REQUEST_TIMEOUT) -> None:
        self._timeout = timeout
        self.retains = False
        """What ends the connection loses it only: somebody will bring another socket."""
        self._slots: dict[int, Slot[Any]] = {}
        self._id = 0
        self._parked: deque[trio.lowlevel.Task] = deque()
        self.round_trip = RoundTrip()
        self._requests = 0
        self._replies = 0
        self._received = 0
        self.waits = 0
        """How often a task has waited for an answer."""
        self.handles: set[bytes] = set()
        """SFTP handles that the server keeps open for us, each a `Handle`."""
        self.packet_max = PACKET_MAX
        """Longest packet that the server may send, octets."""
        self.losses = 0
        """How often the connection was lost."""
        self.loss = ""
        """Why it was lost the last time, for people."""
        self.lost: trio.Event
        """Set when the socket has failed; another event for each socket."""
        self.resumed = trio.Event()
        """Set by `resume`; another event after each loss."""
        self._retention = Retention()
        self.retained = self._retention.slots
        """Requests that wait for `resume`, in order, and whether each was sent before the loss."""
        self._is_held = False
        self._is_whole = True
        self.broken = trio.Event()
        """Set when the connection has ended, by whatever cause."""
        self.loss_level = logging.WARNING
        """How loudly its loss is told."""
        self.cause = ""
        """Why the connection ended, for people."""
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
        """`with connection.batch:` holds requests back, so that they leave in one call."""
        self._scope = trio.CancelScope()
        self.lost = trio.Event()
        self.heard = trio.current_time()
        """When the last octets came, or when the first request was made after all had been
        answered; trio's time."""
        self._alone = -1
        self._alone_since = 0.0

    # Submitting.

    @property
    def is_broken(self) -> bool:
        """Tell whether the connection has ended."""
        return bool(self.cause)

    @property
    def in_flight(self) -> int:
        """How many requests have not been answered."""
        return len(self._slots)

    @property
    def is_congested(self) -> bool:
        """Tell whether `room` would wait."""
        return (
            len(self._slots) >= IN_FLIGHT_MAX
            or self._outbox.queued >= QUEUED_MAX
            or len(self.retained) >= IN_FLIGHT_MAX
        )

    @property
    def is_busy(self) -> bool:
        """Tell whether what nobody waits for yet should not be asked for now."""
        return (
            len(self._slots) >= BUSY or self._outbox.queued >= QUEUED_MAX or len(self.retained) > 0
        )

    async def room(self) -> None:
        """Wait until more requests may be submitted; return at once when they may now.

        The bounds are soft: what is submitted without asking is sent all the same, so each
        operation asks once and then submits its handful.
        """
        while self.is_congested and not self.cause:
            task = trio.lowlevel.current_task()
            self._parked.append(task)

            def abort(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._parked.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)

    def submit(self, answer: Answer[T], encode: Callable[..., bytes], *args: Any) -> Slot[T]:
        """Send the request that `encode(id, *args)` makes; return the slot of its answer."""
        slot = Slot(self, answer)
        self.submit_slot(slot, encode, *args)
        return slot

    def submit_slot(
        self,
        slot: Slot[Any],
        encode: Callable[..., bytes],
        *args: Any,
        payload: Buffer = b"",
        may_wait: bool = False,
    ) -> None:
        """Send a request whose slot the caller made; `payload` follows the encoded head.

        `payload` may change after the return: what is needed longer is copied, unless it is bytes.
        `may_wait`: it leaves with the next request, or as soon as nothing else is to be done here.
        Errors: ENOTCONN after the end of the connection; what `give_up` said while it is lost; that
        of a handle that is lost for good.
        """
        slot.encode = encode
        slot.args = args
        if payload and self.retains:
            payload = slot.payload = constant(payload)
        if self._is_held:
            self._retain(slot)
            return
        if self.losses:
            args = translated(args, self.losses)
        number = self._id
        slots = self._slots
        while True:
            number = number + 1 if number < 0xFFFFFFFF else 1
            if number not in slots:
                break
        self._id = number
        packet = encode(number, *args)
        if not slots:
            self.heard = trio.current_time()
            self._alone = number
            self._alone_since = self.heard
        slots[number] = slot
        self._requests += 1
        self._outbox.send(packet, payload, may_wait=may_wait)

    def submit_ahead(self, slot: Slot[Any], encode: Callable[..., bytes], *args: Any) -> None:
        """As `submit_slot`, although the connection is not whole yet; for `Restoring` alone."""
        if self._scope.cancel_called:
            raise VfsError(errno.ENOTCONN, self.cause or self.loss)
        held, self._is_held = self._is_held, False
        try:
            self.submit_slot(slot, encode, *args)
        finally:
            self._is_held = held

    def close_handle(self, handle: bytes) -> None:
        """Close an SFTP handle; nobody hears the answer. Does nothing on a dead connection."""
        self.handles.discard(handle)
        if not self._is_held:
            slot = Slot(self, STATUS)
            slot.is_abandoned = True
            with suppress(VfsError):  # a handle that is lost is closed
                self.submit_slot(slot, sftp.close, handle, may_wait=True)

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

    def unpark(self) -> None:
        """Let those who wait in `room` go on, if there is any."""
        if self._parked and not self.is_congested:
            parked = self._parked
            while parked:
                trio.lowlevel.reschedule(parked.popleft())

    # Receiving; see `inbox.py`.

    def octets_came(self, count: int) -> None:
        """Hear from the inbox that the server is alive."""
        self.heard = trio.current_time()
        self._received += count

    def take_slot(self, number: int) -> Slot[Any] | None:
        """Return the slot of a request whose answer has come; None: there is no such request."""
        slot = self._slots.pop(number, None)
        if number == self._alone:
            self._alone = -1
            self.round_trip.add(self.heard - self._alone_since, self.heard)
        self._replies += 1
        return slot

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

    def _unpark_all(self) -> None:
        parked = self._parked
        while parked:
            trio.lowlevel.reschedule(parked.popleft())

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

    def _retain(self, slot: Slot[Any]) -> None:
        if self.cause:
            raise VfsError(errno.ENOTCONN, self.cause)
        self._retention.add(slot, self.loss)

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
