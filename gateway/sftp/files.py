"""Requests through handles: open, read, write, copy, sync, close."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import trio

from ...native import sftp_server as sftp
from ...native.constants import (
    FAPPEND,
    FREAD,
    FSYNC_CACHE,
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    NameiOp,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Vattr
from .answers import DATA_MAX, Data, Handler, Reply, success
from .attributes import attrs_of
from .handles import OpenDirectory, OpenFile
from .looking import LookRequests
from .nodes import Node
from .paths import BARE, FOLLOW, Found
from .status import Refusal, no_handle
from .turns import Opened, Turn
from .view import View

_log = logging.getLogger(__name__)

_CHANGING: Final = sftp.FXF_CREAT | sftp.FXF_TRUNC

_COPY_CHUNK: Final = 256 * 1024
"""Octets that COPY-DATA has in memory."""


class FileRequests:
    """Answers the requests of one session that open things and work on what is open.

    `on_copied` is called now and then while COPY-DATA goes on, so that nobody takes it for hung.
    """

    def __init__(
        self, view: View, looks: LookRequests, on_copied: Callable[[Turn], None] = lambda turn: None
    ) -> None:
        self._view = view
        self._looks = looks
        self._server = view.server
        self._export = view.export
        self._nodes = view.nodes
        self._handles = view.handles
        self._cred = view.cred
        self._on_copied = on_copied
        self.handlers: dict[type[Any], Handler] = {
            sftp.Open: self.open,
            sftp.Read: self.read,
            sftp.Write: self.write,
            sftp.Close: self.close,
            sftp.Fstat: self.fstat,
            sftp.Fsetstat: self.fsetstat,
            sftp.Fsync: self.fsync,
            sftp.FstatvfsRequest: self.fstatvfs,
            sftp.CopyData: self.copy_data,
        }

    def _opened(self, turn: Turn, handle: bytes, code: int = sftp.FX_FAILURE) -> Opened:
        """Return what a handle names, or named when the request came. Errors: Refusal."""
        opened = turn.opened or self._handles.get(handle)
        if opened is None:
            raise no_handle(code)
        return opened

    # Opening.

    async def open(self, turn: Turn, request: sftp.Open) -> Reply:
        """Open a file as open(2) does with the same flags, make it if need be.

        A directory can be opened for reading, as on Unix, and then be looked at and synced.
        """
        pflags = request.pflags
        mode = FREAD if pflags & sftp.FXF_READ or not pflags & sftp.FXF_WRITE else 0
        if pflags & sftp.FXF_WRITE:
            mode |= FWRITE
            if pflags & sftp.FXF_APPEND:
                mode |= FAPPEND
        handles = self._handles
        handles.promise()
        try:
            opened = await self._open(turn, request, mode)
        except BaseException:
            handles.renounce()
            raise
        return sftp.handle(request.id, handles.add(opened))

    async def _open(self, turn: Turn, request: sftp.Open, mode: int) -> OpenFile:
        pflags = request.pflags
        if not pflags & sftp.FXF_CREAT:
            with await self._view.paths.find(request.path, turn, FOLLOW) as found:
                return await self._open_found(found, request, mode)
        exclusive = pflags & sftp.FXF_EXCL
        while True:
            with await self._view.paths.find(
                request.path, turn, BARE if exclusive else FOLLOW
            ) as found:
                if found.slash or (found.parent is None and not exclusive):
                    raise VfsError(errno.EISDIR)
                if found.parent is None:
                    raise VfsError(errno.EEXIST)
                if found.node is not None:
                    return await self._open_found(found, request, mode)
                node = await self._make(found, request, is_exclusive=bool(exclusive))
                if node is None:
                    continue  # somebody was faster: open what is there now
                await self._export.begin(node, mode, self._cred)
                return OpenFile(self._nodes.pin(node), mode, found.path)

    async def _make(self, found: Found, request: sftp.Open, *, is_exclusive: bool) -> Node | None:
        """Make the file; None when it is there by now and that is allowed."""
        assert found.parent is not None
        perm = 0o666 if request.attrs.mode is None else request.attrs.mode
        va = Vattr(Vtype.VREG, perm & 0o7777 & ~self._view.umask)
        cn = self._view.paths.componentname(found.name, NameiOp.CREATE)
        try:
            return found.absorb(await self._server.create(found.parent.cookie, cn, va))
        except VfsError as exc:
            if exc.errno == errno.EEXIST and not is_exclusive:
                return None
            raise
        finally:
            self._export.name_changed(found.parent, found.name)

    async def _open_found(self, found: Found, request: sftp.Open, mode: int) -> OpenFile:
        node = found.there()
        is_cut = request.pflags & sftp.FXF_TRUNC
        if node.vtype == Vtype.VDIR and (mode & FWRITE or request.pflags & _CHANGING):
            raise VfsError(errno.EISDIR)
        await self._export.begin(node, mode, self._cred)
        if is_cut:
            try:
                await self._server.setattr(node.cookie, Vattr(size=0), self._cred)
            except BaseException:
                await self._export.end(node, mode, self._cred)
                raise
        opened = OpenFile(self._nodes.pin(node), mode, found.path)
        opened.is_dirty = bool(is_cut)
        return opened

    # Closing.

    async def close(self, turn: Turn, request: sftp.Close) -> Reply:
        """Close a handle, which is closed in any case; tell what became of the data behind it."""
        # Taken out of the table before any wait: a request that comes later finds it closed.
        opened = turn.opened = turn.opened or self._handles.take(request.handle)
        if opened is None:
            raise no_handle(sftp.FX_NO_SUCH_FILE)
        await self.end(opened)
        return success(request.id)

    async def end(self, opened: Opened) -> None:
        """End what was open. Errors: that of writing behind, and then it has ended all the same."""
        node = opened.node
        try:
            if isinstance(opened, OpenFile):
                try:
                    if opened.is_dirty:
                        opened.is_dirty = False
                        await self._server.fsync(node.cookie, FSYNC_CLOSE, 0, 0, self._cred)
                finally:
                    await self._export.end(node, opened.mode, self._cred)
            else:
                await self._export.end(node, FREAD, self._cred)
        finally:
            if isinstance(opened, OpenDirectory):
                self._nodes.unpin(opened.parent)
            self._nodes.unpin(node)

    async def end_all(self, left: Iterable[Opened]) -> None:
        """End what is left open, all at once: the session is over. What goes wrong is logged."""
        async with trio.open_nursery() as nursery:
            for opened in left:
                nursery.start_soon(self._end_quietly, opened)

    async def _end_quietly(self, opened: Opened) -> None:
        try:
            await self.end(opened)
        except VfsError as exc:
            path = opened.path if isinstance(opened, OpenFile) else b""
            _log.warning("closing %r for a client that left: %s", path, exc)

    # Data.

    async def read(self, turn: Turn, request: sftp.Read) -> Reply | Data:
        """Answer with data, fewer at the end of the file and EOF beyond it."""
        id, handle, offset, length = request
        opened = turn.opened or self._handles.get(handle)
        if not isinstance(opened, OpenFile):
            raise no_handle()
        if not opened.mode & FREAD:
            raise VfsError(errno.EBADF)
        length = min(length, DATA_MAX)
        data = await self._server.read(opened.node.cookie, offset, length, 0, self._cred)
        count = len(data)
        if not count and length:
            return sftp.status(id, sftp.FX_EOF, b"End of file")
        opened.octets_read += count
        return Data(sftp.data_head(id, count), data)

    async def write(self, turn: Turn, request: sftp.Write) -> Reply:
        """Write all of the data."""
        id, handle, offset, data = request
        opened = turn.opened or self._handles.get(handle)
        if not isinstance(opened, OpenFile):
            raise no_handle()
        if not opened.mode & FWRITE:
            raise VfsError(errno.EBADF)
        opened.is_dirty = True
        await self._server.write(opened.node.cookie, offset, data, opened.ioflag, self._cred)
        opened.octets_written += len(data)
        return success(id)

    async def fsync(self, turn: Turn, request: sftp.Fsync) -> Reply:
        """Make what was written stable; errors of writing behind are told here."""
        opened = self._opened(turn, request.handle, sftp.FX_NO_SUCH_FILE)
        flags = FSYNC_WAIT | FSYNC_CACHE
        was_dirty, opened.is_dirty = opened.is_dirty, False
        try:
            await self._server.fsync(opened.node.cookie, flags, 0, 0, self._cred)
        except BaseException:
            opened.is_dirty = was_dirty
            raise
        return success(request.id)

    async def copy_data(self, turn: Turn, request: sftp.CopyData) -> Reply:
        """Copy from one open file to another; with a length of 0 to the end.

        As OpenSSH: a copy that meets the end before its length is EOF, what was there is copied.
        """
        source = turn.opened or self._handles.get(request.read_handle)
        target = turn.target or self._handles.get(request.write_handle)
        if not (isinstance(source, OpenFile) and isinstance(target, OpenFile)):
            raise no_handle()
        if source.node is target.node:
            raise Refusal(sftp.FX_FAILURE, b"from a file to itself")
        if not source.mode & FREAD or not target.mode & FWRITE:
            raise VfsError(errno.EBADF)
        read_at, write_at, left = request.read_offset, request.write_offset, request.length
        while left or not request.length:
            want = min(left, _COPY_CHUNK) if request.length else _COPY_CHUNK
            data = await self._server.read(source.node.cookie, read_at, want, 0, self._cred)
            if not len(data):
                break
            target.is_dirty = True
            await self._server.write(target.node.cookie, write_at, data, target.ioflag, self._cred)
            count = len(data)
            source.octets_read += count
            target.octets_written += count
            read_at += count
            write_at += count
            left -= count
            self._on_copied(turn)
            await trio.lowlevel.checkpoint()  # files may be as large as their holes
        if request.length and left:
            return sftp.status(request.id, sftp.FX_EOF, b"End of file")
        return success(request.id)

    # Attributes.

    async def fstat(self, turn: Turn, request: sftp.Fstat) -> Reply:
        """Answer with the attributes of what is open."""
        node = self._opened(turn, request.handle).node
        return sftp.attrs(request.id, attrs_of(await self._view.node_attributes(node)))

    async def fsetstat(self, turn: Turn, request: sftp.Fsetstat) -> Reply:
        """Change attributes of what is open. Errors: EINVAL for the size of what is read only."""
        opened = self._opened(turn, request.handle)
        if request.attrs.size is not None:
            if not isinstance(opened, OpenFile) or not opened.mode & FWRITE:
                raise VfsError(errno.EINVAL)
            opened.is_dirty = True
        await self._looks.change(opened.node, request.attrs)
        return success(request.id)

    async def fstatvfs(self, turn: Turn, request: sftp.FstatvfsRequest) -> Reply:
        """Answer with the state of the file system of what is open."""
        cookie = self._opened(turn, request.handle).node.cookie
        return sftp.statvfs(request.id, await self._server.statvfs_at(cookie))
