"""Space and copies within files, asked for by programs of the host through real mounts."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...support.mounts import Mounts
from ...support.stacks import STACKS

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE = 0x1, 0x2, 0x8
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100
HAVE_SPACE = ("puffs|p2k|tmpfs", "puffs|p2k|ext2fs", "puffs|local", "puffs|perfuse")

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """Return errno, 0 for success."""
    return 0 if libc.fallocate(fd, mode, offset, length) == 0 else ctypes.get_errno()


def place_of(mounts: Mounts, typename: str) -> Iterator[Path]:
    name = f"mount:{typename}"
    stack = next(stack for stack in STACKS if stack.name == name)
    assert stack.command is not None
    with mounts.use(name, stack.command) as (place, _):
        yield place


@pytest.fixture(params=HAVE_SPACE)
def fd(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[int]:
    """A file of 40000 octets in a mount."""
    for place in place_of(mounts, request.param):
        opened = os.open(place / "file", os.O_RDWR | os.O_CREAT)
        os.write(opened, b"x" * 40000)
        yield opened
        os.close(opened)


def test_space_behind_the_end_makes_a_file_longer(fd: int) -> None:
    assert fallocate(fd, 0, 30000, 70000) == 0
    assert os.fstat(fd).st_size == 100000
    assert os.pread(fd, 200000, 0) == b"x" * 40000 + bytes(60000)
    os.posix_fallocate(fd, 100000, 1)
    assert os.fstat(fd).st_size == 100001


def test_a_hole_reads_as_zeros(fd: int) -> None:
    assert os.pread(fd, 40000, 0) == b"x" * 40000  # the host has the pages now
    assert fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 8192, 16384) == 0
    assert os.fstat(fd).st_size == 40000
    assert os.pread(fd, 40000, 0) == b"x" * 8192 + bytes(16384) + b"x" * 15424
    os.fsync(fd)


def test_a_kept_size_counts_within_the_file_only(fd: int) -> None:
    assert fallocate(fd, KEEP_SIZE, 0, 40000) == 0
    assert fallocate(fd, KEEP_SIZE, 0, 40001) == errno.EOPNOTSUPP
    assert os.fstat(fd).st_size == 40000
    assert fallocate(fd, COLLAPSE_RANGE, 0, 4096) == errno.EOPNOTSUPP


@pytest.mark.sshd
def test_without_the_operation_zeros_are_written(mounts: Mounts) -> None:
    for place in place_of(mounts, "puffs|psshfs"):
        with (place / "file").open("wb") as file:
            assert fallocate(file.fileno(), 0, 0, 5000) == errno.EOPNOTSUPP
            os.posix_fallocate(file.fileno(), 0, 5000)
        assert (place / "file").read_bytes() == bytes(5000)


def renameat2(old: Path, new: Path, flags: int) -> int:
    """Return errno, 0 for success."""
    done = libc.renameat2(AT_FDCWD, bytes(old), AT_FDCWD, bytes(new), flags)
    return 0 if done == 0 else ctypes.get_errno()


@pytest.fixture(params=[*HAVE_SPACE, "puffs|psshfs"])
def place(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Path]:
    yield from place_of(mounts, request.param)


def test_a_copy_within_a_mount(place: Path) -> None:
    data = bytes(range(256)) * 400
    (place / "from").write_bytes(data)
    with (place / "from").open("rb") as source, (place / "to").open("w+b") as target:
        copied = os.copy_file_range(source.fileno(), target.fileno(), 70000, 1000, 30000)
        assert 0 < copied <= 70000
        assert os.fstat(target.fileno()).st_size == 30000 + copied
        target.seek(0)
        assert target.read() == bytes(30000) + data[1000 : 1000 + copied]
        assert os.copy_file_range(source.fileno(), target.fileno(), 10, len(data)) == 0


def test_data_are_found(place: Path) -> None:
    """Whether holes are known or not: data are never taken for one."""
    with (place / "file").open("w+b") as file:
        file.write(b"x" * 4096)
        file.seek(1 << 20)
        file.write(b"y")
        file.flush()
        fd, size = file.fileno(), (1 << 20) + 1
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0
        assert os.lseek(fd, 1 << 20, os.SEEK_DATA) == 1 << 20
        assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == size
        assert 4096 <= os.lseek(fd, 0, os.SEEK_HOLE) <= size
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(fd, size, os.SEEK_DATA)


def test_renames_with_flags_are_done_whole_or_refused(place: Path) -> None:
    one, two, three = place / "one", place / "two", place / "three"
    one.write_text("1")
    two.write_text("2")
    assert renameat2(one, two, RENAME_NOREPLACE) == errno.EEXIST
    assert (one.read_text(), two.read_text()) == ("1", "2")
    done = renameat2(one, three, RENAME_NOREPLACE)
    assert done in (0, errno.EINVAL)
    assert (one if done else three).read_text() == "1"
    assert sorted(os.listdir(place)) == sorted(["one" if done else "three", "two"])
    first = one if done else three
    done = renameat2(first, two, RENAME_EXCHANGE)
    assert done in (0, errno.EINVAL)
    assert (first.read_text(), two.read_text()) == (("1", "2") if done else ("2", "1"))
