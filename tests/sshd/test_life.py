"""What lasts, and what ends: sessions, SSH processes, settings, and clients that are gone."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from syspuffs.gateway.sftpd import workers
from syspuffs.gateway.sftpd.arrivals import Arrival
from syspuffs.gateway.sftpd.front import FrontError, SshFront
from syspuffs.gateway.sshd.settings import Credentials

from ..support.logs import LogWatch
from .harness import LIMIT, Running, public, running, settings, wait_until
from .test_bounds import in_thread, only_worker


class Talk:
    """An OpenSSH client that holds a session, line by line."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def says(self, data: bytes = b"hello") -> bytes:
        """Say something, and return what comes back: as much, or nothing at the end."""
        with trio.fail_after(LIMIT):
            try:
                await self._stdin.send_all(data)
            except trio.BrokenResourceError:
                return b""
            got = b""
            while len(got) < len(data) and (part := await self._stdout.receive_some()):
                got += part
            return got

    async def end(self) -> int:
        """Send no more; return the exit status."""
        with trio.fail_after(LIMIT):
            await self._stdin.aclose()
            assert await self._stdout.receive_some() == b""
            return await self._process.wait()

    async def wait(self) -> int:
        """Return the exit status, when the session has ended by itself."""
        with trio.fail_after(LIMIT):
            return await self._process.wait()

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)


async def talk(nursery: trio.Nursery, served: Running, *options: str, identity: Path) -> Talk:
    """Start a client, and wait until it has a session."""

    async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
        async with trio.open_nursery() as inner:
            process = await inner.start(
                lambda task_status: trio.run_process(
                    served.ssh(*options, identity=identity),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=False,
                    task_status=task_status,
                )
            )
            task_status.started(process)

    made = Talk(await nursery.start(run))
    assert await made.says() == b"hello"
    return made


@pytest.fixture
def accounts(alice: Path) -> dict[str, Credentials]:
    return {name: Credentials(keys=(public(alice),)) for name in ("alice", "bob")}


async def test_much_data_and_new_keys(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials]
) -> None:
    """What is sent comes back, whichever cipher, and however often keys are changed."""
    data = random.Random(6).randbytes(6 << 20)
    digest = hashlib.sha256(data).digest()
    async with running(tmp_path, accounts, rekey_bytes=1 << 20, rekey_seconds=0) as served:
        for options in (
            (),
            ("Ciphers=aes128-gcm@openssh.com",),
            ("Ciphers=aes128-gcm@openssh.com", "RekeyLimit=700K"),
            ("Ciphers=aes256-ctr", "MACs=hmac-sha2-256-etm@openssh.com", "RekeyLimit=900K"),
            ("Ciphers=chacha20-poly1305@openssh.com", "RekeyLimit=900K"),
        ):
            done = await served.call(*options, identity=alice, said=data)
            assert done.returncode == 0, options
            assert hashlib.sha256(done.stdout).digest() == digest, options
        await wait_until(lambda: not served.front.statistics().connections, "all are gone")


async def test_many_sessions_of_one_connection(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials]
) -> None:
    data = random.Random(7).randbytes(1 << 20)
    shared = f"ControlPath={tmp_path}/mux"

    async with running(tmp_path, accounts) as served, trio.open_nursery() as nursery:
        master = await talk(nursery, served, shared, "ControlMaster=yes", identity=alice)
        results = []

        async def one() -> None:
            results.append((await served.call(shared, identity=alice, said=data)).stdout)

        async with trio.open_nursery() as crowd:
            for _ in range(6):
                crowd.start_soon(one)
        assert results == [data] * 6
        assert {arrival.connection for arrival in served.arrivals} == {1}
        assert len({arrival.session for arrival in served.arrivals}) == 7
        assert await master.end() == 0


async def test_ends_of_a_session(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials]
) -> None:
    async with running(tmp_path, accounts) as served, trio.open_nursery() as nursery:
        one = await talk(nursery, served, identity=alice)
        two = await talk(nursery, served, identity=alice)
        two.kill()
        await wait_until(lambda: served.ends == [2], "a client that was killed is gone")
        assert await one.says(b"again") == b"again"
        assert await one.end() == 0
        await wait_until(lambda: served.ends == [2, 1], "a client that has left is gone")
        served.refuse = "too many sessions"
        done = await served.call(identity=alice)
        assert done.returncode == 1
        assert b"too many sessions" in done.stderr
        assert served.front.statistics().sessions == 0


async def test_an_ssh_process_that_dies(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials], log_watch: LogWatch
) -> None:
    log_watch.expect("SSH process .* ended")
    log_watch.expect("gives no sign of life")
    async with (
        running(tmp_path, accounts, workers=2) as served,
        trio.open_nursery() as nursery,
    ):
        await wait_until(lambda: served.front.statistics().workers == 2, "both are there")
        one = await talk(nursery, served, identity=alice)
        two = await talk(nursery, served, identity=alice)
        first, second = (worker for worker in served.front._workers)
        assert len(first.connections) == len(second.connections) == 1
        holder = next(w for w in (first, second) if served.arrivals[0].connection in w.connections)
        os.kill(holder.pid, signal.SIGKILL)
        assert await one.wait() == 255
        await wait_until(lambda: served.ends == [1], "its session has ended")
        assert await two.says(b"again") == b"again"
        assert await served.is_let_in(identity=alice)
        await wait_until(lambda: served.front.statistics().workers == 2, "another one is there")
        assert served.front.statistics().deaths == 1
        assert await served.is_let_in(identity=alice)
        assert await two.end() == 0


