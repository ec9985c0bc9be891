"""The kernel half's operations on one file: its data and attributes."""

from __future__ import annotations

from errno import EOPNOTSUPP, EROFS
from typing import Final

import trio

from ...emul.vnode import Vnode
from ...native.constants import FWRITE, IO_APPEND, VWRITE, ErrorNote, OpenFlag, VnOp, Vtype
from ...native.errors import VfsError
from ...native.records import Buffer, Cred, Vattr
from .nodes import PuffsNode, apply_setbacks
from .requests import KernelHalf

# As plain numbers: members of an enumeration are slow to reach.
_VREG: Final = int(Vtype.VREG)
_ACCESS: Final = int(VnOp.ACCESS)
_GETATTR: Final = int(VnOp.GETATTR)
_SETATTR: Final = int(VnOp.SETATTR)
_OPEN: Final = int(VnOp.OPEN)
_CLOSE: Final = int(VnOp.CLOSE)
_READ: Final = int(VnOp.READ)
_WRITE: Final = int(VnOp.WRITE)
_FSYNC: Final = int(VnOp.FSYNC)


class FileOperations(KernelHalf):
    """The part of the kernel half that works on files.

    What is too long for a frame goes in pieces.
    """

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """See FileSystem. Errors: EROFS to write a regular file without a WRITE operation."""
        if mode & FWRITE and vp.vtype == _VREG and not self._has[_WRITE]:
            raise VfsError(EROFS)
        node: PuffsNode = vp.data
        oflags, setbacks = await self._ask(_OPEN, node.cookie, (mode, cred)) or (0, 0)
        if setbacks:
            apply_setbacks(setbacks, node)
        return oflags | OpenFlag.IO_DIRECT if self._no_pages else oflags

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        """See FileSystem."""
        self._post(_CLOSE, vp.data.cookie, (fflag, cred))

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """See FileSystem. Errors: EROFS to write a regular file without a WRITE operation."""
        if mode & VWRITE and vp.vtype == _VREG and not self._has[_WRITE]:
            raise VfsError(EROFS)
        await self._ask(_ACCESS, vp.data.cookie, (mode, cred))

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """See FileSystem."""
        return self._attributes(vp, await self._ask(_GETATTR, vp.data.cookie, (cred,)))

    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """See FileSystem."""
        return self._attributes(vp, await self._ask(_SETATTR, vp.data.cookie, (va, cred)))

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """See FileSystem. What does not fit in a frame is asked for in pieces, all at once."""
        if resid > self._maxdata:
            return await self._read_pieces(vp, offset, resid, ioflag, cred)
        node: PuffsNode = vp.data
        data: Buffer = await self._ask(_READ, node.cookie, (offset, resid, ioflag, cred))
        if len(data) > resid:
            text = f"{len(data)} octets read, {resid} asked for"
            raise self.violated(ErrorNote.READ, node.cookie, text)
        return data

    async def _read_pieces(
        self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred
    ) -> Buffer:
        limit = self._maxdata
        starts = range(0, resid, limit)
        pieces: list[Buffer] = [b""] * len(starts)
        errors: dict[int, VfsError] = {}

        async def read(i: int, start: int) -> None:
            try:
                n = min(limit, resid - start)
                pieces[i] = await self.read(vp, offset + start, n, ioflag, cred)
            except VfsError as exc:
                errors[i] = exc

        async with trio.open_nursery() as nursery:
            for i, start in enumerate(starts):
                nursery.start_soon(read, i, start)
        # A short piece is the end of the file; what lies behind it came too late to count.
        for i, start in enumerate(starts):
            if i in errors:
                raise errors[i]
            if len(pieces[i]) < min(limit, resid - start):
                return b"".join(pieces[: i + 1])
        return b"".join(pieces)

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """See FileSystem. What does not fit in a frame is written in pieces, one after the other:

        appended pieces must keep their order, and after an error the rest is not written.
        """
        limit = self._maxdata
        if len(data) <= limit:
            await self._write(vp, offset, data, ioflag, cred)
            return
        view = memoryview(data)
        for start in range(0, len(view), limit):
            await self._write(vp, offset + start, view[start : start + limit], ioflag, cred)

    async def _write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        await self._ask(_WRITE, vp.data.cookie, (offset, data, ioflag, cred), data)
        if ioflag & IO_APPEND:
            vp.size += len(data)
        elif offset + len(data) > vp.size:
            vp.size = offset + len(data)

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """See FileSystem. What has no name any more needs no medium."""
        if not vp.data.is_dying:
            await self._ask(_FSYNC, vp.data.cookie, (flags, offlo, offhi, cred))

    async def seek(self, vp: Vnode, old: int, new: int, cred: Cred) -> None:
        """See FileSystem."""
        await self._ask(VnOp.SEEK, vp.data.cookie, (old, new, cred))

    async def mmap(self, vp: Vnode, prot: int, cred: Cred) -> None:
        """See FileSystem. Errors: EOPNOTSUPP when pages are not to be cached."""
        if self._no_pages:
            raise VfsError(EOPNOTSUPP)
        node: PuffsNode = vp.data
        setbacks = await self._ask(VnOp.MMAP, node.cookie, (prot, cred))
        if setbacks:
            apply_setbacks(setbacks, node)

    async def poll(self, vp: Vnode, events: int) -> int:
        """See FileSystem; without a POLL operation everything is always ready."""
        if not self._has[VnOp.POLL]:
            return events
        ready: int = await self._ask(VnOp.POLL, vp.data.cookie, (events,))
        return ready

    async def fallocate(self, vp: Vnode, offset: int, length: int) -> None:
        """See FileSystem."""
        await self._ask(VnOp.FALLOCATE, vp.data.cookie, (offset, length))

    async def fdiscard(self, vp: Vnode, offset: int, length: int) -> None:
        """See FileSystem."""
        await self._ask(VnOp.FDISCARD, vp.data.cookie, (offset, length))

    async def seek_data(self, vp: Vnode, offset: int, whence: int, cred: Cred) -> int:
        """See FileSystem."""
        args = (offset, whence, cred)
        found: int = await self._ask(VnOp.SEEK_DATA, vp.data.cookie, args)
        return found

    async def copy_file_range(
        self, vp: Vnode, offset: int, tvp: Vnode, toffset: int, length: int, cred: Cred
    ) -> int:
        """See FileSystem. Errors: EPROTO more was copied than was asked for."""
        node: PuffsNode = vp.data
        args = (offset, tvp.data.cookie, toffset, length, cred)
        copied: int = await self._ask(VnOp.COPY_FILE_RANGE, node.cookie, args)
        if copied > length:
            text = f"{copied} octets copied, {length} asked for"
            raise self.violated(ErrorNote.ERROR, node.cookie, text)
        if copied:
            tvp.size = max(tvp.size, toffset + copied)
        return copied
