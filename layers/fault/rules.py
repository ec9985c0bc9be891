"""Rules, and which fault is due. Values and counters; nothing waits here, and nothing is broken.

Chance comes from one generator for each rule, made of the seed and the rule's number. It is asked
once for each operation that matches and for nothing else: what happens depends on the operations
that match, in their order, and not on what else goes on.
"""

from __future__ import annotations

import errno as _errno
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from random import Random
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import msgspec
import trio

from ...native.errors import VfsError
from ...native.records import Buffer, Cred
from ..operations import BY_NAME

Place: TypeAlias = Literal["server", "frames", "sftp", "fuse"]

LOSABLE: Final = frozenset(
    "write fsync sync rename remove rmdir setextattr deleteextattr fallocate fdiscard "
    "close reclaim abortop".split()
)
"""Operations of a file server whose success can be told without doing anything."""
UNASKED: Final = frozenset({"unmount", "inactive", "close", "reclaim", "abortop"})
"""Operations that a rule without `op` is not for: no program asks for them."""

_SHORTENED: Final = frozenset({"read", "write"})
_FAULTS: Final = ("errno", "hang", "short", "flip", "lost", "torn", "reorder", "death")


class RulesError(Exception):
    """Rules make no sense; the text says which and why."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule; see the package's text. Delays are seconds, sizes octets."""

    name: str = ""
    place: Place = "server"
    op: str | list[str] = []
    path: str | None = None
    pid: int | None = None
    uid: int | None = None
    nth: int | None = None
    every: int | None = None
    probability: float | None = None
    times: int | None = None
    errno: str | None = None
    after: bool = False
    delay: float = 0.0
    hang: bool = False
    short: int | None = None
    flip: int | None = None
    lost: bool = False
    torn: int | None = None
    reorder: int | None = None
    death: bool = False

    @property
    def operations(self) -> frozenset[str]:
        """The operations that it names; empty: all that are asked for."""
        return frozenset([self.op] if isinstance(self.op, str) else self.op)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: int = 0
    rule: list[Rule] = []


class Taken(NamedTuple):
    """A rule that holds: by what name, how often it matched and was taken, how many hang by it."""

    name: str
    rule: Rule
    matched: int
    taken: int
    hanging: int


class Fault:
    """What is to go wrong with one operation."""

    __slots__ = ("_live", "rule")

    def __init__(self, live: _Live) -> None:
        self.rule = live.rule
        self._live = live

    @property
    def error(self) -> VfsError | None:
        """The failure that it ends with."""
        name = self.rule.errno
        return None if name is None else VfsError(getattr(_errno, name), "fault")

    async def wait(self) -> None:
        """Wait as long as the rule says: its delay, and until it is released if it hangs."""
        if self.rule.delay:
            await trio.sleep(self.rule.delay)
        if self.rule.hang:
            self._live.waiting += 1
            try:
                await self._live.released.wait()
            finally:
                self._live.waiting -= 1

    def flipped(self, data: Buffer) -> bytes:
        """Return data with as many bits turned over as the rule says."""
        octets = bytearray(data)
        if octets:
            for _ in range(self.rule.flip or 0):
                octets[self._live.random.randrange(len(octets))] ^= (
                    1 << self._live.random.randrange(8)
                )
        return bytes(octets)


@dataclass
class _Live:
    """A rule in use: how often it matched and how often it was taken."""

    name: str
    rule: Rule
    random: Random
    names: frozenset[str]
    matched: int = 0
    taken: int = 0
    waiting: int = 0
    released: trio.Event = field(default_factory=trio.Event)

    def is_due(self) -> bool:
        rule = self.rule
        self.matched += 1
        # The generator is asked in any case, so that `times` does not change what comes later.
        lucky = rule.probability is None or self.random.random() < rule.probability
        if rule.times is not None and self.taken >= rule.times:
            return False
        if rule.nth is not None and self.matched != rule.nth:
            return False
        if rule.every is not None and self.matched % rule.every:
            return False
        if lucky:
            self.taken += 1
        return lucky


