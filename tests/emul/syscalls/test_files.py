"""Open files: positions, flags, what is shared by whom, and when it ends."""

from __future__ import annotations

import os
import select
from collections.abc import Coroutine
from errno import (
    EBADF,
    EFBIG,
    EINVAL,
    EIO,
    EISDIR,
    EMFILE,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    ENXIO,
    EOPNOTSUPP,
)
from fcntl import F_DUPFD, F_GETFD, F_GETFL, F_SETFD, F_SETFL
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.syscalls import Process
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FSYNC_CACHE,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FSYNC_WAIT,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred

from ..caller import ANN, fails, now
from .harness import booted, check_idle, read_file, tmpfs, write_file

RW = os.O_RDWR | os.O_CREAT


def test_position(  # (rump's t_basic lseekrv: what lseek returns)
) -> None:
    p = booted()
    fd = now(p.open(b"f", RW))
    assert now(p.write(fd, b"0123456789")) == 10
    assert now(p.lseek(fd, 0, os.SEEK_CUR)) == 10
    assert now(p.read(fd, 5)) == b""
    assert now(p.lseek(fd, 3, os.SEEK_SET)) == 3
    assert now(p.read(fd, 3)) == b"345"
    assert now(p.lseek(fd, -2, os.SEEK_CUR)) == 4
    assert now(p.write(fd, b"ab")) == 2
    assert now(p.lseek(fd, -1, os.SEEK_END)) == 9
    assert now(p.read(fd, 5)) == b"9"
    assert now(p.lseek(fd, 5, os.SEEK_END)) == 15
    assert now(p.read(fd, 5)) == b""
    assert now(p.write(fd, b"x")) == 1
    assert now(p.pread(fd, 100, 0)) == b"0123ab6789\0\0\0\0\0x"
    assert now(p.lseek(fd, 0, os.SEEK_CUR)) == 16
    for offset, whence in ((-1, os.SEEK_SET), (-17, os.SEEK_CUR), (-17, os.SEEK_END), (0, 99)):
        with fails(EINVAL):
            now(p.lseek(fd, offset, whence))
    with fails(EINVAL):
        now(p.lseek(fd, 2**63 - 1, os.SEEK_END))
    assert now(p.lseek(fd, 0, os.SEEK_CUR)) == 16
    assert now(p.lseek(fd, 2**63 - 1, os.SEEK_SET)) == 2**63 - 1
    with fails(EFBIG):
        now(p.write(fd, b"x"))
    now(p.close(fd))


def test_data_and_holes_of_a_file_system_that_does_not_tell() -> None:
    """It is all data, and behind the end is a hole."""
    p = booted()
    fd = now(p.open(b"f", RW))
    now(p.pwrite(fd, b"x", 9_999))
    assert now(p.lseek(fd, 0, os.SEEK_DATA)) == 0
    assert now(p.lseek(fd, 777, os.SEEK_DATA)) == 777
    assert now(p.lseek(fd, 777, os.SEEK_HOLE)) == 10_000
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        for offset in (-1, 10_000, 20_000):
            with fails(ENXIO):
                now(p.lseek(fd, offset, whence))
    now(p.close(fd))


class Blocks(TmpFs):
    """Says that its files have blocks of 4 KiB, every third of which is a hole."""

    async def bmap(self, vp: Vnode, offset: int, length: int) -> tuple[int, int]:
        block, inside = divmod(offset, 4096)
        return (-1 if block % 3 == 2 else block * 8), min(4096 - inside, length)


def test_data_and_holes() -> None:
    p = booted(Blocks(uid=0, gid=0, mode=0o755))
    fd = now(p.open(b"f", RW))
    now(p.ftruncate(fd, 6 * 4096 - 100))
    for offset, data, hole in (
        (0, 0, 8192),
        (1, 1, 8192),
        (8191, 8191, 8192),
        (8192, 12288, 8192),
        (10_001, 12288, 10_001),
        (13_000, 13_000, 20480),
    ):
        assert now(p.lseek(fd, offset, os.SEEK_DATA)) == data
        assert now(p.lseek(fd, offset, os.SEEK_HOLE)) == hole
    with fails(ENXIO):
        now(p.lseek(fd, 21_000, os.SEEK_DATA))
    now(p.close(fd))


