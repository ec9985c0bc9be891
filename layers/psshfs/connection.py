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
"""

from __future__ import annotations

import errno
import logging
import socket as _socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, Final, Generic, NamedTuple, TypeVar

import trio

from ...native import sftp
from ...native.errors import RemoteProtocolError, VfsError
from ...native.records import Buffer, Statvfs
from .errmap import StatusError

_log = logging.getLogger(__name__)

T = TypeVar("T")

IN_FLIGHT_MAX: Final = 256
"""Requests in flight above which `room` waits."""
QUEUED_MAX: Final = 1024 * 1024
"""Octets that wait for the socket above which `room` waits."""
CHUNK: Final = 1024 * 1024
"""Size of a receive buffer, octets: several of the longest replies."""
CHUNK_REST: Final = 64 * 1024
"""A receive buffer with less room than this is not received into any more."""
COPY_MAX: Final = 16 * 1024
"""File data up to this length is copied out, so that it does not hold a whole chunk."""
PACKET_MAX: Final = 256 * 1024 + 4096
"""Longest packet taken from a server that has not stated longer reads (OpenSSH's limit)."""
IOVEC_MAX: Final = 64
"""Buffers in one call of sendmsg."""
REQUEST_TIMEOUT: Final = 120.0
"""Seconds without an octet, while answers are owed, after which a server counts as dead."""


class Answer(NamedTuple, Generic[T]):
    """What a request wants to hear: the packet type, its decoder, and whether EOF is an answer.

    With `eof`, the status EOF completes the slot with None in place of an error.
    """

    type: int
    decode: Callable[[memoryview], T]
    eof: bool = False


def _no_body(body: memoryview) -> None:
    raise RemoteProtocolError("a status was decoded as something else")


def _one_name(body: memoryview) -> bytes:
    """Return the single name of a REALPATH or READLINK answer."""
    names = sftp.decode_name(body)
    if len(names) != 1:
        raise RemoteProtocolError(f"{len(names)} names where there must be one")
    return names[0].name


STATUS: Final[Answer[None]] = Answer(sftp.FXP_STATUS, _no_body)
HANDLE: Final[Answer[bytes]] = Answer(sftp.FXP_HANDLE, sftp.decode_handle)
DATA: Final[Answer[memoryview | bytes | None]] = Answer(sftp.FXP_DATA, sftp.decode_data, eof=True)
NAMES: Final[Answer[list[sftp.Name] | None]] = Answer(sftp.FXP_NAME, sftp.decode_name, eof=True)
ONE_NAME: Final[Answer[bytes]] = Answer(sftp.FXP_NAME, _one_name)
ATTRS: Final[Answer[sftp.Attrs]] = Answer(sftp.FXP_ATTRS, sftp.decode_attrs)
STATVFS: Final[Answer[Statvfs]] = Answer(sftp.FXP_EXTENDED_REPLY, sftp.decode_statvfs)
LIMITS: Final[Answer[sftp.Limits]] = Answer(sftp.FXP_EXTENDED_REPLY, sftp.decode_limits)
VERSION: Final[Answer[tuple[int, dict[bytes, bytes]]]] = Answer(
    sftp.FXP_VERSION, sftp.decode_version
)


class ConnectionStatistics(NamedTuple):
    """Counters since the connection was opened, and what is going on now."""

    requests: int
    replies: int
    octets_sent: int
    octets_received: int
    waits: int
    in_flight: int
    octets_queued: int


class Slot(Generic[T]):
    """One request whose answer is owed. Await it for the answer; any number of tasks may.

    When the last waiter of a slot is cancelled the slot is abandoned, unless it
    is `shared`: then somebody else will still want the answer.
    """

    __slots__ = (
        "_code",
        "_connection",
        "_errno",
        "_message",
        "_tasks",
        "_value",
        "answer",
        "asked",
        "done",
        "is_abandoned",
        "shared",
    )

    def __init__(self, connection: Connection, answer: Answer[T], *, shared: bool = False) -> None:
        self._connection = connection
        self._tasks: list[trio.lowlevel.Task] | None = None
        self._value: T | None = None
        self._errno = 0
        self._code = sftp.FX_OK
        self._message = b""
        self.answer = answer
        self.asked = 0
        self.done = False
        self.is_abandoned = False
        self.shared = shared

    def __await__(self) -> Generator[Any, Any, T]:
        if not self.done:
            self._connection.waits += 1
            task = trio.lowlevel.current_task()
            tasks = self._tasks
            if tasks is None:
                tasks = self._tasks = []
            tasks.append(task)

            def abort(_: object) -> trio.lowlevel.Abort:
                tasks.remove(task)
                if not tasks and not self.shared:
                    self.abandon()
                return trio.lowlevel.Abort.SUCCEEDED

            yield from trio.lowlevel.wait_task_rescheduled(abort).__await__()
        return self.result()

    def result(self) -> T:
        """Return the answer of a slot that is done. Errors: as awaiting it."""
        if self._errno:
            raise VfsError(self._errno)
        if self._code != sftp.FX_OK:
            raise StatusError(self._code, self._message)
        return self._value  # type: ignore[return-value]  # None is an answer of STATUS and of EOF

    @property
    def is_failed(self) -> bool:
        """Tell whether the slot is done and awaiting it would raise."""
        return self._errno != 0 or self._code != sftp.FX_OK

    def abandon(self) -> None:
        """Say that nobody wants the answer: when it comes, it is dropped, and a handle closed."""
        if self.done:
            if self.answer is HANDLE and self._value is not None:
                self._connection.close_handle(self._value)  # type: ignore[arg-type]
                self._value = None
        else:
            self.is_abandoned = True

    def deliver(self, kind: int, body: memoryview) -> bool:
        """Complete with a packet; return whether the answer refers to the packet's memory.

        Raises RemoteProtocolError for an answer that this request cannot have.
        """
        answer = self.answer
        loaned = False
        if kind == sftp.FXP_STATUS:
            code, message = sftp.decode_status(body)
            if code == sftp.FX_OK:
                if answer.type != sftp.FXP_STATUS:
                    raise RemoteProtocolError("success without the answer asked for")
            elif code != sftp.FX_EOF or not answer.eof:
                self._code = code
                self._message = message
        elif kind != answer.type:
            raise RemoteProtocolError(f"packet type {kind} answers where {answer.type} would")
        elif self.is_abandoned:
            if kind == sftp.FXP_HANDLE:
                self._connection.close_handle(sftp.decode_handle(body))
        else:
            value = answer.decode(body)
            if kind == sftp.FXP_DATA:
                length = len(value)  # type: ignore[arg-type]
                if length > self.asked or length == 0:
                    raise RemoteProtocolError(f"{length} octets of data, asked for {self.asked}")
                if length <= COPY_MAX:
                    value = bytes(value)  # type: ignore[assignment,call-overload]
                else:
                    loaned = True
            self._value = value
        self.done = True
        self._wake()
        return loaned

    def fail(self, number: int) -> None:
        """Complete with errno `number`."""
        self._errno = number
        self.done = True
        self._wake()

    def _wake(self) -> None:
        tasks = self._tasks
        if tasks is not None:
            self._tasks = None
            for task in tasks:
                trio.lowlevel.reschedule(task)


class _Batch:
    """Holds packets back until the outermost `with` ends, so that they leave in one call."""

    __slots__ = ("_connection", "depth")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *exc: object) -> None:
        self.depth -= 1
        if not self.depth:
            self._connection.flush()


