"""What may be asked on a control socket: one table of names, arguments and who answers.

Whoever answers does not wait for a layer of the stack; what takes time (`forget`) is bounded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .elements import elements, figures, options, trace
from .protocol import ControlError
from .server import Living


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a command that takes none."""


@dataclass(frozen=True)
class Asked:
    """Of what mount something is asked, and what lives as long as who asks stays."""

    living: Living
    looking: AsyncExitStack


async def answer(living: Living, name: str, args: dict[str, Any], looking: AsyncExitStack) -> Any:
    """Return what is answered to a question. Errors: ControlError."""
    found = _COMMANDS.get(name)
    if found is None:
        raise ControlError(f"this mount knows no '{name}'; it is of another version")
    kind, do = found
    try:
        wish = msgspec.convert(args, kind, strict=True)
    except msgspec.ValidationError as exc:
        raise ControlError(f"{name}: {exc}") from None
    return await do(Asked(living, looking), wish)


def summary(living: Living) -> dict[str, Any]:
    """Return what `list` shows of a mount."""
    top = elements(living.end)[0].part
    return {
        "mountpoint": living.mountpoint,
        "special": top.kargs.mntfromname.decode("utf-8", "backslashreplace"),
        "type": ("" if living.is_part else "puffs|") + trace(living.end),
        "pid": os.getpid(),
        "uid": os.geteuid(),
        "program": living.program,
        "seconds": round(time.time() - living.began, 3),
        "part": living.is_part,
    }


async def _list(asked: Asked, _: Nothing) -> dict[str, Any]:
    return summary(asked.living)


async def _status(asked: Asked, _: Nothing) -> dict[str, Any]:
    return status(asked.living)


def status(living: Living) -> dict[str, Any]:
    """Return what a mount is, and its layers with their options and statistics."""
    top = {
        "name": "frames" if living.is_part else "puffs",
        "options": {},
        "statistics": dict(living.end.statistics()),
    }
    layers = [
        {
            "name": element.name or "disk",
            "options": options(element.part),
            "statistics": figures(element.part),
        }
        for element in elements(living.end)
    ]
    return summary(living) | {"notes": living.notes, "layers": [top, *layers]}


_Do = Callable[[Asked, Any], Awaitable[Any]]

_COMMANDS: Final[dict[str, tuple[type[msgspec.Struct], _Do]]] = {
    "list": (Nothing, _list),
    "status": (Nothing, _status),
}
