"""Mounts by the real commands, in processes of their own, against a real sshd.

`MountCommand` says how a stack is mounted; `Mounted` is one such mount and what belongs
to it; `Mounts` keeps those that the tests of a session share.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from .leaks import (
    ALLOWED,
    UMOUNT,
    UMOUNT_LAZILY,
    children,
    command_line,
    descendants,
    mounts,
    reap,
)
from .logs import BAD_LINE
from .sshd import Sshd

COMMAND_TIMEOUT: Final = 30.0
"""How long a mount command or umount may take, seconds."""


def python_command(name: str) -> list[str]:
    """Return how to run one of our commands from the environment that runs the tests."""
    return [sys.executable, "-m", f"syspuffs.bin.{name}"]


def words(options: Sequence[str]) -> list[str]:
    """Return `-o` for each of `options`."""
    return [argument for option in options for argument in ("-o", option.replace(",", "\\,"))]


@dataclass(frozen=True)
class Ground:
    """What a mount command is made of: directory behind the server, mount point, server, log."""

    origin: Path
    point: Path
    log: Path
    sshd: Sshd | None
    extra: tuple[str, ...] = ()

    @property
    def options(self) -> list[str]:
        """The `-o` words that every command gets."""
        return [f"log={self.log}", *self.extra]

    @property
    def ssh_options(self) -> list[str]:
        """The `-o` words by which a command finds the server and nothing else; links are shown as
        they are, as on any file system, though the server could lead programs astray with them."""
        assert self.sshd is not None
        return ["ssh_config=none", "symlinks=raw", *self.sshd.options]

    @property
    def special(self) -> str:
        """What to mount."""
        return f"127.0.0.1:{self.origin}"

    @property
    def image(self) -> Path:
        """Where the image of a disk is to be, for a file system that needs one."""
        return self.origin.parent / "disk.img"


@dataclass(frozen=True)
class MountCommand:
    """How a stack is mounted. `typename` is what the mount then shows, without "fuse.".

    `remote`: the directory behind it is reached by an SSH server; `local`: directly. `prepare`
    makes what is needed below, unless it is there, `finish` looks at what is left of it after the
    mount's end.
    """

    typename: str
    argv: Callable[[Ground], list[str]]
    remote: bool = True
    local: bool = False
    prepare: Callable[[Ground], object] | None = None
    finish: Callable[[Ground], object] | None = None

    @property
    def has_origin(self) -> bool:
        """Whether there is a directory behind it."""
        return self.remote or self.local


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def run(
    argv: Sequence[str],
    *,
    timeout: float = COMMAND_TIMEOUT,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: str = "",
) -> Outcome:
    """Run a command to its end, with what it says kept apart from us by files.

    A daemon that holds on to its standard error must not keep us waiting, as a pipe would.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        done = subprocess.run(
            list(argv),
            stdout=out,
            stderr=err,
            input=stdin.encode(),
            timeout=timeout,
            check=False,
            cwd=cwd,
            env=env,
        )
        seconds = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        texts = [stream.read().decode(errors="replace") for stream in (out, err)]
    return Outcome(done.returncode, texts[0], texts[1], seconds)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Poll for what another process does and tells nobody; return whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def mounted_type(point: Path) -> str | None:
    """Return the type of what is mounted at `point`, or None."""
    found = [line.fstype for line in mounts() if line.mount_point == str(point)]
    return found[-1] if found else None


def unmount(point: Path) -> None:
    """Unmount in the ordinary way; raise AssertionError when that fails."""
    got = run([*UMOUNT, str(point)])
    assert got.status == 0, f"umount failed: {got.stderr}"


def holders(point: Path) -> list[int]:
    """Return a process of each other mount name space that has a copy of the mount at `point`.

    Each unshare(1) and FUSE program under syspuffs copies all mounts that there are; a file system
    lives as long as one copy does, wherever the original was unmounted.
    """
    found: dict[str, int] = {os.readlink("/proc/self/ns/mnt"): 0}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            space = os.readlink(f"/proc/{pid}/ns/mnt")
            if space not in found:
                there = f" {point} " in Path(f"/proc/{pid}/mountinfo").read_text()
                found[space] = int(pid) if there else 0
    return [pid for pid in found.values() if pid]


def unmount_copies(point: Path) -> None:
    """Take away what others' name spaces have copied of a mount of ours, where we may."""
    for pid in holders(point) if os.geteuid() == 0 else ():
        run(["nsenter", "-t", str(pid), "-m", "umount", "-l", str(point)])


def unmount_by_force(point: Path) -> None:
    """Get rid of a mount whatever state it is in."""
    for _ in range(10):
        if mounted_type(point) is None:
            return
        run([*UMOUNT_LAZILY, str(point)])


