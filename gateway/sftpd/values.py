"""Values of a configuration as people write them: sizes, times, addresses, modes, paths.

Each function returns what a value means, or raises ValueError with a sentence that says what would
be right.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from ..words.options import octal, octets

Network = IPv4Network | IPv6Network

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_TIME_MAX: Final = 10 * 365 * 86400.0


def size(value: object) -> int:
    """Return octets: a whole number, or "10G"."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        return octets(value)
    raise ValueError(f"{shown(value)} is no size, such as 65536, '64K' or '10G'")


def seconds(value: object) -> float:
    """Return seconds: a number of them, or "90s", "5m", "1h30m", "500ms"."""
    found = -1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str) and _TIME.fullmatch(value):
        found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if not 0 < found <= _TIME_MAX:
        raise ValueError(f"{shown(value)} is no time, such as 30, '30s', '5m' or '1h30m'")
    return found


def mode(value: object) -> int:
    """Return permission bits, written in octal in quotes. A number is decimal in TOML, or 0o22."""
    if isinstance(value, str):
        return octal(value.removeprefix("0o"))
    raise ValueError(f"{shown(value)} are no permission bits; write them in quotes, such as '022'")


def address(value: object) -> tuple[str, int]:
    """Return host and port: "127.0.0.1:2022", "[::1]:2022"; port 0 is any that is free."""
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""
        if colon and host and port.isascii() and port.isdigit() and int(port) < 65536:
            return host, int(port)
    raise ValueError(
        f"{shown(value)} is no address with a port, such as '127.0.0.1:2022' or '[::]:22'"
    )


def network(value: object) -> Network:
    """Return a network: "192.0.2.0/24", "2001:db8::/32", or one address."""
    if isinstance(value, str):
        try:
            return ip_network(value)
        except ValueError as exc:
            if "host bits" in str(exc):
                near = ip_network(value, strict=False)
                raise ValueError(f"'{value}' has bits behind its prefix; write '{near}'") from None
    raise ValueError(f"{shown(value)} is no network, such as '192.0.2.0/24' or '2001:db8::1'")


def served_path(value: object) -> bytes:
    """Return a path in what is served, canonical: absolute, without "." and ".."."""
    if isinstance(value, str) and value.startswith("/") and "\0" not in value:
        names = value.strip("/").split("/")
        if value == "/":
            return b"/"
        if all(name not in ("", ".", "..") for name in names):
            return b"/" + os.fsencode("/".join(names))
    raise ValueError(f"{shown(value)} is no absolute path without '.' and '..', such as '/pub'")


def shown(value: object) -> str:
    """Return a value for a message: texts in quotes, as short as a line wants it."""
    text = repr(value) if isinstance(value, str) else str(value).lower()
    if isinstance(value, dict):
        text = "a table"
    elif isinstance(value, list):
        text = "an array"
    return text if len(text) <= 60 else f"{text[:57]}..."
