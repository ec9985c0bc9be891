"""Decides who gets in: the credentials of the accounts, and the authentication command.

Knows keys, certificates and passwords, and no connection: the proof that a client has the key is
connection.py's. Everything that is odd is a no, and says why in the log, never to the client.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final, TypeVar

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import (
    CERT_TYPE_USER,
    SSHOpenSSHCertificate,
    decode_ssh_certificate,
    decode_ssh_public_key,
)

from .control import Orders
from .hook import Hook
from .keyfile import BadFile, read_key_file
from .keyline import Address, BadLine, KeyLine, check_key, parse_command, parse_line
from .passwords import Passwords
from .settings import METHODS, PASSWORD, PUBLIC_KEY, Credentials

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_READ_SECONDS: Final = 10.0
"""How long files of keys may take to be read."""
_DELAY_SECONDS: Final = 0.005
"""What a failure takes at least, as with sshd; up to twice that, by user."""
_WEAK_SIGNATURES: Final = frozenset((b"ssh-rsa", b"ssh-dss"))
"""With SHA-1."""
_NOBODY: Final = Credentials(methods=METHODS)
"""What is checked for a user who is not there, as for others."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Lets a client in: as whom, by what, and what it may not do."""

    account: str
    method: str
    fingerprint: str = ""
    authority: str = ""
    key_id: str = ""
    is_read_only: bool = False
    start: bytes | None = None


@dataclass(frozen=True, slots=True)
class OfferedKey:
    """A key that counts, if the client has it."""

    grant: Grant
    key: asyncssh.SSHKey


