"""^C and timeout(1) end a program that waits for a server which says nothing.

The server is stopped, not cut off: nothing notices for as long as a keepalive takes. Programs end
within seconds, whatever they wait for; when the server goes on, so does the mount, and what was
interrupted has happened as a whole or not at all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ..support.mounts import Ground, MountCommand, Mounted, mounted, wait_until
from ..support.sshd import Sshd, list_descendants
from ..support.stacks import PSSHFS, WHOLE_STACK

pytestmark = [pytest.mark.fuse, pytest.mark.sshd, pytest.mark.slow]

SOON = 3.0
"""How long a program may take to end, seconds: an interrupt is answered after a quarter of one."""

ASKING = [
    ["cat", "d/file"],
    ["stat", "unknown"],
    ["ls", "unlisted"],
    ["readlink", "link"],
]
CHANGING = [
    ["touch", "made"],
    ["mkdir", "directory"],
    ["rm", "-f", "victim"],
    ["mv", "-n", "old", "new"],
    ["dd", "if=/dev/zero", "of=d/file", "bs=1M", "count=64", "conv=notrunc"],
    ["dd", "if=/dev/zero", "of=d/file", "bs=4k", "count=1", "conv=notrunc,fsync"],
]


@contextmanager
def stopped(sshd: Sshd) -> Iterator[None]:
    """The server and its sessions do nothing for the time of the block."""
    pids = [sshd.pid, *list_descendants(sshd.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(params=[PSSHFS, WHOLE_STACK], ids=lambda command: command.typename)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Mounted, Sshd]]:
    """A mount with a server of its own, some files there that nobody has looked at."""
    command: MountCommand = request.param
    origin = tmp_path / "origin"
    for name in ("d", "unlisted"):
        (origin / name).mkdir(parents=True)
    for name in ("d/file", "unlisted/file", "victim", "old"):
        (origin / name).write_bytes(b"x" * 100_000)
    (origin / "link").symlink_to("old")
    with Sshd(tmp_path / "sshd") as sshd:
        ground = Ground(origin, tmp_path / "mnt", tmp_path / "log", sshd)
        with mounted(command, ground) as made:
            yield made, sshd


def started(argv: list[str], made: Mounted) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        cwd=made.point,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def is_stuck(process: subprocess.Popen[bytes]) -> bool:
    """Whether it waits for us in the host, or there for one who does."""
    place = Path(f"/proc/{process.pid}")
    try:
        return "fuse" in (place / "stack").read_text() or _state(place) == "D"
    except PermissionError:  # only root may look at the stack
        return _state(place) in "SD"


def _state(place: Path) -> str:
    return (place / "stat").read_text().rpartition(")")[2].split()[0]


def interrupt(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to who waits."""
    assert wait_until(lambda: is_stuck(process) or process.poll() is not None)
    assert process.poll() is None, "it did not wait for the server"
    os.killpg(process.pid, number)


def test_programs_end(place: tuple[Mounted, Sshd]) -> None:
    made, sshd = place
    os.stat(made.point / "d")
    with stopped(sshd), ExitStack() as stack:
        timed = stack.enter_context(started(["timeout", "1", "cat", "d/file"], made))
        since = time.monotonic()
        processes = [stack.enter_context(started(argv, made)) for argv in (*ASKING, *CHANGING)]
        numbers = [(signal.SIGINT, signal.SIGTERM)[i % 2] for i in range(len(processes))]
        # All get theirs before any is waited for: the host lets one at a time change a directory,
        # and who waits for his turn there cannot be woken.
        for process, number in zip(processes, numbers, strict=True):
            stack.callback(process.kill)
            interrupt(process, number)
        start = time.monotonic()
        for process, number in zip(processes, numbers, strict=True):
            assert process.wait(SOON) in (-number, 1), process.args
        assert time.monotonic() - start < SOON
        assert timed.wait(SOON) == 124
        assert time.monotonic() - since >= 1
    # The server goes on, and so does everything.
    assert (made.point / "unlisted/file").read_bytes() == b"x" * 100_000
    assert os.listdir(made.point / "unlisted") == ["file"]
    assert wait_until(lambda: set(os.listdir(made.point)) == set(os.listdir(made.origin)))
    for name in os.listdir(made.origin):
        ours, theirs = os.lstat(made.point / name), os.lstat(made.origin / name)
        assert (ours.st_size, ours.st_mode) == (theirs.st_size, theirs.st_mode), name
    (made.point / "made again").write_bytes(b"new")
    assert (made.origin / "made again").read_bytes() == b"new"
    os.mkdir(made.point / "directory again")
    assert (made.point / "d/file").read_bytes() == (made.origin / "d/file").read_bytes()


@pytest.mark.parametrize("place", [PSSHFS], indirect=True)
def test_signals_that_end_nobody_interrupt_nothing(place: tuple[Mounted, Sshd]) -> None:
    """A program that takes SIGALRM, SIGURG or SIGCHLD all the time is answered, not interrupted."""
    made, sshd = place
    program = (
        "import os, signal, sys\n"
        "for number in (signal.SIGALRM, signal.SIGURG, signal.SIGUSR1):\n"
        "    signal.signal(number, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)\n"
        "print(flush=True)\n"
        "print(os.stat('unlisted/file').st_size, flush=True)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    argv = [sys.executable, "-I", "-c", program]
    with ExitStack() as stack:
        with stopped(sshd):
            process = stack.enter_context(
                subprocess.Popen(argv, cwd=made.point, stdout=subprocess.PIPE)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            assert wait_until(lambda: is_stuck(process))
            process.send_signal(signal.SIGURG)
            process.send_signal(signal.SIGUSR1)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)  # four looks at who was interrupted
        assert process.stdout.read() == b"100000\n"
        assert process.wait() == 0
