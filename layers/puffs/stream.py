"""The server half behind a putter.

Its workers take turns at reading ("leader and followers"): the worker that has read a
request runs the operation itself, and only when the operation really has to wait does
another worker take over the reading. A server that answers from what it has is thus
served by one task that never changes, without a trip through the scheduler.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Coroutine
from errno import ENOENT
from itertools import count
from typing import Any, Final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from ...native.constants import FLAG_RESPONSE, ID_FROM_SERVER, MNT_FORCE, FlushOp, OpClass
from ...native.errors import RemoteProtocolError, TransportError, VfsError
from ...native.frames import encode_request
from ...native.records import Buffer, Cookie
from ..ops import FileServer
from ..resume import resume
from .putter import Putter
from .server import ServerHalf, ServerStatistics
from .touser import MAX_IN_FLIGHT, QueueTouser

_log = logging.getLogger(__name__)

MAX_WORKERS: Final = MAX_IN_FLIGHT + 2
"""One for each request in flight, one for an unmount beside them, and one who reads."""
_IDLE_WORKERS: Final = 16

_OPCLASS: Final = 4
"""Where the header has the low octet of opclass (native/frames)."""


async def _watch(operation: Coroutine[Any, Any, None], on_block: Callable[[], None]) -> bool:
    """Run `operation`; call `on_block` once, before it waits for the first time, if it ever does.

    Returns whether it did.
    """
    try:
        trap = operation.send(None)
    except StopIteration:
        return False
    on_block()
    await resume(operation, trap)
    return True


class StreamServer:
    """Serves one FileServer over one putter, which it owns; is its `Upcalls`."""

    def __init__(self, server: FileServer, putter: Putter) -> None:
        self._half = ServerHalf(server)
        self._server = server
        self._putter = putter
        self._asked = QueueTouser(putter)
        self._ids = count(ID_FROM_SERVER + 1)
        self._nursery: trio.Nursery | None = None
        self._workers = 0
        self._idle: list[Task] = []
        self._nobody_reads = False

    @property
    def half(self) -> ServerHalf:
        """The server half, for who looks into a living stack."""
        return self._half

    def statistics(self) -> ServerStatistics:
        """Return the figures of now."""
        return self._half.statistics()

    async def serve(self) -> None:
        """Serve until an unmount is granted or the stream ends.

        In the second case operations under way are cancelled, and the server is unmounted by
        force. When this is cancelled, that is left to whoever owns the server.
        """
        try:
            self._server.attach(self)
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._putter.pump)
                self._nursery.start_soon(self._worker)
                self._workers += 1
        finally:
            self._putter.close()
            self._asked.end()
        if not self._half.has_ended:
            try:
                await self._server.unmount(MNT_FORCE)
            except VfsError as exc:
                _log.warning("the kernel half has gone; unmounting by force said: %s", exc)

    # Upcalls.

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """See Upcalls. Errors: ENXIO when the kernel half has gone; EINVAL as in `fromserver`."""
        id = next(self._ids)
        head = encode_request(OpClass.FLUSH, op, id, cookie, (start, end, name))
        try:
            header, _ = await self._asked.call(head, None, id, OpClass.FLUSH << 6 | op, ())
        except RemoteProtocolError as exc:
            self._putter.fail(exc)  # an answer without a body that is wrong: not a kernel half
            return
        if header.rv not in (0, ENOENT):
            raise VfsError(header.rv, "answer to a flush")

    def unmount(self) -> None:
        """See Upcalls."""
        id = next(self._ids)
        head = encode_request(OpClass.UNMOUNT, 0, id, 0, ())
        self._asked.call_nowait(head, id, OpClass.UNMOUNT << 6)

    # Workers. Exactly one of them reads, unless all are waiting for their operations.

    async def _worker(self) -> None:
        putter = self._putter
        try:
            while True:
                try:
                    frame = await putter.next_frame()
                except TransportError as exc:
                    self._stop(exc)
                    return
                if frame[_OPCLASS] & FLAG_RESPONSE:
                    self._asked.reply(frame)
                    continue
                if not await _watch(self._answer(frame), self._hand_over):
                    continue
                if self._nobody_reads:
                    self._nobody_reads = False
                elif len(self._idle) < _IDLE_WORKERS:
                    await self._wait_for_work()
                else:
                    return
        finally:
            self._workers -= 1

    async def _answer(self, frame: Buffer) -> None:
        try:
            answer = await self._half.handle(frame)
        except RemoteProtocolError as exc:
            self._putter.fail(exc)  # whoever reads learns it
            return
        if answer is None:
            return
        putter = self._putter
        if putter.full:
            await putter.wait_room()
        try:
            putter.push(*answer)
        except TransportError:
            return  # whoever reads will learn it, too
        if self._half.has_ended:
            await putter.flush()
            self._stop(None)

    def _hand_over(self) -> None:
        """Let another worker read: this one has to wait."""
        assert self._nursery is not None
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop())
        elif self._workers < MAX_WORKERS:
            self._workers += 1
            self._nursery.start_soon(self._worker)
        else:
            self._nobody_reads = True

    async def _wait_for_work(self) -> None:
        task = trio.lowlevel.current_task()
        self._idle.append(task)

        def abort(_: RaiseCancelT) -> Abort:
            self._idle.remove(task)
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _stop(self, cause: TransportError | None) -> None:
        """End serving; everything under way is cancelled."""
        assert self._nursery is not None
        if cause is not None and cause.__cause__ is not None:
            _log.warning("the kernel half is lost: %s (%s)", cause, cause.__cause__)
        self._asked.end()
        self._nursery.cancel_scope.cancel()


async def serve(server: FileServer, sock: socket.socket) -> None:
    """Serve `server` over a connected stream socket, until it has been unmounted.

    The socket belongs to the serving from now on. If it ends without an unmount, the server is
    unmounted by force, so that what was written reaches its medium.
    """
    await StreamServer(server, Putter.of_socket(sock)).serve()
