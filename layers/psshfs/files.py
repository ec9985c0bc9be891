"""The operations on what files hold, and on attributes."""

from __future__ import annotations

import errno
import logging
from typing import Final

from ...native import sftp
from ...native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    OpenFlag,
    Setback,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import VATTR_NULL, Buffer, Cookie, Cred, Vattr
from .attrcache import RACY, AttrCache
from .connection import ATTRS, HANDLE, STATUS, Connection, Slot
from .errmap import StatusError
from .node import Node
from .openfile import OpenFile
from .refine import Refiner

_log = logging.getLogger(__name__)

SIZE_MAX: Final = (1 << 63) - 1
_MODE_TO_PFLAGS: Final = {
    FREAD: sftp.FXF_READ,
    FWRITE: sftp.FXF_WRITE,
    FREAD | FWRITE: sftp.FXF_READ | sftp.FXF_WRITE,
}


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


class FileOperations(AttrCache):
    """The half of the server that works on single nodes."""

    connection: Connection
    refiner: Refiner

    def regular(self, opc: Cookie) -> Node:
        """Return the node of a regular file. Errors: ESTALE; EISDIR; EINVAL for other types."""
        node = self.table.node(opc)
        if node.vtype != Vtype.VREG:
            raise VfsError(errno.EISDIR if node.vtype == Vtype.VDIR else errno.EINVAL)
        return node

    # Open and close.

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """Get the SFTP handles that `mode` needs, and see whether the host's pages are still right.

        Wire: OPEN and LSTAT together, one round trip; LSTAT alone when another open has the
        handles already; nothing after create.
        """
        node = self.table.node(opc)
        if mode & FWRITE and self.options.ro:
            raise VfsError(errno.EROFS)
        if node.vtype != Vtype.VREG:
            return 0, 0
        file = self.open_file(node)
        if file.is_kept:
            file.is_kept = False
            if not file.is_open and self.clock() < node.name_expiry:
                file.count(mode, 1)
                return OpenFlag.IO_KEEP, Setback.INACT_N1
        missing = 0
        if mode & FREAD and file.reader is None:
            missing |= FREAD
        if mode & FWRITE and file.writer is None:
            missing |= FWRITE
        # Counted before the wait, so that a close meanwhile does not take the handles away.
        file.count(mode, 1)
        try:
            keep = await self._open(node, file, missing)
        except BaseException:
            file.count(mode, -1)
            self._release(node, file)
            raise
        return OpenFlag.IO_KEEP if keep else 0, Setback.INACT_N1

    async def _open(self, node: Node, file: OpenFile, missing: int) -> bool:
        """Get handles; return whether the host's pages of the node are right."""
        connection = self.connection
        if connection.is_congested:
            await connection.room()
        table = self.table
        stamp = table.changes
        if node.is_gone:
            if missing or file.handle is None:
                raise VfsError(errno.ESTALE, "the last name of the node is gone")
            attrs = await connection.submit(ATTRS, sftp.fstat, file.handle)
        else:
            path = table.path(node)
            if missing:
                with connection.batch:
                    opened = connection.submit(
                        HANDLE, sftp.open_, path, _MODE_TO_PFLAGS[missing]
                    )
                    looked = connection.submit(ATTRS, sftp.lstat, path)
                try:
                    handle = await opened
                except StatusError as exc:
                    looked.abandon()
                    if exc.errno == errno.ENOENT:
                        self.lose(node)
                    raise
                try:
                    attrs = await looked
                except BaseException:
                    connection.close_handle(handle)
                    raise
                file.adopt(handle, missing)
            else:
                attrs = await connection.submit(ATTRS, sftp.lstat, path)
        self.take_attrs(node, attrs, stamp)
        return self._are_pages_right(node, file)

    def _are_pages_right(self, node: Node, file: OpenFile) -> bool:
        """Compare with what was there when the host's pages were right, and note the present.

        A file that had changed less than RACY before that moment may have changed once more in
        the same second, which is all that version 3 shows: its pages are not trusted.
        """
        if node.is_modified or not file.writes.is_idle:
            return True  # open for writing by us: the host's pages are newer than the server's
        known = node.known_data
        size, mtime = node.va.size or 0, node.va.mtime or 0
        node.known_data = (size, mtime, self.wall())
        return (
            known is not None and known[0] == size and known[1] == mtime
            and mtime + RACY <= known[2]
        )

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """Count an open less; with the last one the SFTP handles are closed, nobody waits."""
        node = self.table.nodes.get(opc)
        if node is not None and node.file is not None:
            node.file.count(fflag, -1)
            self._release(node, node.file)

    def _release(self, node: Node, file: OpenFile) -> None:
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
            self._release(node, file)
        return Setback.NOREF_N1 if node.is_gone else 0

    async def _handle(self, node: Node, mode: int) -> bytes:
        """Return the SFTP handle for FREAD or FWRITE, opened now where the host has not opened
        the node for it: pages may be read and written back at other times."""
        file = self.open_file(node)
        handle = file.reader if mode == FREAD else file.writer
        if handle is None:
            if node.is_gone:
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
        return data

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Send and return; acknowledgements are awaited by fsync. See `writebehind.py`."""
        node = self.regular(opc)
        if self.options.ro:
            raise VfsError(errno.EROFS)
        file = node.file
        handle = file.writer if file is not None else None
        if handle is None:
            handle = await self._handle(node, FWRITE)
            file = node.file
        assert file is not None
        length = len(data)
        if not length:
            return
        if ioflag & IO_APPEND:
            offset = await self._end(node, file, handle)
        if offset + length > SIZE_MAX:
            raise VfsError(errno.EFBIG)
        end = offset + length
        if file.streams:
            file.drop_blocks()
        self.table.changed(node)
        node.is_modified = True
        node.expiry = 0
        file.is_unsynced = True
        try:
            await file.writes.write(handle, offset, data, self.session.max_write)
        except StatusError as exc:
            raise await self.refiner.written(exc, self._any_path(node), length) from None
        finally:
            # Answers that came while we waited do not know of all of it.
            self.table.changed(node)
        if end > (node.va.size or 0):
            node.va = node.va._replace(size=end, bytes=(end + 511) & ~511)
        if ioflag & IO_SYNC:
            await self.fsync(opc, FSYNC_WAIT, 0, 0, cred)

    async def _end(self, node: Node, file: OpenFile, handle: bytes) -> int:
        """Return where the file ends now, by asking the server: others may have written."""
        await file.writes.drain()
        attrs = await self.connection.submit(ATTRS, sftp.fstat, handle)
        if attrs.size is None:
            return node.va.size or 0
        return attrs.size

    def _any_path(self, node: Node) -> bytes:
        """Return a path on the file system of `node`."""
        return self.table.path(self.table.root if node.is_gone else node)

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
                await self._sync_directory(node)
            return
        if file is None:
            return
        if flags & FSYNC_CLOSE and node.is_modified and file.handle is not None:
            slot = AfterWriteSlot(self, node, self.table.changes)
            self.connection.submit_slot(slot, sftp.fstat, file.handle)
        writes = file.writes
        if not writes.is_idle:
            await writes.drain()
        error = writes.take_error()
        if error is not None:
            raise await self.refiner.written(error, self._any_path(node), 1)
        if flags & FSYNC_WAIT and file.is_unsynced and file.handle is not None:
            if self.session.fsync:
                file.is_unsynced = False
                try:
                    await self.connection.submit(STATUS, sftp.fsync, file.handle)
                except BaseException:
                    file.is_unsynced = True
                    raise
            else:
                _log.debug("the server has no fsync@openssh.com")

    async def _sync_directory(self, node: Node) -> None:
        try:
            handle = await self.connection.submit(
                HANDLE, sftp.open_, self.table.path(node), sftp.FXF_READ
            )
        except StatusError:
            return  # a server whose directories cannot be opened has nothing to sync them by
        try:
            await self.connection.submit(STATUS, sftp.fsync, handle)
        except StatusError as exc:
            if exc.code not in (sftp.FX_OP_UNSUPPORTED, sftp.FX_BAD_MESSAGE):
                raise
        finally:
            self.connection.close_handle(handle)

    def written_back(self, node: Node, attrs: sftp.Attrs, stamp: int) -> None:
        """Take in attributes that were asked for behind the last write of a file."""
        file = node.file
        if file is not None and not file.writes.is_idle:
            return  # a server that works on several requests at once has not done them all
        if attrs.size == node.va.size:
            self.update(node, attrs, stamp, self.clock() + self.ttl, is_after_close=True)

    # Attributes.

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """Answer from the cache, else by LSTAT: one round trip."""
        node = self.table.node(opc)
        now = self.clock()
        if now >= node.expiry:
            await self.fetch(node)
            return node.va, self.attr_ttl(node)
        return node.va, node.expiry - now

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change by SETSTAT, and ask for the outcome in the same round trip.

        Half of a pair (uid and gid, atime and mtime) is filled from the present attributes,
        which costs one more round trip when they are old. Errors: EPERM for what only an owner
        may do, EACCES for a truncation; EOPNOTSUPP for a mode of a symbolic link, and for
        anything of it without lsetstat@openssh.com.
        """
        node = self.table.node(opc)
        if self.options.ro:
            raise VfsError(errno.EROFS)
        if va.size is not None:
            self.regular(opc)
            if va.size > SIZE_MAX:
                raise VfsError(errno.EFBIG)
        file = node.file
        if file is not None and not file.writes.is_idle:
            # Neither may a late write extend what was truncated, nor move a time that was set.
            await file.writes.drain()
        translator = self.translator
        now = await self.present_va(node) if translator.needs_present(va) else None
        attrs = translator.attrs(va, now)
        if attrs == sftp.NO_ATTRS:
            return await self.getattr(opc, cred)
        if node.vtype == Vtype.VLNK and (attrs.mode is not None or not self.session.lsetstat):
            raise VfsError(errno.EOPNOTSUPP, "SFTP cannot change a symbolic link so")
        connection = self.connection
        if connection.is_congested:
            await connection.room()
        handle = file.writer if file is not None else None
        path = b"" if node.is_gone else self.table.path(node)
        if node.is_gone and handle is None:
            handle = file.handle if file is not None else None
            if handle is None:
                raise VfsError(errno.ESTALE, "the last name of the node is gone")
        self._begin_change(node, va)
        with connection.batch:
            if handle is not None and (va.size is not None or node.is_gone):
                changed = connection.submit(STATUS, sftp.fsetstat, handle, attrs)
            elif node.vtype == Vtype.VLNK:
                changed = connection.submit(STATUS, sftp.lsetstat, path, attrs)
            else:
                changed = connection.submit(STATUS, sftp.setstat, path, attrs)
            stamp = self.table.changes
            if path:
                looked = connection.submit(ATTRS, sftp.lstat, path)
            else:
                looked = connection.submit(ATTRS, sftp.fstat, handle)
        try:
            await changed
        except StatusError as exc:
            looked.abandon()
            by_owner = va.size is None
            raise await self.refiner.changed(
                exc, path or self._any_path(node), by_owner=by_owner
            ) from None
        after = await looked
        if not _shows(after, attrs):
            # A server that works on several requests at once may have looked too early.
            stamp = self.table.changes
            if path:
                after = await connection.submit(ATTRS, sftp.lstat, path)
            else:
                after = await connection.submit(ATTRS, sftp.fstat, handle)
        known = node.known_data
        was_known = known is not None and (node.va.size, node.va.mtime) == known[:2]
        is_modified = node.is_modified
        node.is_modified = True  # what has changed is our doing
        self.take_attrs(node, after, stamp)
        if node.changed_at > stamp:
            node.is_modified = True
        elif was_known and not is_modified:
            node.known_data = (node.va.size or 0, node.va.mtime or 0, self.wall())
        return node.va, self.attr_ttl(node)

    def _begin_change(self, node: Node, va: Vattr) -> None:
        self.table.changed(node)
        node.expiry = 0
        if va.size is not None:
            if node.file is not None:
                node.file.drop_blocks()
                node.file.is_unsynced = True
            node.va = node.va._replace(size=va.size, bytes=(va.size + 511) & ~511)
            node.is_modified = True


def _shows(after: sftp.Attrs, wanted: sftp.Attrs) -> bool:
    """Tell whether attributes look as if the change had been made."""
    return all(
        want is None or have is None or (have ^ want) & mask == 0
        for have, want, mask in zip(after, wanted, _SHOWN, strict=True)
    )


# A server may clear set-id and sticky bits of a mode: what remains must agree.
_SHOWN: Final = (-1, -1, -1, 0o777, -1, -1)

__all__ = ["VATTR_NULL", "FileOperations"]
