"""What is asked for along with what is needed, where a round trip costs more than a request."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.psshfs import Psshfs
from syspuffs.layers.psshfs.ahead import opening, walking
from syspuffs.layers.psshfs.wire import pace
from syspuffs.native.constants import FREAD
from syspuffs.native.records import Cookie

from .harness import CRED, Clock, Relay, counted, list_all, look, make, read_file, root_of


@pytest.fixture(autouse=True)
def _far(_near: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round trip counts as long, which those to a server on this machine are not."""
    monkeypatch.setattr(pace, "FAR", 0.0)


@asynccontextmanager
async def far(directory: Path, clock: Clock | None = None) -> AsyncIterator[tuple[Psshfs, Relay]]:
    async with counted(directory, clock=clock) as (server, relay):
        await _quiet(server)
        yield server, relay


def _fill(tree: Path, directories: int, files: int) -> None:
    for number in range(directories):
        place = tree / f"d{number:02}"
        place.mkdir(parents=True)
        for file in range(files):
            path = place / f"f{file:02}"
            path.write_bytes(b"%d %d" % (number, file))
            os.utime(path, (1000, 1000))


async def _quiet(server: Psshfs) -> None:
    """Wait until everything that was asked for is answered, and nothing more is asked."""
    with trio.fail_after(10):
        await wait_all_tasks_blocked()
        while server.connection.in_flight:
            await trio.sleep(0.005)
            await wait_all_tasks_blocked()


async def test_a_directory_is_opened_while_its_name_is_looked_up(tmp_path: Path) -> None:
    _fill(tmp_path, 1, 3)
    async with counted(tmp_path) as (server, _):
        info = await look(server, b"d00")
        await _quiet(server)
        assert len(server.connection.handles) == len(server.opening) == 1
        # The listing of the root has come along.
        requests = server.connection.statistics().requests
        assert not (await look(server, b"nothing")).cookie
        assert len(await list_all(server, root_of(server), plus=True)) == 3
        assert server.connection.statistics().requests == requests
        assert len(await list_all(server, info.cookie, plus=True)) == 5
        await _quiet(server)
        assert not server.connection.handles
        # READDIRs, CLOSE, and how much room there is.
        assert server.connection.statistics().requests - requests == 6


async def test_a_directory_that_nobody_reads_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "AGE", 10**7)
    monkeypatch.setattr(opening, "AGE_TRIPS", 0)
    _fill(tmp_path, 2, 0)
    (tmp_path / "file").touch()
    async with far(tmp_path) as (server, _):
        for name in (b"d00", b"file", b"nothing"):
            await look(server, name)
            server.opening.open(server.table.root, name, bytes(tmp_path) + b"/" + name)
        with trio.fail_after(10):
            while len(server.opening) or server.connection.handles:
                await trio.sleep(0.005)


async def test_a_handle_from_before_a_change_of_ours_is_not_taken(tmp_path: Path) -> None:
    _fill(tmp_path, 1, 1)
    async with counted(tmp_path) as (server, _):
        info = await look(server, b"d00")
        assert len(server.opening) == 1
        await make(server, b"new", directory=info.cookie)
        node = server.table.directory(info.cookie)
        assert server.opening.take(node) is None
        assert len(await list_all(server, info.cookie)) == 4
        await _quiet(server)
        assert not server.connection.handles


async def test_a_long_directory_is_not_listed_for_one_name(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"f{number:04}").touch()
    async with far(tmp_path) as (server, _):
        for name in (b"f0001", b"f0900"):
            requests = server.connection.statistics().requests
            assert (await look(server, name)).cookie
            await _quiet(server)
            assert server.connection.statistics().requests - requests == 2  # LSTAT, OPENDIR
        assert server.table.root.listing is None
        assert len(await list_all(server, root_of(server))) == 1002


async def test_a_tree_is_listed_in_two_trips_a_level(tmp_path: Path) -> None:
    _fill(tmp_path, 16, 20)
    async with far(tmp_path) as (server, relay):
        before = relay.trips
        for entry in (await list_all(server, root_of(server), plus=True))[2:]:
            assert entry.newinfo is not None
            assert len(await list_all(server, entry.newinfo.cookie, plus=True)) == 22
        assert relay.trips - before <= 4  # 34 without


async def _read_directory(server: Psshfs, cookie: Cookie, number: int) -> None:
    for entry in await list_all(server, cookie, plus=True):
        if entry.name not in (b".", b".."):
            assert entry.newinfo is not None
            data = await read_file(server, entry.newinfo.cookie)
            assert data == b"%d %d" % (number, int(entry.name[1:]))


async def test_files_of_directories_that_are_named_one_by_one(tmp_path: Path) -> None:
    _fill(tmp_path / "tree", 10, 25)
    async with far(tmp_path, Clock()) as (server, relay):
        before = relay.trips
        for number in range(10):
            info = await look(server, b"tree/d%02d" % number)
            await _read_directory(server, info.cookie, number)
        # Two for each of the 250 files and three for each directory without.
        assert relay.trips - before <= 16
        assert server.prefetch.wasted == 0


