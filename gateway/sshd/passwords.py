"""Checks passwords against hashes, in threads, with work that tells nothing about the user."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import argon2
import bcrypt

PASSWORD_MAX: Final = 1024
"""Longest password, octets."""
_BCRYPT_MAX: Final = 72
"""What bcrypt heeds of a password, octets; its makers cut there, and so must who checks."""
_ARGON2 = re.compile(r"\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")
_BCRYPT = re.compile(r"(\$2[aby]\$\d\d\$)[./A-Za-z0-9]{53}")
_FALLBACK: Final = "$argon2id$v=19$m=65536,t=3,p=4$" + "A" * 22 + "$" + "A" * 43
"""For when there is no hash at all: as argon2 makes them by default."""


def explain_hash(text: str) -> str:
    """Return why a text is no hash that can be checked here, or nothing."""
    if _ARGON2.fullmatch(text):
        try:
            argon2.extract_parameters(text)
        except argon2.exceptions.InvalidHashError:
            return "is a damaged argon2 hash"
        return ""
    if _BCRYPT.fullmatch(text):
        return ""
    return "is no password hash: $argon2id$ (argon2) and $2b$ (htpasswd -B) are known"


def is_password(password: bytes, text: str) -> bool:
    """Tell whether a password has this hash. Takes its time: call it in a thread."""
    try:
        if text.startswith("$argon2"):
            return argon2.low_level.verify_secret(text.encode(), password, argon2.Type.ID)
        return bcrypt.checkpw(password[:_BCRYPT_MAX], text.encode())
    except (argon2.exceptions.Argon2Error, ValueError):
        return False


def _unmatched(text: str) -> str:
    """Return a hash that costs as much as `text` and that no password is known to have."""
    if match := _ARGON2.fullmatch(text):
        size = len(base64.b64decode(match[2] + "=" * (-len(match[2]) % 4)))
        nothing = base64.b64encode(bytes(size)).decode().rstrip("=")
        return text[: match.start(2)] + nothing
    match = _BCRYPT.fullmatch(text)
    assert match is not None
    return match[1] + "." * 53


class Passwords:
    """Checks passwords for one SSH process.

    For a user without a password something is checked that costs what the password of one of the
    others would, always of the same one: who asks again learns nothing more.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # One at a time: argon2 takes 64 MiB, and SSH processes are as many as processors.
        self._threads = ThreadPoolExecutor(1, "password")
        self._dummies: Sequence[Sequence[str]] = [[_FALLBACK]]

    def learn(self, accounts: Iterable[Sequence[str]]) -> None:
        """Hear which hashes each account has."""
        dummies = [[_unmatched(text) for text in hashes] for hashes in accounts if hashes]
        self._dummies = dummies or [[_FALLBACK]]

    async def check(self, user: str, password: str, hashes: Sequence[str]) -> bool:
        """Tell whether a user's password has one of the hashes; all of them are looked at."""
        octets = password.encode("utf-8", "surrogatepass")
        counts = bool(hashes) and len(octets) <= PASSWORD_MAX
        if not hashes:
            digest = hmac.digest(self._secret, user.encode(), "sha256")
            hashes = self._dummies[int.from_bytes(digest[:8], "big") % len(self._dummies)]
        loop = asyncio.get_running_loop()
        results = [
            await loop.run_in_executor(self._threads, is_password, octets[:PASSWORD_MAX], text)
            for text in hashes
        ]
        return counts and any(results)

    def close(self) -> None:
        """Wait for nobody any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
