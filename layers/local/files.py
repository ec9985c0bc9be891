"""The operations on what files hold."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from errno import EFBIG, EINVAL, EISDIR, EROFS
from typing import Final

from ...native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Buffer, Cookie, Cred
from ..ops import FileServer
from . import libc
from .attributes import failure
from .node import Node
from .openfile import OpenFile
from .pace import Pace
from .places import Places

KEPT_MAX: Final = 16
"""How many files that were made wait for somebody to open them."""
SIZE_MAX: Final = (1 << 63) - 1

_FLAGS: Final = {FREAD: os.O_RDONLY, FWRITE: os.O_WRONLY, FREAD | FWRITE: os.O_RDWR}
ON_MEDIUM: Final = frozenset((Vtype.VREG, Vtype.VDIR, Vtype.VLNK))
"""Types of nodes that cannot be written when the tree cannot."""


class FileOperations(FileServer):
    """The part of the server that works on data."""

    def __init__(self, places: Places, pace: Pace, *, ro: bool) -> None:
        self.places = places
        self.table = places.table
        self.pace = pace
        self.ro = ro
        self._kept: OrderedDict[Node, None] = OrderedDict()

    def require_writable(self) -> None:
        """Refuse what changes anything in a tree that is served read-only: EROFS."""
        if self.ro:
            raise VfsError(EROFS)

    # Open and close.

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """Get the descriptors that `mode` needs. Only regular files are opened: no pipe waits.

        The host's pages of an earlier open are not trusted: others may have written to the file.
        Errors: EROFS, EISDIR, and those of open(2).
        """
        node = self.table.node(opc)
        if mode & FWRITE:
            if self.ro and node.vtype in ON_MEDIUM:
                raise VfsError(EROFS)
            if node.vtype == Vtype.VDIR:
                raise VfsError(EISDIR)
        if node.vtype != Vtype.VREG:
            return 0, 0
        file = node.file
        if file is None:
            file = OpenFile()
        missing = file.missing(mode)
        if missing:
            file.adopt(self._open(node, missing), missing)
        node.file = file
        file.count(mode, 1)
        if file.is_kept:
            self._unkeep(node, file)
        return 0, 0

    def _open(self, node: Node, mode: int) -> int:
        try:
            return self.places.open(node, _FLAGS[mode])
        except OSError as exc:
            raise failure(exc) from None

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """Count an open less; with the last one the descriptors are closed."""
        node = self.table.nodes.get(opc)
        if node is not None and node.file is not None:
            node.file.count(fflag, -1)
            self._release(node)

    def _release(self, node: Node) -> None:
        file = node.file
        if file is not None:
            file.release()
            if not file.is_needed:
                node.file = None

    def keep(self, node: Node, fd: int) -> None:
        """Keep the descriptor of a file that was made just now for the open that follows.

        It may be the only way to it: whoever makes a file may write it, whatever its mode says.
        """
        assert node.file is None
        file = node.file = OpenFile()
        file.adopt(fd, FREAD | FWRITE)
        file.is_kept = True
        self._kept[node] = None
        if len(self._kept) > KEPT_MAX:
            oldest = next(iter(self._kept))
            assert oldest.file is not None
            self._unkeep(oldest, oldest.file)

    def _unkeep(self, node: Node, file: OpenFile) -> None:
        self._kept.pop(node, None)
        file.is_kept = False
        self._release(node)

    @asynccontextmanager
    async def _descriptor(self, node: Node, mode: int) -> AsyncIterator[int]:
        """Give a descriptor of a file for FREAD or FWRITE: an open one, or one for now."""
        file = node.file
        fd = -1
        if file is not None:
            fd = file.reader if mode == FREAD else file.writer
        if file is None or fd < 0:
            fd = self._open(node, mode)
            try:
                yield fd
            finally:
                os.close(fd)
            return
        file.users += 1
        try:
            yield fd
        finally:
            file.users -= 1
            if not file.is_needed and node.file is file:
                self._release(node)

    # Data.

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileServer. Errors: EISDIR, EINVAL for what is no file; those of pread(2)."""
        node = self.table.regular(opc)
        if resid <= 0 or offset > SIZE_MAX:
            return b""
        try:
            async with self._descriptor(node, FREAD) as fd:
                return await self.pace.read(fd, node.key[0], offset, resid)
        except OSError as exc:
            raise failure(exc) from None

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileServer. Errors: EISDIR, EINVAL for what is no file; EROFS; those of pwrite(2)."""
        node = self.table.regular(opc)
        self.require_writable()
        flags = 0
        if ioflag & IO_APPEND:
            flags, offset = os.RWF_APPEND, 0
        if ioflag & IO_SYNC:
            flags |= os.RWF_SYNC
        if offset + len(data) > SIZE_MAX:
            raise VfsError(EFBIG)
        try:
            async with self._descriptor(node, FWRITE) as fd:
                await self.pace.write(fd, offset, data, flags)
        except OSError as exc:
            raise failure(exc) from None

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileServer. With FSYNC_CLOSE the host's own close(2) tells what it has to tell."""
        node = self.table.node(opc)
        try:
            if node.vtype == Vtype.VDIR:
                if flags & FSYNC_WAIT:
                    await self._sync_directory(node)
                return
            if node.vtype != Vtype.VREG:
                return
            file = node.file
            if flags & FSYNC_CLOSE and file is not None and file.writer >= 0:
                await self.pace.quickly(os.close, os.dup(file.writer))
            if flags & FSYNC_WAIT:
                mode = FWRITE if file is not None and file.writer >= 0 else FREAD
                sync = os.fdatasync if flags & FSYNC_DATAONLY else os.fsync
                async with self._descriptor(node, mode) as fd:
                    await self.pace.wait(sync, fd)
        except OSError as exc:
            raise failure(exc) from None

    async def _sync_directory(self, node: Node) -> None:
        directory = self.places.directory(node)
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            await self.pace.wait(os.fsync, fd)
        except OSError as exc:
            if exc.errno != EINVAL:  # file systems that know no sync of a directory
                raise
        finally:
            os.close(fd)

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        await self._change_space(opc, offset, length, libc.fallocate)

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        """See FileServer."""
        await self._change_space(opc, offset, length, libc.punch_hole)

    async def _change_space(
        self, opc: Cookie, offset: int, length: int, call: Callable[[int, int, int], None]
    ) -> None:
        node = self.table.regular(opc)
        self.require_writable()
        if offset + length > SIZE_MAX:
            raise VfsError(EFBIG)
        try:
            async with self._descriptor(node, FWRITE) as fd:
                await self.pace.wait(call, fd, offset, length)
        except OSError as exc:
            raise failure(exc) from None
