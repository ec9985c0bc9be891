"""Joints: putting a pass-through between two file servers of a stack that is in use.

A stack has no joints until one is needed, so they cost nothing: what stands above a place (the host
end, a half of puffs, another pass-through) is told to stand on somebody else (`stand_on`). Cookies
are the same on both sides of a pass-through, so nobody notices but by what it does.

Requests that are under way end in the layers in which they have begun. Who takes a layer out may
close it at once only if it stands that, as those in this folder do.
"""

from __future__ import annotations

from typing import Protocol

from .ops import FileServer
from .passing import Passing


class Stander(Protocol):
    """Who asks a file server, and can be told to ask another one with the same cookies."""

    def stand_on(self, server: FileServer, /) -> None:
        """Ask `server` from now on."""
        ...


def joined_up(above: Stander, layers: list[Passing], below: FileServer) -> None:
    """Put `layers`, top first, between `above` and `below`, and nothing else.

    All are told anew, from the lowest on: a pass-through may keep operations of the one below it.
    """
    for layer in reversed(layers):
        layer.stand_on(below)
        below = layer
    above.stand_on(below)