def test_what_a_descriptor_is_good_for() -> None:
    p = booted()
    write_file(p, b"f", b"data")
    reader, writer = now(p.open(b"f", os.O_RDONLY)), now(p.open(b"f", os.O_WRONLY))
    directory = now(p.open(b".", os.O_RDONLY))
    for call in (p.write(reader, b"x"), p.pwrite(reader, b"x", 0), p.read(writer, 1)):
        with fails(EBADF):
            now(call)
    absent: list[Coroutine[Any, Any, object]] = [p.read(99, 1), p.fsync(99), p.fstat(-1)]
    absent += [p.close(99), p.getdents(writer, 100)]
    for coro in absent:
        with fails(EBADF):
            now(coro)
    with fails(EINVAL):
        now(p.ftruncate(reader, 0))
    with fails(EINVAL):
        now(p.ftruncate(directory, 0))
    for bad in (p.ftruncate(writer, -1), p.pread(reader, 1, -1), p.pwrite(writer, b"x", -1)):
        with fails(EINVAL):
            now(bad)
    with fails(EISDIR):
        now(p.read(directory, 10))
    with fails(ENOTDIR):
        now(p.getdents(reader, 100))
    assert now(p.read(reader, 10)) == b"data"
    for fd in (reader, writer, directory):
        now(p.close(fd))
    with fails(EBADF):
        now(p.close(reader))
    check_idle(p)


def test_path_only() -> None:
    """O_PATH needs no permission but to get there, and is good for little."""
    root = booted()
    write_file(root, b"f", b"data", 0o600)
    now(root.mkdir(b"d", 0o700))
    now(root.symlink(b"f", b"l"))
    p = Process(root.kernel, ANN)
    fd = now(p.open(b"f", os.O_PATH | os.O_TRUNC | os.O_CREAT))
    assert now(p.fstat(fd)).st_size == 4
    calls: list[Coroutine[Any, Any, object]] = [
        p.read(fd, 1),
        p.write(fd, b""),
        p.fchmod(fd, 0),
        p.fchown(fd, -1, -1),
        p.fsync(fd),
    ]
    calls += [p.ftruncate(fd, 0), p.futimens(fd, 0, 0), p.lseek(fd, 0, 0), p.getdents(fd, 9)]
    for call in calls:
        with fails(EBADF):
            now(call)
    assert now(p.fcntl(fd, F_GETFL)) == os.O_PATH
    assert now(p.poll([(fd, select.POLLIN)], 0)) == [(fd, select.POLLNVAL)]
    link = now(p.open(b"l", os.O_PATH | os.O_NOFOLLOW))
    assert now(p.fstat(link)) == now(p.lstat(b"l"))
    directory = now(p.open(b"d", os.O_PATH))
    with fails(ENOTDIR):
        now(p.stat(b"x", dirfd=fd))
    for number in (fd, link, directory):
        now(p.close(number))
    check_idle(root, p)


def test_append() -> None:
    p = booted()
    write_file(p, b"f", b"0123")
    one = now(p.open(b"f", os.O_WRONLY | os.O_APPEND))
    two = now(p.open(b"f", os.O_RDWR))
    now(p.lseek(one, 0, os.SEEK_SET))
    assert now(p.write(one, b"45")) == 2
    assert now(p.lseek(one, 0, os.SEEK_CUR)) == 6
    now(p.write(two, b"ab"))
    assert now(p.pwrite(one, b"67", 0)) == 2  # at the end, as Linux does it
    assert now(p.lseek(one, 0, os.SEEK_CUR)) == 6
    assert now(p.pread(two, 100, 0)) == b"ab234567"
    assert now(p.fcntl(one, F_GETFL)) == os.O_WRONLY | os.O_APPEND
    assert now(p.fcntl(one, F_SETFL, 0)) == 0
    now(p.pwrite(one, b"X", 0))
    now(p.fcntl(two, F_SETFL, os.O_APPEND | os.O_CREAT | os.O_WRONLY))
    assert now(p.fcntl(two, F_GETFL)) == os.O_RDWR | os.O_APPEND
    now(p.write(two, b"8"))
    assert read_file(p, b"f") == b"Xb2345678"
    now(p.close(one))
    now(p.close(two))


