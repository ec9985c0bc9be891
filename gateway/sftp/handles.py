"""Open files and directories of one session, and the strings by which its client names them."""

from __future__ import annotations

import os
from errno import EMFILE
from typing import Final

from ...native.constants import FAPPEND, IO_APPEND
from ...native.errors import VfsError
from .nodes import Node
from .turns import Opened

HANDLES_MAX: Final = 1024
"""Handles that one session may have, unless its options say otherwise."""


class OpenFile(Opened):
    """An open file, or a directory that was opened as one. `node` is pinned by it.

    `path` is where it was found, canonical: for logs, and for COPY-DATA.
    """

    __slots__ = ("ioflag", "mode", "octets_read", "octets_written", "path")

    def __init__(self, node: Node, mode: int, path: bytes) -> None:
        super().__init__(node)
        self.mode = mode
        self.path = path
        self.appends = bool(mode & FAPPEND)
        self.ioflag = IO_APPEND if self.appends else 0
        self.octets_read = 0
        self.octets_written = 0


class OpenDirectory(Opened):
    """An open directory, read from its beginning to its end. `node` and `parent` are pinned by it.

    `parent` is what ".." shows: the root's is the root.
    """

    __slots__ = ("is_at_end", "mode", "offset", "parent", "path")

    def __init__(self, node: Node, mode: int, path: bytes, parent: Node) -> None:
        super().__init__(node)
        self.mode = mode
        self.path = path
        self.parent = parent
        self.offset = 0
        """Where the next READDIR goes on, in the file server's words."""
        self.is_at_end = False


class Handles:
    """The handles of one session.

    A handle is the session's secret and a number that is never used twice: what another session
    was given, or this one has closed, names nothing.
    """

    def __init__(self, limit: int = HANDLES_MAX) -> None:
        self.limit = limit
        self._secret = os.urandom(8)
        self._serial = 0
        self._opened: dict[bytes, Opened] = {}
        self._promised = 0

    def __len__(self) -> int:
        return len(self._opened)

    def get(self, handle: bytes) -> Opened | None:
        """Return what a handle names, None for an unknown one."""
        return self._opened.get(handle)

    def promise(self) -> None:
        """Set a handle aside for an open that has begun: `add` or `renounce` must follow.

        Errors: EMFILE when there are as many as allowed.
        """
        if len(self._opened) + self._promised >= self.limit:
            raise VfsError(EMFILE)
        self._promised += 1

    def renounce(self) -> None:
        """Take a promise back."""
        self._promised -= 1

    def add(self, opened: Opened) -> bytes:
        """Return the handle of what was opened; it was promised."""
        self._promised -= 1
        self._serial += 1
        handle = self._secret + self._serial.to_bytes(4, "big")
        self._opened[handle] = opened
        return handle

    def take(self, handle: bytes) -> Opened | None:
        """Take a handle out of the table and return what it named."""
        return self._opened.pop(handle, None)

    def put_back(self, handle: bytes, opened: Opened) -> None:
        """Undo `take`: what was to be closed is still open."""
        self._opened[handle] = opened

    def take_all(self) -> list[Opened]:
        """Take all handles out of the table."""
        opened = list(self._opened.values())
        self._opened = {}
        return opened
