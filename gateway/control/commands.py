"""What may be asked on a control socket: one table of names, arguments and who answers.

Whoever answers does not wait for a layer of the stack; what takes time (`forget`) is bounded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import trio

from . import kernels
from .elements import elements, figures, options, trace
from .faults import Faults, changed
from .forgetting import FORGET_SECONDS, forget
from .inflight import in_flight
from .protocol import ControlError
from .server import Living, Looking

LISTED_MAX: Final = 100_000
"""Most lines in one answer."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a command that takes none."""


class Many(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a command that lists: how many at most."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=LISTED_MAX)] = 200


@dataclass(frozen=True)
class Asked:
    """Of what mount something is asked, and what lives as long as who asks stays."""

    living: Living
    looking: Looking


async def answer(living: Living, name: str, args: dict[str, Any], looking: Looking) -> Any:
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


async def _in_flight(asked: Asked, wish: Many) -> dict[str, Any]:
    return in_flight(asked.living.end, wish.limit)


async def _vnodes(asked: Asked, wish: Many) -> dict[str, Any]:
    return kernels.vnodes(asked.living.end, wish.limit)


async def _buffers(asked: Asked, wish: Many) -> dict[str, Any]:
    return kernels.buffers(asked.living.end, wish.limit)


async def _locks(asked: Asked, wish: Many) -> dict[str, Any]:
    return kernels.locks(asked.living.end, wish.limit)


async def _metrics(asked: Asked, _: Nothing) -> str:
    from .metrics import page

    return page(asked.living).decode()


# Reaching into the stack.


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pass-through and where it is to stand, or stands: see `joints`."""

    name: str
    place: str = ""
    words: list[str] = []


async def _insert(asked: Asked, wish: Place) -> str:
    await asked.living.joints.insert(wish.name, wish.place, wish.words)
    return trace(asked.living.end)


async def _remove(asked: Asked, wish: Place) -> str:
    asked.living.joints.remove(wish.name, wish.place)
    return trace(asked.living.end)


async def _measure(asked: Asked, _: Nothing) -> dict[str, Any]:
    """Return what went by since who asks has asked before; the first time, nothing."""
    from .measuring import measuring

    if asked.looking.measuring is None:
        asked.looking.measuring = asked.looking.enter_context(
            measuring(asked.living.end, asked.living.joints)
        )
    return asked.looking.measuring.take()


async def _faults(asked: Asked, wish: Faults) -> list[dict[str, Any]]:
    return await changed(asked.living, wish)


class Path(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A path from the root of the mount."""

    path: bytes


async def _forget(asked: Asked, wish: Path) -> str:
    with trio.move_on_after(FORGET_SECONDS) as scope:
        await forget(asked.living, wish.path)
    if scope.cancelled_caught:
        raise ControlError(
            f"not everything could be dropped within {FORGET_SECONDS:g} s; a request under way "
            "keeps the host from it"
        )
    return trace(asked.living.end)


_Do = Callable[[Asked, Any], Awaitable[Any]]

_COMMANDS: Final[dict[str, tuple[type[msgspec.Struct], _Do]]] = {
    "list": (Nothing, _list),
    "status": (Nothing, _status),
    "inflight": (Many, _in_flight),
    "vnodes": (Many, _vnodes),
    "buffers": (Many, _buffers),
    "locks": (Many, _locks),
    "metrics": (Nothing, _metrics),
    "measure": (Nothing, _measure),
    "insert": (Place, _insert),
    "remove": (Place, _remove),
    "faults": (Faults, _faults),
    "forget": (Path, _forget),
}
