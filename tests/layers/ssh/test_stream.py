"""Streams of all three kinds: they carry SFTP, and they end for sure."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio

from syspuffs.layers.psshfs.ssh.stream import Cause, ConnectError, SshOptions, open_stream
from syspuffs.layers.psshfs.ssh.target import parse_target
from syspuffs.layers.psshfs.ssh.unsent import Held

from ...support.leaks import command_line
from ...support.line import Line
from ...support.mounts import wait_until
from ...support.sshd import Sshd, find_sftp_server, list_descendants
from ...support.superserver import Superserver
from .harness import INIT, LIMIT, fail_stream, talk, try_stream

pytestmark = pytest.mark.sshd

KINDS = ("asyncssh", "ssh", "local")


def arrange(kind: str, sshd: Sshd) -> tuple[str, SshOptions, bool]:
    """Give target, options and whether the target is on this machine."""
    if kind == "local":
        return "/", SshOptions(sftp_server=find_sftp_server()), True
    command = "ssh" if kind == "ssh" else None
    return (
        f"{sshd.host}:",
        SshOptions(config_file="none", options=sshd.options, ssh_command=command),
        False,
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_carries_sftp(kind: str, sshd: Sshd) -> None:
    target, options, local = arrange(kind, sshd)
    text = await try_stream(target, options, local=local)
    assert {"asyncssh": "AsyncSSH", "ssh": "ssh", "local": "sftp-server"}[kind].lower() in (
        text.lower()
    )
    assert "\n" not in text


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_program_is_seen_at_once(kind: str, sshd: Sshd) -> None:
    target, options, local = arrange(kind, sshd)
    with trio.fail_after(LIMIT):
        async with open_stream(parse_target(target, local=local), options) as stream:
            await talk(stream)
            assert stream.failure is None
            os.kill(stream.pid, signal.SIGKILL)
            with trio.fail_after(1):
                await trio.lowlevel.wait_readable(stream.socket)
                assert stream.socket.recv(1) == b""
                failure = await stream.explain_end()
            assert failure.kind is Cause.DIED
            assert "signal 9" in failure.message
            assert stream.failure is failure
            assert await stream.wait_death() is failure


def unsent(port: int) -> int:
    """Return how many octets this machine still holds for a port of the loopback."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2] == f"0100007F:{port:04X}":
            total += int(fields[4].partition(":")[0], 16)
    return total


@pytest.mark.parametrize("how", ["left", "abandoned", "ended"])
@pytest.mark.parametrize("kind", ["asyncssh", "ssh", "port"])
async def test_nothing_is_sent_after_a_loss(kind: str, how: str, sshd: Sshd) -> None:
    """Writes of a connection that was given up must not come behind those of the next one."""
    command = "ssh" if kind == "ssh" else None
    with (
        Superserver([find_sftp_server()]) as bare,
        Line(bare.port if kind == "port" else sshd.port) as line,
        trio.fail_after(LIMIT),
    ):
        options = sshd.options_by(line.port)
        ssh = SshOptions(
            config_file="none",
            options=options,
            ssh_command=command,
            directport=line.port if kind == "port" else None,
        )
        with suppress(ConnectError):
            async with open_stream(parse_target(f"{sshd.host}:"), ssh) as stream:
                await talk(stream)
                line.hold()
                while not unsent(line.port):
                    with suppress(BlockingIOError):
                        stream.socket.send(bytes(1 << 18))
                    await trio.lowlevel.checkpoint()
                if how == "abandoned":
                    stream.socket.shutdown(socket.SHUT_RDWR)
                    if kind == "asyncssh":
                        await stream.process.wait()  # it closes by itself, and as usual
                    await stream.abandon()
                    assert not unsent(line.port)
                if how == "ended" and stream.has_process:
                    stream.process.kill()  # as ssh does of itself, when nothing comes
                    await stream.wait_death()
                    assert not unsent(line.port)
                raise ConnectError(Cause.DIED, "given up")
        assert wait_until(lambda: not unsent(line.port))


RESTLESS = """
import os, socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
os.dup2(sock.fileno(), 200)
sock.close()
print("ready", flush=True)
while True:
    for fd in [os.dup(0) for _ in range(50)]:
        os.close(fd)
"""


