"""System calls on open files: read, write, positions, fsync."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EINVAL, EISDIR, ENODEV, ENXIO, EOPNOTSUPP
from typing import Final

from ...native.constants import (
    DEV_BSIZE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FREAD,
    FSYNC_CACHE,
    FSYNC_DATAONLY,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    MAXPHYS,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Buffer
from ..vfs import Entry
from ..vnode import Vnode
from ..vnops import vn_fsync, vn_getattr, vn_read, vn_readdir
from .filedesc import File
from .proc import Proc, check_writable

MAX_RW_COUNT: Final = 0x7FFFF000
"""Longest read or write, octets: as on Linux, who asks for more gets this."""
OFFSET_MAX: Final = 2**63 - 1

_SYNC: Final = os.O_SYNC & ~os.O_DSYNC


class FileCalls(Proc):
    """Calls on descriptors that were opened for what they do (else EBADF).

    A position belongs to the open file: calls that use and move it are served one after the other.
    """

    # Data.

    async def read(self, fd: int, length: int) -> Buffer:
        """Return up to `length` octets from the position on, and move it behind them.

        Nothing at the end. The caller may keep the buffer. Errors: EBADF, EISDIR, EINVAL, EIO.
        """
        async with self.files.get_open(fd, FREAD) as file:
            lock = file.f_lock
            if not lock.try_exclusive():
                await lock.exclusive()
            try:
                data = await _read(file, file.f_offset, length)
                file.f_offset += len(data)
            finally:
                lock.release()
        return data

    async def pread(self, fd: int, length: int, offset: int) -> Buffer:
        """Return up to `length` octets from `offset`. Errors: EINVAL (negative), and as read."""
        if offset < 0:
            raise VfsError(EINVAL)
        async with self.files.get_open(fd, FREAD) as file:
            return await _read(file, offset, length)

    async def readv(self, fd: int, lengths: Sequence[int]) -> list[Buffer]:
        """Read as one, and return it in pieces of these lengths, the last ones short or missing."""
        data = memoryview(await self.read(fd, sum(lengths)))
        pieces: list[Buffer] = []
        for length in lengths:
            if not data:
                break
            pieces.append(data[:length])
            data = data[length:]
        return pieces

    async def write(self, fd: int, data: Buffer) -> int:
        """Write at the position, or at the end with O_APPEND; return how much was written.

        That is less than all only where an error came after a part of it: the next call says which.
        Errors: EBADF, EINVAL, EFBIG, ENOSPC, EROFS, EIO.
        """
        async with self.files.get_open(fd, FWRITE) as file:
            lock = file.f_lock
            if not lock.try_exclusive():
                await lock.exclusive()
            try:
                written, file.f_offset = await _write(file, file.f_offset, data)
            finally:
                lock.release()
        return written

    async def pwrite(self, fd: int, data: Buffer, offset: int) -> int:
        """Write as `write` at `offset`; with O_APPEND at the end, as Linux does it."""
        if offset < 0:
            raise VfsError(EINVAL)
        async with self.files.get_open(fd, FWRITE) as file:
            return (await _write(file, offset, data))[0]

    async def writev(self, fd: int, pieces: Sequence[Buffer]) -> int:
        """Write the pieces as one."""
        return await self.write(fd, b"".join(pieces))

    # Positions.

    async def lseek(self, fd: int, offset: int, whence: int) -> int:
        """Move the position (SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE) and return it.

        Errors: EBADF; EINVAL (`whence`; before the start or too far); ENXIO (SEEK_DATA and
        SEEK_HOLE: at or behind the end, or no more data).
        """
        async with self.files.get_open(fd) as file:
            vp = file.f_vp
            lock = file.f_lock
            if not lock.try_exclusive():
                await lock.exclusive()
            try:
                if whence == os.SEEK_CUR:
                    offset += file.f_offset
                elif whence != os.SEEK_SET:
                    if vp.vtype == Vtype.VDIR:  # offsets there are the file system's
                        raise VfsError(EINVAL)
                    offset = await self._from_contents(file, offset, whence)
                if not 0 <= offset <= OFFSET_MAX:
                    raise VfsError(EINVAL)
                if not vp.lock.try_shared():
                    await vp.lock.shared()
                try:
                    await vp.fs.seek(vp, file.f_offset, offset, file.f_cred)
                finally:
                    vp.lock.release()
                file.f_offset = offset
            finally:
                lock.release()
        return offset

    async def _from_contents(self, file: File, offset: int, whence: int) -> int:
        """Return a position that depends on what is in the file."""
        vp = file.f_vp
        va = await vn_getattr(vp, file.f_cred)
        size = vp.size if va.size is None else va.size
        if whence == os.SEEK_END:
            return size + offset
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise VfsError(EINVAL)
        if not 0 <= offset < size:
            raise VfsError(ENXIO)
        await vp.lock.shared()
        try:
            return await _next(vp, offset, size, hole=whence == os.SEEK_HOLE)
        finally:
            vp.lock.release()

    # Directories.

    async def getdents(self, fd: int, length: int) -> list[Entry]:
        """Return entries from the position on, "." and ".." among them; none at the end.

        `length` bounds the sum of (24 + length of name), octets; one entry comes in any case.
        Errors: EBADF, ENOTDIR, ENOENT (removed).
        """
        async with self.files.get_open(fd, FREAD) as file:
            await file.f_lock.exclusive()
            try:
                entries, _ = await vn_readdir(file.f_vp, file.f_offset, length, file.f_cred)
                if entries:
                    file.f_offset = entries[-1].offset
            finally:
                file.f_lock.release()
        return entries

    # Durability and space.

    async def fsync(self, fd: int) -> None:
        """Return when everything of the file is on its medium. Errors: EBADF, EIO, ENOSPC."""
        async with self.files.get_open(fd) as file:
            await vn_fsync(file.f_vp, FSYNC_WAIT | FSYNC_CACHE, 0, 0, file.f_cred)

    async def fdatasync(self, fd: int) -> None:
        """Return when the data, and what finds them, are on the medium. Errors: as fsync."""
        async with self.files.get_open(fd) as file:
            flags = FSYNC_WAIT | FSYNC_CACHE | FSYNC_DATAONLY
            await vn_fsync(file.f_vp, flags, 0, 0, file.f_cred)

    async def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """Take space for a range (`mode` 0), or make it a hole (PUNCH_HOLE | KEEP_SIZE).

        Errors: EINVAL; EOPNOTSUPP (other modes, or not in this file system); EBADF; EISDIR;
        ENODEV; EROFS; EFBIG; ENOSPC.
        """
        if offset < 0 or length <= 0:
            raise VfsError(EINVAL)
        if mode not in (0, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
            raise VfsError(EOPNOTSUPP)
        async with self.files.get_open(fd, FWRITE) as file:
            vp = file.f_vp
            if vp.vtype != Vtype.VREG:
                raise VfsError(EISDIR if vp.vtype == Vtype.VDIR else ENODEV)
            check_writable(vp)
            operation = vp.fs.fdiscard if mode else vp.fs.fallocate
            await vp.lock.exclusive()
            try:
                await operation(vp, offset, length)
            finally:
                vp.lock.release()


async def _read(file: File, offset: int, length: int) -> Buffer:
    if length < 0:
        raise VfsError(EINVAL)
    if file.f_vp.vtype == Vtype.VDIR:
        raise VfsError(EISDIR)
    return await vn_read(file.f_vp, offset, min(length, MAX_RW_COUNT), file.f_cred)


async def _write(file: File, offset: int, data: Buffer) -> tuple[int, int]:
    """Write; return how much, and the offset behind it. The vnode is locked for all of it."""
    vp, cred = file.f_vp, file.f_cred
    check_writable(vp)
    ioflag = IO_APPEND if file.f_flag & os.O_APPEND else 0
    lock = vp.lock
    if not lock.try_exclusive():
        await lock.exclusive()
    try:
        if len(data) <= MAXPHYS:
            await vp.fs.write(vp, offset, data, ioflag, cred)
            written = len(data)
        else:
            written = await _write_pieces(file, offset, data, ioflag)
        end = vp.size if ioflag and written else offset + written
    finally:
        lock.release()
    if file.f_flag & os.O_DSYNC and written:
        flags = FSYNC_WAIT | FSYNC_CACHE | (0 if file.f_flag & _SYNC else FSYNC_DATAONLY)
        await vn_fsync(vp, flags, end - written, end, cred)
    return written, end


async def _write_pieces(file: File, offset: int, data: Buffer, ioflag: int) -> int:
    """Write piece by piece: what an error cuts off is told by the length. Entry: exclusive."""
    vp = file.f_vp
    view = memoryview(data)[:MAX_RW_COUNT]
    done = 0
    while done < len(view):
        piece = view[done : done + MAXPHYS]
        try:
            await vp.fs.write(vp, offset + done, piece, ioflag, file.f_cred)
        except VfsError:
            if not done:
                raise
            break
        done += len(piece)
    return done


async def _next(vp: Vnode, offset: int, size: int, *, hole: bool) -> int:
    """Return where from `offset` on the next hole (or else data) begins. Entry: `vp` shared.

    A file system that does not say where its blocks are has data everywhere; behind the end is
    a hole. Errors: ENXIO (no data).
    """
    start = offset - offset % DEV_BSIZE
    while start < size:
        try:
            blkno, run = await vp.fs.bmap(vp, start, size - start)
        except VfsError as exc:
            if exc.errno != EOPNOTSUPP:
                raise
            blkno, run = 0, size - start
        if (blkno < 0) == hole:
            return max(start, offset)
        start += run
    if hole:
        return size
    raise VfsError(ENXIO)
