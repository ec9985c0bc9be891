"""The process that carries a stream, and the object that stands for both.

Knows how a process is signalled, awaited and ended for sure; not what it runs.
"""

from __future__ import annotations

import os
import signal
import socket as _socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace

import trio

from .failure import DEAD_AFTER, Cause, ConnectError
from .unsent import Held, abort

_SOCKET_BUFFER = 1 << 20
LEAVE_TIME = 1.0
"""Seconds for a program to exit by itself after its socket was closed."""
_TERM_TIME = 2.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How to reach the server; what is not set comes from the ssh configuration files."""

    port: int | None = None
    config_file: str | None = None
    """`-F`: this file in place of the user's and the system's."""
    options: Sequence[str] = ()
    """`-o` options of ssh, each "Keyword=value" or "Keyword value"; the first of a keyword wins."""
    compression: bool = False
    ssh_command: str | None = None
    """Run this in place of our own ssh; words are split as by a shell."""
    sftp_server: str | None = None
    """Run this program on this machine, without ssh; words are split as by a shell."""
    subsystem: str = "sftp"
    """What ssh asks the server for: a subsystem by name, or, with a '/' in it, a program."""
    directport: int | None = None
    """An SFTP server listens on this TCP port of the host, without ssh."""
    vsock: tuple[int, int] | None = None
    """An SFTP server listens there, context id and port, without ssh."""
    descriptors: tuple[int, int] | None = None
    """An SFTP server is at the other end of these two, to read from and to write to; they become
    the stream's."""
    password: str | None = field(default=None, repr=False)
    """Given in advance (read from stdin, say); never shown, never on a command line."""
    dead_after: float = DEAD_AFTER
    """Seconds after which a network that carries nothing counts as dead, where the configuration
    says nothing of ServerAliveInterval."""

    def without_questions(self) -> SshOptions:
        """Return the same for a connection that nobody waits for: BatchMode."""
        return replace(self, options=("BatchMode=yes", *self.options))


class Stream:
    """A connected stream. Made by `open_stream`, which also ends it.

    `socket` is a plain non-blocking stream socket for use from trio; the stream owns it and
    closes it. `failure` is None while the program lives, then says why it ended. Without a
    `process` the server itself is at the other end, and its socket's end is all that is known.
    """

    def __init__(
        self,
        socket: _socket.socket,
        process: trio.Process | None,
        program: str,
        host: str,
        *,
        leads_group: bool = False,
    ) -> None:
        self.socket = socket
        self.failure: ConnectError | None = None
        self._process = process
        self._leads_group = leads_group
        self.program = program
        self.host = host
        self.description = program
        self.open_channel: Callable[[], AbstractAsyncContextManager[_socket.socket]] | None = None
        """Opens a further stream on the same login, where the program can do that."""
        self._dead = trio.Event()
        self._held = Held()
        self.is_leaving = False
        """Whether it is being closed because nobody needs it any more."""

    @property
    def has_process(self) -> bool:
        """Whether a program of ours is at the other end."""
        return self._process is not None

    @property
    def process(self) -> trio.Process:
        """Give the program at the other end, where there is one."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Give the process id of the program at the other end."""
        return self.process.pid

    def describe(self) -> str:
        """Give one line for people: what carries the stream."""
        if self._process is None:
            return self.description
        return f"{self.description}, process {self._process.pid}"

    async def wait_death(self) -> ConnectError:
        """Wait until the program has ended and give the cause; any number of tasks may wait."""
        await self._dead.wait()
        assert self.failure is not None
        return self.failure

    async def explain_end(self) -> ConnectError:
        """Give the cause after the socket has ended or broken; waits at most a few seconds.

        A program that lingers although its socket is gone is terminated.
        """
        if self.has_process:
            with trio.move_on_after(LEAVE_TIME):
                return await self.wait_death()
        await self.terminate()
        return await self.wait_death()

    def die(self, failure: ConnectError) -> None:
        """Say why the program ended, which it has; the first cause counts."""
        if not self.is_leaving:
            self._held.reset()
        if self.failure is None:
            self.failure = failure
        self._dead.set()

    def hold(self) -> None:
        """Hold the program's connections, now that it has them, so that `discard` can do so
        whatever the program does."""
        self._held = Held(self.pid)

    def release(self) -> None:
        """Let go of the program's connections; harmless when called twice."""
        self._held.close()

    def discard(self) -> None:
        """Let nothing arrive at the server any more that is still on this machine.

        A socket that leads to the server is of no use afterwards; a program has yet to end.
        """
        if self._process is None:
            abort(self.socket)
        else:
            self._held.reset()

    async def abandon(self) -> None:
        """Discard, and end the program for sure, if there is one."""
        self.discard()
        if self._process is not None:
            await self.terminate()

    async def terminate(self) -> None:
        """End the program for sure, within `_TERM_TIME` and a moment."""
        if self._process is None:
            self.die(
                ConnectError(
                    Cause.DIED,
                    f"{self.host}: {self.program} closed the connection; "
                    "is it an SFTP server, without SSH?",
                )
            )
            return
        if self.process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        with trio.move_on_after(_TERM_TIME):
            await self.process.wait()
            return
        self._signal(signal.SIGKILL)
        await self.process.wait()

    def _signal(self, number: int) -> None:
        if self._leads_group:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)


def make_pair() -> tuple[_socket.socket, _socket.socket]:
    """Give a connected pair, ours first; large buffers spare wake-ups when data streams."""
    ours, theirs = _socket.socketpair()
    for end in (ours, theirs):
        for option in (_socket.SO_SNDBUF, _socket.SO_RCVBUF):
            end.setsockopt(_socket.SOL_SOCKET, option, _SOCKET_BUFFER)
    ours.setblocking(False)
    return ours, theirs
