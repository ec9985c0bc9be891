"""Elements that stand between two file servers: their words behind `-o`, and how they are built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from .options import WordGroup, WordSpec, number, octets, takes

if TYPE_CHECKING:
    from ..layers.ops import FileServer
    from .stack import Ground


@asynccontextmanager
async def null(below: Any, _ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that does nothing."""
    from ..layers.null import Null

    yield Null(below)


@asynccontextmanager
async def readonly(below: Any, _ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that lets nobody write."""
    from ..layers.readonly import Readonly

    yield Readonly(below)


def _rate(text: str) -> int:
    found = number(text)
    if not found:
        raise ValueError("nothing would ever pass; give a number from 1 on")
    return found


def _octet_rate(text: str) -> int:
    found = octets(text)
    if not found:
        raise ValueError("nothing would ever pass; give a size from 1 on")
    return found


def _milliseconds(text: str) -> float:
    return number(text) / 1000


THROTTLE_GROUP: Final = WordGroup(
    "throttle options",
    {
        "throttle_ops": WordSpec(takes("operations", _rate), "operations a second", "N"),
        "throttle_rate": WordSpec(takes("octets", _octet_rate), "octets a second", "SIZE"),
        "throttle_delay": WordSpec(takes("latency", _milliseconds), "ms each takes longer", "MS"),
    },
)


@asynccontextmanager
async def throttle(below: Any, ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that takes its time."""
    from ..layers.throttle import Pace, Throttle

    yield Throttle(below, Pace(**ground.settings[THROTTLE_GROUP.title]))
