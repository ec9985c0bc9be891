"""Requests of the host under way: found in the frames of the tasks that work on them.

Every handler runs inside `handlers.answer`, whose frame has everything: the handler, its arguments
and when it began. So nothing is kept for each request, and looking costs who looks.
"""

from __future__ import annotations

from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from pyfuse3 import RequestContext

from ...native.records import Cred
from .ends import Request, tasks
from .frames import frames

if TYPE_CHECKING:
    from ..handlers import FuseEnd

_BY_FILE: Final = frozenset(
    {"read", "write", "flush", "fsync", "release", "readdir", "releasedir", "fsyncdir"}
)
"""Requests whose first argument is an open file; that of the others is a node's number."""


def requests(end: FuseEnd) -> list[Request]:
    """Return the requests of `end` that are under way, oldest first."""
    found = []
    for task in tasks():
        for frame in frames(task.coro):
            if frame.f_code.co_name == "answer" and frame.f_locals.get("self") is end:
                found.append(_request(end, frame, task))
                break
    return sorted(found, key=lambda request: request.since)


def _request(end: FuseEnd, frame: FrameType, task: Any) -> Request:
    names = frame.f_locals
    args = names["args"]
    name = names["handler"].__name__
    return Request(name, _path(end, name, args), _who(end, name, args), names["_since"], task)


def _path(end: FuseEnd, name: str, args: tuple[Any, ...]) -> bytes:
    if not args or not isinstance(args[0], int):
        return b""
    if name in _BY_FILE:
        node = end.node_of(args[0])
    else:
        try:
            node = end.nodes.by_ino(args[0])
        except KeyError:
            return b""
    path = None if node is None else end.nodes.path(node)
    if path is None:
        path = b"(gone)"
    if len(args) > 1 and isinstance(args[1], bytes) and "xattr" not in name and name != "write":
        path = path.rstrip(b"/") + b"/" + args[1]
    return path


def _who(end: FuseEnd, name: str, args: tuple[Any, ...]) -> Cred | None:
    for argument in reversed(args):
        if isinstance(argument, RequestContext):
            return end.cred(argument)
    return end.cred_of(args[0]) if args and name in _BY_FILE else None