@dataclass
class Mounted:
    """A mount that was made by a command which has returned."""

    command: MountCommand
    ground: Ground
    pids: list[int]
    log_read: int = field(default=0)

    @property
    def point(self) -> Path:
        """Where it is mounted."""
        return self.ground.point

    @property
    def origin(self) -> Path:
        """The directory behind it, when there is one."""
        return self.ground.origin

    def processes(self) -> list[int]:
        """Return all its processes that are alive."""
        found = [below for pid in self.pids for below in (pid, *descendants(pid))]
        return [pid for pid in dict.fromkeys(found) if command_line(pid)]

    def alive(self) -> bool:
        """Return whether the mount answers."""
        try:
            os.stat(self.point)
        except OSError:
            return False
        return mounted_type(self.point) is not None

    def complaints(self) -> list[str]:
        """Return lines of its log since the last call that should not be there."""
        try:
            text = self.ground.log.read_text(errors="replace")[self.log_read :]
        except FileNotFoundError:
            return []
        self.log_read += len(text)
        return [text] if BAD_LINE.search(text) else []

    def close(self) -> None:
        """Unmount and see that nothing is left."""
        unmount(self.point)
        unmount_copies(self.point)
        gone = wait_until(lambda: not self._left())
        assert not self._left(), f"still running after umount: {self._left()}"
        assert gone
        complaints = self.complaints()
        assert not complaints, "\n".join(complaints)
        if self.command.finish is not None:
            self.command.finish(self.ground)

    def _left(self) -> list[str]:
        reap(children(os.getpid()))
        return [command_line(pid) for pid in self.processes()]

    def destroy(self) -> None:
        """Get rid of it whatever state it is in."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        unmount_by_force(self.point)
        wait_until(lambda: not self._left(), 5.0)


def mount(command: MountCommand, ground: Ground) -> Mounted:
    """Run the command; the mount answers when this returns. AssertionError when it failed."""
    ground.point.mkdir(parents=True, exist_ok=True)
    if command.prepare is not None:
        command.prepare(ground)
    before = set(descendants(os.getpid()))
    got = run(command.argv(ground))
    pids = [pid for pid in children(os.getpid()) if pid not in before and command_line(pid)]
    made = Mounted(command, ground, pids)
    try:
        assert got.status == 0, f"status {got.status}: {got.stderr}{got.stdout}"
        assert got.stderr == "", f"it worked, but said: {got.stderr}"
        kind = mounted_type(ground.point)
        assert kind == "fuse." + command.typename, f"mounted as {kind}"
        assert pids, "the command left no process"
    except BaseException:
        made.destroy()
        raise
    return made


@contextmanager
def mounted(command: MountCommand, ground: Ground) -> Iterator[Mounted]:
    """Mount for the time of a block; at its end nothing may be left of it."""
    made = mount(command, ground)
    try:
        yield made
        made.close()
    finally:
        made.destroy()


class Mounts:
    """Mounts that the tests of a session share, each made when it is first asked for."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._mounted: dict[str, Mounted] = {}
        self._sshd: Sshd | None = None
        self._serial = 0

    def __enter__(self) -> Mounts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        troubles = []
        for name, made in list(self._mounted.items()):
            try:
                made.close()
            except AssertionError as error:
                troubles.append(f"{name}: {error}")
            finally:
                made.destroy()
                ALLOWED.mounts.discard(str(made.point))
        if self._sshd is not None:
            self._sshd.__exit__(None, None, None)
        assert not troubles, "\n".join(troubles)

    @property
    def sshd(self) -> Sshd:
        """The server of the session."""
        if self._sshd is None:
            sshd = Sshd(self._place / "sshd")
            sshd.__enter__()
            self._sshd = sshd
            ALLOWED.add_process(sshd.pid)
        return self._sshd

    def ground(self, *extra: str, remote: bool = True) -> Ground:
        """Return fresh ground for a mount, with an empty directory behind the server."""
        self._serial += 1
        place = self._place / f"{self._serial}"
        origin = place / "origin"
        origin.mkdir(parents=True)
        return Ground(
            origin, place / "mnt", place / "log", self.sshd if remote else None, tuple(extra)
        )

    def get(self, name: str, command: MountCommand) -> Mounted:
        """Return the mount of this name, made anew if it does not answer any more."""
        made = self.find(name)
        if made is None:
            made = self.add(name, command, self.ground(remote=command.remote))
        return made

    def find(self, name: str) -> Mounted | None:
        """Return the mount of this name if there is one that answers."""
        made = self._mounted.get(name)
        if made is not None and not made.alive():
            del self._mounted[name]
            ALLOWED.mounts.discard(str(made.point))
            made.destroy()
            made = None
        return made

    def add(self, name: str, command: MountCommand, ground: Ground) -> Mounted:
        """Make a mount of this name, which all may use from then on."""
        made = mount(command, ground)
        self._mounted[name] = made
        ALLOWED.mounts.add(str(made.point))
        for pid in made.pids:
            ALLOWED.add_process(pid)
        return made

    @contextmanager
    def use(self, name: str, command: MountCommand) -> Iterator[tuple[Path, Path]]:
        """Give a fresh directory of the mount, and its counterpart behind the server.

        The mount must answer afterwards and must not have complained in its log.
        """
        made = self.get(name, command)
        made.complaints()
        self._serial += 1
        directory = f"t{self._serial}"
        (made.point / directory).mkdir()
        yield made.point / directory, made.origin / directory
        alive = made.alive()
        complaints = made.complaints()
        assert alive, "the mount died; its log:\n" + "\n".join(complaints)
        assert not complaints, "the mount complained:\n" + "\n".join(complaints)
