"""What a living stack is made of, found from its top down by who stands on whom.

Each part that has one below it says so by the attribute `below`; the walk is made anew each time,
so that it shows the truth also when layers come and go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...layers.joint import Stander
from ...layers.ops import FileServer
from ...layers.passing import Passing
from ..stack import SEPARATOR
from .ends import End

if TYPE_CHECKING:
    from ...emul.kernel import Kernel

_DEPTH_MAX: Final = 256
"""Most parts of a stack: a string of 255 octets names fewer."""


class Element(NamedTuple):
    """One part of a stack: its name in the string, itself, and who stands on it."""

    name: str
    part: Any
    above: Any

    @property
    def is_server(self) -> bool:
        """Whether it is a file server, above and below which pass-throughs may stand."""
        return isinstance(self.part, FileServer)

    @property
    def is_asked(self) -> bool:
        """Whether it answers operations on nodes: all but disks do."""
        return self.is_server or hasattr(self.part, "lookup")


def elements(end: End) -> list[Element]:
    """Return the parts below `end`, top first."""
    return list(_walk(end))


def _walk(end: End) -> Iterator[Element]:
    above: Stander = end
    part: Any = end.server
    for _ in range(_DEPTH_MAX):
        if part is None:
            return
        yield Element(_name(part), part, above)
        above, part = part, getattr(part, "below", None)


def _name(part: Any) -> str:
    """Return what a part is called in a stack; a disk of the host is called nothing there."""
    if isinstance(part, Passing):
        return part.name
    typename: str = part.kargs.typename if isinstance(part, FileServer) else part.typename
    return typename.partition(SEPARATOR)[0]


def trace(end: End) -> str:
    """Return the string of the stack as it is now, from the uppermost file server on.

    Behind the last part in this process comes what that one knows of the rest.
    """
    found = elements(end)
    names = [element.name for element in found if element.name]
    last = found[-1].part
    if isinstance(last, FileServer):
        rest = last.kargs.typename
    else:
        rest = last.typename
    return SEPARATOR.join([*names, *rest.split(SEPARATOR)[1:]] if rest else names)


def kernels(end: End) -> list[Kernel]:
    """Return the emulated kernels of the stack, upper ones first."""
    found = {}
    for _, part, _ in elements(end):
        mount = getattr(part, "mount", None)
        if mount is not None:
            found[id(mount.kernel)] = mount.kernel
    return list(found.values())


def figures(part: Any) -> dict[str, Any]:
    """Return the statistics of a part, by name; nested where the part has parts of its own."""
    found: dict[str, Any] = {}
    statistics = getattr(part, "statistics", None)
    if statistics is not None:
        found |= _plain(statistics())
    mount = getattr(part, "mount", None)
    if mount is not None and part is not mount.fs:  # the fs has a mount as well: its own
        kernel = mount.kernel
        found["kernel"] = _plain(kernel.statistics())
        found["name cache"] = _plain(kernel.namecache.statistics())
        found["buffers"] = _plain(kernel.bufs.statistics())
        found["pages"] = _plain(kernel.pages.statistics())
        found["syncer"] = _plain(kernel.syncer.statistics())
        found["locks"] = {"advisory": len(kernel.lockf)}
    return found


def options(part: Any) -> dict[str, Any]:
    """Return the options of a part, by name."""
    found = getattr(part, "options", None)
    if found is None or not dataclasses.is_dataclass(found) or isinstance(found, type):
        return {}
    return {field.name: _value(getattr(found, field.name)) for field in dataclasses.fields(found)}


def _plain(found: Any) -> dict[str, Any]:
    items = found if isinstance(found, dict) else found._asdict()
    return {name: _value(value) for name, value in items.items()}


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict) or hasattr(value, "_asdict"):
        return _plain(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_value(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)
