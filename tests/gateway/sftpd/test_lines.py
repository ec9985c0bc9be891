"""Where keys stand in a TOML document."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from syspuffs.gateway.sftpd.lines import Place, line_of, lines_of


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of everything that a document holds."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*place, index))


def test_every_kind_of_statement() -> None:
    document = '''
top = 1 # x = 2
"b.c".d = """x
  # = [ y """""
[t.'u v']
k = [1, [2, {x = 1, y.z = "}]#"}], # c = [
  3,
]
[[arr]]
x = '\\'
[[arr.in]]
y = 2
[[arr.in]]
y = 2020-01-01 10:00:00
[[arr]]
[arr.sub]
z = {}
[[arr.in]]
'''
    lines = lines_of(document)
    assert lines["top",] == 2
    assert lines["b.c", "d"] == 3
    assert lines["t", "u v", "k"] == 6
    assert lines["t", "u v", "k", 1, 1, "y", "z"] == 6
    assert lines["t", "u v", "k", 2] == 7
    assert lines["arr",] == lines["arr", 0] == 9
    assert lines["arr", 0, "in", 1, "y"] == 14
    assert lines["arr", 1] == 15
    assert lines["arr", 1, "sub", "z"] == 17
    assert lines["arr", 1, "in", 0] == 18
    assert set(lines) == set(places(tomllib.loads(document)))


def test_what_is_missing_is_where_it_would_be() -> None:
    lines = lines_of("a = 1\n[users.x]\nb = 1\n")
    assert line_of(lines, ("users", "x", "trees", 0)) == 2
    assert line_of(lines, ("state",)) == 1


KEYS = st.sampled_from(["a", "b-1", "'c.d'", '"e\\"]"', '"\\u00e4 #"'])
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(" . ".join)
SCALARS = st.sampled_from(
    ["1", "-1.5e3", "true", '"x]}"', "'#,'", '"""a"\n\\"""" b"""', "''''\n]'''''", "1979-05-27"]
)


def _array(items: list[str]) -> str:
    return "[ # ]\n" + ",\n".join(items) + (",\n]" if items else "]")


def _table(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key} = {value}" for key, value in pairs) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(_array)
        | st.lists(st.tuples(DOTTED, inner), max_size=2).map(_table)
    ),
    max_leaves=6,
)
STATEMENTS = (
    st.tuples(DOTTED, VALUES).map(lambda pair: f"{pair[0]}={pair[1]} # [x]")
    | DOTTED.map(lambda keys: f"[ {keys} ]")
    | DOTTED.map(lambda keys: f"[[{keys}]] # x = 1")
)


@given(st.lists(STATEMENTS, max_size=5))
def test_every_place_has_a_line(statements: list[str]) -> None:
    document = "\n".join(statements)
    try:
        data = tomllib.loads(document)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines = lines_of(document)
    assert set(lines) == set(places(data))
    assert all(1 <= line <= document.count("\n") + 1 for line in lines.values())
