"""The operations on what files hold: read and write."""

from __future__ import annotations

import errno
from functools import partial
from typing import Final

from ....native import sftp
from ....native.constants import FREAD, FSYNC_WAIT, FWRITE, IO_APPEND, IO_SYNC
from ....native.errors import VfsError
from ....native.records import Buffer, Cookie, Cred
from ..data.openfile import OpenFile
from ..data.writeback import Birth
from ..tree.attributes import SIZE_MAX
from ..tree.node import Node
from ..wire.errmap import StatusError
from ..wire.pace import Pace
from ..wire.slot import ATTRS
from .openclose import OpenOperations
from .syncing import SyncOperations

SPREAD_READ_MIN: Final = 4 * 1024 * 1024
"""Octets left to read from which on a file may go over several channels."""
SPREAD_WRITE_MIN: Final = 1024 * 1024
"""Octets written from which on it may: what hosts write at once, and then there is more."""


class FileOperations(OpenOperations, SyncOperations):
    """The part of the server that works on data."""

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Serve from what was read ahead, else by READs in parallel; see `readahead.py`."""
        node = self.regular(opc)
        file = node.file
        if file is not None and file.whole is not None:
            if self.clock() - file.whole_asked <= self.readahead.age_max or node.is_gone:
                if file.seen_end is None:
                    file.note_end(0, file.whole)
                return file.whole[offset : offset + resid]
            file.drop_blocks()
        handle = file.reader if file is not None else None
        if handle is None:
            handle = await self._handle(node, FREAD)
            file = node.file
        assert file is not None
        if resid <= 0:
            return b""
        if offset < file.writes.end:
            await file.writes.settle(offset, offset + resid)
        is_sure = self.clock() < node.expiry or node.is_modified
        data = await self.readahead.read(
            file.streams, handle, offset, resid, node.va.size or 0, is_size_sure=is_sure
        )
        rest = (node.va.size or 0) - offset
        if rest <= len(data):
            file.note_end(offset, data)
        elif rest > SPREAD_READ_MIN and file.streams:
            if self.channels.is_wanted(handle, self.readahead.pace):
                self._spread(node, file, handle, self.readahead.pace)
        return data

    def _spread(self, node: Node, file: OpenFile, handle: bytes, pace: Pace) -> None:
        """Have the data of a file go over several channels."""
        if handle not in (file.reader, file.writer):
            return  # closed meanwhile
        pflags = sftp.FXF_READ if handle == file.reader else 0
        pflags |= sftp.FXF_WRITE if handle == file.writer else 0
        self.channels.spread(handle, pflags, partial(self._path_now, node), file.writes, pace)

    def _path_now(self, node: Node) -> bytes | None:
        """Return the path of a node, None when it has none or one that is being changed."""
        if node.is_gone or self.gate.is_closed(node):
            return None
        return self.table.path(node)

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Send and return; acknowledgements are awaited by fsync. See `writebehind.py`."""
        node = self.regular(opc)
        self.require_writable()
        file = node.file
        if file is not None and file.is_followed:
            # The times that were set are for what was written before.
            if file.birth is not None:
                await file.birth.wait()
            await file.writes.drain()
        if file is not None and file.birth is not None:
            if not ioflag & IO_SYNC and self._keep(node, file, file.birth, offset, data, ioflag):
                return
            await file.birth.wait()
        handle = file.writer if file is not None else None
        if handle is None:
            handle = await self._handle(node, FWRITE)
            file = node.file
        assert file is not None
        if not data:
            return
        if ioflag & IO_APPEND:
            file.is_appended = True
            async with file.append_lock:
                offset = await self._end(node, file, handle)
                await self._write(node, file, handle, offset, data)
        else:
            await self._write(node, file, handle, offset, data)
        if ioflag & IO_SYNC:
            await self.fsync(opc, FSYNC_WAIT, 0, 0, cred)

    def _keep(
        self, node: Node, file: OpenFile, birth: Birth, offset: int, data: Buffer, ioflag: int
    ) -> bool:
        """Keep what is written to a file that is being made; False where there is no room."""
        if not self.writeback.takes(birth, len(data)):
            return False
        if ioflag & IO_APPEND:
            offset = node.va.size or 0
        end = offset + len(data)
        if end > SIZE_MAX:
            raise VfsError(errno.EFBIG)
        self.writeback.keep(birth, offset, bytes(data))
        self.table.changed(node)
        node.is_modified = True
        file.is_unsynced = True
        if end > (node.va.size or 0):
            node.va = node.va._replace(size=end)
        return True

    async def _write(
        self, node: Node, file: OpenFile, handle: bytes, offset: int, data: Buffer
    ) -> None:
        end = offset + len(data)
        if end > SIZE_MAX:
            raise VfsError(errno.EFBIG)
        if file.streams or file.whole is not None:
            file.drop_blocks()
        self.table.changed(node)
        node.is_modified = True
        node.expiry = 0
        file.is_unsynced = True
        if file.writes.is_idle and not file.writes.has_error and not file.writing:
            file.floor = node.va.size or 0
        # Raised before the wait, for those who ask meanwhile; a failure leaves it to the server.
        if end > (node.va.size or 0):
            node.va = node.va._replace(size=end)
        file.writing += 1
        try:
            await file.writes.write(handle, offset, data, self.session.max_write)
        except StatusError as exc:
            raise await self.refiner.written(exc, self.any_path(node), len(data)) from None
        finally:
            file.writing -= 1
            # Answers that came while we waited do not know of all of it.
            self.table.changed(node)
            node.is_modified = True
            node.expiry = 0
        pace = file.writes.pace
        if end > SPREAD_WRITE_MIN and self.channels.is_wanted(handle, pace):
            self._spread(node, file, handle, pace)

    async def _end(self, node: Node, file: OpenFile, handle: bytes) -> int:
        """Return where the file ends now, by asking the server: others may have written."""
        await file.writes.drain()
        attrs = await self.connection.submit(ATTRS, sftp.fstat, handle)
        if attrs.size is None:
            return node.va.size or 0
        return attrs.size
