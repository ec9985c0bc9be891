"""Servers for real clients: sshd in front of our program, over a tree in memory and over psshfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ..support.leaks import ALLOWED
from ..support.mounts import python_command
from ..support.sftpd import Daemon, user
from ..support.sshd import Sshd, find_sftp_server

HERE = Path(__file__).resolve().parent
TREES = ("tmpfs", "psshfs", "local", "sftpd")
"""Behind sshd: files in memory, and this machine by way of psshfs and as it is. By puffs_sftpd:
files in memory."""
TIMEOUT = 60


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("programs"):
        for program, package in marker.kwargs.items():
            if shutil.which(program) is None:
                pytest.fail(f"{program} is missing: apt-get install {package}")


class Resident:
    """A process that serves one tree; `command` is what reaches it by standard streams."""

    def __init__(self, place: Path, tree: str) -> None:
        self._socket = place / "resident"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sftpd.resident", str(self._socket), tree],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=HERE.parents[1],
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        ALLOWED.add_process(self._process.pid)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            ALLOWED.add_descriptor(os.readlink(f"/proc/self/fd/{stream.fileno()}"))

    @property
    def command(self) -> str:
        return f"{sys.executable} -I -S {HERE / 'relay.py'} {self._socket}"

    def stop(self) -> None:
        """End it; it must have nothing left."""
        _, said = self._process.communicate("", timeout=TIMEOUT)
        assert self._process.returncode == 0, said
        assert "ERROR" not in said, said
        assert "WARNING" not in said, said


def program(*arguments: str) -> str:
    """Return our program over the root of this machine, by way of psshfs."""
    words = [*python_command("puffs_sftp_server"), "-t", "psshfs"]
    words += ["-o", f"sftp_server={find_sftp_server()}", *arguments, ":/"]
    return " ".join(words)


@dataclass
class Server:
    """An SSH server, and how clients find it: host "t" of `config`, or address, user and key."""

    sshd: Sshd | Daemon
    config: Path
    ppk: Path


@dataclass
class Ground:
    """Where a test works: `remote` on the server, a directory here."""

    server: Server
    remote: str
    local: Path
    tree: str
    made: list[Path] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str = "",
        status: int = 0,
        timeout: float = TIMEOUT,
    ) -> str:
        """Run a client to its end; return what it printed. AssertionError when it fails."""
        done = subprocess.run(
            [str(word) for word in argv],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=self.local,
            timeout=timeout,
            check=False,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": str(self.local),
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
            },
        )
        assert done.returncode == status, f"status {done.returncode}: {argv}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="session")
def resident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resident]:
    """Files in memory that outlive each session."""
    made = Resident(tmp_path_factory.mktemp("resident"), "tmpfs")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resident]:
    """The root of this machine, by way of psshfs."""
    made = Resident(tmp_path_factory.mktemp("host"), "host")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def servers(
    tmp_path_factory: pytest.TempPathFactory, resident: Resident
) -> Iterator[dict[str, Server]]:
    """A server for each kind of tree."""
    found: dict[str, Server] = {}
    with ExitStack() as exits:
        local = " ".join([*python_command("puffs_sftp_server"), "-t", "local", "/"])
        for tree, command in (
            ("tmpfs", resident.command),
            ("psshfs", program()),
            ("local", local),
            ("sftpd", ""),
        ):
            place = tmp_path_factory.mktemp(f"server-{tree}")
            sshd = Sshd(place, subsystem=command) if command else Daemon(place, user(Daemon.user))
            exits.enter_context(sshd)
            ALLOWED.add_process(sshd.pid)
            config = place / "config"
            lines = ["Host t", f"  HostName {sshd.host}"]
            lines += [f"  {option.replace('=', ' ', 1)}" for option in sshd.options]
            config.write_text("\n".join(lines) + "\n")
            ppk = place / "identity.ppk"
            subprocess.run(["puttygen", sshd.identity, "-o", ppk], check=True)
            found[tree] = Server(sshd, config, ppk)
        yield found


@pytest.fixture(params=TREES)
def ground(
    request: pytest.FixtureRequest, servers: dict[str, Server], tmp_path: Path
) -> Iterator[Ground]:
    """A fresh directory on a server of each kind, and one here."""
    tree: str = request.param
    local = tmp_path / "local"
    local.mkdir()
    if tree in ("psshfs", "local"):
        remote = tmp_path / "remote"
        remote.mkdir()
        yield Ground(servers[tree], str(remote), local, tree)
        return
    made = Ground(servers[tree], f"/{tmp_path.name}", local, tree)
    made.run(["sftp", "-b", "-", "-F", made.server.config, "t"], stdin=f"-mkdir {made.remote}\n")
    yield made
