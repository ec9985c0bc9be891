"""Extended attributes, asked for by the host.

ENOSYS makes the host stop asking: it asks for security.capability before each write otherwise.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...native import device_replies as replies
from ...native.constants import VnOp
from ...native.device_requests import Request
from ...native.errors import VfsError
from ...native.fuse_protocol import Opcode
from .worker import Answer

if TYPE_CHECKING:
    from .handlers import FuseEnd


class ExtendedAttributes:
    """The handlers of these requests, for one host end."""

    def __init__(self, end: FuseEnd) -> None:
        self._end = end
        self.handlers: dict[int, Callable[..., Any]] = {
            Opcode.SETXATTR: self.setxattr,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.REMOVEXATTR: self.removexattr,
        }

    async def getxattr(self, request: Request, size: int, name: bytes) -> Answer:
        """Return the value of an extended attribute, or its length (`size` 0)."""
        self._end.need(VnOp.GETEXTATTR)
        node = self._end.node(request.nodeid)
        value = await self._end.server.getextattr(node.cookie, 0, name, self._end.cred(request))
        return _value(request, size, value)

    async def setxattr(self, request: Request, flags: int, name: bytes, value: bytes) -> bytes:
        """Set an extended attribute."""
        self._end.need(VnOp.SETEXTATTR)
        node, cred = self._end.node(request.nodeid), self._end.cred(request)
        await self._end.server.setextattr(node.cookie, 0, name, value, flags, cred)
        return replies.error(request.unique, 0)

    async def listxattr(self, request: Request, size: int) -> Answer:
        """Return the names of extended attributes, or their length (`size` 0)."""
        self._end.need(VnOp.LISTEXTATTR)
        node = self._end.node(request.nodeid)
        names = await self._end.server.listextattr(node.cookie, 0, self._end.cred(request))
        return _value(request, size, names)

    async def removexattr(self, request: Request, name: bytes) -> bytes:
        """Remove an extended attribute."""
        self._end.need(VnOp.DELETEEXTATTR)
        node = self._end.node(request.nodeid)
        await self._end.server.deleteextattr(node.cookie, 0, name, self._end.cred(request))
        return replies.error(request.unique, 0)


def _value(request: Request, size: int, value: bytes) -> Answer:
    """Return the reply with a value, or with its length if `size` is 0. Errors: ERANGE."""
    if not size:
        return replies.count(request.unique, len(value))
    if len(value) > size:
        raise VfsError(errno.ERANGE)
    return replies.data_head(request.unique, len(value)), value
