"""The fixture `fs`: an empty tree on each stack in turn."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from ..support.capabilities import missing
from ..support.host import OsTarget
from ..support.mounts import Mounts
from ..support.stacks import STACKS, Stack
from ..support.target import Target

TIMEOUT = 30
"""Longest time for one test body, seconds: a hang is a failure."""


BRIEF = {"test_concurrent", "test_io", "test_origin", "test_readdir", "test_readonly"}
"""The subjects that brief stacks are asked about; SYSPUFFS_BATTERY=full asks about all."""


def stack_params(metafunc: pytest.Metafunc, needs: frozenset[str] = frozenset()) -> list[Any]:
    """Return the stacks as parameters of a test, those that cannot run it with the reason."""
    markers = list(metafunc.definition.iter_markers("needs"))
    if needs:
        markers.append(pytest.mark.needs(*needs).mark)
    chosen = metafunc.config.getoption("--stack")
    subject = metafunc.module.__name__.rpartition(".")[2]
    full = subject in BRIEF or os.environ.get("SYSPUFFS_BATTERY") == "full"
    params = []
    for stack in STACKS:
        if chosen and stack.name not in chosen:
            continue
        if stack.brief and not full:
            continue
        marks = list(stack.marks)
        reason = missing(markers, stack.lacks)
        if reason is not None:
            marks.append(pytest.mark.skip(reason=reason))
        params.append(pytest.param(stack, id=stack.name, marks=marks))
    return params


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fs" in metafunc.fixturenames:
        metafunc.parametrize("fs", stack_params(metafunc), indirect=True)


@pytest.fixture
async def fs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    stack: Stack = request.param
    if stack.command is not None:
        mounts: Mounts = request.getfixturevalue("mounts")
        with mounts.use(stack.name, stack.command) as (place, origin), trio.fail_after(TIMEOUT):
            host = OsTarget(bytes(place))
            host.origin = origin if stack.command.has_origin else None
            host.race_errors = stack.race_errors
            yield host
            await host.verify()
        return
    assert stack.build is not None
    with trio.fail_after(TIMEOUT):
        async with stack.build(tmp_path, None) as target:
            target.race_errors = stack.race_errors
            yield target
            await target.verify()
