"""What a test must not leave behind: processes, descriptors, threads, mounts.

The test process makes itself the subreaper of everything below it, so that a daemon
which detached itself is found as a child all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Final, NamedTuple

_PR_SET_CHILD_SUBREAPER: Final = 36
_PATIENCE: Final = 5.0
"""For how many seconds a process may take to vanish after its test, before it is a leak."""

UMOUNT: Final = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
UMOUNT_LAZILY: Final = [*UMOUNT, "-l" if os.geteuid() == 0 else "-z"]


class MountLine(NamedTuple):
    """One line of /proc/self/mountinfo."""

    mount_point: str
    fstype: str
    source: str
    options: str
    super_options: str


def become_subreaper() -> None:
    """Let orphans below this process become its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _mount_line(text: str) -> MountLine:
    left, right = text.split(" - ", 1)
    mount_point, options = left.split()[4:6]
    fstype, source, of_all = right.split()
    return MountLine(_unescape(mount_point), fstype, _unescape(source), options, of_all)


def _mount_texts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def mounts() -> list[MountLine]:
    """Return the mounts that this process sees."""
    return [_mount_line(text) for text in _mount_texts()]


def fuse_mounts() -> set[str]:
    """Return the mount points of all FUSE file systems."""
    return {_mount_line(text).mount_point for text in _mount_texts() if " - fuse" in text}


def children(pid: int) -> list[int]:
    """Return the children of `pid`, zombies among them."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(child) for child in found]


def descendants(pid: int, *, without: Set[int] = frozenset()) -> list[int]:
    """Return everything below `pid`, parents before children.

    Those in `without`, and what is below them, are not looked at.
    """
    found = []
    queue = [pid]
    while queue:
        queue = [child for above in queue for child in children(above) if child not in without]
        found += queue
    return found


def command_line(pid: int) -> str:
    """Return a process's arguments for people, "" when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def reap(pids: Iterable[int]) -> None:
    """Collect those of `pids` that are zombies of ours."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {fd: text for fd, text in found.items() if not text.startswith("/proc/")}


def _threads() -> set[str]:
    """Return the names of threads that do something: trio keeps idle ones for reuse."""
    return {
        thread.name for thread in threading.enumerate() if not thread.name.startswith("Trio thread")
    }


class Snapshot:
    """What there is before a test; `leaks` tells what has come since, but for what is `allowed`.

    Of mounts only those below `place` count: others use the machine, too. Taken before and after
    each of thousands of tests: the processes of servers and mounts that they share, by far the
    most, are passed over in one piece.
    """

    def __init__(self, place: Path, allowed: Allowed) -> None:
        self._allowed = allowed
        self._place = str(place) + "/"
        self._descriptors = _descriptors()
        self._threads = _threads()
        self._children = set(descendants(os.getpid(), without=allowed.roots))
        self._mounts = fuse_mounts()

    def leaks(self) -> list[str]:
        """Return a line for each thing left behind, after some patience.

        Kills processes and takes away mounts that it names: they are not to disturb later tests.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            lines = self._leaks()
            if not lines:
                return []
            if time.monotonic() > deadline:
                break
            gc.collect()
            time.sleep(0.01)
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for point in self._left_mounts():
            subprocess.run([*UMOUNT_LAZILY, point], check=False)
        return lines

    def _leaks(self) -> list[str]:
        lines = [f"process left behind: {pid} {command_line(pid)}" for pid in self._processes()]
        lines += [f"mount left behind: {point}" for point in self._left_mounts()]
        lines += [
            f"descriptor left open: {fd} -> {text}"
            for fd, text in sorted(_descriptors().items())
            if self._descriptors.get(fd) != text and not self._allowed.descriptor(text)
        ]
        return lines + [
            f"thread left behind: {name}" for name in sorted(_threads() - self._threads)
        ]

    def _left_mounts(self) -> list[str]:
        come = fuse_mounts() - self._mounts - self._allowed.mounts
        return sorted(point for point in come if point.startswith(self._place))

    def _processes(self) -> list[int]:
        reap(children(os.getpid()))
        there = descendants(os.getpid(), without=self._allowed.roots)
        return [pid for pid in there if pid not in self._children and command_line(pid)]


class Allowed:
    """What lasts for the session on purpose: servers and mounts that many tests share."""

    def __init__(self) -> None:
        self.mounts: set[str] = set()
        self.roots: set[int] = set()
        """Processes that may stay, and with them everything below them."""
        self._texts: set[str] = set()

    def add_process(self, pid: int) -> None:
        """Allow `pid` and everything below it."""
        self.roots.add(pid)

    def add_descriptor(self, text: str) -> None:
        """Allow descriptors of what /proc shows as `text`."""
        self._texts.add(text)

    def descriptor(self, text: str) -> bool:
        """Return whether a descriptor of `text` may stay open."""
        return text in self._texts


ALLOWED: Final = Allowed()
