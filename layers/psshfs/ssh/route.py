"""Ways to reach a host: TCP, through a jump host, through a command.

A route is what asyncssh calls a tunnel: something that connects a protocol to a host. Doing
it here and not in asyncssh tells "no such name", "refused", "no answer" and "the jump host
could not" apart, each with its own time limit.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncssh

from .failure import Cause, ConnectError
from .splitter import Splitter
from .sshconfig import ConfigError, HostConfig

_WINDOW = 16 << 20
_PACKET = 1 << 18

ProtocolFactory = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Jump:
    """One host of ProxyJump; None leaves the choice to that host's own configuration."""

    host: str
    user: str | None
    port: int | None


def parse_jumps(text: str) -> list[Jump]:
    """Take ProxyJump apart: `[user@]host[:port]` or `ssh://[user@]host[:port]`, by commas.

    Errors: `ConfigError`.
    """
    if not text or text.lower() == "none":
        return []
    jumps = []
    for word in text.split(","):
        body = word.strip().removeprefix("ssh://").removesuffix("/")
        shape = re.fullmatch(r"(?:(.+)@)?(\[[^\]]+\]|[^:\[\]@]+)(?::(\d+))?", body)
        if shape is None or shape[2].startswith("-") or re.search(r"\s", body):
            raise ConfigError(f"ProxyJump {text}: cannot read {word!r}: use [user@]host[:port]")
        port = int(shape[3]) if shape[3] else None
        if port is not None and not 0 < port < 65536:
            raise ConfigError(f"ProxyJump {text}: no such port: {port}")
        jumps.append(Jump(shape[2].strip("[]"), shape[1], port))
    return jumps


async def _attach(factory: ProtocolFactory, sock: socket.socket) -> tuple[Any, Any]:
    """Give `sock` to the connection that `factory` makes, with a `Splitter` before it."""
    connection = factory()
    splitter = Splitter(connection)
    connection.set_extra_info(splitter=splitter)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: splitter, sock=sock)
    return transport, connection


class TcpRoute:
    """Straight over TCP, one address of the host after the other."""

    def __init__(self, config: HostConfig, limit: float) -> None:
        self._name = config.original_host
        self._limit = limit
        self._bind = config.text("BindAddress")
        self._attempts = max(1, config.number("ConnectionAttempts", 1))
        self._family = {
            "any": socket.AF_UNSPEC,
            "inet": socket.AF_INET,
            "inet6": socket.AF_INET6,
        }[config.word("AddressFamily", "any", ("any", "inet", "inet6"))]

    async def create_connection(
        self, factory: ProtocolFactory, host: str, port: int
    ) -> tuple[Any, Any]:
        """Connect; `ConnectError` UNKNOWN_HOST, REFUSED or UNREACHABLE."""
        loop = asyncio.get_running_loop()
        try:
            addresses = await asyncio.wait_for(
                loop.getaddrinfo(host, port, family=self._family, type=socket.SOCK_STREAM),
                self._limit,
            )
        except TimeoutError:
            raise ConnectError(
                Cause.UNKNOWN_HOST,
                f"{host}: the name server did not answer within {self._limit:.0f} s; "
                "check the network",
            ) from None
        except (socket.gaierror, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, socket.gaierror) else exc
            raise ConnectError(
                Cause.UNKNOWN_HOST, f"{host}: no such host ({reason}); check the name"
            ) from exc
        failure: ConnectError | None = None
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(1)
            for family, kind, protocol, _, address in addresses:
                sock = socket.socket(family, kind, protocol)
                try:
                    await self._reach(sock, address)
                except OSError as exc:
                    sock.close()
                    problem = self._explain(exc, host, port, address)
                    # Of many addresses the one that is there at all says most.
                    if failure is None or problem.kind is Cause.REFUSED:
                        failure = problem
                except BaseException:
                    sock.close()
                    raise
                else:
                    return await _attach(factory, sock)
        assert failure is not None
        raise failure

    async def _reach(self, sock: socket.socket, address: Any) -> None:
        sock.setblocking(False)
        if self._bind is not None:
            sock.bind((self._bind, 0))
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(loop.sock_connect(sock, address), self._limit)

    def _explain(self, exc: OSError, host: str, port: int, address: Any) -> ConnectError:
        where = f"{host} port {port}"
        if address[0] != host:
            where += f" ({address[0]})"
        if isinstance(exc, ConnectionRefusedError):
            return ConnectError(
                Cause.REFUSED, f"{where}: connection refused; is an SSH server running there?"
            )
        if isinstance(exc, TimeoutError) and exc.errno is None:
            return ConnectError(
                Cause.UNREACHABLE,
                f"{where}: no answer within {self._limit:.0f} s; check the address and the "
                "network, or raise ConnectTimeout",
            )
        return ConnectError(
            Cause.UNREACHABLE,
            f"{where}: {exc.strerror or exc}; check the address and the network",
        )

    def close(self) -> None:
        """Nothing is held."""

    async def wait_closed(self) -> None:
        """Nothing to wait for."""