def test_open_flags() -> None:
    p = booted()
    write_file(p, b"f", b"data")
    for flags in (os.O_CREAT | os.O_DIRECTORY, os.O_WRONLY | os.O_RDWR):
        with fails(EINVAL):
            now(p.open(b"f", flags))
    with fails(EOPNOTSUPP):
        now(p.open(b".", os.O_TMPFILE | os.O_RDWR))
    fd = now(p.open(b"f", os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME | os.O_NONBLOCK | os.O_DIRECT))
    assert now(p.read(fd, 9)) == b"data"
    assert now(p.fcntl(fd, F_GETFL)) == os.O_NOATIME | os.O_NONBLOCK | os.O_DIRECT
    now(p.close(fd))
    fd = now(p.open(b"f", os.O_RDONLY | os.O_TRUNC))
    assert now(p.fstat(fd)).st_size == 0
    now(p.close(fd))
    fd = now(p.creat(b"g", 0o777))
    assert now(p.fstat(fd)).st_mode == 0o100755
    now(p.close(fd))
    check_idle(p)


def test_created_file_may_be_opened_once_in_any_mode() -> None:
    root = booted(tmpfs(mode=0o777))
    p = Process(root.kernel, ANN)
    fd = now(p.open(b"f", RW, 0o444))
    now(p.write(fd, b"x"))
    now(p.ftruncate(fd, 0))
    with pytest.raises(VfsError):
        now(p.open(b"f", os.O_WRONLY))
    with pytest.raises(VfsError):
        now(p.truncate(b"f", 0))
    now(p.close(fd))


def test_descriptor_outlives_permissions() -> None:
    """What was opened for writing can be written, and cut, whatever became of file and user."""
    root = booted(tmpfs(mode=0o777))
    root.umask(0)
    write_file(root, b"f", b"data", 0o666)
    p = Process(root.kernel, ANN)
    fd = now(p.open(b"f", os.O_RDWR))
    now(root.chmod(b"f", 0))
    now(p.write(fd, b"D"))
    now(p.ftruncate(fd, 2))
    assert now(p.pread(fd, 9, 0)) == b"Da"
    now(p.close(fd))


def test_lowest_number() -> None:
    p = booted()
    fds = [now(p.open(b"f", RW)) for _ in range(5)]
    assert fds == [0, 1, 2, 3, 4]
    now(p.close(1))
    now(p.close(3))
    assert now(p.open(b"f", RW)) == 1
    assert p.dup(0) == 3
    assert p.dup(0) == 5
    assert now(p.fcntl(0, F_DUPFD, 10)) == 10
    assert now(p.fcntl(0, F_DUPFD, 10)) == 11
    assert p.dup(0) == 6
    now(p.close(0))
    assert now(p.open(b"f", RW)) == 0
    for fd in list(p.files):
        now(p.close(fd))
    check_idle(p)


def test_too_many_files() -> None:
    p = booted(nofile=3)
    fds = [now(p.open(b"f", RW)) for _ in range(3)]
    for call in (p.open(b"new", RW), p.fcntl(0, F_DUPFD, 0)):
        with fails(EMFILE):
            now(call)
    with fails(EMFILE):
        p.dup(0)
    with fails(ENOENT):
        now(p.stat(b"new"))
    with fails(EINVAL):
        now(p.fcntl(0, F_DUPFD, 3))
    with fails(EBADF):
        now(p.dup2(0, 3))
    with fails(EBADF):
        p.dup(17)
    now(p.close(fds[1]))
    assert now(p.open(b"f", RW)) == fds[1]
    for fd in fds:
        now(p.close(fd))
    with fails(ENOENT):
        now(p.open(b"missing", os.O_RDONLY))
    assert len(p.files) == 0
    check_idle(p)


