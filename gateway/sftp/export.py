"""One file server, offered to any number of SFTP sessions.

The export is to its sessions what a host's kernel is to its processes: it keeps the nodes, with
the count of lookups that each owes, and remembers which directories the paths of late led to.
What one session changes the others see at once, for they ask the same file server.
"""

from __future__ import annotations

import logging
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
from .remembered import Remembered

_log = logging.getLogger(__name__)

_INACT_N1: Final = int(Setback.INACT_N1)
_NAMES: Final = frozenset(
    {FlushOp.INVAL_NAMECACHE_NODE, FlushOp.INVAL_NAMECACHE_DIR, FlushOp.INVAL_NAMECACHE_ALL}
    | {FlushOp.INVAL_NAMECACHE_NAME}
)


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
        self._remembered: dict[tuple[Cred, Node], Remembered] = {}
        self.changes = 0
        """How often names were changed. What was asked before a change is not remembered after."""

    def remembered(self, cred: Cred, root: Node) -> Remembered:
        """Return what is remembered for those who ask as `cred` below `root` (pinned by them)."""
        known = self._remembered.get((cred, root))
        if known is None:
            known = Remembered(self.nodes, root, self._clock)
            self._remembered[cred, root] = known
        return known

    # What changes names. Called when the file server has answered, or when it is unknown what it
    # has done.

    def name_changed(self, parent: Node, name: bytes) -> None:
        """Note that a name of a directory leads elsewhere, or nowhere."""
        self.changes += 1
        for known in self._remembered.values():
            known.forget_name(parent, name)

    def directory_removed(self, node: Node) -> None:
        """Note that a directory was removed, besides its name."""
        for known in self._remembered.values():
            known.forget_directory(node)
        self.nodes.displace(node)
        self.nodes.gone(node)

    def names_changed(self) -> None:
        """Note that a directory was renamed, or that others may search it now."""
        self.changes += 1
        for known in self._remembered.values():
            known.clear()

    # Upcalls.

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """See Upcalls. No data and no attributes are kept here; names of directories are."""
        if op in _NAMES:
            self.names_changed()

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
        try:
            await self.server.inactive(node.cookie)
        except VfsError as exc:
            _log.warning("the file server could not let go of a node: %s", exc)

    def close(self) -> None:
        """Give back all nodes. Sessions have ended."""
        self.names_changed()
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
