"""Small files read and directories listed before they are asked for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FWRITE
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Dirent, Vattr, lookup_cn

from .harness import (
    CRED,
    Clock,
    counted,
    list_all,
    look,
    make,
    mounted,
    read_file,
    root_of,
)


def _fill(directory: Path, count: int, size: int = 3000) -> dict[bytes, bytes]:
    """Make files of changing sizes, none of them young; return what is in them."""
    directory.mkdir(exist_ok=True)
    rng = random.Random(count)
    contents = {}
    for number in rng.sample(range(count), count):
        data = rng.randbytes(rng.randrange(size))
        path = directory / f"f{number:04}"
        path.write_bytes(data)
        os.utime(path, (1000, 1000))
        contents[path.name.encode()] = data
    return contents


async def _read_all(
    server: Psshfs, entries: Sequence[Dirent], contents: dict[bytes, bytes]
) -> None:
    for entry in entries:
        if entry.name in contents:
            assert entry.newinfo is not None
            assert await read_file(server, entry.newinfo.cookie) == contents[entry.name]


def _by_name(entry: Dirent) -> bytes:
    return entry.name


def _by_number(entry: Dirent) -> int:
    return entry.fileid


def _as_listed(entry: Dirent) -> int:
    return entry.offset


@pytest.mark.parametrize("order", [_as_listed, _by_number, _by_name])
async def test_files_read_one_after_the_other_cost_little(
    tmp_path: Path, order: Callable[[Dirent], Any]
) -> None:
    contents = _fill(tmp_path, 300)
    async with counted(tmp_path, clock=Clock()) as (server, relay):
        entries = await list_all(server, root_of(server), plus=True)
        entries.sort(key=order)
        before = relay.trips
        await _read_all(server, entries, contents)
        # Two for each of the first two, then ever more at once: 600 without.
        assert relay.trips - before <= 14
        assert server.prefetch.hits >= 296
        assert server.prefetch.wasted == 0
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not server.connection.handles
        assert server.statistics().octets_read_ahead == 0
        assert server.prefetch.octets == 0


async def test_files_read_in_no_order_are_left_alone(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 200)
    async with mounted(tmp_path) as server:
        entries = await list_all(server, root_of(server), plus=True)
        random.Random(1).shuffle(entries)
        requests = server.connection.statistics().requests
        await _read_all(server, entries[:60], contents)
        spent = server.connection.statistics().requests - requests
        assert spent < 60 * 5 * 1.5  # OPEN, LSTAT, READ, READ for the end, CLOSE


async def test_several_programs_in_one_directory(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 400)
    async with counted(tmp_path, clock=Clock()) as (server, relay):
        entries = await list_all(server, root_of(server), plus=True)
        entries.sort(key=_by_name)
        before = relay.trips
        async with trio.open_nursery() as nursery:
            for part in range(4):
                nursery.start_soon(
                    _read_all, server, entries[2 + part * 100 : 102 + part * 100], contents
                )
        assert relay.trips - before <= 30
        assert server.prefetch.hits > 360


async def test_the_way_goes_on_in_the_next_directory(tmp_path: Path) -> None:
    contents = {f"d{number:02}": _fill(tmp_path / f"d{number:02}", 30) for number in range(20)}
    async with counted(tmp_path, clock=Clock()) as (server, relay):
        entries = await list_all(server, root_of(server), plus=True)
        for entry in entries[2:]:
            assert entry.newinfo is not None
            inner = await list_all(server, entry.newinfo.cookie, plus=True)
            await _read_all(server, inner, contents[entry.name.decode()])
        # 600 files and 21 directories, two trips each without.
        assert relay.trips <= 30
        assert server.prefetch.hits > 590


async def test_the_next_program_may_go_another_way(tmp_path: Path) -> None:
    """cp behind tar: what the last program's way foretells is wrong from the first file on."""
    contents = [_fill(tmp_path / f"d{number}", 100) for number in range(3)]
    async with counted(tmp_path, clock=Clock()) as (server, relay):
        entries = await list_all(server, root_of(server), plus=True)
        entries.sort(key=_by_name)
        directories = [entry.newinfo.cookie for entry in entries[2:] if entry.newinfo is not None]
        entries = await list_all(server, directories[0], plus=True)
        await _read_all(server, entries, contents[0])
        assert server.prefetch.hits >= 96
        hits, before = server.prefetch.hits, relay.trips
        for directory, held in zip(directories[1:], contents[1:], strict=True):
            entries = await list_all(server, directory, plus=True)
            entries.sort(key=_by_number)
            await _read_all(server, entries, held)
        assert server.prefetch.hits - hits >= 195
        assert relay.trips - before <= 10


