"""The connection to a FUSE server: requests out, replies and notifications in.

The server has the other end of a SOCK_SEQPACKET pair where it believes to have /dev/fuse, so a
message is a datagram, as it is there. What Linux answers by an error of write(2) the server is not
told here: a message that makes no sense is logged, and if it says whose answer it wants to be, that
request ends with EIO. No such message ends the connection, and none keeps a caller waiting.

Of a read that is asked for in several messages each answer is received into its place, if it is the
next one to come; others are copied there.

Who splices a long answer (libfuse with SPLICE_WRITE) sends it in several datagrams, between which
those of other threads may come. They are not put together: the reader asks again for less. What
comes behind the first of them is nobody's answer, whatever it looks like, for no file can contain
the number of a request: numbers begin anywhere in 60 bits.

A program that has its answers in memory gives them sooner than a trip through the scheduler takes
us. So who asks when nothing else is in flight waits NEAR for the answer then and there, as long as
answers to that kind of request come in that time; for others we do not stand still.

Requests that wait for the socket are queued, callers of `submit` wait at BACKLOG of them; those
that cannot wait (forget, release, interrupt) may pass that bound, for they are short, and limited
by the nodes, opens and requests that they end.
"""

from __future__ import annotations

import logging
import secrets
import select
import socket as _socket
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from errno import EIO, EMSGSIZE, ENOTCONN
from struct import Struct
from struct import error as StructError
from time import monotonic
from typing import Any, Final

import trio
from outcome import Error, Value
from trio.lowlevel import Abort, RaiseCancelT, Task

from ...native import fuse_replies, fuse_requests
from ...native.errors import RemoteProtocolError, VfsError
from ...native.memory import unset_memory
from ...native.records import FSCRED, Buffer, Cred
from ..background import background

_log = logging.getLogger(__name__)

DATA_MAX: Final = 256 * 1024
"""Longest data of one message, octets. A datagram must fit into half of what a user may have as
a send buffer (net.core.wmem_max, 208 KiB, doubled); Linux sends up to 1 MiB over /dev/fuse."""
SPLICED_MAX: Final = 14 * 4096
"""Longest data of a message that is surely sent at once by splice(2): that makes a datagram of 16
pages at most, one is the header's, and data that begin inside of a page end in one more."""
BACKLOG: Final = 64
"""Requests that may wait for the socket before callers have to wait, too."""
NEAR: Final = 0.00025
"""How long we stand still for an answer, seconds: what the way through the scheduler costs.
A lookup by bindfs, medians at a load of 7: 300 us of our time without this, 220 with."""
EACH_MAX: Final = 16
"""How many requests of one caller are under way at once. A program may start a thread for each."""
FAR_MAX: Final = 1023
"""Requests of a kind that are not waited for so when the answers to its last came later."""
COMPLAINTS_MAX: Final = 10
"""How often a server may fill the log."""
_BODY_MAX: Final = DATA_MAX + 4096
_COPY_MAX: Final = 8192
"""Data up to here are copied out of the receive buffer; what is longer takes the buffer with it."""
_SNDBUF: Final = 2 * _BODY_MAX
_TURN: Final = 64
"""Messages that are taken in without letting others run."""
_SELECT_MAX: Final = 1024
"""Descriptors from here on select(2) does not take; poll(2) counts in milliseconds."""
_CREDENTIALS: Final = Struct("=iII")
_HEADER: Final = Struct("=IiQ")

Encode = Callable[..., bytes]
Decode = Callable[[memoryview], Any]


