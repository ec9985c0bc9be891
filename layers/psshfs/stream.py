"""SFTP byte streams: a connected socket with an SFTP server at its other end.

Three programs can hold that other end: our own pump process (asyncssh on uvloop, the
default), OpenSSH's ssh or the like (`ssh_command`), and an sftp-server on this machine
without any ssh (`sftp_server`). The stream starts it, watches it, says why it ended, and
leaves no process behind, however it is left.

The program keeps the terminal for its prompts until login is done and is deaf to ^C
afterwards. When this process dies, however it dies, the program reads the end of its
socket and exits. `open_stream` must run in the process that serves, after any fork.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket as _socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from .command import StderrReader, build_server_argv, build_ssh_argv, split_command
from .failure import Cause, ConnectError
from .target import Target

__all__ = ["Cause", "ConnectError", "SshOptions", "Stream", "open_stream"]

_log = logging.getLogger(__name__)

_SOCKET_BUFFER = 1 << 20
_LEAVE_TIME = 1.0
"""Seconds for a program to exit by itself after its socket was closed."""
_TERM_TIME = 2.0
"""Seconds between SIGTERM and SIGKILL."""
_STATUS_MAX = 1 << 16
"""Longest status line of the pump, octets."""


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
    password: str | None = field(default=None, repr=False)
    """Given in advance (read from stdin, say); never shown, never on a command line."""


class Stream:
    """A connected stream. Made by `open_stream`, which also ends it.

    `socket` is a plain non-blocking stream socket for use from trio; the stream owns it and
    closes it. `failure` is None while the program lives, then says why it ended.
    """

    def __init__(
        self, socket: _socket.socket, process: trio.Process, program: str, host: str
    ) -> None:
        self.socket = socket
        self.failure: ConnectError | None = None
        self._process = process
        self._program = program
        self._host = host
        self._description = program
        self._dead = trio.Event()

    @property
    def pid(self) -> int:
        """Give the process id of the program at the other end."""
        return self._process.pid

    def describe(self) -> str:
        """Give one line for people: what carries the stream."""
        return f"{self._description}, process {self._process.pid}"

    async def wait_death(self) -> ConnectError:
        """Wait until the program has ended and give the cause; any number of tasks may wait."""
        await self._dead.wait()
        assert self.failure is not None
        return self.failure

    async def explain_end(self) -> ConnectError:
        """Give the cause after the socket has ended or broken; waits at most a few seconds.

        A program that lingers although its socket is gone is terminated.
        """
        with trio.move_on_after(_LEAVE_TIME):
            return await self.wait_death()
        await self._terminate()
        return await self.wait_death()

    def _die(self, failure: ConnectError) -> None:
        if self.failure is None:
            self.failure = failure
        self._dead.set()

    async def _terminate(self) -> None:
        """End the program for sure, within `_TERM_TIME` and a moment."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        with trio.move_on_after(_TERM_TIME):
            await self._process.wait()
            return
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def open_stream(target: Target, options: SshOptions) -> AsyncIterator[Stream]:
    """Connect to the SFTP server of `target`; the stream lives as long as the block.

    With the pump the block is entered when the server has granted the sftp subsystem. Other
    programs give no sign: the block is entered when they run, and when the socket ends
    before the first answer, `Stream.explain_end` has the cause. The user may be asked
    for passwords and the like on the terminal meanwhile, without a time limit of ours.

    Leaving the block closes the socket, gives the program a second to end, then terminates
    it and kills it two seconds later. That is not cut short by cancellation.

    Errors: `ConnectError`, see `Cause`.
    """
    watch: _CommandWatch | _PumpWatch
    if options.sftp_server is not None:
        stream, watch = await _run_command(
            target, *_find_server(target, options.sftp_server), own_session=True
        )
    elif options.ssh_command is not None:
        stream, watch = await _run_command(target, *_find_ssh(target, options), own_session=False)
    else:
        stream, watch = await _run_pump(target, options)

    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            await watch.start()
            nursery.start_soon(watch.run)
            yield stream
        except BaseException as exc:
            # Kept out of the nursery, which would wrap it into a group; raised again below.
            raised = exc
        finally:
            with trio.CancelScope(shield=True):
                await _end(stream, gently=raised is None)
            nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised


