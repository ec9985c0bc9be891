"""The operations on what files hold: open, close, read, write, fsync."""

from __future__ import annotations

import errno
from contextlib import suppress
from functools import partial
from typing import Final

from ...native import sftp
from ...native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    FlushOp,
    OpenFlag,
    Setback,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Buffer, Cookie, Cred
from .attrcache import RACY, AttrCache
from .attributes import SIZE_MAX, vtype_of
from .errmap import StatusError
from .node import Node
from .openfile import OpenFile
from .pace import Pace
from .slot import ATTRS, HANDLE, STATUS, Slot
from .smallfile import Ahead
from .writeback import Birth

_MODE_TO_PFLAGS: Final = {
    FREAD: sftp.FXF_READ,
    FWRITE: sftp.FXF_WRITE,
    FREAD | FWRITE: sftp.FXF_READ | sftp.FXF_WRITE,
}


SPREAD_READ_MIN: Final = 4 * 1024 * 1024
"""Octets left to read from which on a file may go over several channels."""
SPREAD_WRITE_MIN: Final = 1024 * 1024
"""Octets written from which on it may: what hosts write at once, and then there is more."""


class AfterWriteSlot(Slot[sftp.Attrs]):
    """An FSTAT behind the last write before a close: nobody waits for it, the node learns."""

    __slots__ = ("_files", "_node", "_stamp")

    def __init__(self, files: FileOperations, node: Node, stamp: int) -> None:
        super().__init__(files.connection, ATTRS, shared=True)
        self._files = files
        self._node = node
        self._stamp = stamp

    def _wake(self) -> None:
        if not self.is_failed:
            self._files.written_back(self._node, self.result(), self._stamp)
        super()._wake()


def _is_alike(one: sftp.Attrs, other: sftp.Attrs) -> bool:
    """Tell whether two may be the attributes of one file."""
    return one.size == other.size and one.mtime == other.mtime


