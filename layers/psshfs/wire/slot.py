"""What is asked and what is answered: one `Slot` for each request in flight."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import trio

from ....native import sftp
from ....native.errors import RemoteProtocolError, VfsError
from ....native.records import Buffer, Statvfs
from .errmap import StatusError
from .handle import Handle

if TYPE_CHECKING:
    from .requests import Requests

T = TypeVar("T")

COPY_MAX: Final = 16 * 1024
"""File data up to this length is copied out, so that it does not hold a whole chunk."""


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
WIRE_HANDLE: Final[Answer[bytes]] = Answer(sftp.FXP_HANDLE, sftp.decode_handle)
"""As HANDLE, and nobody keeps account of it."""
LISTED: Final[Answer[sftp.Listed | None]] = Answer(sftp.FXP_NAME, sftp.decode_listing, eof=True)
ONE_NAME: Final[Answer[bytes]] = Answer(sftp.FXP_NAME, _one_name)
ATTRS: Final[Answer[sftp.Attrs]] = Answer(sftp.FXP_ATTRS, sftp.decode_attrs)
STATVFS: Final[Answer[Statvfs]] = Answer(sftp.FXP_EXTENDED_REPLY, sftp.decode_statvfs)
LIMITS: Final[Answer[sftp.Limits]] = Answer(sftp.FXP_EXTENDED_REPLY, sftp.decode_limits)
VERSION: Final[Answer[tuple[int, dict[bytes, bytes]]]] = Answer(
    sftp.FXP_VERSION, sftp.decode_version
)


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
        "args",
        "asked",
        "done",
        "encode",
        "is_abandoned",
        "payload",
        "shared",
    )

    encode: Callable[..., bytes]
    """With `args` and `payload`, the request; set when it is submitted."""
    args: tuple[Any, ...]

    def __init__(self, connection: Requests, answer: Answer[T], *, shared: bool = False) -> None:
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
        self.payload: Buffer = b""
        self.shared = shared

    def __await__(self) -> Generator[Any, Any, T]:
        if not self.done:
            connection = self._connection
            connection.waits += 1
            inbox = connection.inbox
            if inbox.stay(self):
                return self.result()
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

            inbox.parked()
            try:
                yield from trio.lowlevel.wait_task_rescheduled(abort).__await__()
            finally:
                inbox.unparked()
        return self.result()

    async def after(self, last: Slot[Any]) -> T:
        """Return the answer once that of `last`, submitted behind it, is there, too.

        Most servers answer in order: one wake-up for both then.
        """
        try:
            if not last.done:
                await last.wait()
        except BaseException:
            self.abandon()
            raise
        return await self

    async def wait(self) -> None:
        """Wait until the slot is done; whether it has failed is for `result` to tell."""
        with suppress(VfsError):
            await self

    def result(self) -> T:
        """Return the answer of a slot that is done. Errors: as awaiting it."""
        if self._errno:
            raise VfsError(self._errno)
        if self._code != sftp.FX_OK:
            raise StatusError(self._code, self._message)
        return self._value  # type: ignore[return-value]  # None is an answer of STATUS and of EOF

    @property
    def is_cut(self) -> bool:
        """Tell whether the slot is done because its connection has ended."""
        return self._errno != 0

    @property
    def connection(self) -> Requests:
        """The connection of the request."""
        return self._connection

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
                self._connection.close_handle(self._handle(sftp.decode_handle(body)))
        else:
            value = answer.decode(body)
            if kind == sftp.FXP_DATA:
                length = len(value)  # type: ignore[arg-type]
                if length > self.asked or length == 0:
                    raise RemoteProtocolError(f"{length} octets of data, asked for {self.asked}")
                if length <= COPY_MAX:
                    value = bytes(value)  # type: ignore[call-overload]
                else:
                    loaned = True
            elif answer is HANDLE:
                value = self._handle(value)  # type: ignore[arg-type, assignment]
            self._value = value
        self.done = True
        self._wake()
        return loaned

    def _handle(self, wire: bytes) -> Handle:
        """Return the handle that OPEN or OPENDIR got."""
        pflags = self.args[1] if len(self.args) > 1 else 0
        handle = Handle.of(wire, self.args[0], pflags, self._connection.losses)
        self._connection.handles.add(handle)
        return handle

    def complete(self, value: T) -> None:
        """Complete with an answer that was found by looking; `value` for one to OPEN is what the
        server calls the handle."""
        if self.answer is HANDLE:
            value = self._handle(value)  # type: ignore[arg-type, assignment]
        self._value = value
        self.done = True
        self._wake()

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


class HeardSlot(Slot[T]):
    """A request for whose answer no task waits: `heard_by` is called with the slot when it is
    there, well or not, in the task that receives."""

    __slots__ = ("_heard_by",)

    def __init__(
        self, connection: Requests, answer: Answer[T], heard_by: Callable[[Any], None]
    ) -> None:
        super().__init__(connection, answer, shared=True)
        self._heard_by = heard_by

    def _wake(self) -> None:
        self._heard_by(self)
        super()._wake()
