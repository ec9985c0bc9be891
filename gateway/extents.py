"""Space within a file, asked for by the host: FALLOCATE.

What a file server has not is ENOSYS here: the host then asks no more and tells programs what it
tells them on file systems without it, EOPNOTSUPP; posix_fallocate(3) writes zeros by itself.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ..native import device_replies as replies
from ..native.constants import VnOp
from ..native.device_requests import Request
from ..native.errors import VfsError

if TYPE_CHECKING:
    from .handlers import FuseEnd

_KEEP_SIZE: Final = 0x1
_PUNCH_HOLE: Final = 0x2
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE."""


class Extents:
    """The handlers of these requests, for one host end."""

    def __init__(self, end: FuseEnd) -> None:
        self._end = end

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
        opened = end.opened(fh)
        cookie = opened.node.cookie
        if mode == _PUNCH_HOLE | _KEEP_SIZE:
            _need(VnOp.FDISCARD in ops)
            opened.dirty = True
            await end.server.fdiscard(cookie, offset, length)
        else:
            _need(not mode & ~_KEEP_SIZE and VnOp.FALLOCATE in ops)
            if mode:  # the host has locked the file: its size stays what it is meanwhile
                va, _ = await end.server.getattr(cookie, opened.cred)
                _need(offset + length <= (va.size or 0))
            opened.dirty = True
            await end.server.fallocate(cookie, offset, length)
        return replies.error(request.unique, 0)


def _need(condition: bool) -> None:
    if not condition:
        raise VfsError(errno.EOPNOTSUPP)
