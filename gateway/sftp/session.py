"""One SFTP session: octets in, requests done, octets out.

All packets of one receive are dealt with one after the other, and their answers leave in one call.
Who does that is a matter of crew.py, and which requests may run side by side of order.py.

Memory is bounded: answers that the client does not fetch, and what requests in flight hold and are
going to answer, stop the leader from taking more.
"""

from __future__ import annotations

import logging
from collections import deque
from errno import ETIMEDOUT
from time import monotonic
from typing import Any, Final, NamedTuple

import trio
from trio.lowlevel import Abort, Task

from ...native import sftp_server as sftp
from ...native.errors import RemoteProtocolError, VfsError
from ...native.sftp_protocol import FXP_STATUS
from .answers import DATA_MAX, PACKET_MAX, Data, Handler
from .crew import Crew, Worker
from .due import Due, whole_front
from .extensions import EXTENSIONS, SessionRequests
from .files import FileRequests
from .intake import Chunk, Intake, Packets
from .listing import ListRequests
from .looking import LookRequests
from .names import NameRequests
from .order import Claim, Parts
from .outbox import Outbox
from .permitted import Permitted
from .status import Refusal, status_of
from .turns import Opened, copy_parts, handle_parts
from .view import View

_log = logging.getLogger(__name__)

QUEUED_MAX: Final = 1024 * 1024
"""Octets of answers that wait for the client above which no request is taken."""
OWED_MAX: Final = 8 * 1024 * 1024
"""Octets that requests in flight hold or are going to answer above which none is taken."""
REQUEST_SECONDS: Final = 300.0
"""How long the file server may take for one request, unless the session is told otherwise."""
END_SECONDS: Final = 10.0
"""How long requests in flight and what is open may take to end when the client has left."""
_BATCH: Final = 64
"""Requests that are done before other sessions get their turn."""
_IN_ORDER: Final = frozenset({sftp.Read, sftp.Write})
"""Requests whose answers leave in order, handle by handle; see due.py."""
_SMALL: Final = 1024
"""What a request holds beside file data, octets, roughly."""


class SessionStatistics(NamedTuple):
    """Counters since the session began, and what is going on now."""

    requests: int
    failures: int
    octets_received: int
    octets_sent: int
    octets_queued: int
    octets_owed: int
    in_flight: int
    handles: int
    workers: int


class Journal:
    """Hears what a session does. The base hears nothing."""

    def done(self, request: Any, code: int, opened: Opened | None, seconds: float) -> None:
        """Hear that a request ended with a status code; `opened` is what a CLOSE has closed.

        `seconds` is how long it took, its turn included.
        """

    def left(self, opened: Opened) -> None:
        """Hear that something is still open when the session ends, and is closed for the client."""