async def test_a_tree_is_listed_in_a_few_trips(tmp_path: Path) -> None:
    for number in range(20):
        _fill(tmp_path / f"d{number:02}", 20)
    async with counted(tmp_path, clock=Clock()) as (server, relay):
        before = relay.trips
        entries = await list_all(server, root_of(server), plus=True)
        for entry in entries[2:]:
            assert entry.newinfo is not None
            inner = await list_all(server, entry.newinfo.cookie, plus=True)
            assert len(inner) == 22
            for file in inner:
                if file.newinfo is not None:
                    await server.getattr(file.newinfo.cookie, CRED)
        assert relay.trips - before <= 10  # 42 without


async def test_names_asked_for_one_by_one_are_listed(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 100)
    clock = Clock()
    async with mounted(tmp_path, clock=clock) as server:
        await list_all(server, root_of(server), plus=True)
        clock.advance(31)
        requests = server.connection.statistics().requests
        for name in contents:
            info = await look(server, name)
            assert info.size == len(contents[name])
            await trio.testing.wait_all_tasks_blocked(0.005)
        assert server.connection.statistics().requests - requests < 12


# What is read ahead must be true.


async def _start(server: Psshfs) -> list[Cookie]:
    """Open and read two neighbours; return the cookies of all files in their order."""
    entries = await list_all(server, root_of(server), plus=True)
    cookies = [entry.newinfo.cookie for entry in entries if entry.newinfo is not None]
    for cookie in cookies[:2]:
        await read_file(server, cookie)
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert len(server.prefetch) >= 2
    return cookies


async def _name_of(server: Psshfs, cookie: Cookie) -> Path:
    return Path(os.fsdecode(server.table.path(server.table.node(cookie))))


async def test_a_file_that_others_changed_is_seen_when_it_is_old(tmp_path: Path) -> None:
    _fill(tmp_path, 20)
    clock = Clock()
    async with mounted(tmp_path, clock=clock) as server:
        cookies = await _start(server)
        path = await _name_of(server, cookies[2])
        path.write_bytes(b"new and different")
        clock.advance(1.1)
        assert await read_file(server, cookies[2]) == b"new and different"


async def test_a_file_whose_change_was_seen_is_not_what_was_read_ahead(tmp_path: Path) -> None:
    _fill(tmp_path, 20)
    async with mounted(tmp_path, options=PsshfsOptions(attr_timeout_ns=0)) as server:
        cookies = await _start(server)
        (await _name_of(server, cookies[2])).write_bytes(b"new and different")
        assert (await server.getattr(cookies[2], CRED))[0].size == 17
        assert await read_file(server, cookies[2]) == b"new and different"
        hits = server.prefetch.hits
        await server.getattr(cookies[3], CRED)
        await read_file(server, cookies[3])
        assert server.prefetch.hits == hits + 1


async def test_what_we_write_is_seen_at_once(tmp_path: Path) -> None:
    _fill(tmp_path, 20)
    async with mounted(tmp_path) as server:
        cookies = await _start(server)
        written, truncated, renamed = cookies[2:5]
        await server.open(written, FWRITE, CRED)
        await server.write(written, 0, b"WRITTEN", 0, CRED)
        data = await read_file(server, written)
        assert data.startswith(b"WRITTEN")
        await server.fsync(written, FSYNC_CLOSE, 0, 0, CRED)
        server.close(written, FWRITE, CRED)
        await server.setattr(truncated, Vattr(size=1), CRED)
        assert len(await read_file(server, truncated)) == 1
        root = root_of(server)
        new = await make(server, b"other", b"another file")
        name = (await _name_of(server, renamed)).name.encode()
        await server.rename(
            root, new.cookie, lookup_cn(b"other", CRED), root, renamed, lookup_cn(name, CRED)
        )
        info = await look(server, name)
        assert info.cookie == new.cookie
        assert await read_file(server, info.cookie) == b"another file"