class FileOperations(AttrCache):
    """The part of the server that works on data."""

    # Open and close.

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """Get the SFTP handles that `mode` needs, and see whether the host's pages are still right.

        Wire: OPEN and LSTAT together, one round trip; LSTAT alone when another open has the
        handles already; nothing after create.
        """
        node = self.table.node(opc)
        if mode & FWRITE:
            self.require_writable()
        if node.vtype != Vtype.VREG:
            return 0, 0
        file = self.open_file(node)
        if file.writes.has_error and file not in self.writeback:
            error = file.writes.take_error()
            self.release_file(node, file)
            assert error is not None
            raise error  # what an earlier close did not tell
        if file.is_kept:
            if file.birth is not None:
                file.birth.mode = mode & (FREAD | FWRITE)
            file.keep_for(mode)
            file.count(mode, 1)
            return OpenFlag.IO_KEEP, 0
        if file.reader is None and not mode & FWRITE and self.prefetch.is_on:
            return await self._open_ahead(node, file, mode)
        missing = 0
        if mode & FREAD and file.reader is None:
            missing |= FREAD
        if mode & FWRITE and file.writer is None:
            missing |= FWRITE
        return await self._open_counted(node, file, mode, missing)

    async def _open_ahead(self, node: Node, file: OpenFile, mode: int) -> tuple[int, int]:
        """Open for reading by what was read ahead, else as always; have read ahead what follows."""
        prefetch = self.prefetch
        file.count(mode, 1)
        try:
            await self.ready(node)
            ahead = await prefetch.take(node)
            keep = None if ahead is None else self._take_ahead(node, file, ahead)
        finally:
            file.count(mode, -1)
        prefetch.opened(is_hit=keep is not None)
        if keep is None:
            missing = 0 if file.reader is not None else FREAD
            return await self._open_counted(node, file, mode, missing)
        file.count(mode, 1)
        return OpenFlag.IO_KEEP if keep else 0, 0

    def _take_ahead(self, node: Node, file: OpenFile, ahead: Ahead) -> bool | None:
        """Take in a file that was read ahead; return whether the host's pages of it are right,
        None where the server has to be asked all the same."""
        attrs = ahead.attrs
        if attrs is None or vtype_of(attrs) != node.vtype:
            return None
        self.update(node, attrs, ahead.stamp, ahead.asked)
        keep = self._are_pages_right(node, file, self.clock() - ahead.asked)
        if ahead.data is not None:
            file.hold(ahead.data, ahead.asked)
        elif not keep:
            return None
        return keep

    async def _open_counted(
        self, node: Node, file: OpenFile, mode: int, missing: int
    ) -> tuple[int, int]:
        # Counted before the wait, so that a close meanwhile does not take the handles away.
        file.count(mode, 1)
        try:
            keep = await self._open(node, file, missing)
        except BaseException:
            file.count(mode, -1)
            self.release_file(node, file)
            raise
        return OpenFlag.IO_KEEP if keep else 0, 0

    async def _open(self, node: Node, file: OpenFile, missing: int) -> bool:
        """Get handles; return whether the host's pages of the node are right."""
        connection = self.connection
        await self.ready(node)
        table = self.table
        stamp = table.changes
        if node.is_gone:
            if missing or file.handle is None:
                raise VfsError(errno.ESTALE, "the last name of the node is gone")
            attrs = await connection.submit(ATTRS, sftp.fstat, file.handle)
        else:
            if self.timeouts.open and not missing & FWRITE and self._is_checked(node):
                return True  # a read that the host's pages do not answer gets its handle then
            attrs = await self._open_by_path(node, file, missing)
        self.take_attrs(node, attrs, stamp)
        return self._are_pages_right(node, file)

    async def _open_by_path(self, node: Node, file: OpenFile, missing: int) -> sftp.Attrs:
        """Get the handles that are missing; return the attributes of what the path leads to.

        Errors: ESTALE when others have put another file there since this one was opened, for all
        opens of a node share its handles. The node has lost its name then: who has it open reads on
        in the file that he has opened, and the host's kernel looks the name up once more.
        """
        connection = self.connection
        path = self.table.path(node)
        held = file.handle
        opened: Slot[bytes] | None = None
        kept: Slot[sftp.Attrs] | None = None
        with connection.batch:
            if missing:
                opened = connection.submit(HANDLE, sftp.open_, path, _MODE_TO_PFLAGS[missing])
            if held is not None:
                with suppress(VfsError):  # lost for good, when the connection was
                    kept = connection.submit(ATTRS, sftp.fstat, held)
            looked = connection.submit(ATTRS, sftp.lstat, path)
        try:
            await looked.wait()
            if opened is not None:
                await opened
            attrs = await looked
            if held is not None and await self._is_replaced(file, held, kept, attrs, path):
                self._displace(node)
                raise VfsError(errno.ESTALE, "another file has this name now")
        except BaseException as exc:
            if opened is not None:
                opened.abandon()
            if isinstance(exc, StatusError):
                if exc.errno == errno.ENOENT:
                    self.lose(node)
                raise self.refiner.opened(exc) from None
            raise
        if opened is not None:
            file.adopt(await opened, missing)
        return attrs

    def _displace(self, node: Node) -> None:
        """Take its name from a node, for another file has it."""
        directory = node.parent
        if directory is not None:
            self.flusher.request(FlushOp.INVAL_NAMECACHE_NODE, node.cookie)
            self.lose(node)
            self.doubt(directory)

    async def _is_replaced(
        self,
        file: OpenFile,
        held: bytes,
        kept: Slot[sftp.Attrs] | None,
        attrs: sftp.Attrs,
        path: bytes,
    ) -> bool:
        """Tell whether a path leads to another file than the one whose handle we hold, by length
        and time. A change between the two questions is ruled out by asking once more."""
        if kept is None:
            return True
        try:
            if _is_alike(await kept, attrs):
                return False
        except StatusError:
            return False  # nobody knows
        connection = self.connection
        async with file.writes.still():
            if file.handle is not held:
                return False  # closed, or opened again, meanwhile
            with connection.batch:
                kept = connection.submit(ATTRS, sftp.fstat, held)
                looked = connection.submit(ATTRS, sftp.lstat, path)
            await looked.wait()
            return not _is_alike(await kept, await looked)

    def _is_checked(self, node: Node) -> bool:
        """Tell whether the host has right pages of a node by attributes young enough for an open
        that asks nobody."""
        known = node.known_data
        va = node.va
        return (
            known is not None
            and node.expiry != 0
            and self.clock() - node.checked_at <= self.timeouts.open
            and known[:2] == (va.size, va.mtime)
            and known[1] + RACY <= known[2]
        )

    def _are_pages_right(self, node: Node, file: OpenFile, age: int = 0) -> bool:
        """Compare with what was there when the host's pages were right, and note the present,
        which is `age` ns old.

        A file that had changed less than RACY before that moment may have changed once more in
        the same second, which is all that version 3 shows: its pages are not trusted.
        """
        if node.is_modified or not file.writes.is_idle:
            return True  # open for writing by us: the host's pages are newer than the server's
        known = node.known_data
        size, mtime = node.va.size or 0, node.va.mtime or 0
        node.known_data = (size, mtime, self.wall() - age)
        if known is None or known[:2] != (size, mtime) or mtime + RACY > known[2]:
            file.drop_blocks()  # of the pages' age, from another open's read-ahead
            return False
        return True

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """Count an open less; with the last one the SFTP handles are closed, nobody waits."""
        node = self.table.nodes.get(opc)
        if node is not None and node.file is not None:
            node.file.count(fflag, -1)
            self.release_file(node, node.file)

    def release_file(self, node: Node, file: OpenFile) -> None:
        """See `AttrCache`."""
        if file.release() and not file.is_open and node.file is file:
            node.file = None

    async def inactive(self, opc: Cookie) -> int:
        """Close what is open; hear whether the node has a name left."""
        node = self.table.nodes.get(opc)
        if node is None:
            return 0
        file = node.file
        if file is not None:
            file.readers = file.writers = 0
            self.release_file(node, file)
        return Setback.NOREF_N1 if node.is_gone else 0

    async def _handle(self, node: Node, mode: int) -> bytes:
        """Return the SFTP handle for FREAD or FWRITE, opened now where the host has not opened
        the node for it: pages may be read and written back at other times.

        A file that was opened by what was read ahead, or by pages that were right, is opened here,
        and what others have put at its path since is read then, beside pages of what was there.
        Without inode numbers that looks like a file that they have written over or to its end,
        which close-to-open allows; to refuse it would end `tail -f`. The next open of the path
        sees that length or time have changed, and drops the pages.
        """
        file = self.open_file(node)
        if file.birth is not None:
            await file.birth.wait()
        handle = file.reader if mode == FREAD else file.writer
        if handle is None:
            await self.ready(node)
            if node.is_gone:
                error = file.writes.take_error()
                if error is not None:
                    raise error
                raise VfsError(errno.ESTALE, "the last name of the node is gone")
            handle = await self.connection.submit(
                HANDLE, sftp.open_, self.table.path(node), _MODE_TO_PFLAGS[mode]
            )
            file = self.open_file(node)
            file.adopt(handle, mode)
            handle = file.reader if mode == FREAD else file.writer
            assert handle is not None
        return handle

    # Data.

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

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Wait until the server has all writes (FSYNC_CLOSE), and its disk, too (FSYNC_WAIT).

        The latter by fsync@openssh.com; a server without it has done what it can when it has
        acknowledged. A directory is synced by a handle made for that.
        Errors: that of an earlier write, told once.
        """
        node = self.table.node(opc)
        file = node.file
        if not flags & (FSYNC_CLOSE | FSYNC_WAIT):
            return  # everything is on its way already
        if node.vtype == Vtype.VDIR:
            if flags & FSYNC_WAIT and self.session.fsync:
                await self._sync_by_path(node)
            return
        if file is not None and file.birth is not None:
            if self.writeback.is_on and not flags & FSYNC_WAIT:
                return
            await file.birth.wait()
        if file is not None:
            if file.handle is not None and self.channels.is_spread(file.handle):
                await file.writes.drain()  # what asks behind one session's writes sees no other's
            if flags & FSYNC_CLOSE and node.is_modified and file.handle is not None:
                slot = AfterWriteSlot(self, node, self.table.changes)
                with suppress(VfsError):
                    # Asked for convenience: a close does not fail when only this does.
                    self.connection.submit_slot(slot, sftp.fstat, file.handle)
            writes = file.writes
            if not writes.is_idle:
                if self.writeback.is_on and not flags & FSYNC_WAIT:
                    self.writeback.add(node, file)
                    await self.writeback.room()
                else:
                    await writes.drain()
            error = writes.take_error()
            if error is not None:
                raise await self.refiner.written(error, self.any_path(node), 1)
        if flags & FSYNC_WAIT and node.vtype == Vtype.VREG and self.session.fsync:
            await self._sync_file(node)

    async def _sync_file(self, node: Node) -> None:
        """Have the server sync a file: all of it, whoever wrote it and when."""
        file = node.file
        handle = file.handle if file is not None else None
        if file is not None and handle is not None:
            file.is_unsynced = False
            try:
                await self.connection.submit(STATUS, sftp.fsync, handle)
            except BaseException:
                file.is_unsynced = True
                raise
        else:
            await self._sync_by_path(node)

    async def _sync_by_path(self, node: Node) -> None:
        """Sync what is not open, by a handle made for it."""
        await self.ready(node)
        try:
            handle = await self.connection.submit(
                HANDLE, sftp.open_, self.table.path(node), sftp.FXF_READ
            )
        except StatusError:
            if node.vtype == Vtype.VDIR:
                return  # there are servers whose directories cannot be opened
            raise
        try:
            await self.connection.submit(STATUS, sftp.fsync, handle)
        except StatusError as exc:
            # EINVAL: file systems that know no sync of a directory.
            if exc.code != sftp.FX_BAD_MESSAGE or node.vtype != Vtype.VDIR:
                raise
        finally:
            self.connection.close_handle(handle)

    def written_back(self, node: Node, attrs: sftp.Attrs, stamp: int) -> None:
        """Take in attributes that were asked for behind the last write of a file."""
        file = node.file
        if file is not None and not file.writes.is_idle:
            return  # a server that works on several requests at once has not done them all
        if attrs.size == node.va.size:
            self.update(node, attrs, stamp, self.clock(), is_after_close=True)
