"""The SSH processes as the gateway sees them: started, asked for signs of life, replaced."""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio

from ..sshd.control import (
    BEAT_SECONDS,
    BadMessage,
    Configure,
    Message,
    Note,
    Ping,
    Pong,
    Ready,
    receive,
    send,
)

_log = logging.getLogger(__name__)

_SILENCE_BEATS: Final = 4
"""Beats without a word after which an SSH process is taken for dead."""
READY_SECONDS: Final = 30.0
"""How long an SSH process may take to obey orders."""
_LEAVE_SECONDS: Final = 2.0
"""How long one may take to leave when it is told to."""
_PAUSE_SECONDS: Final = 0.1
_PAUSE_MAX: Final = 10.0
"""First and longest wait before one that died is replaced; the wait doubles."""
_LONG_LIFE: Final = 60.0
"""Seconds of life after which a death is no reason to wait longer."""
_TAKEN_AT_ONCE: Final = 64


class Ear(Protocol):
    """Who hears what an SSH process says."""

    def heard(self, worker: Worker, message: Message, fd: int | None) -> None:
        """Hear a message; owns the descriptor. Errors: BadMessage, the process is ended."""

    def ready(self, worker: Worker) -> None:
        """Hear that a process takes clients."""

    def died(self, worker: Worker) -> None:
        """Hear that a process is gone, and all its connections with it."""


class Worker:
    """One SSH process. `orders` gives the memory file that it begins with, closed here."""

    def __init__(self, ear: Ear, orders: Callable[[], int]) -> None:
        self._ear = ear
        self._orders = orders
        self._socket: socket.socket | None = None
        self._heard_at = -math.inf
        self._answers: list[Ready] = []
        self._answered = trio.Event()
        self.connections: set[int] = set()
        """Numbers of the connections that it has."""
        self.pid = 0
        self.is_ready = False
        """Whether it can take connections."""
        self.trouble = ""
        """Why it does not obey its first orders."""

    def send(self, message: Message, fd: int | None = None) -> bool:
        """Send a message; `fd` stays the caller's. False: the process does not listen any more."""
        if self._socket is None:
            return False
        try:
            send(self._socket, message, fd)
        except OSError as exc:
            if not isinstance(exc, BrokenPipeError | ConnectionError):
                _log.error("SSH process %d does not listen: %s", self.pid, exc.strerror)
            self.end()
            return False
        return True

    def end(self) -> None:
        """Have it leave: its connections are lost."""
        self.is_ready = False
        if self._socket is not None:
            # So that whoever waits to read from it wakes up, and reads its end.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    async def configure(self, orders: int) -> str:
        """Give it other orders, and return why it does not obey them, or nothing.

        A process that is gone, or goes meanwhile, has nothing against them: its successor
        begins with what is in force then. `orders` stays the caller's.
        """
        self._answers.clear()
        if not self.is_ready or not self.send(Configure(), orders):
            return ""
        with trio.move_on_after(READY_SECONDS):
            while self.is_ready and not self._answers:
                await self._answered.wait()
            return self._answers[0].trouble if self._answers else ""
        _log.error("SSH process %d does not obey", self.pid)
        self.end()
        return ""

    async def run(self) -> str:
        """Start it, hear what it says, and return how it ended; ended when cancelled."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ours:
            with theirs:
                process = await trio.lowlevel.open_process(
                    [
                        # -P: a module of the same name in the current directory is none of ours.
                        *(sys.executable, "-P", "-m", "syspuffs.gateway.sshd.worker"),
                        str(theirs.fileno()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            self._socket = ours
            self.pid = process.pid
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch)
                    await self._listen()
                    nursery.cancel_scope.cancel()
            finally:
                self.is_ready = False
                self._answered.set()
                self._socket = None
                ours.close()
                await _bury(process)
        status = process.returncode
        assert status is not None
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    async def _watch(self) -> None:
        """Configure it, and end it when it says nothing for too long."""
        orders = self._orders()
        try:
            self.send(Configure(), orders)
        finally:
            os.close(orders)
        with trio.move_on_after(READY_SECONDS):
            while not self.is_ready and not self.trouble:
                await self._answered.wait()
        if not self.is_ready:
            self.end()
        self._heard_at = trio.current_time()
        while trio.current_time() < self._heard_at + _SILENCE_BEATS * BEAT_SECONDS:
            self.send(Ping())
            await trio.sleep(BEAT_SECONDS)
        _log.error("SSH process %d gives no sign of life", self.pid)
        self.end()

    async def _listen(self) -> None:
        sock = self._socket
        assert sock is not None
        count = 0
        while True:
            try:
                received = receive(sock)
            except BlockingIOError:
                count = 0
                await trio.lowlevel.wait_readable(sock)
                continue
            except BadMessage as exc:
                _log.error("SSH process %d says what it must not: %s", self.pid, exc)
                return
            if received is None:
                return
            message, fd = received
            self._heard_at = trio.current_time()
            try:
                self._take(message, fd)
            except BadMessage as exc:
                _log.error("SSH process %d says what it must not: %s", self.pid, exc)
                return
            count += 1
            if not count % _TAKEN_AT_ONCE:
                await trio.lowlevel.checkpoint()

    def _take(self, message: Message, fd: int | None) -> None:
        match message:
            case Ready():
                if not self.is_ready:
                    self.trouble = message.trouble
                    self.is_ready = not message.trouble
                    if self.is_ready:
                        self._ear.ready(self)
                self._answers.append(message)
                self._answered.set()
                self._answered = trio.Event()
            case Pong():
                pass
            case Note():
                level = min(max(message.level, logging.DEBUG), logging.ERROR)
                _log.log(level, "SSH process %d: %s", self.pid, message.text)
            case _:
                self._ear.heard(self, message, fd)
                return
        if fd is not None:
            os.close(fd)
            raise BadMessage(f"a descriptor with a {type(message).__name__}")


async def _bury(process: trio.Process) -> None:
    """Wait for a process that has been told to leave, for sure."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(_LEAVE_SECONDS):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def keep_worker(
    ear: Ear, orders: Callable[[], int], changed: Callable[[Worker | None, Worker], None]
) -> str:
    """Have one SSH process all the time; `changed` hears which one is there, None first.

    Returns when a process does not obey the orders that it begins with: why.
    """
    pause = _PAUSE_SECONDS
    old: Worker | None = None
    while True:
        worker = Worker(ear, orders)
        changed(old, worker)
        began = trio.current_time()
        try:
            how = await worker.run()
        except OSError as exc:
            how = f"cannot be started: {exc.strerror}"
        finally:
            ear.died(worker)
        if worker.trouble:
            return worker.trouble
        if trio.current_time() - began > _LONG_LIFE:
            pause = _PAUSE_SECONDS
        _log.error(
            "SSH process %d ended (%s), and %d connections with it; the next in %.1f s",
            *(worker.pid, how, len(worker.connections), pause),
        )
        worker.connections.clear()
        await trio.sleep(pause)
        pause = min(pause * 2, _PAUSE_MAX)
        old = worker
