"""Advisory locks of two processes of the host, through real mounts."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from ...support.mounts import Mounts, wait_until
from ...support.stacks import STACKS

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

OTHER = """
import errno, fcntl, os, signal, struct, sys

def interrupted(*_):
    raise InterruptedError(errno.EINTR, "")

signal.signal(signal.SIGUSR1, interrupted)
files = {}
for line in sys.stdin:
    what, *rest = line.split()
    said = ("done",)
    try:
        if what == "open":
            files[rest[0]] = os.open(sys.argv[1], os.O_RDWR)
        elif what == "close":
            os.close(files.pop(rest[0]))
        elif what == "test":
            wish = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
            said = struct.unpack("hhqqi4x", fcntl.fcntl(files["a"], fcntl.F_GETLK, wish))
        else:
            getattr(fcntl, what)(files[rest[0]], *map(int, rest[1:]))
    except OSError as exc:
        said = (errno.errorcode[exc.errno],)
    print(*said, flush=True)
"""
"""The other process: does what it is told by lines, and says how that went."""


class Other:
    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout

    def begin(self, *words: object) -> None:
        print(*words, file=self.stdin, flush=True)

    def end(self) -> str:
        return self.stdout.readline().strip()

    def do(self, *words: object) -> str:
        self.begin(*words)
        return self.end()

    def blocks(self) -> bool:
        """Whether it waits for a lock: for anything else than the next line."""
        where = Path(f"/proc/{self.process.pid}/wchan").read_text()
        return where != "0" and "pipe" not in where


@contextmanager
def another(path: Path) -> Iterator[Other]:
    other = Other(path)
    try:
        assert other.do("open", "a") == "done"
        yield other
    finally:
        other.stdin.close()
        other.process.kill()
        other.process.wait()
        other.stdout.close()


@pytest.fixture(params=["puffs|p2k|tmpfs", "puffs|p2k|ext2fs", "puffs|local", "puffs|perfuse"])
def path(request: pytest.FixtureRequest, mounts: Mounts) -> Iterator[Path]:
    """A file in a mount; the last two leave locks to the host, which programs cannot tell."""
    name = f"mount:{request.param}"
    stack = next(stack for stack in STACKS if stack.name == name)
    assert stack.command is not None
    with mounts.use(name, stack.command) as (place, _):
        (place / "file").write_bytes(bytes(100))
        yield place / "file"


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except (BlockingIOError, PermissionError):
        return True
    return False


EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB


def test_ranges_exclude_each_other(path: Path) -> None:
    with another(path) as other, path.open("r+b") as file:
        fcntl.lockf(file, EXCLUSIVE, 10, 20)
        assert other.do("lockf", "a", EXCLUSIVE, 10, 25) == "EAGAIN"
        assert other.do("lockf", "a", EXCLUSIVE, 10, 30) == "done"
        kind, _, start, length, pid = map(int, other.do("test").split())
        assert (kind, start, length, pid) == (fcntl.F_WRLCK, 20, 10, os.getpid())
        fcntl.lockf(file, fcntl.LOCK_UN, 5, 20)
        assert other.do("lockf", "a", EXCLUSIVE, 5, 20) == "done"


def test_a_close_of_any_descriptor_unlocks_ranges(path: Path) -> None:
    with another(path) as other, path.open("r+b") as file:
        assert other.do("lockf", "a", EXCLUSIVE) == "done"
        assert refused(lambda: fcntl.lockf(file, EXCLUSIVE))
        assert other.do("open", "b") == "done"
        assert other.do("close", "b") == "done"
        fcntl.lockf(file, EXCLUSIVE)


def test_flock_belongs_to_the_open_and_not_to_the_ranges(path: Path) -> None:
    with another(path) as other, path.open("r+b") as file:
        assert other.do("flock", "a", EXCLUSIVE) == "done"
        fcntl.lockf(file, EXCLUSIVE)
        assert refused(lambda: fcntl.flock(file, EXCLUSIVE))
        assert other.do("open", "b") == "done"
        assert other.do("flock", "b", EXCLUSIVE) == "EAGAIN"
        assert other.do("close", "b") == "done"
        assert refused(lambda: fcntl.flock(file, EXCLUSIVE))
        assert other.do("close", "a") == "done"
        # The host tells of the end of an open when close(2) has returned.
        assert wait_until(lambda: not refused(lambda: fcntl.flock(file, EXCLUSIVE)))


@pytest.mark.parametrize("lock", [fcntl.lockf, fcntl.flock])
def test_who_waits_gets_the_lock_or_a_signal(
    path: Path, lock: Callable[[object, int], object]
) -> None:
    with another(path) as other, path.open("r+b") as file:
        lock(file, fcntl.LOCK_EX)
        for number, how in ((signal.SIGUSR1, "EINTR"), (None, "done"), (signal.SIGKILL, "")):
            other.begin(lock.__name__, "a", fcntl.LOCK_EX)
            assert wait_until(other.blocks)
            if number is None:
                lock(file, fcntl.LOCK_UN)
            else:
                other.process.send_signal(number)
            assert other.end() == how
            if number is None:
                assert refused(lambda: lock(file, EXCLUSIVE))
                assert other.do(lock.__name__, "a", fcntl.LOCK_UN) == "done"
            lock(file, EXCLUSIVE)


def test_what_dies_lets_go(path: Path) -> None:
    with another(path) as other, path.open("r+b") as file:
        assert other.do("lockf", "a", EXCLUSIVE) == "done"
        assert other.do("flock", "a", EXCLUSIVE) == "done"
        other.process.kill()
        other.process.wait()
        assert wait_until(lambda: not refused(lambda: fcntl.lockf(file, EXCLUSIVE)))
        assert wait_until(lambda: not refused(lambda: fcntl.flock(file, EXCLUSIVE)))
