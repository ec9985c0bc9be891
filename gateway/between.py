"""Elements that stand between two file servers: their words behind `-o`, and how they are built."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .status import CommandError, Status
from .words.options import Settings, WordGroup, WordSpec, file_name, number, octets, takes

if TYPE_CHECKING:
    from ..emul.vfs import FileSystem
    from ..layers.fault import Place, Rules
    from ..layers.ops import FileServer
    from .stack import Ground


@asynccontextmanager
async def null(below: Any, _ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that does nothing."""
    from ..layers.null import Null

    yield Null(below)


@asynccontextmanager
async def readonly(below: Any, _ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that lets nobody write."""
    from ..layers.readonly import Readonly

    yield Readonly(below)


def _rate(text: str) -> int:
    found = number(text)
    if not found:
        raise ValueError("nothing would ever pass; give a number from 1 on")
    return found


def _octet_rate(text: str) -> int:
    found = octets(text)
    if not found:
        raise ValueError("nothing would ever pass; give a size from 1 on")
    return found


def _milliseconds(text: str) -> float:
    return number(text) / 1000


def _kept(value: str) -> str:
    if value not in ("length", "digest", "full"):
        raise ValueError("give length, digest or full")
    return value


THROTTLE_GROUP: Final = WordGroup(
    "throttle options",
    {
        "throttle_ops": WordSpec(takes("operations", _rate), "operations a second", "N"),
        "throttle_rate": WordSpec(takes("octets", _octet_rate), "octets a second", "SIZE"),
        "throttle_delay": WordSpec(takes("latency", _milliseconds), "ms each takes longer", "MS"),
    },
)


@asynccontextmanager
async def throttle(below: Any, ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that takes its time."""
    from ..layers.throttle import Pace, Throttle

    yield Throttle(below, Pace(**ground.settings[THROTTLE_GROUP.title]))


TRACE_GROUP: Final = WordGroup(
    "trace options",
    {
        "trace": WordSpec(takes("file", file_name), "record everything in this file", "FILE"),
        "trace_data": WordSpec(
            takes("keep", _kept), "of file data: length (default), digest or full", "WHAT"
        ),
    },
)


@asynccontextmanager
async def trace(below: Any, ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element that writes everything down."""
    async with recorded(below, ground.settings[TRACE_GROUP.title]) as server:
        yield server


@asynccontextmanager
async def recorded(below: FileServer, settings: Settings) -> AsyncIterator[FileServer]:
    """Have everything written down as the settings of TRACE_GROUP say. Errors: CommandError."""
    from ..layers.trace import DataKept, traced

    file = settings.get("file")
    if file is None:
        raise CommandError(Status.USAGE, "trace needs to be told where to write: -o trace=FILE")
    try:
        recording = traced(below, Path(file), DataKept(settings.get("keep", "length")))
        async with recording as server:
            yield server
    except OSError as exc:
        if exc.filename != file:
            raise
        raise CommandError(
            Status.USAGE, f"option 'trace={file}': {exc.strerror}; give a file to write to"
        ) from None


FAULT_GROUP: Final = WordGroup(
    "fault options",
    {
        "faults": WordSpec(takes("file", file_name), "rules of what is to go wrong", "FILE"),
    },
)


def read_rules(faults: Settings) -> Rules:
    """Return the rules that the settings of FAULT_GROUP name, if any. Errors: CommandError."""
    from ..layers.fault import Rules, RulesError, parse_rules

    file = faults.get("file")
    if file is None:
        return Rules()
    try:
        return parse_rules(Path(file).read_text())
    except OSError as exc:
        reason = exc.strerror
    except (RulesError, UnicodeDecodeError) as exc:
        reason = str(exc)
    raise CommandError(Status.USAGE, f"option 'faults={file}': {reason}")


def bind_rules(rules: Rules, places: Iterable[Place]) -> None:
    """Refuse rules for places that do not exist. Errors: CommandError."""
    from ..layers.fault import RulesError

    try:
        rules.bind(places)
    except RulesError as exc:
        raise CommandError(Status.USAGE, f"option 'faults': {exc}") from None


@asynccontextmanager
async def fault(below: Any, ground: Ground) -> AsyncIterator[FileServer]:
    """Build the element in which things go wrong."""
    from ..layers.fault import Faulty

    yield Faulty(below, ground.rules)


@asynccontextmanager
async def puffs_by_faulty_frames(below: Any, rules: Rules) -> AsyncIterator[FileSystem]:
    """Build a puffs whose frames go over a socket, on which things go wrong."""
    import socket

    import trio

    from ..layers.fault import faulty_wire
    from ..layers.puffs import StreamServer, puffs_over_socket
    from ..layers.puffs.putter import Putter

    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        served = StreamServer(below, Putter.of_socket(theirs))
        nursery.start_soon(served.serve)
        with ours:
            async with (
                faulty_wire(ours, "frames", rules) as wire,
                puffs_over_socket(wire.socket, below.kargs) as fs,
            ):
                fs.half = served.half  # puffsctl looks beyond the wire
                yield fs
