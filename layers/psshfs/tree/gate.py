"""The gate before requests by path: closed for names that are being changed.

SFTP opens by path, but a kernel opens the file that it has looked up. While a
rename of ours is under way nobody can tell which file a path leads to, and a
request that passed it would take one file for another. So requests by path wait
until no name on their path is being changed by us. (What others change, only
the next look can tell.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from .node import DirectoryNode, Node


class Gate:
    """Counts changes under way, by directory and name."""

    __slots__ = ("_parked", "busy")

    def __init__(self) -> None:
        self.busy: dict[tuple[int, bytes], int] = {}
        self._parked = trio.lowlevel.ParkingLot()

    def is_closed(self, node: Node, name: bytes | None = None) -> bool:
        """Tell whether the path of `node`, or of `name` in it, is being changed."""
        busy = self.busy
        if not busy:
            return False  # as a rule, and the path need not be walked
        if name is not None and (node.cookie, name) in busy:
            return True
        parent = node.parent
        while parent is not None:
            if (parent.cookie, node.name) in busy:
                return True
            node, parent = parent, parent.parent
        return False

    def is_changing(self, directory: DirectoryNode, name: bytes) -> bool:
        """Tell whether a name itself is being changed, whatever happens to its path."""
        return (directory.cookie, name) in self.busy

    async def wait(self, node: Node, name: bytes | None = None) -> None:
        """Wait until the path is not being changed; return at once when it is not now."""
        while self.is_closed(node, name):
            await self._parked.park()

    @contextmanager
    def closed(self, *names: tuple[DirectoryNode, bytes]) -> Iterator[None]:
        """Hold back all others from the paths through `names` (directory and name)."""
        busy = self.busy
        keys = [(directory.cookie, name) for directory, name in names]
        for key in keys:
            busy[key] = busy.get(key, 0) + 1
        try:
            yield
        finally:
            for key in keys:
                busy[key] -= 1
                if not busy[key]:
                    del busy[key]
            self._parked.unpark_all()
