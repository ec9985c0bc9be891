"""Telling the kernel above that what its caches hold is no longer right."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from ...native.constants import FlushOp
from ...native.errors import VfsError
from ...native.records import Cookie
from ..ops import Upcalls


class Flusher:
    """Sends flushes from tasks of its own in `nursery`: an operation must never wait for one.

    `upcalls` is None until the kernel above has introduced itself; nothing is sent then. One
    flush of a node is under way at a time, so there are never more tasks than nodes.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flushing: set[int] = set()
        self.upcalls: Upcalls | None = None

    def request(self, op: FlushOp, cookie: Cookie) -> None:
        """Ask for a flush of a node; returns at once."""
        if self.upcalls is not None and cookie not in self._flushing:
            self._flushing.add(cookie)
            self._nursery.start_soon(self._flush, self.upcalls, op, cookie)

    async def _flush(self, upcalls: Upcalls, op: FlushOp, cookie: Cookie) -> None:
        try:
            await upcalls.flush(op, cookie)
        except VfsError:
            pass  # the kernel above is going away, and its caches with it
        finally:
            self._flushing.discard(cookie)

    async def flush_all(self, root: Cookie, nodes: Iterable[tuple[FlushOp, Cookie]]) -> None:
        """Have all names dropped, and of each node what goes with it; return when that is done."""
        if self.upcalls is None:
            return
        try:
            await self.upcalls.flush(FlushOp.INVAL_NAMECACHE_ALL, root)
            for op, cookie in nodes:
                await self.upcalls.flush(op, cookie)
        except VfsError:
            pass  # as above
