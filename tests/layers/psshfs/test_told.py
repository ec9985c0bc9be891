"""Files that the kernel above knows from a listing alone: no node until something is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.wire import inbox
from syspuffs.native.constants import FREAD, READDIR_PLUS, FlushOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.packed import Page
from syspuffs.native.records import Cookie, Dirent, Vattr, lookup_cn

from .harness import CRED, Clock, list_all, look, make, mkdir, mounted, read_file, root_of
from .test_timeouts import Heard


async def told(server: Psshfs, directory: Cookie) -> dict[bytes, Dirent]:
    """List a directory as READDIRPLUS does."""
    entries = await list_all(server, directory, plus=True)
    return {entry.name: entry for entry in entries if entry.newinfo is not None}


def cookie_of(entry: Dirent) -> Cookie:
    assert entry.newinfo is not None
    return entry.newinfo.cookie


async def size_of(server: Psshfs, cookie: Cookie) -> int | None:
    return (await server.getattr(cookie, CRED))[0].size


async def is_dead(server: Psshfs, cookie: Cookie) -> bool:
    try:
        await server.getattr(cookie, CRED)
    except VfsError:
        return True
    return False


def fill(directory: Path, count: int = 10) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        (directory / f"f{number}").write_bytes(b"x" * number)


async def test_a_node_is_made_when_something_is_asked(tmp_path: Path) -> None:
    fill(tmp_path)
    os.symlink("f1", tmp_path / "link")
    (tmp_path / "d").mkdir()
    async with mounted(tmp_path) as server:
        table = server.table
        found = await told(server, root_of(server))
        assert len(table.told) == 11, "directories have nodes"
        assert set(table.nodes) == {root_of(server), cookie_of(found[b"d"])}
        assert server.statistics().nodes == 13
        for number in range(10):
            va = found[b"f%d" % number].newinfo
            assert va is not None
            assert va.va is not None
            assert (va.va.size, va.va.fileid) == (number, va.cookie)
            there, _ = await server.getattr(va.cookie, CRED)
            assert there == va.va
        assert await server.readlink(cookie_of(found[b"link"]), CRED) == b"f1"
        assert not table.told
        assert await read_file(server, cookie_of(found[b"f3"])) == b"xxx"


async def test_lookups_are_counted_as_those_of_nodes(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    async with mounted(tmp_path) as server:
        for _ in range(2):
            found = await told(server, root_of(server))
        plain, asked = (cookie_of(found[name]) for name in (b"f0", b"f1"))
        await server.getattr(asked, CRED)
        found = await told(server, root_of(server))
        assert (cookie_of(found[b"f0"]), cookie_of(found[b"f1"])) == (plain, asked)
        assert (await look(server, b"f1")).cookie == asked
        server.reclaim(plain, 2)
        server.reclaim(asked, 3)
        assert plain in server.table.told
        server.reclaim(plain, 1)
        server.reclaim(asked, 1)
        assert not server.table.told
        assert await is_dead(server, plain)
        assert await is_dead(server, asked)
        server.reclaim(plain, 1)  # of what is dead: nothing


async def test_what_is_listed_no_more_is_gone(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    clock = Clock()
    async with mounted(tmp_path, clock=clock) as server:
        old = await told(server, root_of(server))
        (tmp_path / "f1").unlink()
        (tmp_path / "f2").unlink()
        (tmp_path / "f2").mkdir()
        (tmp_path / "f3").write_bytes(b"x" * 99)
        clock.advance(600)
        new = await told(server, root_of(server))
        assert sorted(new) == [b"f0", b"f2", b"f3"]
        assert await is_dead(server, cookie_of(old[b"f1"]))
        assert await is_dead(server, cookie_of(old[b"f2"]))
        assert new[b"f2"].vtype == Vtype.VDIR
        assert cookie_of(new[b"f2"]) != cookie_of(old[b"f2"])
        assert cookie_of(new[b"f3"]) == cookie_of(old[b"f3"])
        assert await size_of(server, cookie_of(new[b"f3"])) == 99
        for name in (b"f0", b"f3"):
            assert new[name].offset == old[name].offset


async def test_own_changes_to_what_was_only_listed(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    async with mounted(tmp_path) as server:
        root = root_of(server)
        found = {name: cookie_of(entry) for name, entry in (await told(server, root)).items()}
        await server.remove(root, found[b"f0"], lookup_cn(b"f0", CRED))
        one, two = lookup_cn(b"f1", CRED), lookup_cn(b"f2", CRED)
        await server.rename(root, found[b"f1"], one, root, found[b"f2"], two)
        await server.setattr(found[b"f3"], Vattr(mode=0o600, size=2), CRED)
        (tmp_path / "f4").unlink()
        made = await server.create(root, lookup_cn(b"f4", CRED), Vattr(Vtype.VREG, 0o600))
        assert (await look(server, b"f0")).cookie == 0
        assert (await look(server, b"f1")).cookie == 0
        assert (await look(server, b"f2")).cookie == found[b"f1"]
        assert (await look(server, b"f4")).cookie == made.cookie
        new = await told(server, root)
        assert sorted(new) == [b"f2", b"f3", b"f4"]
        assert cookie_of(new[b"f2"]) == found[b"f1"]
        info = new[b"f3"].newinfo
        assert info is not None
        assert await size_of(server, info.cookie) == 2
        assert info.va is None or (info.va.size, info.va.mode) == (2, 0o600)


async def test_a_directory_stays_while_something_below_it_is_known(tmp_path: Path) -> None:
    fill(tmp_path / "d", 2)
    async with mounted(tmp_path) as server:
        d = (await look(server, b"d")).cookie
        found = [cookie_of(entry) for _, entry in sorted((await told(server, d)).items())]
        server.reclaim(d, 1)
        server.reclaim(found[0], 1)
        assert await size_of(server, found[1]) == 1
        server.reclaim(found[1], 1)
        assert set(server.table.nodes) == {root_of(server)}
        assert server.table.listings.names == 0
        again = await told(server, (await look(server, b"d")).cookie)
        assert sorted(cookie_of(entry) for entry in again.values()) == sorted(found)
        for cookie in [*found, d]:
            server.reclaim(cookie, 1)
        assert set(server.table.nodes) == {root_of(server)}
        assert not server.table.told


@pytest.mark.parametrize("is_asked", [False, True])
async def test_a_listing_that_must_go_keeps_what_is_known_above(
    tmp_path: Path, is_asked: bool
) -> None:
    for directory in "de":
        fill(tmp_path / directory, 6)
    clock = Clock()
    async with mounted(tmp_path, options=PsshfsOptions(names_max=8), clock=clock) as server:
        d, e = [(await look(server, name)).cookie for name in (b"d", b"e")]
        found = {name: cookie_of(entry) for name, entry in (await told(server, d)).items()}
        for name in (b"f0", b"f1", b"f2"):
            server.reclaim(found.pop(name), 1)
        clock.advance(120)
        await list_all(server, e)
        listing = server.table.directory(d).listing
        assert listing is not None
        assert sorted(listing.entries) == sorted(found)
        assert server.table.listings.names == 6
        if is_asked:
            assert await size_of(server, found[b"f5"]) == 5
        assert (await look(server, b"d/f4")).cookie == found[b"f4"]
        again = {name: cookie_of(entry) for name, entry in (await told(server, d)).items()}
        assert found.items() <= again.items()
        assert len(again) == 6


async def test_what_is_forgotten_is_asked_for_again(tmp_path: Path) -> None:
    fill(tmp_path / "d", 3)
    async with mounted(tmp_path) as server:
        server.attach(heard := Heard())
        d = (await look(server, b"d")).cookie
        found = {name: cookie_of(entry) for name, entry in (await told(server, d)).items()}
        for name in ("f1", "f2"):
            (tmp_path / "d" / name).write_bytes(b"x" * 50)
        await server.forget()
        flushed = {cookie for op, cookie, _ in heard.flushes if op != FlushOp.INVAL_NAMECACHE_ALL}
        assert set(found.values()) <= flushed
        assert await size_of(server, found[b"f1"]) == 50
        assert (await look(server, b"d/f2")).cookie == found[b"f2"]
        assert await size_of(server, found[b"f2"]) == 50


async def test_a_page_is_a_sequence_of_entries(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    async with mounted(tmp_path) as server:
        entries, is_end = await server.readdir(root_of(server), 0, 4096, 1, CRED)
        assert is_end
        assert isinstance(entries, Page)
        assert [entry.name for entry in entries[:2]] == [b".", b".."]
        names = [b".", b"..", b"f0", b"f1", b"f2"]
        assert sorted(entry.name for entry in entries) == names
        assert entries[-1] == entries[4] == list(entries)[4]
        for at in (5, -6):
            with pytest.raises(IndexError):
                entries[at]
        await server.open(cookie_of(entries[2]), FREAD, CRED)
        server.close(cookie_of(entries[2]), FREAD, CRED)


async def test_a_listing_that_must_go_while_it_is_fetched_comes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_ROUND_TRIP_MAX", 0)  # both wait in turn, none in place
    fill(tmp_path / "d", 1500)
    (tmp_path / "e").mkdir()
    clock = Clock()
    async with mounted(tmp_path, options=PsshfsOptions(names_max=8), clock=clock) as server:
        d, e = [(await look(server, name)).cookie for name in (b"d", b"e")]
        await server.readdir(d, 0, 4096, 0, CRED)
        clock.advance(120)
        server.readdir_depth = 1  # 16 round trips for the longer one
        found: dict[bytes, Cookie] = {}

        async def find() -> None:
            entries = await list_all(server, d, resid=100_000, plus=True)
            found.update({at.name: cookie_of(at) for at in entries if at.newinfo is not None})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(find)
            while not server.loading:
                await trio.lowlevel.checkpoint()
            await list_all(server, e)
            assert server.loading
        assert len(found) == 1500
        for number in (1, 1499):
            assert await size_of(server, found[b"f%d" % number]) == number
        assert (await look(server, b"d/f7")).cookie == found[b"f7"]
        assert server.table.listings.names == 1500


async def test_what_is_removed_while_a_page_is_made_is_not_told(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    async with mounted(tmp_path) as server:
        root = root_of(server)
        await list_all(server, root)
        # Of this name there is no more than that we made it: the server is asked for the rest.
        server.reclaim((await make(server, b"made")).cookie, 1)
        f1 = (await look(server, b"f1")).cookie
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.remove, root, f1, lookup_cn(b"f1", CRED))
            while not server.gate.busy:
                await trio.lowlevel.checkpoint()
            found = await told(server, root)
        server.reclaim(f1, 1)
        assert b"made" in found
        if b"f1" in found:
            assert await is_dead(server, cookie_of(found[b"f1"]))
        assert (await look(server, b"f1")).cookie == 0


async def test_pages_of_names_that_have_vanished_are_passed_over(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        await list_all(server, root)
        for number in range(1200):
            info = await server.mknod(root, lookup_cn(b"%04d" % number, CRED), Vattr(Vtype.VREG))
            server.reclaim(info.cookie, 1)
        for number in range(1199):
            (tmp_path / f"{number:04}").unlink()
        entries, is_end = await server.readdir(root, 2, 30, READDIR_PLUS, CRED)
        assert is_end
        assert [entry.name for entry in entries] == [b"1199"]


async def test_names_that_we_make_count_as_those_that_are_listed(tmp_path: Path) -> None:
    fill(tmp_path / "d", 6)
    clock = Clock()
    async with mounted(tmp_path, options=PsshfsOptions(names_max=8), clock=clock) as server:
        listings = server.table.listings
        made = (await mkdir(server, b"made")).cookie
        for number in range(20):
            name = lookup_cn(b"%d" % number, CRED)
            info = await server.mknod(made, name, Vattr(Vtype.VREG, 0o600))
            server.reclaim(info.cookie, 1)
        assert listings.names == 20
        clock.advance(120)
        await list_all(server, (await look(server, b"d")).cookie)
        assert listings.names == 6
        assert server.table.directory(made).listing is None
        assert (await look(server, b"made/7")).cookie


async def test_a_listing_for_a_directory_that_is_forgotten_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_ROUND_TRIP_MAX", 0)
    fill(tmp_path / "d", 6)
    async with mounted(tmp_path) as server:
        d = (await look(server, b"d")).cookie
        directory = server.table.directory(d)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.load, directory)
            while directory not in server.loading:
                await trio.lowlevel.checkpoint()
            server.reclaim(d, 1)
        assert directory.listing is not None
        assert directory.listing.is_loaded
        assert server.table.listings.names == 0


@pytest.mark.parametrize("is_asked", [False, True])
async def test_what_is_left_of_a_directory_takes_nothing_of_the_next_one(
    tmp_path: Path, is_asked: bool
) -> None:
    fill(tmp_path / "d", 1)
    clock = Clock()
    async with mounted(tmp_path, clock=clock) as server:
        d = (await look(server, b"d")).cookie
        f0 = cookie_of((await told(server, d))[b"f0"])
        if is_asked:
            await server.getattr(f0, CRED)
        server.reclaim(d, 1)
        (tmp_path / "d" / "f0").unlink()
        (tmp_path / "d").rmdir()
        clock.advance(600)
        assert not await told(server, root_of(server))
        made = (await make(server, b"d", b"another")).cookie
        server.reclaim(f0, 1)
        assert await read_file(server, made) == b"another"
        assert (await look(server, b"d")).cookie == made
