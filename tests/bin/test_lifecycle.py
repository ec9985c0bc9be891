"""From the command to the mount and to its end: background, signals, unmounting, what stays.

The processes of a mount become children of this one (tests/support/leaks.py), so that
their exit statuses can be seen.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.leaks import children, command_line, descendants, fuse_mounts, reap
from ..support.mounts import (
    holders,
    mounted_type,
    python_command,
    unmount,
    unmount_copies,
    wait_until,
)
from ..support.sshd import find_sftp_server

pytestmark = pytest.mark.fuse

TMPFS = [*python_command("mount_puffs"), "-t", "puffs|p2k|tmpfs"]
SYSPUFFS = python_command("syspuffs")


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if str(path) in fuse_mounts():
        subprocess.run(["umount", "-l", path], check=False)
        pytest.fail("still mounted")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    path = tmp_path / "origin"
    path.mkdir()
    return path


def psshfs(origin: Path, point: Path, *arguments: str) -> list[str]:
    """Return a command that mounts `origin` by a server without ssh."""
    server = ["-o", f"sftp_server={find_sftp_server()}"]
    return [*python_command("mount_psshfs"), *server, *arguments, f":{origin}", str(point)]


def run(*argv: str) -> tuple[int, str]:
    """Run a command in a session of its own, with pipes; return status and what it said."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        start_new_session=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def mounted_by(*argv: str) -> int:
    """Run a command that goes to the background; return the process id of the mount."""
    before = set(children(os.getpid()))
    assert run(*argv) == (0, "")
    (pid,) = set(children(os.getpid())) - before
    return pid


def end_of(pid: int) -> int:
    """Wait for a process; return its status as a shell has it."""
    found: list[int] = []

    def ended() -> bool:
        with contextlib.suppress(ChildProcessError):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                found.append(status)
        return bool(found)

    assert wait_until(ended), "the process does not end"
    code = os.waitstatus_to_exitcode(found[0])
    return code if code >= 0 else 128 - code


def alive(pids: list[int]) -> list[int]:
    """Return those of `pids` that run, having waited for those that do not."""
    reap(children(os.getpid()))
    return [pid for pid in pids if command_line(pid)]


# Unmounting


