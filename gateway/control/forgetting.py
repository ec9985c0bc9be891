"""Dropping what is remembered of a path: by the layers, and by the host.

Layers that remember something of their own accord have a coroutine `forget(path)` (psshfs), and
tell the kernels above, up to the host, what no longer holds. Where none has, the host is told of
the nodes that it knows there.
"""

from __future__ import annotations

from typing import Final

from ...native.constants import FlushOp
from .elements import elements
from .server import Living

FORGET_SECONDS: Final = 10.0
"""How long it may take: the host may be holding a lock for a request under way."""


async def forget(living: Living, path: bytes) -> None:
    """Drop what is remembered at `path` (from the root of the mount) and below it."""
    for element in elements(living.end):
        if not element.is_asked:
            break  # a disk: names below it are others
        if hasattr(element.part, "forget"):
            await element.part.forget(path)
            return
    upcalls = living.end.upcalls
    if upcalls is None:
        return
    for cookie in living.end.known_below(path):
        for op in _OF_A_NODE:
            await upcalls.flush(op, cookie)


_OF_A_NODE: Final = (
    FlushOp.INVAL_NAMECACHE_NODE,
    FlushOp.INVAL_NAMECACHE_DIR,
    FlushOp.INVAL_PAGECACHE_NODE_RANGE,
)
