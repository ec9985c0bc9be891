"""Directories opened before it is known that somebody reads them.

Who looks a name up that leads to a directory most often goes on into it, and reads it, or asks for
a name in it, which one listing answers together with all others. So OPENDIR goes along with the
question what the name is: one small request more, for which the listing takes one round trip less.
It is made on links where a round trip costs more than a request, and for names that may be
directories, as far as is known. What nobody has taken within AGE is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ..wire.connection import Connection
from ..wire.slot import HANDLE, Slot

if TYPE_CHECKING:
    from ..tree.node import DirectoryNode
    from ..tree.nodetable import NodeTable

AGE: Final = 10**9
"""How long a directory stays open for somebody who may come, ns..."""
AGE_TRIPS: Final = 4
"""...at least, and so many round trips."""
OPEN_MAX: Final = 16
"""Directories that are open so at the same time."""


class _Opened(NamedTuple):
    """`stamp` and `moves` are the counts of changes when the request was made, at `asked`, and
    `losses` that of the connection."""

    slot: Slot[bytes]
    losses: int
    stamp: int
    moves: int
    asked: int


class OpenDirectories:
    """The directories of a mount that are open for nobody yet; closed by a task in `nursery`.

    Some servers read a directory when it is opened: what we have changed in it since is not in the
    listing then, and such a handle is not taken.
    """

    def __init__(
        self,
        connection: Connection,
        table: NodeTable,
        nursery: trio.Nursery,
        *,
        is_on: bool,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._connection = connection
        self._table = table
        self._nursery = nursery
        self._is_on = is_on
        self._clock = clock
        self._opened: dict[tuple[int, bytes], _Opened] = {}
        self._is_sweeping = False

    def __len__(self) -> int:
        return len(self._opened)

    @property
    def is_worth_it(self) -> bool:
        """Tell whether the link is so long that a request costs less than to wait once more."""
        connection = self._connection
        return self._is_on and connection.round_trip.is_far and not connection.is_busy

    def open(self, directory: DirectoryNode, name: bytes, path: bytes) -> None:
        """Open what `name` in `directory` leads to, unless that is known to be no directory."""
        key = directory.cookie, name
        if not self.is_worth_it or key in self._opened or len(self._opened) >= OPEN_MAX:
            return
        node = (directory.children or {}).get(name)
        entry = None if directory.listing is None else directory.listing.entries.get(name)
        for known in (node, entry):
            if known is not None and known.vtype not in (None, Vtype.VDIR):
                return
        table = self._table
        try:
            slot = self._connection.submit(HANDLE, sftp.opendir, path)
        except VfsError:
            return
        slot.shared = True
        losses = self._connection.losses
        self._opened[key] = _Opened(slot, losses, table.changes, table.moves, self._clock())
        if not self._is_sweeping:
            self._is_sweeping = True
            self._nursery.start_soon(self._sweep)

    def take(self, directory: DirectoryNode) -> Slot[bytes] | None:
        """Return the OPENDIR of a directory, which is the caller's now; None: there is none."""
        parent = directory.parent
        opened = None if parent is None else self._opened.pop((parent.cookie, directory.name), None)
        if opened is None:
            return None
        slot = opened.slot
        if (
            (slot.done and slot.is_failed)
            or opened.losses != self._connection.losses
            or directory.changed_at > opened.stamp
            or opened.moves != self._table.moves
            or self._is_old(opened)
        ):
            slot.abandon()
            return None
        slot.shared = False
        return slot

    def drop(self) -> None:
        """Close all of them."""
        for opened in self._opened.values():
            opened.slot.abandon()
        self._opened.clear()

    def _is_old(self, opened: _Opened) -> bool:
        trips = AGE_TRIPS * self._connection.round_trip.seconds
        return self._clock() - opened.asked > max(AGE, int(trips * 10**9))

    async def _sweep(self) -> None:
        try:
            while self._opened:
                await trio.sleep(AGE / 10**9)
                for key, opened in list(self._opened.items()):
                    if self._is_old(opened) or (opened.slot.done and opened.slot.is_failed):
                        del self._opened[key]
                        opened.slot.abandon()
        finally:
            self._is_sweeping = False
            self.drop()
