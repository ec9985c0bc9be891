"""One file server, offered to any number of SFTP sessions.

The export is to its sessions what a host's kernel is to its processes: it keeps the nodes, with
the count of lookups that each owes, and remembers which directories the paths of late led to.
What one session changes the others see at once, for they ask the same file server.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import Final

import trio

from ...layers.ops import FileServer
from ...native.constants import FlushOp, KFlag, Setback
from ...native.errors import VfsError
from ...native.records import Cookie, Cred
from .nodes import Node, NodeTable

_log = logging.getLogger(__name__)

DIRECTORIES_MAX: Final = 256
"""How many directories one kind of user has remembered."""
FOREVER: Final = 2**63

_LEAVE_SECONDS: Final = 5.0
"""How long a file server may take to hear that a node is not in use any more."""

_INACT_N1: Final = int(Setback.INACT_N1)
_NAMES: Final = frozenset(
    {FlushOp.INVAL_NAMECACHE_NODE, FlushOp.INVAL_NAMECACHE_DIR, FlushOp.INVAL_NAMECACHE_ALL}
    | {FlushOp.INVAL_NAMECACHE_NAME}
)


class Directories:
    """Paths without links in them that led to directories, for as long as their names hold.

    A path is canonical: it begins with a slash, has no empty, "." or ".." component, and each
    component was looked up and is a directory. The empty path is the root's. Each is searched
    once with the credentials that all who share this have.
    """

    def __init__(self, nodes: NodeTable, root: Node, clock: Callable[[], int]) -> None:
        self._nodes = nodes
        self._root = root
        self._clock = clock
        self._found: OrderedDict[bytes, tuple[Node, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, path: bytes) -> tuple[Node, int] | None:
        """Return the directory at a path and until when its name holds, if that is known."""
        if not path:
            return self._root, FOREVER
        known = self._found.get(path)
        if known is None:
            return None
        if known[1] <= self._clock():
            self._forget(path)
            return None
        self._found.move_to_end(path)
        return known

    def put(self, path: bytes, node: Node, parent: Node, name: bytes, expiry: int) -> None:
        """Note that `path` leads to a directory, which is `name` in `parent`."""
        if expiry <= self._clock() or node is parent or node is self._nodes.root:
            return
        self._nodes.put(node, parent, name)
        self._nodes.pin(node)
        if path in self._found:
            self._forget(path)
        self._found[path] = node, expiry
        if len(self._found) > DIRECTORIES_MAX:
            self._forget(next(iter(self._found)))

    def forget_node(self, node: Node) -> None:
        """Forget a directory that was removed; nothing was below it."""
        for path in [path for path, (known, _) in self._found.items() if known is node]:
            self._forget(path)

    def clear(self) -> None:
        """Forget everything."""
        for path in list(self._found):
            self._forget(path)

    def _forget(self, path: bytes) -> None:
        node, _ = self._found.pop(path)
        self._nodes.unpin(node)


class Export:
    """A served file server. Made by `exported`; is its `Upcalls`.

    `clock` gives monotonic ns. `unmount_asked` is set when the file server wants to end: sessions
    go on until their clients leave, and who owns the export decides.
    """

    def __init__(self, server: FileServer, clock: Callable[[], int] = monotonic_ns) -> None:
        kargs = server.kargs
        self.server = server
        self.nodes = NodeTable(server, kargs.root)
        self.unmount_asked = trio.Event()
        self._clock = clock
        self._inactive_on_demand = bool(kargs.kflags & KFlag.IAONDEMAND)
        self._directories: dict[tuple[Cred, Node], Directories] = {}

    def directories(self, cred: Cred, root: Node) -> Directories:
        """Return what is remembered for those who ask as `cred` below `root` (pinned by them)."""
        known = self._directories.get((cred, root))
        if known is None:
            known = Directories(self.nodes, root, self._clock)
            self._directories[cred, root] = known
        return known

    def now(self) -> int:
        """Return the time by which names expire, ns."""
        return self._clock()

    # What changes names.

    def directory_removed(self, node: Node) -> None:
        """Note that a directory was removed."""
        for known in self._directories.values():
            known.forget_node(node)
        self.nodes.displace(node)
        self.nodes.gone(node)

    def directories_changed(self) -> None:
        """Note that a directory was renamed, or that others may search it now."""
        for known in self._directories.values():
            known.clear()

    # Upcalls.

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """See Upcalls. No data and no attributes are kept here; names of directories are."""
        if op in _NAMES:
            self.directories_changed()

    def unmount(self) -> None:
        """See Upcalls."""
        self.unmount_asked.set()

    # Opening.

    async def begin(self, node: Node, mode: int, cred: Cred) -> None:
        """Open a pinned node at the file server and count it; `end` takes it back."""
        node.opens += 1  # before the wait: an end meanwhile must not see the last user go
        try:
            _, setback = await self.server.open(node.cookie, mode, cred)
        except BaseException:
            node.opens -= 1
            raise
        if setback & _INACT_N1:
            node.wants_inactive = True

    async def end(self, node: Node, mode: int, cred: Cred) -> None:
        """End one open. It has ended whatever happens, cancellation included."""
        self.server.close(node.cookie, mode, cred)
        node.opens -= 1
        if node.opens or not (node.wants_inactive or not self._inactive_on_demand):
            return
        node.wants_inactive = False
        with trio.move_on_after(_LEAVE_SECONDS, shield=True):
            try:
                await self.server.inactive(node.cookie)
            except VfsError as exc:
                _log.warning("the file server could not let go of a node: %s", exc)

    def close(self) -> None:
        """Give back all nodes. Sessions have ended."""
        self.directories_changed()
        self.nodes.close()


@asynccontextmanager
async def exported(
    server: FileServer, clock: Callable[[], int] = monotonic_ns
) -> AsyncIterator[Export]:
    """Offer `server` to sessions while the context lasts; it stays the caller's, who unmounts it.

    Sessions must have ended before the context does.
    """
    export = Export(server, clock)
    server.attach(export)
    try:
        yield export
    finally:
        export.close()
