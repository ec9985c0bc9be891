"""Clients that do what clients do not: each is ended, costs little, and others notice nothing."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import argon2
import paramiko
import pytest
import trio
from paramiko.common import cMSG_CHANNEL_OPEN, cMSG_GLOBAL_REQUEST, cMSG_USERAUTH_REQUEST

from syspuffs.gateway.sshd.settings import Credentials, PenaltySettings, Startups

from ..support.leaks import children
from .harness import LIMIT, Running, public, running, wait_until

HASH = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")
PERSON = {"alice": Credentials(password_hashes=(HASH,))}


@pytest.fixture(autouse=True)
def _quiet_paramiko() -> Iterator[None]:
    """What paramiko logs is what these tests make it do."""
    logger = logging.getLogger("paramiko")
    logger.disabled, kept = True, logger.disabled
    child = logging.getLogger("paramiko.transport")
    child.disabled = True
    yield
    logger.disabled = child.disabled = kept


async def test_a_client_that_waits_for_us_to_begin(tmp_path: Path) -> None:
    """We would rather hear first what it has, but not for ever."""

    def ask() -> bytes:
        with connected(served) as sock:
            sock.sendall(b"SSH-2.0-patient\r\n")
            greeting = sock.recv(65536)
            while not greeting.endswith(b"\n"):
                greeting += sock.recv(1)
            return sock.recv(65536)

    async with running(tmp_path, PERSON) as served:
        packet = await trio.to_thread.run_sync(ask)
        assert packet[5] == 20  # KEXINIT
        for cipher in (b"aes128-gcm@openssh.com", b"chacha20-poly1305@openssh.com"):
            assert cipher in packet


@contextmanager
def connected(served: Running) -> Iterator[socket.socket]:
    """Give a connection to the front."""
    with socket.create_connection(("127.0.0.1", served.port), LIMIT) as sock:
        sock.settimeout(LIMIT)
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    """Return what comes until the end, or until the connection is reset."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@contextmanager
def transport(served: Running) -> Iterator[paramiko.Transport]:
    """Give a connection of paramiko's, past the key exchange."""
    sock = socket.create_connection(("127.0.0.1", served.port), LIMIT)
    made = paramiko.Transport(sock)
    made.banner_timeout = LIMIT
    try:
        made.start_client(timeout=LIMIT)
        yield made
    finally:
        made.close()
        made.join(LIMIT)


def message(kind: bytes, *parts: bytes | str | int | bool) -> paramiko.Message:
    made = paramiko.Message()
    made.add_byte(kind)
    for part in parts:
        if isinstance(part, bool):
            made.add_boolean(part)
        elif isinstance(part, int):
            made.add_int(part)
        else:
            made.add_string(part)
    return made


def send(client: Any, packet: paramiko.Message) -> None:
    """Send a message as it is, in or out of its turn."""
    client._send_message(packet)


def stop_reading(client: paramiko.Transport, event: threading.Event) -> None:
    """Let a client read nothing until the event, and then the end."""

    def read_message() -> None:
        event.wait()
        raise EOFError

    client.packetizer.read_message = read_message  # type: ignore[method-assign,assignment]


