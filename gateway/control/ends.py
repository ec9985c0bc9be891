"""Ends: what stands on top of a stack in this process, as one who looks into the stack sees it.

The host's end is gateway/host/handlers.py; where the stack is cut and frames leave the process
it is a `served.ServedEnd`. Both are asked for the requests that they have under way. Next to
nothing is kept of these: what there is to say is read from the coroutine that works on each.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, NamedTuple, Protocol

import trio

from ...layers.ops import FileServer, Upcalls
from ...native.records import Cookie, Cred


class Request(NamedTuple):
    """A request under way. `since` is ns of CLOCK_MONOTONIC, 0 where nobody has noted it.

    `path` is what it is about, as far as the end knows; `who` is None where it is not said.
    `running` is the coroutine that works on it.
    """

    name: str
    path: bytes
    who: Cred | None
    since: int
    running: Coroutine[Any, Any, Any]


class End(Protocol):
    """What stands on the uppermost file server."""

    @property
    def server(self) -> FileServer:
        """The uppermost file server."""
        ...

    @property
    def upcalls(self) -> Upcalls | None:
        """Who drops what the kernel above remembers; None before the mount is there."""
        ...

    def stand_on(self, server: FileServer, /) -> None:
        """See layers.joint.Stander."""
        ...

    def statistics(self) -> Any:
        """Return figures, by name."""
        ...

    def requests(self) -> list[Request]:
        """Return what is under way now."""
        ...

    def path(self, cookie: Cookie) -> bytes | None:
        """Return the path by which a node was last found, "/" first; None if it is not known."""
        ...

    def known_below(self, path: bytes) -> list[Cookie]:
        """Return the nodes known at `path` and below it, upper ones first."""
        ...


def tasks() -> Iterator[trio.lowlevel.Task]:
    """Yield all tasks of this process; must be asked from one of them."""
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        yield task
        for nursery in task.child_nurseries:
            todo.extend(nursery.child_tasks)
