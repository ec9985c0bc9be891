"""Streams carried by a program of the user's choice: ssh_command and sftp_server."""

from __future__ import annotations

import logging
import os
import shutil
import socket as _socket
import subprocess
from contextlib import suppress

import trio

from .carrier import SshOptions, Stream, make_pair
from .ciphers import choose_ciphers
from .command import StderrReader, build_server_argv, build_ssh_argv, split_command
from .failure import Cause, ConnectError
from .sshconfig import ConfigError, HostConfig
from .sshfile import read_config
from .target import Target

_log = logging.getLogger(__name__)


async def run_server(target: Target, command: str) -> tuple[Stream, ProgramWatch]:
    """Start `command` on this machine, in a session of its own: it has no questions to ask."""
    if not target.is_local or target.user is not None:
        raise ConnectError(
            Cause.BAD_CONFIG,
            f"sftp_server runs on this machine, not on {target.login}: give the path alone",
        )
    words = _find_program("sftp_server", command)
    return await _run(target, words[0], build_server_argv(words), own_session=True)


async def run_ssh(target: Target, options: SshOptions) -> tuple[Stream, ProgramWatch]:
    """Start ssh_command, with our terminal for its questions."""
    assert options.ssh_command is not None
    words = _find_program("ssh_command", options.ssh_command)
    # In a thread: `Match exec` runs programs.
    config = await trio.to_thread.run_sync(_read_config, target, options)
    argv = build_ssh_argv(
        target,
        words,
        port=options.port,
        config_file=options.config_file,
        options=options.options,
        compression=options.compression,
        subsystem=options.subsystem,
        # What its configuration says nobody knows here when ssh itself has to say what is wrong.
        ciphers=choose_ciphers() if words[0].rpartition("/")[2] == "ssh" and config else "",
        dead_after=options.dead_after,
        is_set=config.is_set if config is not None else lambda keyword: False,
    )
    return await _run(target, words[0], argv, own_session=False)


def _read_config(target: Target, options: SshOptions) -> HostConfig | None:
    try:
        return read_config(
            target.host,
            user=target.user,
            port=options.port,
            options=options.options,
            config_file=options.config_file,
        )
    except ConfigError:
        return None  # ssh says it better


def _find_program(option: str, command: str) -> list[str]:
    words = split_command(option, command)
    if shutil.which(words[0]) is None:
        why = "no permission to run it" if os.path.exists(words[0]) else "no such program"
        raise ConnectError(Cause.NOT_FOUND, f"{option}: cannot run {words[0]}: {why}")
    return words


async def _run(
    target: Target, program: str, argv: list[str], *, own_session: bool
) -> tuple[Stream, ProgramWatch]:
    ours, theirs = make_pair()
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
    stream = Stream(ours, process, program, target.host or "localhost", leads_group=own_session)
    return stream, ProgramWatch(stream)


class ProgramWatch:
    """Watches a program that knows nothing of us: its stderr, its first octet, its end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._words = StderrReader()
        self._started = False
        self._drained = trio.Event()
        # A second descriptor, so that the owner of the stream may wait for the first one too.
        self._peek = stream.socket.dup()

    async def start(self) -> None:
        """Return at once: such programs give no sign that they are ready."""

    def close(self) -> None:
        """Close what is held beside the process; harmless when called twice."""
        self._peek.close()

    async def run(self) -> None:
        """Watch until the program has ended and the stream knows why."""
        stream = self._stream
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_first_octet)
            nursery.start_soon(self._relay_stderr)
            status = await stream.process.wait()
            # What the program wrote last may still be in the pipe; but a process that it left
            # behind (a ControlPersist master, say) may hold the pipe open for ever.
            with trio.move_on_after(0.2):
                await self._drained.wait()
            nursery.cancel_scope.cancel()
        self._show(self._words.finish())
        stream.die(self._words.explain(stream.program, stream.host, status, started=self._started))

    async def _wait_first_octet(self) -> None:
        # Nearly sure to be woken for it: when both descriptors become readable the owner may be
        # told first, and have read all before this one is looked at.
        await trio.lowlevel.wait_readable(self._peek)
        try:
            self._started = bool(self._peek.recv(1, _socket.MSG_PEEK))
        except BlockingIOError:
            self._started = True  # the owner was faster
        except OSError:
            self._started = False
        if self._started and not self._stream.is_leaving:
            self._stream.hold()
        self._peek.close()

    async def _relay_stderr(self) -> None:
        pipe = self._stream.process.stderr
        assert pipe is not None
        async with pipe:
            async for data in pipe:
                self._show(self._words.feed(bytes(data)))
        self._drained.set()

    def _show(self, text: bytes) -> None:
        """Put what the program says before login on our stderr, and later into the log."""
        if not text:
            return
        if self._started:
            _log.info("%s: %s", self._stream.program, text.decode(errors="replace").rstrip())
            return
        with suppress(OSError):
            os.write(2, text)
