"""What is printed for people: nothing that a file is called may reach the terminal as it is."""

from __future__ import annotations

import pytest

from syspuffs.gateway.control.text import LISTS, age, plain, rule_table, status_text

EVIL = "a\x1b[2Jb\nc\x07"


def test_names_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    request = {
        "seconds": 1.5,
        "operation": "lookup",
        "layer": 1,
        "element": "psshfs",
        "pid": 5,
        "uid": None,
        "command": EVIL,
        "path": EVIL,
        "where": "x",
    }
    layer = {"name": EVIL, "options": {"o": EVIL}, "statistics": {"s": {"t": EVIL}}}
    LISTS["inflight"]([{"count": 3, "requests": [request]}])
    status_text(
        [
            {
                "special": EVIL,
                "mountpoint": EVIL,
                "type": EVIL,
                "pid": 1,
                "program": EVIL,
                "uid": 0,
                "seconds": 3.0,
                "part": False,
                "notes": {"x": EVIL},
                "layers": [layer],
            }
        ]
    )
    rule_table([{"name": EVIL, "rule": {"path": EVIL}, "matched": 1, "taken": 1, "hanging": 0}])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\x07" not in said
    assert said.count("a\\x1b[2Jb\\nc\\x07") == 12
    assert "and 2 more: --all shows them" in said


def test_plain_text_stays_as_it_is() -> None:
    assert plain("Gr\u00fc\u00dfe 1|2") == "Gr\u00fc\u00dfe 1|2"
    assert plain("\udcff") == "\\udcff"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (119.0, "119 s"), (7000, "116 min"), (10**5, "27 h")],
)
def test_ages(seconds: float, said: str) -> None:
    assert age(seconds) == said
    assert age(10**6) == "11 d"
