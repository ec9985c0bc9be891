"""Files that close() has promised and the server does not have yet (`-o writeback=yes`).

A new file costs two round trips, OPEN and WRITE, and a program that makes thousands waits for
nothing else. With this option create() and close() return early: OPEN goes out, what is written
meanwhile is kept here, follows when the server's handle is there, and CLOSE follows that. So do
permissions, times and owners, which tar(1) and cp(1) set of each file, behind the last write. The
queue is bounded by files and by octets; who would exceed it waits. What goes wrong is told to the
next who uses the file, who syncs, or who unmounts, and is logged with the file's name.

The price, which is why nobody has it by default: a program hears of a full disk after close(),
and a name that another host has made since the directory was listed is found out too late for
O_EXCL to mean anything between hosts.
"""

from __future__ import annotations

import errno
import logging
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from ....native import sftp
from ....native.errors import VfsError
from ..wire.connection import Connection
from ..wire.slot import ATTRS, HANDLE, STATUS, HeardSlot, Slot

if TYPE_CHECKING:
    from ..mount.parts import Parts
    from ..tree.node import Node
    from .openfile import OpenFile

_log = logging.getLogger(__name__)

FILES_MAX: Final = 256
"""Files that the server does not have yet."""
OCTETS_MAX: Final = 32 * 1024 * 1024
"""Octets of files whose OPEN is not answered."""
FILE_MAX: Final = 1024 * 1024
"""Octets of one such file; who writes more waits for the OPEN."""


class Birth(Slot[bytes]):
    """The OPEN that makes a file, and what is to be done when it is answered.

    `mode` is for what the host has the file open. The name stays behind the gate until then.
    `attrs` are to be set when all that was written is on the server.
    """

    __slots__ = (
        "_owner",
        "attrs",
        "file",
        "mode",
        "node",
        "octets",
        "pieces",
        "shut",
        "wanted_mode",
    )

    def __init__(
        self,
        owner: WriteBack,
        connection: Connection,
        node: Node,
        file: OpenFile,
        mode: int,
        wanted_mode: int | None,
    ) -> None:
        super().__init__(connection, HANDLE, shared=True)
        self._owner = owner
        self.node = node
        self.file = file
        self.mode = mode
        self.wanted_mode = wanted_mode
        self.attrs = sftp.NO_ATTRS
        self.pieces: list[tuple[int, bytes]] = []
        self.octets = 0
        self.shut = ExitStack()

    def lacks(self, attrs: sftp.Attrs) -> sftp.Attrs:
        """Return what is still to be set of a file that has `attrs`; what the server does not tell
        is taken for set."""
        want = self.attrs
        mode = time = uid = gid = None
        if attrs.mode is not None:
            if want.mode is not None:
                mode = want.mode if (want.mode ^ attrs.mode) & 0o777 else None
            elif (self.wanted_mode or 0) & 0o777 & ~attrs.mode:
                mode = ((self.wanted_mode or 0) | attrs.mode) & 0o7777
        if want.mtime is not None and attrs.mtime is not None:
            time = want.mtime if want.mtime != attrs.mtime else None
        if want.uid is not None and (attrs.uid, attrs.gid) not in (
            (want.uid, want.gid),
            (None, None),
        ):
            uid, gid = want.uid, want.gid
        return sftp.Attrs(
            uid=uid, gid=gid, mode=mode, atime=None if time is None else want.atime, mtime=time
        )

    def _wake(self) -> None:
        self._owner.born(self)
        super()._wake()


