"""Paths of nodes, learnt from the operations that went by: for people, rules and reports.

Best effort by nature: who came late knows no names, and nobody tells when a name is changed
below. No decision about rights may stand on it (layers/guard keeps books of its own for that).
"""

from __future__ import annotations

from typing import Any, Final

from ..native.fuse_protocol import RENAME_EXCHANGE
from ..native.records import Newinfo
from .operations import GIVING, Operation

_DEPTH_MAX: Final = 2048
"""No path has more components than half of PATH_MAX; what seems to is a loop."""

_RENAMING: Final = frozenset({"rename", "rename_with"})
_NAMING: Final = GIVING | {"link", "remove", "rmdir", "abortop"}


class Paths:
    """The last name by which each known node was found. Forgets what the kernel above forgets."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._names: dict[int, tuple[int, bytes]] = {}
        self._held: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def path(self, cookie: int) -> bytes:
        """Return the path of a node from the root, "/" first; "#12/name" where that is unknown."""
        parts: list[bytes] = []
        while cookie != self._root and len(parts) < _DEPTH_MAX:
            found = self._names.get(cookie)
            if found is None:
                parts.append(b"#%d" % cookie)
                return b"/".join(reversed(parts))
            cookie, name = found
            parts.append(name)
        return b"/" + b"/".join(reversed(parts))

    def below(self, cookie: int, name: bytes) -> bytes:
        """Return the path of a name in a directory."""
        directory = self.path(cookie)
        return directory + name if directory == b"/" else directory + b"/" + name

    def of(self, operation: Operation, args: tuple[Any, ...]) -> bytes:
        """Return what an operation is about, before its answer was learnt; empty: no node."""
        name = operation.name
        if name in _NAMING:
            return self.below(args[0], args[-1 if name in ("link", "remove", "rmdir") else 1].name)
        if name in _RENAMING:
            return self.below(args[0], args[2].name)
        if operation.parameters and operation.parameters[0][0] == "opc" and name != "extattrctl":
            return self.path(args[0])
        return b""

    def learn(self, operation: Operation, args: tuple[Any, ...], result: Any) -> None:
        """Hear that an operation has succeeded."""
        name = operation.name
        if name in GIVING:
            self._found(args[0], args[1].name, result)
        elif name == "readdir":
            for entry in result[0]:
                if entry.newinfo is not None:
                    self._found(args[0], entry.name, entry.newinfo)
        elif name == "reclaim":
            self._forget(args[0], args[1])
        elif name in _RENAMING:
            self._names[args[1]] = (args[3], args[5].name)
            if name == "rename_with" and args[6] & RENAME_EXCHANGE and args[4] is not None:
                self._names[args[4]] = (args[0], args[2].name)
        elif name == "link":
            self._names[args[1]] = (args[0], args[2].name)
        elif name == "fhtonode":
            self._held[result.cookie] = self._held.get(result.cookie, 0) + 1

    def _found(self, directory: int, name: bytes, info: Newinfo) -> None:
        cookie = info.cookie
        if not cookie or cookie == self._root:
            return
        self._held[cookie] = self._held.get(cookie, 0) + 1
        if name not in (b".", b".."):
            self._names[cookie] = (directory, name)

    def _forget(self, cookie: int, nlookup: int) -> None:
        held = self._held.get(cookie, 0) - nlookup
        if held > 0:
            self._held[cookie] = held
        else:
            self._held.pop(cookie, None)
            self._names.pop(cookie, None)
