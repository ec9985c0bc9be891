"""Rules: which one decides, and what may move where, held against a model."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.layers.guard import EVERYTHING, NOTHING, GuardSettings, Rule, Verb
from syspuffs.layers.guard.policy import SEEN, Policy

NAMES = [b"a", b"b", b"ab", b"c"]
PATTERNS = [*NAMES, b"*", b"?", b"a*", b"[ab]"]
VERBS = [Verb.READ, Verb.OVERWRITE, Verb.LIST]

verbs = st.sampled_from([Verb(0), *VERBS, Verb.READ | Verb.LIST, EVERYTHING])
paths = st.lists(st.sampled_from(NAMES), max_size=4)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    names = draw(st.lists(st.sampled_from(PATTERNS), max_size=4))
    allow = draw(verbs)
    deny = draw(verbs) & ~allow
    if not allow | deny:
        deny = Verb.READ
    return Rule(b"/" + b"/".join(names), allow, deny)


policies = st.builds(
    GuardSettings,
    rules=st.lists(rules(), max_size=6).map(tuple),
    allow=verbs,
    hidden=st.lists(st.sampled_from([b"c", b"a?", b"/a/b", b"/*/c"]), max_size=2).map(tuple),
)


def matches(pattern: bytes, name: bytes) -> bool:
    return fnmatch.fnmatchcase(name.decode("latin-1"), pattern.decode("latin-1"))


def speaks(pattern: bytes, names: list[bytes]) -> bool:
    """Whether a rule with this path speaks of the path with these names."""
    wanted = [name for name in pattern.split(b"/") if name]
    return len(wanted) <= len(names) and all(map(matches, wanted, names))


def model(policy: GuardSettings, names: list[bytes]) -> int:
    """What is allowed at a path, from the text of policy.py and nothing else."""
    rights = 0
    for verb in EVERYTHING:
        deciding: list[tuple[int, tuple[bool, ...], int, bool]] = []
        for at, rule in enumerate(policy.rules):
            if speaks(rule.path, names) and verb & (rule.allow | rule.deny):
                parts = [name for name in rule.path.split(b"/") if name]
                plain = tuple(not set(b"*?[") & set(name) for name in parts)
                deciding.append((len(parts), plain, at, bool(verb & rule.allow)))
        allowed = max(deciding)[-1] if deciding else bool(policy.allow & verb)
        rights |= verb if allowed else 0
    for pattern in policy.hidden:
        if b"/" in pattern:
            if speaks(pattern, names):
                return rights
        elif any(matches(pattern, name) for name in names):
            return rights
    return rights | SEEN


@given(policies, paths)
@settings(max_examples=300, deadline=None)
def test_the_most_specific_rule_decides(policy: GuardSettings, names: list[bytes]) -> None:
    state = Policy(policy).walk(b"/" + b"/".join(names))
    found = state.rights
    if not found & SEEN:
        assert not model(policy, names) & SEEN
    else:
        assert found == model(policy, names)


@given(policies, paths, paths, st.lists(paths, min_size=1, max_size=8))
@settings(max_examples=400, deadline=None)
def test_no_move_widens_anything(
    policy: GuardSettings, old: list[bytes], new: list[bytes], below: list[list[bytes]]
) -> None:
    compiled = Policy(policy)

    def walk(names: list[bytes]) -> int:
        return compiled.walk(b"/" + b"/".join(names)).rights

    was = compiled.walk(b"/" + b"/".join(old))
    will = compiled.walk(b"/" + b"/".join(new))
    if compiled.widens(was, will):
        return
    for names in [[], *below]:
        assert not walk(new + names) & ~walk(old + names)


@given(paths, paths)
def test_without_rules_everything_moves(old: list[bytes], new: list[bytes]) -> None:
    policy = Policy(GuardSettings(hidden=(b".x",)))
    assert not policy.widens(policy.walk(b"/" + b"/".join(old)), policy.walk(b"/" + b"/".join(new)))


def test_a_rule_says_what_a_directory_above_does_not() -> None:
    policy = Policy(
        GuardSettings(
            allow=Verb.LIST | Verb.READ,
            rules=(
                Rule(b"/in/*", Verb.CREATE | Verb.MKDIR, Verb.READ),
                Rule(b"/in/bob", Verb.READ),
                Rule(b"/in", NOTHING, Verb.LIST),
            ),
        )
    )
    assert policy.walk(b"/").rights == Verb.LIST | Verb.READ | SEEN
    assert policy.walk(b"/in").rights == Verb.READ | SEEN
    assert policy.walk(b"/in/eve").rights == Verb.CREATE | Verb.MKDIR | SEEN
    # The same depth: the plain name decides, although it names reading alone.
    assert policy.walk(b"/in/bob/deep").rights == Verb.CREATE | Verb.MKDIR | Verb.READ | SEEN
    assert policy.walk(b"/other/in/bob").rights == Verb.LIST | Verb.READ | SEEN


def test_a_directory_above_a_rule_moves_only_where_the_rule_comes_along() -> None:
    policy = Policy(
        GuardSettings(
            rules=(Rule(b"/a/secret", deny=Verb.READ), Rule(b"/*/inner", deny=Verb.DELETE))
        )
    )
    walk = policy.walk
    assert policy.widens(walk(b"/a"), walk(b"/b"))
    assert not policy.widens(walk(b"/b"), walk(b"/a"))
    assert not policy.widens(walk(b"/b"), walk(b"/c"))
    assert policy.widens(walk(b"/b"), walk(b"/c/d"))
    assert policy.widens(walk(b"/a/secret"), walk(b"/a/public"))


def test_names_are_octets_and_patterns_stay_in_a_name() -> None:
    policy = Policy(
        GuardSettings(
            rules=(Rule(b"/\xff*", deny=Verb.READ), Rule(b"/[!a]x", deny=Verb.LIST)),
            hidden=(b"*.tmp", b"\n?"),
        )
    )
    assert not policy.walk(b"/\xff\xfe\n").rights & Verb.READ
    assert not policy.walk(b"/bx").rights & Verb.LIST
    assert policy.walk(b"/ax").rights & Verb.LIST
    assert not policy.walk(b"/d/x.tmp/y").rights & SEEN
    assert not policy.walk(b"/\n\n").rights & SEEN
    assert policy.walk(b"/x.tmp2").rights & SEEN


@pytest.mark.parametrize(
    "path", [b"", b"a", b"/a/", b"//", b"/a//b", b"/a/../b", b"/.", b"/a\0", b"/" + b"a" * 4096]
)
def test_what_is_no_path_of_a_rule(path: bytes) -> None:
    with pytest.raises(ValueError, match="path"):
        Rule(path, deny=Verb.READ)


def test_settings_that_make_no_sense() -> None:
    for wrong in (
        lambda: Rule(b"/a", Verb.READ, Verb.READ),
        lambda: Rule(b"/a"),
        lambda: GuardSettings(hidden=(b"..",)),
        lambda: GuardSettings(hidden=(b"/",)),
        lambda: GuardSettings(quota_octets=-1),
        lambda: GuardSettings(upload_rate=0),
        lambda: GuardSettings(scan_max=0),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            wrong()
