"""HostDisk: a disk that is a regular file or a block device of the host."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from errno import EAGAIN, EBUSY, EISDIR, ENOTBLK, EOPNOTSUPP
from typing import Final

import trio

from ...native.constants import DEV_BSIZE
from ...native.errors import VfsError
from ..bio.buf import B_READ, Buf
from .disk import Disk
from .hostio import IOV_MAX, move
from .queue import DiskQueue, FlushJob, TransferJob

_BLKSSZGET: Final = 0x1268
"""ioctl of a block device: octets of its sectors (linux/fs.h)."""


class HostDisk(Disk):
    """A disk over the host's file `fd`, which is its own; see `open_disk`.

    What needs no waiting is over before `strategy` returns: reads that the host has in memory
    (RWF_NOWAIT), and everything of a file that `is_in_memory` as a whole. All else is done by
    threads of the disk's own.

    A thread costs 100 to 200 us, most of it two changes of who runs; to copy 4 KiB from the host's
    memory costs 3 us and 1 MiB 80, so that no read is too long to be tried at once.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        size: int,
        *,
        sectsize: int,
        rdonly: bool,
        is_in_memory: bool,
    ) -> None:
        super().__init__(name, size, sectsize=sectsize, rdonly=rdonly)
        self._fd = fd
        self._is_in_memory = is_in_memory
        self._queue = DiskQueue(fd, name)
        self._knows_nowait = True
        self._lost = 0  # errno of a flush that failed

    def _start(self, bp: Buf, offset: int) -> None:
        is_read = bool(bp.flags & B_READ)
        if self._is_in_memory:
            self._done(bp, *move(self._fd, is_read, bp.iov, offset, 0))
            return
        moved = 0
        if is_read and self._knows_nowait:
            try:
                moved = os.preadv(self._fd, bp.iov[:IOV_MAX], offset, os.RWF_NOWAIT)
            except OSError as exc:
                if exc.errno == EOPNOTSUPP:
                    self._knows_nowait = False
                # Whatever else it is but EAGAIN, the thread will meet it again.
            if moved == bp.bcount:
                self._done(bp, 0, 0)
                return
        self._queue.put(TransferJob(bp, offset, moved, self._done))

    async def _flush(self) -> None:
        """Have fdatasync called.

        Once it has failed, the host has forgotten which pages it could not write, and would say
        yes the next time: nothing can be promised any more, and so it fails for ever.
        """
        if not self._lost and not self._is_in_memory:
            over = trio.Event()

            def on_end(errno: int) -> None:
                self._lost = errno
                over.set()

            self._queue.put(FlushJob(on_end))
            await over.wait()
        if self._lost:
            raise VfsError(self._lost, f"{self.name}: fdatasync failed")

    async def _close(self) -> None:
        await self._queue.stop()
        os.close(self._fd)


def open_disk(path: bytes, *, rdonly: bool = False) -> HostDisk:
    """Open a regular file or a block device as a disk.

    It is ours alone until it is closed: a file by a lock (flock), which keeps others of us out and
    nobody else; a device by O_EXCL, which keeps out all that mount it. With `rdonly` the file may
    be shared with others who only read. What cannot be opened for writing is refused, not opened
    read-only. Of a file that is no whole number of sectors long the rest is not used.

    Errors:
        EBUSY    somebody has it already
        EISDIR   a directory
        ENOTBLK  nothing that could be a disk
        other    what the host says (ENOENT, EACCES, EROFS)
    """
    name = os.fsdecode(path)
    flags = os.O_RDONLY if rdonly else os.O_RDWR
    try:
        if stat.S_ISBLK(os.stat(path).st_mode):
            flags |= os.O_EXCL
        # O_NONBLOCK: what turns out to be a fifo must not hold us up.
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        detail = "it is mounted, or in use otherwise" if exc.errno == EBUSY else ""
        raise VfsError(exc.errno or EBUSY, f"{name}: {detail}" if detail else name) from exc
    try:
        return _examine(fd, name, rdonly)
    except BaseException:
        os.close(fd)
        raise


def _is_in_memory(fd: int) -> bool:
    """Whether the file is in memory and nowhere else (tmpfs): only there do files have seals.

    Under pressure it may be swapped out, and reading it wait for that.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


def _examine(fd: int, name: str, rdonly: bool) -> HostDisk:
    """Lock `fd` and find out how large it is."""
    status = os.fstat(fd)
    sectsize = DEV_BSIZE
    if stat.S_ISBLK(status.st_mode):
        size = os.lseek(fd, 0, os.SEEK_END)
        (sectsize,) = struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))
    elif stat.S_ISREG(status.st_mode):
        size = status.st_size
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if rdonly else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno != EAGAIN:
                raise VfsError(exc.errno or EBUSY, f"{name}: no lock") from exc
            raise VfsError(EBUSY, f"{name}: it is locked by another mount") from None
    elif stat.S_ISDIR(status.st_mode):
        raise VfsError(EISDIR, name)
    else:
        raise VfsError(ENOTBLK, f"{name}: neither a file nor a block device")
    return HostDisk(
        fd, name, size, sectsize=sectsize, rdonly=rdonly, is_in_memory=_is_in_memory(fd)
    )
