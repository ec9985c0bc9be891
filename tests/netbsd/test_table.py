"""The table tells of what there is."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from .table import CASES, ELSEWHERE

TESTS = Path(__file__).parents[1]


@cache
def functions(path: Path) -> frozenset[str]:
    """Return the names of the functions of a module."""
    return frozenset(
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_all_cases_are_in_it() -> None:
    listed: dict[str, set[str]] = {}
    for files in CASES.values():
        for file, cases in files.items():
            listed.setdefault(file, set()).update(f"test_{case}" for case in cases)
    for path in sorted(Path(__file__).parent.glob("test_t_*.py")):
        there = {name for name in functions(path) if name.startswith("test_")}
        assert there == listed.pop(path.name)
    assert not listed


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_is_elsewhere_is_there(case: str) -> None:
    path, _, name = ELSEWHERE[case].partition("::")
    assert name in functions(TESTS.parent / path)
