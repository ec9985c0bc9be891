"""Operations of a trace, done again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ...native.errors import VfsError
from ...native.records import Cookie, Cred, lookup_cn
from ..operations import GIVING, Operation
from ..ops import FileServer
from ..outcomes import Names, Seen, length, value_of
from ..trace import Event
from .values import Maybe, recorded

_SKIPPED: Final = frozenset({"unmount", "fhtonode", "nodetofh", "print"})
"""Operations that are not done again: they end it, or speak of what only one server knows."""
_LISTING: Final = 64 * 1024


@dataclass
class Run:
    """What came of a replay: for each of `events`, what the trace says and what was seen."""

    events: list[Event]
    expected: list[Maybe] = field(default_factory=list)
    seen: list[Maybe] = field(default_factory=list)

    @property
    def skipped(self) -> int:
        """How many operations were left out."""
        return sum(value is None for value in self.seen)


class _Player:
    """The server, and which of its nodes those of the trace are."""

    def __init__(self, server: FileServer, root: int) -> None:
        self._server = server
        self._root = server.kargs.root.cookie
        self._nodes: dict[int, Cookie] = {root: self._root}
        self._held: Counter[Cookie] = Counter()
        self._vague: set[int] = set()
        """Nodes of the trace to which data were written that it does not have."""
        self._opens: Counter[tuple[Cookie, int, Cred]] = Counter()

    async def play(self, event: Event) -> Maybe:
        """Do an operation; None: it was left out."""
        operation = event.operation
        if operation.name in _SKIPPED or event.outcome < 0:
            return None
        args = self._args(operation, event.args)
        if args is None:
            return None
        if not operation.waits:
            self._tell(operation.name, args, event)
            return Seen(0)
        try:
            if operation.name == "readdir":
                return Seen(0, await self._listing(args, event))
            result = await getattr(self._server, operation.name)(*args)
        except VfsError as exc:
            return Seen(exc.errno)
        if operation.name == "open":
            self._opens[args] += 1
        elif operation.name in GIVING and result.cookie:
            self._found(result.cookie, 0 if event.outcome else event.result.cookie)
        elif operation.name == "write" and not isinstance(event.args[2], bytes):
            self._vague.add(event.args[0])
        elif operation.name == "read" and event.args[0] in self._vague:
            return Seen(0, len(result))
        return Seen(0, value_of(operation.name, result))

    def _args(self, operation: Operation, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return arguments with our cookies; None when a node is not known."""
        mapped = list(args)
        for at, (name, kind) in enumerate(operation.parameters):
            if kind in (Cookie, Cookie | None) and args[at] is not None:
                mapped[at] = self._nodes.get(args[at])
                if mapped[at] is None:
                    return None
            elif name == "data" and not isinstance(args[at], bytes):
                mapped[at] = bytes(length(args[at]))
        return tuple(mapped)

    def _found(self, cookie: Cookie, theirs: int) -> None:
        """Count a lookup that our server has given."""
        if cookie != self._root:
            self._held[cookie] += 1
        if theirs:
            self._nodes[theirs] = cookie

    def _tell(self, name: str, args: tuple[Any, ...], event: Event) -> None:
        if name == "reclaim":
            count = min(self._held[args[0]], args[1])
            if count:
                self._held[args[0]] -= count
                self._server.reclaim(args[0], count)
            if not self._held[args[0]]:
                self._nodes.pop(event.args[0], None)
        elif name == "close":
            if self._opens[args]:
                self._opens[args] -= 1
                self._server.close(*args)
        else:
            getattr(self._server, name)(*args)

    async def _listing(self, args: tuple[Any, ...], event: Event) -> Names:
        """List a directory as a whole: where an answer ends is every server's own business."""
        opc, cred, offset, is_end = args[0], args[4], 0, False
        names = set()
        while not is_end:
            entries, is_end = await self._server.readdir(opc, offset, _LISTING, 0, cred)
            if not entries:
                break
            names |= {entry.name for entry in entries}
            offset = entries[-1].offset
        for entry in event.result[0] if not event.outcome else ():
            if entry.newinfo is not None:
                info = await self._server.lookup(opc, lookup_cn(entry.name, cred))
                if info.cookie:
                    self._found(info.cookie, entry.newinfo.cookie)
        return Names(frozenset(names), True)

    async def end(self) -> None:
        """Give everything back."""
        for opened, count in self._opens.items():
            for _ in range(count):
                self._server.close(*opened)
        for cookie, count in self._held.items():
            if count > 0:
                self._server.reclaim(cookie, count)


async def replay(server: FileServer, events: Iterable[Event], *, paced: bool = False) -> Run:
    """Do `events`, of one layer, again on `server`, which stays the caller's and mounted.

    `paced`: each begins no earlier than in the trace, after the first. What the trace found must
    be there: the tree has to be as it was when the trace began.
    """
    run = Run(sorted(events, key=lambda event: event.start))
    if not run.events:
        return run
    run.expected = [recorded(event) for event in run.events]
    run.seen = [None] * len(run.events)
    player = _Player(server, run.events[0].info.root)
    begin = trio.current_time()
    first = run.events[0].start
    running: list[tuple[int, trio.Event]] = []

    async def one(index: int, done: trio.Event) -> None:
        run.seen[index] = await player.play(run.events[index])
        done.set()

    async with trio.open_nursery() as nursery:
        for index, event in enumerate(run.events):
            for end, done in running:
                if end <= event.start:
                    await done.wait()
            running = [(end, done) for end, done in running if not done.is_set()]
            if paced:
                await trio.sleep_until(begin + (event.start - first) / 1e9)
            end = event.start + event.duration
            is_alone = index + 1 == len(run.events) or run.events[index + 1].start >= end
            if is_alone and not running:
                run.seen[index] = await player.play(event)
                continue
            done = trio.Event()
            running.append((end, done))
            nursery.start_soon(one, index, done)
    await player.end()
    return run
