"""What each request touches, and a request's turn in the order of a session's requests.

The shapes below say for each kind of request what `order.py` asks. A request by one path is
*placed* when its parent directory is known, and *found* when it is known what its last name leads
to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ...native import sftp_server as sftp
from ...native.constants import Vtype
from .due import Due
from .nodes import Node
from .order import (
    ALL,
    ALTER,
    ALTERS,
    END,
    LOOK,
    LOOKS,
    SYNC,
    TOUCH,
    At,
    Claim,
    Handle,
    Name,
    Part,
    Parts,
    Traffic,
)

Needs = Callable[[Node, bytes], Parts]


def _looks_at(parent: Node, name: bytes) -> Parts:
    return Part(Name(parent, name), LOOK), Part(At(parent, name), LOOK)


def _alters_at(parent: Node, name: bytes) -> Parts:
    return Part(Name(parent, name), LOOK), Part(At(parent, name), ALTER)


def _alters_name(parent: Node, name: bytes) -> Parts:
    return Part(Name(parent, name), ALTER), Part(parent, TOUCH)


def _makes_or_alters(parent: Node, name: bytes) -> Parts:
    return (*_alters_name(parent, name), Part(At(parent, name), ALTER))


def _looks_at_found(turn: Turn) -> Parts:
    return LOOKS if turn.node is None else (Part(turn.node, LOOK),)


def _alters_found(turn: Turn) -> Parts:
    node = turn.node
    # Who may search a directory concerns all below it.
    return ALTERS if node is None or node.vtype == Vtype.VDIR else (Part(node, ALTER),)


def _makes_or_opens(turn: Turn) -> Parts:
    if turn.node is None:
        assert turn.parent is not None
        return _alters_name(turn.parent, turn.name)
    is_cut = turn.request.pflags & sftp.FXF_TRUNC
    return (Part(turn.node, ALTER if is_cut else LOOK),)


class Shape(NamedTuple):
    """What a request by one path touches.

    `wide` is what it touches as long as nothing is known; `needs` what it needs when it is placed.
    `found` gives what it holds when it is found; None: it follows no link in the last place, and
    holds what it needs as soon as it is placed.
    """

    wide: Parts
    needs: Needs | None = None
    found: Callable[[Turn], Parts] | None = None


_LOOK: Final = Shape(LOOKS, _looks_at, _looks_at_found)
_LOOK_AT_LINK: Final = Shape(LOOKS, _looks_at)
_MAKE: Final = Shape(ALTERS, _alters_name)
_OPEN_OR_MAKE: Final = Shape(ALTERS, _makes_or_alters, _makes_or_opens)
_ALONE: Final = Shape(ALTERS)
_NOTHING: Final = Shape(())

_SHAPES: Final[dict[type[Any], Shape]] = {
    sftp.Lstat: _LOOK_AT_LINK,
    sftp.Readlink: _LOOK_AT_LINK,
    sftp.Stat: _LOOK,
    sftp.Opendir: _LOOK,
    sftp.StatvfsRequest: _LOOK,
    sftp.Realpath: Shape(LOOKS),
    sftp.ExpandPath: Shape(LOOKS),
    sftp.Setstat: Shape(ALTERS, _alters_at, _alters_found),
    sftp.Lsetstat: Shape(ALTERS, _alters_at),
    sftp.Remove: _MAKE,
    sftp.Mkdir: _MAKE,
    sftp.Symlink: _MAKE,
    # A directory may be among what they rename, and with it all that is below.
    sftp.Rmdir: _ALONE,
    sftp.Rename: _ALONE,
    sftp.PosixRename: _ALONE,
    sftp.Hardlink: _ALONE,
}


def shape_of(request: Any) -> Shape:
    """Return the shape of a request that names no handle."""
    if type(request) is sftp.Open:
        pflags = request.pflags
        if not pflags & sftp.FXF_CREAT:
            return _OPEN_OR_MAKE if pflags & sftp.FXF_TRUNC else _LOOK
        return _MAKE if pflags & sftp.FXF_EXCL else _OPEN_OR_MAKE
    return _SHAPES.get(type(request), _NOTHING)


class Opened(Handle):
    """An open handle as far as order is concerned: the node behind it."""

    __slots__ = ("appends", "due", "is_dirty", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.due: deque[Due] | None = None
        """Answers that are owed through the handle and wait for an earlier one (due.py)."""
        self.appends = False
        """Whether writes go to the end of the file, wherever that is."""
        self.is_dirty = False
        """Written to since the last flush; a clean file's close asks nobody."""


