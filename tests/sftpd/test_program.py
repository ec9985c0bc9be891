"""The program itself: its letters, its log, its exit status, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from syspuffs.gateway.status import Status
from syspuffs.native import sftp

from ..gateway.sftp.harness import BOTH, Wire
from ..support.leaks import descendants
from ..support.mounts import python_command, run
from ..support.sshd import find_sftp_server

pytestmark = pytest.mark.slow

PROGRAM = python_command("puffs_sftp_server")
MEMORY = ("-t", "p2k|tmpfs", "none")


@dataclass
class Running:
    """The program with a client; `said` is what it wrote to standard error, when it has ended."""

    wire: Wire
    process: subprocess.Popen[bytes]
    log: Path
    status: int | None = None

    @property
    def said(self) -> list[str]:
        return self.log.read_text().splitlines()

    async def end(self) -> int:
        """Wait for the end and return the exit status."""
        with trio.fail_after(20):
            self.status = await trio.to_thread.run_sync(self.process.wait)
        return self.status


@asynccontextmanager
async def running(
    log: Path, *arguments: str, env: dict[str, str] | None = None, umask: int = -1
) -> AsyncIterator[Running]:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far, open(log, "wb") as errors:
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=far.fileno(),
            stdout=far.fileno(),
            stderr=errors,
            env=None if env is None else {**os.environ, **env},
            umask=umask,
        )
        far.close()
        made = Running(Wire(near), process, log)
        try:
            await made.wire.greet()
            yield made
            await made.wire.stream.aclose()
            await made.end()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ((), Status.USAGE, "a stack (-t) and what it is to serve are needed"),
        (("-t", "psshfs"), Status.USAGE, "are needed"),
        (("-Q", "extensions"), Status.USAGE, "nothing of that name to list"),
        (("-l", "loud", *MEMORY), Status.USAGE, "'loud' is none of QUIET"),
        (("-f", "MAIL", *MEMORY), Status.USAGE, "'MAIL' is none of DAEMON"),
        (("-u", "9", *MEMORY), Status.USAGE, "no permission bits"),
        (("-P", "read,wirte", *MEMORY), Status.USAGE, "there is no request 'wirte'"),
        (("-p", "", *MEMORY), Status.USAGE, "there is no request ''"),
        (("-d", "%x", *MEMORY), Status.USAGE, "there is no token %x"),
        (("-o", "ro", *MEMORY), Status.USAGE, "unknown option 'ro'"),
        (("-t", "puffs|psshfs", "x:"), Status.STACK, "begins with a file server"),
        (("-o", "password_stdin", "-t", "psshfs", "x:"), Status.USAGE, "is the client's"),
    ],
)
def test_wrong_command_lines(arguments: Sequence[str], status: int, says: str) -> None:
    got = run([*PROGRAM, *arguments])
    assert (got.status, got.stdout) == (status, "")
    assert says in got.stderr
    assert len(got.stderr.splitlines()) == 1


def test_a_remote_directory_that_is_not_there(tmp_path: Path) -> None:
    argv = [*PROGRAM, "-t", "psshfs", "-o", f"sftp_server={find_sftp_server()}"]
    got = run([*argv, f":{tmp_path}/none"])
    assert (got.status, got.stdout) == (Status.REMOTE_MISSING, "")
    assert "there is no such directory" in got.stderr


def test_requests_are_listed() -> None:
    got = run([*PROGRAM, "-Q", "Requests"])
    theirs = run([find_sftp_server(), "-Q", "requests"])
    assert (got.status, got.stdout) == (0, theirs.stdout)


def test_standard_input_that_is_a_file_or_ends_at_once(tmp_path: Path) -> None:
    script, out = tmp_path / "in", tmp_path / "out"
    script.write_bytes(sftp.init() + sftp.mkdir(1, b"/d") + sftp.stat(2, b"/d"))
    with open(script, "rb") as stdin, open(out, "wb") as stdout:
        done = subprocess.run([*PROGRAM, *MEMORY], stdin=stdin, stdout=stdout, timeout=30)
    assert done.returncode == 0
    data = out.read_bytes()
    _, packets = sftp.scan(data, 0, len(data), 1 << 20)
    assert [packet[0] for packet in packets] == [2, 101, 105]
    assert subprocess.run([*PROGRAM, *MEMORY], stdin=subprocess.DEVNULL).returncode == 0


async def test_pipes_for_standard_input_and_output(tmp_path: Path) -> None:
    """sshd has a socket for both, others have pipes."""
    process = await trio.lowlevel.open_process(
        [*PROGRAM, *MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests = [sftp.init(), sftp.open_(1, b"/f", BOTH)]
    requests += [sftp.lstat(number, b"/f") for number in range(2, 3000)]
    got = b""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                assert process.stdin is not None
                await process.stdin.send_all(b"".join(requests))
                await process.stdin.aclose()

            nursery.start_soon(send)
            async for octets in process.stdout:
                got += octets
        await process.wait()
    _, packets = sftp.scan(got, 0, len(got), 1 << 20)
    assert len(packets) == 3000
    assert process.returncode == 0


async def test_the_log_is_openssh_s(tmp_path: Path) -> None:
    letters = ("-e", "-l", "INFO", "-u", "077", *MEMORY)
    env = {"SSH_CONNECTION": "192.0.2.7 1 192.0.2.8 22"}
    async with running(tmp_path / "log", *letters, env=env) as server:
        wire = server.wire
        await wire.put(b'/f\nopen "forged" \xff', b"data", 0o666)
        await wire.ask(sftp.mkdir, b"/d")
        await wire.code(sftp.remove, b"/none")
        await wire.ask(sftp.setstat, b"/d", sftp.Attrs(mode=0o700, atime=1, mtime=2))
        await wire.ask(sftp.posix_rename, b"/d", b"/e")
        await wire.ask(sftp.lstat, b"/e")
        assert ((await wire.ask(sftp.lstat, b"/e")).mode or 0) & 0o777 == 0o700
        handle = await wire.open(b"/left", BOTH, 0o666)
        assert ((await wire.ask(sftp.fstat, handle)).mode or 0) & 0o777 == 0o600
    who = "for local user root from [192.0.2.7]" if os.geteuid() == 0 else "from [192.0.2.7]"
    name = r'"/f\nopen \"forged\" \xff"'
    assert server.said[0].endswith(who)
    assert server.said[0].startswith("session opened")
    assert server.said[1:-1] == [
        f"open {name} flags WRITE,CREATE,TRUNCATE mode 0666",
        f"close {name} bytes read 0 written 4",
        'mkdir name "/d"',
        'remove name "/none": sent status No such file',
        'set "/d" mode 0700 modtime 2',
        'posix-rename old "/d" new "/e"',
        'open "/left" flags READ,WRITE,CREATE mode 0666',
        'forced close "/left" bytes read 0 written 0',
    ]
    assert server.said[-1].startswith("session closed")
    assert server.status == 0


async def test_the_umask_of_the_process_counts(tmp_path: Path) -> None:
    async with running(tmp_path / "log", *MEMORY, umask=0o027) as server:
        await server.wire.put(b"/f", b"", 0o666)
        assert (await server.wire.ask(sftp.stat, b"/f")).mode == 0o100640


async def test_start_directories(tmp_path: Path) -> None:
    tree = ("-t", "psshfs", "-o", f"sftp_server={find_sftp_server()}", f":{tmp_path}")
    home = tmp_path / "root" if os.geteuid() == 0 else tmp_path / "me"
    home.mkdir()
    (tmp_path / "link").symlink_to(home.name)
    for start, wanted in (
        (home.name, home.name),
        ("link", home.name),
        ("/link/../none", ""),
        ("/%%", ""),
    ):
        async with running(tmp_path / "log", "-e", "-d", start, *tree) as server:
            (name,) = await server.wire.ask(sftp.realpath, b".")
            assert name.name.decode() == f"/{wanted}"
        assert bool(server.said) == (not wanted), server.said


async def test_read_only_and_denied(tmp_path: Path) -> None:
    async with running(tmp_path / "log", "-R", "-P", "stat,lstat", *MEMORY) as server:
        assert await server.wire.code(sftp.mkdir, b"/d") == sftp.FX_PERMISSION_DENIED
        assert await server.wire.code(sftp.stat, b"/") == sftp.FX_PERMISSION_DENIED
        assert await server.wire.names(b"/") == [b".", b".."]


async def test_a_client_that_breaks_the_protocol(tmp_path: Path) -> None:
    async with running(tmp_path / "log", "-e", *MEMORY) as server:
        await server.wire.send(b"\xff\xff\xff\xff")
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await server.wire.reply()
    assert server.status == 1
    assert "the client broke the protocol" in "".join(server.said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_signals(tmp_path: Path, number: int) -> None:
    tree = ("-t", "psshfs", "-o", f"sftp_server={find_sftp_server()}", f":{tmp_path}")
    async with running(tmp_path / "log", *tree) as server:
        handle = await server.wire.open(b"/f", BOTH)
        await server.wire.write(handle, 0, b"kept")
        server.process.send_signal(number)
        assert await server.end() == 128 + number
    assert (tmp_path / "f").read_bytes() == b"kept"
    assert server.said == []


async def test_what_is_below_dies(tmp_path: Path) -> None:
    """Errors for the client, and an end when it leaves; nothing is left running."""
    words = f"sftp_server={find_sftp_server()},no_reconnect"
    tree = ("-t", "psshfs", "-o", words, f":{tmp_path}")
    async with running(tmp_path / "log", "-e", *tree) as server:
        handle = await server.wire.open(b"/f", BOTH)
        for pid in descendants(server.process.pid):
            os.kill(pid, signal.SIGKILL)
        codes = {await server.wire.code(sftp.lstat, b"/f") for _ in range(100)}
        assert sftp.FX_FAILURE in codes
        assert await server.wire.code(sftp.write, handle, 0, 1, payload=b"x") == sftp.FX_FAILURE
    assert server.status == 0
    assert any("SFTP connection lost" in line for line in server.said)


async def test_nothing_else_goes_to_standard_output(tmp_path: Path) -> None:
    """Whatever the stack starts: its standard output is not ours."""
    noisy = tmp_path / "noisy"
    noisy.write_text(f"#!/bin/sh\necho noise >&2\nexec {find_sftp_server()}\n")
    noisy.chmod(0o755)
    words = ["-e", "-l", "DEBUG", "-t", "psshfs", "-o", f"sftp_server={noisy}", f":{tmp_path}"]
    async with running(tmp_path / "log", *words) as server:
        assert b"noisy" in await server.wire.names(b"/")
    # Until its first answer what it says is for people at a terminal, then it is for the log.
    assert any("noise" in line for line in server.said)