class Connection:
    """One SFTP session's packets over `socket`, a stream socket that somebody else owns.

    Made by `open_connection`. All methods must be called from the task tree's thread; only
    `room` and awaiting slots wait.
    """

    def __init__(self, socket: _socket.socket, *, timeout: float = REQUEST_TIMEOUT) -> None:
        socket.setblocking(False)
        self._socket = socket
        self._timeout = timeout
        self._slots: dict[int, Slot[Any]] = {}
        self._id = 0
        self._queue: deque[Buffer] = deque()
        self._queued = 0
        self._scope = trio.CancelScope()
        self._sender: trio.lowlevel.Task | None = None
        self._parked: deque[trio.lowlevel.Task] = deque()
        self._heard = trio.current_time()
        self._requests = 0
        self._replies = 0
        self._sent = 0
        self._received = 0
        self.waits = 0
        self.batch = _Batch(self)
        self.packet_max = PACKET_MAX
        """Longest packet that the server may send, octets."""
        self.broken = trio.Event()
        """Set when the connection has ended, by whatever cause."""
        self.cause = ""
        """Why the connection ended, for people."""

    # Submitting.

    @property
    def is_broken(self) -> bool:
        """Tell whether the connection has ended."""
        return bool(self.cause)

    @property
    def is_congested(self) -> bool:
        """Tell whether `room` would wait."""
        return len(self._slots) >= IN_FLIGHT_MAX or self._queued >= QUEUED_MAX

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
    ) -> None:
        """Send a request whose slot the caller made; `payload` follows the encoded head.

        `payload` is not referred to after the return: what the socket does not take is copied.
        Errors: ENOTCONN after the end of the connection.
        """
        if self.cause:
            raise VfsError(errno.ENOTCONN, self.cause)
        number = self._id
        slots = self._slots
        while True:
            number = number + 1 if number < 0xFFFFFFFF else 1
            if number not in slots:
                break
        self._id = number
        packet = encode(number, *args)
        if not slots:
            self._heard = trio.current_time()
        slots[number] = slot
        self._requests += 1
        self._send(packet, payload)

    def close_handle(self, handle: bytes) -> None:
        """Close an SFTP handle; nobody hears the answer. Does nothing on a dead connection."""
        if not self.cause:
            slot = Slot(self, STATUS)
            slot.is_abandoned = True
            self.submit_slot(slot, sftp.close, handle)

    async def greet(self) -> tuple[int, dict[bytes, bytes]]:
        """Exchange INIT and VERSION, the first thing on a connection; return version, extensions.

        Errors: EPROTO for a peer that speaks something else, ENOTCONN, ETIMEDOUT.
        """
        slot = Slot(self, VERSION)
        self._heard = trio.current_time()
        self._slots[0] = slot
        self._requests += 1
        self._send(sftp.init(), b"")
        return await slot

    # Sending.

    def _send(self, packet: bytes, payload: Buffer) -> None:
        taken = 0
        if not self._queue and not self.batch.depth:
            try:
                if payload:
                    taken = self._socket.sendmsg((packet, payload))
                else:
                    taken = self._socket.send(packet)
            except BlockingIOError:
                pass
            except OSError as exc:
                self._break(f"sending to the server: {exc.strerror}")
                return
            self._sent += taken
            if taken == len(packet) + len(payload):
                return
        rest = len(packet) - taken
        if rest > 0:
            self._queue.append(packet[taken:])
            self._queued += rest
        if payload:
            data = bytes(memoryview(payload)[max(0, -rest) :])
            self._queue.append(data)
            self._queued += len(data)
        if not self.batch.depth:
            self._wake_sender()

    def flush(self) -> None:
        """Send what a batch has held back."""
        if self._queue and not self.cause:
            self._drain()
            if self._queue:
                self._wake_sender()

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            try:
                taken = self._socket.sendmsg(list(islice(queue, IOVEC_MAX)))
            except BlockingIOError:
                return
            except OSError as exc:
                self._break(f"sending to the server: {exc.strerror}")
                return
            self._sent += taken
            self._queued -= taken
            while taken:
                first = queue[0]
                if taken < len(first):
                    queue[0] = memoryview(first)[taken:]
                    break
                taken -= len(first)
                queue.popleft()

    def _wake_sender(self) -> None:
        task = self._sender
        if task is not None:
            self._sender = None
            trio.lowlevel.reschedule(task)

    async def _send_queue(self) -> None:
        """Send what is queued whenever the socket can take it: the body of the sender's task."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._sender = None
            return trio.lowlevel.Abort.SUCCEEDED

        task = trio.lowlevel.current_task()
        while True:
            while self._queue:
                await trio.lowlevel.wait_writable(self._socket)
                self._drain()
                self._unpark()
            self._sender = task
            await trio.lowlevel.wait_task_rescheduled(abort)

    def _unpark(self) -> None:
        if self._parked and not self.is_congested:
            parked = self._parked
            while parked:
                trio.lowlevel.reschedule(parked.popleft())

    # Receiving.

    async def _receive(self) -> None:
        """Complete slots with what comes in: the body of the receiver's task.

        File data is handed out as views of the chunk that it was received into; such a chunk is
        never received into again, its views alone keep it alive.
        """
        chunk = memoryview(bytearray(CHUNK))
        start = end = 0
        is_loaned = False
        slots = self._slots
        while not self.cause:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                count = self._socket.recv_into(chunk[end:])
            except BlockingIOError:
                continue
            except OSError as exc:
                self._break(f"receiving from the server: {exc.strerror}")
                return
            if not count:
                self._break("the server closed the connection")
                return
            self._heard = trio.current_time()
            self._received += count
            end += count
            slot: Slot[Any] | None = None
            try:
                start, packets = sftp.scan(chunk, start, end, self.packet_max)
                for kind, number, body_start, body_end in packets:
                    slot = slots.pop(number, None)
                    if slot is None:
                        raise RemoteProtocolError(f"an answer to request {number}, never made")
                    if slot.deliver(kind, chunk[body_start:body_end]):
                        is_loaned = True
                    self._replies += 1
                slot = None
            except RemoteProtocolError as exc:
                self._break(f"the server broke the protocol: {exc}", errno.EPROTO, slot)
                return
            if start == end and not is_loaned:
                start = end = 0
            elif len(chunk) - end < CHUNK_REST:
                # A partial packet moves to the front; a chunk holds two of the longest.
                rest = end - start
                old = chunk
                if is_loaned or len(chunk) < 2 * self.packet_max:
                    chunk = memoryview(bytearray(max(CHUNK, 2 * self.packet_max)))
                    is_loaned = False
                chunk[:rest] = old[start:end]
                start, end = 0, rest
            self._unpark()

    async def _watch(self) -> None:
        """End the connection when answers are owed and nothing comes: the watcher's body."""
        while True:
            now = trio.current_time()
            due = self._heard + self._timeout
            if not self._slots:
                due = now + self._timeout
            elif now >= due:
                self._break(f"no octet from the server for {self._timeout:g} s", errno.ETIMEDOUT)
                return
            await trio.sleep_until(due)

    # The end.

    def close(self) -> None:
        """End the connection from our side; does nothing when it has ended."""
        self._break("the connection was closed", is_ours=True)

    def _break(
        self,
        cause: str,
        number: int = errno.ENOTCONN,
        culprit: Slot[Any] | None = None,
        *,
        is_ours: bool = False,
    ) -> None:
        """End: fail `culprit` and, where there is none, all slots with `number`."""
        if self.cause:
            return
        self.cause = cause
        if not is_ours:
            _log.warning("SFTP connection lost: %s", cause)
        if culprit is not None:
            culprit.fail(number)
            number = errno.ENOTCONN
        slots = list(self._slots.values())
        self._slots.clear()
        for slot in slots:
            slot.fail(number)
        self._queue.clear()
        self._queued = 0
        parked = self._parked
        while parked:
            trio.lowlevel.reschedule(parked.popleft())
        with suppress(OSError):
            # So that the process behind the stream hears of it, too.
            self._socket.shutdown(_socket.SHUT_RDWR)
        self.broken.set()
        self._scope.cancel()

    async def _serve(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive)
                nursery.start_soon(self._send_queue)
                nursery.start_soon(self._watch)

    def statistics(self) -> ConnectionStatistics:
        """Return the counters."""
        return ConnectionStatistics(
            self._requests,
            self._replies,
            self._sent,
            self._received,
            self.waits,
            len(self._slots),
            self._queued,
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
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection._serve)
        try:
            yield connection
        except Exception as exc:
            # Kept out of the nursery, which would wrap it into a group.
            failure = exc
        finally:
            connection.close()
    if failure is not None:
        raise failure