def test_dup_shares_the_position() -> None:
    p = booted()
    write_file(p, b"f", b"0123456789")
    fd = now(p.open(b"f", os.O_RDONLY))
    other, again = p.dup(fd), now(p.open(b"f", os.O_RDONLY))
    assert now(p.read(fd, 4)) == b"0123"
    assert now(p.read(other, 2)) == b"45"
    assert now(p.read(again, 2)) == b"01"
    now(p.close(fd))
    assert now(p.read(other, 2)) == b"67"
    assert now(p.dup2(other, again)) == again
    assert now(p.read(again, 1)) == b"8"
    assert now(p.dup2(other, other)) == other
    assert now(p.dup2(other, 40)) == 40
    now(p.lseek(40, 1, os.SEEK_SET))
    assert now(p.read(other, 1)) == b"1"
    for number in (other, again, 40):
        assert now(p.fcntl(number, F_GETFD)) == now(p.fcntl(number, F_SETFD, 1)) == 0
        now(p.close(number))
    with fails(EBADF):
        now(p.dup2(other, 1))
    with fails(EINVAL):
        fd = now(p.open(b"f", os.O_RDONLY))
        now(p.fcntl(fd, 9999))
    now(p.close(fd))
    check_idle(p)


def test_vectors() -> None:
    p = booted()
    fd = now(p.open(b"f", RW))
    assert now(p.writev(fd, [b"ab", b"", bytearray(b"cde"), memoryview(b"f")])) == 6
    now(p.lseek(fd, 1, os.SEEK_SET))
    assert [bytes(piece) for piece in now(p.readv(fd, [2, 1, 10, 5]))] == [b"bc", b"d", b"ef"]
    assert now(p.readv(fd, [2, 3])) == []
    now(p.close(fd))


def test_short_write_says_how_much() -> None:
    """Space runs out in the middle of a long write: what is there is told, then the error."""
    p = booted(tmpfs(size_limit=3 << 20))
    fd = now(p.open(b"f", RW))
    assert now(p.write(fd, bytes(5 << 20))) == 3 << 20
    assert now(p.lseek(fd, 0, os.SEEK_CUR)) == 3 << 20
    with fails(ENOSPC):
        now(p.write(fd, b"x"))
    assert now(p.fstat(fd)).st_size == 3 << 20
    now(p.close(fd))


def test_reading_directories() -> None:
    p = booted()
    names = {b"f%02d" % number for number in range(30)}
    for name in names:
        write_file(p, name)
    fd = now(p.open(b".", os.O_RDONLY))
    seen = []
    while entries := now(p.getdents(fd, 200)):
        seen += [entry.name for entry in entries]
    assert len(seen) == 32
    assert set(seen) == names | {b".", b".."}
    assert now(p.getdents(fd, 200)) == []
    now(p.lseek(fd, 0, os.SEEK_SET))
    first = now(p.getdents(fd, 200))
    here = now(p.lseek(fd, 0, os.SEEK_CUR))
    second = now(p.getdents(fd, 200))
    assert [entry.name for entry in first + second] == seen[: len(first) + len(second)]
    now(p.lseek(fd, here, os.SEEK_SET))
    assert now(p.getdents(fd, 200)) == second
    with fails(EINVAL):
        now(p.lseek(fd, 0, os.SEEK_END))
    now(p.mkdir(b"gone"))
    gone = now(p.open(b"gone", os.O_RDONLY))
    now(p.rmdir(b"gone"))
    with fails(ENOENT):
        now(p.getdents(gone, 200))
    now(p.close(fd))
    now(p.close(gone))


