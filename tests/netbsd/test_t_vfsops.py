"""NetBSD's t_vfsops: operations on whole file systems."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial

import pytest

from ..support.expect import eventually, pattern, raises
from ..support.host import OsTarget
from ..support.target import Target

RW = os.O_RDWR | os.O_CREAT

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root opens files by handle")


async def test_tmount(fs: Target) -> None:
    """It is mounted; that it can be unmounted with nothing left is what each case ends with."""
    assert (await fs.stat(b"")).kind == stat.S_IFDIR
    assert await fs.listdir() == []


async def test_tstatvfs(fs: Target) -> None:
    before = await fs.statvfs()
    assert before.namemax == 255
    assert before.bsize >= before.frsize > 0
    assert 0 < before.bavail <= before.bfree <= before.blocks
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(pattern(200_000), 0)
        await file.fsync()
        during = await fs.statvfs()
    taken = (before.bfree - during.bfree) * before.frsize
    assert 200_000 <= taken < 300_000
    await fs.unlink(b"f")
    assert (await fs.statvfs()).blocks == before.blocks


async def test_tsync(fs: Target) -> None:
    """What was written is there after a sync, and sync can be asked for when nothing is to do."""
    await fs.sync()
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(pattern(100_000), 0)
        await fs.sync()
        await file.pwrite(b"more", 100_000)
        await fs.sync()
        await fs.sync()
        assert await file.pread(200_000, 0) == pattern(100_000) + b"more"


@needs_root
async def test_tfilehandle(fs: Target) -> None:
    """A handle opens its file whatever it is called."""
    await fs.write_file(b"f", b"contents")
    handle = await fs.getfh(b"f")
    await fs.rename(b"f", b"g")
    await fs.write_file(b"f", b"another")
    assert await fs.getfh(b"f") != handle
    assert await fs.getfh(b"g") == handle
    async with await fs.fhopen(handle, os.O_RDWR) as file:
        assert await file.pread(100, 0) == b"contents"
        await file.ftruncate(5)
    assert (await fs.stat(b"g")).size == 5
    assert await fs.read_file(b"f") == b"another"


async def is_stale(fs: Target, handle: bytes) -> bool:
    """Return whether a handle opens nothing any more."""
    try:
        file = await fs.fhopen(handle, os.O_RDONLY)
    except OSError as error:
        return error.errno == errno.ESTALE
    await file.close()
    return False


@needs_root
async def test_tfhremove(fs: Target) -> None:
    """The handle of a file that has gone is stale, also when its number is used again."""
    await fs.write_file(b"f", b"contents")
    handle = await fs.getfh(b"f")
    await fs.unlink(b"f")
    await eventually(partial(is_stale, fs, handle))
    await fs.write_file(b"f", b"another")
    with raises(errno.ESTALE):
        await fs.fhopen(handle, os.O_RDONLY)


@needs_root
async def test_tfhinval(fs: Target) -> None:
    """A handle that was made up opens nothing."""
    await fs.write_file(b"f", b"contents")
    handle = await fs.getfh(b"f")
    head = 4 if isinstance(fs, OsTarget) else 0  # the type is the host's, and EINVAL or not
    for bad in (handle[:head] + b"\xff" * (len(handle) - head), handle[: len(handle) // 2 + 1]):
        with raises(errno.ESTALE, errno.EINVAL):
            await fs.fhopen(bad, os.O_RDONLY)
    async with await fs.fhopen(handle, os.O_RDONLY) as file:
        assert await file.pread(100, 0) == b"contents"