class Session:
    """Serves one client. `serve` runs it; everything else may be called at any time.

    `timeout`: seconds that the file server may take for one request, None for any time. `label`
    names the session in logs. `lingers`: the session is all that the process does, so that it may
    keep the scheduler for itself for a moment (intake.py); may change at any time.
    """

    def __init__(
        self,
        view: View,
        in_fd: int,
        out_fd: int,
        *,
        permitted: Permitted | None = None,
        timeout: float | None = REQUEST_SECONDS,
        journal: Journal | None = None,
        label: str = "SFTP session",
        lingers: bool = False,
    ) -> None:
        self._view = view
        self._handles = view.handles
        self._permitted = Permitted() if permitted is None else permitted
        self._asks = not self._permitted.is_everything
        self._journal = journal
        self._label = label
        self.lingers = lingers
        self._crew = Crew(
            self._work,
            timeout=timeout,
            label=label,
            on_late=self._late,
            on_wait=self._flush,
            on_done=self._unpark,
        )
        self._intake = Intake(in_fd, PACKET_MAX)
        self._outbox = Outbox(out_fd, self._crew.spawn, self._unpark, self._broken)
        looks = LookRequests(view)
        self._files = FileRequests(view, looks, self._crew.got_on)
        self._handlers: dict[type[Any], Handler] = {
            **looks.handlers,
            **self._files.handlers,
            **ListRequests(view).handlers,
            **NameRequests(view).handlers,
            **SessionRequests(view).handlers,
        }
        self._packets: Packets = ()
        self._next = 0
        self._is_greeted = False
        self._trouble: Exception | None = None
        self._parked: Task | None = None
        self._requests = 0
        self.failures = 0
        """Requests that ended in a way that nobody foresaw."""
        self.cause = ""
        """Why the session ended, for people; empty while it lasts, and when the client left."""
        self.is_broken = False
        """Whether the client broke the protocol."""

    def statistics(self) -> SessionStatistics:
        """Return the figures of now."""
        return SessionStatistics(
            self._requests,
            self.failures,
            self._intake.received,
            self._outbox.sent,
            self._outbox.queued,
            self._crew.owed,
            len(self._crew.waiting),
            len(self._handles),
            self._crew.workers,
        )

    async def serve(self) -> None:
        """Serve until the client leaves, or breaks the protocol; see `cause`.

        The descriptors stay the caller's. Requests in flight are then given some time to end, and
        what is open is closed, also when this is cancelled. The session's nodes are given back.
        """
        try:
            await self._crew.run()
        finally:
            left = self._handles.take_all()
            if self._journal is not None:
                for opened in left:
                    self._journal.left(opened)
            with trio.move_on_after(END_SECONDS, shield=True):
                await self._files.end_all(left)

    # The end.

    def _end(self, cause: str = "") -> None:
        """End the session at once: cancel what is in flight."""
        if not self.cause:
            self.cause = cause
        self._crew.stop()

    def _broken(self, cause: str) -> None:
        _log.info("%s: %s", self._label, cause)
        self._end(cause)

    async def _finish(self) -> None:
        """The client sends nothing any more: answer what it has asked for, then end."""
        with trio.move_on_after(END_SECONDS):
            while self._crew.waiting or self._outbox.queued:
                self._outbox.flush()
                if self._crew.waiting or self._outbox.queued:
                    await self._park()
        self._end()

    # Doing requests.

    async def _work(self, worker: Worker) -> None:
        """Lead, or wait until it is time to lead, until the session or the scope ends."""
        outbox, handlers, crew = self._outbox, self._handlers, self._crew
        traffic = crew.traffic
        while True:
            if not worker.is_leader:
                outbox.flush()
                if not await crew.lead_again(worker):
                    worker.is_over = True
                    return
            at = self._next
            if at == len(self._packets):
                if not self._take() and not await self._more():
                    worker.is_over = True
                    return
                at = 0
            elif not at % _BATCH or outbox.queued > QUEUED_MAX or crew.owed > OWED_MAX:
                await self._pause()
            type_, id, start, end = self._packets[at]
            self._next = at + 1
            self._requests += 1
            request = sftp.decode_request(self._intake.chunk.view, type_, id, start, end)
            handler = handlers.get(type(request))
            if handler is None or not self._is_greeted:
                if not self._answer_odd(request):
                    worker.is_over = True
                    return
                continue
            worker.begin(request)
            if self._journal is not None:
                worker.begun = monotonic()
            if self._asks and not self._permitted.permits(request):
                self._answer(worker, (sftp.FX_PERMISSION_DENIED, b"Permission denied"))
                continue
            try:
                if traffic and not self._enter(worker).is_free:
                    await self._wait_turn(worker)
                operation: Any = handler(worker, request)
                try:
                    trap = operation.send(None)
                except StopIteration as done:
                    reply = done.value
                else:
                    parts = None
                    if worker.claim is None:
                        parts = self._parts_of(request, worker)
                    held = self._held(request)
                    self._owe(worker)
                    reply = await crew.finish(worker, operation, trap, parts, *held)
            except Exception as exc:
                self._answer(worker, self._failed(request, exc))
            except BaseException:
                crew.leave(worker)
                raise
            else:
                if worker.opened is not None and worker.opened.due:
                    self._put_in_order(worker, reply)
                elif type(reply) is bytes:
                    outbox.put(reply)
                else:
                    outbox.put_data(*reply)
                if self._journal is not None:
                    self._note(worker, reply)
            if worker.claim is not None:
                crew.leave(worker)
                if worker.scope.cancel_called:
                    return  # the watcher came too late, but this scope is of no use any more

    def _late(self, worker: Worker) -> None:
        """Answer a request that has been cancelled, for it took too long."""
        self._answer(worker, status_of(ETIMEDOUT))

    def _flush(self) -> None:
        self._outbox.flush()

    def _answer(self, worker: Worker, status: tuple[int, bytes]) -> None:
        """Answer a worker's request with a status."""
        self._put_in_order(worker, sftp.status(worker.request.id, *status))
        if self._journal is not None:
            self._heard(worker, status[0])

    def _owe(self, worker: Worker) -> None:
        """Keep the place of a request that is going to wait among the answers of its handle."""
        opened = worker.opened
        if opened is not None and worker.due is None and type(worker.request) in _IN_ORDER:
            if opened.due is None:
                opened.due = deque()
            worker.due = Due()
            opened.due.append(worker.due)

    def _put_in_order(self, worker: Worker, reply: bytes | Data) -> None:
        """Queue an answer, behind those that are owed before it. Meanwhile it counts as owed."""
        opened, due = worker.opened, worker.due
        if due is None and opened is not None and opened.due and type(worker.request) in _IN_ORDER:
            due = Due()
            opened.due.append(due)
        if due is None:
            self._put(reply)
            return
        assert opened is not None
        assert opened.due is not None
        due.reply = reply
        due.octets = _SMALL + (0 if isinstance(reply, bytes) else len(reply.payload))
        self._crew.owed += due.octets
        for first in whole_front(opened.due):
            self._crew.owed -= first.octets
            self._put(first.reply)

    def _put(self, reply: bytes | Data) -> None:
        if type(reply) is bytes:
            self._outbox.put(reply)
        else:
            self._outbox.put_data(*reply)

    def _note(self, worker: Worker, reply: bytes | Data) -> None:
        code = sftp.FX_OK
        if type(reply) is bytes and reply[4] == FXP_STATUS:
            code = int.from_bytes(reply[9:13], "big")
        self._heard(worker, code)

    def _heard(self, worker: Worker, code: int) -> None:
        assert self._journal is not None
        seconds = monotonic() - worker.begun
        self._journal.done(worker.request, code, worker.opened, seconds)

    def _answer_odd(self, request: Any) -> bool:
        """Deal with a packet that is no request to be done; return whether the session goes on."""
        if type(request) is sftp.Init:
            self._is_greeted = True
            permitted = self._permitted.extensions
            offered = {name: data for name, data in EXTENSIONS.items() if name in permitted}
            self._outbox.put(sftp.version(offered))
            return True
        if not self._is_greeted:
            return self._breach("it did not begin with INIT")
        if type(request) is sftp.Malformed:
            if request.type == sftp.FXP_INIT:
                return self._breach(f"its INIT: {request.reason}")
            _log.info("%s: request type %d: %s", self._label, request.type, request.reason)
            code, text = sftp.FX_BAD_MESSAGE, request.reason.encode()
        else:
            _log.info("%s: request type %d %r", self._label, request.type, request.extension)
            code, text = sftp.FX_OP_UNSUPPORTED, b"Operation unsupported"
        self._outbox.put(sftp.status(request.id, code, text))
        return True

    def _breach(self, reason: str) -> bool:
        """End the session: the client broke the protocol."""
        cause = f"the client broke the protocol: {reason}"
        _log.warning("%s: %s", self._label, cause)
        self.is_broken = True
        self._outbox.flush()
        self._end(cause)
        return False

    def _failed(self, request: Any, exc: Exception) -> tuple[int, bytes]:
        """Return the status that an exception means. The one table of the SFTP end is status.py."""
        if isinstance(exc, VfsError):
            return status_of(exc.errno)
        if isinstance(exc, Refusal):
            return exc.code, exc.text
        self.failures += 1
        _log.error(
            "%s: %s failed in a way that it must not",
            self._label,
            type(request).__name__,
            exc_info=exc,
        )
        return sftp.FX_FAILURE, b"Failure"

    # Waiting.

    def _parts_of(self, request: Any, worker: Worker) -> Parts | None:
        """Return what a request through handles touches, None for one by path."""
        if type(request) is sftp.CopyData:
            source = worker.opened or self._handles.get(request.read_handle)
            target = worker.target or self._handles.get(request.write_handle)
            if source is None or target is None:
                return ()
            worker.opened, worker.target = source, target
            return copy_parts(request, source, target)
        handle = getattr(request, "handle", None)
        if handle is None:
            return None
        # Kept: a CLOSE that comes later takes the handle out of the table at once.
        opened = worker.opened = worker.opened or self._handles.get(handle)
        return () if opened is None else handle_parts(request, opened)

    def _enter(self, worker: Worker) -> Claim:
        """Claim what a request touches that comes while others are in flight."""
        request = worker.request
        parts = self._parts_of(request, worker)
        if parts is not None:
            if type(request) is sftp.Close:
                self._handles.take(request.handle)
            return worker.enter(None, parts)
        path = getattr(request, "path", None) or getattr(request, "linkpath", None)
        return worker.enter(None if path is None else self._view.paths.place(path), None)

    async def _wait_turn(self, worker: Worker) -> None:
        """Wait until no earlier request stands in the way."""
        request = worker.request
        self._owe(worker)
        try:
            await self._crew.wait_turn(worker, *self._held(request))
        except BaseException:
            if type(request) is sftp.Close and worker.opened is not None:
                self._handles.put_back(request.handle, worker.opened)  # it is still open
            raise

    def _held(self, request: Any) -> tuple[int, Chunk | None]:
        """Return what a request that waits keeps in memory: octets, and what its data lie in."""
        if type(request) is sftp.Read:
            return _SMALL + min(request.length, DATA_MAX), None
        return _SMALL, self._intake.chunk if type(request) is sftp.Write else None

    # Taking packets.

    @property
    def _is_full(self) -> bool:
        """Whether the session has as much in memory as it may have."""
        return self._outbox.queued > QUEUED_MAX or self._crew.owed > OWED_MAX

    def _take(self) -> bool:
        """Send what is done, and take packets that can be had at once; return whether there were
        any."""
        outbox = self._outbox
        outbox.flush()
        if self._is_full:
            return False
        linger = self.lingers and not (self._crew.waiting or outbox.queued)
        try:
            found = self._intake.take(linger=linger)
        except (RemoteProtocolError, OSError) as exc:
            self._trouble = exc  # `_more` deals with it
            return False
        if not found:
            return False
        self._packets, self._next = found, 0
        return True

    async def _more(self) -> bool:
        """Wait until there are packets to take, and room for what they mean; False at the end."""
        self._packets, self._next = (), 0
        while self._is_full:
            await self._park()
        try:
            if self._trouble is not None:
                raise self._trouble
            found = await self._intake.packets()
        except RemoteProtocolError as exc:
            return self._breach(str(exc))
        except OSError as exc:
            self._broken(f"receiving from the client: {exc.strerror}")
            return False
        if not found:
            await self._finish()
            return False
        self._packets = found
        return True

    async def _pause(self) -> None:
        """In the midst of packets: let others have their turn, and wait until there is room."""
        self._outbox.flush()
        while self._is_full:
            await self._park()
        await trio.lowlevel.checkpoint()

    async def _park(self) -> None:
        """Wait until something has left the session."""
        self._parked = trio.lowlevel.current_task()

        def abort(_: Any) -> Abort:
            self._parked = None
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _unpark(self) -> None:
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)
