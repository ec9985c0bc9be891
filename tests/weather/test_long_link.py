"""A real server at the far end of a long link: more than one channel, and nothing but the data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from syspuffs.gateway.remote import Remote, remote_tree
from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.ssh.stream import SshOptions
from syspuffs.native.constants import FREAD, FSYNC_WAIT, FWRITE
from tests.layers.psshfs.harness import CRED, look, make
from tests.support.line import Line
from tests.support.sshd import Sshd

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

ROUND_TRIP: Final = 0.05
STEP: Final = 1 << 18
SIZE: Final = 24 << 20
LIMIT: Final = 90.0


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[Sshd, Line]]:
    with Sshd(tmp_path / "sshd") as sshd, Line(sshd.port, round_trip=ROUND_TRIP) as line:
        yield sshd, line


async def write(server: Psshfs, name: bytes, data: bytes) -> int:
    """Write a file as a program does; return over how many channels its data went at most."""
    info = await make(server, name)
    most = 1
    await server.open(info.cookie, FWRITE, CRED)
    for at in range(0, len(data), STEP):
        await server.write(info.cookie, at, data[at : at + STEP], 0, CRED)
        most = max(most, server.channels.count)
    await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
    server.close(info.cookie, FWRITE, CRED)
    return most


@pytest.mark.parametrize("command", [None, "ssh"])
async def test_channels_come_when_one_is_too_few(
    tmp_path: Path, far: tuple[Sshd, Line], command: str | None
) -> None:
    sshd, line = far
    before = line.traffic().accepted
    ssh = SshOptions(config_file="none", options=sshd.options_by(line.port), ssh_command=command)
    data = os.urandom(SIZE)
    (tmp_path / "there").write_bytes(data)
    with trio.fail_after(LIMIT):
        async with remote_tree(f"{sshd.host}:{tmp_path}", Remote(ssh, PsshfsOptions())) as server:
            assert isinstance(server, Psshfs)
            written = 0
            while await write(server, b"f%d" % written, data) < 4:
                written += 1  # logins take their time on a busy machine
            assert (tmp_path / f"f{written}").read_bytes() == data
            info = await look(server, b"there")
            await server.open(info.cookie, FREAD, CRED)
            for at in range(0, SIZE, STEP):
                got = await server.read(info.cookie, at, STEP, 0, CRED)
                assert bytes(got) == data[at : at + STEP]
            server.close(info.cookie, FREAD, CRED)
            assert line.traffic().accepted - before == (4 if command else 1)
            await server.unmount(0)


async def test_one_channel_is_enough_where_the_user_says_so(
    tmp_path: Path, far: tuple[Sshd, Line]
) -> None:
    sshd, line = far
    ssh = SshOptions(config_file="none", options=sshd.options_by(line.port))
    options = PsshfsOptions(max_conns=1)
    data = os.urandom(SIZE)
    with trio.fail_after(LIMIT):
        async with remote_tree(f"{sshd.host}:{tmp_path}", Remote(ssh, options)) as server:
            assert isinstance(server, Psshfs)
            assert await write(server, b"f", data) == 1
            await server.unmount(0)
    assert (tmp_path / "f").read_bytes() == data


@pytest.mark.logs("SFTP connection lost", "connected again", "cannot connect again yet")
@pytest.mark.parametrize("command", [None, "ssh"])
async def test_a_cut_loses_nothing_of_what_is_on_several_channels(
    tmp_path: Path, far: tuple[Sshd, Line], command: str | None
) -> None:
    sshd, line = far
    ssh = SshOptions(config_file="none", options=sshd.options_by(line.port), ssh_command=command)
    data = os.urandom(SIZE)
    (tmp_path / "there").write_bytes(data)
    with trio.fail_after(LIMIT):
        async with remote_tree(f"{sshd.host}:{tmp_path}", Remote(ssh, PsshfsOptions())) as server:
            assert isinstance(server, Psshfs)
            number = 0
            while await write(server, b"f%d" % number, data) < 4:
                number += 1
            source, target = await look(server, b"there"), await make(server, b"copy")
            await server.open(source.cookie, FREAD, CRED)
            await server.open(target.cookie, FWRITE, CRED)
            for at in range(0, SIZE, STEP):
                got = bytes(await server.read(source.cookie, at, STEP, 0, CRED))
                assert got == data[at : at + STEP]
                await server.write(target.cookie, at, got, 0, CRED)
                if at == SIZE // 2:
                    assert line.cut() == (4 if command else 1)
            await server.fsync(target.cookie, FSYNC_WAIT, 0, 0, CRED)
            assert (tmp_path / "copy").read_bytes() == data
            server.close(source.cookie, FREAD, CRED)
            server.close(target.cookie, FWRITE, CRED)
            await server.unmount(0)
