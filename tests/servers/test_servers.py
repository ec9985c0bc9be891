"""psshfs against SFTP servers of others, and against OpenSSH's without one request or another."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from syspuffs.gateway.remote import remote, remote_tree
from syspuffs.gateway.words.options import HOST_GROUP, parse_words
from syspuffs.gateway.words.sshwords import PSSHFS_GROUP, SSH_GROUP
from syspuffs.layers.psshfs import Psshfs, PsshfsOptions

from ..layers.psshfs.harness import SFTP_SERVER, look, make, mounted
from .exercise import at_random, attributes, code, contents, names, read
from .others import Other, asyncssh_server, paramiko_server, proftpd

SERVERS = {"asyncssh": asyncssh_server, "paramiko": paramiko_server, "proftpd": proftpd}
LIMIT = 60.0


async def exercise(server: Psshfs, origin: Path, seed: int, *, follows: bool = False) -> None:
    """Do everything, and leave nothing open at the server."""
    rng = random.Random(seed)
    with trio.fail_after(LIMIT):
        await contents(server, origin, rng)
        await names(server, origin)
        await attributes(server, origin, follows=follows)
        await at_random(server, origin, rng)
        await server.unmount(0)


@asynccontextmanager
async def reached(other: Other, origin: Path) -> AsyncIterator[Psshfs]:
    """Mount `origin` by the server, as the commands do."""
    psshfs, ssh, _ = parse_words(other.words, [PSSHFS_GROUP, SSH_GROUP, HOST_GROUP])
    async with remote_tree(f"127.0.0.1:{origin}", remote(psshfs, ssh, readonly=False)) as server:
        assert isinstance(server, Psshfs)
        yield server


@pytest.mark.sshd
@pytest.mark.programs(**{"/usr/sbin/proftpd": "proftpd-mod-crypto"})
@pytest.mark.parametrize("name", SERVERS)
async def test_servers_of_others(name: str, tmp_path: Path) -> None:
    place, origin = tmp_path / "server", tmp_path / "origin"
    place.mkdir()
    origin.mkdir()
    run: Callable[[Path], AbstractContextManager[Other]] = SERVERS[name]
    with run(place) as other:
        async with reached(other, origin) as server:
            # ProFTPD answers LSTAT as if it were STAT: only its listings know links.
            await exercise(server, origin, seed=len(name), follows=name == "proftpd")


def requests() -> list[str]:
    """Return the requests that this OpenSSH's server can refuse and a mount can do without."""
    text = subprocess.run([SFTP_SERVER, "-Q", "requests"], capture_output=True, check=True).stdout
    needed = {"open", "close", "read", "write", "lstat", "fstat", "setstat", "fsetstat", "opendir"}
    needed |= {"readdir", "remove", "mkdir", "rmdir", "realpath", "stat", "rename", "readlink"}
    return sorted(set(text.decode().split()) - needed - {"symlink"})


@pytest.mark.parametrize("request_name", [*requests(), ",".join(requests())])
async def test_openssh_without(request_name: str, tmp_path: Path) -> None:
    """-P refuses a request, and announces it no more."""
    async with mounted(tmp_path, "-P", request_name) as server:
        await exercise(server, tmp_path, seed=7)
        assert {os.fsencode(name) for name in request_name.split(",")}.isdisjoint(
            name.partition(b"@")[0] for name in server.session.extensions
        )


async def test_openssh_read_only(tmp_path: Path) -> None:
    """A server that refuses all changes says EACCES or EROFS, and is read all the same."""
    (tmp_path / "file").write_bytes(b"there")
    async with mounted(tmp_path, "-R", options=PsshfsOptions()) as server:
        assert await read(server, (await look(server, b"file")).cookie) == b"there"
        assert await code(make(server, b"new", b"x")) != 0
    assert os.listdir(tmp_path) == ["file"]
