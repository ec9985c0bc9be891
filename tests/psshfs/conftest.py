"""A real sshd for the module, and a mount point that is gone afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ..support.leaks import ALLOWED, children, fuse_mounts, reap
from ..support.mounts import Outcome, python_command, run, unmount_by_force, wait_until, words
from ..support.sshd import Sshd

Mount = Callable[..., Outcome]


@pytest.fixture(scope="package")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        ALLOWED.add_process(server.pid)
        yield server


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    before = set(children(os.getpid()))
    yield path
    unmount_by_force(path)
    assert str(path) not in fuse_mounts()

    def ended() -> bool:
        reap(children(os.getpid()))
        return set(children(os.getpid())) <= before

    assert wait_until(ended)


@pytest.fixture
def psshfs(sshd: Sshd, point: Path) -> Mount:
    """Give a function that runs psshfs with `arguments` in place of `host:dir mountpoint`."""
    own = words([o for o in ("ssh_config=none", *sshd.options) if not o.startswith("Port=")])

    def mount(*arguments: str, port: bool = True) -> Outcome:
        where = ["-p", str(sshd.port)] if port else []
        return run([*python_command("psshfs"), *own, *where, *arguments])

    return mount


def listening(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Run `command` for the one connection that comes to a port of the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", _ACCEPT, str(listener.fileno()), *command],
            pass_fds=[listener.fileno()],
        )
        return process, listener.getsockname()[1]


_ACCEPT = """
import os, socket, sys
peer, _ = socket.socket(fileno=int(sys.argv[1])).accept()
for number in (0, 1):
    os.dup2(peer.fileno(), number)
os.execv(sys.argv[2], sys.argv[2:])
"""
