"""What to mount: `[user@]host:[path]`, taken apart once and for all.

The path may hold any octet but NUL, commas and colons among them; the host may be
an IPv6 address in brackets. No path means the login directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

# What a shell could read as more than a word. `%h` and `%r` of ProxyCommand and `Match exec`
# paste host and user into a shell's command line, so these are refused as OpenSSH does.
_NOT_IN_USER = frozenset("'`\";&<>|(){}")
_NOT_IN_HOST = _NOT_IN_USER | frozenset("\\$!*?#^,")


class TargetError(ValueError):
    """The text does not name anything that could be mounted; its text is one line."""


@dataclass(frozen=True, slots=True)
class Target:
    """A directory of a server: `host` without brackets ("" for this machine), `path` as typed."""

    user: str | None
    host: str
    path: bytes

    @property
    def login(self) -> str:
        """Give `[user@]host` as ssh takes it on its command line."""
        return f"{self.user}@{self.host}" if self.user is not None else self.host

    @property
    def is_local(self) -> bool:
        """True when the host is this machine, as `sftp_server` needs it."""
        return self.host in ("", "localhost")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = f"{self.user}@{host}" if self.user is not None else host
        return f"{login}:{os.fsdecode(self.path)}"


def parse_target(text: str, *, local: bool = False) -> Target:
    """Take `[user@]host:[path]` apart.

    A host without a colon means its login directory, as on NetBSD. With `local` (a program on
    this machine serves) the host may be empty, and a text that is a path ("/pub", "./pub",
    "../pub", or anything without a colon) is that path on this machine.

    Errors: `TargetError` with one line that names the cause.
    """
    if "\0" in text:
        raise TargetError(f"bad target {text!r}: it holds a NUL octet")
    if local and (text.startswith(("/", "./", "../")) or ":" not in text):
        return Target(None, "", os.fsencode(text))
    if text.startswith(("sftp://", "ssh://")):
        raise TargetError(f"bad target {text!r}: an address of the web; use [user@]host:[path]")
    if text.startswith("::") and not local:
        raise TargetError(f"bad target {text!r}: an IPv6 address stands in brackets, [::1]:/path")
    login, separator, path = _split(text)
    user: str | None
    user, at, host = login.rpartition("@")
    if not at:
        user = None
    elif not user:
        raise TargetError(f"bad target {text!r}: no user before the '@'")
    if host.startswith("["):
        if not host.endswith("]") or len(host) < 3:
            raise TargetError(f"bad target {text!r}: '[' needs an address and ']'")
        host = host[1:-1]
    if not host and not local:
        raise TargetError(f"bad target {text!r}: no host; use [user@]host:[path]")
    if not separator and "/" in host:
        raise TargetError(f"bad target {text!r}: no host; use [user@]host:[path]")
    _check("host", host, _NOT_IN_HOST, text)
    if user is not None:
        _check("user", user, _NOT_IN_USER, text)
    return Target(user, host, os.fsencode(path))


def _split(text: str) -> tuple[str, str, str]:
    """Split at the first colon that is not within brackets."""
    opened = text.find("[")
    colon = text.find(":")
    if 0 <= opened < colon and (opened == 0 or text[opened - 1] == "@"):
        closed = text.find("]", opened)
        if closed < 0:
            raise TargetError(f"bad target {text!r}: '[' without ']'")
        rest = text[closed + 1 :]
        if rest and not rest.startswith(":"):
            raise TargetError(f"bad target {text!r}: ':' expected after ']'")
        return text[: closed + 1], rest[:1], rest[1:]
    login, separator, path = text.partition(":")
    return login, separator, path


def _check(what: str, word: str, barred: frozenset[str], text: str) -> None:
    # A leading dash would be an option to ssh; the rest could break out of a command line.
    if word.startswith("-"):
        raise TargetError(f"bad target {text!r}: the {what} begins with '-'")
    if any(c in barred or c.isspace() or not c.isprintable() for c in word):
        raise TargetError(f"bad target {text!r}: the {what} holds a character that no {what} has")
