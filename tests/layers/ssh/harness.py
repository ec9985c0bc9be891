"""What the tests of the ssh side share: a first word over SFTP, and a person at a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import trio

from syspuffs.layers.psshfs.ssh.stream import ConnectError, SshOptions, Stream, open_stream
from syspuffs.layers.psshfs.ssh.target import parse_target

from ...support.leaks import ALLOWED
from ...support.sshd import Sshd, make_key

INIT = struct.pack(">IBI", 5, 1, 3)
LIMIT = 20.0
"""Seconds for anything in these tests; reaching it is a failure."""


async def talk(stream: Stream) -> bytes:
    """Send SSH_FXP_INIT and give what comes back; the cause is raised when nothing does."""
    sock = trio.socket.from_stdlib_socket(stream.socket)
    try:
        await sock.send(INIT)
        answer = await sock.recv(4096)
    except OSError:
        answer = b""
    if not answer:
        raise await stream.explain_end()
    assert answer[4] == 2, "SSH_FXP_VERSION"
    return answer


async def try_stream(target: str, options: SshOptions, *, local: bool = False) -> str:
    """Open a stream, hear the server, close it; give its description or raise the cause."""
    with trio.fail_after(LIMIT):
        async with open_stream(parse_target(target, local=local), options) as stream:
            await talk(stream)
            return stream.describe()


async def fail_stream(target: str, options: SshOptions, *, local: bool = False) -> ConnectError:
    """Give the cause why a stream cannot be opened; opening it is the failure here."""
    with pytest.raises(ConnectError) as caught:
        await try_stream(target, options, local=local)
    assert "\n" not in caught.value.message
    return caught.value


def words(sshd: Sshd, *first: str, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Give the options that let a client in, `first` before them, some left out."""
    rest = (option for option in sshd.options if option.partition("=")[0] not in without)
    return (*first, *rest)


@contextmanager
def other_server(
    mode: str, tmp_path: Path, *, is_shared: bool = False
) -> Iterator[tuple[str, ...]]:
    """Run `server.py` and give the options that lead to it; shared means for many tests."""
    key = make_key(tmp_path / "server_key")
    known = tmp_path / "server_known"
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("server.py")), mode, str(key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if is_shared:
            ALLOWED.add_process(process.pid)
            for pipe in (process.stdin, process.stdout):
                ALLOWED.add_descriptor(os.readlink(f"/proc/self/fd/{pipe.fileno()}"))
        port = int(process.stdout.readline())
        known.write_text(f"[127.0.0.1]:{port} {Path(f'{key}.pub').read_text()}")
        try:
            yield (
                f"Port={port}",
                "User=me",
                f"UserKnownHostsFile={known}",
                "GlobalKnownHostsFile=none",
                "IdentityFile=none",
                "IdentityAgent=none",
            )
        finally:
            process.kill()


def plain(options: tuple[str, ...], **more: object) -> SshOptions:
    return SshOptions(config_file="none", options=options, **more)  # type: ignore[arg-type]


class Person:
    """Somebody at a terminal who starts a connection and answers questions.

    The connection is made by a process of its own that has the terminal as its controlling
    one; `outcome` gives what became of it.
    """

    def __init__(
        self,
        target: str,
        *,
        options: tuple[str, ...] = (),
        config_file: str | None = "none",
        ssh_command: str | None = None,
        environment: dict[str, str] | None = None,
        has_terminal: bool = True,
        stays: bool = False,
    ) -> None:
        self._order = {
            "target": target,
            "stays": stays,
            "options": {
                "options": list(options),
                "config_file": config_file,
                "ssh_command": ssh_command,
            },
        }
        self._environment = {**os.environ, **(environment or {})}
        self._has_terminal = has_terminal
        self._limit = time.monotonic() + LIMIT
        self.seen = ""

    def __enter__(self) -> Person:
        self.master, slave = os.openpty()
        result, write = os.pipe()
        self.result = open(result, "rb")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.layers.ssh.harness", str(write)],
                stdin=subprocess.PIPE,
                stdout=slave,
                stderr=slave,
                pass_fds=(write, slave),
                start_new_session=True,
                env=self._environment,
                cwd=Path(__file__).parents[3],
            )
        finally:
            os.close(write)
        order = {**self._order, "tty": slave if self._has_terminal else None}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        os.close(slave)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.result.close()
        os.close(self.master)

    def wait_for(self, text: str) -> None:
        """Read the screen until `text` stands there, and forget what came before it."""
        while text not in self.seen:
            self._read(f"no {text!r}")
        self.seen = self.seen.partition(text)[2]

    def _read(self, problem: str) -> None:
        rest = self._limit - time.monotonic()
        ready, _, _ = select.select([self.master], [], [], max(0, rest))
        assert ready, f"{problem}: {self.seen!r}"
        try:
            data = os.read(self.master, 4096)
        except OSError:
            data = b""
        assert data, f"{problem}, but the end: {self.seen!r} {self.result.peek()!r}"
        self.seen += data.decode(errors="replace")

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self.master, text.encode() + b"\n")

    def echoes(self) -> bool:
        """Tell whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def outcome(self) -> dict[str, Any]:
        """Wait until the connection stands or has failed and give "ok" or "kind" and "text"."""
        rest = max(0.0, self._limit - time.monotonic())
        ready, _, _ = select.select([self.result], [], [], rest)
        assert ready, f"no outcome: {self.seen!r}"
        line = self.result.readline()
        while not line:
            self._read("no outcome")
        outcome: dict[str, Any] = json.loads(line)
        return outcome


def _serve_person(write: int) -> None:
    """Be the process that `Person` starts."""
    # A shell has what it starts in the background ignore ^C, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = json.loads(sys.stdin.readline())
    if order["tty"] is not None:
        fcntl.ioctl(order["tty"], termios.TIOCSCTTY, 0)
        os.close(order["tty"])

    async def run() -> None:
        target = parse_target(order["target"])
        try:
            async with open_stream(target, SshOptions(**order["options"])) as stream:
                await talk(stream)
                report = {"ok": stream.describe(), "pid": stream.pid}
                os.write(write, json.dumps(report).encode() + b"\n")
                if order["stays"]:
                    await stream.wait_death()
        except ConnectError as error:
            report = {"kind": error.kind.name, "text": error.message}
            os.write(write, json.dumps(report).encode() + b"\n")

    trio.run(run)


if __name__ == "__main__":
    _serve_person(int(sys.argv[1]))
