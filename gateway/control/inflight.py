"""Requests under way: who waits, for how long, and in which layer of the stack each of them stands.

Read from the frames of the tasks (see `frames`), so that requests which nobody asks about cost
nothing, and one that hangs in a layer which knows nothing of all this is seen as well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from ...native.records import Cred
from .elements import Element, elements
from .ends import End, Request
from .frames import frames

_PACKAGE: Final = __name__.partition(".gateway.")[0] + "."
_ROOMS: Final = ("layers", "emul", "gateway")
_DISK: Final = "rumpuser"
"""The room of the emulated kernel in which disks are: `vnd`, and those of the host."""


def in_flight(end: End, limit: int) -> dict[str, Any]:
    """Return the requests under way, oldest first, at most `limit`, and how many there are."""
    found = end.requests()
    parts = elements(end)
    now = time.monotonic_ns()
    return {"count": len(found), "requests": [_shown(one, parts, now) for one in found[:limit]]}


def _shown(request: Request, parts: Sequence[Element], now: int) -> dict[str, Any]:
    at, where = standing(request.running, parts)
    who = request.who
    return {
        "operation": request.name,
        "path": request.path.decode("utf-8", "backslashreplace"),
        "seconds": round((now - request.since) / 1e9, 6) if request.since else None,
        "pid": None if who is None else who.pid,
        "uid": None if who is None else who.uid,
        "command": "" if who is None else _command(who),
        "layer": at,
        "element": parts[at - 1].name or "disk" if at else "puffs",
        "where": where,
    }


def standing(running: Any, parts: Sequence[Element]) -> tuple[int, str]:
    """Return the number of the layer in which a coroutine waits, and the function there.

    0 is the end on top, 1 the first of `parts`. Who goes down through the stack never comes back
    in the same chain of calls, so each frame belongs to the layer of the one before it
    or to the next one below that has its name.
    """
    at, where = 0, ""
    for frame in frames(running):
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(_PACKAGE):
            continue
        at = _layer(frame, module, parts, at)
        where = f"{module.removeprefix(_PACKAGE)}.{frame.f_code.co_qualname}"
    return at, where.replace(".<locals>", "")


def _layer(frame: FrameType, module: str, parts: Sequence[Element], at: int) -> int:
    me = frame.f_locals.get("self")
    if me is not None:
        for number in range(at, len(parts)):
            if parts[number].part is me:
                return number + 1
    room, _, rest = module.removeprefix(_PACKAGE).partition(".")
    if room not in _ROOMS:
        return at
    name = rest.partition(".")[0]
    if at and parts[at - 1].name == name:
        return at
    for number in range(at, len(parts)):
        if parts[number].name == name or (name == _DISK and not parts[number].is_asked):
            return number + 1
    return at


def _command(who: Cred) -> str:
    """Return the name of a process; empty if it has gone, or is none of this name space."""
    if who.pid <= 0:
        return ""
    try:
        name = Path(f"/proc/{who.pid}/comm").read_bytes()
    except OSError:
        return ""
    return name.rstrip(b"\n").decode("utf-8", "backslashreplace")
