"""Rules: what is refused, what matches, and that chance is the same each time."""

from __future__ import annotations

import pytest

from syspuffs.layers.fault import Rule, Rules, RulesError, parse_rules
from syspuffs.native.records import Cred

CRED = Cred(1000, 100, (), 77)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rule", "Expected '='"),
        ("[[rule]]\nfrob = 1", "unknown field `frob`"),
        ("[[rule]]\nnth = 'x'", "Expected `int | null`"),
        ("[[rule]]\n", "rule 1: it says no fault"),
        ("[[rule]]\nname = 'a'\nop = 'frob'\nerrno = 'EIO'", "rule a: there is no operation"),
        ("[[rule]]\nerrno = 'OOPS'", "'OOPS' is no error, such as EIO"),
        ("[[rule]]\nerrno = 'errorcode'", "is no error"),
        ("[[rule]]\nerrno = 'EIO'\nhang = true", "errno and hang are two faults"),
        ("[[rule]]\nerrno = 'EIO'\nnth = 0", "nth has to be 1 at least"),
        ("[[rule]]\ndelay = -1.0", "delay cannot be less than nothing"),
        ("[[rule]]\nerrno = 'EIO'\nprobability = 2.0", "between 0 and 1"),
        ("[[rule]]\nlost = true", "lost is for "),
        ("[[rule]]\nlost = true\nop = ['write', 'create']", "lost is for "),
        ("[[rule]]\ntorn = 3\nop = 'read'", "torn is for write"),
        ("[[rule]]\nhang = true\nafter = true", "'after' says when an errno comes"),
        ("[[rule]]\nplace = 'sftp'\nerrno = 'EIO'\npath = '/x'", "messages have no paths"),
        ("[[rule]]\nplace = 'sftp'\nshort = 5", "short is for read, write"),
        ("[[rule]]\nplace = 'moon'\nerrno = 'EIO'", "Invalid enum value 'moon'"),
    ],
)
def test_refuses(text: str, complaint: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(text)
    assert complaint in str(caught.value)


def taken(rules: Rules, count: int = 20) -> list[int]:
    return [n for n in range(1, count + 1) if rules.due("server", "read", b"/f", CRED)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(errno="EIO", nth=3), [3]),
        (Rule(errno="EIO", every=7), [7, 14]),
        (Rule(errno="EIO", times=2), [1, 2]),
        (Rule(errno="EIO", every=4, times=2), [4, 8]),
        (Rule(errno="EIO", op="read", nth=1), [1]),
        (Rule(errno="EIO", op=["write", "fsync"]), []),
        (Rule(errno="EIO", path="/*", nth=1), [1]),
        (Rule(errno="EIO", path="/g"), []),
        (Rule(errno="EIO", pid=77, uid=1000, nth=2), [2]),
        (Rule(errno="EIO", pid=78), []),
        (Rule(errno="EIO", uid=0), []),
        (Rule(errno="EIO", place="sftp"), []),
        (Rule(errno="EIO", probability=0.0), []),
        (Rule(errno="EIO", probability=1.0, times=3), [1, 2, 3]),
    ],
)
def test_takes(rule: Rule, expected: list[int]) -> None:
    assert taken(Rules([rule])) == expected


def test_chance_is_the_same_for_a_seed_and_for_nothing_else() -> None:
    rule = Rule(op="read", errno="EIO", probability=0.3)
    first = taken(Rules([rule], seed=1), 200)
    assert taken(Rules([rule], seed=1), 200) == first
    assert taken(Rules([rule], seed=2), 200) != first
    assert 30 < len(first) < 90
    # Another rule, and operations that do not match, change nothing.
    both = Rules([rule, Rule(errno="EIO", op="write", probability=0.5)], seed=1)
    found = []
    for n in range(1, 201):
        both.due("server", "write", b"/f", CRED)
        fault = both.due("server", "read", b"/f", CRED)
        if fault is not None:
            found.append(n)
    assert found == first


def test_the_first_rule_wins_and_all_count() -> None:
    rules = Rules([Rule(errno="EIO", nth=2), Rule(errno="ENOSPC", every=2)])
    names = [
        fault.rule.errno if fault is not None else None
        for fault in (rules.due("server", "read") for _ in range(4))
    ]
    assert names == [None, "EIO", None, "ENOSPC"]
    assert [found[2:] for found in rules.statistics()] == [(4, 1, 0), (4, 2, 0)]


def test_nobody_asks_for_the_end() -> None:
    rules = Rules([Rule(errno="EIO")])
    assert rules.due("server", "unmount") is None
    assert rules.due("server", "close") is None
    assert Rules([Rule(errno="EIO", op="unmount")]).due("server", "unmount") is not None


def test_come_and_go_at_run_time() -> None:
    rules = Rules([Rule(errno="EIO", nth=9)])
    rules.bind(["server", "frames"])
    assert rules.extend("[[rule]]\nname = 'a'\nerrno = 'ENOSPC'\n[[rule]]\ndelay = 1.0") == [
        "a",
        "3",
    ]
    for text in ("[[rule]]\nname = 'b'\ndelay = 1.0\n[[rule]]\n", "[[rule"):
        with pytest.raises(RulesError):
            rules.extend(text)
    with pytest.raises(RulesError, match=r"no place 'sftp' here .there: frames, server"):
        rules.add(Rule(place="sftp", errno="EIO"))
    assert [found.name for found in rules.statistics()] == ["1", "a", "3"]
    assert taken(rules, 1) == [1]
    assert (rules.remove("a"), rules.remove("a"), rules.remove("3")) == (1, 0, 1)
    assert taken(rules, 9) == [8]  # one was seen before
    with pytest.raises(RulesError, match="rule 1: there is no place 'server'"):
        rules.bind(["sftp"])
