"""From orders to an authenticated SSH connection: configuration, way, host key, credentials.

Runs in the pump, on asyncssh. Whatever goes wrong ends as one `ConnectError` that tells the
failures apart; nothing is retried behind the user's back except as ssh does it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import asyncssh

from .failure import Cause, ConnectError
from .hostkeys import HostKeyCheck, name_type
from .identities import Identities
from .route import CommandRoute, Jump, JumpRoute, TcpRoute, parse_jumps
from .sshconfig import ConfigError, HostConfig
from .sshfile import read_config
from .terminal import Terminal

_JUMP_DEPTH = 8
_CONNECT_TIME = 30
_AUTH_TIME = 120
"""Seconds without any progress of the authentication: somebody may have to touch a token."""
_KEEPALIVE_INTERVAL = 15

# Options that make a connection safer and that we do not know how to obey.
_UNHEEDED = (
    "KnownHostsCommand",
    "RequiredRSASize",
    "PubkeyAcceptedAlgorithms",
    "HostbasedAcceptedAlgorithms",
    "VerifyHostKeyDNS",
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

    def _read(
        self, host: str, user: str | None, port: int | None, options: Sequence[str]
    ) -> HostConfig:
        config = read_config(
            host, user=user, port=port, options=options, config_file=self._orders.config_file
        )
        for keyword in _UNHEEDED:
            if config.is_set(keyword):
                self._note(f"{host}: {keyword} is not heeded here; ssh_command=ssh heeds it")
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
        route: TcpRoute | JumpRoute | CommandRoute
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
        attempt = _Attempt(self, config, name, limit)
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


class _Attempt(asyncssh.SSHClient):
    """One connection's login: answers asyncssh's questions, keeps time, explains failures."""

    def __init__(self, login: Login, config: HostConfig, name: str, limit: int) -> None:
        self._config = config
        self._name = name
        self._limit: float = limit
        self._login = login
        self._terminal = login._terminal
        self._orders = login._orders
        self._loop = asyncio.get_running_loop()
        self._progress = self._loop.time()
        self._authenticating = False
        self._tried: list[str] = []
        prompts = config.number("NumberOfPasswordPrompts", 3)
        self._password_tries = prompts
        self._kbdint_tries = prompts
        self._given_password = self._orders.password
        self._terminal.asked = self._mark
        self.identities = Identities(config, self._terminal, login._note)
        self.check = HostKeyCheck(config, self._ask_visibly, self._terminal.tell)

    async def run(self, route: TcpRoute | JumpRoute | CommandRoute) -> asyncssh.SSHClientConnection:
        """Connect and log in, within the time limits."""
        config = self._config
        lines = choose_algorithms(config, self.check, compression=self._orders.compression)
        watchdog: asyncio.Task[None] | None = None
        with open(os.memfd_create("ssh_config"), "w+", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            task = asyncio.ensure_future(self._connect(route, f"/proc/self/fd/{file.fileno()}"))
            try:
                watchdog = asyncio.ensure_future(self._watch(task))
                return await task
            except asyncio.CancelledError:
                if watchdog is None or not watchdog.done():
                    raise
                raise self._explain_silence() from None
            except ConnectError:
                raise
            except (asyncssh.Error, OSError, ValueError) as exc:
                raise self._explain(exc, route) from exc
            finally:
                if watchdog is not None:
                    watchdog.cancel()
                task.cancel()

    async def _connect(
        self, route: TcpRoute | JumpRoute | CommandRoute, file: str
    ) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            self._config.host,
            self._config.port,
            tunnel=route,
            config=[file],
            client_factory=lambda: self,
            **self._settings(),
        )

    async def _watch(self, task: asyncio.Future[Any]) -> None:
        """Cancel the login when nothing has moved for too long; typing time does not count."""
        while (rest := self._progress + self._limit - self._loop.time()) > 0:
            await asyncio.sleep(rest)
        task.cancel()

    def _ask_visibly(self, prompt: str) -> str | None:
        return self._terminal.ask(prompt, echo=True)

    def _mark(self) -> None:
        self._progress = self._loop.time()

    def _settings(self) -> Mapping[str, Any]:
        config = self._config
        return {
            "username": config.user,
            "known_hosts": ([], self.check.ca_keys, self.check.revoked_keys),
            "host_key_alias": config.text("HostKeyAlias"),
            # Keys come one by one from `public_key_auth_requested`, the agent's among them.
            "client_keys": None,
            "x509_trusted_certs": None,
            "x509_trusted_cert_paths": None,
            "preferred_auth": self._prefer(),
            "public_key_auth": config.word("PubkeyAuthentication", "yes") not in ("no", "false"),
            "password_auth": config.flag("PasswordAuthentication", True),
            "kbdint_auth": config.flag("KbdInteractiveAuthentication", True),
            "host_based_auth": config.flag("HostbasedAuthentication", False),
            "client_host_keysign": config.flag("EnableSSHKeysign", False),
            "gss_host": None if not config.flag("GSSAPIAuthentication", False) else (),
            "gss_auth": config.flag("GSSAPIAuthentication", False),
            "gss_kex": config.flag("GSSAPIKeyExchange", False),
            "gss_delegate_creds": config.flag("GSSAPIDelegateCredentials", False),
            "agent_forwarding": False,
            "tcp_keepalive": config.flag("TCPKeepAlive", True),
            "keepalive_interval": config.seconds("ServerAliveInterval", _KEEPALIVE_INTERVAL),
            "keepalive_count_max": max(1, config.number("ServerAliveCountMax", 3)),
            "login_timeout": 0,
            "connect_timeout": None,
            "canonicalize_hostname": False,
            "command": None,
        }

    def _prefer(self) -> Any:
        words = self._config.text("PreferredAuthentications")
        return words.split(",") if words is not None else ()

    # What asyncssh asks and tells

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._mark()
        address = conn.get_extra_info("peername")
        if address:
            self.check.address = str(address[0])

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        return self.check.accept(key)

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self.check.accept_ca(key)

    def begin_auth(self, username: str) -> None:
        self._mark()
        self._limit = max(self._limit, _AUTH_TIME)
        self._authenticating = True

    def auth_banner_received(self, msg: str, lang: str) -> None:
        if self._config.word("LogLevel", "info") not in ("quiet", "fatal", "error"):
            self._terminal.tell(msg.rstrip("\r\n"))

    async def public_key_auth_requested(self) -> Any:
        self._mark()
        self._try("publickey")
        return await self.identities.take()

    def password_auth_requested(self) -> str | None:
        self._mark()
        if self.check.is_distrusted:
            return None
        self._try("password")
        if self._given_password is not None:
            word, self._given_password = self._given_password, None
            return word
        if self._password_tries <= 0:
            return None
        self._password_tries -= 1
        return self._terminal.ask(f"Password for {self._name}: ")

    def password_change_requested(self, prompt: str, lang: str) -> Any:
        self._terminal.tell(prompt or "The server wants another password.")
        old = self._terminal.ask(f"Old password for {self._name}: ")
        new = self._terminal.ask("New password: ")
        again = self._terminal.ask("New password again: ")
        if not old or not new or new != again:
            return NotImplemented
        return old, new

    def kbdint_auth_requested(self) -> str | None:
        self._mark()
        if self.check.is_distrusted or self._kbdint_tries <= 0:
            return None
        if self._given_password is None and not self._terminal.can_ask():
            return None
        self._kbdint_tries -= 1
        self._try("keyboard-interactive")
        return ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        self._mark()
        for text in (name, instructions):
            if text.strip():
                self._terminal.tell(text.rstrip("\r\n"))
        answers: list[str] = []
        for prompt, echo in prompts:
            if self._given_password is not None and not echo and len(prompts) == 1:
                answers.append(self._given_password)
                self._given_password = None
                continue
            answer = self._terminal.ask(f"({self._name}) {prompt}", echo=echo)
            if answer is None:
                return None
            answers.append(answer)
        return answers

    def _try(self, method: str) -> None:
        if method not in self._tried:
            self._tried.append(method)

    # What went wrong

    def _explain_silence(self) -> ConnectError:
        if self._authenticating:
            return ConnectError(
                Cause.UNREACHABLE,
                f"{self._name}: no answer for {self._limit:.0f} s during authentication; try again",
            )
        return ConnectError(
            Cause.UNREACHABLE,
            f"{self._name}: no answer within {self._limit:.0f} s; check address, port and network, "
            "or raise ConnectTimeout",
        )

    def _explain(self, exc: Exception, route: TcpRoute | JumpRoute | CommandRoute) -> ConnectError:
        if self.check.failure is not None:
            return self.check.failure
        reason = exc.reason if isinstance(exc, asyncssh.Error) else str(exc)
        if isinstance(exc, ConfigError):
            raise exc
        if isinstance(exc, asyncssh.HostKeyNotVerifiable):
            return ConnectError(
                Cause.UNKNOWN_HOST_KEY,
                f"{self._name}: {reason}; check known_hosts and the host's certificate",
            )
        if isinstance(exc, asyncssh.PermissionDenied) or (
            self._authenticating and isinstance(exc, asyncssh.DisconnectError)
        ):
            return self._explain_denial(exc, reason)
        if isinstance(exc, (asyncssh.ConnectionLost, ConnectionError)):
            if isinstance(route, CommandRoute):
                return ConnectError(
                    Cause.PROXY,
                    f"{self._name}: ProxyCommand ended before the server answered; "
                    f"run it by hand to see why: {route.command}",
                )
            return ConnectError(
                Cause.PROTOCOL,
                f"{self._name}: the connection was closed before login; is it an SSH server, "
                "and does it let this machine in?",
            )
        if isinstance(exc, asyncssh.Error):
            return ConnectError(
                Cause.PROTOCOL, f"{self._name}: {reason}; server and client find no common ground"
            )
        return ConnectError(Cause.BAD_CONFIG, f"{self._name}: {reason}; correct the option")

    def _explain_denial(self, exc: Exception, reason: str) -> ConnectError:
        tried = ", ".join(self._tried) or "nothing"
        text = f"{self._name}: authentication failed (tried {tried})"
        if not isinstance(exc, asyncssh.PermissionDenied):
            text += f": {reason}"
        if self.identities.complaints:
            complaints = "; ".join(self.identities.complaints)
            return ConnectError(Cause.BAD_CONFIG, f"{text}; {complaints}")
        if self.check.is_distrusted:
            text += ": passwords are not sent to a host whose key has changed"
        elif self._terminal.batch:
            text += ": BatchMode forbids to ask for a password"
        elif not self._terminal.can_ask():
            text += ": there is no terminal to ask for a password"
        return ConnectError(
            Cause.AUTHENTICATION, f"{text}; check the user name, the keys and the agent"
        )


_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-ed448",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


def choose_algorithms(config: HostConfig, check: HostKeyCheck, *, compression: bool) -> str:
    """Give the lines of ssh configuration that asyncssh reads itself.

    Only through a file does it pass over algorithms that it does not have, as users expect
    who share their configuration with ssh. What the user does not choose is the fastest first,
    and of host keys those that are known.
    """
    ciphers = _CIPHERS
    if not _has_aes():
        ciphers = (ciphers[2], *ciphers[:2], *ciphers[3:])
    known = check.order_algorithms()
    keys = [*known, *(alg for alg in _HOST_KEYS if alg not in known)]
    if check.ca_keys:
        # Only where an authority is known: a host that shows a certificate shows no plain key.
        keys = [f"{alg.removesuffix('@openssh.com')}-cert-v01@openssh.com" for alg in keys] + keys
    chosen = {
        "Ciphers": ",".join(ciphers),
        "HostKeyAlgorithms": ",".join(keys),
        "Compression": "yes" if compression else "no",
    }
    for keyword in (
        *("Ciphers", "KexAlgorithms", "MACs", "HostKeyAlgorithms", "CASignatureAlgorithms"),
        *("Compression", "RekeyLimit"),
    ):
        if (value := config.text(keyword)) and not (compression and keyword == "Compression"):
            chosen[keyword] = value
    return "".join(f"{keyword} {value}\n" for keyword, value in chosen.items())


def _has_aes() -> bool:
    """Tell whether the processor has AES instructions (x86: aes, ARM: aes)."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return re.search(r"^(flags|Features)\s*:.*\baes\b", file.read(), re.M) is not None
    except OSError:
        return False
