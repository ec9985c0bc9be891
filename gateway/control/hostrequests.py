"""Requests of the host under way: those that had to wait, as their workers have them.

What is answered from memory never shows, and costs nothing; for what waits the worker keeps the
request and when it began to wait (service.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...native import device_requests
from ...native.fuse_protocol import Opcode
from ..host.service import opcode_name
from .ends import Request

if TYPE_CHECKING:
    from ..host.handlers import FuseEnd

_BY_FILE: Final = frozenset(
    {
        Opcode.READ,
        Opcode.WRITE,
        Opcode.FLUSH,
        Opcode.FSYNC,
        Opcode.RELEASE,
        Opcode.READDIRPLUS,
        Opcode.RELEASEDIR,
        Opcode.FSYNCDIR,
    }
)
"""Requests whose first argument is an open file."""
_BY_NAME: Final = frozenset(
    {
        Opcode.LOOKUP,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.LINK,
        Opcode.CREATE,
    }
)
"""Requests about a name of the directory; it is the first of their arguments that is one."""


def requests(end: FuseEnd) -> list[Request]:
    """Return the requests of `end` that are under way, oldest first."""
    return [
        Request(
            opcode_name(worker.request.opcode),
            _path(end, worker.request),
            end.cred(worker.request),
            worker.since,
            worker.operation,
        )
        for worker in end.service.waiting.values()
    ]


def _path(end: FuseEnd, request: device_requests.Request) -> bytes:
    node = end.files.node_of(request.args[0]) if request.opcode in _BY_FILE else None
    if node is None:
        node = end.nodes.known(request.nodeid)
    path = (None if node is None else end.nodes.path(node)) or b"(gone)"
    if request.opcode in _BY_NAME:
        name = next(arg for arg in request.args if isinstance(arg, bytes))
        path = path.rstrip(b"/") + b"/" + name
    return path
