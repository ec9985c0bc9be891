"""What happens to a mount that is not to be brought back when something below it dies.

Nothing hangs, the mount answers with an error, it can be unmounted in the ordinary way,
and no process is left (which the conftest above checks after every test).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..support.expect import error_name
from ..support.leaks import UMOUNT, UMOUNT_LAZILY, children, command_line, reap
from ..support.mounts import (
    Ground,
    MountCommand,
    Mounted,
    Mounts,
    mount,
    mounted_type,
    python_command,
    run,
    unmount,
    wait_until,
    words,
)
from ..support.sshd import Sshd, find_sftp_server
from ..support.stacks import PSSHFS, PSSHFS_BY_SSH, SYSPUFFS, TMPFS, WHOLE_STACK

pytestmark = [pytest.mark.fuse, pytest.mark.sshd, pytest.mark.slow]

AT_ONCE = 5.0
"""How long an answer may take on a busy machine, seconds; without trouble it is milliseconds."""

GONE = {
    errno.EIO,
    errno.ENOTCONN,
    errno.ENXIO,
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ESTALE,
    errno.EPROTO,
}
"""Errors that say that something is broken, and not that a file is missing or the like."""


class Asking:
    """A system call in a thread, so that one that hangs can be told from one that fails."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.error: int | None = None
        self.done = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="asking")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except OSError as error:
            self.error = error.errno
        self.done = True

    def wait(self, seconds: float = AT_ONCE) -> int | None:
        """Return the errno, None for success; fail when there is no answer in time."""
        self._thread.join(seconds)
        assert self.done, f"no answer within {seconds} seconds"
        return self.error


def ask(call: Callable[[], object]) -> int | None:
    """Return the errno of a call that must not hang, None for success."""
    return Asking(call).wait()


class ForGood(Ground):
    """Ground of a mount whose connection is not brought back.

    On a busy machine the server may seem to be far, and the root be listed ahead; until the mount
    has noticed what happened it would answer from that.
    """

    @property
    def ssh_options(self) -> list[str]:
        """As for every ground, and these words."""
        return [*super().ssh_options, "no_reconnect", "prefetch=0"]


@contextmanager
def dying(command: MountCommand, ground: Ground) -> Iterator[Mounted]:
    """A mount that the block may do anything to; it must be possible to unmount it afterwards."""
    if ground.sshd is not None:
        ground = ForGood(**vars(ground))
    made = mount(command, ground)
    try:
        yield made
        if mounted_type(made.point) is not None:
            unmount(made.point)
        assert mounted_type(made.point) is None
        assert wait_until(lambda: not left(made)), f"still running: {left(made)}"
    finally:
        made.destroy()


def left(made: Mounted) -> list[str]:
    reap(children(os.getpid()))
    return [f"{pid} {command_line(pid)}" for pid in made.processes()]


def expect_broken(made: Mounted, fd: int) -> None:
    """Check that each kind of call fails, and at once."""
    point = made.point
    calls: dict[str, Callable[[], object]] = {
        "stat": lambda: os.stat(point / "never-asked-for"),
        "listdir": lambda: os.listdir(point),
        "mkdir": lambda: os.mkdir(point / "new"),
        "create": lambda: os.open(point / "new-file", os.O_CREAT | os.O_WRONLY),
        "unlink": lambda: os.unlink(point / "f"),
        "pread": lambda: os.pread(fd, 100, FAR),
        "statvfs": lambda: os.statvfs(point),
    }
    got = {name: ask(call) for name, call in calls.items()}
    wrong = {name: error_name(error) for name, error in got.items() if error not in GONE}
    assert not wrong, f"answers of a dead mount: {wrong}"


FAR = 30 << 20
"""An offset that no host has read ahead."""


def prepare(ground: Ground) -> None:
    with (ground.origin / "f").open("wb") as file:
        file.write(b"x" * 100)
        file.truncate(2 * FAR)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    try:
        assert os.pread(fd, 10, 0) == b"x" * 10
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


PROCESSES = {"psshfs": (PSSHFS, 2), "ssh": (PSSHFS_BY_SSH, 2), "stack": (WHOLE_STACK, 2)}
PROCESSES["syspuffs"] = (SYSPUFFS, 3)


@pytest.mark.parametrize(
    ("name", "victim"),
    [(name, number) for name, (_, count) in PROCESSES.items() for number in range(count)],
)
def test_kill(mounts: Mounts, name: str, victim: int) -> None:
    """SIGKILL of any one process of the chain."""
    command, count = PROCESSES[name]
    ground = mounts.ground()
    prepare(ground)
    with dying(command, ground) as made, opened(made.point / "f") as fd:
        processes = made.processes()
        assert len(processes) == count, [command_line(pid) for pid in processes]
        os.kill(processes[victim], signal.SIGKILL)
        assert wait_until(lambda: not command_line(processes[victim]))
        expect_broken(made, fd)


def test_kill_tmpfs(mounts: Mounts) -> None:
    with dying(TMPFS, mounts.ground(remote=False)) as made:
        with (made.point / "f").open("wb") as file:
            file.write(b"x" * 100)
            file.truncate(2 * FAR)
        with opened(made.point / "f") as fd:
            (process,) = made.processes()
            os.kill(process, signal.SIGKILL)
            assert wait_until(lambda: not command_line(process))
            expect_broken(made, fd)


@pytest.mark.parametrize("name", PROCESSES)
def test_server_dies(tmp_path: Path, name: str) -> None:
    """The sessions of the server are killed, as when the machine goes down."""
    command, _ = PROCESSES[name]
    with Sshd(tmp_path / "sshd") as sshd:
        ground = Ground(tmp_path / "origin", tmp_path / "mnt", tmp_path / "log", sshd)
        ground.origin.mkdir()
        prepare(ground)
        with dying(command, ground) as made, opened(made.point / "f") as fd:
            sshd.kill_sessions()
            wait_until(lambda: ask(lambda: os.stat(made.point / "never")) in GONE)
            expect_broken(made, fd)


