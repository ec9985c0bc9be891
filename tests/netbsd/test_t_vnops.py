"""NetBSD's t_vnops: operations on names, attributes and locks."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import AsyncExitStack
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK

import pytest

from syspuffs.native.records import Flock

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import Target

RW = os.O_RDWR | os.O_CREAT


async def test_lookup_simple(fs: Target) -> None:
    assert (await fs.stat(b"")).kind == stat.S_IFDIR
    assert (await fs.stat(b"./")).kind == stat.S_IFDIR
    for path in (b"no-such-file", b"./no-such-file"):
        with raises(errno.ENOENT):
            await fs.stat(path)


async def test_lookup_complex(fs: Target) -> None:
    """A path with many turns leads to the same place as the straight one."""
    await fs.mkdir(b"dir")
    straight = await fs.stat(b"dir")
    for path in (b"./dir", b"dir/../dir/.", b"./././dir/../././dir/", b"dir/./../dir/../dir"):
        turned = await fs.stat(path)
        assert turned._replace(atime=0) == straight._replace(atime=0), path


async def test_dir_simple(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/b")
    got = await fs.stat(b"a/b")
    assert got.kind == stat.S_IFDIR
    assert got.ino != 0
    await fs.rmdir(b"a/b")
    with raises(errno.ENOENT):
        await fs.stat(b"a/b")
    await fs.rmdir(b"a")
    assert await fs.listdir() == []


async def test_dir_notempty(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.write_file(b"a/f", b"")
    with raises(errno.ENOTEMPTY):
        await fs.rmdir(b"a")
    await fs.unlink(b"a/f")
    await fs.rmdir(b"a")


async def test_dir_rmdirdotdot(fs: Target) -> None:
    """Above a directory that was removed is nothing, or nothing that one could use.

    (The host's name cache still knows where it was; what it finds there is removed, too.)
    """
    await fs.mkdir(b"above")
    await fs.mkdir(b"above/here")
    async with fs.at(b"above/here") as here:
        await fs.rmdir(b"above/here")
        await fs.rmdir(b"above")
        with raises(errno.ENOENT):
            await here.mkdir(b"new")
        with raises(errno.ENOENT):
            await here.mkdir(b"../new")
        try:
            assert (await here.stat(b"..")).nlink == 0
        except FileNotFoundError:
            pass
    assert await fs.listdir() == []


@needs("exact_nlink_dir")
async def test_rename_dir(fs: Target) -> None:
    """Directories move, within one and between two, over nothing and over empty ones."""
    top = (await fs.stat(b"")).nlink
    await fs.mkdir(b"one")
    assert (await fs.stat(b"")).nlink == top + 1
    ino = (await fs.stat(b"one")).ino
    await fs.rename(b"one", b"two")
    with raises(errno.ENOENT):
        await fs.stat(b"one")
    assert (await fs.stat(b"two")).ino == ino
    await fs.mkdir(b"three")
    await fs.mkdir(b"three/in")
    await fs.rename(b"three/in", b"three/moved")
    assert (await fs.stat(b"three")).nlink == 3
    await fs.rename(b"two", b"three/moved")
    assert (await fs.stat(b"three/moved")).ino == ino
    assert (await fs.stat(b"")).nlink == top + 1
    await fs.rename(b"three/moved", b"up")
    assert ((await fs.stat(b"three")).nlink, (await fs.stat(b"")).nlink) == (2, top + 2)
    assert (await fs.stat(b"up/..")).ino == (await fs.stat(b"")).ino
    await fs.write_file(b"three/f", b"")
    with raises(errno.ENOTEMPTY, errno.EEXIST):
        await fs.rename(b"up", b"three")
    with raises(errno.ENOTDIR):
        await fs.rename(b"up", b"three/f")
    with raises(errno.EISDIR):
        await fs.rename(b"three/f", b"up")
    with raises(errno.EINVAL):
        await fs.rename(b"three", b"three/in")
    assert await fs.listdir() == [b"three", b"up"]


async def test_rename_dotdot(fs: Target) -> None:
    await fs.mkdir(b"one")
    for old, new in (
        (b"one", b"one/.."),
        (b"one/..", b"two"),
        (b"one", b"one/."),
        (b"one/.", b"x"),
    ):
        with raises(errno.EBUSY, errno.EINVAL, errno.ENOTEMPTY):
            await fs.rename(old, new)
    assert await fs.listdir() == [b"one"]


async def test_rename_reg_nodir(fs: Target) -> None:
    """A file without directories around it: to a new name, over another, over its own other name.

    Both names stay in the last case.
    """
    with raises(errno.ENOENT):
        await fs.rename(b"one", b"two")
    await fs.write_file(b"one", b"1")
    await fs.write_file(b"victim", b"2")
    ino = (await fs.stat(b"one")).ino
    await fs.rename(b"one", b"two")
    with raises(errno.ENOENT):
        await fs.stat(b"one")
    await fs.rename(b"two", b"victim")
    assert await fs.listdir() == [b"victim"]
    assert (await fs.stat(b"victim")).ino == ino
    await fs.link(b"victim", b"other")
    await fs.rename(b"victim", b"other")
    assert await fs.listdir() == [b"other", b"victim"]
    got = await fs.stat(b"other")
    assert (got.ino, got.nlink) == (ino, 2)
    await fs.rename(b"other", b"other")
    assert await fs.listdir() == [b"other", b"victim"]


async def test_create_nametoolong(fs: Target) -> None:
    longest = (await fs.statvfs()).namemax
    await fs.write_file(b"n" * longest, b"fits")
    for call in (
        fs.open(b"n" * (longest + 1), RW),
        fs.mkdir(b"n" * (longest + 1)),
        fs.symlink(b"x", b"n" * (longest + 1)),
        fs.link(b"n" * longest, b"n" * (longest + 1)),
    ):
        with raises(errno.ENAMETOOLONG):
            await call
    assert await fs.listdir() == [b"n" * longest]


async def test_create_exist(fs: Target) -> None:
    exclusive = RW | os.O_EXCL
    async with await fs.open(b"f", exclusive) as file:
        await file.pwrite(b"first", 0)
    with raises(errno.EEXIST):
        await fs.open(b"f", exclusive)
    async with await fs.open(b"f", RW) as file:
        assert await file.pread(10, 0) == b"first"
    await fs.mkdir(b"d")
    await fs.symlink(b"nowhere", b"l")
    for name in (b"d", b"l"):
        with raises(errno.EEXIST):
            await fs.open(name, exclusive)


async def test_rename_nametoolong(fs: Target) -> None:
    longest = (await fs.statvfs()).namemax
    await fs.write_file(b"f", b"")
    with raises(errno.ENAMETOOLONG):
        await fs.rename(b"f", b"n" * (longest + 1))
    await fs.rename(b"f", b"n" * longest)
    assert await fs.listdir() == [b"n" * longest]


async def test_symlink_zerolen(fs: Target) -> None:
    """NetBSD makes a link to nothing; Linux, and so we, refuse to."""
    with raises(errno.ENOENT):
        await fs.symlink(b"", b"l")
    assert await fs.listdir() == []


async def test_symlink_long(fs: Target) -> None:
    """Targets of all lengths come back whole, until there is one that is refused."""
    length = 1
    while True:
        target = (b"0123456789/" * 400)[:length]
        try:
            await fs.symlink(target, b"l")
        except OSError as error:
            assert error.errno == errno.ENAMETOOLONG  # noqa: PT017
            break
        assert await fs.readlink(b"l") == target
        assert (await fs.lstat(b"l")).size == length
        await fs.unlink(b"l")
        length += max(length // 7, 1)
    assert length >= 1_000
    assert await fs.listdir() == []


async def test_symlink_root(fs: Target) -> None:
    await fs.symlink(b"/", b"root")
    assert (await fs.lstat(b"root")).kind == stat.S_IFLNK
    assert (await fs.stat(b"root")).kind == stat.S_IFDIR
    assert await fs.readlink(b"root") == b"/"


@needs("chown")
async def test_attrs(fs: Target) -> None:
    """Owner, group, permissions and times are what they were set to, all at the same time."""
    await fs.write_file(b"f", b"")
    await fs.chown(b"f", 1, 2)
    await fs.chmod(b"f", 0o123)
    await fs.utimens(b"f", 1_000_000_000 * 10**9 + 1_000, 1_000_000_050 * 10**9 + 999_999_000)
    got = await fs.stat(b"f")
    assert (got.uid, got.gid, got.perm) == (1, 2, 0o123)
    assert got.atime // 10**9 == 1_000_000_000
    assert got.mtime // 10**9 == 1_000_000_050


async def test_fcntl_lock(fs: Target) -> None:
    """A range that one process has locked is another's only after it was unlocked."""
    await fs.write_file(b"f", bytes(8_192))
    async with fs.locker(b"f") as one, fs.locker(b"f") as two:
        await one.setlk(F_WRLCK, 1_024, 1_024)
        with raises(errno.EAGAIN, errno.EACCES):
            await two.setlk(F_RDLCK, 2_047, 1)
        await two.setlk(F_WRLCK, 0, 1_024)
        await two.setlk(F_WRLCK, 2_048, 0)
        await one.setlk(F_UNLCK, 1_024, 1_024)
        await two.setlk(F_WRLCK, 1_024, 1_024)
        with raises(errno.EAGAIN, errno.EACCES):
            await one.setlk(F_RDLCK, 1_024, 1)
        await two.setlk(F_RDLCK, 0, 0)
        await one.setlk(F_RDLCK, 1_024, 1)
    async with fs.locker(b"f") as three:
        await three.setlk(F_WRLCK, 0, 0)


async def test_fcntl_getlock_pids(fs: Target) -> None:
    """Who asks hears of a lock in his way, and whose it is."""
    await fs.write_file(b"f", bytes(100))
    async with AsyncExitStack() as stack:
        lockers = [await stack.enter_async_context(fs.locker(b"f")) for _ in range(4)]
        *owners, asker = lockers
        assert len({locker.pid for locker in lockers}) == 4
        assert (await asker.getlk(F_WRLCK, 0, 0)).type == F_UNLCK
        for number in (2, 0, 1):
            kind = F_RDLCK if number == 1 else F_WRLCK
            await owners[number].setlk(kind, 10 * number, 5)
        wanted = [
            Flock(F_WRLCK, 0, 5, owners[0].pid),
            Flock(F_RDLCK, 10, 5, owners[1].pid),
            Flock(F_WRLCK, 20, 5, owners[2].pid),
        ]
        for lock in wanted:
            assert await asker.getlk(F_WRLCK, lock.start, 10) == lock
        assert await asker.getlk(F_WRLCK, 0, 0) in wanted  # of several Linux tells any
        assert (await asker.getlk(F_WRLCK, 25, 0)).type == F_UNLCK
        assert await asker.getlk(F_RDLCK, 5, 0) == wanted[2]
        assert await owners[2].getlk(F_WRLCK, 10, 0) == wanted[1]


async def test_access_simple(fs: Target) -> None:
    everything = os.R_OK | os.W_OK | os.X_OK
    await fs.write_file(b"f", b"", 0o777)
    for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK, everything):
        assert await fs.access(b"f", mode)
        assert await fs.access(b".", mode)
        with raises(errno.ENOENT):
            await fs.access(b"missing", mode)
    await fs.chmod(b"f", 0o666)
    assert not await fs.access(b"f", os.X_OK)  # not even root


@pytest.mark.ways("syscalls", "mounted", why="servers are asked for rights that there are")
async def test_access_nosuchmode(fs: Target) -> None:
    """(Part of access_simple.) The system call refuses what is no mode."""
    await fs.write_file(b"f", b"")
    with raises(errno.EINVAL):
        await fs.access(b"f", 0o1000)


async def test_read_directory(fs: Target) -> None:
    await fs.mkdir(b"d")
    async with await fs.open(b"d", os.O_RDONLY) as file:
        with raises(errno.EISDIR):
            await file.pread(100, 0)


async def test_lstat_symlink(fs: Target) -> None:
    target = b"some/where/that/is/not"
    await fs.symlink(target, b"l")
    got = await fs.lstat(b"l")
    assert got.kind == stat.S_IFLNK
    assert got.size == len(target)
    with raises(errno.ENOENT):
        await fs.stat(b"l")
