"""What processes have used: CPU seconds and memory, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """CPU seconds of the three parts of a chain: the mount itself, its ssh, the server's end."""

    daemon: float = 0.0
    ssh: float = 0.0
    server: float = 0.0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class Parts(NamedTuple):
    """The processes behind one mount."""

    daemon: tuple[int, ...] = ()
    ssh: tuple[int, ...] = ()
    server: tuple[int, ...] = ()

    @property
    def local(self) -> tuple[int, ...]:
        """Those on our side, which end with the mount."""
        return self.daemon + self.ssh

    def usage(self) -> Usage:
        """Return what they have used since they began; nothing for those that are gone."""
        return Usage(*(sum(map(cpu_seconds, pids)) for pids in self))

    def peak(self) -> int:
        """Return the resident memory at its highest of all daemons together, octets."""
        return sum(map(peak_memory, self.daemon))


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, its ended threads included."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def peak_memory(pid: int) -> int:
    """Return VmHWM, octets."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def is_transport(command: str) -> bool:
    """Return whether a command line is that of the ssh part of a mount."""
    words = command.split()
    return bool(words) and (
        os.path.basename(words[0]) == "ssh"
        or any(word.endswith("psshfs.ssh.pump") for word in words)
    )


def settle(limit: float = 0.2) -> None:
    """Wait until nobody but us is running (what the row before left to do), or `limit` seconds."""
    deadline = time.monotonic() + limit
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
        quiet = quiet + 1 if _running() <= 1 else 0


def _running() -> int:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("procs_running"):
            return int(line.split()[1])
    return 0


def wait_gone(pids: Iterable[int], patience: float) -> list[int]:
    """Wait for processes to end, reap those that are children; return those that are left."""
    left = list(pids)
    deadline = time.monotonic() + patience
    while True:
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        left = [pid for pid in left if os.path.exists(f"/proc/{pid}")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)
