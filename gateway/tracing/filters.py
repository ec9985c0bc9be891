"""Which events of a trace somebody wants to see."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from ...layers.operations import BY_NAME
from ...layers.trace import Event

_T = TypeVar("_T")


@dataclass(frozen=True)
class Filter:
    """Wishes that all have to be met; None and an empty set: no wish.

    `path` is a pattern of the shell over the whole path, in which `*` matches `/` as well.
    `failed` without `errnos` means any failure. `slower` is ns.
    """

    names: frozenset[str] = frozenset()
    path: str | None = None
    failed: bool = False
    errnos: frozenset[int] = frozenset()
    slower: int = 0
    pid: int | None = None
    layer: int | None = None

    def matches(self, event: Event) -> bool:
        """Return whether an event meets all wishes."""
        if self.names and event.name not in self.names:
            return False
        if self.failed and not event.outcome:
            return False
        if self.errnos and event.outcome not in self.errnos:
            return False
        if event.duration < self.slower:
            return False
        if self.layer is not None and event.layer != self.layer:
            return False
        if self.pid is not None:
            cred = event.operation.cred(event.args)
            if cred is None or cred.pid != self.pid:
                return False
        return self.path is None or fnmatchcase(
            event.path.decode("utf-8", "surrogateescape"), self.path
        )


def operations(text: str) -> frozenset[str]:
    """Return the operations of a list with commas. Errors: ValueError."""
    return frozenset(_each(text, _operation))


def errnos(text: str) -> frozenset[int]:
    """Return the error numbers of a list with commas, of names as ENOENT. Errors: ValueError."""
    return frozenset(_each(text, errno_called))


def _each(text: str, convert: Callable[[str], _T]) -> list[_T]:
    return [convert(word.strip()) for word in text.split(",")]


def _operation(name: str) -> str:
    if name not in BY_NAME:
        raise ValueError(f"there is no operation '{name}' (there are {', '.join(BY_NAME)})")
    return name


def errno_called(name: str) -> int:
    """Return the number of an error called as in errno(3). Errors: ValueError."""
    number = getattr(errno, name.upper(), None) if name.upper().startswith("E") else None
    if not isinstance(number, int):
        raise ValueError(f"'{name}' is no error, such as ENOENT")
    return number
