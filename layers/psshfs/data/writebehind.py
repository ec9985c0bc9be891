"""Writes that were sent and not yet acknowledged, of one file.

A write returns to its caller as soon as it is on its way and the window has
room. What goes wrong later is kept here and told twice at most: once to the next
writer, so that a program stops early, and once to the next who asks for
durability (fsync, close), which is where it must not be missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from ....native import sftp
from ....native.errors import VfsError
from ....native.records import Buffer
from ..wire.channels import Channels
from ..wire.connection import Connection
from ..wire.pace import Pace
from ..wire.slot import STATUS, Slot

REQUESTS_MAX: Final = 128
"""Unacknowledged writes of one file."""
SMALL: Final = 16 * 1024
"""A write up to this length, octets, leaves with the close that is likely to follow."""
CHANNEL_MAX: Final = 4 * 1024 * 1024
"""Octets unacknowledged on one session while there are others, of a file that is to go over these,
too, in a moment: what the window of its channel lets through in two round trips."""


class WriteSlot(Slot[None]):
    """A WRITE whose acknowledgement is owed to a `WriteBehind`."""

    __slots__ = ("before", "end", "is_through", "kept", "offset", "owner", "since")

    def __init__(
        self, owner: WriteBehind, connection: Connection, offset: int, length: int
    ) -> None:
        super().__init__(connection, STATUS, shared=True)
        self.owner = owner
        self.offset = offset
        self.end = offset + length
        self.before = owner.pace.delivered
        self.since = trio.current_time()
        self.is_through = False
        """Its writer waits for it: nobody else need hear of an error."""
        self.kept: tuple[bytes, bytes] | None = None
        """The main session's handle and the data, of a write on a further session."""

    def _wake(self) -> None:
        self.owner.acknowledged(self)
        super()._wake()


