"""The mounts that are measured: their commands, their processes, their end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..support.leaks import command_line, descendants, mounts
from . import work
from .server import HOST, Server
from .usage import Parts, Usage, is_transport, wait_gone

_MOUNT_TIME: Final = 20.0
"""Seconds within which a mount command must have returned."""
_LEAVE_TIME: Final = 5.0
"""Seconds for the daemons to end after the unmount, before they are killed."""


class Failed(Exception):
    """A measurement that came to nothing; the text says why, in one line."""


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    seconds: float
    amount: int
    usage: Usage


@dataclass(frozen=True)
class Contender:
    """What is measured in one column. `argv` takes (server, remote directory, mount point).

    `rows` are the keys of the rows it can do (None: all that are nobody's alone), `links` those
    of the links it is measured over (None: all). `plain` is the key of the contender that it is a
    further pair of layers on top of, or another layer, of which `share` says how much of the speed
    has to be left. `is_slow`: its time for many files is a multiple of that
    for a few, and a few are enough.
    """

    key: str
    title: str
    fstype: str
    argv: Callable[[Server, Path, Path], list[str]]
    rows: frozenset[str] | None = None
    plain: str | None = None
    share: float | None = None
    links: frozenset[str] | None = None
    is_slow: bool = False

    def does(self, row: str) -> bool:
        """Tell whether it is measured in a row."""
        return row not in _ALONE if self.rows is None else row in self.rows


_ALONE: Final = frozenset({"late"})
"""Rows that only those do who name them."""


def script(name: str) -> str:
    """Return the path of one of our commands, beside the interpreter that runs this."""
    return str(Path(sys.executable).with_name(name))


def _sshfs(server: Server, remote: Path, point: Path) -> list[str]:
    argv = ["sshfs", "-F", str(server.config), f"{HOST}:{remote}", str(point)]
    said = subprocess.run(["sshfs", "--help"], capture_output=True, text=True).stdout
    # Debian's patch rejects absolute symbolic links by default, which upstream and ours do not.
    return [*argv, "-o", "no_contain_symlinks"] if "no_contain_symlinks" in said else argv


def _psshfs(*words: str) -> Callable[[Server, Path, Path], list[str]]:
    def argv(server: Server, remote: Path, point: Path) -> list[str]:
        return [script("mount_psshfs"), *_place(server, words, remote, point)]

    return argv


def _place(server: Server, words: Sequence[str], remote: Path, point: Path) -> list[str]:
    options = ",".join([f"ssh_config={server.config}", *words])
    return ["-o", options, f"{HOST}:{remote}", str(point)]


_OPENSSH: Final = ("ssh_command=ssh",)


def _stack(server: Server, remote: Path, point: Path) -> list[str]:
    head = [script("mount_puffs"), "-t", "puffs|p2k|puffs|psshfs"]
    return [*head, *_place(server, _OPENSSH, remote, point)]


def _with_null(server: Server, remote: Path, point: Path) -> list[str]:
    head = [script("mount_puffs"), "-t", "puffs|null|psshfs"]
    return [*head, *_place(server, _OPENSSH, remote, point)]


def _with_trace(server: Server, remote: Path, point: Path) -> list[str]:
    file = point.with_suffix(".trace")
    file.unlink(missing_ok=True)  # of the last round
    words = (*_OPENSSH, f"trace={file}", "trace_data=full")
    head = [script("mount_puffs"), "-t", "puffs|trace|psshfs"]
    return [*head, *_place(server, words, remote, point)]


def _wrapped(server: Server, remote: Path, point: Path) -> list[str]:
    return [script("syspuffs"), *_psshfs(*_OPENSSH)(server, remote, point)]


def _control(server: Server, _remote: Path, _point: Path) -> list[str]:
    return ["ssh", "-F", str(server.config), HOST]


SSHFS: Final = "sshfs"
CONTENDERS: Final[tuple[Contender, ...]] = (
    Contender(SSHFS, "sshfs", "fuse.sshfs", _sshfs, is_slow=True),
    Contender("asyncssh", "psshfs, asyncssh", "fuse.puffs|psshfs", _psshfs()),
    Contender("ssh", "psshfs, ssh", "fuse.puffs|psshfs", _psshfs(*_OPENSSH)),
    Contender("stack", "stack, 1 process", "fuse.puffs|p2k|puffs|psshfs", _stack, plain="ssh"),
    Contender(
        *("wrapped", "syspuffs, 2 proc.", "fuse.puffs|p2k|puffs|psshfs", _wrapped),
        plain="ssh",
        links=frozenset({"0"}),
    ),
    Contender(
        *("null", "a `null` on top", "fuse.puffs|null|psshfs", _with_null),
        plain="ssh",
        share=0.95,
        links=frozenset({"0"}),
    ),
    Contender(
        *("trace", "`trace`, all data", "fuse.puffs|trace|psshfs", _with_trace),
        plain="ssh",
        share=0.90,
        links=frozenset({"0"}),
    ),
    Contender(
        *("late", "writeback=yes", "fuse.puffs|psshfs", _psshfs(*_OPENSSH, "writeback=yes")),
        rows=frozenset({"late"}),
    ),
    Contender("cat", "ssh cat, tar", "", _control, rows=frozenset({"read", "write", "tar"})),
)


@dataclass
class Mount:
    """A contender at work, from `attach` on until `detach`."""

    contender: Contender
    point: Path
    parts: Parts
    dead: str = ""
    peaks: list[int] = field(default_factory=list)

    def measure(self, name: str, sizes: Mapping[str, object], limit: float) -> Sample:
        """Do one work on the mount. Errors: Failed; after a hang the mount is `dead`."""
        if self.dead:
            raise Failed(self.dead)
        before = self.parts.usage()
        argv = [sys.executable, "-I", work.__file__, name, str(self.point), json.dumps(sizes)]
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, said = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.dead = f"no end within {limit:.0f} s"
            raise Failed(self.dead) from None
        finally:
            _kill_tree(child)
        if child.returncode != 0:
            raise Failed(said.strip().splitlines()[-1] if said.strip() else "died")
        result = json.loads(output)
        usage = self.parts.usage() - before
        return Sample(float(result["seconds"]), int(result["amount"]), usage)


class Control:
    """Plain `ssh HOST cat` or tar, without a file system: what the transport itself can do."""

    dead = ""

    def __init__(self, contender: Contender, server: Server, tree: Path) -> None:
        self.contender = contender
        self._argv = contender.argv(server, tree, tree)
        self._tree = tree
        self.peaks: list[int] = []

    def measure(self, name: str, sizes: Mapping[str, object], limit: float) -> Sample:
        """Copy one way; the time for the login is not counted. Errors: Failed."""
        is_written = name == "write_stream"
        amount, wanted = 0, int(str(sizes["stream"]))
        if name == "read_stream":
            remote = f"cat {self._tree}/stream"
        elif name == "tar_files":
            remote = f"tar -P -cf - {self._tree}/tar"
            wanted = int(str(sizes["small"]))
        else:
            remote = f"dd bs=1M status=none conv=fsync of={self._tree}/{sizes['own']}/written"
        child = subprocess.Popen(
            [*self._argv, f"echo ready; read go; exec {remote}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # debugging messages of our sshd come this way, too
            bufsize=0,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        # ssh flow control never lets it wait for ever: a dead server closes the pipe.
        try:
            if child.stdout.read(6) != b"ready\n":
                raise Failed("no login")
            began = time.perf_counter()
            child.stdin.write(b"go\n")
            if is_written:
                amount = _feed(child.stdin.fileno(), str(sizes["source"]))
            else:
                amount = _drain(child.stdout.fileno())
            child.stdin.close()
            child.wait(limit)
            seconds = time.perf_counter() - began
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(str(error)) from None
        finally:
            _kill_tree(child)
            child.stdout.close()
        if amount < wanted:
            raise Failed(f"{amount} octets of {wanted}")
        return Sample(seconds, wanted, Usage())


def _drain(fd: int) -> int:
    buffer = bytearray(1 << 20)
    total = 0
    while count := os.readv(fd, [buffer]):
        total += count
    return total


def _feed(fd: int, source: str) -> int:
    total = 0
    with open(source, "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            view = memoryview(data)
            while view:
                count = os.write(fd, view)
                total += count
                view = view[count:]
    return total


def _kill_tree(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End `child` and what it started, if it still runs."""
    if child.poll() is not None:
        return
    for pid in (child.pid, *descendants(child.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_LEAVE_TIME)


@contextlib.contextmanager
def mounted(
    contender: Contender, server: Server, remote: Path, point: Path
) -> Iterator[Mount | Control]:
    """Mount for as long as the block lasts. Errors: Failed when it does not come to be."""
    if not contender.fstype:
        yield Control(contender, server, remote)
        return
    with attached(contender, contender.argv(server, remote, point), point, server.pid) as mount:
        yield mount


@contextlib.contextmanager
def attached(
    contender: Contender, argv: list[str], point: Path, server: int = 0
) -> Iterator[Mount]:
    """Mount by `argv` for as long as the block lasts; `server` is the pid of an sshd of ours.

    Errors: Failed when it does not come to be.
    """
    before = set(descendants(os.getpid()))
    point.mkdir(exist_ok=True)
    parts = Parts()
    try:
        try:
            _run_mount(contender, argv, point)
        finally:
            parts = _parts(server, before)
        yield Mount(contender, point, parts)
    finally:
        _detach(parts, point)


def _run_mount(contender: Contender, argv: list[str], point: Path) -> None:
    """Run a mount command to its end. Its daemon keeps what it says in a file beside the mount."""
    said = point.with_suffix(".log")
    if shutil.which(argv[0]) is None:
        raise Failed(f"{argv[0]} is not there")
    with said.open("w") as out:
        try:
            status = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=_MOUNT_TIME
            ).returncode
        except subprocess.TimeoutExpired:
            raise Failed(f"the command did not return within {_MOUNT_TIME:.0f} s") from None
    if status != 0:
        words = said.read_text().strip().splitlines()
        raise Failed(f"exit status {status}: {words[-1] if words else 'no message'}")
    types = [line.fstype for line in mounts() if line.mount_point == str(point)]
    if types != [contender.fstype]:
        raise Failed(f"mounted as {types}, not as {contender.fstype}")


def _parts(server: int, before: set[int]) -> Parts:
    remote = [pid for pid in descendants(server) if pid not in before] if server else []
    ours = [
        pid
        for pid in descendants(os.getpid())
        if pid not in before and pid not in remote and pid != server
    ]
    ssh = [pid for pid in ours if is_transport(command_line(pid))]
    return Parts(tuple(pid for pid in ours if pid not in ssh), tuple(ssh), tuple(remote))


def _detach(parts: Parts, point: Path) -> None:
    # What it has started since; others' mounts have started more, too.
    later = [child for pid in parts.local for child in descendants(pid)]
    local = tuple(dict.fromkeys((*parts.local, *later)))
    if _is_mounted(point) and not _unmount("-u", point):
        for pid in local:  # a dead daemon's mount can always be unmounted
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _unmount("-uz", point)
    for pid in wait_gone(local, _LEAVE_TIME):
        print(f"killed: {command_line(pid)} did not end after the unmount", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_gone(local, 1.0)
    if not _is_mounted(point):
        point.rmdir()


def _unmount(how: str, point: Path) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        argv = ["fusermount3", how, str(point)]
        return subprocess.run(argv, capture_output=True, timeout=_LEAVE_TIME).returncode == 0
    return False


def _is_mounted(point: Path) -> bool:
    return any(line.mount_point == str(point) for line in mounts())