def test_the_connections_of_a_restless_child_are_found() -> None:
    """What it opens and closes while we look does not hide others."""
    with (
        Superserver([find_sftp_server()]) as bare,
        subprocess.Popen(
            [sys.executable, "-c", RESTLESS, str(bare.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as child,
    ):
        assert child.stdout is not None
        child.stdout.readline()
        try:
            ours = len(os.listdir("/proc/self/fd"))
            for _ in range(200):
                held = Held(child.pid)
                assert len(os.listdir("/proc/self/fd")) == ours + 1
                held.close()
        finally:
            child.kill()


async def test_further_channels_of_one_login(tmp_path: Path) -> None:
    """Each speaks SFTP; one that the server refuses ends at once; the others live on."""
    lines = ["MaxSessions 3"]
    with Sshd(tmp_path / "sshd", lines=lines) as sshd, trio.fail_after(LIMIT):
        target, options, _ = arrange("asyncssh", sshd)
        async with open_stream(parse_target(target), options) as stream:
            await talk(stream)
            assert stream.open_channel is not None
            for _ in range(2):  # those that have ended leave their places to others
                async with AsyncExitStack() as stack:
                    for number in range(1, 4):
                        near = await stack.enter_async_context(stream.open_channel())
                        end = trio.socket.from_stdlib_socket(near)
                        if number < 3:
                            await end.send(INIT)
                        answer = await end.recv(4096)
                        assert answer[4:5] == (b"\2" if number < 3 else b"")
                await trio.to_thread.run_sync(wait_until, lambda: len(sessions(sshd)) == 1)
        log = sshd.log.read_text()
        assert log.count("Accepted publickey") == 1
        assert log.count("Starting session: subsystem 'sftp'") == 5


def sessions(sshd: Sshd) -> list[int]:
    """Give the sftp-servers; internal ones are processes of sshd's own."""
    return [pid for pid in list_descendants(sshd.pid) if "internal-sftp" in command_line(pid)]


@pytest.mark.parametrize("kind", ["asyncssh", "ssh"])
async def test_server_that_dies(kind: str, tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd") as sshd, trio.fail_after(LIMIT):
        target, options, _ = arrange(kind, sshd)
        async with open_stream(parse_target(target), options) as stream:
            await talk(stream)
            sshd.kill_sessions()
            failure = await stream.wait_death()
            assert failure.kind is Cause.DIED
            assert "lost" in failure.message


@pytest.mark.slow
async def test_server_that_falls_silent(tmp_path: Path) -> None:
    """A server that neither answers nor closes is given up after ServerAlive's time."""
    with Sshd(tmp_path / "sshd") as sshd, trio.fail_after(LIMIT):
        words = ("ServerAliveInterval=1", "ServerAliveCountMax=1", *sshd.options)
        options = SshOptions(config_file="none", options=words)
        async with open_stream(parse_target(f"{sshd.host}:"), options) as stream:
            await talk(stream)
            for pid in list_descendants(sshd.pid):
                os.kill(pid, signal.SIGSTOP)
            failure = await stream.wait_death()
            assert failure.kind is Cause.DIED
            assert "not responding" in failure.message


@pytest.mark.parametrize("kind", KINDS)
async def test_body_that_raises_and_body_that_is_cancelled(kind: str, sshd: Sshd) -> None:
    target, options, local = arrange(kind, sshd)
    with pytest.raises(ZeroDivisionError), trio.fail_after(LIMIT):
        async with open_stream(parse_target(target, local=local), options):
            raise ZeroDivisionError
    with trio.move_on_after(LIMIT) as scope:
        async with open_stream(parse_target(target, local=local), options) as stream:
            await talk(stream)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_cancelled_login(tmp_path: Path) -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    options = SshOptions(config_file="none", port=port)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                async with open_stream(parse_target("127.0.0.1:"), options):
                    raise AssertionError("nobody answers there")

            nursery.start_soon(connect)
            stream = await listener[0].accept()
            assert (await stream.receive_some(64)).startswith(b"SSH-2.0-")
            nursery.cancel_scope.cancel()
    await stream.aclose()
    await listener[0].aclose()


@pytest.mark.parametrize("kind", KINDS)
def test_program_dies_with_us(kind: str, sshd: Sshd) -> None:
    """SIGKILL of the process that holds the stream ends the program too."""
    target, options, local = arrange(kind, sshd)
    script = f"""
import trio
from syspuffs.layers.psshfs.ssh.stream import *
from syspuffs.layers.psshfs.ssh.target import parse_target
from syspuffs.layers.psshfs.ssh.unsent import Held
async def main():
    async with open_stream(parse_target({target!r}, local={local}), {options!r}) as stream:
        await trio.socket.from_stdlib_socket(stream.socket).send({INIT!r})
        print(stream.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        watched = os.pidfd_open(pid)
        holder.kill()
        assert holder.wait() == -signal.SIGKILL
    poll = select.poll()
    poll.register(watched)
    assert poll.poll(3000), "the program outlives us"
    os.close(watched)


async def test_program_that_ignores_everything_is_killed() -> None:
    """Ends within the stated time although it neither reads its socket nor heeds SIGTERM."""
    options = SshOptions(sftp_server="sh -c 'trap \"\" TERM; while :; do sleep 9; done'")
    start = trio.current_time()
    pids: list[int] = []

    async def open_and_fail() -> None:
        async with open_stream(parse_target("/", local=True), options) as stream:
            pids.extend((stream.pid, *list_descendants(stream.pid)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await open_and_fail()
    assert trio.current_time() - start < 4
    # Those below the program were killed with it; who reaps them then is not ours to say.
    assert wait_until(lambda: not any(command_line(pid) for pid in pids))


async def test_program_that_cannot_be_run(sshd: Sshd, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for command, words in (
        ("/nonexistent/ssh", "no such program"),
        (str(plain), "no permission"),
    ):
        error = await fail_stream("host:", SshOptions(ssh_command=command))
        assert error.kind is Cause.NOT_FOUND
        assert words in error.message
        error = await fail_stream("/", SshOptions(sftp_server=command), local=True)
        assert error.kind is Cause.NOT_FOUND
    error = await fail_stream("host:", SshOptions(ssh_command="ssh 'x"))
    assert error.kind is Cause.BAD_CONFIG
    error = await fail_stream("host:", SshOptions(ssh_command=" "))
    assert error.kind is Cause.BAD_CONFIG
    error = await fail_stream("elsewhere:/", SshOptions(sftp_server="cat"), local=True)
    assert error.kind is Cause.BAD_CONFIG


async def test_program_that_ends_without_a_word() -> None:
    error = await fail_stream(
        "/", SshOptions(sftp_server="sh -c 'echo oh dear >&2; exit 3'"), local=True
    )
    assert error.kind is Cause.DIED
    assert "status 3" in error.message
    assert "oh dear" in error.message
