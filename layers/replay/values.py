"""What a trace says that operations came to, beside what they came to elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from ..outcomes import Seen, difference, value_of
from ..trace import Event

Maybe: TypeAlias = Seen | None
"""None: it was left out."""


class Difference(NamedTuple):
    """Where two runs part: at which event, and in what (`outcomes.difference`)."""

    at: int
    event: Event
    kind: str
    expected: Seen
    seen: Seen


def recorded(event: Event) -> Maybe:
    """Return what an operation of a trace came to; None without an answer."""
    if event.outcome < 0:
        return None
    if event.outcome:
        return Seen(event.outcome)
    value = value_of(event.name, event.result)
    if event.name == "readdir":
        value = value._replace(is_whole=value.is_whole and event.args[1] == 0)
    return Seen(0, value)


def compared(
    events: Sequence[Event], expected: Sequence[Maybe], seen: Sequence[Maybe]
) -> Iterator[Difference]:
    """Yield where what was seen is not what was expected, in the order of `events`."""
    for index, (event, one, other) in enumerate(zip(events, expected, seen, strict=True)):
        if one is None or other is None:
            continue
        kind = difference(one, other)
        if kind:
            yield Difference(index, event, kind, one, other)
