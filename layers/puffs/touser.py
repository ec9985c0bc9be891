"""Requests in flight: the way from whoever asks to whoever answers, and the answer's way back.

Named after the queue of kernel puffs. Two ways, one face (`Touser`):

    DirectTouser   the server half is in this process: its handler is awaited in the caller's
                   own task. No queue, no task, no wake-up; a cancelled caller cancels the handler.
    QueueTouser    the other half is behind a putter: requests are matched with replies by id.

Who is interrupted (cancelled) while he waits in a `QueueTouser`: a request of which
nothing was written is withdrawn and never happens; one that was sent may happen, and its
late reply goes to `late`, which gives back what nobody is there to take.

The death of the putter ends all calls at once with ENXIO; see the state rule there.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ENXIO
from typing import Any, Final, Protocol, TypeAlias

import trio
from outcome import Error, Value
from trio.lowlevel import Abort, RaiseCancelT, Task

from ...native.constants import OPCLASS_MASK
from ...native.errors import RemoteProtocolError, TransportError, VfsError
from ...native.frames import Header, decode_reply
from ...native.records import Buffer
from .putter import Outgoing, Putter
from .server import ServerHalf

MAX_IN_FLIGHT: Final = 128
"""Requests of one kernel half that may be without an answer; part of the protocol, for a server
half has as many workers, and two more."""

_ID: Final = slice(8, 16)
"""Where the header has its id (native/frames)."""

Reply: TypeAlias = tuple[Header, Any]
"""A decoded reply: header (`rv` may be an error) and result."""

Late: TypeAlias = Callable[[Header, Any, tuple[Any, ...]], None]


class Touser(Protocol):
    """How a kernel half reaches its server.

    `withdrawn` requests were taken back before they were sent; `unknown` replies were dropped
    because nobody had asked.
    """

    withdrawn: int
    unknown: int

    @property
    def is_dead(self) -> bool:
        """Whether every call ends with ENXIO from now on."""
        ...

    @property
    def in_flight(self) -> int:
        """How many requests are without an answer, abandoned ones included."""
        ...

    async def call(
        self,
        head: bytes,
        payload: Buffer | None,
        id: int,
        kind: int,
        args: tuple[Any, ...],
        *,
        urgent: bool = False,
    ) -> Reply:
        """Send a request and return the reply.

        `kind` is opclass << 6 | optype, as the reply must have it; `args` is for `late`.
        `payload` stays as it is until this returns or raises. `urgent` passes the bound on
        requests in flight. Errors: ENXIO; RemoteProtocolError for a reply that cannot be one.
        """
        ...

    def post(self, head: bytes) -> None:
        """Send what has no reply; never waits, never fails: to the dead nothing is sent."""
        ...

    def end(self) -> None:
        """Make all calls, those that wait and those to come, end with ENXIO."""
        ...


class DirectTouser:
    """Requests to a server half in this process, each a call in the caller's own task.

    `nursery` runs what is sent as fire-and-forget and may have to wait. Whoever waits in an
    operation of the server when this ends goes on until the server's unmount ends him.
    """

    def __init__(self, half: ServerHalf, nursery: trio.Nursery) -> None:
        self.withdrawn = 0
        self.unknown = 0
        self._half = half
        self._nursery = nursery
        self._is_dead = False
        self._in_flight = 0

    @property
    def is_dead(self) -> bool:
        """See Touser."""
        return self._is_dead

    @property
    def in_flight(self) -> int:
        """See Touser."""
        return self._in_flight

    async def call(
        self,
        head: bytes,
        payload: Buffer | None,
        id: int,
        kind: int,
        args: tuple[Any, ...],
        *,
        urgent: bool = False,
    ) -> Reply:
        """See Touser. Does not yield unless the server does."""
        if self._is_dead:
            raise VfsError(ENXIO, "the server is gone")
        self._in_flight += 1
        try:
            answer = await self._half.handle(head, payload)
        finally:
            self._in_flight -= 1
        if answer is None:
            raise RemoteProtocolError("the request was not understood")
        return decode_reply(answer[0], answer[1])

    def post(self, head: bytes) -> None:
        """See Touser."""
        if not self._is_dead and not self._half.fire(head):
            self._nursery.start_soon(self._half.handle, head)

    def end(self) -> None:
        """See Touser."""
        self._is_dead = True


class QueueTouser:
    """Requests over a putter, matched with replies by id. Also the server half's, for flushes.

    The owner reads frames and hands those that are replies to `reply`; it calls `end` when the
    putter has ended. `late` hears of replies to abandoned requests: header, result, and the
    arguments, unless there was a payload, which is not kept.
    """

    def __init__(self, putter: Putter, late: Late | None = None) -> None:
        self.withdrawn = 0
        self.unknown = 0
        self._putter = putter
        self._late = late
        self._is_dead = False
        # id -> who waits (None: abandoned), what for, and with what arguments.
        self._waiting: dict[int, tuple[Task | None, int, tuple[Any, ...]]] = {}
        self._room = trio.lowlevel.ParkingLot()

    @property
    def is_dead(self) -> bool:
        """See Touser."""
        return self._is_dead

    @property
    def in_flight(self) -> int:
        """See Touser."""
        return len(self._waiting)

    async def call(
        self,
        head: bytes,
        payload: Buffer | None,
        id: int,
        kind: int,
        args: tuple[Any, ...],
        *,
        urgent: bool = False,
    ) -> Reply:
        """See Touser."""
        # A caller who is cancelled already asks nothing.
        await trio.lowlevel.checkpoint_if_cancelled()
        waiting, putter = self._waiting, self._putter
        while not (self._is_dead or urgent) and (len(waiting) >= MAX_IN_FLIGHT or putter.full):
            if len(waiting) >= MAX_IN_FLIGHT:
                await self._room.park()
            else:
                await putter.wait_room()
        if self._is_dead:
            raise VfsError(ENXIO, "the server is gone")
        try:
            entry = putter.push(head, payload)
        except TransportError as exc:
            raise VfsError(ENXIO, "the server is gone") from exc
        waiting[id] = trio.lowlevel.current_task(), kind, args

        def abort(_: RaiseCancelT) -> Abort:
            self._abandon(id, entry, () if payload is not None else args)
            return Abort.SUCCEEDED

        reply: Reply = await trio.lowlevel.wait_task_rescheduled(abort)
        return reply

    def _abandon(self, id: int, entry: Outgoing | None, args: tuple[Any, ...]) -> None:
        if entry is not None and self._putter.withdraw(entry):
            self.withdrawn += 1
            self._forget(id)
        else:
            self._waiting[id] = None, self._waiting[id][1], args

    def _forget(self, id: int) -> None:
        del self._waiting[id]
        if self._room:
            self._room.unpark()

    def call_nowait(self, head: bytes, id: int, kind: int) -> None:
        """Send a request whose answer is of no interest. Never waits, never fails."""
        try:
            self._putter.push(head)
        except TransportError:
            return
        self._waiting[id] = None, kind, ()

    def post(self, head: bytes) -> None:
        """See Touser."""
        if self._is_dead:
            return
        try:
            self._putter.push(head)
        except TransportError:
            pass

    def reply(self, frame: Buffer) -> None:
        """Hand a frame that is a reply to whoever waits for it."""
        error: RemoteProtocolError | None = None
        result: Any = None
        try:
            header, result = decode_reply(frame)
            id = header[3]
        except RemoteProtocolError as exc:
            # Wrong in whatever way, it may still say whose answer it wants to be.
            error = exc
            id = int.from_bytes(frame[_ID], "little")
        waiter = self._waiting.get(id)
        if waiter is None:
            self.unknown += 1
            return
        task, kind, args = waiter
        self._forget(id)
        if error is None and kind != (header.opclass & OPCLASS_MASK) << 6 | header.optype:
            error = RemoteProtocolError("the reply is one to another operation")
        if task is not None:
            trio.lowlevel.reschedule(
                task, Value((header, result)) if error is None else Error(error)
            )
        elif error is None and header.rv == 0 and self._late is not None:
            self._late(header, result, args)

    def end(self) -> None:
        """See Touser."""
        if self._is_dead:
            return
        self._is_dead = True
        waiting, self._waiting = self._waiting, {}
        for task, _, _ in waiting.values():
            if task is not None:
                trio.lowlevel.reschedule(task, Error(VfsError(ENXIO, "the server is gone")))
        self._room.unpark_all()
