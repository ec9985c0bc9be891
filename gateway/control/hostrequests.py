"""Requests of the host under way, from the handlers that are running: see gateway/handlers.py.

A handler is a coroutine that waits; its frame has the arguments. Nothing else is kept of a request
but when it began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...native.records import Cred
from .ends import Request

if TYPE_CHECKING:
    from ..handlers import FuseEnd
    from ..nodes import Node


def requests(end: FuseEnd) -> list[Request]:
    """Return the requests of `end` that are under way, oldest first."""
    found = []
    for running, since in end.under_way.items():
        frame = running.cr_frame
        if frame is not None:
            names = frame.f_locals
            name = frame.f_code.co_name
            found.append(Request(name, _path(end, names), _who(end, names), since, running))
    return sorted(found, key=lambda request: request.since)


def _path(end: FuseEnd, names: dict[str, Any]) -> bytes:
    """Return what a request is about; the arguments are called as pyfuse3 has them."""
    node: Node | None = None
    if "fh" in names:
        node = end.node_of(names["fh"])
    else:
        for argument in ("inode", "parent_inode", "parent_inode_old"):
            if argument in names:
                node = end.nodes.known(names[argument])
    path = (None if node is None else end.nodes.path(node)) or b"(gone)"
    for argument in ("name", "name_old"):
        is_name = "parent_inode" in names or "parent_inode_old" in names
        if is_name and isinstance(names.get(argument), bytes):
            return path.rstrip(b"/") + b"/" + bytes(names[argument])
    return path


def _who(end: FuseEnd, names: dict[str, Any]) -> Cred | None:
    if "ctx" in names:
        return end.cred(names["ctx"])
    return end.cred_of(names["fh"]) if "fh" in names else None
