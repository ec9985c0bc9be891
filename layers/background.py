"""Tasks that last as long as a block of code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background(
    *tasks: Callable[[], Awaitable[None]],
) -> AsyncIterator[trio.Nursery]:
    """Run tasks beside the body; cancel them at its end. The body's exception comes out bare."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
        try:
            yield nursery
        except BaseException as exc:
            # Not through the nursery, which would put it into a group of one.
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
