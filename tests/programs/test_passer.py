"""What few FUSE programs have, by one that has it, compiled here against libfuse.

Locks are seen from outside, for the program takes them on the files behind.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syspuffs.native.fuse_protocol import RENAME_EXCHANGE, RENAME_NOREPLACE

from ..support.mounts import (
    mounted_type,
    python_command,
    run,
    unmount,
    unmount_by_force,
    wait_until,
)

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

AT_FDCWD = -100
THROUGH = ("syspuffs", "puffs|perfuse")
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
def passer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled program."""
    program = tmp_path_factory.mktemp("passer") / "passer"
    words = run(["pkg-config", "--cflags", "--libs", "fuse3"])
    if words.status:
        pytest.fail("libfuse's headers are missing: apt-get install libfuse3-dev pkg-config")
    source = str(Path(__file__).with_name("passer.c"))
    made = run(["cc", "-Wall", "-Werror", "-o", str(program), source, *words.stdout.split()])
    assert made.status == 0, made.stderr
    return program


@contextmanager
def passed_on(passer: Path, place: Path, through: str) -> Iterator[tuple[Path, Path]]:
    """Mount a directory with a file `f` until the end of the block; yield it and the mount."""
    tree, point = place / "tree", place / "mnt"
    tree.mkdir()
    point.mkdir()
    (tree / "f").write_bytes(b"f" * 100)
    argv = [*python_command("syspuffs"), str(passer), str(tree), str(point)]
    if through != "syspuffs":
        words = ["-t", through, f"{passer} {tree}", str(point)]
        argv = [*python_command("mount_puffs"), *words]
    done = run(argv)
    try:
        assert done.status == 0, done.stderr
        assert (mounted_type(point) or "").startswith("fuse.puffs|")
        yield tree, point
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


@pytest.mark.parametrize("through", THROUGH)
def test_locks_are_those_of_the_program(passer: Path, tmp_path: Path, through: str) -> None:
    with passed_on(passer, tmp_path, through) as (tree, point):
        behind, file = tree / "f", point / "f"
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


@pytest.mark.parametrize("through", THROUGH)
def test_holes_copies_and_renames_with_flags(
    passer: Path, tmp_path: Path, through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "noted"
    noted.touch()
    monkeypatch.setenv("PASSER_LOG", str(noted))

    def renamed(old: str, new: str, flags: int) -> int:
        done = libc.renameat2(
            AT_FDCWD, os.fsencode(point / old), AT_FDCWD, os.fsencode(point / new), flags
        )
        return ctypes.get_errno() if done else 0

    libc = ctypes.CDLL(None, use_errno=True)
    with passed_on(passer, tmp_path, through) as (tree, point):
        with (tree / "sparse").open("wb") as made:
            made.truncate(8 << 20)
            os.pwrite(made.fileno(), b"data", 4 << 20)
        (tree / "target").touch()
        with (point / "sparse").open("rb") as file, (point / "target").open("r+b") as target:
            assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 4 << 20
            assert 4 << 20 < os.lseek(file.fileno(), 4 << 20, os.SEEK_HOLE) < 8 << 20
            with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
                os.lseek(file.fileno(), 6 << 20, os.SEEK_DATA)
            source, sink = file.fileno(), target.fileno()
            assert os.copy_file_range(source, sink, 100, (4 << 20) - 50, 7) == 100
            assert os.fstat(sink).st_size == 107
        assert (point / "target").read_bytes() == bytes(57) + b"data" + bytes(46)
        assert renamed("f", "target", RENAME_NOREPLACE) == errno.EEXIST
        assert renamed("f", "free", RENAME_NOREPLACE) == 0
        assert renamed("free", "target", RENAME_EXCHANGE) == 0
        assert (point / "target").read_bytes() == b"f" * 100
        assert (tree / "free").read_bytes() == (point / "free").read_bytes()
        assert sorted(os.listdir(point)) == ["free", "sparse", "target"]
    said = noted.read_text().splitlines()
    assert {"lseek", "copy"} < set(said)
    # The first one the host refuses by itself, for it knows the name.
    assert said.count("rename with flags") == 2
    assert "rename" not in said