class Access:
    """What the orders say about who gets in."""

    def __init__(self, orders: Orders) -> None:
        settings = orders.settings
        self._accounts = orders.accounts
        self._secret = orders.secret
        self._passwords = Passwords(orders.secret)
        self._passwords.learn(
            credentials.password_hashes
            for credentials in orders.accounts.values()
            if PASSWORD in credentials.methods
        )
        self._files = ThreadPoolExecutor(2, "keys")
        self._hook: Hook | None = None
        if settings.auth_command:
            self._hook = Hook(settings.auth_command, settings.auth_command_seconds)
        self.offers_passwords = self._hook is not None or any(
            credentials.password_hashes and PASSWORD in credentials.methods
            for credentials in orders.accounts.values()
        )
        """Whether clients are told that passwords count; the same for all users."""

    def close(self) -> None:
        """End the threads; what is being asked ends by itself."""
        self._passwords.close()
        self._files.shutdown(wait=False, cancel_futures=True)

    async def no_sooner(self, user: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask, and have a no take a time that does not tell what was looked at.

        At least some milliseconds, other ones for each user but always the same, doubled until
        they are more than it took: sshd does it like that.
        """
        began = time.monotonic()
        answer = await ask()
        if not answer:
            digest = hmac.digest(self._secret, b"delay" + user.encode(), "sha256")
            least = _DELAY_SECONDS * (1 + int.from_bytes(digest[:4], "big") / (1 << 32))
            took = time.monotonic() - began
            while least < took:
                least *= 2
            await asyncio.sleep(least - took)
        return answer

    # Passwords.

    async def by_password(self, user: str, password: str, address: str, port: int) -> Grant | None:
        """Return what a password gives, or None."""
        credentials = self._accounts.get(user, _NOBODY)
        source = ip_address(address)
        may = user in self._accounts and _may(credentials, PASSWORD, source)
        # Checked in any case: how long it takes must not tell who is there, or from where.
        is_right = await self._passwords.check(user, password, credentials.password_hashes)
        if is_right and may:
            return Grant(user, PASSWORD)
        question = {"method": PASSWORD, "password": password, "port": port}
        if (account := await self._ask(user, source, question)) is not None:
            return Grant(account, PASSWORD)
        return None

    # Keys and certificates.

    async def by_key(
        self, user: str, blob: bytes, address: str, port: int, *, is_signed: bool
    ) -> OfferedKey | None:
        """Return what a key or a certificate gives, or None. `is_signed`: proof comes with it."""
        credentials = self._accounts.get(user, _NOBODY)
        source = ip_address(address)
        may = user in self._accounts and _may(credentials, PUBLIC_KEY, source)
        lines = await self._read_lines(user, credentials)
        certificate = _decode_certificate(blob)
        try:
            if certificate is not None:
                key = certificate.key
                grant = self._by_certificate(user, credentials, lines, certificate, source)
                check_key(key.algorithm, key.public_data)
            else:
                key = decode_ssh_public_key(blob)
                check_key(key.algorithm, blob)
                grant = _by_lines(user, lines, blob, source)
        except BadLine as exc:
            _log.info("user %r: the key offered does not count: %s", user, exc)
            return None
        except (asyncssh.KeyImportError, PacketDecodeError, ValueError):
            return None
        if grant is None or not may:
            question = {
                "method": PUBLIC_KEY,
                "port": port,
                "key": f"{key.algorithm.decode()} {base64.b64encode(key.public_data).decode()}",
                "fingerprint": key.get_fingerprint(),
                "signed": is_signed,
            }
            # A certificate is no plain key: who asks for its key would pass over what it forbids.
            account = None if certificate else await self._ask(user, source, question)
            if account is None:
                return None
            grant = Grant(account, PUBLIC_KEY)
        else:
            key.set_touch_required(_needs_touch(lines, blob))
        return OfferedKey(replace(grant, fingerprint=key.get_fingerprint()), key)

    def _by_certificate(
        self,
        user: str,
        credentials: Credentials,
        lines: Sequence[KeyLine],
        certificate: SSHOpenSSHCertificate,
        source: Address,
    ) -> Grant | None:
        authority = certificate.signing_key.public_data
        if _signature_type(certificate) in _WEAK_SIGNATURES:
            raise BadLine("its certificate is signed with SHA-1")
        certificate.validate(CERT_TYPE_USER, None)
        allowed = certificate.options.get("source-address")
        if isinstance(allowed, list) and not any(source in network for network in allowed):
            raise BadLine(f"its certificate does not count for clients at {source}")
        now = time.time()
        trusted = (
            replace(line, is_authority=True)
            for line in _parse(credentials.ca_keys, f"account {user!r}, ca_keys")
        )
        for line in (*trusted, *lines):
            if not line.is_authority or line.blob != authority:
                continue
            # One without principals is for everybody, and counts for nobody.
            names = line.principals or credentials.principals or (user,)
            if reason := line.refusal(source, now):
                _log.info("user %r: an authority does not count: %s", user, reason)
            elif not set(names).intersection(certificate.principals):
                _log.info("user %r: a certificate is for others", user)
            else:
                grant = _grant(user, line)
                command = certificate.options.get("force-command")
                if isinstance(command, str):
                    is_read_only, start = parse_command(command)
                    if grant.start is not None and start not in (None, grant.start):
                        raise BadLine("certificate and authority force different directories")
                    grant = replace(
                        grant,
                        is_read_only=grant.is_read_only or is_read_only,
                        start=start if grant.start is None else grant.start,
                    )
                return replace(
                    grant,
                    authority=certificate.signing_key.get_fingerprint(),
                    key_id=_key_id(certificate),
                )
        return None

    async def _read_lines(self, user: str, credentials: Credentials) -> list[KeyLine]:
        """Return the lines of an account that have keys, and log those that do not count."""
        lines = list(_parse(credentials.keys, f"account {user!r}, keys"))
        loop = asyncio.get_running_loop()
        for path in credentials.key_files:
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    texts = await loop.run_in_executor(
                        self._files, read_key_file, path, credentials.owner
                    )
            except TimeoutError:
                _log.error("%s cannot be read in time, and does not count", path)
            except BadFile as exc:
                _log.error("%s, and does not count", exc)
            else:
                lines += _parse(texts, str(path))
        return lines

    async def _ask(self, user: str, source: Address, more: dict[str, object]) -> str | None:
        """Ask the command, if there is one, and return the account that it says."""
        if self._hook is None:
            return None
        account = await self._hook.ask({"user": user, "source": str(source), **more})
        if account is None:
            return None
        credentials = self._accounts.get(account)
        if credentials is None:
            _log.warning("auth_command: there is no account %r", account)
        elif not _may(credentials, str(more["method"]), source):
            _log.info("auth_command: account %r is not for clients like that", account)
        else:
            return account
        return None


def is_weak_signature(signature: bytes) -> bool:
    """Tell whether a signature is one with SHA-1, or none at all."""
    try:
        return SSHPacket(signature).get_string() in _WEAK_SIGNATURES
    except PacketDecodeError:
        return True


def _may(credentials: Credentials, method: str, source: Address) -> bool:
    """Tell whether an account is for clients there that use this method."""
    networks = credentials.networks
    return method in credentials.methods and (
        not networks or any(source in network for network in networks)
    )


def _parse(texts: Sequence[str], place: str) -> Iterator[KeyLine]:
    for number, text in enumerate(texts, 1):
        try:
            line = parse_line(text)
        except BadLine as exc:
            _log.warning("%s:%d: the key does not count: %s", place, number, exc)
        else:
            if line is not None:
                yield line


def _by_lines(user: str, lines: Sequence[KeyLine], blob: bytes, source: Address) -> Grant | None:
    """Return what the first line with a key gives that counts now, as sshd takes it."""
    now = time.time()
    for line in lines:
        if line.blob == blob and not line.is_authority:
            if not (reason := line.refusal(source, now)):
                return _grant(user, line)
            _log.info("user %r: a key does not count: %s", user, reason)
    return None


def _grant(user: str, line: KeyLine) -> Grant:
    return Grant(user, PUBLIC_KEY, is_read_only=line.is_read_only, start=line.start)


def _needs_touch(lines: Sequence[KeyLine], blob: bytes) -> bool:
    return all(line.needs_touch for line in lines if line.blob == blob)


def _decode_certificate(blob: bytes) -> SSHOpenSSHCertificate | None:
    """Return a certificate whose signature is right, None for what is none."""
    try:
        certificate = decode_ssh_certificate(blob)
    except (asyncssh.KeyImportError, ValueError):
        return None
    return certificate if isinstance(certificate, SSHOpenSSHCertificate) else None


def _signature_type(certificate: SSHOpenSSHCertificate) -> bytes:
    """Return by which algorithm a certificate was signed; what cannot be found is a weak one."""
    marker = String(certificate.signing_key.public_data)
    _, found, rest = certificate.public_data.rpartition(marker)
    try:
        return SSHPacket(SSHPacket(rest).get_string()).get_string() if found else b"ssh-dss"
    except PacketDecodeError:
        return b"ssh-dss"


def _key_id(certificate: SSHOpenSSHCertificate) -> str:
    # asyncssh keeps it to itself.
    return str(vars(certificate).get("_key_id", ""))
