"""Telling the kernel above that what its caches hold is no longer right."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import trio

from ....native.constants import FlushOp
from ....native.errors import VfsError
from ....native.records import Cookie
from ...ops import Upcalls


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

    async def flush_name(self, directory: Cookie, name: bytes) -> None:
        """Have one name of a directory dropped; return when that is done."""
        if self.upcalls is not None:
            with suppress(VfsError):  # as above
                await self.upcalls.flush(FlushOp.INVAL_NAMECACHE_NAME, directory, name=name)

    async def flush_all(self, nodes: Iterable[tuple[FlushOp, Cookie]]) -> None:
        """Have dropped what each pair says, in this order; return when that is done."""
        if self.upcalls is None:
            return
        try:
            for op, cookie in nodes:
                await self.upcalls.flush(op, cookie)
        except VfsError:
            pass  # as above
