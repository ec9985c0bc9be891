"""The frames of a task that waits, from where it began down to what it waits in.

A coroutine that awaits another one says so; so the whole way is there to be read, without anything
having been noted. What is driven by hand (a coroutine inside of a generator's local) is found by
its name there.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

_DEPTH_MAX: Final = 1000
_DRIVEN: Final = "operation"
"""The local in which `layers.resume` has the coroutine that it drives by hand."""


def frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, outermost first. Frames of C code are left out."""
    for _ in range(_DEPTH_MAX):
        if coroutine is None:
            return
        frame = _first(coroutine, "cr_frame", "gi_frame", "ag_frame")
        below = _first(coroutine, "cr_await", "gi_yieldfrom", "ag_await")
        if frame is not None:
            yield frame
            if below is None:
                below = _driven(frame)
        coroutine = below


def _first(thing: Any, *names: str) -> Any:
    for name in names:
        found = getattr(thing, name, None)
        if found is not None:
            return found
    return None


def _driven(frame: FrameType) -> Any:
    if _DRIVEN not in frame.f_code.co_varnames:
        return None
    found = frame.f_locals.get(_DRIVEN)
    return found if hasattr(found, "cr_frame") else None
