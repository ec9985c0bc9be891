"""A part of the stress run (`tox -e stress` is all of it), and a tree larger than the vnodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from syspuffs.emul.syscalls import Process
from syspuffs.native.records import Cred

from .stress import TYPES, mounted, stress

SECONDS: Final = float(os.environ.get("SYSPUFFS_STRESS", "6"))
VNODES: Final = 100
FILES: Final = 10_000
EACH: Final = 200


@pytest.mark.slow
@pytest.mark.timeout(60 + SECONDS * 3)
@pytest.mark.parametrize("fstype", TYPES)
async def test_tasks_and_threads(fstype: str, tmp_path: Path) -> None:
    count = await stress(fstype, tmp_path, 20261125, SECONDS)
    assert count["task"]
    assert count["thread"]
    assert count["fight"]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fstype", TYPES)
async def test_more_files_than_vnodes(fstype: str, tmp_path: Path) -> None:
    """A kernel of 100 vnodes makes, lists and reads 10,000 files."""
    async with (
        mounted(fstype, tmp_path, desiredvnodes=VNODES) as mount,
        Process(mount.kernel, Cred(0, 0)) as process,
    ):
        highest = 0
        for number in range(FILES):
            if number % EACH == 0:
                await process.mkdir(b"d%d" % (number // EACH), 0o755)
            path = b"d%d/f%d" % (number // EACH, number)
            fd = await process.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            await process.write(fd, b"%d" % number)
            await process.close(fd)
            highest = max(highest, mount.kernel.statistics().vnodes)
        for number in range(FILES):
            path = b"d%d/f%d" % (number // EACH, number)
            fd = await process.open(path, os.O_RDONLY)
            assert await process.read(fd, 100) == b"%d" % number
            await process.close(fd)
            highest = max(highest, mount.kernel.statistics().vnodes)
        assert highest <= VNODES + VNODES // 8
