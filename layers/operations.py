"""The operations of a FileServer as values: for who treats all of them alike.

A number never changes its meaning, for it stands in files (layers/trace): new operations are
added at the end. Types are those that ops.py declares.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

from ..native.records import Componentname, Cookie, Cred
from .ops import FileServer

_NAMES: Final = (
    "statvfs statvfs_at sync unmount fhtonode nodetofh extattrctl "
    "lookup create mknod mkdir symlink open close access getattr setattr read write fsync seek "
    "mmap poll remove link rename rmdir readdir readlink abortop inactive reclaim print pathconf "
    "advlock getextattr setextattr listextattr deleteextattr fallocate fdiscard "
    "seek_data copy_file_range rename_with"
).split()

CHANGING: Final = frozenset(
    "create mknod mkdir symlink setattr write remove link rename rmdir setextattr deleteextattr "
    "extattrctl fallocate fdiscard copy_file_range rename_with".split()
)
"""Operations after which a file system is another one."""

GIVING: Final = frozenset({"lookup", "create", "mknod", "mkdir", "symlink"})
"""Operations that give a node and count as a lookup of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation. `parameters` are (name, type) in order, without `self`.

    `waits` is False for those that are fire-and-forget. `cred_at` says which argument holds who
    asks, -1 for none; with `by_name` that is a componentname.
    """

    number: int
    name: str
    parameters: tuple[tuple[str, Any], ...]
    result: Any
    waits: bool
    cred_at: int
    by_name: bool

    def cred(self, args: tuple[Any, ...]) -> Cred | None:
        """Return who asks."""
        if self.cred_at < 0:
            return None
        who: Cred = args[self.cred_at].cred if self.by_name else args[self.cred_at]
        return who

    def cookies(self, args: tuple[Any, ...]) -> list[int]:
        """Return the cookies that are named in the arguments."""
        return [
            value
            for (_, kind), value in zip(self.parameters, args, strict=True)
            if kind in (Cookie, Cookie | None) and value is not None
        ]


def _operation(number: int, name: str) -> Operation:
    method = getattr(FileServer, name)
    hints = get_type_hints(method)
    result = hints.pop("return")
    kinds = list(hints.values())
    at = kinds.index(Cred) if Cred in kinds else -1
    by_name = at < 0 and Componentname in kinds
    if by_name:
        at = kinds.index(Componentname)
    waits = inspect.iscoroutinefunction(method)
    return Operation(number, name, tuple(hints.items()), result, waits, at, by_name)


OPERATIONS: Final = tuple(_operation(number, name) for number, name in enumerate(_NAMES))
"""All of them, by their numbers."""

BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}