async def _end(stream: Stream, *, gently: bool) -> None:
    with suppress(OSError):
        # Closing alone is not enough: the watcher may hold another descriptor of it.
        stream.socket.shutdown(_socket.SHUT_RDWR)
    stream.socket.close()
    if gently:
        with trio.move_on_after(_LEAVE_TIME):
            await stream._process.wait()
    await stream._terminate()
    if stream._process.stderr is not None:
        await stream._process.stderr.aclose()


def _make_pair() -> tuple[_socket.socket, _socket.socket]:
    """Give a connected pair, ours first; large buffers spare wake-ups when data streams."""
    ours, theirs = _socket.socketpair()
    for end in (ours, theirs):
        for option in (_socket.SO_SNDBUF, _socket.SO_RCVBUF):
            end.setsockopt(_socket.SOL_SOCKET, option, _SOCKET_BUFFER)
    ours.setblocking(False)
    return ours, theirs


# Programs of the user's choice


def _find_server(target: Target, command: str) -> tuple[str, list[str]]:
    if not target.is_local or target.user is not None:
        raise ConnectError(
            Cause.BAD_CONFIG,
            f"sftp_server runs on this machine, not on {target.login}: give the path alone",
        )
    words = _find_program("sftp_server", command)
    return words[0], build_server_argv(words)


def _find_ssh(target: Target, options: SshOptions) -> tuple[str, list[str]]:
    assert options.ssh_command is not None
    words = _find_program("ssh_command", options.ssh_command)
    argv = build_ssh_argv(
        target,
        words,
        port=options.port,
        config_file=options.config_file,
        options=options.options,
        compression=options.compression,
    )
    return words[0], argv


def _find_program(option: str, command: str) -> list[str]:
    words = split_command(option, command)
    if shutil.which(words[0]) is None:
        why = "no permission to run it" if os.path.exists(words[0]) else "no such program"
        raise ConnectError(Cause.NOT_FOUND, f"{option}: cannot run {words[0]}: {why}")
    return words


async def _run_command(
    target: Target, program: str, argv: list[str], *, own_session: bool
) -> tuple[Stream, _CommandWatch]:
    ours, theirs = _make_pair()
    try:
        process = await trio.lowlevel.open_process(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            start_new_session=own_session,
        )
    except OSError as exc:
        ours.close()
        raise ConnectError(Cause.NOT_FOUND, f"cannot run {program}: {exc.strerror}") from exc
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    stream = Stream(ours, process, program, target.host or "localhost")
    return stream, _CommandWatch(stream)