def test_space() -> None:
    p = booted()
    fd = now(p.open(b"f", RW))
    now(p.fallocate(fd, 0, 100, 9_900))
    assert now(p.fstat(fd)).st_size == 10_000
    now(p.pwrite(fd, b"x" * 10_000, 0))
    now(p.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 20))
    assert now(p.pread(fd, 40, 0)) == b"x" * 10 + bytes(20) + b"x" * 10
    for args in ((0, -1, 1), (0, 0, 0)):
        with fails(EINVAL):
            now(p.fallocate(fd, *args))
    with fails(EOPNOTSUPP):
        now(p.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1))
    now(p.close(fd))
    fd = now(p.open(b"f", os.O_RDONLY))
    with fails(EBADF):
        now(p.fallocate(fd, 0, 0, 1))
    now(p.close(fd))


class Sinking(TmpFs):
    """Counts what is asked of it about durability, and says that it went wrong."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0, mode=0o755)
        self.asked: list[tuple[int, int, int]] = []
        self.opens = 0
        self.errno = 0

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        got = await super().open(vp, mode, cred)
        self.opens += 1
        return got

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        super().close(vp, fflag, cred)
        self.opens -= 1

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        self.asked.append((flags, offlo, offhi))
        if self.errno:
            raise VfsError(self.errno)


def test_what_durability_asks_for() -> None:
    fs = Sinking()
    p = booted(fs)
    whole = FSYNC_WAIT | FSYNC_CACHE
    fd = now(p.open(b"f", RW))
    now(p.write(fd, b"12345"))
    assert fs.asked == []
    now(p.fsync(fd))
    now(p.fdatasync(fd))
    assert fs.asked == [(whole, 0, 0), (whole | FSYNC_DATAONLY, 0, 0)]
    fs.asked.clear()
    now(p.close(fd))
    assert fs.asked == [(FSYNC_CLOSE, 0, 0)]
    fs.asked.clear()
    for flag, asked in ((os.O_SYNC, whole), (os.O_DSYNC, whole | FSYNC_DATAONLY)):
        fd = now(p.open(b"f", os.O_WRONLY | flag))
        now(p.pwrite(fd, b"ab", 10))
        assert fs.asked == [(asked, 10, 12)]
        fs.errno = EIO
        with fails(EIO):
            now(p.pwrite(fd, b"ab", 10))
        fs.errno = 0
        now(p.close(fd))
        fs.asked.clear()
    fd = now(p.open(b"f", os.O_RDONLY))
    now(p.close(fd))  # has written nothing that could be late
    assert fs.asked == []


def test_close_tells_what_went_wrong_and_closes_all_the_same() -> None:
    fs = Sinking()
    p = booted(fs)
    one = now(p.open(b"f", RW))
    two = p.dup(one)
    fs.errno = EIO
    with fails(EIO):
        now(p.close(one))
    assert fs.opens == 1
    with fails(EBADF):
        now(p.close(one))
    with fails(EIO):  # each descriptor hears of it
        now(p.close(two))
    assert fs.opens == 0
    three, four = now(p.open(b"f", RW)), now(p.open(b"f", os.O_RDONLY))
    assert now(p.dup2(four, three)) == three
    assert fs.opens == 1
    now(p.close(three))
    now(p.close(four))
    assert fs.opens == 0
    check_idle(p)


def test_failed_open_leaves_nothing_open() -> None:
    fs = Sinking()
    p = booted(fs)
    write_file(p, b"f", b"x")

    async def refuse(*args: object) -> tuple[object, int]:
        raise VfsError(EIO)

    fs.setattr = refuse  # type: ignore[method-assign, assignment]
    with fails(EIO):
        now(p.open(b"f", os.O_WRONLY | os.O_TRUNC))
    assert fs.opens == 0
    assert len(p.files) == 0
    check_idle(p)


# With a scheduler.


class Slow(TmpFs):
    """Lets others run before each read, write and inactive."""

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(await super().read(vp, offset, resid, ioflag, cred))

    async def write(self, vp: Vnode, offset: int, data: object, ioflag: int, cred: Cred) -> None:
        await trio.lowlevel.checkpoint()
        await super().write(vp, offset, data, ioflag, cred)  # type: ignore[arg-type]


async def test_readers_of_one_position_get_different_octets() -> None:
    p = booted(Slow(uid=0, gid=0, mode=0o755))
    fd = await p.open(b"f", RW)
    await p.write(fd, bytes(range(200)))
    await p.lseek(fd, 0, os.SEEK_SET)
    got: list[bytes] = []

    async def read() -> None:
        for _ in range(10):
            got.append(bytes(await p.read(fd, 5)))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(read)
    assert sorted(b"".join(got)) == list(range(200))
    assert all(piece == bytes(range(piece[0], piece[0] + 5)) for piece in got)
    await p.close(fd)


async def test_writers_at_one_position_and_appenders_lose_nothing() -> None:
    p = booted(Slow(uid=0, gid=0, mode=0o755))
    shared = await p.open(b"f", RW)
    appending = [await p.open(b"g", RW | os.O_APPEND) for _ in range(3)]

    async def write(number: int) -> None:
        for _ in range(5):
            await p.write(shared, b"%d" % number * 10)
            await p.write(appending[number], b"%d" % number * 10)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(write, number)
    for name in (b"f", b"g"):
        fd = await p.open(name, os.O_RDONLY)
        data = bytes(await p.read(fd, 1000))
        await p.close(fd)
        pieces = [data[start : start + 10] for start in range(0, len(data), 10)]
        assert sorted(pieces) == sorted(
            b"%d" % number * 10 for number in range(3) for _ in range(5)
        )
    for fd in (shared, *appending):
        await p.close(fd)


class Gated(TmpFs):
    """Reads nothing before it may."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0, mode=0o755)
        self.gate = trio.Event()

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> bytes:
        await self.gate.wait()
        return bytes(await super().read(vp, offset, resid, ioflag, cred))


