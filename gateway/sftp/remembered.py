"""What names of late led to, for as long as the file server says that they hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from .nodes import Node, NodeTable

DIRECTORIES_MAX: Final = 256
"""Directories whose paths are remembered."""
NAMES_MAX: Final = 4096
"""Names that are remembered; more than these and all are forgotten."""
FOREVER: Final = 2**63


class Remembered:
    """Names that were looked up with the credentials of those who share this.

    There are two kinds of memory. Whole paths of directories: canonical ones, which begin with a
    slash, have no empty, "." or ".." component, and no link among them; the empty path is the
    root's. The directory is pinned. And names in directories, which lead to nodes of any type;
    those are not pinned, and forgotten with their nodes. `clock` gives monotonic ns.

    Whoever puts something in has asked before the file server changed anything there
    (`Export.changes`); whoever changes a name has it forgotten.
    """

    def __init__(self, nodes: NodeTable, root: Node, clock: Callable[[], int]) -> None:
        self._nodes = nodes
        self._root = root
        self._directories: OrderedDict[bytes, tuple[Node, int]] = OrderedDict()
        self._names: dict[tuple[Node, bytes], tuple[Node, int]] = {}
        self.clock = clock

    def __len__(self) -> int:
        return len(self._directories)

    def directory(self, path: bytes) -> tuple[Node, int] | None:
        """Return the directory at a path and until when its name holds, if that is known."""
        if not path:
            return self._root, FOREVER
        known = self._directories.get(path)
        if known is None:
            return None
        if known[1] <= self.clock():
            self._forget(path)
            return None
        self._directories.move_to_end(path)
        return known

    def put_directory(
        self, path: bytes, node: Node, parent: Node, name: bytes, expiry: int
    ) -> None:
        """Note that `path` leads to a directory, which is `name` in `parent`."""
        if expiry <= self.clock() or node is parent or node.is_root:
            return
        self._nodes.put(node, parent, name)
        self._nodes.pin(node)
        if path in self._directories:
            self._forget(path)
        self._directories[path] = node, expiry
        if len(self._directories) > DIRECTORIES_MAX:
            self._forget(next(iter(self._directories)))

    def name(self, parent: Node, name: bytes) -> Node | None:
        """Return the node behind a name, if that is known. It may be kept only: pin it."""
        known = self._names.get((parent, name))
        if known is None:
            return None
        node, expiry = known
        if node.held and expiry > self.clock():
            return node
        del self._names[parent, name]
        return None

    def put_name(self, parent: Node, name: bytes, node: Node, ttl: int) -> None:
        """Note that a name leads to a node, for `ttl` ns."""
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
        self._names[parent, name] = node, self.clock() + ttl

    def forget_name(self, parent: Node, name: bytes) -> None:
        """Forget what a name leads to."""
        self._names.pop((parent, name), None)

    def forget_directory(self, node: Node) -> None:
        """Forget a directory that was removed; nothing was below it."""
        for path in [path for path, known in self._directories.items() if known[0] is node]:
            self._forget(path)

    def clear(self) -> None:
        """Forget everything."""
        self._names.clear()
        for path in list(self._directories):
            self._forget(path)

    def _forget(self, path: bytes) -> None:
        node, _ = self._directories.pop(path)
        self._nodes.unpin(node)
