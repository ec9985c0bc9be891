"""Outcomes: what an operation came to, as a value that means the same for all file servers.

Compared is what any two file systems have in common: errors, types, permission bits, sizes and
contents of files, targets of links, names. Numbers of files, times, counts of links and free space
are not. File data are all there, or there is their length, or length and digest.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias

from ..native.constants import Vtype
from ..native.records import Buffer, Newinfo, Vattr
from .operations import GIVING

Data: TypeAlias = int | bytes | tuple[int, bytes]
"""File data: its length; all of it; or length and BLAKE2b of 8 octets."""

_DIGEST_SIZE: Final = 8
_OF_NODES: Final = GIVING | {"fhtonode"}
_WITH_ATTRIBUTES: Final = frozenset({"getattr", "setattr", "link"})


def digest(data: Buffer) -> bytes:
    """Return the digest that stands for data."""
    return blake2b(data, digest_size=_DIGEST_SIZE).digest()


def length(data: Data) -> int:
    """Return how many octets there were."""
    if isinstance(data, int):
        return data
    return len(data) if isinstance(data, bytes) else data[0]


class Names(NamedTuple):
    """Names of a directory. What a trace has is a part, unless `is_whole`."""

    names: frozenset[bytes]
    is_whole: bool


class Seen(NamedTuple):
    """What an operation came to: an errno, or 0 and a value; None where nothing is compared."""

    errno: int
    value: Any = None


def value_of(name: str, result: Any) -> Any:
    """Return what is to be compared of the result of operation `name`."""
    if name in _OF_NODES:
        return _of_newinfo(result)
    if name in _WITH_ATTRIBUTES:
        return _of_vattr(result[0])
    if name == "read":
        return result if isinstance(result, int | bytes | tuple) else bytes(result)
    if name == "readdir":
        entries, is_end = result
        return Names(frozenset(entry.name for entry in entries), is_end)
    return result if name in ("readlink", "getextattr") else None


def _of_newinfo(info: Newinfo) -> tuple[int | None, ...]:
    if not info.cookie:
        return (None, None, None)
    if info.va is None:
        return (info.vtype, None, None)
    return _of_vattr(info.va)


def _of_vattr(va: Vattr) -> tuple[int | None, ...]:
    is_file = va.vtype == Vtype.VREG
    return (va.vtype, None if va.vtype == Vtype.VLNK else va.mode, va.size if is_file else None)


def difference(one: Seen, other: Seen) -> str:
    """Say in what two differ: errno, data, names, attributes or type; empty: in nothing."""
    if one.errno != other.errno:
        return "errno"
    a, b = one.value, other.value
    if a is None or b is None:
        return ""
    if isinstance(a, Names):
        return "" if _same_names(a, b) else "names"
    if isinstance(a, tuple) and len(a) == 3:
        if a[0] != b[0]:
            return "type"
        return (
            ""
            if all(x == y or None in (x, y) for x, y in zip(a, b, strict=True))
            else ("attributes")
        )
    return "" if _same_data(a, b) else "data"


def _same_names(part: Names, other: Names) -> bool:
    if part.is_whole and other.is_whole:
        return part.names == other.names
    return part.names <= other.names if other.is_whole else other.names <= part.names


def _same_data(a: Any, b: Any) -> bool:
    if isinstance(a, bytes) and isinstance(b, bytes):
        return a == b
    if length(a) != length(b):
        return False
    if isinstance(a, int) or isinstance(b, int):
        return True
    return _digested(a) == _digested(b)


def _digested(data: Any) -> bytes:
    return digest(data) if isinstance(data, bytes) else data[1]