async def test_a_file_that_is_removed_while_it_is_open_is_still_read(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 20)
    async with mounted(tmp_path) as server:
        cookies = await _start(server)
        root = root_of(server)
        cookie = cookies[2]
        await server.open(cookie, FREAD, CRED)
        assert not server.connection.handles
        name = (await _name_of(server, cookie)).name.encode()
        await server.remove(root, cookie, lookup_cn(name, CRED))
        await server.fsync(cookie, 0, 0, 0, CRED)
        server.table.node(cookie).file.drop_blocks()  # type: ignore[union-attr]
        assert bytes(await server.read(cookie, 0, 9999, 0, CRED)) == contents[name]
        assert (await server.getattr(cookie, CRED))[0].size == len(contents[name])
        server.close(cookie, FREAD, CRED)


async def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    _fill(tmp_path, 20)
    for number in range(4, 20):
        (tmp_path / f"f{number:04}").chmod(0)
    async with mounted(tmp_path) as server:
        for cookie in (await _start(server))[2:]:
            if (await server.getattr(cookie, CRED))[0].mode == 0:
                with pytest.raises(VfsError):
                    await server.open(cookie, FREAD, CRED)


async def test_what_is_not_used_is_dropped(tmp_path: Path) -> None:
    _fill(tmp_path, 20)
    async with mounted(tmp_path) as server:
        await _start(server)
        with trio.fail_after(10):
            while len(server.prefetch):
                await trio.sleep(0.1)
        assert server.prefetch.octets == 0
        assert server.prefetch.wasted >= 2


async def test_nothing_is_read_ahead_when_it_is_not_wanted(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 20)
    for options in (PsshfsOptions(prefetch=0), PsshfsOptions(dir_timeout_ns=0)):
        async with mounted(tmp_path, options=options) as server:
            entries = await list_all(server, root_of(server), plus=True)
            await _read_all(server, entries, contents)
            assert server.prefetch.hits == 0
            assert len(server.prefetch) == 0


async def test_the_room_is_bounded(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 100, 30_000)
    async with mounted(tmp_path, options=PsshfsOptions(prefetch=200_000)) as server:
        entries = await list_all(server, root_of(server), plus=True)
        for entry in entries[2:]:
            assert entry.newinfo is not None
            assert await read_file(server, entry.newinfo.cookie) == contents[entry.name]
            assert server.prefetch.octets <= 200_000
        assert server.prefetch.hits > 90


async def test_pages_that_the_host_has_are_checked_and_not_read_again(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 60)
    clock = Clock()
    async with mounted(tmp_path, clock=clock) as server:
        entries = await list_all(server, root_of(server), plus=True)
        await _read_all(server, entries, contents)
        clock.advance(40)
        entries = await list_all(server, root_of(server), plus=True)
        requests = server.connection.statistics().requests
        for entry in entries[2:]:
            assert entry.newinfo is not None
            await server.open(entry.newinfo.cookie, FREAD, CRED)
            server.close(entry.newinfo.cookie, FREAD, CRED)
        assert server.connection.statistics().requests - requests < 60 + 10


async def test_who_pauses_is_served_again_when_he_goes_on(tmp_path: Path) -> None:
    contents = _fill(tmp_path, 200)
    async with mounted(tmp_path) as server:
        entries = await list_all(server, root_of(server), plus=True)
        await _read_all(server, entries[:50], contents)
        with trio.fail_after(10):
            while len(server.prefetch):
                await trio.sleep(0.1)
        hits = server.prefetch.hits
        await _read_all(server, entries[50:], contents)
        assert server.prefetch.hits - hits >= 145
