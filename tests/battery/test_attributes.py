"""chmod, chown, times, sizes and counts."""

from __future__ import annotations

import errno
import os
import stat
import time

import pytest

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import UTIME_NOW, UTIME_OMIT, Target

SECOND = 10**9
OLD = 1_000_000_000 * SECOND
OLDER = 900_000_000 * SECOND


def recent(when: int) -> bool:
    """Return whether `when` is now, give or take what SFTP and file systems round."""
    return abs(when - time.time_ns()) < 5 * SECOND


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o777, 0o000, 0o400, 0o4755, 0o2755, 0o1777])
async def test_chmod(fs: Target, mode: int) -> None:
    await fs.write_file(b"f", b"x")
    await fs.chmod(b"f", mode)
    got = await fs.stat(b"f")
    assert (got.kind, got.perm) == (stat.S_IFREG, mode)


async def test_chmod_directory(fs: Target) -> None:
    await fs.mkdir(b"d")
    for mode in (0o700, 0o1777, 0o555):
        await fs.chmod(b"d", mode)
        got = await fs.stat(b"d")
        assert (got.kind, got.perm) == (stat.S_IFDIR, mode)


async def test_chmod_follows(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.symlink(b"f", b"link")
    await fs.chmod(b"link", 0o600)
    assert (await fs.stat(b"f")).perm == 0o600
    with raises(errno.ENOENT):
        await fs.chmod(b"nothing", 0o600)


async def test_chmod_is_seen_by_descriptor(fs: Target) -> None:
    async with await fs.open(b"f", os.O_RDWR | os.O_CREAT) as file:
        await fs.chmod(b"f", 0o640)
        assert (await file.fstat()).perm == 0o640


@needs("chown")
async def test_chown(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.chown(b"f", 1234, 5678)
    got = await fs.stat(b"f")
    assert (got.uid, got.gid) == (1234, 5678)


@needs("chown")
async def test_chown_half(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.chown(b"f", 11, -1)
    await fs.chown(b"f", -1, 22)
    got = await fs.stat(b"f")
    assert (got.uid, got.gid) == (11, 22)


@needs("chown")
async def test_chown_directory_and_link(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.chown(b"d", 11, 22)
    got = await fs.stat(b"d")
    assert (got.uid, got.gid) == (11, 22)
    await fs.symlink(b"d", b"link")
    await fs.chown(b"link", 33, 44, follow=False)
    got = await fs.lstat(b"link")
    assert (got.uid, got.gid) == (33, 44)
    got = await fs.stat(b"d")
    assert (got.uid, got.gid) == (11, 22)


async def test_utimens(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.utimens(b"f", OLDER, OLD)
    got = await fs.stat(b"f")
    assert (got.atime, got.mtime) == (OLDER, OLD)


async def test_utimens_directory(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.utimens(b"d", OLDER, OLD)
    got = await fs.stat(b"d")
    assert (got.atime, got.mtime) == (OLDER, OLD)


async def test_utimens_omit(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.utimens(b"f", OLDER, OLD)
    await fs.utimens(b"f", UTIME_OMIT, OLD + SECOND)
    got = await fs.stat(b"f")
    assert (got.atime, got.mtime) == (OLDER, OLD + SECOND)
    await fs.utimens(b"f", OLDER + SECOND, UTIME_OMIT)
    got = await fs.stat(b"f")
    assert (got.atime, got.mtime) == (OLDER + SECOND, OLD + SECOND)
    await fs.utimens(b"f", UTIME_OMIT, UTIME_OMIT)
    got = await fs.stat(b"f")
    assert (got.atime, got.mtime) == (OLDER + SECOND, OLD + SECOND)


async def test_utimens_now(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.utimens(b"f", OLDER, OLD)
    await fs.utimens(b"f", UTIME_NOW, UTIME_OMIT)
    got = await fs.stat(b"f")
    assert recent(got.atime)
    assert got.mtime == OLD
    await fs.utimens(b"f", OLDER, UTIME_NOW)
    got = await fs.stat(b"f")
    assert got.atime == OLDER
    assert recent(got.mtime)


async def test_utimens_of_a_link(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.utimens(b"f", OLD, OLD)
    await fs.symlink(b"f", b"link")
    await fs.utimens(b"link", OLDER, OLDER, follow=False)
    assert (await fs.lstat(b"link")).mtime == OLDER
    assert (await fs.stat(b"f")).mtime == OLD
    await fs.utimens(b"link", OLDER + SECOND, OLDER + SECOND)
    assert (await fs.stat(b"f")).mtime == OLDER + SECOND


@needs("ns_times")
async def test_utimens_ns(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.utimens(b"f", OLDER + 123_456_789, OLD + 987_654_321)
    got = await fs.stat(b"f")
    assert (got.atime, got.mtime) == (OLDER + 123_456_789, OLD + 987_654_321)


@pytest.mark.parametrize("seconds", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
async def test_utimens_range(fs: Target, seconds: int) -> None:
    """What SFTP's unsigned 32 bits can say."""
    await fs.write_file(b"f", b"")
    await fs.utimens(b"f", seconds * SECOND, seconds * SECOND)
    got = await fs.stat(b"f")
    assert (got.atime, got.mtime) == (seconds * SECOND, seconds * SECOND)


@needs("wide_times")
@pytest.mark.parametrize("seconds", [-1, -(2**31), 2**32, 2**33])
async def test_utimens_wide_range(fs: Target, seconds: int) -> None:
    await fs.write_file(b"f", b"")
    await fs.utimens(b"f", seconds * SECOND, seconds * SECOND)
    got = await fs.stat(b"f")
    assert (got.atime, got.mtime) == (seconds * SECOND, seconds * SECOND)


async def test_new_node_has_the_time_of_now(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.mkdir(b"d")
    await fs.symlink(b"x", b"s")
    for name in (b"f", b"d", b"s"):
        got = await fs.lstat(name)
        assert recent(got.mtime)
        assert recent(got.atime)


async def test_write_sets_mtime(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    await fs.utimens(b"f", OLD, OLD)
    async with await fs.open(b"f", os.O_WRONLY) as file:
        await file.pwrite(b"y", 0)
    assert recent((await fs.stat(b"f")).mtime)


async def test_truncate_sets_mtime(fs: Target) -> None:
    await fs.write_file(b"f", b"xyz")
    await fs.utimens(b"f", OLD, OLD)
    await fs.truncate(b"f", 1)
    assert recent((await fs.stat(b"f")).mtime)


async def test_utimens_after_write_stays(fs: Target) -> None:
    """As cp -p and tar do it: write, set times, close. A late write-back must not spoil them."""
    async with await fs.open(b"f", os.O_WRONLY | os.O_CREAT) as file:
        await file.pwrite(b"x" * 100_000, 0)
        await fs.utimens(b"f", OLD, OLD)
    assert (await fs.stat(b"f")).mtime == OLD
    assert (await fs.stat(b"f")).size == 100_000


async def test_chmod_keeps_mtime(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    await fs.utimens(b"f", OLD, OLD)
    await fs.chmod(b"f", 0o600)
    assert (await fs.stat(b"f")).mtime == OLD


@needs("chown")
async def test_chown_keeps_mtime(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    await fs.utimens(b"f", OLD, OLD)
    await fs.chown(b"f", 1, 1)
    assert (await fs.stat(b"f")).mtime == OLD


@pytest.mark.parametrize("change", ["create", "unlink", "mkdir", "rmdir", "rename"])
async def test_directory_change_sets_its_mtime(fs: Target, change: str) -> None:
    await fs.mkdir(b"d")
    await fs.write_file(b"d/f", b"")
    await fs.mkdir(b"d/sub")
    await fs.utimens(b"d", OLD, OLD)
    if change == "create":
        await fs.write_file(b"d/g", b"")
    elif change == "unlink":
        await fs.unlink(b"d/f")
    elif change == "mkdir":
        await fs.mkdir(b"d/sub2")
    elif change == "rmdir":
        await fs.rmdir(b"d/sub")
    else:
        await fs.rename(b"d/f", b"d/g")
    assert recent((await fs.stat(b"d")).mtime)


@needs("ctime")
async def test_ctime(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    await fs.utimens(b"f", OLD, OLD)
    first = (await fs.stat(b"f")).ctime
    assert recent(first)
    await fs.chmod(b"f", 0o600)
    assert (await fs.stat(b"f")).ctime >= first


@needs("nlink", "exact_nlink_dir")
async def test_directory_link_count(fs: Target) -> None:
    await fs.mkdir(b"d")
    assert (await fs.stat(b"d")).nlink == 2
    await fs.mkdir(b"d/a")
    await fs.mkdir(b"d/b")
    assert (await fs.stat(b"d")).nlink == 4
    await fs.rename(b"d/a", b"a")
    assert (await fs.stat(b"d")).nlink == 3
    await fs.rmdir(b"d/b")
    assert (await fs.stat(b"d")).nlink == 2


@needs("blocks")
async def test_blocks(fs: Target) -> None:
    """A hole takes no room."""
    await fs.write_file(b"full", b"x" * 200_000)
    async with await fs.open(b"sparse", os.O_RDWR | os.O_CREAT) as file:
        await file.pwrite(b"x", (1 << 30) - 1)
        await file.fsync()
    async with await fs.open(b"full", os.O_RDWR) as file:
        await file.fsync()
    assert (await fs.stat(b"full")).blocks * 512 >= 200_000
    assert (await fs.stat(b"sparse")).blocks * 512 < 1 << 20


async def test_every_kind_has_its_own_number(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.mkdir(b"d")
    await fs.symlink(b"f", b"s")
    numbers = [(await fs.lstat(name)).ino for name in (b"", b"f", b"d", b"s")]
    assert len(set(numbers)) == 4
    assert 0 not in numbers


async def test_attributes_survive_rename(fs: Target) -> None:
    await fs.write_file(b"f", b"12345")
    await fs.chmod(b"f", 0o640)
    await fs.utimens(b"f", OLDER, OLD)
    before = await fs.stat(b"f")
    await fs.rename(b"f", b"g")
    got = await fs.stat(b"g")
    assert (got.perm, got.size) == (0o640, 5)
    assert (got.uid, got.gid) == (before.uid, before.gid)
    assert (got.atime, got.mtime) == (OLDER, OLD)