class Rules:
    """The rules that hold now. They may be changed at any time; nothing waits.

    A rule is called as it says, or by its number, from 1 on in the order in which rules came.
    """

    def __init__(self, rules: Sequence[Rule] = (), seed: int = 0) -> None:
        self._seed = seed
        self._made = 0
        self._live: list[_Live] = []
        self._places: frozenset[Place] = frozenset(get_args(Place))
        for rule in rules:
            self.add(rule)

    def __len__(self) -> int:
        return len(self._live)

    def bind(self, places: Iterable[Place]) -> None:
        """Refuse rules for other places, which do not exist here, now and later.

        Errors: RulesError.
        """
        self._places = frozenset(places)
        for live in self._live:
            self._check_place(live.rule, live.name)

    def add(self, rule: Rule) -> str:
        """Have one more rule, after the others; return its name. Errors: RulesError."""
        name = rule.name or str(self._made + 1)
        checked(rule, name)
        self._check_place(rule, name)
        self._made += 1
        random = Random(f"{self._seed}/{self._made}")
        self._live.append(_Live(name, rule, random, rule.operations))
        return name

    def extend(self, text: str) -> list[str]:
        """Have the rules of a file besides; return their names. Errors: RulesError, and has none.

        The file's seed is not used: chance is that of the first file.
        """
        rules = _parsed(text).rule
        for number, rule in enumerate(rules, self._made + 1):
            name = rule.name or str(number)
            checked(rule, name)
            self._check_place(rule, name)
        return [self.add(rule) for rule in rules]

    def remove(self, name: str) -> int:
        """Have the rules of this name no longer; what hangs by them goes on. Return how many."""
        self.release(name)
        kept = [live for live in self._live if live.name != name]
        count = len(self._live) - len(kept)
        self._live = kept
        return count

    def clear(self) -> None:
        """Have no rules any more; what hangs is released."""
        self.release()
        self._live = []

    def release(self, name: str | None = None) -> int:
        """Let go on what hangs by the rules of this name (None: by any); return how many."""
        count = 0
        for live in self._live:
            if name is None or live.name == name:
                count += live.waiting
                live.released.set()
                live.released = trio.Event()
        return count

    def _check_place(self, rule: Rule, name: str) -> None:
        if rule.place not in self._places:
            known = ", ".join(sorted(self._places)) or "none"
            raise RulesError(f"rule {name}: there is no place '{rule.place}' here (there: {known})")

    def statistics(self) -> list[Taken]:
        """Return what has come of each rule."""
        return [
            Taken(live.name, live.rule, live.matched, live.taken, live.waiting)
            for live in self._live
        ]

    def wants_paths(self, place: Place) -> bool:
        """Return whether a rule for `place` asks for paths."""
        return any(live.rule.path is not None and live.rule.place == place for live in self._live)

    def due(
        self, place: Place, name: str, path: bytes = b"", cred: Cred | None = None
    ) -> Fault | None:
        """Return the fault of the first rule that takes this operation. All that match count it."""
        found = None
        for live in self._live:
            if _matches(live, place, name, path, cred) and live.is_due() and found is None:
                found = Fault(live)
        return found


def _matches(live: _Live, place: Place, name: str, path: bytes, cred: Cred | None) -> bool:
    rule = live.rule
    if rule.place != place:
        return False
    if name not in live.names if live.names else name in UNASKED:
        return False
    if rule.pid is not None and (cred is None or cred.pid != rule.pid):
        return False
    if rule.uid is not None and (cred is None or cred.uid != rule.uid):
        return False
    return rule.path is None or fnmatchcase(path.decode("utf-8", "surrogateescape"), rule.path)


def parse_rules(text: str) -> Rules:
    """Return the rules of a file. Errors: RulesError."""
    found = _parsed(text)
    return Rules(found.rule, found.seed)


def _parsed(text: str) -> _File:
    try:
        return msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise RulesError(str(exc)) from None


def checked(rule: Rule, called: str) -> None:
    """Return if a rule, called so, makes sense. Errors: RulesError."""

    def refuse(why: str) -> None:
        raise RulesError(f"rule {called}: {why}")

    values: dict[str, Any] = {name: getattr(rule, name) for name in _FAULTS}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if len(given) > 1:
        refuse(f"{given[0]} and {given[1]} are two faults; write two rules")
    if not given and not rule.delay:
        refuse(f"it says no fault (delay, {', '.join(_FAULTS)})")
    for name in rule.operations:
        if name not in BY_NAME:
            refuse(f"there is no operation '{name}'")
    if rule.errno is not None and not _is_errno(rule.errno):
        refuse(f"'{rule.errno}' is no error, such as EIO")
    for name in ("nth", "every", "times", "flip", "reorder"):
        value = getattr(rule, name)
        if value is not None and value < 1:
            refuse(f"{name} has to be 1 at least")
    for name in ("short", "torn", "delay"):
        if (getattr(rule, name) or 0) < 0:
            refuse(f"{name} cannot be less than nothing")
    if rule.probability is not None and not 0 <= rule.probability <= 1:
        refuse("a probability lies between 0 and 1")
    if rule.after and rule.errno is None:
        refuse("'after' says when an errno comes, and there is none")
    if rule.place == "server":
        _checked_for_server(rule, refuse)
    elif rule.path is not None:
        refuse(f"messages have no paths: leave out 'path' for place '{rule.place}'")
    elif rule.short is not None and not (rule.operations and rule.operations <= _SHORTENED):
        refuse("short is for read, write: name them as op")


def _is_errno(name: str) -> bool:
    return name.startswith("E") and isinstance(getattr(_errno, name, None), int)


def _checked_for_server(rule: Rule, refuse: Any) -> None:
    allowed = {
        "lost": (rule.lost, LOSABLE),
        "torn": (rule.torn is not None, frozenset({"write"})),
        "short": (rule.short is not None, _SHORTENED),
        "flip": (rule.flip is not None, frozenset({"read", "write", "readlink", "getextattr"})),
    }
    for name, (is_given, operations) in allowed.items():
        if is_given and not (rule.operations and rule.operations <= operations):
            refuse(f"{name} is for {', '.join(sorted(operations))}: name them as op")