def test_lost_write_is_told(tmp_path: Path) -> None:
    """What was written and did not get there is told by write, fsync or close."""
    with Sshd(tmp_path / "sshd") as sshd:
        ground = Ground(tmp_path / "origin", tmp_path / "mnt", tmp_path / "log", sshd)
        ground.origin.mkdir()
        with dying(PSSHFS, ground) as made:
            fd = os.open(made.point / "f", os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"x" * 1000)
            sshd.kill_sessions()
            errors = [
                ask(lambda: os.write(fd, b"y" * 100_000)),
                ask(lambda: os.fsync(fd)),
                ask(lambda: os.close(fd)),
            ]
            assert set(errors) & GONE, errors


def test_call_in_flight(tmp_path: Path) -> None:
    """A call that waits for the server when the server dies comes back."""
    trigger = tmp_path / "trigger"
    with garbled(tmp_path, "silence", trigger) as made:
        trigger.write_text("")
        asking = Asking(lambda: os.stat(made.point / "never-asked-for"))
        assert not wait_until(lambda: asking.done, 0.3), asking.error
        for pid in made.processes()[1:]:
            os.kill(pid, signal.SIGKILL)
        assert asking.wait() in GONE


def test_silent_server(tmp_path: Path) -> None:
    """A server that keeps the connection and says nothing is dead after request_timeout."""
    trigger = tmp_path / "trigger"
    with garbled(tmp_path, "silence", trigger, "request_timeout=1") as made:
        trigger.write_text("")
        assert ask(lambda: os.stat(made.point / "never-asked-for")) in GONE | {errno.ETIMEDOUT}
        assert ask(lambda: os.listdir(made.point)) in GONE | {errno.ETIMEDOUT}


def test_unmount_of_a_silent_server(tmp_path: Path) -> None:
    """umount(8) asks for statvfs first, so it takes as long as the server may be silent."""
    trigger = tmp_path / "trigger"
    with garbled(tmp_path, "silence", trigger, "request_timeout=1") as made:
        trigger.write_text("")
        Asking(lambda: unmount(made.point)).wait(15.0)
        assert wait_until(lambda: not left(made)), left(made)


GARBAGE = ["length-huge", "length-zero", "length-short", "unknown-id", "unknown-type", "cut"]


@contextmanager
def garbled(tmp_path: Path, mode: str, trigger: Path, *extra: str) -> Iterator[Mounted]:
    """A mount on a server that goes wrong in the way `mode` when `trigger` appears."""
    garbler = Path(__file__).with_name("garbler.py")
    server = f"{sys.executable} {garbler} {mode} {trigger} {find_sftp_server()}"
    ground = Ground(tmp_path / "origin", tmp_path / "mnt", tmp_path / "log", None)
    ground.origin.mkdir()
    prepare(ground)

    def argv(ground: Ground) -> list[str]:
        options = words(
            [*ground.options, f"sftp_server={server}", "no_reconnect", "prefetch=0", *extra]
        )
        return [*python_command("mount_psshfs"), *options, f":{ground.origin}", str(ground.point)]

    with dying(MountCommand("puffs|psshfs", argv), ground) as made:
        yield made


@pytest.mark.parametrize("mode", [*GARBAGE, "noise", "close"])
def test_garbage(tmp_path: Path, mode: str) -> None:
    trigger = tmp_path / "trigger"
    with garbled(tmp_path, mode, trigger) as made, opened(made.point / "f") as fd:
        trigger.write_text("")
        first = ask(lambda: os.stat(made.point / "never-asked-for"))
        assert first in GONE, error_name(first)
        error = ask(lambda: os.listdir(made.point))
        assert error in GONE, error_name(error)
        error = ask(lambda: os.pread(fd, 100, FAR))
        assert error in GONE, error_name(error)
        assert made.processes(), "the mount process crashed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["tmpfs", "syspuffs"])
def test_signal_unmounts(mounts: Mounts, name: str, number: signal.Signals) -> None:
    command = {"tmpfs": TMPFS, "syspuffs": SYSPUFFS}[name]
    with dying(command, mounts.ground(remote=command.remote)) as made:
        (made.point / "f").write_text("written before")
        os.kill(made.processes()[0], number)
        assert wait_until(lambda: mounted_type(made.point) is None)
        assert wait_until(lambda: not left(made)), left(made)
        if command.remote:
            assert (made.origin / "f").read_text() == "written before"


def test_busy_mount_is_not_torn_down(mounts: Mounts) -> None:
    """umount of a mount in use fails as it does everywhere, and the mount goes on."""
    with dying(TMPFS, mounts.ground(remote=False)) as made:
        (made.point / "f").write_bytes(b"x" * 100)
        with opened(made.point / "f") as fd:
            assert run([*UMOUNT, str(made.point)]).status != 0
            assert os.pread(fd, 10, 0) == b"x" * 10
            assert os.listdir(made.point) == ["f"]


def test_lazy_unmount_ends_when_unused(mounts: Mounts) -> None:
    with dying(TMPFS, mounts.ground(remote=False)) as made:
        (made.point / "f").write_bytes(b"x" * 100)
        with opened(made.point / "f") as fd:
            assert run([*UMOUNT_LAZILY, str(made.point)]).status == 0
            assert os.pread(fd, 10, 0) == b"x" * 10
        assert wait_until(lambda: not left(made)), left(made)
