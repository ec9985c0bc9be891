"""One thing that was found out about a server."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple


class Verdict(Enum):
    """How good it is."""

    WORKS = "works"
    LACKS = "lacks"
    """It is not there; the text says what that means for a mount."""
    FAILS = "fails"
    """It should be there and does not work."""
    TELLS = "tells"
    """A figure or a fact, neither good nor bad."""


class Finding(NamedTuple):
    """`topic` is one or two words; `text` one line; `value` the figure in it, for programs."""

    topic: str
    verdict: Verdict
    text: str
    value: float | int | str | None = None


Tell = Callable[[Finding], None]
"""Takes a finding as soon as there is one."""