async def test_an_ssh_process_that_hangs(
    tmp_path: Path,
    alice: Path,
    accounts: dict[str, Credentials],
    log_watch: LogWatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_watch.expect("gives no sign of life")
    log_watch.expect("SSH process .* ended")
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(workers, "_LEAVE_SECONDS", 0.1)
    async with running(tmp_path, accounts) as served, trio.open_nursery() as nursery:
        one = await talk(nursery, served, identity=alice)
        os.kill(only_worker(), signal.SIGSTOP)
        assert await one.wait() == 255
        assert await served.is_let_in(identity=alice)


async def test_a_client_that_is_dead(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials]
) -> None:
    """A client that answers nothing is ended; one that is only silent is not."""
    async with (
        running(tmp_path, accounts, keepalive_seconds=0.2, keepalive_count=2) as served,
        trio.open_nursery() as nursery,
    ):
        dead = await talk(nursery, served, identity=alice)
        silent = await talk(nursery, served, identity=alice)
        dead.stop()
        await wait_until(lambda: served.ends == [1], "the dead one is gone")
        assert await silent.says(b"again") == b"again"
        dead.kill()
        assert await silent.end() == 0


async def test_reload(
    tmp_path: Path, alice: Path, keys: Path, accounts: dict[str, Credentials]
) -> None:
    """Who is there stays, with what there was; who comes sees what there is now."""
    async with running(tmp_path, accounts) as served, trio.open_nursery() as nursery:
        one = await talk(nursery, served, identity=alice)
        port = served.port
        carol = {"alice": accounts["alice"], "carol": Credentials(keys=(public(keys / "bob"),))}
        changed = replace(
            served.settings,
            listen=(*served.settings.listen, ("127.0.0.2", 0)),
            host_keys=(keys / "rsa",),
            banner="New\n",
        )
        await served.front.update(changed, carol)
        assert await one.says(b"again") == b"again"
        served.known_hosts.unlink()
        done = await served.call(user="carol", identity=keys / "bob")
        assert (done.returncode, done.stdout) == (0, b"hello")
        assert b"New" in done.stderr
        assert b"RSA" in done.stderr
        assert not await served.is_let_in(user="bob", identity=alice)
        (_, same), (host, other) = served.front.addresses
        assert (same, host) == (port, "127.0.0.2")
        with socket.create_connection((host, other), LIMIT) as sock:
            assert (await in_thread(sock.recv, 4)) == b"SSH-"
        # The account is gone: so are its connections.
        await served.front.update(replace(changed, listen=served.settings.listen), {})
        assert await one.wait() in (0, 255)
        await wait_until(lambda: not served.front.statistics().connections, "nobody is there")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, other), LIMIT)
        assert not await served.is_let_in(identity=alice)


async def test_a_reload_that_is_wrong(
    tmp_path: Path, alice: Path, keys: Path, accounts: dict[str, Credentials]
) -> None:
    async with running(tmp_path, accounts) as served, trio.open_nursery() as nursery:
        one = await talk(nursery, served, identity=alice)
        right = served.settings
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for wrong, reason in (
                (replace(right, host_keys=(tmp_path / "none",)), "No such file"),
                (replace(right, ciphers=("3des-cbc",)), "3des-cbc is none of"),
                (
                    replace(right, listen=(*right.listen, taken.getsockname()[:2])),
                    "Address already in use",
                ),
                (replace(right, listen=(("no.such.host.invalid", 22),)), "cannot listen on"),
            ):
                with pytest.raises(FrontError, match=reason):
                    await served.front.update(wrong, {})
                assert await one.says(b"again") == b"again"
                assert await served.is_let_in(user="bob", identity=alice)
        assert await one.end() == 0


async def test_a_start_that_is_wrong(tmp_path: Path) -> None:
    front = SshFront(settings(tmp_path, macs=("hmac-md5",)), {})
    await front.open()

    async def take(arrival: object) -> None:
        raise AssertionError

    with pytest.raises(FrontError, match="hmac-md5 is none of"):
        await front.serve(take)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()[:2]
        front = SshFront(settings(tmp_path, listen=(("127.0.0.1", 0), address)), {})
        with pytest.raises(FrontError, match="Address already in use"):
            await front.open()
        assert front.addresses == []


async def test_no_ssh_process_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_watch: LogWatch
) -> None:
    """An interpreter that whom root becomes cannot reach, say."""
    log_watch.expect("SSH process .* ended")
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    monkeypatch.setattr("syspuffs.gateway.sftpd.front.READY_SECONDS", 0.3)
    front = SshFront(settings(tmp_path), {})
    await front.open()

    async def take(arrival: object) -> None:
        raise AssertionError

    with pytest.raises(FrontError, match="no SSH process starts"):
        await front.serve(take)


async def test_no_more_clients(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials]
) -> None:
    async with running(tmp_path, accounts) as served, trio.open_nursery() as nursery:
        one = await talk(nursery, served, identity=alice)
        port = served.port
        served.front.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), LIMIT)
        assert await one.says(b"again") == b"again"
        assert await one.end() == 0


async def test_signals_of_a_terminal_are_for_the_gateway(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials]
) -> None:
    async with running(tmp_path, accounts) as served:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(only_worker(), number)
        assert await served.is_let_in(identity=alice)
        assert served.front.statistics().deaths == 0


async def test_a_session_that_fails(
    tmp_path: Path, alice: Path, accounts: dict[str, Credentials], log_watch: LogWatch
) -> None:
    log_watch.expect("session 1 failed in a way that it must not")
    async with running(tmp_path, accounts) as served:

        async def fail(arrival: Arrival) -> None:
            os.close(arrival.fd)
            raise RuntimeError("a fault")

        kept, served.front._take = served.front._take, fail
        done = await served.call(identity=alice)
        assert (done.returncode, done.stdout) == (0, b"")
        served.front._take = kept
        assert await served.is_let_in(identity=alice)