@pytest.mark.parametrize("wrapper", [[], SYSPUFFS, SYSPUFFS * 2])
def test_umount_ends_everything(point: Path, wrapper: list[str]) -> None:
    daemon = mounted_by(*wrapper, *TMPFS, "none", str(point))
    assert mounted_type(point) == "fuse.puffs" + "|p2k|puffs" * (len(wrapper) // 3) + "|p2k|tmpfs"
    processes = [daemon, *descendants(daemon)]
    assert len(processes) == 1 + len(wrapper) // 3
    for pid in processes:  # none of them has anything to do with the terminal or session of before
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
        assert b"PUFFS_COMFD" not in Path(f"/proc/{pid}/environ").read_bytes() or pid != daemon
    (point / "file").write_text("x")
    subprocess.run(["umount", point], check=True)
    assert end_of(daemon) == 0


def copier(started: list[subprocess.Popen[str]], *argv: str | Path) -> subprocess.Popen[str]:
    """Copy all mounts into a name space, and run a command there when a line comes."""
    script = 'echo; read x; exec "$@"'
    process = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount name space: run as root")
def test_a_copy_of_the_mount_keeps_it_alive(
    point: Path, started: list[subprocess.Popen[str]]
) -> None:
    """A container or unshare(1) copies the mounts that there are: the file system is in use there
    when it is unmounted here, and ends at once with the last copy."""
    pid = mounted_by(*TMPFS, "none", str(point))
    (point / "f").write_text("kept")
    there = copier(started, "cat", point / "f")
    assert there.pid in holders(point)
    unmount(point)
    assert command_line(pid)
    assert there.communicate("now\n", timeout=10)[0] == "kept"
    unmount_copies(point)
    assert end_of(pid) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount name space: run as root")
def test_a_copy_can_be_taken_away(point: Path, started: list[subprocess.Popen[str]]) -> None:
    """What other tests have copied at the same time does not count against a mount."""
    pid = mounted_by(*TMPFS, "none", str(point))
    there = copier(started, "true")
    unmount(point)
    unmount_copies(point)
    assert end_of(pid) == 0
    assert there.poll() is None


def test_fusermount_ends_everything(point: Path, origin: Path) -> None:
    daemon = mounted_by(*SYSPUFFS, *psshfs(origin, point))
    (point / "file").write_text("data")
    subprocess.run(["fusermount3", "-u", point], check=True)
    assert end_of(daemon) == 0
    assert (origin / "file").read_text() == "data"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wrapper", [[], SYSPUFFS])
def test_a_signal_unmounts(
    point: Path, origin: Path, number: signal.Signals, wrapper: list[str]
) -> None:
    daemon = mounted_by(*wrapper, *psshfs(origin, point))
    (point / "file").write_bytes(b"data" * 100_000)
    os.kill(daemon, number)
    assert end_of(daemon) == 0
    assert mounted_type(point) is None
    assert (origin / "file").read_bytes() == b"data" * 100_000


def test_a_signal_to_the_wrapped_command_unmounts(point: Path, origin: Path) -> None:
    daemon = mounted_by(*SYSPUFFS, *psshfs(origin, point))
    wrapped = descendants(daemon)[0]
    os.kill(wrapped, signal.SIGTERM)
    assert end_of(daemon) == 0


def test_a_signal_unmounts_what_is_in_use(point: Path) -> None:
    daemon = mounted_by(*TMPFS, "none", str(point))
    with open(point / "file", "wb", buffering=0) as file:
        os.kill(daemon, signal.SIGTERM)
        assert end_of(daemon) == 0
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            file.write(b"x")
        with contextlib.suppress(OSError):
            file.close()


def test_hangup_drops_caches(point: Path, origin: Path) -> None:
    (origin / "file").write_text("old")
    daemon = mounted_by(*SYSPUFFS, *psshfs(origin, point, "-t", "-1"))
    assert (point / "file").stat().st_size == 3
    (origin / "file").write_text("brand new")
    assert (point / "file").stat().st_size == 3
    os.kill(daemon, signal.SIGHUP)
    assert wait_until(lambda: (point / "file").stat().st_size == 9)
    assert (point / "file").read_text() == "brand new"
    subprocess.run(["umount", point], check=True)
    assert end_of(daemon) == 0


# Death


def test_death_of_the_wrapped_command(point: Path, origin: Path) -> None:
    daemon = mounted_by(*SYSPUFFS, *psshfs(origin, point))
    (origin / "file").touch()
    os.kill(descendants(daemon)[0], signal.SIGKILL)

    def fails() -> bool:
        try:
            os.listdir(point)
        except OSError:
            return True
        return False

    assert wait_until(fails)
    subprocess.run(["umount", point], check=True)
    assert end_of(daemon) in (0, 1)


def test_death_of_the_wrapper(point: Path, origin: Path) -> None:
    daemon = mounted_by(*SYSPUFFS, *psshfs(origin, point))
    below = descendants(daemon)
    os.kill(daemon, signal.SIGKILL)
    assert end_of(daemon) == 137
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.listdir(point)
    subprocess.run(["umount", point], check=True)
    assert wait_until(lambda: not alive(below))


# The foreground


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(started: list[subprocess.Popen[str]], *argv: str) -> subprocess.Popen[str]:
    """Start a command that stays in the foreground."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


STAYING = [
    pytest.param([], ["-f"], id="-f"),
    pytest.param([], ["-s"], id="-s"),
    pytest.param([*SYSPUFFS, "-f"], [], id="syspuffs -f"),
    pytest.param(SYSPUFFS, ["-s"], id="syspuffs CMD -s"),
]


@pytest.mark.parametrize(("wrapper", "letters"), STAYING)
@pytest.mark.parametrize("number", [None, signal.SIGINT])
def test_stays_in_the_foreground(
    point: Path,
    origin: Path,
    started: list[subprocess.Popen[str]],
    wrapper: list[str],
    letters: list[str],
    number: signal.Signals | None,
) -> None:
    process = start(started, *wrapper, *psshfs(origin, point, *letters))
    assert wait_until(lambda: mounted_type(point) is not None)
    (point / "file").write_text("data")
    assert process.poll() is None
    if number is None:
        subprocess.run(["umount", point], check=True)
    else:
        os.killpg(process.pid, number)  # as ^C at a terminal does
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 0
    assert (origin / "file").read_text() == "data"


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 4, 6, 8, 12, 20])
def test_a_signal_as_soon_as_the_mount_serves(
    point: Path, origin: Path, started: list[subprocess.Popen[str]], milliseconds: int
) -> None:
    """Others may be at work in it before the command itself knows that it answers."""
    process = start(started, *psshfs(origin, point, "-s"))
    assert wait_until(lambda: mounted_type(point) is not None)
    (point / "file").write_text("data")
    time.sleep(milliseconds / 1000)  # waits for nothing: the moment is what is tried
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 0
    assert (origin / "file").read_text() == "data"
    assert mounted_type(point) is None


# Before the mount is up


ENDLESS = f"{sys.executable} -c 'import time; time.sleep(600)'"


@pytest.mark.parametrize("wrapper", [[], SYSPUFFS])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_connecting(
    point: Path,
    started: list[subprocess.Popen[str]],
    wrapper: list[str],
    number: signal.Signals,
) -> None:
    command = [*python_command("mount_psshfs"), "-o", f"sftp_server={ENDLESS}", ":/", str(point)]
    process = start(started, *wrapper, *command)
    assert wait_until(lambda: any(_sleeps(pid) for pid in descendants(process.pid)))
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 128 + number


def _sleeps(pid: int) -> bool:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return words[1:3] == [b"-c", b"import time; time.sleep(600)"]
    return False


def test_death_of_who_waits(point: Path, started: list[subprocess.Popen[str]]) -> None:
    command = [*python_command("mount_psshfs"), "-o", f"sftp_server={ENDLESS}", ":/", str(point)]
    process = start(started, *command)
    assert wait_until(lambda: any(_sleeps(pid) for pid in descendants(process.pid)))
    below = descendants(process.pid)
    process.kill()
    assert wait_until(lambda: not alive(below))


def test_interrupt_key_while_connecting(point: Path) -> None:
    """^C goes to the whole group: the waiting parent, its child, and what that started."""
    command = [
        *SYSPUFFS,
        *python_command("mount_psshfs"),
        "-o",
        f"ssh_command={ENDLESS}",
        "host:",
        str(point),
    ]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    try:
        assert wait_until(lambda: any(_sleeps(below) for below in descendants(pid)))
        os.write(terminal, termios.tcgetattr(terminal)[6][termios.VINTR])
        assert end_of(pid) == 128 + signal.SIGINT
    finally:
        os.close(terminal)


def test_the_command_returns_when_the_mount_answers(point: Path) -> None:
    begin = time.monotonic()
    daemon = mounted_by(*TMPFS, "none", str(point))
    assert os.statvfs(point).f_blocks > 0
    assert time.monotonic() - begin < 20
    os.kill(daemon, signal.SIGTERM)
    assert end_of(daemon) == 0


@pytest.mark.parametrize("wrapper", [[], SYSPUFFS], ids=["psshfs", "syspuffs"])
def test_inode_numbers_outlive_the_mount(point: Path, origin: Path, wrapper: list[str]) -> None:
    """Backup programs know files by them; stat(2) and readdir(3) tell the same."""
    (origin / "d/e").mkdir(parents=True)
    for name in ("f", "d/g", "d/e/h"):
        (origin / name).write_text(name)
    seen: list[dict[str, int]] = []
    for look_first in (False, True):
        pid = mounted_by(*wrapper, *psshfs(origin, point))
        paths = ("d/e/h", "f", "d/g", "d/e", "d") if look_first else ()
        looked = {f"{point}/{path}": (point / path).stat().st_ino for path in paths}
        listed = {
            entry.path: entry.inode()
            for directory in (".", "d", "d/e")
            for entry in os.scandir(os.path.normpath(point / directory))
        }
        assert listed == {path: os.stat(path).st_ino for path in listed}
        assert looked.items() <= listed.items()
        seen.append(listed)
        unmount(point)
        unmount_copies(point)
        assert end_of(pid) == 0
    assert seen[0] == seen[1]
    assert len(set(seen[0].values())) == 5