def memory(pid: int) -> int:
    """Return how much memory a process has, octets."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def only_worker() -> int:
    """Return the one SSH process below this one."""
    (pid,) = [
        pid
        for pid in children(os.getpid())
        if b"gateway.sshd.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


async def in_thread(work: Callable[..., Any], *args: object) -> Any:
    with trio.fail_after(3 * LIMIT):
        return await trio.to_thread.run_sync(work, *args)


async def test_garbage_before_a_login(tmp_path: Path, alice: Path) -> None:
    """What is no SSH ends at once, and without a word about anybody."""

    def say(data: bytes) -> bytes:
        with connected(served) as sock:
            sock.sendall(data)
            return read_to_end(sock)

    version = b"SSH-2.0-x\r\n"
    accounts = {**PERSON, "bob": Credentials(keys=(public(alice),))}
    async with running(tmp_path, accounts) as served:
        for data in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"SSH-1.5-old\r\n",
            b"SSH-2.0-\xff\xfe\r\n",
            b"x" * 100000,
            b"\n",
            b"SSH-2.0-" + b"x" * 1000 + b"\r\n",
            version + b"\0" * 64,
            version + b"\xff\xff\xff\xff" + b"x" * 60,
            version + struct.pack(">IB", 0x00040001, 4) + b"x" * 60,
            version + struct.pack(">IBB", 12, 4, 20) + b"x" * 10,
            version + struct.pack(">IBB", 12, 4, 50) + b"x" * 10,
            version + struct.pack(">IBB", 12, 4, 90) + b"x" * 10,
            version + struct.pack(">IBB", 12, 4, 21) + b"x" * 10,
        ):
            answer = await in_thread(say, data)
            assert answer.startswith(b"SSH-2.0-syspuffs"), data
            assert b"alice" not in answer
        assert await served.is_let_in(user="bob", identity=alice)
        await wait_until(lambda: not served.front.statistics().connections, "all are gone")


async def test_garbage_costs_a_penalty(tmp_path: Path, alice: Path) -> None:
    def say(data: bytes) -> bytes:
        with connected(served) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return read_to_end(sock)

    penalties = PenaltySettings(300.0, 600.0)
    async with running(tmp_path, PERSON, penalties=penalties) as served:
        # Looking in, as who watches a service does, costs nothing.
        assert (await in_thread(say, b"")).startswith(b"SSH-2.0")
        await wait_until(lambda: not served.front.statistics().connections, "it is gone")
        assert (await in_thread(say, b"Hello\r\n")).startswith(b"SSH-2.0")
        await wait_until(lambda: served.front.statistics().penalised, "a penalty")
        assert await in_thread(say, b"") in (b"Not allowed at this time\r\n", b"")
        assert served.front.statistics().refused == {"penalty": 1}


async def test_failures_cost_a_penalty(tmp_path: Path, keys: Path, alice: Path) -> None:
    accounts = {"alice": Credentials(keys=(public(alice),))}
    async with running(tmp_path, accounts, penalties=PenaltySettings(300.0, 600.0)) as served:
        # A wrong key and then a right one is what agents do.
        assert await served.is_let_in(f"IdentityFile={keys / 'bob'}", identity=alice)
        await wait_until(lambda: not served.front.statistics().connections, "it is gone")
        assert not served.front.statistics().penalised
        assert not await served.is_let_in(identity=keys / "bob")
        await wait_until(lambda: served.front.statistics().penalised, "a penalty")
        done = await served.call(identity=alice)
        assert done.returncode == 255
        assert done.stdout == b""


async def test_grace_time(tmp_path: Path) -> None:
    def idle() -> bytes:
        with connected(served) as sock:
            return read_to_end(sock)

    def idle_later() -> bytes:
        with connected(served) as sock:
            sock.sendall(b"SSH-2.0-idle\r\n")
            return read_to_end(sock)

    penalties = PenaltySettings(300.0, 600.0)
    async with running(tmp_path, PERSON, login_grace_seconds=0.3, penalties=penalties) as served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, idle)
            nursery.start_soon(in_thread, idle_later)
        await wait_until(lambda: not served.front.statistics().connections, "it is gone")
        assert served.front.statistics().penalised == 1


async def test_too_many_attempts(tmp_path: Path) -> None:
    def try_all() -> int:
        with transport(served) as client:
            for count in range(10):
                try:
                    client.auth_password("alice", f"wrong{count}")
                except paramiko.AuthenticationException:
                    if not client.is_active():
                        return count
                except (paramiko.SSHException, EOFError):
                    return count
        return 10

    async with running(tmp_path, PERSON, max_auth_tries=3) as served:
        assert await in_thread(try_all) == 2
        await wait_until(lambda: not served.front.statistics().connections, "it is gone")
        assert served.front.statistics().failures == {"password": 3}


async def test_attempts_that_do_not_wait(tmp_path: Path, alice: Path) -> None:
    """However a client asks, it has no more attempts, and no more users, than it may."""
    key = paramiko.Ed25519Key.from_private_key_file(str(alice))
    password = ("password", False, "wrong")
    ways: dict[str, tuple[str | bool | bytes, ...]] = {
        "pipelined": password,
        "names": password,
        "none": ("none",),
        "queries": ("publickey", False, "ssh-ed25519", key.asbytes()),
    }

    def ask(way: str) -> None:
        with transport(served) as client:
            send(client, message(b"\x05", "ssh-userauth"))
            for count in range(200):
                user = f"user{count}" if way == "names" else "alice"
                request = message(cMSG_USERAUTH_REQUEST, user, "ssh-connection", *ways[way])
                try:
                    send(client, request)
                except (EOFError, OSError):
                    break
            client.join(LIMIT)
            assert not client.is_active()

    accounts = {"alice": Credentials(password_hashes=(HASH,), keys=(public(alice),))}
    async with running(tmp_path, accounts, max_auth_tries=4) as served:
        before = 0
        for way in ways:
            await in_thread(ask, way)
            await wait_until(lambda: not served.front.statistics().connections, "it is gone")
            failures = sum(served.front.statistics().failures.values())
            assert failures - before <= 4
            before = failures
        assert not served.front.statistics().logins


async def test_nothing_but_a_login_leads_in(tmp_path: Path) -> None:
    """Sessions, requests and odd packets before the login end the connection."""

    def say(packet: paramiko.Message) -> None:
        with transport(served) as client:
            send(client, message(b"\x05", "ssh-userauth"))
            send(client, packet)
            client.join(LIMIT)
            assert not client.is_active()

    async with running(tmp_path, PERSON) as served:
        for packet in (
            message(cMSG_CHANNEL_OPEN, "session", 0, 1 << 20, 1 << 15),
            message(cMSG_GLOBAL_REQUEST, "tcpip-forward", True, "", 0),
            message(b"\x34"),  # USERAUTH_SUCCESS
            message(b"\x33", "password", False),
            message(b"\x62", 0, "subsystem", True, "sftp"),
            message(b"\x05", "ssh-connection"),
            message(cMSG_USERAUTH_REQUEST, "alice", "ssh-other", "none"),
            message(cMSG_USERAUTH_REQUEST, b"\xff\xfe", "ssh-connection", "none"),
            message(cMSG_USERAUTH_REQUEST, "a" * 5000, "ssh-connection", "none"),
            message(cMSG_USERAUTH_REQUEST, "alice", "ssh-connection", "password", False, b"\xff"),
        ):
            await in_thread(say, packet)
        await wait_until(lambda: not served.front.statistics().connections, "all are gone")
        assert not served.arrivals
        assert not served.front.statistics().logins


@pytest.mark.slow
async def test_a_flood(tmp_path: Path) -> None:
    """Who asks on and on and reads no answers is ended, before it costs much memory."""

    def flood() -> None:
        with transport(served) as client:
            client.auth_password("alice", "secret")
            # With the kernel's own idea of a buffer: TCP itself gets stuck on a small one.
            stop_reading(client, stopped)
            packet = message(cMSG_CHANNEL_OPEN, "x" * 200, 1, 1 << 20, 1 << 15)
            try:
                # Answers of some 70 octets: more than Linux keeps for us on both sides (it may
                # let the reader's buffer grow to 32 MiB) before we see that nobody reads.
                for _ in range(600_000):
                    send(client, packet)
            except (EOFError, OSError):
                return
            finally:
                stopped.set()
            raise AssertionError("nothing ended it")

    stopped = threading.Event()
    async with running(tmp_path, PERSON, sessions_per_connection=1) as served:
        pid = only_worker()
        before = memory(pid)
        await in_thread(flood)
        assert memory(pid) - before < 10 << 20
        await wait_until(lambda: not served.front.statistics().connections, "it is gone")


async def test_limits_of_connections(tmp_path: Path) -> None:
    def look(sock: socket.socket) -> bytes:
        return sock.recv(1000)

    async with running(tmp_path, PERSON, max_connections=3, connections_per_source=2) as served:
        with connected(served) as one, connected(served) as two:
            for sock in (one, two):
                assert (await in_thread(look, sock)).startswith(b"SSH-2.0-")
            with connected(served) as three:
                text = await in_thread(read_to_end, three)
                assert text == b"Too many connections from your address\r\n"
        await wait_until(lambda: not served.front.statistics().connections, "all are gone")
        with connected(served) as one:
            assert (await in_thread(look, one)).startswith(b"SSH-2.0-")
    async with running(tmp_path, PERSON, max_startups=Startups(1, 100, 1)) as served:
        with connected(served) as one:
            assert (await in_thread(look, one)).startswith(b"SSH-2.0-")
            with connected(served) as two:
                text = await in_thread(read_to_end, two)
                assert text == b"Too many connections; try again later\r\n"
            assert served.front.statistics().refused == {"startups": 1}


async def test_limit_of_sessions(tmp_path: Path) -> None:
    def open_many() -> int:
        with transport(served) as client:
            client.auth_password("alice", "secret")
            channels = []
            try:
                for _ in range(10):
                    channels.append(client.open_session(timeout=LIMIT))
                    channels[-1].invoke_subsystem("sftp")
            except paramiko.ChannelException:
                count = len(channels)
                channels[0].close()
                channels[1].send(b"hello")
                assert channels[1].recv(5) == b"hello"
                return count
        return 10

    async with running(tmp_path, PERSON, sessions_per_connection=3) as served:
        assert await in_thread(open_many) == 3
        assert [arrival.connection for arrival in served.arrivals] == [1, 1, 1]
        await wait_until(lambda: len(served.ends) == 3, "all sessions have ended")


async def test_nothing_but_sftp(tmp_path: Path) -> None:
    def ask() -> None:
        with transport(served) as client:
            client.auth_password("alice", "secret")
            requests: tuple[Callable[[Any], object], ...] = (
                lambda channel: channel.exec_command("id"),
                lambda channel: channel.exec_command("scp -t /"),
                lambda channel: channel.invoke_shell(),
                lambda channel: channel.get_pty(),
                lambda channel: channel.invoke_subsystem("shell"),
                lambda channel: channel.invoke_subsystem("SFTP"),
                lambda channel: channel.request_x11(handler=lambda *_: None),
            )
            for request in requests:
                channel = client.open_session(timeout=LIMIT)
                with pytest.raises(paramiko.SSHException):
                    request(channel)
                channel.close()
            with pytest.raises(paramiko.SSHException):
                client.request_port_forward("127.0.0.1", 0)
            for kind in ("direct-tcpip", "forwarded-tcpip", "x11"):
                with pytest.raises(paramiko.ChannelException):
                    client.open_channel(kind, ("127.0.0.1", 1), ("127.0.0.1", 1), timeout=LIMIT)
            channel = client.open_session(timeout=LIMIT)
            channel.invoke_subsystem("sftp")
            with pytest.raises(paramiko.SSHException):
                channel.invoke_subsystem("sftp")
            assert client.is_active()

    async with running(tmp_path, PERSON) as served:
        await in_thread(ask)
        assert len(served.arrivals) == 1
        await wait_until(lambda: len(served.ends) == 1, "the session has ended")


async def test_data_in_crumbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that wants its data octet by octet gets none."""

    def ask() -> None:
        with transport(served) as client:
            client.auth_password("alice", "secret")
            with pytest.raises(paramiko.ChannelException):
                client.open_channel("session", window_size=1, timeout=LIMIT)

    # paramiko has a least size of its own.
    monkeypatch.setattr(paramiko.Transport, "_sanitize_packet_size", lambda self, size: 100)
    async with running(tmp_path, PERSON) as served:
        await in_thread(ask)


async def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    """With any window, however large: what it does not read waits where it came from."""

    def ask() -> None:
        with transport(served) as client:
            client.auth_password("alice", "secret")
            channel = client.open_channel("session", window_size=(1 << 31) - 1, timeout=LIMIT)
            channel.invoke_subsystem("sftp")
            stop_reading(client, stopped)
            stopped.wait()

    stopped = threading.Event()
    async with running(tmp_path, PERSON) as served:
        served.is_spring = True
        pid = only_worker()
        before = memory(pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, ask)
            sent = -1
            with trio.fail_after(LIMIT):
                while sent != served.sent or not sent:
                    sent = served.sent
                    await trio.sleep(0.3)
            assert sent < 64 << 20
            assert memory(pid) - before < 16 << 20
            stopped.set()
        await wait_until(lambda: not served.front.statistics().connections, "it is gone")
