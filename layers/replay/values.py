"""What an operation came to, as a value that means the same for all file servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ...native.constants import Vtype
from ...native.records import Newinfo, Vattr
from ..trace import Event
from ..trace.format import digest, length

_MAKING: Final = frozenset({"lookup", "create", "mknod", "mkdir", "symlink", "fhtonode"})
_WITH_ATTRIBUTES: Final = frozenset({"getattr", "setattr", "link"})


class Names(NamedTuple):
    """Names of a directory. What a trace has is a part, unless `is_whole`."""

    names: frozenset[bytes]
    is_whole: bool


class Seen(NamedTuple):
    """What an operation came to: an errno, or 0 and a value; None where nothing is compared."""

    errno: int
    value: Any = None


Maybe: TypeAlias = Seen | None
"""None: it was left out."""


class Difference(NamedTuple):
    """Where two runs part: at which event. `kind` is errno, data, names, attributes or type."""

    at: int
    event: Event
    kind: str
    expected: Seen
    seen: Seen


def value_of(name: str, result: Any) -> Any:
    """Return what is to be compared of the result of operation `name`."""
    if name in _MAKING:
        return _of_newinfo(result)
    if name in _WITH_ATTRIBUTES:
        return _of_vattr(result[0])
    if name == "read":
        return result if isinstance(result, int | bytes | tuple) else bytes(result)
    if name == "readdir":
        entries, is_end = result
        return Names(frozenset(entry.name for entry in entries), is_end)
    return result if name in ("readlink", "getextattr") else None


def recorded(event: Event) -> Maybe:
    """Return what an operation of a trace came to; None without an answer."""
    if event.outcome < 0:
        return None
    if event.outcome:
        return Seen(event.outcome)
    value = value_of(event.name, event.result)
    if event.name == "readdir":
        value = value._replace(is_whole=value.is_whole and event.args[1] == 0)
    return Seen(0, value)


def _of_newinfo(info: Newinfo) -> tuple[int | None, ...]:
    if not info.cookie:
        return (None, None, None)
    if info.va is None:
        return (info.vtype, None, None)
    return _of_vattr(info.va)


def _of_vattr(va: Vattr) -> tuple[int | None, ...]:
    is_file = va.vtype == Vtype.VREG
    return (va.vtype, None if va.vtype == Vtype.VLNK else va.mode, va.size if is_file else None)


def compared(
    events: Sequence[Event], expected: Sequence[Maybe], seen: Sequence[Maybe]
) -> Iterator[Difference]:
    """Yield where what was seen is not what was expected, in the order of `events`."""
    for index, (event, one, other) in enumerate(zip(events, expected, seen, strict=True)):
        if one is None or other is None:
            continue
        kind = _kind(one, other)
        if kind:
            yield Difference(index, event, kind, one, other)


def _kind(one: Seen, other: Seen) -> str:
    """Say in what two results differ; empty: in nothing."""
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
