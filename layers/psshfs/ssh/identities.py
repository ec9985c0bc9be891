"""The keys a user may log in with: those of the agent, those in files, in the order of ssh.

Keys are offered one after the other, and a passphrase is asked only when the server would
take the key (where the public half can be read without it).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import asyncssh

from .sshconfig import ConfigError, HostConfig
from .terminal import Terminal

_DEFAULT_FILES = tuple(
    f"~/.ssh/id_{kind}"
    for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "ed448", "dsa")
)


class Identities:
    """Gives out the keys for one login, a few at a time; `close` ends the talk with the agent.

    `complaints` gathers what is wrong with key files that the user named.
    """

    def __init__(self, config: HostConfig, terminal: Terminal, note: Callable[[str], None]) -> None:
        self.complaints: list[str] = []
        self._config = config
        self._terminal = terminal
        self._note = note
        self._tries = config.number("NumberOfPasswordPrompts", 3)
        self._named = config.is_set("IdentityFile")
        words = config.gathered("IdentityFile") if self._named else list(_DEFAULT_FILES)
        self._files = list(dict.fromkeys(config.path(word, "IdentityFile") for word in words))
        self._certificates = self._load_certificates()
        self._only = config.flag("IdentitiesOnly", False)
        self._agent: asyncssh.SSHAgentClient | None = None
        self._loop = asyncio.get_running_loop()
        self._pending: Iterator[Sequence[asyncssh.SSHKeyPair]] | None = None
        if config.text("PKCS11Provider"):
            note(
                "PKCS11Provider is not used here; put the token into the agent, or use ssh_command"
            )

    async def take(self) -> Sequence[asyncssh.SSHKeyPair] | None:
        """Give the next keys to offer; None when there are no more."""
        if self._pending is None:
            self._pending = self._order(await self._ask_agent())
        return next(self._pending, None)

    def close(self) -> None:
        """Close the connection to the agent; harmless when called twice."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    def _order(
        self, held: Sequence[asyncssh.SSHKeyPair]
    ) -> Iterator[Sequence[asyncssh.SSHKeyPair]]:
        """Give what the agent holds, keys of configured files first, then the other files."""
        public = {file: _read_public(file) for file in self._files}
        wanted = {data for data in public.values() if data is not None}
        wanted |= {cert.public_data for cert in self._certificates}
        first = [pair for pair in held if pair.public_data in wanted]
        rest = [] if self._only else [pair for pair in held if pair not in first]
        for pair in [*first, *rest]:
            yield [pair]
        offered = {pair.public_data for pair in first}
        for file, data in public.items():
            if data is None or data not in offered:
                pairs = self._load(file)
                if pairs:
                    yield pairs

    async def _ask_agent(self) -> Sequence[asyncssh.SSHKeyPair]:
        path = self._find_agent()
        if path is None:
            return []
        try:
            self._agent = asyncssh.SSHAgentClient(path)
            return await self._agent.get_keys()
        except (OSError, ValueError, asyncssh.Error) as exc:
            self._note(f"the agent at {path} does not answer: {exc}")
            self.close()
            return []

    def _find_agent(self) -> str | None:
        if self._config.is_set("IdentityAgent"):
            word = self._config.text("IdentityAgent")
            if word is None:
                return None
            if word != "SSH_AUTH_SOCK":
                if word.startswith("$") and not word.startswith("${"):
                    return os.environ.get(word[1:])
                return self._config.path(word, "IdentityAgent")
        return os.environ.get("SSH_AUTH_SOCK") or None

    def _load_certificates(self) -> list[asyncssh.SSHCertificate]:
        result = []
        for word in self._config.gathered("CertificateFile"):
            file = self._config.path(word, "CertificateFile")
            try:
                result.append(asyncssh.read_certificate(file))
            except (OSError, ValueError) as exc:
                raise ConfigError(f"CertificateFile {file}: {_reason(exc)}") from exc
        return result

    def _load(self, file: str) -> Sequence[asyncssh.SSHKeyPair]:
        try:
            with open(file, "rb") as stream:
                data = stream.read()
        except FileNotFoundError:
            if self._named:
                self._complain(file, "no such file")
            return []
        except OSError as exc:
            self._complain(file, _reason(exc))
            return []
        if os.stat(file).st_mode & 0o077 and os.stat(file).st_uid == os.getuid():
            self._complain(file, "others may read it; it is not used: chmod 600 it")
            return []
        certificates = list(self._certificates)
        try:
            certificates.append(asyncssh.read_certificate(f"{file}-cert.pub"))
        except (OSError, ValueError):
            pass
        try:
            key: str | asyncssh.SSHKey = file
            ask: Any = None
            if _is_encrypted(data):
                # asyncssh takes a function here too, though its annotation does not say so.
                ask = self._ask_anywhere
                if _read_public(file) is None:
                    key = asyncssh.import_private_key(data, self._ask_passphrase(file))
            return asyncssh.load_keypairs([key], passphrase=ask, certlist=certificates)
        except (OSError, ValueError) as exc:
            self._complain(file, _reason(exc))
            return []

    def _complain(self, file: str, reason: str) -> None:
        text = f"key file {file}: {reason}"
        self._note(text)
        if self._named:
            self.complaints.append(text)

    def _ask_anywhere(self, file: str) -> str:
        """Ask from whatever thread asyncssh signs in: the terminal belongs to the main one."""
        if threading.current_thread() is threading.main_thread():
            return self._ask_passphrase(file)

        async def ask() -> str:
            return self._ask_passphrase(file)

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def _ask_passphrase(self, file: str) -> str:
        """Ask until the key opens; `KeyImportError` when the user or we give up."""
        with open(file, "rb") as stream:
            data = stream.read()
        for _ in range(self._tries):
            word = self._terminal.ask(f"Passphrase for key {file}: ")
            if not word:
                break
            try:
                asyncssh.import_private_key(data, word)
            except ValueError:
                continue
            return word
        reason = "it needs a passphrase"
        if not self._terminal.can_ask():
            reason += " and nobody can be asked; add it to the agent"
        self._complain(file, reason)
        raise asyncssh.KeyImportError(reason)


def _read_public(file: str) -> bytes | None:
    """Give the public half of a key file without its passphrase, None where that fails."""
    for name in (f"{file}.pub", file):
        try:
            return asyncssh.read_public_key(name).public_data
        except (OSError, ValueError):
            continue
    return None


def _is_encrypted(data: bytes) -> bool:
    try:
        asyncssh.import_private_key(data)
    except asyncssh.KeyEncryptionError:
        return True
    except asyncssh.KeyImportError as exc:
        return "assphrase" in str(exc)
    return False


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc) or type(exc).__name__
