"""Requests in flight on one SFTP byte stream.

A request is *submitted*, which sends it and returns a `Slot`; the slot is
*awaited*, which returns the decoded answer or raises. So a caller overlaps as
many requests as it likes without a task for any of them:

    with connection.batch:
        opened = connection.submit(HANDLE, sftp.open_, path, flags)
        looked = connection.submit(ATTRS, sftp.lstat, path)
    handle = await opened
    attrs = await looked

This module knows requests' numbers and nothing of files; what a connection begins and ends with
is in `connection.py`.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import trio

from ....native import sftp
from ....native.errors import VfsError
from ....native.records import Buffer
from .handle import translated
from .inbox import Inbox
from .outbox import Outbox, constant
from .pace import RoundTrip
from .retention import Retention
from .slot import STATUS, Answer, Slot

T = TypeVar("T")

IN_FLIGHT_MAX: Final = 256
"""Requests in flight above which `room` waits."""
BUSY: Final = 192
"""Requests in flight above which nothing is read ahead, so that others find room."""
QUEUED_MAX: Final = 1024 * 1024
"""Octets that wait for the socket above which `room` waits."""


class Requests:
    """The requests of a connection: which are owed an answer, and who waits to make more.

    Only `room` and awaiting slots wait.
    """

    _outbox: Outbox
    batch: Outbox
    """`with connection.batch:` holds requests back, so that they leave in one call."""
    inbox: Inbox
    heard: float
    """When the last octets came, or when the first request was made after all had been
    answered; trio's time."""

    def __init__(self) -> None:
        self.retains = False
        """What ends the connection loses it only: somebody will bring another socket."""
        self.cause = ""
        """Why the connection ended, for people."""
        self.losses = 0
        """How often the connection was lost."""
        self.loss = ""
        """Why it was lost the last time, for people."""
        self.round_trip = RoundTrip()
        self.waits = 0
        """How often a task has waited for an answer."""
        self.handles: set[bytes] = set()
        """SFTP handles that the server keeps open for us, each a `Handle`."""
        self._slots: dict[int, Slot[Any]] = {}
        self._id = 0
        self._alone = -1
        self._alone_since = 0.0
        self._parked: deque[trio.lowlevel.Task] = deque()
        self._requests = 0
        self._replies = 0
        self._retention = Retention()
        self.retained = self._retention.slots
        """Requests that wait for `resume`, in order, and whether each was sent before the loss."""
        self._is_held = False

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

    def close_handle(self, handle: bytes) -> None:
        """Close an SFTP handle; nobody hears the answer. Does nothing on a dead connection."""
        self.handles.discard(handle)
        if not self._is_held:
            slot = Slot(self, STATUS)
            slot.is_abandoned = True
            with suppress(VfsError):  # a handle that is lost is closed
                self.submit_slot(slot, sftp.close, handle, may_wait=True)

    def unpark(self) -> None:
        """Let those who wait in `room` go on, if there is any."""
        if self._parked and not self.is_congested:
            parked = self._parked
            while parked:
                trio.lowlevel.reschedule(parked.popleft())

    def _unpark_all(self) -> None:
        parked = self._parked
        while parked:
            trio.lowlevel.reschedule(parked.popleft())

    def take_slot(self, number: int) -> Slot[Any] | None:
        """Return the slot of a request whose answer has come; None: there is no such request."""
        slot = self._slots.pop(number, None)
        if number == self._alone:
            self._alone = -1
            self.round_trip.add(self.heard - self._alone_since, self.heard)
        self._replies += 1
        return slot

    def _retain(self, slot: Slot[Any]) -> None:
        if self.cause:
            raise VfsError(errno.ENOTCONN, self.cause)
        self._retention.add(slot, self.loss)
