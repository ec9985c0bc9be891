"""open with O_CREAT, and what an open refuses."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ..support.expect import raises
from ..support.target import Target

NEW = os.O_CREAT | os.O_WRONLY


async def test_create(fs: Target) -> None:
    async with await fs.open(b"f", NEW, 0o640) as file:
        got = await file.fstat()
    assert got.kind == stat.S_IFREG
    assert got.perm == 0o640
    assert got.size == 0
    after = await fs.stat(b"f")
    assert (after.mode, after.size) == (got.mode, 0)
    assert await fs.listdir() == [b"f"]


async def test_mode_is_masked(fs: Target) -> None:
    await fs.write_file(b"f", b"", 0o666)
    assert (await fs.stat(b"f")).perm == 0o644
    await fs.mkdir(b"d", 0o777)
    assert (await fs.stat(b"d")).perm == 0o755


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o444, 0o755, 0o000])
async def test_mode(fs: Target, mode: int) -> None:
    """The mode counts for later opens, not for this one."""
    async with await fs.open(b"f", NEW, mode) as file:
        await file.pwrite(b"data", 0)
    got = await fs.stat(b"f")
    assert (got.perm, got.size) == (mode, 4)


async def test_exclusive(fs: Target) -> None:
    async with await fs.open(b"f", NEW | os.O_EXCL):
        pass
    with raises(errno.EEXIST):
        await fs.open(b"f", NEW | os.O_EXCL)


async def test_exclusive_does_not_follow(fs: Target) -> None:
    await fs.symlink(b"target", b"link")
    with raises(errno.EEXIST):
        await fs.open(b"link", NEW | os.O_EXCL)
    assert not await fs.exists(b"target")


async def test_create_through_dangling_link(fs: Target) -> None:
    await fs.symlink(b"target", b"link")
    await fs.write_file(b"link", b"through")
    assert await fs.read_file(b"target") == b"through"
    assert (await fs.lstat(b"link")).kind == stat.S_IFLNK


async def test_create_over_existing_keeps_it(fs: Target) -> None:
    await fs.write_file(b"f", b"old", 0o600)
    async with await fs.open(b"f", NEW, 0o644) as file:
        got = await file.fstat()
    assert (got.size, got.perm) == (3, 0o600)
    assert await fs.read_file(b"f") == b"old"


async def test_truncate_on_open(fs: Target) -> None:
    await fs.write_file(b"f", b"old contents")
    async with await fs.open(b"f", os.O_WRONLY | os.O_TRUNC) as file:
        assert (await file.fstat()).size == 0
    assert (await fs.stat(b"f")).size == 0
    assert await fs.read_file(b"f") == b""


async def test_create_over_directory(fs: Target) -> None:
    await fs.mkdir(b"d")
    with raises(errno.EISDIR):
        await fs.open(b"d", NEW)
    with raises(errno.EEXIST):
        await fs.open(b"d", NEW | os.O_EXCL)


async def test_open_directory_for_writing(fs: Target) -> None:
    await fs.mkdir(b"d")
    with raises(errno.EISDIR):
        await fs.open(b"d", os.O_WRONLY)
    with raises(errno.EISDIR):
        await fs.open(b"d", os.O_RDWR)


async def test_open_missing(fs: Target) -> None:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        with raises(errno.ENOENT):
            await fs.open(b"f", flags)


async def test_trailing_slash(fs: Target) -> None:
    with raises(errno.EISDIR):
        await fs.open(b"f/", NEW)
    assert await fs.listdir() == []


async def test_nofollow(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    await fs.symlink(b"f", b"link")
    with raises(errno.ELOOP):
        await fs.open(b"link", os.O_RDONLY | os.O_NOFOLLOW)


async def test_read_and_write_need_their_mode(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    async with await fs.open(b"f", os.O_RDONLY) as file:
        with raises(errno.EBADF):
            await file.pwrite(b"y", 0)
        with raises(errno.EINVAL):
            await file.ftruncate(0)
    async with await fs.open(b"f", os.O_WRONLY) as file:
        with raises(errno.EBADF):
            await file.pread(1, 0)
    assert await fs.read_file(b"f") == b"x"


async def test_many_opens_of_one_file(fs: Target) -> None:
    await fs.write_file(b"f", b"0123456789")
    files = [await fs.open(b"f", os.O_RDWR) for _ in range(20)]
    for number, file in enumerate(files[:10]):
        await file.pwrite(b"%d" % (9 - number), number)
    for file in files:
        assert await file.pread(10, 0) == b"9876543210"
    for file in files:
        await file.close()


async def test_remove_and_create_again(fs: Target) -> None:
    """A new file of the same name is new in everything."""
    for round_ in range(5):
        await fs.write_file(b"f", b"x" * round_, 0o600)
        assert (await fs.stat(b"f")).size == round_
        await fs.chmod(b"f", 0o640)
        await fs.unlink(b"f")
        with raises(errno.ENOENT):
            await fs.stat(b"f")
    await fs.write_file(b"f", b"", 0o600)
    got = await fs.stat(b"f")
    assert (got.size, got.perm) == (0, 0o600)


async def test_file_becomes_directory_and_back(fs: Target) -> None:
    for _ in range(3):
        await fs.write_file(b"n", b"file")
        assert (await fs.stat(b"n")).kind == stat.S_IFREG
        await fs.unlink(b"n")
        await fs.mkdir(b"n")
        assert (await fs.stat(b"n")).kind == stat.S_IFDIR
        await fs.rmdir(b"n")
        await fs.symlink(b"elsewhere", b"n")
        assert (await fs.lstat(b"n")).kind == stat.S_IFLNK
        await fs.unlink(b"n")


async def test_mknod_regular(fs: Target) -> None:
    await fs.mknod(b"f", stat.S_IFREG | 0o640)
    got = await fs.stat(b"f")
    assert (got.kind, got.perm, got.size) == (stat.S_IFREG, 0o640, 0)
    with raises(errno.EEXIST):
        await fs.mknod(b"f", stat.S_IFREG | 0o640)
