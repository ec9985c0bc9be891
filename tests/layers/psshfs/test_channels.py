"""Data of long files over several sessions: all of it, whatever happens to the further ones."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import pytest
import trio

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions, mount_psshfs
from syspuffs.layers.psshfs.data.writebehind import WriteBehind
from syspuffs.layers.psshfs.operations import files
from syspuffs.layers.psshfs.ssh.failure import Cause, ConnectError
from syspuffs.layers.psshfs.wire import channels
from syspuffs.layers.psshfs.wire.connection import Connection
from syspuffs.layers.psshfs.wire.slot import ATTRS, HANDLE
from syspuffs.native import sftp
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FSYNC_WAIT, FWRITE
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie

from .harness import CRED, SFTP_SERVER, look, make, sftp_server

STEP: Final = 1 << 18
SIZE: Final = 24 * STEP
LIMIT: Final = 20.0


class Further:
    """Gives further sessions, each with an sftp-server of its own, and cuts them."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.asked = 0
        self.given_up = 0
        """Sessions that were not just closed: nothing may be sent on them any more."""
        self.servers: list[subprocess.Popen[bytes]] = []

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[socket.socket]:
        self.asked += 1
        if self.refuses:
            raise ConnectError(Cause.UNREACHABLE, "no more")
        near, far = socket.socketpair()
        with near, subprocess.Popen([SFTP_SERVER], stdin=far.fileno(), stdout=far.fileno()) as one:
            far.close()
            self.servers.append(one)
            try:
                yield near
            except VfsError:
                self.given_up += 1
                raise
            finally:
                near.close()

    def cut(self) -> None:
        for server in self.servers:
            server.kill()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One session always is too few."""
    monkeypatch.setattr(channels, "CHANNEL_FULL", 0)
    monkeypatch.setattr(channels, "ROUND_TRIP_MIN", 0)
    monkeypatch.setattr(files, "SPREAD_READ_MIN", STEP)
    monkeypatch.setattr(files, "SPREAD_WRITE_MIN", STEP)


@asynccontextmanager
async def mounted(directory: Path, further: Further, most: int = 3) -> AsyncIterator[Psshfs]:
    options = PsshfsOptions(max_conns=most)
    with trio.fail_after(LIMIT):
        async with (
            sftp_server() as near,
            mount_psshfs(near, os.fsencode(directory), options, channel_opener=further) as server,
        ):
            yield server


async def until_spread(server: Psshfs, cookie: Cookie) -> None:
    file = server.table.node(cookie).file
    assert file is not None
    handle = file.handle
    assert handle is not None
    while not server.channels.is_spread(handle):
        await trio.sleep(0.001)


def sent(server: Psshfs) -> list[int]:
    """Requests on each of the further sessions."""
    return [connection.statistics().requests for connection in server.channels._further]


async def test_reading(tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "f").write_bytes(data)
    further = Further()
    async with mounted(tmp_path, further) as server:
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        assert bytes(await server.read(info.cookie, 0, STEP, 0, CRED)) == data[:STEP]
        await until_spread(server, info.cookie)
        for at in range(STEP, SIZE, STEP):
            assert bytes(await server.read(info.cookie, at, STEP, 0, CRED)) == data[at : at + STEP]
        assert bytes(await server.read(info.cookie, SIZE, STEP, 0, CRED)) == b""
        assert server.channels.count == 3
        assert min(sent(server)) >= 5  # INIT, OPEN, FSTAT and READs
        server.close(info.cookie, FREAD, CRED)
        assert [len(routes) for routes in server.channels._routes.values()] == []
    assert further.asked == 2


async def test_writing(tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    async with mounted(tmp_path, Further()) as server:
        info = await make(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        for at in range(0, SIZE, STEP):
            await server.write(info.cookie, at, data[at : at + STEP], 0, CRED)
            if at == 2 * STEP:
                await until_spread(server, info.cookie)
        # Overlapping writes keep their order, on whatever session each of them is.
        rng = random.Random(7)
        model = bytearray(data)
        for number in range(60):
            at = rng.randrange(SIZE - STEP)
            piece = bytes([number]) * rng.randrange(1, STEP)
            model[at : at + len(piece)] = piece
            await server.write(info.cookie, at, piece, 0, CRED)
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "f").read_bytes() == model
        va, _ = await server.getattr(info.cookie, CRED)
        assert va.size == SIZE
        assert min(sent(server)) >= 5
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        server.close(info.cookie, FWRITE, CRED)


async def test_what_ended_sessions_owed_goes_over_the_main_one(tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "r").write_bytes(data)
    further = Further()
    async with mounted(tmp_path, further) as server:
        source, target = await look(server, b"r"), await make(server, b"w")
        await server.open(source.cookie, FREAD, CRED)
        await server.open(target.cookie, FWRITE, CRED)
        for at in range(0, SIZE, STEP):
            if at == 4 * STEP:
                await until_spread(server, source.cookie)
                await until_spread(server, target.cookie)
            piece = bytes(await server.read(source.cookie, at, STEP, 0, CRED))
            assert piece == data[at : at + STEP]
            await server.write(target.cookie, at, piece, 0, CRED)
            if at == 12 * STEP:
                further.cut()
        await server.fsync(target.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "w").read_bytes() == data
        while server.channels.count > 1 or further.given_up < 2:
            await trio.sleep(0.001)
        for cookie, mode in ((source.cookie, FREAD), (target.cookie, FWRITE)):
            server.close(cookie, mode, CRED)


async def test_a_session_ends_while_a_file_is_spread(tmp_path: Path) -> None:
    """Nobody has heard of its end when it is asked to open the file: the mount goes on."""
    async with mounted(tmp_path, Further()) as server:
        one, other = await make(server, b"one"), await make(server, b"other")
        for info in (one, other):
            await server.open(info.cookie, FWRITE, CRED)
        for at in range(0, 4 * STEP, STEP):
            await server.write(one.cookie, at, bytes(STEP), 0, CRED)
        await until_spread(server, one.cookie)
        file = server.table.node(other.cookie).file
        assert file is not None
        assert file.handle is not None
        for connection in server.channels._further:
            connection.drop("gone")
        server.channels.spread(
            file.handle, 0, lambda: bytes(tmp_path / "other"), file.writes, file.writes.pace
        )
        while server.channels.count > 1:
            await trio.sleep(0.001)
        for info in (one, other):
            await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
            server.close(info.cookie, FWRITE, CRED)


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_file_that_was_replaced_stays_with_its_handle(
    tmp_path: Path, is_gone: bool
) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "f").write_bytes(data)
    async with mounted(tmp_path, Further()) as server:
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        (tmp_path / "f").rename(tmp_path / "old")
        if not is_gone:
            (tmp_path / "f").write_bytes(bytes(SIZE))
            os.utime(tmp_path / "f", (0, 0))
        for at in range(0, SIZE, STEP):
            assert bytes(await server.read(info.cookie, at, STEP, 0, CRED)) == data[at : at + STEP]
            while server.channels._coming:
                await trio.sleep(0.001)
        assert server.channels.count == 3
        assert not any(server.channels._routes.values())
        server.close(info.cookie, FREAD, CRED)


async def test_a_file_that_is_closed_before_its_twins_are_there(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(bytes(SIZE))
    async with mounted(tmp_path, Further()) as server:
        info = await look(server, b"r")
        await server.open(info.cookie, FREAD, CRED)
        await server.read(info.cookie, 0, STEP, 0, CRED)
        server.close(info.cookie, FREAD, CRED)
        for number in range(4):
            info = await make(server, b"f%d" % number)
            await server.open(info.cookie, FWRITE, CRED)
            for at in range(0, 3 * STEP, STEP):
                await server.write(info.cookie, at, bytes(STEP), 0, CRED)
            server.close(info.cookie, FWRITE, CRED)
            for _ in range(number * 20):
                await trio.lowlevel.checkpoint()
        while server.channels._coming:
            await trio.sleep(0.001)
        info = await look(server, b"f0")
        assert info.size == 3 * STEP
    assert not server.channels._routes


async def test_a_server_that_grants_no_more_is_not_asked_all_the_time(tmp_path: Path) -> None:
    further = Further(refuses=True)
    async with mounted(tmp_path, further) as server:
        for name in (b"a", b"b"):
            info = await make(server, name)
            await server.open(info.cookie, FWRITE, CRED)
            for at in range(0, SIZE, STEP):
                await server.write(info.cookie, at, bytes(STEP), 0, CRED)
            await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
            server.close(info.cookie, FWRITE, CRED)
            assert further.asked == 2


async def test_the_end_of_the_main_session_is_the_end_of_all(tmp_path: Path) -> None:
    async with mounted(tmp_path, Further()) as server:
        info = await make(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        for at in range(0, 4 * STEP, STEP):
            await server.write(info.cookie, at, bytes(STEP), 0, CRED)
        await until_spread(server, info.cookie)
        server.connection.close()
        with pytest.raises(VfsError):
            await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        while server.channels.count > 1:
            await trio.sleep(0.001)


class Growth:
    """Stands for the writes of a file that somebody else makes longer with each change."""

    is_idle = False

    def __init__(self, path: Path, step: int, connection: Connection, twin: bytes) -> None:
        self._path = path
        self._step = step
        self._connection = connection
        self._twin = twin
        self.end_answered = self.end_sent = path.stat().st_size

    async def change(self) -> None:
        # The server answers in turn: it has looked for who asked before.
        await self._connection.submit(ATTRS, sftp.fstat, self._twin)
        self.end_sent += STEP
        with self._path.open("ab") as file:
            file.write(bytes(self._step))
        self.end_answered += STEP


@pytest.mark.parametrize(
    ("step", "is_same"),
    [
        (STEP, True),
        pytest.param(0, False, id="one that is as it was"),
        pytest.param(32 * STEP, False, id="one that is longer than what was sent"),
        pytest.param(STEP // 2, False, id="one that is shorter than what was acknowledged"),
    ],
)
async def test_a_file_is_known_by_how_it_grows(tmp_path: Path, step: int, is_same: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(STEP))
    async with mounted(tmp_path, Further()) as server:
        connection = server.connection
        twin = await connection.submit(HANDLE, sftp.open_, os.fsencode(path), sftp.FXF_READ)
        growth = cast(WriteBehind, Growth(path, step, connection, twin))
        looked = connection.submit(ATTRS, sftp.fstat, twin)
        await looked
        expected = [(connection, twin)] if is_same else []
        first = growth.end_answered, [looked]
        assert await channels._growing([(connection, twin)], growth, first) == expected


async def test_a_file_of_which_nothing_is_under_way_is_not_seen_to_grow(tmp_path: Path) -> None:
    async with mounted(tmp_path, Further()) as server:
        info = await make(server, b"f", bytes(STEP))
        file = server.open_file(server.table.node(info.cookie))
        looked = server.connection.submit(ATTRS, sftp.stat, os.fsencode(tmp_path / "f"))
        await looked
        opened = [(server.connection, b"")]
        assert await channels._growing(opened, file.writes, (STEP, [looked])) == []
