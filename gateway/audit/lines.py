"""What an audit and an event have in common: who did it, when, and paths as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

PATH_LENGTH_MAX: Final = 4096
"""Octets of a path that are recorded; no longer one leads anywhere."""


@dataclass(frozen=True, slots=True)
class Who:
    """One session: what tells it from others, and who is behind it.

    `source` is address and port. `method` and `client` are how they logged in and what program
    they use, as far as that is known.
    """

    session: str
    account: str
    source: tuple[str, int]
    method: str = ""
    client: str = ""

    @property
    def address(self) -> str:
        """The source as text; an IPv6 address is in brackets."""
        host, port = self.source
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def timestamp(seconds: float) -> str:
    """Return a time, seconds since 1970, as RFC 3339 has it, in UTC and to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def path_fields(key: str, path: bytes) -> dict[str, str]:
    """Return a path as fields of a JSON object.

    Paths are octets and JSON is text: for those that are no UTF-8 a second field has all octets
    in hexadecimal digits.
    """
    path = path[:PATH_LENGTH_MAX]
    try:
        return {key: path.decode()}
    except UnicodeDecodeError:
        return {key: path.decode(errors="replace"), f"{key}_octets": path.hex()}


def normal(path: bytes, start: bytes) -> bytes:
    """Return the absolute form of a path that a client used, which begins in `start`.

    Empty names and "." go. Where there is a ".." it stays: what it leads to depends on links.
    """
    if not path.startswith(b"/"):
        path = start + b"/" + path
    return b"/" + b"/".join([name for name in path.split(b"/") if name not in (b"", b".")])


def line(fields: Mapping[str, Any]) -> bytes:
    """Return a line with one JSON object, in ASCII."""
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
