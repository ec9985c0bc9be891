"""One connection's login: what asyncssh asks and tells, with time limits and clear failures."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncssh

from .algorithms import choose_algorithms
from .failure import DEAD_AFTER, Cause, ConnectError
from .hostkeys import HostKeyCheck
from .identities import Identities
from .route import CommandRoute, Route
from .sshconfig import ConfigError, HostConfig
from .terminal import Terminal

_AUTH_TIME = 120
"""Seconds without any progress of the authentication: somebody may have to touch a token."""


class Attempt(asyncssh.SSHClient):
    """One connection's login: answers asyncssh's questions, keeps time, explains failures."""

    def __init__(
        self,
        config: HostConfig,
        name: str,
        terminal: Terminal,
        note: Callable[[str], None],
        *,
        limit: int,
        password: str | None,
        compression: bool,
    ) -> None:
        self._config = config
        self._name = name
        self._limit: float = limit
        self._terminal = terminal
        self._compression = compression
        self._loop = asyncio.get_running_loop()
        self._progress = self._loop.time()
        self._authenticating = False
        self._tried: list[str] = []
        prompts = config.number("NumberOfPasswordPrompts", 3)
        self._password_tries = prompts
        self._kbdint_tries = prompts
        self._given_password = password
        self._terminal.asked = self._mark
        self.identities = Identities(config, self._terminal, note)
        self.check = HostKeyCheck(config, self._ask_visibly, self._terminal.tell)

    async def run(self, route: Route) -> asyncssh.SSHClientConnection:
        """Connect and log in, within the time limits."""
        config = self._config
        lines = choose_algorithms(config, self.check, compression=self._compression)
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

    async def _connect(self, route: Route, file: str) -> asyncssh.SSHClientConnection:
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
        interval, count = keepalive(config)
        # What certificates certify does not come to `accept`; all other keys do.
        revoked = self.check.revoked_keys if self.check.ca_keys else []
        return {
            "username": config.user,
            # We send SYMLINK's arguments in OpenSSH's order; asyncssh's server takes them so from
            # clients that call themselves OpenSSH only. sshd has no rule for this name.
            "client_version": "syspuffs_as_OpenSSH",
            "known_hosts": ([], self.check.ca_keys, revoked),
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
            "keepalive_interval": interval,
            "keepalive_count_max": count,
            "login_timeout": 0,
            "connect_timeout": None,
            "command": None,
        }

    def _prefer(self) -> Any:
        words = self._config.text("PreferredAuthentications")
        return words.split(",") if words is not None else ()

    # What asyncssh asks and tells

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Note where the name led."""
        self._mark()
        address = conn.get_extra_info("peername")
        if address:
            self.check.address = str(address[0])

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Decide about a plain host key."""
        return self.check.accept(key)

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Decide about the key that signed a host certificate."""
        return self.check.accept_ca(key)

    def begin_auth(self, username: str) -> None:
        """Grant the time that authentication may take."""
        self._mark()
        self._limit = max(self._limit, _AUTH_TIME)
        self._authenticating = True

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """Show what the server says before authentication."""
        if self._config.word("LogLevel", "info") not in ("quiet", "fatal", "error"):
            self._terminal.tell(msg.rstrip("\r\n"))

    async def public_key_auth_requested(self) -> Any:
        """Give the next keys to offer."""
        self._mark()
        self._try("publickey")
        return await self.identities.take()

    def password_auth_requested(self) -> str | None:
        """Give a password; None when there is none, or none that this host may see."""
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
        """Give the old and a new password, NotImplemented when the user does not."""
        self._terminal.tell(prompt or "The server wants another password.")
        old = self._terminal.ask(f"Old password for {self._name}: ")
        new = self._terminal.ask("New password: ")
        again = self._terminal.ask("New password again: ")
        if not old or not new or new != again:
            return NotImplemented
        return old, new

    def kbdint_auth_requested(self) -> str | None:
        """Tell whether the server's questions can be answered."""
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
        """Give the answers to the server's questions; None when somebody gives up."""
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

    def _explain(self, exc: Exception, route: Route) -> ConnectError:
        if self.check.failure is not None:
            return self.check.failure
        reason = exc.reason if isinstance(exc, asyncssh.Error) else str(exc)
        if isinstance(exc, ConfigError):
            raise exc
        if isinstance(exc, asyncssh.HostKeyNotVerifiable):
            return ConnectError(
                Cause.CHANGED_HOST_KEY if "revoked" in reason else Cause.UNKNOWN_HOST_KEY,
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


def keepalive(config: HostConfig, dead_after: float = DEAD_AFTER) -> tuple[float, int]:
    """Give the seconds between questions to a silent server (0: none), and how many.

    The pump notices silence after two intervals at most, and asyncssh gives up at the one after
    the last question.
    """
    count = max(1, config.number("ServerAliveCountMax", 3))
    if config.is_set("ServerAliveInterval"):
        return config.seconds("ServerAliveInterval", 0), count
    return dead_after / (count + 3), count
