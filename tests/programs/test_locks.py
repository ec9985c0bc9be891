"""Locks of a FUSE program that has them itself, compiled here against libfuse."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..support.mounts import (
    mounted_type,
    python_command,
    run,
    unmount,
    unmount_by_force,
    wait_until,
)

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FLOCK = struct.Struct("hhqqi4x")
"""struct flock, as fcntl(2) takes it."""
HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
for word in sys.stdin:
    kind, what = word.split()
    do = fcntl.flock if kind == "flock" else lambda f, op: fcntl.lockf(f, op, 5, 10)
    try:
        do(file, getattr(fcntl, what))
    except OSError as exc:
        print(exc.errno, flush=True)
    else:
        print(0, flush=True)
"""


@pytest.fixture(scope="module")
def locker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled program."""
    program = tmp_path_factory.mktemp("locker") / "locker"
    words = run(["pkg-config", "--cflags", "--libs", "fuse3"])
    if words.status:
        pytest.fail("libfuse's headers are missing: apt-get install libfuse3-dev pkg-config")
    source = str(Path(__file__).with_name("locker.c"))
    made = run(["cc", "-Wall", "-Werror", "-o", str(program), source, *words.stdout.split()])
    assert made.status == 0, made.stderr
    return program


@contextmanager
def locked_tree(argv: Sequence[str], point: Path) -> Iterator[None]:
    """Mount by `argv` until the end of the block."""
    done = run(argv)
    try:
        assert done.status == 0, done.stderr
        yield
        unmount(point)
    finally:
        unmount_by_force(point)


@contextmanager
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has `file` open and locks it as it is told."""
    argv = [sys.executable, "-IS", "-c", HOLDER, str(file)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdin is not None
    process.stdin.write(words + "\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def said(process: subprocess.Popen[str], words: str) -> int:
    tell(process, words)
    return answer(process)


def held_behind(file: Path) -> tuple[bool, bool]:
    """Tell whether flock(2), and fcntl(2) within octets 10 to 15, meet somebody in `file`."""
    with file.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            whole = True
        else:
            whole = False
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 11, 0)
        kind, _, start, length, _ = FLOCK.unpack(fcntl.fcntl(stream, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return whole, False
        assert (kind, start, length) == (fcntl.F_WRLCK, 10, 5)
        return whole, True


@pytest.mark.parametrize("through", ["syspuffs", "puffs|perfuse"])
def test_locks_are_those_of_the_program(locker: Path, tmp_path: Path, through: str) -> None:
    tree, point = tmp_path / "tree", tmp_path / "mnt"
    tree.mkdir()
    point.mkdir()
    (tree / "f").write_bytes(bytes(100))
    behind, file = tree / "f", point / "f"
    argv = [*python_command("syspuffs"), str(locker), str(tree), str(point)]
    if through != "syspuffs":
        words = ["-t", through, f"{locker} {tree}", str(point)]
        argv = [*python_command("mount_puffs"), *words]
    with locked_tree(argv, point):
        assert (mounted_type(point) or "").startswith("fuse.puffs|")
        with holder(file) as one, holder(file) as other:
            for kind, index in (("flock", 0), ("lockf", 1)):
                assert held_behind(behind) == (False, False)
                assert said(one, f"{kind} LOCK_EX") == 0
                assert held_behind(behind)[index]
                assert not held_behind(behind)[1 - index]
                tell(other, f"{kind} LOCK_EX")  # waits
                assert said(one, f"{kind} LOCK_UN") == 0
                assert answer(other) == 0
                assert held_behind(behind)[index]
                assert said(other, f"{kind} LOCK_UN") == 0
            assert said(one, "flock LOCK_EX") == said(one, "lockf LOCK_EX") == 0
        # Both were killed: what they held has ended.
        assert wait_until(lambda: held_behind(behind) == (False, False))
