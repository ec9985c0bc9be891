"""Trees that are mounted read-only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.host import OsTarget
from ..support.mounts import Mounts
from ..support.stacks import Stack
from ..support.target import UTIME_NOW, Target
from .conftest import TIMEOUT, stack_params


async def fill(fs: Target) -> None:
    """What is there before all is made read-only."""
    await fs.write_file(b"f", b"contents", 0o666)
    await fs.mkdir(b"d")
    await fs.write_file(b"d/inside", b"")
    await fs.symlink(b"f", b"s")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    params = stack_params(metafunc, frozenset({"readonly"}))
    metafunc.parametrize("ro", params, indirect=True)


@pytest.fixture
async def ro(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    stack: Stack = request.param
    with trio.fail_after(TIMEOUT):
        if stack.build is not None:
            async with stack.build(tmp_path, fill) as target:
                yield target
                await target.verify()
            return
        assert stack.command is not None
        mounts: Mounts = request.getfixturevalue("mounts")
        made = mounts.find(stack.name + ":ro")
        if made is None:
            ground = mounts.ground("ro", remote=stack.command.remote)
            await fill(OsTarget(bytes(ground.origin)))
            made = mounts.add(stack.name + ":ro", stack.command, ground)
        target = OsTarget(bytes(made.point))
        yield target
        await target.verify()
        assert made.complaints() == []


async def test_reading(ro: Target) -> None:
    assert await ro.read_file(b"f") == b"contents"
    assert await ro.read_file(b"s") == b"contents"
    assert await ro.readlink(b"s") == b"f"
    assert await ro.listdir() == [b"d", b"f", b"s"]
    assert (await ro.stat(b"f")).size == 8
    assert (await ro.statvfs()).namemax == 255


async def test_create(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.open(b"new", os.O_CREAT | os.O_WRONLY)
    with raises(errno.EROFS):
        await ro.mkdir(b"new")
    with raises(errno.EROFS):
        await ro.symlink(b"x", b"new")
    with raises(errno.EROFS):
        await ro.link(b"f", b"new")
    assert await ro.listdir() == [b"d", b"f", b"s"]


@needs("special")
async def test_mknod(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.mknod(b"new", stat.S_IFIFO | 0o600)


async def test_remove(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.unlink(b"f")
    with raises(errno.EROFS):
        await ro.unlink(b"s")
    with raises(errno.EROFS):
        await ro.rmdir(b"d")
    assert await ro.listdir(b"d") == [b"inside"]


async def test_rename(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.rename(b"f", b"g")
    with raises(errno.EROFS):
        await ro.rename(b"f", b"d/inside")
    assert await ro.listdir() == [b"d", b"f", b"s"]


async def test_open_for_writing(ro: Target) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC):
        with raises(errno.EROFS):
            await ro.open(b"f", flags)
    assert await ro.read_file(b"f") == b"contents"


async def test_open_existing_with_create(ro: Target) -> None:
    """Nothing would be made, so nothing is wrong."""
    async with await ro.open(b"f", os.O_RDONLY | os.O_CREAT) as file:
        assert await file.pread(100, 0) == b"contents"


async def test_attributes(ro: Target) -> None:
    before = await ro.stat(b"f")
    with raises(errno.EROFS):
        await ro.chmod(b"f", 0o600)
    with raises(errno.EROFS):
        await ro.chown(b"f", 1, 1)
    with raises(errno.EROFS):
        await ro.truncate(b"f", 0)
    with raises(errno.EROFS):
        await ro.utimens(b"f", UTIME_NOW, UTIME_NOW)
    after = await ro.stat(b"f")
    assert (after.mode, after.uid, after.size, after.mtime) == (
        before.mode,
        before.uid,
        before.size,
        before.mtime,
    )


async def test_access(ro: Target) -> None:
    assert await ro.access(b"f", os.R_OK)
    assert not await ro.access(b"f", os.W_OK)
