"""Mounts for real programs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.mounts import Mounts
from ..support.stacks import LOCAL, PSSHFS, STACKS, TMPFS, WHOLE_STACK
from .shell import Shell

COMMANDS = (TMPFS, LOCAL, PSSHFS, WHOLE_STACK)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shell" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--stack")
    metafunc.parametrize(
        "shell",
        [
            pytest.param(stack, id=stack.name, marks=[*stack.marks, pytest.mark.slow])
            for stack in STACKS
            if stack.command in COMMANDS and (not chosen or stack.name in chosen)
        ],
        indirect=True,
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("programs"):
        for program, package in marker.kwargs.items():
            if shutil.which(program) is None:
                pytest.fail(f"{program} is missing: apt-get install {package}")


@pytest.fixture
def shell(request: pytest.FixtureRequest, mounts: Mounts, tmp_path: Path) -> Iterator[Shell]:
    """A shell with $M, a fresh directory of the mount, and $L, one of the host."""
    stack = request.param
    with mounts.use(stack.name, stack.command) as (place, origin):
        local = tmp_path / "local"
        local.mkdir()
        yield Shell(place, local, origin if stack.command.has_origin else None)