def handle_parts(request: Any, opened: Opened) -> Parts:
    """Return what a request through a handle touches."""
    handle, node = Part(opened, LOOK), opened.node
    kind = type(request)
    if kind is sftp.Read:
        return handle, Part(node, LOOK, request.offset, request.offset + request.length)
    if kind is sftp.Write:
        if opened.appends:
            return handle, Part(node, ALTER)
        return handle, Part(node, ALTER, request.offset, request.offset + len(request.data))
    if kind is sftp.Fsetstat:
        return handle, Part(node, ALTER)
    if kind is sftp.Fsync:
        return handle, Part(node, SYNC)
    if kind is sftp.Readdir:
        return Part(opened, ALTER), Part(ALL, LOOK)
    if kind is sftp.Close:
        return (Part(opened, ALTER),)
    return handle, Part(node, LOOK)


def copy_parts(request: sftp.CopyData, source: Opened, target: Opened) -> Parts:
    """Return what COPY-DATA touches."""
    end = request.read_offset + request.length if request.length else END
    return (
        Part(source, LOOK),
        Part(target, LOOK),
        Part(source.node, LOOK, request.read_offset, end),
        Part(target.node, ALTER),
    )


class Turn:
    """The turn of the one request that a worker has; used again for the next.

    The walk of a path reports here how far it is (`placed`, `found`): while no request waits that
    costs a few assignments, and what is held is made of them only when somebody asks.
    """

    __slots__ = (
        "_is_found",
        "_parts",
        "_traffic",
        "claim",
        "due",
        "name",
        "node",
        "opened",
        "parent",
        "request",
        "target",
    )

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self.request: Any = None
        self.claim: Claim | None = None
        self.parent: Node | None = None
        self.name = b""
        self.node: Node | None = None
        self.opened: Opened | None = None
        """What the request's handle named when it came, where it had to wait for its turn: it may
        have been closed by now, or this is the CLOSE."""
        self.target: Opened | None = None
        """The same for the second handle of COPY-DATA."""
        self.due: Due | None = None
        """Where its answer stands among those of its handle, once it had to wait."""
        self._is_found = False
        self._parts: Parts | None = None

    def begin(self, request: Any) -> None:
        """Take the next request."""
        self.request = request
        self.claim = self.due = None
        self.parent = self.node = self.opened = self.target = self._parts = None
        self._is_found = False

    def end(self) -> None:
        """Be done with the request."""
        claim = self.claim
        if claim is not None:
            self.claim = None
            self._traffic.leave(claim)

    def placed(self, parent: Node, name: bytes) -> bool:
        """Hear that the path is `name` in `parent`; return whether to await `replaced`."""
        if self.claim is None:
            self.parent = parent
            self.name = name
            return False
        if self.parent is parent and self.name == name:
            self.claim.hold(self.holds())
            return False
        return True

    async def replaced(self, parent: Node, name: bytes) -> None:
        """Hear that the path leads elsewhere than was thought when the request came."""
        await self.widen()
        self.parent = parent
        self.name = name
        if self.claim is not None:
            self.claim.hold(self.holds())

    def found(self, node: Node | None) -> None:
        """Hear to what the path leads: a node that is no link to be followed, or nothing."""
        self._is_found = True
        self.node = node
        if self.claim is not None:
            self.claim.hold(self.holds())

    def narrow(self, parts: Parts) -> None:
        """Hear that the request touches `parts` and nothing else."""
        self._parts = parts
        if self.claim is not None:
            self.claim.hold(parts)

    async def widen(self) -> None:
        """Hear that the path goes on by a link: wait for what the request may meet from now on."""
        if self.claim is not None:
            await self._traffic.widen(self.claim, shape_of(self.request).wide)

    def enter(self, placed: tuple[Node, bytes] | None, parts: Parts | None) -> Claim:
        """Claim, behind all requests in flight, what the request touches, and return the claim.

        `parts` is that for a request through handles; `placed` where a path is known to lead.
        """
        self._parts = parts
        if parts is not None:
            self.claim = self._traffic.enter(parts, parts, parts)
            return self.claim
        shape = shape_of(self.request)
        if placed is None or shape.needs is None:
            needs = shape.wide
        else:
            self.parent, self.name = placed
            needs = shape.needs(*placed)
        self.claim = self._traffic.enter(needs, self.holds(), shape.wide)
        return self.claim

    def start(self, parts: Parts | None) -> None:
        """Claim what the request touches: it has begun alone, and now it has to wait."""
        if parts is not None:
            self._parts = parts
        holds = self.holds()
        self.claim = self._traffic.enter((), holds, holds)

    def holds(self) -> Parts:
        """Return what the request touches as far as is known."""
        if self._parts is not None:
            return self._parts
        shape = shape_of(self.request)
        if shape.needs is None or self.parent is None:
            return shape.wide
        if shape.found is None:
            return shape.needs(self.parent, self.name)
        return shape.found(self) if self._is_found else shape.wide
