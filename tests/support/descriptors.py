"""Open files and directories of a `NodeTarget`."""

from __future__ import annotations

import errno
from fcntl import F_GETLK, F_SETLK
from itertools import count
from typing import Final, Generic

import trio

from syspuffs.native.constants import FAPPEND, FREAD, FWRITE
from syspuffs.native.records import VATTR_NULL, Buffer, Flock

from .nodes import N, NodeTarget, system_call
from .target import DirEntry, DirStream, File, Locker, Stat, fail

IO_SIZE: Final = 1 << 18
"""Longest read or write that is asked of a node at once, octets: larger ones are split."""


class NodeFile(File, Generic[N]):
    """An open node; owns a reference and one open of it."""

    def __init__(self, target: NodeTarget[N], node: N, mode: int) -> None:
        self._target = target
        self._node = node
        self._mode = mode
        self._closed = False

    def _need(self, mode: int) -> N:
        if self._closed or not self._mode & mode:
            fail(errno.EBADF)
        return self._node

    @system_call
    async def pread(self, length: int, offset: int) -> bytes:
        node = self._need(FREAD)
        if offset < 0:
            fail(errno.EINVAL)
        pieces = []
        while length:
            want = min(length, IO_SIZE)
            piece = bytes(await self._target.node_read(node, offset, want))
            assert len(piece) <= want, f"asked for {want} octets, got {len(piece)}"
            pieces.append(piece)
            if len(piece) < want:
                break
            offset += want
            length -= want
        return b"".join(pieces)

    @system_call
    async def pwrite(self, data: Buffer, offset: int) -> int:
        node = self._need(FWRITE)
        if offset < 0:
            fail(errno.EINVAL)
        append = bool(self._mode & FAPPEND)
        view = memoryview(data).cast("B")
        for start in range(0, len(view), IO_SIZE):
            piece = view[start : start + IO_SIZE]
            await self._target.node_write(node, offset + start, piece, append)
        return len(view)

    @system_call
    async def ftruncate(self, length: int) -> None:
        if self._closed:
            fail(errno.EBADF)
        if not self._mode & FWRITE or length < 0:
            fail(errno.EINVAL)
        await self._target.node_setattr(self._node, VATTR_NULL._replace(size=length))

    @system_call
    async def fsync(self) -> None:
        await self._target.node_fsync(self._need(FREAD | FWRITE), closing=False)

    @system_call
    async def fstat(self) -> Stat:
        return await self._target.node_stat(self._need(FREAD | FWRITE))

    @system_call
    async def close(self) -> None:
        if self._closed:
            fail(errno.EBADF)
        self._closed = True
        self._target.open_files -= 1
        with trio.CancelScope(shield=True):
            try:
                await self._target.node_fsync(self._node, closing=True)
            finally:
                await self._target.node_close(self._node, self._mode)
                await self._target.put(self._node)


class NodeDirStream(DirStream, Generic[N]):
    """An open directory; owns a reference and one open of it."""

    def __init__(self, target: NodeTarget[N], node: N) -> None:
        self._target = target
        self._node = node
        self._offset = 0
        self._end = False

    @system_call
    async def read(self) -> list[DirEntry]:
        if self._end:
            return []
        entries, self._end = await self._target.node_readdir(self._node, self._offset)
        if entries:
            self._offset = entries[-1].offset
        else:
            assert self._end, "no entries although more are promised"
        return [raw.entry for raw in entries]

    @system_call
    async def close(self) -> None:
        self._target.open_files -= 1
        with trio.CancelScope(shield=True):
            await self._target.node_close(self._node, FREAD)
            await self._target.put(self._node)


_pids = count(1)


class NodeLocker(Locker, Generic[N]):
    """A process with one open file. Its locks end with it, as the kernel above sees to."""

    def __init__(self, target: NodeTarget[N], node: N) -> None:
        self.pid = next(_pids)
        self._target = target
        self._node = node

    @system_call
    async def setlk(self, kind: int, start: int, length: int) -> None:
        await self._advlock(F_SETLK, kind, start, length)

    @system_call
    async def getlk(self, kind: int, start: int, length: int) -> Flock:
        return await self._advlock(F_GETLK, kind, start, length)

    async def _advlock(self, op: int, kind: int, start: int, length: int) -> Flock:
        flock = Flock(kind, start, length, self.pid)
        return await self._target.node_advlock(self._node, self.pid, op, flock)