class WriteBack:
    """The queue of one mount.

    A node in it is held as if the kernel above had looked it up once more.
    """

    def __init__(self, server: Parts, *, is_on: bool, files_max: int) -> None:
        self._server = server
        self.is_on = is_on
        self._files_max = max(1, min(FILES_MAX, files_max))
        self._files: dict[OpenFile, Node] = {}
        self._looking: set[OpenFile] = set()
        self._parked = trio.lowlevel.ParkingLot()
        self._error: VfsError | None = None
        self._owner: tuple[int | None, int | None] = None, None
        self.octets = 0
        """Octets of files whose OPEN is not answered."""

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, file: OpenFile) -> bool:
        return file in self._files

    async def room(self) -> None:
        """Wait until the queue takes one more file; return at once when it does now."""
        while len(self._files) >= self._files_max or self.octets >= OCTETS_MAX:
            await self._parked.park()

    async def drain(self) -> None:
        """Wait until the queue is empty; errors stay where they are."""
        while self._files:
            await self._parked.park()

    def take_error(self) -> VfsError | None:
        """Return the first error that nobody who used the file has heard of; it is told then."""
        error, self._error = self._error, None
        return error

    def add(self, node: Node, file: OpenFile) -> None:
        """Take a file in, or note that it is in: it stays until all its writes are answered."""
        if file not in self._files:
            node.nlookup += 1
            self._files[file] = node
            file.writes.on_idle = lambda: self._idle(file)

    def keep(self, birth: Birth, offset: int, data: bytes) -> None:
        """Keep what is written before the OPEN is answered."""
        birth.pieces.append((offset, data))
        birth.octets += len(data)
        self.octets += len(data)

    def may_set_later(self, attrs: sftp.Attrs) -> bool:
        """Tell whether it is sure that these may be set of a file that is being made: permissions
        and times always; as owner, whom the last new file had, or anybody, if that was root.

        Set-id bits are not: a server that sets the owner last takes them away.
        """
        if attrs.size is not None or (attrs.mode or 0) & 0o7000:
            return False
        owner = attrs.uid, attrs.gid
        return owner in ((None, None), self._owner) or self._owner[0] == 0

    def set_later(self, birth: Birth, attrs: sftp.Attrs) -> None:
        """Have permissions and times of a file set when it is on the server."""
        birth.attrs = sftp.Attrs(
            *(old if new is None else new for old, new in zip(birth.attrs, attrs, strict=True))
        )

    def takes(self, birth: Birth, octets: int) -> bool:
        """Tell whether so much more may be kept."""
        return birth.octets + octets <= FILE_MAX and self.octets + octets <= OCTETS_MAX

    def born(self, birth: Birth) -> None:
        """Go on with a file whose OPEN is answered."""
        file, node, server = birth.file, birth.node, self._server
        self.octets -= birth.octets
        file.birth = None
        birth.shut.close()
        if birth.is_failed:
            self._failed(birth)
        else:
            handle = birth.result()
            file.adopt(handle, birth.mode)
            writes = file.writes
            try:
                with server.connection.batch:
                    for offset, data in birth.pieces:
                        writes.push(handle, offset, data, server.session.max_write)
                    self._looking.add(file)
                    if birth.attrs == sftp.NO_ATTRS:
                        self._look_behind(birth, handle)
                    else:
                        writes.follow(lambda: self._set_behind(birth, handle))
            except VfsError as exc:
                self._looking.discard(file)
                writes.fail(exc)
        birth.pieces = []
        self._release(node, file)
        if file.writes.is_idle:
            self._idle(file)

    def _set_behind(self, birth: Birth, handle: bytes) -> None:
        """Set what a program has set of a new file before the server had it."""
        file = birth.file
        if file.writes.has_error:
            self._looking.discard(file)
            return
        try:
            with self._server.connection.batch:
                file.writes.push_attrs(handle, birth.attrs)
                self._look_behind(birth, handle)
        except VfsError as exc:
            self._looking.discard(file)
            file.writes.fail(exc)

    def _look_behind(self, birth: Birth, handle: bytes) -> None:
        """Ask what has become of a new file. It gets the permissions that were asked for where the
        server's umask took some; the queue has it until then."""
        server, node, file = self._server, birth.node, birth.file
        connection = server.connection
        stamp = server.table.changes

        def done(slot: Slot[Any]) -> None:
            self._looking.discard(file)
            if slot.is_failed and birth.attrs != sftp.NO_ATTRS:
                try:
                    slot.result()
                except VfsError as exc:
                    file.writes.fail(exc)
            if file.writes.is_idle:
                self._idle(file)

        def looked(slot: Slot[sftp.Attrs]) -> None:
            if not slot.is_failed:
                attrs = slot.result()
                if birth.attrs.uid is None:
                    self._owner = attrs.uid, attrs.gid
                lacks = birth.lacks(attrs)
                if lacks == sftp.NO_ATTRS:
                    server.written_back(node, attrs, stamp)
                elif not node.is_gone:
                    setting = HeardSlot(connection, STATUS, done)
                    with suppress(VfsError):
                        path = server.table.path(node)
                        connection.submit_slot(setting, sftp.setstat, path, lacks)
                        return
            done(slot)

        connection.submit_slot(HeardSlot(connection, ATTRS, looked), sftp.fstat, handle)

    def _release(self, node: Node, file: OpenFile) -> None:
        if not file.is_kept:  # else the open that follows the creation has yet to come
            self._server.release_file(node, file)

    def _failed(self, birth: Birth) -> None:
        try:
            birth.result()
        except VfsError as exc:
            # Version 3 has FAILURE for a name that is there, and for much else.
            number = errno.EEXIST if getattr(exc, "is_vague", False) else exc.errno
            error = VfsError(number, exc.detail)
        birth.file.writes.fail(error)
        directory = birth.node.parent
        self._server.lose(birth.node)
        if directory is not None:
            self._server.doubt(directory)

    def _idle(self, file: OpenFile) -> None:
        """Let a file go whose writes are all answered."""
        if file.birth is not None or file in self._looking or not file.writes.is_idle:
            return
        node = self._files.pop(file, None)
        if node is None:
            return
        file.writes.on_idle = None
        if file.writes.has_error and not file.is_open:
            error = file.writes.error
            assert error is not None
            _log.error("%r was not saved: %s", node.name, error)
            self._error = self._error or error
        self._release(node, file)
        self._server.table.forget(node.cookie, 1)
        self._parked.unpark_all()
