"""Lines of authorized_keys files: public keys, and what their options say (sshd(8)).

What an option takes away must be taken away. So a line with an option that is not known here, or
that cannot be obeyed, counts for nothing, and says why. Options about shells, terminals and
forwarding change nothing: there is none of that here.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import translate
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

KEY_TYPES: Final = {
    "ssh-ed25519": 2,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "ssh-rsa": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""The types that count, and of how many strings their keys are made."""
RSA_BITS_MIN: Final = 2048
LINE_MAX: Final = 16384
"""Longest line, characters; the longest key, RSA with 16384 bits, has 2800."""

Address = IPv4Address | IPv6Address

_IDLE: Final = frozenset(
    (
        *("restrict", "agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding"),
        *("no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc"),
        "no-x11-forwarding",
    )
)
"""Without a value, and without effect."""
_IDLE_VALUES: Final = frozenset(("environment", "permitlisten", "permitopen", "tunnel"))
"""With a value, and without effect."""
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(,|[ \t]+|$)')
_TIME = re.compile(r"(\d{8})(\d{4})?(\d{2})?(Z?)")
_ADDRESS_PATTERN = re.compile(r"[0-9A-Fa-f:.*?]+")


class BadLine(Exception):
    """A line does not count; the text says why, and has nothing secret."""


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key of an authorized_keys file, and under which conditions it counts.

    `blob`: the key as it is on the wire. `expires`: seconds since the epoch. `start`: directory
    in which sessions begin, None for any. `principals`: of certificates, None for the account's.
    """

    blob: bytes
    type: str
    comment: str = ""
    sources: str | None = None
    expires: float | None = None
    is_authority: bool = False
    principals: tuple[str, ...] | None = None
    is_read_only: bool = False
    start: bytes | None = None
    needs_touch: bool = True

    def refusal(self, source: Address, now: float) -> str:
        """Return why the key does not count for a client there and then, or nothing."""
        if self.expires is not None and now >= self.expires:
            return "it has expired"
        if self.sources is not None and not matches(self.sources, source):
            return f"it does not count for clients at {source}"
        return ""


def parse_line(line: str) -> KeyLine | None:
    """Read a line; None for one without a key, empty or a comment. Errors: `BadLine`."""
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    if len(line) > LINE_MAX:
        raise BadLine("the line is too long")
    options: dict[str, str | None] = {}
    if line.split(None, 1)[0] not in KEY_TYPES:
        options, line = _split_options(line)
    words = line.split(None, 2)
    if len(words) < 2 or words[0] not in KEY_TYPES:
        raise BadLine(f"no key of a known type ({', '.join(KEY_TYPES)})")
    blob = _decode_key(words[0], words[1])
    comment = words[2] if len(words) > 2 else ""
    return _apply(options, KeyLine(blob, words[0], comment))


def _split_options(line: str) -> tuple[dict[str, str | None], str]:
    options: dict[str, str | None] = {}
    at = 0
    while True:
        match = _OPTION.match(line, at)
        if match is None:
            raise BadLine("no key of a known type, and no options that can be read")
        name = match[1].lower()
        if name in options and name not in _IDLE | _IDLE_VALUES:
            raise BadLine(f"option {name} is there more than once")
        options[name] = None if match[2] is None else match[2].replace('\\"', '"')
        at = match.end()
        if match[3] != ",":
            return options, line[at:]


def _decode_key(type_: str, text: str) -> bytes:
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadLine("the key is not in base64") from None
    check_key(type_.encode(), blob)
    return blob


def check_key(type_: bytes, blob: bytes) -> None:
    """Check that a key is of a type and of a size that counts. Errors: `BadLine`."""
    parts = split_strings(blob)
    count = KEY_TYPES.get(type_.decode("ascii", "replace"))
    if count is None:
        raise BadLine("keys of its type do not count")
    if len(parts) != count or parts[0] != type_:
        raise BadLine("the key is damaged, or of another type than the line says")
    if type_ == b"ssh-rsa":
        bits = int.from_bytes(parts[2], "big").bit_length()
        if bits < RSA_BITS_MIN:
            raise BadLine(f"an RSA key of {bits} bits; {RSA_BITS_MIN} are needed")


def split_strings(data: bytes) -> list[bytes]:
    """Split octets that are SSH strings, one after the other (RFC 4251, section 5)."""
    parts = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise BadLine("the key is damaged")
        parts.append(data[at + 4 : end])
        at = end
    return parts


def _apply(options: dict[str, str | None], line: KeyLine) -> KeyLine:
    """Return the line with what its options say."""
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if name in _IDLE and value is None:
            continue
        if name in _IDLE_VALUES and value is not None:
            continue
        match name, value:
            case "from", str():
                changes["sources"] = check_sources(value)
            case "expiry-time", str():
                changes["expires"] = _parse_time(value)
            case "command", str():
                changes["is_read_only"], changes["start"] = parse_command(value)
            case "cert-authority", None:
                changes["is_authority"] = True
            case "principals", str():
                changes["principals"] = tuple(filter(None, value.split(",")))
            case "no-touch-required", None:
                changes["needs_touch"] = False
            case _:
                raise BadLine(f"option {name} is not known here, or cannot be obeyed")
    if "principals" in changes and "is_authority" not in changes:
        raise BadLine("option principals is for authorities only")
    return replace(line, **changes)


def check_sources(text: str) -> str:
    """Check a pattern list of addresses, and return it. Errors: `BadLine`.

    Names of hosts never match: nobody is asked for the name of an address here, since whoever
    owns the address decides on the answer. To leave out clients by name is refused, for it would
    leave out nobody.
    """
    for pattern in text.split(","):
        bare = pattern.removeprefix("!")
        if "/" in bare:
            try:
                ip_network(bare)
            except ValueError as exc:
                raise BadLine(f"from: {exc}") from None
        elif not bare or (bare != pattern and not _ADDRESS_PATTERN.fullmatch(bare)):
            raise BadLine(f"from: {pattern!r} cannot be obeyed: it is no pattern of addresses")
    return text


def matches(patterns: str, source: Address) -> bool:
    """Tell whether an address is in a checked pattern list; what is negated stands above."""
    found = False
    for pattern in patterns.split(","):
        bare = pattern.removeprefix("!")
        if _matches_one(bare, source):
            if bare != pattern:
                return False
            found = True
    return found


def _matches_one(pattern: str, source: Address) -> bool:
    if "/" in pattern:
        return source in ip_network(pattern)
    try:
        return ip_address(pattern) == source
    except ValueError:
        # Brackets are no wildcards in sshd's patterns.
        return re.match(translate(pattern.lower().replace("[", "[[]")), str(source)) is not None


def _parse_time(text: str) -> float:
    """Return seconds since the epoch: YYYYMMDD[HHMM[SS]], local time unless Z is behind it."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise BadLine(f"expiry-time: {text!r} is no time; write YYYYMMDDHHMM")
    digits = match[1] + (match[2] or "0000") + (match[3] or "00")
    try:
        moment = datetime.strptime(digits, "%Y%m%d%H%M%S")
        if match[4]:
            return moment.replace(tzinfo=UTC).timestamp()
        return time.mktime(moment.timetuple())
    except (ValueError, OverflowError):
        raise BadLine(f"expiry-time: there is no {text!r}") from None


def parse_command(text: str) -> tuple[bool, bytes | None]:
    """Read a forced command: whether it is read-only, and where it begins. Errors: `BadLine`.

    internal-sftp, as sshd has it, with -R and -d DIR. What it logs (-e, -f, -l) is our
    own business; what would change what the client may do (-p, -P, -u) cannot be obeyed.
    """
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise BadLine(f"command: {exc}") from None
    if not words or words.pop(0) != "internal-sftp":
        raise BadLine("its command is another than internal-sftp, and nothing else is run here")
    is_read_only = False
    start: bytes | None = None
    while words:
        word = words.pop(0)
        if word == "-R":
            is_read_only = True
        elif word == "-d" and words:
            start = words.pop(0).encode("utf-8", "surrogateescape")
            if b"%" in start or b"\0" in start:
                raise BadLine("command: internal-sftp -d with % cannot be obeyed")
        elif word in ("-f", "-l") and words:
            words.pop(0)
        elif word != "-e":
            raise BadLine(f"command: internal-sftp {word} cannot be obeyed; -R and -d DIR can")
    return is_read_only, start
