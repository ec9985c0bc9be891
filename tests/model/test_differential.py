"""The same random operations on a directory of the host and on each stack.

Results, errnos and the trees afterwards must be the same; for SFTP stacks also the
directory behind the server. SYSPUFFS_MODEL=20 runs twenty times as many examples, with
SYSPUFFS_HYPOTHESIS=long new ones each time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, note, settings

from ..support.host import OsTarget
from ..support.mounts import Mounts
from ..support.stacks import STACKS, Stack
from ..support.target import Target
from .operations import TOP, Looks, Operation, Side, operations

FACTOR = int(os.environ.get("SYSPUFFS_MODEL", "1"))
TIMEOUT = 60
"""Longest time for one example, seconds."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stack" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--stack")
        metafunc.parametrize(
            "stack",
            [
                pytest.param(stack, id=stack.name, marks=[*stack.marks, pytest.mark.slow])
                for stack in STACKS
                if not chosen or stack.name in chosen
            ],
        )


@asynccontextmanager
async def opened(
    stack: Stack, mounts: Mounts, place: Path
) -> AsyncIterator[tuple[Target, Path | None]]:
    """Give an empty tree of the stack, and the directory behind it when there is one."""
    if stack.command is None:
        assert stack.build is not None
        async with stack.build(place, None) as target:
            yield target, None
    else:
        with mounts.use(stack.name, stack.command) as (point, origin):
            is_shown = stack.command.has_origin and "origin" not in stack.lacks
            yield OsTarget(bytes(point)), origin if is_shown else None


async def compare(stack: Stack, mounts: Mounts, place: Path, sequence: list[Operation]) -> None:
    """Do the operations on both and compare."""
    looks = Looks(stack.lacks)
    reference_place, target_place = place / "reference", place / "target"
    reference_place.mkdir()
    target_place.mkdir()
    with trio.fail_after(TIMEOUT):
        async with opened(stack, mounts, target_place) as (target, origin):
            reference = Side(OsTarget(bytes(reference_place)), looks)
            side = Side(target, looks)
            await reference.target.mkdir(TOP)
            await target.mkdir(TOP)
            try:
                for operation in sequence:
                    want, got = await reference.do(operation), await side.do(operation)
                    note(f"{operation}: {_short(want)}")
                    assert got == want, operation
                assert await side.tree() == await reference.tree()
            finally:
                await side.close()
                await reference.close()
            tree = await reference.tree()
            assert await side.tree() == tree
            await target.verify()
            if origin is not None:
                behind = Side(OsTarget(bytes(origin)), looks)
                assert await behind.tree() == tree, "the directory behind the server differs"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def test_same_as_the_host(stack: Stack, mounts: Mounts, tmp_path: Path) -> None:
    examples, length = (30, 30) if stack.command else (40, 40)

    @settings(
        max_examples=examples * FACTOR,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(sequence=operations(stack.lacks, length))
    def example(sequence: list[Operation]) -> None:
        place = Path(tempfile.mkdtemp(dir=tmp_path))
        try:
            trio.run(compare, stack, mounts, place, sequence)
        finally:
            shutil.rmtree(place)

    example()
