"""The fixtures `fs`, `ro` and `small`: a tree on each route in turn."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from ..support.mounts import Mounts
from ..support.target import Target
from .routes import ROUTES, Route, Wish

TIMEOUT = 30
"""Longest time for one case on one route, seconds: a hang is a failure."""

_TREES = ("fs", "ro", "small")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ways(*ways, why): a case for these routes only")


def _missing(metafunc: pytest.Metafunc, tree: str, route: Route) -> str | None:
    """Return why a case cannot be run on a route, if so."""
    for mark in metafunc.definition.iter_markers("ways"):
        if route.way not in mark.args:
            why: str = mark.kwargs["why"]
            return why
    if tree == "ro" and route.name == "mount:puffs|p2k|tmpfs" and os.geteuid() != 0:
        return "files in memory must be there before it is made read-only; only root can remount"
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("--stack")
    for tree in _TREES:
        if tree in metafunc.fixturenames:
            params = []
            for route in ROUTES:
                if chosen and route.name not in chosen:
                    continue
                why = _missing(metafunc, tree, route)
                marks = route.marks if why is None else (pytest.mark.skip(reason=why),)
                params.append(pytest.param(route, id=route.name, marks=marks))
            metafunc.parametrize(tree, params, indirect=True)


async def _tree(request: pytest.FixtureRequest, place: Path, wish: Wish) -> AsyncIterator[Target]:
    route: Route = request.param
    mounts: Mounts = request.getfixturevalue("mounts")
    with trio.fail_after(TIMEOUT):
        async with route.build(wish, place, mounts) as target:
            yield target
            await target.verify()


@pytest.fixture
async def fs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    """An empty tree."""
    async for target in _tree(request, tmp_path, Wish()):
        yield target


@pytest.fixture
async def ro(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    """A read-only tree, with what `fill` of the test's module has put there."""
    async for target in _tree(request, tmp_path, Wish(fill=request.module.fill)):
        yield target


@pytest.fixture
async def small(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    """An empty tree with little space."""
    async for target in _tree(request, tmp_path, Wish(small=True)):
        yield target
