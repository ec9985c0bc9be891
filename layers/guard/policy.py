"""What is allowed at a path: rules, made into states that are walked name by name.

Which rule decides
------------------
A rule speaks of the paths that its own path matches, name by name, and of everything below them.
For each verb by itself, of all the rules that speak of a path and name the verb, the most specific
one decides:

1. the one with more names in its path, that is, the one that begins to speak deeper;
2. among those, the one that has a plain name where the other has a pattern, at the first name
   where they differ in this;
3. among those, the one that comes later.

Where none names the verb, `GuardSettings.allow` decides. So what is decided for a directory holds
below it until a deeper rule says otherwise, and a path's rights follow from its parent's, its own
name, and the rules that have matched so far: these are a `State`.

What may move where
-------------------
A name may be moved or linked only to where nothing more is allowed than where it is, for itself
and for all that may be below it (`Policy.widens`): what may not be read is not read by moving it,
nor by moving a directory above it. The comparison is of rules, not of what is there, and refuses
when in doubt. Because no move widens anything, no order of moves does.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from .settings import EVERYTHING, NOTHING, GuardSettings, Rule, Verb

SEEN: Final = 0x1000
"""Beside the verbs: whether a name is there at all for who asks. Only hiding takes it away."""
ALL: Final = int(EVERYTHING) | SEEN

_STEPS_MAX: Final = 4096
"""Names that a state remembers where they lead; more than these and all are forgotten."""
_ANSWERS_MAX: Final = 4096
_MAGIC: Final = frozenset(b"*?[")

Matcher = bytes | re.Pattern[bytes]


class _Compiled(NamedTuple):
    """A rule, ready to be matched. `rank` orders rules that begin at the same depth."""

    names: tuple[bytes, ...]
    matchers: tuple[Matcher, ...]
    allow: int
    deny: int
    rank: tuple[tuple[bool, ...], int]


class State:
    """What holds at a path. Two paths with the same rights and the same rules below share one.

    `rights` are Verb bits and SEEN. `active` are rules that may begin to speak further down, and
    how many of their names have been matched, in the order of their weight, the least first.
    """

    __slots__ = ("active", "rights", "steps")

    def __init__(self, rights: int, active: tuple[tuple[int, int], ...]) -> None:
        self.rights = rights
        self.active = active
        self.steps: dict[bytes, State] = {}


class Policy:
    """The rules of `settings`. `root` is the state of the root.

    `is_plain` says that one state is all there is, so that nobody need walk.
    """

    def __init__(self, settings: GuardSettings) -> None:
        hidden = [path for path in settings.hidden if b"/" in path]
        rules = [_compiled(rule, at) for at, rule in enumerate(settings.rules)]
        rules += [
            _compiled(Rule(path, NOTHING, Verb.LIST), len(rules) + at)._replace(deny=SEEN)
            for at, path in enumerate(hidden)
        ]
        # In the order of their weight, so that a state's `active` need not be sorted.
        self._rules = sorted(rules, key=lambda rule: (len(rule.names), rule.rank))
        self._hidden = [_matcher(name) for name in settings.hidden if b"/" not in name]
        self._states: dict[tuple[int, tuple[tuple[int, int], ...]], State] = {}
        self._answers: dict[tuple[State, State], bool] = {}
        rights = int(settings.allow) | SEEN
        active = []
        for at, rule in enumerate(self._rules):
            if rule.names:
                active.append((at, 0))
            else:
                rights = (rights | rule.allow) & ~rule.deny
        self.root = self._state(rights, tuple(active))
        self.is_plain = not active and not self._hidden

    def step(self, state: State, name: bytes) -> State:
        """Return the state of `name` in a directory whose state is `state`."""
        if not state.active and not self._hidden:
            return state
        known = state.steps.get(name)
        if known is None:
            known = self._step(state, name)
            if len(state.steps) >= _STEPS_MAX:
                state.steps.clear()
            state.steps[name] = known
        return known

    def _step(self, state: State, name: bytes) -> State:
        rights = state.rights
        active = []
        for at, matched in state.active:
            rule = self._rules[at]
            if not _matches(rule.matchers[matched], name):
                continue
            if matched + 1 < len(rule.names):
                active.append((at, matched + 1))
            else:
                rights = (rights | rule.allow) & ~rule.deny
        if any(_matches(pattern, name) for pattern in self._hidden):
            rights &= ~SEEN
        return self._state(rights, tuple(active))

    def walk(self, path: bytes) -> State:
        """Return the state of an absolute path without "." and ".."."""
        state = self.root
        for name in path.split(b"/"):
            if name:
                state = self.step(state, name)
        return state

    def widens(self, old: State, new: State) -> bool:
        """Return whether something more may be allowed at `new` or below than at `old`.

        May be True although nothing is, never False although something is.
        """
        if new is old:
            return False
        answer = self._answers.get((old, new))
        if answer is None:
            answer = bool(new.rights & ~old.rights) or any(
                self._widens_below(old, new, verb) for verb in _bits(ALL)
            )
            if len(self._answers) >= _ANSWERS_MAX:
                self._answers.clear()
            self._answers[old, new] = answer
        return answer

    def _widens_below(self, old: State, new: State, verb: int) -> bool:
        """Compare what may begin to speak of `verb` below.

        A denial that only the new place has makes that narrower, an allowance that only the old
        one has makes that wider: without these two both must be the same, in the same order.
        """
        was = list(self._below(old, verb))
        will = list(self._below(new, verb))
        if old.rights & verb and all(entry[1] for entry in was):
            return False  # all of it was allowed everywhere
        if not (new.rights & verb or any(entry[1] for entry in will)):
            return False  # none of it will be anywhere
        kept = [entry for entry in was if not entry[1] or entry in will]
        met = [entry for entry in will if entry[1] or entry in was]
        return kept != met

    def _below(self, state: State, verb: int) -> Iterator[tuple[tuple[bytes, ...], bool]]:
        """Yield what is left of the paths of active rules that name `verb`, and what they say."""
        for at, matched in state.active:
            rule = self._rules[at]
            if verb & (rule.allow | rule.deny):
                yield rule.names[matched:], bool(verb & rule.allow)

    def _state(self, rights: int, active: tuple[tuple[int, int], ...]) -> State:
        key = rights, active
        state = self._states.get(key)
        if state is None:
            # Few: one for each set of rules that some path matches.
            state = self._states[key] = State(rights, active)
        return state


def _compiled(rule: Rule, at: int) -> _Compiled:
    names = tuple(name for name in rule.path.split(b"/") if name)
    matchers = tuple(_matcher(name) for name in names)
    plain = tuple(isinstance(matcher, bytes) for matcher in matchers)
    return _Compiled(names, matchers, int(rule.allow), int(rule.deny), (plain, at))


def _matcher(name: bytes) -> Matcher:
    if not _MAGIC.intersection(name):
        return name
    return re.compile(fnmatch.translate(name.decode("latin-1")).encode("latin-1"))


def _matches(matcher: Matcher, name: bytes) -> bool:
    if isinstance(matcher, bytes):
        return matcher == name
    return matcher.match(name) is not None


def _bits(number: int) -> Iterator[int]:
    while number:
        bit = number & -number
        yield bit
        number ^= bit
