"""The operations that open and close: SFTP handles, and whether the host's pages are right."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Final

from ....native import sftp
from ....native.constants import FREAD, FWRITE, FlushOp, OpenFlag, Setback, Vtype
from ....native.errors import VfsError
from ....native.records import Cookie, Cred
from ..ahead.smallfile import Ahead
from ..data.openfile import OpenFile
from ..mount.attrcache import AttrCache
from ..tree.attributes import vtype_of
from ..tree.node import Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, HANDLE, Slot

_MODE_TO_PFLAGS: Final = {
    FREAD: sftp.FXF_READ,
    FWRITE: sftp.FXF_WRITE,
    FREAD | FWRITE: sftp.FXF_READ | sftp.FXF_WRITE,
}
RACY: Final = 2 * 10**9
"""A file changed so recently, ns, may change again and still show the same whole second."""


def _is_alike(one: sftp.Attrs, other: sftp.Attrs) -> bool:
    """Tell whether two may be the attributes of one file."""
    return one.size == other.size and one.mtime == other.mtime


class OpenOperations(AttrCache):
    """The part of the server that opens and closes files."""

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
        va = self.translator.vattr(attrs, node.fileid, node.nlink)
        if ahead.asked < node.checked_at and (va.size, va.mtime) != (node.va.size, node.va.mtime):
            return None  # others have changed it since, and that was seen here
        self.take(node, va, ahead.stamp, ahead.asked)
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
