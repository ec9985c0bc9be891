"""Files and directories that the host has open, by the numbers that it was given for them.

This is where the rules of a puffs kernel half are kept that FUSE has not: `inactive` follows the
last close of a node, and close(2) reports errors of write-behind (FLUSH becomes FSYNC_CLOSE).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ...native import device_replies as replies
from ...native.constants import (
    FAPPEND,
    FREAD,
    FSYNC_CACHE,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    NameiOp,
    OpenFlag,
    Setback,
    Vtype,
)
from ...native.device_requests import Request
from ...native.errors import VfsError
from ...native.fuse_protocol import FSYNC_FDATASYNC, FopenFlag, Opcode
from ...native.records import Buffer, Cred, Vattr
from .directories import OpenDirectory
from .nodes import Node
from .worker import Answer

if TYPE_CHECKING:
    from .handlers import FuseEnd

# As plain numbers: arithmetic on members of an enumeration is slow.
_INACT_N1: Final = int(Setback.INACT_N1)
_IO_DIRECT: Final = int(OpenFlag.IO_DIRECT)
_IO_KEEP: Final = int(OpenFlag.IO_KEEP)

_ACCMODE: Final = os.O_ACCMODE
_SYNC: Final = os.O_SYNC | os.O_DSYNC
_OPEN_MODES: Final = (FREAD, FWRITE, FREAD | FWRITE, FREAD | FWRITE)
_DIRECT_IO: Final = int(FopenFlag.DIRECT_IO)
_KEEP_CACHE: Final = int(FopenFlag.KEEP_CACHE)
_NOFLUSH: Final = int(FopenFlag.NOFLUSH)

_FOR_DURABILITY: Final = frozenset({Opcode.WRITE, Opcode.FLUSH, Opcode.FSYNC})


class OpenFile:
    """An open file of the host."""

    __slots__ = ("cred", "dirty", "ioflag", "mode", "node", "owed")

    def __init__(self, node: Node, mode: int, ioflag: int, cred: Cred) -> None:
        self.node = node
        self.mode = mode
        self.ioflag = ioflag
        self.cred = cred
        self.dirty = False
        """Written to since the last FLUSH or FSYNC; a clean file's close asks nobody."""
        self.owed = 0
        """An error that nobody was told, for the program that asked was interrupted."""

    def settle(self) -> None:
        """Raise what is owed, once."""
        number, self.owed = self.owed, 0
        if number:
            raise VfsError(number)


