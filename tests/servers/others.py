"""SFTP servers that are not OpenSSH's, each a process on the loopback, let in by a key."""

from __future__ import annotations

import getpass
import grp
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..support.mounts import wait_until
from ..support.sshd import make_key

HERE = Path(__file__).parent


class Other(NamedTuple):
    """Where a server listens, and the words that let a client in."""

    user: str
    port: int
    options: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return [f"port={self.port}", "ssh_config=none", *self.options]


def _keys(place: Path) -> tuple[Path, Path]:
    return make_key(place / "host_key"), make_key(place / "identity")


def _other(place: Path, port: int, user: str) -> Other:
    key = (place / "host_key.pub").read_text().split()
    known = place / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    return Other(
        user,
        port,
        (
            f"User={user}",
            f"IdentityFile={place}/identity",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            f"UserKnownHostsFile={known}",
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
        ),
    )


@contextmanager
def _script(name: str, place: Path, *arguments: str) -> Iterator[Other]:
    with subprocess.Popen(
        [sys.executable, str(HERE / name), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # What it has to say about our hang-ups is no matter of the tests.
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        line = process.stdout.readline()
        assert line, f"{name} does not start"
        yield _other(place, int(line), getpass.getuser())
        process.stdin.close()


@contextmanager
def asyncssh_server(place: Path) -> Iterator[Other]:
    host, identity = _keys(place)
    with _script("by_asyncssh.py", place, str(host), f"{identity}.pub") as other:
        yield other


@contextmanager
def paramiko_server(place: Path) -> Iterator[Other]:
    host, _ = _keys(place)
    with _script("by_paramiko.py", place, str(host)) as other:
        yield other


_PROFTPD = """
LoadModule mod_sftp.c
ServerName test
ServerType standalone
Port {port}
DefaultAddress 127.0.0.1
UseIPv6 off
UseReverseDNS off
User {user}
Group {group}
RootLogin on
RequireValidShell off
PidFile {place}/pid
ScoreboardFile {place}/scoreboard
DelayEngine off
WtmpLog off
SystemLog {place}/log
AuthUserFile {place}/passwd
AuthGroupFile {place}/group
AuthOrder mod_auth_file.c
Umask 022
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
SFTPEngine on
SFTPLog {place}/sftp.log
SFTPHostKey {place}/host_key
SFTPAuthMethods publickey
SFTPAuthorizedUserKeys file:{place}/authorized
"""


@contextmanager
def proftpd(place: Path) -> Iterator[Other]:
    """ProFTPD with mod_sftp, as whoever runs the tests."""
    _, identity = _keys(place)
    with open(place / "authorized", "wb") as authorized:
        subprocess.run(["ssh-keygen", "-e", "-f", f"{identity}.pub"], stdout=authorized, check=True)
    uid, gid = os.geteuid(), os.getegid()
    for name, text in (
        ("passwd", f"tester:x:{uid}:{gid}::{place}:/bin/sh\n"),
        ("group", f"testers:x:{gid}:tester\n"),
    ):
        (place / name).write_text(text)
        (place / name).chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = place / "proftpd.conf"
    config.write_text(
        _PROFTPD.format(
            place=place, port=port, user=getpass.getuser(), group=grp.getgrgid(gid).gr_name
        )
    )

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with open(place / "said", "wb") as said:
        process = subprocess.Popen(
            ["/usr/sbin/proftpd", "-n", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        assert wait_until(listens), (place / "said").read_text()
        yield _other(place, port, "tester")
    finally:
        process.terminate()
        process.wait(10)
