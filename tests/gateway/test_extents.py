"""Space and copies within files, asked for by programs of the host through real mounts."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.mounts import Mounts
from ..support.stacks import STACKS

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE = 0x1, 0x2, 0x8
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