def fuse_pair() -> tuple[_socket.socket, _socket.socket]:
    """Return our end and the server's, which blocks as /dev/fuse does."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _SNDBUF)
    return ours, theirs


def data(body: memoryview) -> Buffer:
    """Decode octets that are handed on as they came. Takes the receive buffer along if long."""
    return bytes(body) if len(body) <= _COPY_MAX else body


class Slot:
    """A request that was sent. `await slot.wait()` once, or `abandon`."""

    __slots__ = (
        "_connection",
        "_decode",
        "_error",
        "_has_come",
        "_is_done",
        "_task",
        "_undo",
        "_value",
        "into",
        "then",
        "unique",
    )

    def __init__(
        self,
        connection: Connection,
        unique: int,
        decode: Decode,
        undo: Callable[[Any], None] | None,
        into: memoryview | None = None,
    ) -> None:
        self.unique = unique
        self.into = into
        """Where the data of the reply belong, which then says how many octets there are."""
        self._connection = connection
        self._decode = decode
        self._undo = undo
        """Takes back what a reply gave that nobody waits for any more."""
        self.then: Callable[[], None] | None = None
        """Called when the reply has come, whatever it says."""
        self._task: Task | None = None
        self._is_done = False
        self._has_come = False
        self._value: Any = None
        self._error: VfsError | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self._is_done

    @property
    def has_data(self) -> bool:
        """Whether the reply are data of a file."""
        return self._decode is data

    @property
    def takes_buffer(self) -> bool:
        """Whether the value may be the receive buffer itself."""
        return self.has_data and self.into is None

    async def wait(self) -> Any:
        """Return what the reply says. Errors: those of the server; EIO, ENOTCONN.

        Cancelled, it tells the server that nobody waits (INTERRUPT), and does not wait itself.
        """
        if self._is_done:
            return self.value()
        self._task = trio.lowlevel.current_task()
        return await trio.lowlevel.wait_task_rescheduled(self._interrupted)

    def value(self) -> Any:
        """Return what the reply says, which has come. Errors: as `wait`."""
        if self._error is not None:
            raise self._error
        return self._value

    def abandon(self) -> None:
        """Do not wait for the reply; what it gives is taken back."""
        if not self._has_come:
            self._is_done = True
            self.into = None
        elif self._undo is not None and self._error is None:
            self._undo(self._value)

    def _interrupted(self, _raise_cancel: RaiseCancelT) -> Abort:
        self._task = None
        self._is_done = True
        self.into = None
        self._connection.interrupt(self.unique)
        return Abort.SUCCEEDED

    def replied(self, errno: int, body: memoryview, is_in_place: bool) -> None:
        """Take the reply."""
        if errno:
            self.finish(None, VfsError(errno))
            return
        if self.into is not None:
            self._take_data(self.into, body, is_in_place)
            return
        try:
            value = self._decode(body)
        except RemoteProtocolError as exc:
            self._connection.complain("answered nonsense: %s", exc)
            self.finish(None, VfsError(EIO, str(exc)))
        else:
            if self._is_done:
                if self._undo is not None:
                    self._undo(value)
            else:
                self.finish(value)

    def _take_data(self, into: memoryview, body: memoryview, is_in_place: bool) -> None:
        length = len(body)
        if length > len(into):
            self.finish(None, VfsError(EIO, "the FUSE server told more than was asked for"))
            return
        if not is_in_place:
            into[:length] = body
        self.finish(length)

    def finish(self, value: Any, error: VfsError | None = None) -> None:
        """End with `value` or `error`."""
        if self._is_done:
            return
        self._is_done = self._has_come = True
        self._value, self._error = value, error
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, Value(value) if error is None else Error(error))


class _Distance:
    """How far away the answers to one kind of request are."""

    __slots__ = ("far", "left")

    def __init__(self) -> None:
        self.far = 0
        """How many are not waited for after one that came late: twice as many after the next."""
        self.left = 0

    def is_near(self) -> bool:
        """Return whether the answer to this one may be near."""
        if self.left:
            self.left -= 1
            return False
        return True

    def came(self, in_time: bool) -> None:
        """Note how that went."""
        self.far = 0 if in_time else min(2 * self.far + 1, FAR_MAX)
        self.left = self.far


class Connection:
    """One server. Made by `open_connection`, which owns the tasks."""

    def __init__(self, socket: _socket.socket, notified: Callable[[int, memoryview], None]) -> None:
        socket.setblocking(False)
        socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        self._socket = socket
        self._notified = notified
        self._head = memoryview(bytearray(fuse_replies.HEADER_LEN))
        self._body = unset_memory(_BODY_MAX)
        self._ancillary = _socket.CMSG_SPACE(_CREDENTIALS.size)
        self._may_stand = socket.fileno() < _SELECT_MAX
        self._distances: defaultdict[Encode, _Distance] = defaultdict(_Distance)
        self._pending: dict[int, Slot] = {}
        self._next = 2 + 2 * secrets.randbits(60)
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()
        self._complaints = 0
        self.broken = trio.Event()
        self.splices = False
        """Whether a long answer has come in pieces; none must be asked for any more."""
        self.peer_pid = 0
        """Who answered first, by the kernel's word."""

    # Sending.

    async def room(self) -> None:
        """Wait until one more request may be queued."""
        while len(self._queue) >= BACKLOG and not self.broken.is_set():
            await self._room.park()

    def submit(
        self,
        encode: Encode,
        nodeid: int,
        cred: Cred,
        *args: Any,
        payload: Buffer | None = None,
        decode: Decode = fuse_replies.nothing,
        undo: Callable[[Any], None] | None = None,
        into: memoryview | None = None,
    ) -> Slot:
        """Send a request and return its slot. `room` was awaited before. Errors: ENOTCONN.

        `payload` is sent, or copied, before this returns. `undo` gets the value of a reply that
        nobody waits for. With `into` the reply are data, its value is their length; EIO for more
        than belongs there. Until the slot is done, or abandoned, anything may stand there.
        """
        if self.broken.is_set():
            raise VfsError(ENOTCONN)
        unique = self._number()
        slot = Slot(self, unique, decode, undo, into)
        head = encode(unique, nodeid, cred, *args)
        self._pending[unique] = slot
        self._send(head, payload)
        return slot

    async def ask(
        self,
        encode: Encode,
        nodeid: int,
        cred: Cred,
        *args: Any,
        payload: Buffer | None = None,
        decode: Decode = fuse_replies.nothing,
        undo: Callable[[Any], None] | None = None,
        is_long: bool = False,
    ) -> Any:
        """Send a request and return what its reply says.

        `is_long`: there is better to do than to stand still for the answer.
        """
        if self._queue:
            await self.room()
        slot = self.submit(encode, nodeid, cred, *args, payload=payload, decode=decode, undo=undo)
        if len(self._pending) == 1 and not is_long:
            self._stand(encode, slot, NEAR)
        return await slot.wait()

    async def ask_each(
        self,
        encode: Encode,
        nodeid: int,
        cred: Cred,
        every: Iterable[tuple[Any, ...]],
        *,
        decode: Decode,
        undo: Callable[[Any], None],
    ) -> list[Any]:
        """Send a request with each of the arguments `every`, EACH_MAX at once.

        Returns what the replies say in the same order, None for those that tell an error.
        Cancelled, or when the server ends, what they have given is taken back.
        """
        slots: list[Slot] = []
        values: list[Any] = []
        try:
            for args in every:
                if len(slots) == EACH_MAX:
                    # The server is busy with the other half while we look at this one.
                    await self._gather(encode, slots, EACH_MAX // 2, values)
                if self._queue:
                    await self.room()
                slots.append(self.submit(encode, nodeid, cred, *args, decode=decode, undo=undo))
            await self._gather(encode, slots, len(slots), values)
        except BaseException:
            for slot in slots:
                slot.abandon()
            for value in values:
                if value is not None:
                    undo(value)
            raise
        return values

    async def _gather(
        self, encode: Encode, slots: list[Slot], count: int, values: list[Any]
    ) -> None:
        """Move what the first `count` of `slots` say to `values`; raised from, neither changes."""
        ours = sum(not slot.is_done for slot in slots)
        if len(self._pending) == ours and count and not slots[count - 1].is_done:
            # For the last one: the others come meanwhile, and need no select(2) each.
            self._stand(encode, slots[count - 1], NEAR * count)
        told: list[Any] = []
        # The last one first: the others have come then as a rule, and wake nobody.
        for slot in reversed(slots[:count]):
            try:
                told.append(slot.value() if slot.is_done else await slot.wait())
            except VfsError:
                told.append(None)
        del slots[:count]
        values += reversed(told)

    def _stand(self, encode: Encode, slot: Slot, seconds: float) -> None:
        """Wait so long for the answer to `slot`, if such have come soon."""
        distance = self._distances[encode]
        if self._may_stand and distance.is_near():
            distance.came(self._comes_soon(slot, seconds))

    def _comes_soon(self, slot: Slot, seconds: float) -> bool:
        """Wait so long for the answer to `slot`; return whether it came."""
        left, end = seconds, monotonic() + seconds
        while left > 0 and select.select((self._socket,), (), (), left)[0]:
            # Behind the first there may be answers to others of the same moment.
            for _ in range(_TURN):
                if not self._receive_one():
                    break
                if slot.is_done:
                    return True
            left = end - monotonic()
        return False

    def post(
        self, encode: Encode, nodeid: int, *args: Any, then: Callable[[], None] | None = None
    ) -> Slot | None:
        """Send a request of ours whose answer says nothing; `then` follows it.

        Nobody has to wait for the slot. None: the server has ended.
        """
        if self.broken.is_set():
            return None
        slot = self.submit(encode, nodeid, FSCRED, *args, decode=_ignored)
        slot.then = then
        return slot

    def tell(self, encode: Encode, nodeid: int, *args: Any, unique: int = 0) -> None:
        """Send what has no answer; one that comes all the same (ENOSYS) is nobody else's."""
        if not self.broken.is_set():
            self._send(encode(unique or self._number(), nodeid, FSCRED, *args), None)

    def _number(self) -> int:
        number = self._next
        self._next += 2  # the odd ones are the interrupts'
        return number

    def interrupt(self, unique: int) -> None:
        """Say that nobody waits for request `unique`."""
        self.tell(fuse_requests.interrupt, 0, unique, unique=unique | 1)

    def _send(self, head: bytes, payload: Buffer | None) -> None:
        if not self._queue:
            try:
                self._socket.sendmsg(
                    (head,) if payload is None else (head, payload), (), _socket.MSG_NOSIGNAL
                )
                return
            except BlockingIOError:
                pass
            except OSError as exc:
                self._break(f"sending failed: {exc.strerror}")
                return
        self._queue.append(head if payload is None else b"".join((head, payload)))
        self._wake.set()

    async def pump(self) -> None:
        """Send what waits, for ever."""
        while not self.broken.is_set():
            await self._wake.wait()
            self._wake = trio.Event()
            while self._queue:
                try:
                    self._socket.send(self._queue[0], _socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                    continue
                except OSError as exc:
                    self._break(f"sending failed: {exc.strerror}")
                    return
                self._queue.popleft()
                self._room.unpark()

    # Receiving.

    async def receive(self) -> None:
        """Take in what the server sends until it is gone."""
        turn = 0
        while not self.broken.is_set():
            if not self._receive_one():
                await trio.lowlevel.wait_readable(self._socket)
                turn = 0
                continue
            turn += 1
            if turn >= _TURN:
                await trio.lowlevel.checkpoint()
                turn = 0

    def _receive_one(self) -> bool:
        """Take in a message, or the end; return whether there was any."""
        head, body = self._head, self._body
        owner = next(iter(self._pending.values()), None)  # of the answer that is most likely next
        into = None if owner is None else owner.into
        buffers = (head, body) if into is None else (head, into, body)
        try:
            n, control, _, _ = self._socket.recvmsg_into(buffers, self._ancillary)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._break(f"receiving failed: {exc.strerror}")
            return True
        if n == 0:
            self._break("the server has ended")
            return True
        if self._ancillary:
            self._see_peer(control)
            self._ancillary = 0
        if into is not None:
            beyond = n - len(head) - len(into)
            body = into if beyond <= 0 else memoryview(b"".join((into, body[:beyond])))
            self._take(head, n, body, owner)
        elif self._take(head, n, body, None):
            self._body = unset_memory(_BODY_MAX)
        return True

    def _see_peer(self, control: list[tuple[int, int, bytes]]) -> None:
        for level, kind, octets in control:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS):
                self.peer_pid = _CREDENTIALS.unpack(octets)[0]
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 0)

    def _take(self, head: memoryview, total: int, body: memoryview, owner: Slot | None) -> bool:
        """Handle a message of `total` octets; return whether `body` has gone with it.

        `owner`: whose place for data `body` is.
        """
        length = total - len(head)
        try:
            error, unique = fuse_replies.header(head[:total], total)
        except RemoteProtocolError as exc:
            self._take_bad(head[:total], total, exc)
            return False
        if unique == 0:
            self._notified(error, body[:length])
            return False
        slot = self._pending.pop(unique, None)
        if slot is None:
            if not unique & 1:  # an answer to an interrupt: the request was not there (EAGAIN)
                self.complain("answered what nobody asked: %d", unique)
            return False
        body = body[:length]
        if owner is not None and slot is not owner and slot.takes_buffer:
            body = memoryview(bytes(body))
        slot.replied(-error, body, slot is owner)
        if slot.then is not None:
            slot.then()
        if not self._pending:
            self._idle.unpark_all()
        return slot.takes_buffer and length > _COPY_MAX

    def _take_bad(self, head: memoryview, total: int, exc: RemoteProtocolError) -> None:
        """Handle a message that is none, or the begin of one."""
        slot = None
        with suppress(StructError):
            length, _, unique = _HEADER.unpack(head)
            slot = self._pending.pop(unique, None)
            if slot is not None and slot.has_data and length > total:
                self.splices = True
                slot.finish(None, VfsError(EMSGSIZE))
                return
        if slot is not None or not self.splices:
            self.complain("sent nonsense: %s", exc)
        if slot is not None:
            slot.finish(None, VfsError(EIO, str(exc)))

    def complain(self, text: str, what: object) -> None:
        """Log what the server did wrong; after COMPLAINTS_MAX times for those who debug only."""
        self._complaints += 1
        level = logging.WARNING if self._complaints <= COMPLAINTS_MAX else logging.DEBUG
        _log.log(level, "the FUSE server " + text, what)

    # The end.

    async def drain(self) -> None:
        """Wait until every request has been answered."""
        while self._pending and not self.broken.is_set():
            await self._idle.park()

    def _break(self, cause: str) -> None:
        if self.broken.is_set():
            return
        _log.info("connection to the FUSE server: %s", cause)
        self.broken.set()
        self._queue.clear()
        self._wake.set()
        pending, self._pending = self._pending, {}
        for slot in pending.values():
            slot.finish(None, VfsError(ENOTCONN))
        self._room.unpark_all()
        self._idle.unpark_all()

    def hang_up(self) -> None:
        """Have the server read an end of file, which is the end of the connection."""
        if not self.broken.is_set():
            self._socket.shutdown(_socket.SHUT_RDWR)

    def close(self) -> None:
        """End it from our side: the server reads an end of file."""
        self._break("closed by us")
        self._socket.close()


def _ignored(_body: memoryview) -> None:
    """Take any reply."""


@asynccontextmanager
async def open_connection(
    socket: _socket.socket, notified: Callable[[int, memoryview], None]
) -> AsyncIterator[Connection]:
    """Run a connection over `socket`, which it owns from now on.

    `notified` gets code and body of each notification; it must not wait nor keep the body.
    """
    connection = Connection(socket, notified)
    try:
        async with background(connection.receive, connection.pump):
            yield connection
    finally:
        connection.close()  # not before nobody waits for its socket any more