class WriteBehind:
    """The window of one file's writes.

    `window` is the number of octets that may be unacknowledged after a write has returned;
    fewer where `pace` says that the link does not need so many.
    """

    __slots__ = (
        "_durability_error",
        "_holds",
        "_next",
        "_parked",
        "_pending",
        "_window",
        "_writer_error",
        "channels",
        "closing",
        "connection",
        "end",
        "end_answered",
        "end_sent",
        "octets",
        "on_idle",
        "pace",
    )

    def __init__(self, channels: Channels, window: int, pace: Pace) -> None:
        self.channels = channels
        self.connection = channels.connection
        self.pace = pace
        self.octets = 0
        self.end = 0
        """No unacknowledged write reaches farther; 0 when there is none."""
        self.end_answered = 0
        """The file reaches so far by writes that were acknowledged..."""
        self.end_sent = 0
        """...and no farther by all that were sent, if it was not longer before."""
        self._window = window
        self._pending: dict[WriteSlot, None] = {}
        self.closing: list[bytes] = []
        """SFTP handles that will be closed when every write has been answered."""
        self._parked: deque[trio.lowlevel.Task] = deque()
        self._holds = 0
        self._writer_error: VfsError | None = None
        self._durability_error: VfsError | None = None
        self._next: Callable[[], None] | None = None
        self.on_idle: Callable[[], None] | None = None
        """Called when the last write is answered."""

    @property
    def is_idle(self) -> bool:
        """Tell whether every write has been answered."""
        return not self._pending

    async def write(self, handle: bytes, offset: int, data: Buffer, length_max: int) -> None:
        """Send `data`, in pieces of `length_max` octets at most; return when the window has room.

        `data` is not referred to after the return. Writes that overlap are kept in order. Without a
        window this returns when the data have been answered for, other writers' or not: many can
        be under way at once, and each hears of its own.
        Errors: an earlier write's, if no writer has heard of it; those of a connection.
        """
        if not self._window:
            await self._write_through(handle, offset, data, length_max)
            return
        if self._writer_error is not None:
            error, self._writer_error = self._writer_error, None
            raise error
        length = len(data)
        if offset < self.end:
            await self.settle(offset, offset + length)
        view = data if length <= length_max else memoryview(data)
        at = 0
        while at < length:
            while True:
                connection, name = self.channels.route(handle)
                if self._holds:
                    await self.change()
                elif connection.is_congested:
                    await connection.room()
                else:
                    break
            piece = view if length <= length_max else view[at : at + length_max]
            size = len(piece)
            slot = WriteSlot(self, connection, offset + at, size)
            if connection is not self.connection:
                piece = bytes(piece)
                slot.kept = handle, piece
            connection.submit_slot(
                *(slot, sftp.write, name, offset + at, size),
                payload=piece,
                may_wait=size <= SMALL and not self._pending,
            )
            self._sent(slot)
            at += size
            while self._is_full(handle, length_max):
                await self.change()

    def push(self, handle: bytes, offset: int, data: Buffer, length_max: int) -> None:
        """Send `data` as `write` does, whatever the window; for data that nobody waits for."""
        view = memoryview(data)
        for at in range(0, len(view), length_max):
            piece = view[at : at + length_max]
            slot = WriteSlot(self, self.connection, offset + at, len(piece))
            self.connection.submit_slot(
                slot, sftp.write, handle, offset + at, len(piece), payload=piece
            )
            self._sent(slot)

    def follow(self, then: Callable[[], None]) -> None:
        """Have `then` called as soon as every write has been answered, before a handle is closed;
        at once when there is none under way."""
        if self._pending:
            self._next = then
        else:
            then()

    @property
    def is_followed(self) -> bool:
        """Tell whether something waits for the last write to be answered."""
        return self._next is not None

    def push_attrs(self, handle: bytes, attrs: sftp.Attrs) -> None:
        """Set attributes as a write is made: nobody waits, and no handle is closed before the
        answer. Whether they were set is for the caller to see."""
        slot = WriteSlot(self, self.connection, 0, 0)
        slot.is_through = True
        self.connection.submit_slot(slot, sftp.fsetstat, handle, attrs)
        self._sent(slot)

    def _sent(self, slot: WriteSlot) -> None:
        """Note a write that was submitted; sending it may have ended its session, and it."""
        self.end_sent = max(self.end_sent, slot.end)
        if not slot.done:
            self._pending[slot] = None
            self.octets += slot.end - slot.offset
            self.end = max(self.end, slot.end)

    def fail(self, error: VfsError) -> None:
        """Note an error of a write that could not even be sent."""
        self._writer_error = self._writer_error or error
        self._durability_error = self._durability_error or error

    async def _write_through(
        self, handle: bytes, offset: int, data: Buffer, length_max: int
    ) -> None:
        connection = self.connection
        view = memoryview(data)
        length = len(view)
        if offset < self.end:
            await self.settle(offset, offset + length)
        slots = []
        for at in range(0, length, length_max):
            while connection.is_congested or len(self._pending) >= REQUESTS_MAX:
                await (connection.room() if connection.is_congested else self.change())
            piece = view[at : at + length_max]
            slot = WriteSlot(self, connection, offset + at, len(piece))
            slot.is_through = True
            connection.submit_slot(slot, sftp.write, handle, offset + at, len(piece), payload=piece)
            self._sent(slot)
            slots.append(slot)
        try:
            for slot in slots:
                await slot.wait()
        except BaseException:
            for slot in slots:
                slot.is_through = False  # nobody waits any more
            raise
        for slot in slots:
            slot.result()

    def _is_full(self, handle: bytes, length_max: int) -> bool:
        """Tell whether the window has no room; it always has for one piece."""
        most = self._window
        if self.channels.count > 1 and not self.channels.is_spread(handle):
            most = min(most, CHANNEL_MAX)
        most = min(most, max(self.pace.window, length_max))
        return self.octets > most or len(self._pending) >= REQUESTS_MAX

    def acknowledged(self, slot: WriteSlot) -> None:
        """Hear that a write was answered."""
        if slot.is_cut and slot.kept is not None:
            self._send_again(slot, *slot.kept)
            return
        is_ours = self._pending.pop(slot, self) is None
        if is_ours and slot.end:
            octets = slot.end - slot.offset
            self.octets -= octets
            self.pace.answered(octets, slot.before, slot.since, slot.connection.heard)
        if not slot.is_failed:
            self.end_answered = max(self.end_answered, slot.end)
        elif not slot.is_through:
            try:
                slot.result()
            except VfsError as exc:
                self._writer_error = self._writer_error or exc
                self._durability_error = self._durability_error or exc
        if is_ours and not self._pending:
            self._all_answered()
        parked = self._parked
        while parked:
            trio.lowlevel.reschedule(parked.popleft())
        if not self._pending and self.on_idle is not None:
            self.on_idle()

    def _all_answered(self) -> None:
        self.end = 0
        then, self._next = self._next, None
        if then is not None:
            then()
        while self.closing and not self._pending:
            self.channels.close(self.closing.pop())

    def _send_again(self, slot: WriteSlot, handle: bytes, data: bytes) -> None:
        """Send on the main session what was on its way on one that has ended.

        Nothing that overlaps has been sent since, for it waits; see `settle`.
        """
        again = WriteSlot(self, self.connection, slot.offset, len(data))
        if self._pending.pop(slot, self) is self:  # it ended by being sent to
            self.octets += len(data)
            self.end = max(self.end, slot.end)
        self._pending[again] = None
        try:
            self.connection.submit_slot(
                again, sftp.write, handle, slot.offset, len(data), payload=data
            )
        except VfsError as exc:
            again.fail(exc.errno)

    def resized(self, size: int) -> None:
        """Hear that the file was given this size."""
        self.end_answered = self.end_sent = size

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Have no write under way while the block lasts: those that come wait for its end."""
        self._holds += 1
        try:
            await self.drain()
            yield
        finally:
            self._holds -= 1
            while self._parked:
                trio.lowlevel.reschedule(self._parked.popleft())

    def close(self, handle: bytes) -> None:
        """Close an SFTP handle once every write has been answered: a server that works on
        several requests at once must not close it before."""
        if self._pending:
            self.closing.append(handle)
        else:
            self.channels.close(handle)

    async def settle(self, start: int, end: int) -> None:
        """Wait until no unacknowledged write overlaps [start, end)."""
        while start < self.end and any(
            slot.offset < end and start < slot.end for slot in self._pending
        ):
            await self.change()

    async def drain(self) -> None:
        """Wait until every write has been answered; errors stay where they are."""
        while self._pending:
            # Answers come in order as a rule: the last one wakes once, and can be met in place.
            await next(reversed(self._pending)).wait()

    @property
    def has_error(self) -> bool:
        """Tell whether an error waits for somebody who asks for durability."""
        return self._durability_error is not None

    @property
    def error(self) -> VfsError | None:
        """The error that waits for somebody who asks for durability; it still waits then."""
        return self._durability_error

    def take_error(self) -> VfsError | None:
        """Return the error that is owed to who asks for durability; it is told then."""
        error, self._durability_error = self._durability_error, None
        self._writer_error = None
        return error

    async def change(self) -> None:
        """Wait until some write is answered; without one under way, for ever."""
        task = trio.lowlevel.current_task()
        self._parked.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
