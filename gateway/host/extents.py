"""Space within files, asked for by the host: FALLOCATE, LSEEK and COPY_FILE_RANGE.

What a file server has not is ENOSYS here: the host then asks no more and does what it does on file
systems without it. fallocate(2) fails with EOPNOTSUPP, and posix_fallocate(3) writes zeros by
itself; a file is all data up to its end; what is to be copied is read and written.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from ...native import device_replies as replies
from ...native.constants import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, VnOp
from ...native.device_requests import Request
from ...native.errors import VfsError
from ...native.fuse_protocol import Opcode

if TYPE_CHECKING:
    from .handlers import FuseEnd

_COPY_MAX: Final = 0xFFFFF000
"""What a reply can say, octets, in whole pages."""


class Extents:
    """The handlers of these requests, for one host end."""

    def __init__(self, end: FuseEnd) -> None:
        self._end = end
        self.handlers: dict[int, Callable[..., Any]] = {
            Opcode.FALLOCATE: self.fallocate,
            Opcode.LSEEK: self.lseek,
            Opcode.COPY_FILE_RANGE: self.copy_file_range,
        }

    async def fallocate(
        self, request: Request, fh: int, offset: int, length: int, mode: int
    ) -> bytes:
        """Reserve space, or punch a hole.

        Space behind the end of a file that keeps its size cannot be said to a file server.
        Errors: ENOSYS without either operation; EOPNOTSUPP a mode that cannot be said.
        """
        end = self._end
        ops = end.server.kargs.ops
        if VnOp.FALLOCATE not in ops and VnOp.FDISCARD not in ops:
            raise VfsError(errno.ENOSYS)
        opened = end.files.opened(fh)
        cookie = opened.node.cookie
        if mode == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
            _need(VnOp.FDISCARD in ops)
            opened.dirty = True
            await end.server.fdiscard(cookie, offset, length)
        else:
            _need(not mode & ~FALLOC_FL_KEEP_SIZE and VnOp.FALLOCATE in ops)
            if mode:  # the host has locked the file: its size stays what it is meanwhile
                va, _ = await end.server.getattr(cookie, opened.cred)
                _need(offset + length <= (va.size or 0))
            opened.dirty = True
            await end.server.fallocate(cookie, offset, length)
        return replies.error(request.unique, 0)

    async def lseek(self, request: Request, fh: int, offset: int, whence: int) -> bytes:
        """Find the next data or hole. Errors: ENXIO; ENOSYS: by the size, then."""
        if offset < 0:
            raise VfsError(errno.ENXIO)
        opened = self._end.files.opened(fh)
        found = await _absent_as_enosys(
            self._end.server.seek_data(opened.node.cookie, offset, whence, opened.cred)
        )
        return replies.offset(request.unique, found)

    async def copy_file_range(
        self,
        request: Request,
        fh: int,
        offset: int,
        _ino: int,
        fh_out: int,
        offset_out: int,
        length: int,
        flags: int,
    ) -> bytes:
        """Copy inside the server. Errors: ENOSYS, EXDEV: by reading and writing, then."""
        if flags:
            raise VfsError(errno.EINVAL)
        source, target = self._end.files.opened(fh), self._end.files.opened(fh_out)
        target.dirty = True
        copied = await _absent_as_enosys(
            self._end.server.copy_file_range(
                source.node.cookie,
                offset,
                target.node.cookie,
                offset_out,
                min(length, _COPY_MAX),
                target.cred,
            )
        )
        return replies.count(request.unique, copied)


async def _absent_as_enosys(operation: Awaitable[int]) -> int:
    try:
        return await operation
    except VfsError as exc:
        if exc.errno != errno.EOPNOTSUPP:
            raise
        raise VfsError(errno.ENOSYS) from None


def _need(condition: bool) -> None:
    if not condition:
        raise VfsError(errno.EOPNOTSUPP)
