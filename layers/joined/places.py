"""Places: the paths at which trees hang, and those that lead to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ...native.constants import NAME_MAX
from ..ops import FileServer


class Place:
    """One place. `children` are the places below it, `server` what hangs here, None for nothing."""

    __slots__ = ("children", "name", "parent", "server")

    def __init__(self, parent: Place | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.children: dict[bytes, Place] = {}
        self.server: FileServer | None = None

    def __iter__(self) -> Iterator[Place]:
        """Give this place and all below it, parents before children, in the order of names."""
        yield self
        for _, child in sorted(self.children.items()):
            yield from child


_SPECIAL: Final = frozenset((b"", b".", b".."))


def planted(trees: Mapping[bytes, FileServer]) -> Place:
    """Return the root of the places of `trees`.

    Errors: ValueError for a path that is not "/" and not names behind a slash each, and for a file
    server that is there twice, which could not tell whom it hears.
    """
    root = Place(None, b"")
    servers: list[FileServer] = []
    for path, server in trees.items():
        if any(server is other for other in servers):
            raise ValueError(f"the tree at {path!r} is at another place as well")
        servers.append(server)
        place = root
        for name in _names(path):
            if name not in place.children:
                place.children[name] = Place(place, name)
            place = place.children[name]
        place.server = server
    return root


def _names(path: bytes) -> list[bytes]:
    if path == b"/":
        return []
    first, *names = path.split(b"/")
    if first or not names:
        raise ValueError(f"a tree hangs at a path that begins with a slash, not at {path!r}")
    for name in names:
        if name in _SPECIAL or len(name) > NAME_MAX or b"\0" in name:
            raise ValueError(f"there is no directory {name!r} for a tree to hang at: {path!r}")
    return names
