"""Layers that come and go while the stack is in use, at places that are named in its string.

    puffs|HERE|psshfs        between these two
    HERE|psshfs              the same, if there is one psshfs only

What is asked for has to fit one place only; the whole string always does. An empty place is on top
of all, below the mount on the host, for what comes, and the only one of its name for what goes. A
layer of the stack's own string can go as well: it ends with the stack, and nobody asks it any more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ...layers.joint import joined_up
from ...layers.ops import FileServer
from ...layers.passing import Passing
from ..stack import ELEMENTS, SEPARATOR, Ground
from ..stack import Element as Kind
from ..status import CommandError
from ..words.options import parse_words
from .elements import elements
from .ends import End
from .protocol import HERE, NO_PLACE, ControlError

_log = logging.getLogger(__name__)

INSERTED_MAX: Final = 64
"""Most layers that may come to one stack."""
_BUILD_SECONDS: Final = 10.0


@dataclass(eq=False)
class Guest:
    """A layer that has come to a living stack, and goes when it is told to."""

    layer: Passing
    leave: trio.Event = field(default_factory=trio.Event)


class Joints:
    """The layers that have come to one stack. `nursery` is the mount's: they live in it."""

    def __init__(self, end: End, nursery: trio.Nursery) -> None:
        self._end = end
        self._nursery = nursery
        self._guests: list[Guest] = []

    def is_guest(self, part: Any) -> bool:
        """Return whether a layer has come while the stack lived."""
        return any(guest.layer is part for guest in self._guests)

    # Coming.

    async def insert(self, name: str, place: str, words: Sequence[str] = ()) -> Passing:
        """Build the element called `name` at `place`, with the words that it knows, and join it in.

        Errors: ControlError for a name, place or word that makes no sense, and what the element
        says when it is built.
        """
        kind = _kind(name)
        try:
            settings = parse_words(words, kind.groups)
        except CommandError as exc:
            raise ControlError(exc.message) from None
        titles = [group.title for group in kind.groups]
        ground = Ground("", False, dict(zip(titles, settings, strict=True)))
        below = self._parts()[self._gap(place)]
        return (await self._come(kind, ground, below)).layer

    async def _come(self, kind: Kind, ground: Ground, below: FileServer) -> Guest:
        if len(self._guests) >= INSERTED_MAX:
            raise ControlError(f"{INSERTED_MAX} layers have come already; take some out")
        there: list[Guest | Exception] = []
        done = trio.Event()
        self._nursery.start_soon(self._stay, kind, ground, below, there, done)
        with trio.move_on_after(_BUILD_SECONDS):
            await done.wait()
        if not there:
            raise ControlError(f"{kind.name} is not there after {_BUILD_SECONDS:g} s")
        if isinstance(there[0], Guest):
            return there[0]
        raise ControlError(str(there[0])) from there[0]

    async def _stay(
        self,
        kind: Kind,
        ground: Ground,
        below: FileServer,
        there: list[Guest | Exception],
        done: trio.Event,
    ) -> None:
        """Build a layer, join it in, and stay until it is told to leave (a task of the mount)."""
        guest: Guest | None = None
        try:
            async with kind.build(below, ground) as layer:
                guest = Guest(layer)
                self.join(layer, below)
                self._guests.append(guest)
                there.append(guest)
                done.set()
                await guest.leave.wait()
        except (CommandError, ControlError, OSError) as exc:
            there.append(exc)
        except Exception as exc:  # a bug of a layer that has come must not end the mount
            _log.exception("%s has failed and is taken out", kind.name)
            there.append(exc)
        finally:
            done.set()
            if guest is not None and guest in self._guests:
                self._guests.remove(guest)
                if guest.layer in self._parts():
                    self.part(guest.layer)

    def join(self, layer: Passing, below: FileServer) -> None:
        """Put a layer on top of `below`. Errors: ControlError when that has gone, or stands on
        something that does not let anything in between."""
        parts = self._parts()
        at = next((at for at, part in enumerate(parts) if part is below), None)
        if at is None:
            raise ControlError("the stack has changed meanwhile; try again")
        self._rejoin([*parts[:at], layer, *parts[at:]], at)

    # Going.

    def remove(self, name: str, place: str) -> None:
        """Take the pass-through called `name` out, which stands at HERE in `place`.

        What is under way in it ends there. Errors: ControlError.
        """
        self.remove_part(self._parts()[self._one(name, place)])

    def remove_part(self, part: Passing) -> None:
        """Take a pass-through of the stack out; it ends if it has come while the stack lived."""
        for guest in self._guests:
            if guest.layer is part:
                self._guests.remove(guest)
                self.part(part)
                guest.leave.set()
                return
        self.part(part)

    def part(self, layer: Passing) -> None:
        """Take a layer out of the stack."""
        parts = self._parts()
        at = next(at for at, part in enumerate(parts) if part is layer)
        self._rejoin([*parts[:at], *parts[at + 1 :]], at)

    # Places.

    def _parts(self) -> list[Any]:
        return [element.part for element in elements(self._end)]

    def _rejoin(self, parts: list[Any], at: int) -> None:
        """Have those around `parts[at]` stand on each other as `parts` says."""
        first = at
        while first and isinstance(parts[first - 1], Passing):
            first -= 1
        last = at
        while isinstance(parts[last], Passing):
            last += 1
        above = parts[first - 1] if first else self._end
        if not hasattr(above, "stand_on"):
            raise ControlError("nothing can come between these two")
        joined_up(above, parts[first:last], parts[last])

    def names(self) -> list[str]:
        """Return the names of the stack, with that of the end on top."""
        return ["puffs", *(element.name for element in elements(self._end) if element.name)]

    def _gap(self, place: str) -> int:
        """Return the number of the part on top of which `place` is."""
        if not place:
            return 0
        before, after = _sides(place)
        names, parts = self.names(), self._parts()
        fitting = [
            at
            for at, part in enumerate(parts)
            if isinstance(part, FileServer)
            and _ends(names[: at + 1], before)
            and names[at + 1 :][: len(after)] == after
        ]
        return _only(fitting, place, [self._shown(at, at) for at in fitting] or self._gaps())

    def _one(self, name: str, place: str) -> int:
        """Return the number of the pass-through called `name` that stands at `place`."""
        before, after = _sides(place)
        names, parts = self.names(), self._parts()
        fitting = [
            at
            for at, part in enumerate(parts)
            if isinstance(part, Passing)
            and part.name == name
            and _ends(names[: at + 1], before)
            and names[at + 2 :][: len(after)] == after
        ]
        if not fitting and not any(isinstance(p, Passing) and p.name == name for p in parts):
            raise ControlError(f"{NO_PLACE}: there is no {name} in {SEPARATOR.join(names)}")
        return _only(fitting, place, [self._shown(at, at + 1) for at in fitting])

    def _gaps(self) -> list[str]:
        parts = self._parts()
        return [self._shown(at, at) for at, p in enumerate(parts) if isinstance(p, FileServer)]

    def _shown(self, at: int, rest: int) -> str:
        names = self.names()
        return SEPARATOR.join([*names[: at + 1], HERE, *names[rest + 1 :]])