class OpenFiles:
    """The handlers of these requests, for one host end, and what is open.

    With `inactive_on_demand` a server hears of the last close of those nodes only for which it has
    asked.
    """

    def __init__(self, end: FuseEnd, *, inactive_on_demand: bool) -> None:
        self._end = end
        self._files: dict[int, OpenFile] = {}
        self._dirs: dict[int, OpenDirectory] = {}
        self._next_fh = 1
        self._inactive_on_demand = inactive_on_demand
        self.handlers: dict[int, Callable[..., Any]] = {
            Opcode.OPEN: self.open,
            Opcode.CREATE: self.create,
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.FLUSH: self.flush,
            Opcode.FSYNC: self.fsync,
            Opcode.RELEASE: self.release,
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RELEASEDIR: self.releasedir,
            Opcode.FSYNCDIR: self.fsyncdir,
        }

    def opened(self, fh: int) -> OpenFile:
        """Return an open file of the host."""
        return self._files[fh]

    def known(self, fh: int) -> OpenFile | None:
        """Return an open file of the host, None for what is closed."""
        return self._files.get(fh)

    def node_of(self, fh: int) -> Node | None:
        """Return the node of an open file or directory, None for what is closed."""
        opened = self._files.get(fh) or self._dirs.get(fh)
        return None if opened is None else opened.node

    @property
    def counts(self) -> tuple[int, int]:
        """How many files, and how many directories, are open."""
        return len(self._files), len(self._dirs)

    async def undo(self, request: Request, answer: bytes) -> None:
        """Take back what an answer would have told the host, which did not get it.

        Errors: what the file's end reports.
        """
        opcode = request.opcode
        if opcode == Opcode.READDIRPLUS:
            opened = self._dirs.get(request.args[0])
            if opened is not None:
                opened.untell()
        elif opcode in (Opcode.OPEN, Opcode.CREATE):
            await self._release(replies.told_handle(answer, opcode == Opcode.CREATE))
        elif opcode == Opcode.OPENDIR:
            await self._release_directory(replies.told_handle(answer, False))

    def lost(self, request: Request, number: int) -> None:
        """Keep the error of what was to be durable for the next who asks through that file."""
        if request.opcode in _FOR_DURABILITY:
            opened = self._files.get(request.args[0])
            if opened is not None:
                opened.owed = number

    # Files.

    async def _begun(self, node: Node, mode: int, cred: Cred) -> int:
        """Open `node` at the server and count it; return OpenFlag. `_ended` takes it back."""
        node.opens += 1  # before the wait: a close that overtakes us must not see the last user go
        try:
            oflags, setback = await self._end.server.open(node.cookie, mode, cred)
        except BaseException:
            node.opens -= 1
            raise
        if setback & _INACT_N1:
            node.wants_inactive = True
        return oflags

    async def _open(self, node: Node, flags: int, cred: Cred) -> tuple[int, int]:
        """Open `node`; return the handle, and what the host is told of it (FopenFlag)."""
        mode = _OPEN_MODES[flags & _ACCMODE]
        ioflag = 0
        if flags & os.O_APPEND:
            mode |= FAPPEND
            ioflag |= IO_APPEND
        if flags & _SYNC:
            ioflag |= IO_SYNC
        oflags = await self._begun(node, mode, cred)
        fh = self._next_fh
        self._next_fh += 1
        self._files[fh] = OpenFile(node, mode, ioflag, cred)
        told = 0
        if self._end.no_pages or oflags & _IO_DIRECT:
            told |= _DIRECT_IO
        if oflags & _IO_KEEP:
            told |= _KEEP_CACHE
        if mode == FREAD and not flags & os.O_TRUNC and not self._end.has_locks:
            told |= _NOFLUSH  # nothing can be written through it, so its close asks nobody
        return fh, told

    async def open(self, request: Request, flags: int) -> bytes:
        """Open a file. The host leaves O_TRUNC to us."""
        node = self._end.node(request.nodeid)
        cred = self._end.cred(request)
        fh, told = await self._open(node, flags, cred)
        if flags & os.O_TRUNC:
            await self._truncate_opened(fh, node, cred)
        return replies.opened(request.unique, fh, told)

    async def _truncate_opened(self, fh: int, node: Node, cred: Cred) -> None:
        try:
            await self._end.server.setattr(node.cookie, Vattr(size=0), cred)
        except BaseException:
            await self._release(fh)
            raise
        self._files[fh].dirty = True

    async def create(self, request: Request, flags: int, mode: int, name: bytes) -> bytes:
        """Make and open a file. Without O_EXCL one that somebody else made meanwhile will do."""
        parent = self._end.node(request.nodeid)
        cn = self._end.cn(name, request, NameiOp.CREATE)
        made = True
        try:
            info = await self._end.server.create(
                parent.cookie, cn, Vattr(Vtype.VREG, stat.S_IMODE(mode))
            )
        except VfsError as exc:
            if exc.errno != errno.EEXIST or flags & os.O_EXCL:
                raise
            made = False
            info = await self._end.server.lookup(parent.cookie, self._end.cn(name, request))
            if not info.cookie or info.vtype != Vtype.VREG:
                if info.cookie:
                    self._end.nodes.settle(self._end.nodes.absorb(info))
                raise
        node = self._end.nodes.absorb(info)
        try:
            fh, told = await self._open(node, flags, cn.cred)
            try:
                if not made and flags & os.O_TRUNC:
                    await self._end.server.setattr(node.cookie, Vattr(size=0), cn.cred)
                    info = info._replace(va=None)
                va, ttl = await self._end.attributes_of(info, cn.cred)
                shown = self._end.shown(node.ino, va, ttl, info.cn_ttl)
                reply = replies.created(request.unique, node.ino, *shown, fh, told)
            except BaseException:
                await self._release(fh)
                raise
            self._end.nodes.tell(parent, name, node)
        finally:
            self._end.nodes.settle(node)
        return reply

    async def read(self, request: Request, fh: int, offset: int, size: int) -> Answer:
        """Read; what is short ends the file."""
        opened = self._files[fh]
        data = await self._end.server.read(opened.node.cookie, offset, size, 0, opened.cred)
        return replies.data_head(request.unique, len(data)), data

    async def write(self, request: Request, fh: int, offset: int, data: Buffer) -> bytes:
        """Write all of `data`."""
        opened = self._files[fh]
        opened.dirty = True
        await self._end.server.write(opened.node.cookie, offset, data, opened.ioflag, opened.cred)
        return replies.count(request.unique, len(data))

    async def flush(self, request: Request, fh: int, owner: int) -> bytes:
        """Answer one close(2): what was written is where close promises it, or it fails."""
        opened = self._files[fh]
        try:
            if opened.dirty:
                opened.dirty = False
                await self._end.server.fsync(opened.node.cookie, FSYNC_CLOSE, 0, 0, opened.cred)
            opened.settle()
        finally:
            await self._end.locking.closed(opened.node, owner)
        return replies.error(request.unique, 0)

    async def fsync(self, request: Request, fh: int, flags: int) -> bytes:
        """Make data stable."""
        opened = self._files[fh]
        await self._end.server.fsync(opened.node.cookie, _fsync_flags(flags), 0, 0, opened.cred)
        opened.dirty = False
        opened.settle()
        return replies.error(request.unique, 0)

    async def release(self, request: Request, fh: int, _flags: int, _owner: int) -> bytes:
        """End one open; the last one makes the node inactive."""
        await self._release(fh)
        return replies.error(request.unique, 0)

    async def _release(self, fh: int) -> None:
        opened = self._files.pop(fh)
        try:
            await self._end.locking.released(opened.node, fh)
        finally:
            await self._ended(opened.node, opened.mode, opened.cred)

    async def _ended(self, node: Node, mode: int, cred: Cred) -> None:
        self._end.server.close(node.cookie, mode, cred)
        node.opens -= 1
        if not node.opens and (node.wants_inactive or not self._inactive_on_demand):
            node.wants_inactive = False
            await self._end.server.inactive(node.cookie)

    # Directories.

    async def opendir(self, request: Request, _flags: int) -> bytes:
        """Open a directory."""
        node = self._end.node(request.nodeid)
        cred = self._end.cred(request)
        await self._begun(node, FREAD, cred)
        fh = self._next_fh
        self._next_fh += 1
        self._dirs[fh] = OpenDirectory(self._end, node, cred)
        return replies.opened(request.unique, fh, 0)

    async def readdirplus(self, request: Request, fh: int, offset: int, size: int) -> bytes:
        """Tell entries with their attributes until the host's buffer is full."""
        return await self._dirs[fh].tell(request.unique, offset, size)

    async def releasedir(self, request: Request, fh: int) -> bytes:
        """End one open of a directory."""
        await self._release_directory(fh)
        return replies.error(request.unique, 0)

    async def _release_directory(self, fh: int) -> None:
        opened = self._dirs.pop(fh)
        opened.drop()
        await self._ended(opened.node, FREAD, opened.cred)

    async def fsyncdir(self, request: Request, fh: int, flags: int) -> bytes:
        """Make a directory's names stable."""
        opened = self._dirs[fh]
        await self._end.server.fsync(opened.node.cookie, _fsync_flags(flags), 0, 0, opened.cred)
        return replies.error(request.unique, 0)


def _fsync_flags(flags: int) -> int:
    return FSYNC_WAIT | FSYNC_CACHE | (FSYNC_DATAONLY if flags & FSYNC_FDATASYNC else 0)