async def test_files_of_a_tree_that_is_read_again(tmp_path: Path) -> None:
    _fill(tmp_path, 10, 25)
    clock = Clock()
    async with far(tmp_path, clock) as (server, relay):
        before = relay.trips
        for entry in (await list_all(server, root_of(server), plus=True))[2:]:
            assert entry.newinfo is not None
            await _read_directory(server, entry.newinfo.cookie, int(entry.name[1:]))
        assert relay.trips - before <= 16
        clock.advance(31)
        # The host has the pages now, and asks only whether they are right.
        before = relay.trips
        for directory in (await list_all(server, root_of(server), plus=True))[2:]:
            assert directory.newinfo is not None
            for entry in (await list_all(server, directory.newinfo.cookie, plus=True))[2:]:
                assert entry.newinfo is not None
                await server.open(entry.newinfo.cookie, FREAD, CRED)
                server.close(entry.newinfo.cookie, FREAD, CRED)
        assert relay.trips - before <= 16


async def test_a_first_file_in_another_order_than_the_next_ones(tmp_path: Path) -> None:
    _fill(tmp_path, 1, 60)
    async with far(tmp_path, Clock()) as (server, relay):
        info = await look(server, b"d00")
        entries = (await list_all(server, info.cookie, plus=True))[2:]
        first = entries[0]
        rest = sorted(entries[1:], key=lambda entry: entry.name)
        before = relay.trips
        for entry in (first, *rest):
            assert entry.newinfo is not None
            await read_file(server, entry.newinfo.cookie)
        assert relay.trips - before <= 12  # 120 without


async def test_what_others_make_is_not_unseen_for_longer(tmp_path: Path) -> None:
    _fill(tmp_path, 1, 1)
    clock = Clock()
    async with far(tmp_path, clock) as (server, _):
        directory = (await look(server, b"d00")).cookie
        assert not (await look(server, b"d00/made")).cookie
        await _quiet(server)
        assert server.table.directory(directory).listing is not None
        for number in range(3):
            (tmp_path / "d00" / f"made{number}").touch()
            clock.advance(1.1)
            # By itself, and by the listing that came along with it.
            requests = server.connection.statistics().requests
            assert (await look(server, b"d00/made%d" % number)).cookie
            assert server.connection.statistics().requests > requests
            await _quiet(server)
            requests = server.connection.statistics().requests
            assert not (await look(server, b"d00/missing")).cookie
            assert server.connection.statistics().requests == requests
        # Who has read it believes it as long as all he was told.
        await list_all(server, directory, plus=True)
        clock.advance(20)
        requests = server.connection.statistics().requests
        assert not (await look(server, b"d00/missing")).cookie
        assert server.connection.statistics().requests == requests


async def test_what_was_used_below_is_listed_again_at_once(tmp_path: Path) -> None:
    _fill(tmp_path / "tree/deep", 3, 5)
    _fill(tmp_path / "other", 1, 1)
    clock = Clock()
    async with far(tmp_path, clock) as (server, _):

        async def look_at_all() -> None:
            for number in range(3):
                for file in range(5):
                    assert (await look(server, b"tree/deep/d%02d/f%02d" % (number, file))).cookie
            await _quiet(server)

        await look(server, b"other/d00/f00")
        await look_at_all()
        for minutes in range(3):
            clock.advance(61)
            await look(server, b"tree")
            await _quiet(server)
            requests = server.connection.statistics().requests
            if minutes == 0:
                await look_at_all()
                assert server.connection.statistics().requests == requests
        # Used a minute ago, now two minutes ago, and not since.
        await look(server, b"tree/deep")
        await look(server, b"tree/deep/d00/f00")
        assert server.connection.statistics().requests > requests


async def test_room_is_asked_for_along_with_a_listing(tmp_path: Path) -> None:
    _fill(tmp_path, 1, 1)
    clock = Clock()
    async with far(tmp_path, clock) as (server, _):
        clock.advance(31)
        await list_all(server, root_of(server), plus=True)
        await _quiet(server)
        requests = server.connection.statistics().requests
        assert (await server.statvfs()).blocks > 0
        assert (await server.statvfs()).blocks > 0
        assert server.connection.statistics().requests == requests
        # Who asks again and again does not wait: the next answer is fetched meanwhile.
        clock.advance(0.8)
        assert (await server.statvfs()).blocks > 0
        assert server.connection.statistics().requests == requests + 1
        clock.advance(0.8)
        await _quiet(server)
        waits = server.connection.waits
        assert (await server.statvfs()).blocks > 0
        assert server.connection.waits == waits
        clock.advance(1.1)
        assert (await server.statvfs()).blocks > 0
        assert server.connection.waits == waits + 1
        await list_all(server, (await look(server, b"d00")).cookie, plus=True)
        await make(server, b"new", b"data")
        await _quiet(server)
        requests = server.connection.statistics().requests
        await server.statvfs()
        assert server.connection.statistics().requests == requests + 1


async def test_directories_that_nobody_came_for_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MADE_AGE", 10**8)
    _fill(tmp_path / "tree", 8, 1)
    async with far(tmp_path) as (server, _):
        info = await look(server, b"tree/d00")
        await list_all(server, info.cookie, plus=True)
        await _quiet(server)
        made = len(server.table.nodes)
        with trio.fail_after(10):
            while len(server.table.nodes) >= made:
                await trio.sleep(0.005)
        await server.open((await look(server, b"tree/d00/f00")).cookie, FREAD, CRED)
        assert {node.name for node in server.table.nodes.values()} == {b"", b"tree", b"d00", b"f00"}