class _CommandWatch:
    """Watches a program that knows nothing of us: its stderr, its first octet, its end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._words = StderrReader()
        self._started = False
        self._drained = trio.Event()

    async def start(self) -> None:
        """Return at once: such programs give no sign that they are ready."""

    async def run(self) -> None:
        """Watch until the program has ended and the stream knows why."""
        stream = self._stream
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_first_octet)
            nursery.start_soon(self._relay_stderr)
            status = await stream._process.wait()
            # What the program wrote last may still be in the pipe; but a process that it left
            # behind (a ControlPersist master, say) may hold the pipe open for ever.
            with trio.move_on_after(0.2):
                await self._drained.wait()
            nursery.cancel_scope.cancel()
        self._show(self._words.finish())
        stream._die(
            self._words.explain(stream._program, stream._host, status, started=self._started)
        )

    async def _wait_first_octet(self) -> None:
        # A second descriptor, so that the owner of the stream may wait for the first one too.
        with self._stream.socket.dup() as peek:
            await trio.lowlevel.wait_readable(peek)
            try:
                self._started = bool(peek.recv(1, _socket.MSG_PEEK))
            except BlockingIOError:
                self._started = True  # the owner was faster
            except OSError:
                self._started = False

    async def _relay_stderr(self) -> None:
        pipe = self._stream._process.stderr
        assert pipe is not None
        async for data in pipe:
            self._show(self._words.feed(bytes(data)))
        self._drained.set()

    def _show(self, text: bytes) -> None:
        """Put what the program says before login on our stderr, and later into the log."""
        if not text:
            return
        if self._started:
            _log.info("%s: %s", self._stream._program, text.decode(errors="replace").rstrip())
            return
        with suppress(OSError):
            os.write(2, text)


# Our own pump


async def _run_pump(target: Target, options: SshOptions) -> tuple[Stream, _PumpWatch]:
    ours, theirs = _make_pair()
    status, their_status = _socket.socketpair()
    try:
        process = await trio.lowlevel.open_process(
            [
                # -P: a module of the same name in the current directory is none of ours.
                *(sys.executable, "-P", "-m", "syspuffs.layers.psshfs.pump"),
                *(str(theirs.fileno()), str(their_status.fileno())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), their_status.fileno()),
        )
    except OSError as exc:
        ours.close()
        status.close()
        raise ConnectError(Cause.NOT_FOUND, f"cannot run {sys.executable}: {exc.strerror}") from exc
    except BaseException:
        ours.close()
        status.close()
        raise
    finally:
        theirs.close()
        their_status.close()
    status.setblocking(False)
    stream = Stream(ours, process, "asyncssh", target.host)
    return stream, _PumpWatch(stream, trio.socket.from_stdlib_socket(status), target, options)


class _PumpWatch:
    """Talks with the pump over the status channel: one JSON object a line, both ways."""

    def __init__(
        self,
        stream: Stream,
        status: trio.socket.SocketType,
        target: Target,
        options: SshOptions,
    ) -> None:
        self._stream = stream
        self._status = trio.SocketStream(status)
        self._buffer = bytearray()
        self._request = {
            "user": target.user,
            "host": target.host,
            "port": options.port,
            "config_file": options.config_file,
            "options": list(options.options),
            "compression": options.compression,
            "password": options.password,
        }

    async def start(self) -> None:
        """Hand the pump its orders and return when the server has granted the subsystem."""
        with suppress(trio.BrokenResourceError):  # it died: the status it left has the cause
            await self._status.send_all(json.dumps(self._request).encode() + b"\n")
        while (event := await self._receive()) is not None:
            if event.get("event") == "ready":
                self._stream._description = str(event.get("text"))
                return
        raise await self._conclude()

    async def run(self) -> None:
        """Watch until the pump has ended and the stream knows why."""
        while await self._receive() is not None:
            pass
        await self._conclude()

    async def _conclude(self) -> ConnectError:
        """Wait for the end of a pump that has closed its status channel."""
        await self._status.aclose()
        with trio.move_on_after(_LEAVE_TIME):
            await self._stream._process.wait()
        await self._stream._terminate()
        status = self._stream._process.returncode
        assert status is not None
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        failure = ConnectError(
            Cause.DIED, f"connection to {self._stream._host} lost: its ssh process {how}"
        )
        self._stream._die(failure)
        return await self._stream.wait_death()

    async def _receive(self) -> dict[str, object] | None:
        """Give the next event, None at the end; notes and failures are dealt with here."""
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data = await self._status.receive_some(_STATUS_MAX)
            except trio.BrokenResourceError:
                return None
            if not data or len(self._buffer) > _STATUS_MAX:
                return None
            self._buffer += data
        event: dict[str, object] = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        match event.get("event"):
            case "failed":
                failure = ConnectError(Cause(event["kind"]), str(event["text"]))
                if self._stream.failure is None:
                    self._stream.failure = failure
            case "note":
                _log.info("%s: %s", self._stream._host, event.get("text"))
        return event
