"""Waiting, at an unmount, for what the server does not have yet: as long as it gets less."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from ...background import background

if TYPE_CHECKING:
    from .parts import Parts

STALL_MAX: Final = 45.0
"""Seconds without any progress after which it is given up: a dead network is noticed in 30, by
default."""
_LOOK_EVERY: Final = 0.5


class Unsaved(NamedTuple):
    """How many files the server does not have as they are here, and how many octets of them."""

    files: int
    octets: int


Tell = Callable[[Unsaved], None]


def unsaved(server: Parts) -> Unsaved:
    """Count what was written and not confirmed."""
    waiting = server.writeback
    files = [node.file for node in server.table.nodes.values() if node.file is not None]
    writing = [file for file in files if file in waiting or not file.writes.is_idle]
    return Unsaved(len(writing), waiting.octets + sum(file.writes.octets for file in writing))


async def save(server: Parts, tell: Tell) -> bool:
    """Wait until all is answered, and return True; False when nothing was for STALL_MAX.

    `tell` is called twice a second meanwhile, and with zeros at the end if it was before.
    """
    limit = trio.current_time() + STALL_MAX
    with trio.CancelScope(deadline=limit) as scope:
        async with background(partial(_watch, server, tell, scope)):
            await server.writeback.drain()
            for node in list(server.table.nodes.values()):
                if node.file is not None:
                    await node.file.writes.drain()
    return not scope.cancelled_caught


async def _watch(server: Parts, tell: Tell, scope: trio.CancelScope) -> None:
    before: Unsaved | None = None
    try:
        while True:
            await trio.sleep(_LOOK_EVERY)
            left = unsaved(server)
            if left != before:
                scope.deadline = trio.current_time() + STALL_MAX
                before = left
            tell(left)
    finally:
        if before is not None:
            tell(Unsaved(0, 0))
