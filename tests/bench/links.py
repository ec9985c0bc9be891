"""The links that everything is measured over, each with the scale that fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .rows import FULL, MIB, QUICK, Scale


@dataclass(frozen=True)
class Link:
    """One link: `round_trip` in seconds, `rate` in octets a second (None: no cap).

    `rounds` are done, fewer when they do not fit into `budget` seconds; of `rows` only (None: all).
    """

    key: str
    title: str
    round_trip: float
    rate: float | None
    scale: Scale
    quick: Scale
    rounds: int
    budget: float
    rows: frozenset[str] | None = None

    @property
    def is_direct(self) -> bool:
        """Tell whether nothing stands between client and server."""
        return not self.round_trip and not self.rate


_MIDDLE: Final = Scale(
    stream=128 * MIB,
    pages=200,
    share=3,
    crowd=800,
    creates=200,
    removes=200,
    renames=50,
    checkout=1000,
)
_MIDDLE_QUICK: Final = Scale(
    stream=32 * MIB,
    pages=50,
    files=400,
    directories=10,
    small=400,
    share=1,
    crowd=160,
    creates=40,
    removes=40,
    renames=10,
    checkout=200,
)
_FAR: Final = Scale(
    stream=64 * MIB,
    pages=25,
    small=800,
    each=50,
    share=1,
    crowd=240,
    creates=25,
    removes=25,
    renames=8,
    checkout=150,
)
_FAR_QUICK: Final = Scale(
    stream=32 * MIB,
    pages=10,
    files=200,
    directories=5,
    small=200,
    each=25,
    share=1,
    crowd=80,
    creates=10,
    removes=10,
    renames=4,
    checkout=50,
)

LINKS: Final[tuple[Link, ...]] = (
    Link("0", "round trip 0 (the loopback itself)", 0.0, None, FULL, QUICK, 5, 300.0),
    Link("20", "round trip 20 ms", 0.02, None, _MIDDLE, _MIDDLE_QUICK, 3, 720.0),
    Link("200", "round trip 200 ms", 0.2, None, _FAR, _FAR_QUICK, 3, 720.0),
    Link(
        *("100m", "100 Mbit/s, round trip 20 ms", 0.02, 12.5e6, _MIDDLE, _MIDDLE_QUICK, 3, 240.0),
        rows=frozenset({"read", "write", "tar", "create"}),
    ),
)
