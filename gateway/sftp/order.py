"""In which order the requests of one session take effect.

OpenSSH's server does one thing at a time, and clients that send several requests at once count
on it. The rule here: **the answers are those of a server that does one request at a time, in the
order of arrival**. (The draft asks the same, section 6.1, of requests on one file.) Requests
that cannot tell each other's order run side by side; replies leave as they come.

To that end each request that has to wait says what it touches, in *parts*, and how:

    LOOK   it reads attributes, data or a name
    TOUCH  it changes a directory by changing a name in it; two such changes commute
    ALTER  it changes the part itself
    SYNC   it makes durable what was there before it; what comes later does not mind

A part is everything (ALL), a node, a span of a file's octets, a name in a directory (`Name`), the
node that a name leads to before it is known which one (`At`), or an open handle. Two requests
clash when one's parts meet the other's in modes of which the table says so. A request *needs*
parts: it waits for earlier ones that hold what clashes with them. It *holds* parts: later ones
that need what clashes with those wait for it. The two differ while a request does not know where
its path leads: it needs only the name that it will look at first, and holds all that it might
find there (a link to anywhere). As its walk gets on it narrows what it holds, or, at a link, widens
what it needs to what it held all the time. So a request waits for requests that arrived before it
and for no others, and there is no deadlock.

Nothing of this is done while no request waits for the file server: the one at a time that a
session then does is the order already.

What the rule leaves out. Link counts and times of the last access, which version 3 shows in
`longname` only or not at all. And, as the draft allows, reads and writes of one file that do not
overlap may change places: a write beyond the end of a file makes zeros before it, which a read sent
behind it may miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple, TypeAlias

import trio

from ...native.constants import Vtype
from .nodes import Node

LOOK: Final = 0
TOUCH: Final = 1
ALTER: Final = 2
SYNC: Final = 3

_CLASHES: Final = (
    # later:
    # LOOK, TOUCH, ALTER, SYNC
    (False, True, True, False),  # earlier: LOOK
    (True, False, True, True),  # TOUCH
    (True, True, True, True),  # ALTER
    (False, False, False, False),  # SYNC
)
END: Final = 2**64
"""Behind the last octet of any file."""


class Name(NamedTuple):
    """The name `name` in the directory `parent`."""

    parent: Node
    name: bytes


class At(NamedTuple):
    """The node to which `name` in `parent` leads, whichever that is."""

    parent: Node
    name: bytes


class Everything:
    """All nodes and all names."""


ALL: Final = Everything()


class Handle:
    """An open handle, as a part: what is done with one is done in order, and CLOSE last."""

    __slots__ = ()


Key: TypeAlias = Everything | Node | Name | At | Handle


class Part(NamedTuple):
    """Something that a request touches, and how. `start` and `end` count for octets of a node."""

    key: Key
    mode: int
    start: int = 0
    end: int = END


Parts: TypeAlias = Sequence[Part]

LOOKS: Final = (Part(ALL, LOOK),)
_ALTERS_ALL: Final = Part(ALL, ALTER)
ALTERS: Final = (_ALTERS_ALL,)


def do_meet(one: Key, other: Key) -> bool:
    """Return whether two parts have something in common, as far as can be told."""
    if one is ALL or other is ALL:
        return not (isinstance(one, Handle) or isinstance(other, Handle))
    if type(one) is type(other):
        return one == other
    if isinstance(one, At) and isinstance(other, Node):
        return _leads_to(one, other)
    if isinstance(one, Node) and isinstance(other, At):
        return _leads_to(other, one)
    return False


def _leads_to(at: At, node: Node) -> bool:
    """Return whether a name may lead to a node: any name to any file, for files have several, but
    only its own to a directory."""
    if node.is_root:
        return False
    if node.vtype != Vtype.VDIR or node.place is None:
        return True
    parent, name = node.place
    return parent is at.parent and name == at.name


def do_clash(earlier: Parts, later: Parts) -> bool:
    """Return whether what needs `later` must wait for what holds `earlier`."""
    for key, mode, start, end in earlier:
        row = _CLASHES[mode]
        for other, as_what, from_, to in later:
            if row[as_what] and start < to and from_ < end and do_meet(key, other):
                return True
    return False


class Claim:
    """What one request in flight needs and holds; see `Traffic`."""

    __slots__ = ("_blockers", "_holds", "_needs", "_task", "_waiting", "is_active")

    def __init__(self, needs: Parts, holds: Parts) -> None:
        self._needs = needs
        self._holds = holds
        self._blockers = 0
        self._waiting: list[Claim] = []
        self._task: trio.lowlevel.Task | None = None
        self.is_active = True

    @property
    def is_free(self) -> bool:
        """Whether no earlier request stands in the way."""
        return not self._blockers

    async def wait(self) -> None:
        """Wait until no earlier request stands in the way."""
        if not self._blockers:
            return
        self._task = trio.lowlevel.current_task()

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def hold(self, parts: Parts) -> None:
        """Narrow what is held to `parts`; who waited for more goes on."""
        self._holds = parts
        if self._waiting:
            self._waiting = [claim for claim in self._waiting if not claim._is_freed_by(parts)]

    def need(self, parts: Parts, earlier: Iterable[Claim]) -> bool:
        """Need `parts`; those of `earlier` that hold what clashes with them stand in the way.

        Return whether one of these may move directories.
        """
        self._needs = parts
        is_moving = False
        for claim in earlier:
            holds = claim._holds
            if do_clash(holds, parts) and self not in claim._waiting:
                claim._waiting.append(self)
                self._blockers += 1
                is_moving = is_moving or _ALTERS_ALL in holds
        return is_moving

    def end(self) -> None:
        """Hold nothing any more."""
        self.is_active = False
        self.hold(())

    def _is_freed_by(self, parts: Parts) -> bool:
        """Hear to what an earlier claim has narrowed; return whether it matters no more."""
        if not self.is_active:
            return True
        if do_clash(parts, self._needs):
            return False
        self._blockers -= 1
        if not self._blockers and self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
        return True


class Traffic:
    """The claims of a session's requests in flight, in the order of arrival."""

    def __init__(self) -> None:
        self._claims: dict[Claim, None] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def enter(self, needs: Parts, holds: Parts, wide: Parts) -> Claim:
        """Add a request behind all others. Await `Claim.wait` before it touches anything.

        Where it has to wait for something that may move directories it holds `wide`, all that it
        may come to touch: its path may lead elsewhere then.
        """
        claim = Claim(needs, holds)
        if needs and claim.need(needs, self._claims):
            claim.hold(wide)
        self._claims[claim] = None
        return claim

    async def widen(self, claim: Claim, parts: Parts) -> None:
        """Wait for those before `claim` that hold what clashes with `parts`, which it holds."""
        claim.need(parts, takewhile(lambda earlier: earlier is not claim, self._claims))
        await claim.wait()

    def leave(self, claim: Claim) -> None:
        """Take a request out, whether it has been done or not."""
        del self._claims[claim]
        claim.end()
