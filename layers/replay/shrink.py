"""A small trace that fails in the same way as a long one.

What an operation of the trace came to says nothing about a part of the trace: without the write
before it, a read gives something else on any file system. So each part is done on two servers,
the suspect and one that is believed, and it fails when these two differ.

The parts are those of delta debugging (Zeller, Hildebrandt: Simplifying and Isolating
Failure-Inducing Input, 2002), after what cannot matter was cut: all after the first difference,
and, if it still fails, all that does not touch the nodes of the operation that differs, and all
that only looks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, TypeAlias

from ..operations import CHANGING
from ..ops import FileServer
from ..trace import Event
from .server import replay
from .values import Difference, compared

Make: TypeAlias = Callable[[], AbstractAsyncContextManager[FileServer]]
"""Makes a server with an empty tree, or one that is as it was when the trace began."""


class First(NamedTuple):
    """The first difference of two servers, as far as two of them are the same failure."""

    operation: str
    kind: str
    errno: int


def _failure(difference: Difference) -> First:
    return First(difference.event.name, difference.kind, difference.seen.errno)


async def first_difference(events: list[Event], suspect: Make, believed: Make) -> Difference | None:
    """Do `events` on both and return where they part first."""
    async with believed() as server:
        good = await replay(server, events)
    async with suspect() as server:
        run = await replay(server, events)
    return next(compared(run.events, good.seen, run.seen), None)


async def shrink(events: list[Event], suspect: Make, believed: Make) -> list[Event]:
    """Return a part of `events` on which the suspect differs in the same way; [] if it does not.

    Leaving out any one operation of it makes the failure another one, or none.
    """
    events = sorted(events, key=lambda event: event.start)
    found = await first_difference(events, suspect, believed)
    if found is None:
        return []
    failure = _failure(found)

    async def fails(part: list[Event]) -> bool:
        got = await first_difference(part, suspect, believed)
        return got is not None and _failure(got) == failure

    part = events[: found.at + 1]
    related = _related(part)
    if await fails(related):
        part = related
    elif not await fails(part):
        part = events  # something that ran at the same time has to do with it
    telling = _telling(part)
    if len(telling) < len(part) and await fails(telling):
        part = telling
    return await _minimized(part, fails)


def _related(events: list[Event]) -> list[Event]:
    """Return what touches the nodes of the last event, and how these were found."""
    touched = set(events[-1].operation.cookies(events[-1].args))
    named: set[int] = set()
    kept = []
    for event in reversed(events):
        cookies = set(event.operation.cookies(event.args))
        given = _given(event)
        if event is events[-1] or given & (touched | named) or cookies & touched:
            named |= cookies
            kept.append(event)
    return kept[::-1]


def _telling(events: list[Event]) -> list[Event]:
    """Return what changes something, the last event, and what finds their nodes for them."""
    kept = []
    known: set[int] = set()
    for event in events:
        is_needed = event.name in CHANGING or not _given(event) <= known
        if event is events[-1] or (is_needed and not event.outcome):
            kept.append(event)
            known |= _given(event)
    return kept


def _given(event: Event) -> set[int]:
    if event.outcome:
        return set()
    if event.name == "readdir":
        return {entry.newinfo.cookie for entry in event.result[0] if entry.newinfo is not None}
    cookie = getattr(event.result, "cookie", 0)
    return {cookie} if cookie else set()


async def _minimized(
    part: list[Event], fails: Callable[[list[Event]], Awaitable[bool]]
) -> list[Event]:
    """Leave out ever smaller pieces as long as it fails all the same."""
    pieces = 2
    while len(part) > 1:
        size = -(-len(part) // pieces)
        at = 0
        is_smaller = False
        while at < len(part):
            rest = part[:at] + part[at + size :]
            if rest and await fails(rest):
                part, is_smaller = rest, True
            else:
                at += size
        if size == 1 and not is_smaller:
            break
        pieces = min(len(part), pieces * 2) if size > 1 else len(part)
    return part
