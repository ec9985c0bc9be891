"""A real puffs_sftpd on the loopback, and real clients of it: OpenSSH carries the octets.

with Daemon(directory, USERS) as daemon:
    async with daemon.session("alice") as wire: ...
    daemon.sftp("alice", "put file")
"""

from __future__ import annotations

import getpass
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

import trio

from ..gateway.sftp.harness import Wire
from .leaks import command_line, descendants
from .logs import BAD_LINE
from .mounts import python_command, wait_until
from .sshd import find_program, make_key

PATIENCE: Final = 30.0
"""Seconds for anything that a daemon or a client does; reaching it is a failure."""
HOST: Final = "127.0.0.1"


class Daemon:
    """One daemon. `with` starts it and ends it; then it must have ended well and said nothing bad.

    `users` is the rest of the configuration: [users.NAME] and whatever. Each user lets in
    `identity`, by `authorized_keys = ["keys"]`. `top` is put before everything else, `before` is
    what the command is run by, and `run_as` whom root becomes, if anybody. What tests of clients
    ask an Sshd for is here, too.
    """

    host = HOST
    user = getpass.getuser()

    def __init__(
        self,
        directory: Path,
        users: str,
        *,
        top: str = "",
        ssh: str = "",
        before: Sequence[str] = (),
        run_as: str | None = None,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.file = directory / "gateway.toml"
        self.log = directory / "log"
        self.identity = directory / "identity"
        self.known_hosts = directory / "known_hosts"
        self.port = 0
        self.expected: list[str] = []
        self._top = top
        self._ssh = ssh
        self._before = before
        self._run_as = run_as or getpass.getuser()
        self._process: subprocess.Popen[bytes] | None = None
        make_key(self.identity)
        (directory / "keys").write_text(self.identity.with_suffix(".pub").read_text())
        self.configure(users)

    def configure(self, users: str) -> None:
        """Write the configuration; `reload` makes it count."""
        self.file.write_text(
            f'state = "state"\nrun_as = "{self._run_as}"\n{self._top}\n'
            f'[ssh]\nlisten = ["{HOST}:0"]\nworkers = 1\n{self._ssh}\n'
            f"[ssh.penalties]\nfirst = 0\n{users}"
        )

    def expect(self, pattern: str) -> None:
        """Announce lines of WARNING and above in the log."""
        self.expected.append(pattern)

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """Return what it has said so far."""
        return self.log.read_text()

    def wait_said(self, pattern: str, count: int = 1) -> None:
        """Wait until the pattern was said so many times."""
        found = wait_until(lambda: len(re.findall(pattern, self.said())) >= count, PATIENCE)
        assert found, self.said()

    def __enter__(self) -> Daemon:
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [*self._before, *python_command("puffs_sftpd"), "--config", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._begin(self._process)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def _begin(self, process: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: process.poll() is not None or "listening on" in self.said(), PATIENCE)
        found = re.search(r"listening on [0-9.]+:(\d+)", self.said())
        assert found is not None, self.said()
        self.port = int(found[1])
        key = subprocess.run(
            [find_program("ssh-keygen"), "-y", "-f", self.directory / "state/ssh_host_ed25519_key"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {key.stdout}")
        (self.directory / "host_ed25519.pub").write_text(key.stdout)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        assert process is not None
        below = descendants(process.pid)
        if process.poll() is None:
            process.terminate()
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"it does not end:\n{self.said()}") from exc
        assert status == 0, self.said()
        assert wait_until(lambda: not any(map(command_line, below)), PATIENCE), below
        bad = [
            line
            for line in self.said().splitlines()
            if BAD_LINE.search(line) and not any(re.search(p, line) for p in self.expected)
        ]
        assert not bad, "\n".join(bad)

    def signal(self, number: int) -> None:
        """Send a signal to the process that serves."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Have it end, and wait for that; the end of the block looks at how it went."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)

    def reload(self, users: str) -> None:
        """Have it go on with other users, and wait until it does."""
        before = self.said().count(" INFO: reloaded")
        self.configure(users)
        self.signal(signal.SIGHUP)
        self.wait_said(" INFO: reloaded", before + 1)

    # Clients.

    @property
    def options(self) -> tuple[str, ...]:
        """Give ssh options by which a client logs in and looks at nothing but our files."""
        return (
            f"Port={self.port}",
            f"User={self.user}",
            f"IdentityFile={self.identity}",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
        )

    def words(self, user: str) -> list[str]:
        """Return what OpenSSH's clients are told, for a user."""
        options = (f"User={user}", *self.options)
        return ["-F", "none", *(word for option in options for word in ("-o", option))]

    def sftp(self, user: str, *commands: str, status: int = 0) -> str:
        """Run commands by OpenSSH's sftp; return what it says."""
        done = subprocess.run(
            [find_program("sftp"), *self.words(user), "-b", "-", HOST],
            input="\n".join(commands) + "\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status, f"{done.stdout}\n{self.said()}"
        return done.stdout

    def ssh(self, user: str, *words: str) -> Sequence[str]:
        """Return an ssh command; without `words` one that asks for SFTP."""
        rest = [*words] if words else ["-s", HOST, "sftp"]
        return [find_program("ssh"), *self.words(user), *rest]

    @asynccontextmanager
    async def session(self, user: str) -> AsyncIterator[Wire]:
        """Have an SFTP session, carried by OpenSSH's ssh, which must end when the block does."""
        near, far = socket.socketpair()
        with far:
            process = await trio.lowlevel.open_process(
                self.ssh(user), stdin=far, stdout=far, stderr=subprocess.DEVNULL
            )
        try:
            near.setblocking(False)
            wire = Wire(near)
            with trio.fail_after(PATIENCE):
                await wire.greet()
            yield wire
            await wire.stream.aclose()
            with trio.fail_after(PATIENCE):
                await process.wait()
        finally:
            near.close()
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


def tree(user: str, stack: str, special: str, *options: str, path: str = "/") -> str:
    """Return the table of a tree."""
    words = ", ".join(f'"{word}"' for word in options)
    return (
        f'[[users.{user}.trees]]\npath = "{path}"\nstack = "{stack}"\n'
        f'special = "{special}"\noptions = [{words}]\n'
    )


def user(name: str, *lines: str, trees: str = "") -> str:
    """Return the tables of a user, with files in memory unless there are other trees."""
    text = "\n".join([f"[users.{name}]", 'authorized_keys = ["keys"]', *lines])
    return f"{text}\n{trees or tree(name, 'p2k|tmpfs', 'none')}"
