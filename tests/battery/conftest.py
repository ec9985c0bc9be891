"""The fixture `fs`: an empty tree on each stack in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from ..support.capabilities import missing
from ..support.host import OsTarget
from ..support.mounts import Mounts
from ..support.stacks import STACKS, Stack
from ..support.target import Target

TIMEOUT = 30
"""Longest time for one test body, seconds: a hang is a failure."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fs" not in metafunc.fixturenames:
        return
    needs = list(metafunc.definition.iter_markers("needs"))
    chosen = metafunc.config.getoption("--stack")
    params = []
    for stack in STACKS:
        if chosen and stack.name not in chosen:
            continue
        marks = list(stack.marks)
        reason = missing(needs, stack.lacks)
        if reason is not None:
            marks.append(pytest.mark.skip(reason=reason))
        params.append(pytest.param(stack, id=stack.name, marks=marks))
    metafunc.parametrize("fs", params, indirect=True)


@pytest.fixture
async def fs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    stack: Stack = request.param
    if stack.command is not None:
        mounts: Mounts = request.getfixturevalue("mounts")
        with mounts.use(stack.name, stack.command) as (place, _), trio.fail_after(TIMEOUT):
            host = OsTarget(bytes(place))
            yield host
            await host.verify()
        return
    assert stack.build is not None
    with trio.fail_after(TIMEOUT):
        async with stack.build(tmp_path, None) as target:
            yield target
            await target.verify()
