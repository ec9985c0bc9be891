"""The workers of a mount, who take turns at reading the host's requests.

As in layers/puffs/stream.py: the leader reads a request and does it himself. Only when it really
has to wait does another worker take the lead, and the one that waits goes on as that request's
task. So a request that is answered from memory costs no task and no trip through the scheduler.

What becomes of a request whose caller gets a signal is in `interrupts.py`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from errno import EIO, ENOSYS
from time import monotonic_ns
from typing import Any, Final

import trio
from trio.lowlevel import Abort, Task

from ...layers.resume import resume
from ...native import device_replies
from ...native.device_requests import Request, RequestBuffer, take
from ...native.errors import RemoteProtocolError, VfsError
from ...native.fuse_protocol import Opcode
from .device import BUFFER_LEN, Device, DeviceGone
from .interrupts import ASKING, Interrupts
from .worker import Answer, Worker

_log = logging.getLogger(__name__)

WAITING_MAX: Final = 256
"""Requests that may wait at a time; while there are as many, none is read. The host sends at most
12 of its own accord, and one for each thread that waits. Those for a lock do not count: what they
wait for may be the next request."""
_IDLE_MAX: Final = 8
"""Workers that are kept for the next time."""
_LENT_MAX: Final = 64
"""Buffers whose data may be waiting to be written, 1 MiB each; while there are as many, no request
is read."""
_SPARE_MAX: Final = 4
"""Buffers that are kept for the next time."""
_UNYIELDED_MAX: Final = 32
"""How many requests are handled before the scheduler is asked: others may wait."""
_DRAIN_SECONDS: Final = 5.0
"""How long requests under way may take when the service is to end."""
SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})
"""What has no answer and must not wait."""
_KNOWN: Final = frozenset(int(opcode) for opcode in Opcode)


def opcode_name(opcode: int) -> str:
    """Return what an opcode is called, in small letters."""
    return Opcode(opcode).name.lower() if opcode in _KNOWN else f"opcode {opcode}"


class Service:
    """Serves one device, until the host has unmounted or `stop`.

    `handlers` are called by opcode; one of an opcode in `SILENT` is a plain function. What ends in
    VfsError is answered with its number, what nobody foresaw is logged and answered with EIO.
    `undo` takes back what an answer told that reached nobody, `lost` hears of the error of a
    request whose caller has gone. `ends_wait` is asked first when a caller got a signal, with the
    number of the request; True: there is nothing else to do. With `dump` each request is printed.
    """

    def __init__(
        self,
        device: Device,
        handlers: Mapping[int, Callable[..., Any]],
        *,
        undo: Callable[[Request, Answer], Awaitable[None]],
        lost: Callable[[Request, int], None],
        ends_wait: Callable[[int], bool],
        dump: bool = False,
    ) -> None:
        self._device = device
        self._handlers: dict[int, Callable[..., Any]] = {
            **handlers,
            Opcode.INTERRUPT: self._interrupt,
        }
        self._undo = undo
        self._lost = lost
        self._ends_wait = ends_wait
        self._dump = dump
        self._nursery: trio.Nursery
        self._scope = trio.CancelScope()
        self._idle: list[Task] = []
        self._nobody_leads = False
        self._is_over = False
        self._buffer = RequestBuffer(BUFFER_LEN)
        self._spare: list[RequestBuffer] = []
        self._lent = 0
        self._for_locks = 0
        self._unyielded = 0
        self._interrupts = Interrupts(device)
        self.workers = 0
        self.waiting: dict[int, Worker] = {}
        """Requests that wait, by their number; oldest first."""
        self.failures = 0
        """Answers that nobody foresaw."""

    async def run(self) -> None:
        """Serve; when this returns requests under way have ended, or were cancelled as too slow."""
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                self._add()

    def stop(self) -> None:
        """Read no more requests. Those under way may end within _DRAIN_SECONDS."""
        if not self._is_over:
            self._is_over = True
            self._scope.deadline = trio.current_time() + _DRAIN_SECONDS
            self._device.wake()
            while self._idle:
                trio.lowlevel.reschedule(self._idle.pop())

    def _add(self) -> None:
        self.workers += 1
        self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        worker = Worker()
        try:
            while not self._is_over:
                # Around everything that a worker does, so that no request costs a scope.
                with trio.CancelScope() as worker.scope:
                    while not self._is_over and not worker.scope.cancel_called:
                        if worker.leads:
                            await self._lead(worker)
                        elif not await self._wait_to_lead(worker):
                            return
        finally:
            self.workers -= 1

    # Leading.

    async def _lead(self, worker: Worker) -> None:
        """Read and handle requests until one has had to wait, or all is over."""
        device = self._device
        # Behind a lone request that has just begun to wait there is as a rule no other one.
        is_quiet = len(self.waiting) == 1
        while not self._is_over:
            try:
                length = 0 if is_quiet else device.read(self._buffer)
                if not length:
                    is_quiet = False
                    # Who got an answer is likely to have the next request ready.
                    if not self.waiting and device.is_soon_readable():
                        continue
                    await device.readable()
                    self._unyielded = 0
                    continue
            except DeviceGone:
                if not self._is_over:
                    self._end()
                return
            try:
                request = take(self._buffer, length)
            except RemoteProtocolError as exc:
                self._complain(length, exc)
                continue
            opcode = request.opcode
            handler = self._handlers.get(opcode)
            if self._dump:
                self._print(request)
            if handler is None:
                device.reply(device_replies.error(request.unique, ENOSYS))
                continue
            if opcode in SILENT:
                handler(request, *request.args)
                continue
            operation: Coroutine[Any, Any, Answer] = handler(request, *request.args)
            try:
                trap = operation.send(None)
            except StopIteration as done:
                self._answer(request, done.value)
            except Exception as exc:
                self._failed(request, exc)
            else:
                worker.operation = operation
                self._hand_over(worker, request)
                await self._finish(worker, operation, trap)
                return
            self._unyielded += 1
            if self._unyielded >= _UNYIELDED_MAX:
                self._unyielded = 0
                await trio.lowlevel.checkpoint()

    async def _finish(
        self, worker: Worker, operation: Coroutine[Any, Any, Answer], trap: Any
    ) -> None:
        """Go on with an operation that waits, and answer."""
        request = worker.request
        try:
            answer = await resume(operation, trap)
        except Exception as exc:
            if worker.is_answered:
                self._lost(request, exc.errno if isinstance(exc, VfsError) else EIO)
            else:
                self._failed(request, exc)
        else:
            if not worker.is_answered:
                self._answer(request, answer)
            else:
                self._take_back(request, answer)
        finally:
            self._ended(worker)

    def _hand_over(self, worker: Worker, request: Request) -> None:
        """Let another worker lead; this one waits for `request`."""
        worker.request = request
        worker.since = monotonic_ns()
        worker.leads = False
        self.waiting[request.unique] = worker
        if request.opcode == Opcode.WRITE:
            worker.buffer = self._buffer
            self._lent += 1
            self._buffer = self._spare.pop() if self._spare else RequestBuffer(BUFFER_LEN)
        elif request.opcode == Opcode.SETLKW:
            self._for_locks += 1
        if self._lent >= _LENT_MAX or len(self.waiting) - self._for_locks >= WAITING_MAX:
            self._nobody_leads = True
        elif self._idle:
            trio.lowlevel.reschedule(self._idle.pop())
        else:
            self._add()

    def _ended(self, worker: Worker) -> None:
        del self.waiting[worker.request.unique]
        if worker.request.opcode == Opcode.SETLKW:
            self._for_locks -= 1
        if worker.is_interrupted:
            self._interrupts.ended(worker)
        if worker.buffer is not None:
            if len(self._spare) < _SPARE_MAX:
                self._spare.append(worker.buffer)
            worker.buffer = None
            self._lent -= 1

    async def _wait_to_lead(self, worker: Worker) -> bool:
        """Wait until this worker is to lead; False: it is not needed any more."""
        if self._nobody_leads and self._lent < _LENT_MAX:
            self._nobody_leads = False
        elif len(self._idle) >= _IDLE_MAX:
            return False
        else:
            task = worker.task
            self._idle.append(task)

            def abort(_: Any) -> Abort:
                self._idle.remove(task)
                return Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        worker.leads = True
        return True

    def _end(self) -> None:
        """Note that the host has unmounted: no caller is left, and who only asks need not go on."""
        self.stop()
        for worker in self.waiting.values():
            if worker.request.opcode in ASKING or worker.request.opcode == Opcode.SETLKW:
                worker.scope.cancel()

    # Answering.

    def _answer(self, request: Request, answer: Answer) -> None:
        try:
            if type(answer) is bytes:
                wanted = self._device.reply(answer)
            else:
                wanted = self._device.reply_data(*answer)
        except OSError as exc:
            self._take_back(request, answer)
            self._failed(request, exc)
            return
        if not wanted:
            self._take_back(request, answer)

    def _take_back(self, request: Request, answer: Answer) -> None:
        self._nursery.start_soon(self._undo, request, answer)

    def _failed(self, request: Request, exc: Exception) -> None:
        if isinstance(exc, VfsError):
            errno = exc.errno
        else:
            errno = EIO
            self.failures += 1
            _log.error(
                "%s failed in a way that it must not", opcode_name(request.opcode), exc_info=exc
            )
        self._device.reply(device_replies.error(request.unique, errno))
        if self._dump:
            print(f"{request.unique}: errno {errno}", file=sys.stderr)

    def _complain(self, length: int, exc: RemoteProtocolError) -> None:
        """Answer what is no request, as far as it has a number."""
        self.failures += 1
        _log.error("the host sent %d octets that are no request: %s", length, exc)
        unique = int.from_bytes(self._buffer.view[8:16], sys.byteorder)
        self._device.reply(device_replies.error(unique, EIO))

    def _print(self, request: Request) -> None:
        args = [
            f"{len(arg)} octets" if isinstance(arg, memoryview) else repr(arg)
            for arg in request.args
        ]
        text = f"{request.unique}: {opcode_name(request.opcode)} node {request.nodeid}"
        print(text, f"pid {request.pid}", *args, file=sys.stderr)

    # Interrupts.

    def _interrupt(self, _request: Request, unique: int) -> None:
        worker = self.waiting.get(unique)
        if worker is None or self._ends_wait(unique):
            return  # answered meanwhile: the host sends this behind the request, never before it
        if self._interrupts.add(worker):
            self._nursery.start_soon(self._interrupts.watch)
