"""From orders to an authenticated SSH connection: configuration, way, host key, credentials.

Runs in the pump, on asyncssh. Whatever goes wrong ends as one `ConnectError` that tells the
failures apart; nothing is retried behind the user's back except as ssh does it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import asyncssh

from .attempt import Attempt, keepalive
from .failure import DEAD_AFTER, Cause, ConnectError
from .hostkeys import name_type
from .route import CommandRoute, Jump, JumpRoute, Route, TcpRoute, parse_jumps
from .sshconfig import ConfigError, HostConfig
from .sshfile import read_config
from .terminal import Terminal

_JUMP_DEPTH = 8
_CONNECT_TIME = 30

# Options that make a connection safer, or lead elsewhere, and that we do not know how to obey.
_UNHEEDED = (
    "KnownHostsCommand",
    "RequiredRSASize",
    "PubkeyAcceptedAlgorithms",
    "HostbasedAcceptedAlgorithms",
    "VerifyHostKeyDNS",
    "CanonicalizeHostname",
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What the mounting process asks for; see `stream.SshOptions`."""

    host: str
    user: str | None = None
    port: int | None = None
    config_file: str | None = None
    options: Sequence[str] = ()
    compression: bool = False
    password: str | None = None
    subsystem: str = "sftp"
    dead_after: float = DEAD_AFTER


class Login:
    """Carries out one set of orders."""

    def __init__(self, orders: Orders, terminal: Terminal, note: Callable[[str], None]) -> None:
        self.name = orders.host
        """What messages call the server."""
        self._orders = orders
        self._terminal = terminal
        self._note = note
        self._connection: asyncssh.SSHClientConnection | None = None
        self._config: HostConfig | None = None

    async def connect(self, stack: AsyncExitStack) -> asyncssh.SSHClientConnection:
        """Give an authenticated connection; `stack` closes it and what it goes through.

        Errors: `ConnectError`.
        """
        orders = self._orders
        try:
            config = self._read(orders.host, orders.user, orders.port, orders.options)
            self._terminal.batch = config.flag("BatchMode", False)
            self._connection = await self._connect(config, stack, None, 0)
        except ConfigError as exc:
            raise ConnectError(Cause.BAD_CONFIG, f"{exc}; correct the option or the file") from exc
        self._config = config
        return self._connection

    def describe(self) -> str:
        """Give one line about the connection."""
        assert self._connection is not None
        info = self._connection.get_extra_info
        key = self._connection.get_server_host_key()
        shown = f"{name_type(key)} {key.get_fingerprint()}" if key is not None else "none"
        return (
            f"asyncssh {asyncssh.__version__} to {self.name}, {info('server_version')}, "
            f"{info('send_cipher')}, host key {shown}"
        )

    def environment(self) -> dict[str, Any]:
        """Give the environment that SendEnv and SetEnv want the server to have."""
        assert self._config is not None
        patterns = self._config.gathered("SendEnv")
        env = {
            name: value
            for name, value in os.environ.items()
            if any(fnmatchcase(name, p) for p in patterns if not p.startswith("-"))
        }
        env.update(w.partition("=")[::2] for w in self._config.words("SetEnv"))
        return {"env": env}

    def keepalive(self) -> tuple[float, int]:
        """Give the seconds between questions to a silent server (0: none), and how many."""
        assert self._config is not None
        return keepalive(self._config, self._orders.dead_after)

    def _read(
        self, host: str, user: str | None, port: int | None, options: Sequence[str]
    ) -> HostConfig:
        config = read_config(
            host, user=user, port=port, options=options, config_file=self._orders.config_file
        )
        for keyword in _UNHEEDED:
            if config.is_set(keyword):
                self._note(f"{host}: {keyword} is not heeded here; ssh_command=ssh heeds it")
        if config.flag("ProxyUseFdpass", False):
            raise ConfigError("ProxyUseFdpass is not known here; use ssh_command=ssh")
        if (reason := config.text("RefuseConnection")) is not None:
            raise ConfigError(f"{host}: RefuseConnection: {reason}")
        return config

    async def _connect(
        self,
        config: HostConfig,
        stack: AsyncExitStack,
        jumps: Sequence[Jump] | None,
        depth: int,
    ) -> asyncssh.SSHClientConnection:
        """Connect to the host of `config`, through `jumps` or (None) what `config` says."""
        if depth > _JUMP_DEPTH:
            raise ConfigError(f"ProxyJump goes through more than {_JUMP_DEPTH} hosts")
        if jumps is None:
            jumps = parse_jumps(config.expand(config.text("ProxyJump") or "", "ProxyJump"))
        name = f"{config.user}@{config.host}"
        if config.port != 22:
            name += f" port {config.port}"
        self.name = name
        limit = config.seconds("ConnectTimeout", _CONNECT_TIME) or _CONNECT_TIME
        route: Route
        if jumps:
            last = jumps[-1]
            # As `ssh -W` does it: the jump host has a configuration of its own, without our -o.
            inner = self._read(last.host, last.user, last.port, ())
            # [] would mean "directly" where the jump host's own ProxyJump should count.
            earlier = jumps[:-1] or None
            try:
                tunnel = await self._connect(inner, stack, earlier, depth + 1)
            except ConnectError as exc:
                raise ConnectError(
                    exc.kind if exc.kind in _KEPT else Cause.PROXY, f"jump host {exc.message}"
                ) from exc
            self.name = name
            route = JumpRoute(tunnel, f"{inner.user}@{inner.host}")
        elif command := config.text("ProxyCommand"):
            route = CommandRoute(config.expand_tokens(command, "ProxyCommand"))
        else:
            route = TcpRoute(config, limit)
        stack.callback(route.close)
        attempt = Attempt(
            config,
            name,
            self._terminal,
            self._note,
            limit=limit,
            # Jump hosts have passwords of their own, and must not see this one.
            password=self._orders.password if depth == 0 else None,
            compression=self._orders.compression,
        )
        try:
            connection = await attempt.run(route)
        finally:
            attempt.identities.close()
        stack.push_async_callback(_close, connection)
        return connection


_KEPT = (Cause.AUTHENTICATION, Cause.UNKNOWN_HOST_KEY, Cause.CHANGED_HOST_KEY, Cause.BAD_CONFIG)


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.abort()
    with suppress(TimeoutError):
        await asyncio.wait_for(connection.wait_closed(), 1)