class JumpRoute:
    """Through a connection to another host; whoever made that connection closes it."""

    def __init__(self, tunnel: asyncssh.SSHClientConnection, name: str) -> None:
        self._tunnel = tunnel
        self._name = name

    async def create_connection(
        self, factory: ProtocolFactory, host: str, port: int
    ) -> tuple[Any, Any]:
        """Have the jump host connect; `ConnectError` PROXY when it cannot."""
        try:
            return await self._tunnel.create_connection(
                factory, host, port, window=_WINDOW, max_pktsize=_PACKET
            )
        except asyncssh.ChannelOpenError as exc:
            raise ConnectError(
                Cause.PROXY,
                f"jump host {self._name} cannot reach {host} port {port}: {exc.reason}; "
                "check the name and port as they are seen from there",
            ) from exc

    def close(self) -> None:
        """Leave the tunnel to its owner."""

    async def wait_closed(self) -> None:
        """Leave the tunnel to its owner."""


class CommandRoute:
    """Through the standard input and output of a command: ProxyCommand."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._process: asyncio.subprocess.Process | None = None
        self._relay: asyncio.Task[None] | None = None

    async def create_connection(
        self, factory: ProtocolFactory, host: str, port: int
    ) -> tuple[Any, Any]:
        """Run the command; `ConnectError` PROXY when not even a shell can be run."""
        shell = os.environ.get("SHELL") or "/bin/sh"
        ours, theirs = socket.socketpair()
        try:
            # It may ask on the terminal, so it stays in our session; it must not die of the ^C
            # that comes when we have left the terminal ourselves.
            self._process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", 'trap "" INT QUIT HUP; exec "$@"', "sh"),
                *(shell, "-c", f"exec {self.command}"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
            )
        except OSError as exc:
            ours.close()
            raise ConnectError(
                Cause.PROXY, f"ProxyCommand: cannot run {shell}: {exc.strerror}"
            ) from exc
        finally:
            theirs.close()
        self._relay = asyncio.ensure_future(self._relay_stderr(self._process))
        ours.setblocking(False)
        return await _attach(factory, ours)

    async def _relay_stderr(self, process: asyncio.subprocess.Process) -> None:
        # Through our own stderr, which is the terminal until login and nothing afterwards: a
        # proxy with the terminal in its hands would keep it busy as long as the mount lives.
        assert process.stderr is not None
        while data := await process.stderr.read(4096):
            with suppress(OSError):
                os.write(sys.stderr.fileno(), data)

    def close(self) -> None:
        """End the command."""
        if self._relay is not None:
            self._relay.cancel()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def wait_closed(self) -> None:
        """Wait for the end of the command, for a second at most."""
        if self._process is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 1)


Route = TcpRoute | JumpRoute | CommandRoute
