"""A front with real SSH processes, in this process; its sessions show who they are for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from syspuffs.gateway.sftpd.arrivals import Arrival
from syspuffs.gateway.sftpd.front import SshFront
from syspuffs.gateway.sshd.settings import Credentials, PenaltySettings, SshSettings

from ..support.sshd import find_program

LIMIT = 20.0
"""Seconds for anything in these tests; reaching it is a failure."""
NO_PENALTIES = PenaltySettings(seconds=0)


def settings(directory: Path, **changes: Any) -> SshSettings:
    """Settings for one SSH process on the loopback, without penalties."""
    values: dict[str, Any] = {
        "listen": (("127.0.0.1", 0),),
        "state": directory / "state",
        "workers": 1,
        "penalties": NO_PENALTIES,
        **changes,
    }
    return SshSettings(**values)


@dataclass
class Running:
    """A front that serves, and what has arrived."""

    front: SshFront
    settings: SshSettings
    directory: Path
    arrivals: list[Arrival] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Numbers of sessions that have ended."""
    refuse: str = ""
    """What sessions are refused with."""
    is_spring: bool = False
    """Whether sessions send without end, and `sent` counts the octets."""
    sent: int = 0

    @property
    def port(self) -> int:
        return self.front.addresses[0][1]

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    async def take(self, arrival: Arrival) -> None:
        """Echo what comes, until the client sends no more."""
        self.arrivals.append(arrival)
        sock = trio.socket.fromfd(arrival.fd, trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        os.close(arrival.fd)
        with sock:
            if self.refuse:
                self.front.refuse(arrival, self.refuse)
                return
            stream = trio.SocketStream(sock)
            try:
                while self.is_spring:
                    self.sent += await sock.send(bytes(1 << 18))
                async for data in stream:
                    await stream.send_all(data)
            except (trio.BrokenResourceError, OSError):
                pass
            finally:
                self.ends.append(arrival.session)

    def ssh(self, *options: str, user: str = "alice", identity: Path | None = None) -> list[str]:
        """Return a command of the OpenSSH client that asks for SFTP."""
        words = [find_program("ssh"), "-F", "none", "-p", str(self.port), "-l", user]
        for option in (
            *options,
            f"IdentityFile={identity or 'none'}",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=accept-new",
            "BatchMode=yes",
            "LogLevel=INFO",
        ):
            words += ["-o", option]
        return [*words, "-s", "127.0.0.1", "sftp"]

    async def call(
        self,
        *options: str,
        said: bytes = b"hello",
        env: Mapping[str, str] | None = None,
        **who: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the OpenSSH client and say something; what comes back is its output."""
        with trio.fail_after(LIMIT):
            return await trio.run_process(
                self.ssh(*options, **who),
                stdin=said,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=env,
            )

    async def is_let_in_by(self, password: str, *, user: str = "alice") -> bool:
        """Tell whether the OpenSSH client gets a session with a password."""
        ask = self.directory / "askpass"
        ask.write_text('#!/bin/sh\nprintf "%s\\n" "$SECRET"\n')
        ask.chmod(0o700)
        environment = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "SECRET": password}
        return await self.is_let_in(
            *("BatchMode=no", "NumberOfPasswordPrompts=1", "PreferredAuthentications=password"),
            user=user,
            env={**os.environ, **environment},
        )

    async def is_let_in(self, *options: str, **who: Any) -> bool:
        """Tell whether the OpenSSH client gets a session that echoes."""
        done = await self.call(*options, **who)
        if done.returncode == 0:
            assert done.stdout == b"hello"
            return True
        assert b"Permission denied" in done.stderr, done.stderr
        assert done.stdout == b""
        return False


@asynccontextmanager
async def running(
    directory: Path, accounts: Mapping[str, Credentials], **changes: Any
) -> AsyncIterator[Running]:
    """Serve accounts. `changes`: of the settings, and `dice`."""
    dice: Callable[[], float] = changes.pop("dice", lambda: 0.0)
    wanted = settings(directory, **changes)
    front = SshFront(wanted, accounts, dice=dice)
    await front.open()
    served = Running(front, wanted, directory)
    try:
        with trio.fail_after(3 * LIMIT):
            async with trio.open_nursery() as nursery:
                await nursery.start(front.serve, served.take)
                yield served
                nursery.cancel_scope.cancel()
    finally:
        await front.aclose()


def public(identity: Path) -> str:
    """Return the line of a key's public half."""
    return Path(f"{identity}.pub").read_text().strip()


async def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that other processes do."""
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.005)
    assert condition(), what
