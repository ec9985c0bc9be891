"""A small file that is read ahead whole: OPEN; then FSTAT, READ and CLOSE together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ..tree.attributes import vtype_of
from ..wire.connection import Connection
from ..wire.slot import ATTRS, DATA, HANDLE, HeardSlot, Slot
from .scanning import Cursor

if TYPE_CHECKING:
    from ..tree.nodetable import NodeTable


class Ahead:
    """A file that is being read ahead, or was.

    `asked` is when its attributes were asked for, `stamp` and `moves` the counts of changes at
    that time. `data` stays None where it failed, where the file is not the one that was listed, and
    where only attributes were asked for (`is_check`): the host has the pages.
    """

    __slots__ = (
        "_clock",
        "_looked",
        "_lot",
        "_read",
        "asked",
        "attrs",
        "cursor",
        "data",
        "is_check",
        "is_done",
        "moves",
        "path",
        "size",
        "stamp",
    )

    def __init__(
        self,
        table: NodeTable,
        clock: Callable[[], int],
        cursor: Cursor,
        path: bytes,
        size: int,
        *,
        is_check: bool,
    ) -> None:
        self._clock = clock
        self.cursor = cursor
        self.path = path
        self.size = size
        self.is_check = is_check
        self.asked = clock()
        self.stamp = table.changes
        self.moves = table.moves
        self.attrs: sftp.Attrs | None = None
        self.data: bytes | None = None
        self.is_done = False
        self._looked: Slot[sftp.Attrs] | None = None
        self._read: Slot[Any] | None = None
        self._lot: trio.lowlevel.ParkingLot | None = None

    def start(self, connection: Connection) -> None:
        """Send the first request. Errors: those of a connection."""
        if self.is_check:
            slot = HeardSlot(connection, ATTRS, self._checked)
            connection.submit_slot(slot, sftp.lstat, self.path)
        else:
            opened = HeardSlot(connection, HANDLE, self._opened)
            connection.submit_slot(opened, sftp.open_, self.path, sftp.FXF_READ)

    def _checked(self, slot: Slot[sftp.Attrs]) -> None:
        if not slot.is_failed:
            self.attrs = slot.result()
        self._done()

    def _opened(self, slot: Slot[bytes]) -> None:
        if slot.is_failed:
            self._done()
            return
        handle = slot.result()
        connection = slot.connection
        self.asked = self._clock()
        self._looked = HeardSlot(connection, ATTRS, self._answered)
        self._read = HeardSlot(connection, DATA, self._answered)
        self._read.asked = self.size or 1
        try:
            with connection.batch:
                connection.submit_slot(self._looked, sftp.fstat, handle)
                connection.submit_slot(self._read, sftp.read, handle, 0, self._read.asked)
                connection.close_handle(handle)
        except VfsError:
            self._done()  # the connection has ended: this file is nobody's any more

    def _answered(self, _: Slot[Any]) -> None:
        looked, read = self._looked, self._read
        assert looked is not None
        assert read is not None
        if not (looked.done and read.done) or self.is_done:
            return
        if not looked.is_failed and not read.is_failed:
            self.attrs = looked.result()
            data = bytes(read.result() or b"")
            # Shorter or longer than what the server says: not all of it.
            if len(data) == self.attrs.size and vtype_of(self.attrs) == Vtype.VREG:
                self.data = data
        self._done()

    def _done(self) -> None:
        self.is_done = True
        self._looked = self._read = None
        if self._lot is not None:
            self._lot.unpark_all()

    async def wait(self) -> None:
        """Wait until all is answered, well or not."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        while not self.is_done:
            await self._lot.park()
