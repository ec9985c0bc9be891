"""Which directories others have moved or removed: the host tells by inotify.

A name that leads to a directory may be remembered above for as long as the directory is watched,
and whoever remembers asks before he believes (`FileServer.names_hold`): what the host has told by
then is what other programs of this machine have done by then. Mounts are not told, nor what others
do to the same tree by way of a network; hence the time-out (TTL).
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from . import libc
from .node import Node

WATCHES_MAX: Final = 4096
"""How many directories are watched; a user may have 8192 or more in all."""
TTL: Final = 10**9
"""How long the name of a watched directory may be remembered, ns."""

_EVENT: Final = struct.Struct("=iIII")
_OVERFLOW: Final = -1
"""The "watch" of an event that says that others were lost."""


class Watches:
    """The watched directories of one tree. Nothing is watched until somebody asks for news."""

    def __init__(self) -> None:
        self._fd = -1
        self._is_asked = False
        self._poll: Callable[[int], list[tuple[int, int]]] = lambda _: []
        self._watches: dict[Node, int] = {}
        self._nodes: dict[int, Node] = {}

    def __len__(self) -> int:
        return len(self._watches)

    def is_watched(self, node: Node) -> bool:
        """Tell whether news of a directory will be told."""
        return node in self._watches

    def may_watch(self) -> bool:
        """Tell whether there is somebody to tell news to, and room for another watch."""
        return self._fd >= 0 and len(self._watches) < WATCHES_MAX

    def watch(self, node: Node, path: bytes) -> None:
        """Watch a directory, if the host lets us: else it is not remembered, and that is all."""
        try:
            watch = libc.inotify_add_watch(self._fd, path)
        except OSError:
            return
        if watch in self._nodes:
            return  # a node of before, which is the same directory
        self._watches[node] = watch
        self._nodes[watch] = node

    def forget(self, node: Node) -> None:
        """Stop watching a directory that nobody knows any more."""
        watch = self._watches.pop(node, None)
        if watch is not None:
            del self._nodes[watch]
            with suppress(OSError):  # the host has dropped it already: the directory is gone
                libc.inotify_rm_watch(self._fd, watch)

    def hold(self) -> bool:
        """Return whether no watched directory was moved, removed or changed since the last call.

        The first call is the one from which on directories are watched.
        """
        if self._poll(0):
            return self._read()
        if not self._is_asked:
            self._begin()
        return True

    def _begin(self) -> None:
        self._is_asked = True
        try:
            self._fd = libc.inotify_init()
        except OSError:
            return  # too many of this user's: nothing is remembered
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        self._poll = poll.poll

    def _read(self) -> bool:
        """Read what there is; directories that had to do with it are looked for anew."""
        holds = True
        octets = os.read(self._fd, 64 * 1024)
        at = 0
        while at < len(octets):
            watch, mask, _, length = _EVENT.unpack_from(octets, at)
            at += _EVENT.size + length
            if mask & libc.IN_IGNORED:
                # The end of a watch: what ended it was told before, or it was us.
                ended = self._nodes.pop(watch, None)
                if ended is not None:
                    del self._watches[ended]
                continue
            if mask & libc.IN_DELETE and not mask & libc.IN_ISDIR:
                continue  # a file's name is never remembered
            holds = False
            if watch == _OVERFLOW:
                for node in self._watches:
                    node.checked = 0
            elif watch in self._nodes:
                self._nodes[watch].checked = 0
        return holds

    def close(self) -> None:
        """End all watches."""
        self._watches.clear()
        self._nodes.clear()
        self._poll = lambda _: []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
