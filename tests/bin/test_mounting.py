"""What a mount that is up looks like: its options, and what was asked on the terminal before."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.leaks import children, fuse_mounts, mounts, reap
from ..support.mounts import mounted_type, python_command, unmount, wait_until
from ..support.sshd import find_sftp_server

pytestmark = pytest.mark.fuse

SYSPUFFS = python_command("syspuffs")


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    before = set(children(os.getpid()))
    yield path
    if str(path) in fuse_mounts():
        unmount(path)
    assert wait_until(lambda: reap_all() <= before)


def reap_all() -> set[int]:
    """Wait for daemons that have ended and return the children that have not."""
    reap(children(os.getpid()))
    return set(children(os.getpid()))


def tmpfs(point: Path, *options: str) -> list[str]:
    return [
        *python_command("mount_puffs"),
        "-t",
        "puffs|p2k|tmpfs",
        *options,
        "special",
        str(point),
    ]


def line_of(point: Path) -> tuple[str, str, str]:
    """Return what the host shows: device, type and options."""
    (line,) = [line for line in mounts() if line.mount_point == str(point)]
    return line.source, line.fstype, line.options


@pytest.mark.parametrize(
    ("own", "given"), [(["-o", "ro"], []), ([], ["-o", "ro"]), (["-o", "ro"], ["-o", "rw"])]
)
def test_read_only_by_either(point: Path, own: list[str], given: list[str]) -> None:
    subprocess.run([*SYSPUFFS, *own, *tmpfs(point, *given)], check=True)
    assert "ro" in line_of(point)[2].split(",")
    with pytest.raises(OSError, match="Read-only"):
        (point / "file").touch()


def test_words_of_the_wrapper_win(point: Path) -> None:
    given = tmpfs(point, "-o", "ro,noexec")
    subprocess.run([*SYSPUFFS, "-o", "rw,exec", *given], check=True)
    options = line_of(point)[2].split(",")
    assert "rw" in options
    assert "noexec" not in options


def test_words_of_the_command_reach_the_host(point: Path) -> None:
    subprocess.run([*SYSPUFFS, *tmpfs(point, "-o", r"fsname=a\,b,noexec,noatime")], check=True)
    source, fstype, options = line_of(point)
    assert (source, fstype) == ("a,b", "fuse.puffs|p2k|puffs|p2k|tmpfs")
    assert {"noexec", "noatime", "nosuid", "nodev"} <= set(options.split(","))


def test_our_commands_are_found_without_a_path(point: Path) -> None:
    beside = Path(sys.executable).parent
    command = [str(beside / "syspuffs"), *tmpfs(point)]
    command[1:4] = ["mount_puffs"]
    subprocess.run(command, env={**os.environ, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, check=True)
    assert mounted_type(point) == "fuse.puffs|p2k|puffs|p2k|tmpfs"


def test_many_layers(point: Path) -> None:
    stack = "puffs|" + "p2k|puffs|" * 20 + "p2k|tmpfs"
    command = [*python_command("mount_puffs"), "-t", stack, "none", str(point)]
    subprocess.run(command, check=True)
    assert mounted_type(point) == "fuse." + stack
    (point / "deep").write_text("down there")
    assert (point / "deep").read_text() == "down there"


def test_the_password_is_asked_for_on_the_terminal(point: Path, tmp_path: Path) -> None:
    """Through the wrapper, its background process and the ssh process, before all let go."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("secret")
    with subprocess.Popen(
        [sys.executable, "-c", _PASSWORD_SERVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        words = f"ssh_config=none,port={port},UserKnownHostsFile={tmp_path}/known_hosts"
        command = [
            *SYSPUFFS,
            *python_command("mount_psshfs"),
            "-o",
            f"{words},IdentityAgent=none,PreferredAuthentications=password",
            "me@127.0.0.1:/",
            str(point),
        ]
        status, said = at_terminal(command, b"sesame\n")
        assert re.search(rb"(?i)password", said)
        assert b"sesame" not in said
        assert status == 0, said
        assert (point / "file").read_text() == "secret"
        unmount(point)
        assert server.stdin is not None
        server.stdin.close()


def at_terminal(command: list[str], answer: bytes) -> tuple[int, bytes]:
    """Run a command at a terminal of its own, answer once; return status and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    shown = b""
    try:
        while True:
            ready, _, _ = select.select([terminal], [], [], 30)
            assert ready, shown
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # nobody has the terminal any more
                break
            shown += piece
            if answer and b":" in piece:
                os.write(terminal, answer)
                answer = b""
            if not piece:
                break
    finally:
        os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown


_PASSWORD_SERVER = """
import asyncio, os, sys
import asyncssh

place = sys.argv[1]

class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True
    def password_auth_supported(self):
        return True
    def validate_password(self, username, password):
        return (username, password) == ("me", "sesame")

async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    root = os.fsencode(place + "/root")
    acceptor = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[key],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root),
    )
    port = acceptor.get_port()
    with open(place + "/known_hosts", "w") as file:
        file.write(f"[127.0.0.1]:{port} " + key.export_public_key().decode())
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


def test_the_password_from_standard_input(point: Path, tmp_path: Path) -> None:
    """With a newline or without; the server here asks for none."""
    command = [
        *python_command("mount_psshfs"),
        "-o",
        f"password_stdin,sftp_server={find_sftp_server()}",
        f":{tmp_path}",
        str(point),
    ]
    cut = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert cut.returncode == 2
    assert b"ended before any password" in cut.stderr
    subprocess.run(command, input=b"sesame", check=True)
    assert mounted_type(point) == "fuse.puffs|psshfs"