_FROM_THE_BEGINNING: Final = "compare"
"""What has to have seen all that was ever asked: it cannot come later."""


def _kind(name: str) -> Kind:
    coming = [e for e in ELEMENTS if e.passes and e.name != _FROM_THE_BEGINNING]
    for element in coming:
        if element.name == name:
            return element
    fitting = ", ".join(element.name for element in coming)
    raise ControlError(f"'{name}' cannot come between two layers; these can: {fitting}")


def _sides(place: str) -> tuple[list[str], list[str]]:
    """Return what stands above and below HERE in the name of a place; anything for none."""
    if not place:
        return [], []
    names = place.split(SEPARATOR)
    if names.count(HERE) != 1:
        raise ControlError(f"a place is named like puffs|{HERE}|psshfs, not like '{place}'")
    at = names.index(HERE)
    return names[:at], names[at + 1 :]


def _ends(names: list[str], tail: list[str]) -> bool:
    return not tail or names[-len(tail) :] == tail


def _only(fitting: list[int], place: str, shown: list[str]) -> int:
    if not fitting:
        raise ControlError(f"{NO_PLACE}, '{place}'; there are {', '.join(shown)}")
    if len(fitting) > 1:
        raise ControlError(f"'{place or HERE}' may be {' or '.join(shown)}; say which")
    return fitting[0]