async def test_close_during_a_call() -> None:
    """The call goes on with the file that it began with; the number is free at once."""
    fs = Gated()
    p = booted(fs)
    fd = await p.open(b"f", RW)
    await p.write(fd, b"contents")
    got: list[bytes] = []

    async def read() -> None:
        got.append(bytes(await p.pread(fd, 100, 0)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.start_soon(p.close, fd)  # (waits, too: there is something to be handed on)
        await wait_all_tasks_blocked()
        assert await p.open(b"other", RW) == fd
        fs.gate.set()
    assert got == [b"contents"]
    await p.close(fd)
    check_idle(p)


class Shy(TmpFs):
    """Is ready when `ready` says so."""

    ready = 0

    async def poll(self, vp: Vnode, events: int) -> int:
        return events & self.ready


async def test_poll(autojump_clock: MockClock) -> None:
    fs = Shy(uid=0, gid=0, mode=0o755)
    p = booted(fs)
    fd = await p.open(b"f", RW)
    both = select.POLLIN | select.POLLOUT
    assert await p.poll([(fd, both), (-1, both)], 0) == []
    start = trio.current_time()
    assert await p.poll([(fd, both)], 7.5) == []
    assert trio.current_time() - start == pytest.approx(7.5)
    assert await p.poll([(fd, both), (99, both)], 7.5) == [(99, select.POLLNVAL)]
    fs.ready = select.POLLOUT
    assert await p.poll([(fd, both)]) == [(fd, select.POLLOUT)]
    fs.ready = 0

    async def become_ready() -> None:
        await trio.sleep(3)
        fs.ready = select.POLLIN

    async with trio.open_nursery() as nursery:
        nursery.start_soon(become_ready)
        assert await p.poll([(fd, both)]) == [(fd, select.POLLIN)]
    assert trio.current_time() - start < 11
    await p.close(fd)
