"""LockOrder: finds out that two tasks may wait for each other before they do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

from .callers import Callers
from .kthread import Lwp


class Ordered(Protocol):
    """A lock as the order sees it.

    Locks of one class count as one, unless the class `has_instances`: such locks (those of vnodes)
    have an order among themselves, whatever their class, and are a class to all others.
    """

    @property
    def lock_class(self) -> str:
        """What it protects, the same for all of its kind."""
        ...

    @property
    def has_instances(self) -> bool:
        """Whether locks of the class are told apart."""
        ...


class Held(Protocol):
    """A lock in the hands of a task."""

    @property
    def lock(self) -> Ordered:
        """The lock."""
        ...

    @property
    def at(self) -> Callers:
        """Where it was taken."""
        ...


_Node: TypeAlias = object  # the name of a class, or a lock of one that has instances


class _Edge(NamedTuple):
    """That somebody wanted a lock while he held another: the first time it was seen."""

    lwp: str
    held: str
    held_at: Callers
    wanted: str
    wanted_at: Callers

    def __str__(self) -> str:
        return (
            f"{self.lwp} wants {self.wanted} at {self.wanted_at}"
            f" while it holds {self.held}, taken at {self.held_at}"
        )


class LockOrder:
    """The order in which locks are taken by those who may have to wait for them.

    A graph: an edge leads from a lock that was held to one that was wanted. A new edge that closes
    a circle is a violation, and is not entered.
    """

    def __init__(self) -> None:
        self._after: dict[_Node, dict[_Node, _Edge]] = {}
        self._before: dict[_Node, set[_Node]] = {}

    def __len__(self) -> int:
        """Return the number of edges."""
        return sum(map(len, self._after.values()))

    def enter(self, lwp: Lwp, held: Iterable[Held], wanted: Ordered, at: Callers) -> str | None:
        """Note that `lwp` may wait for `wanted`; return what is wrong with that, if anything is."""
        for hold in held:
            lock = hold.lock
            a: _Node = lock
            b: _Node = wanted
            if not (lock.has_instances and wanted.has_instances):
                a, b = lock.lock_class, wanted.lock_class
            if b in self._after.get(a, ()):
                continue
            edge = _Edge(lwp.name, str(lock), hold.at, str(wanted), at)
            if a == b:
                return f"no order among locks of one class: {edge}"
            circle = self._path(b, a)
            if circle is not None:
                return "; but ".join(map(str, [f"order of locks: {edge}", *circle]))
            self._after.setdefault(a, {})[b] = edge
            self._before.setdefault(b, set()).add(a)
        return None

    def forget(self, lock: Ordered) -> None:
        """Forget what is known of one lock: it is no more, or has moved to another place."""
        for node in self._after.pop(lock, ()):
            self._before[node].discard(lock)
        for node in self._before.pop(lock, ()):
            self._after[node].pop(lock, None)

    def _path(self, start: _Node, end: _Node) -> list[_Edge] | None:
        """Return edges that lead from `start` to `end`, None when there is no way."""
        came: dict[_Node, _Edge | None] = {start: None}
        origin: dict[_Node, _Node] = {}
        queue = [start]
        for node in queue:
            if node == end:
                path = []
                while (edge := came[node]) is not None:
                    path.append(edge)
                    node = origin[node]
                return path[::-1]
            for following, edge in self._after.get(node, {}).items():
                if following not in came:
                    came[following] = edge
                    origin[following] = node
                    queue.append(following)
        return None
