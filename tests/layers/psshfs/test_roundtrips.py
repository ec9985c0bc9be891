"""What operations cost in round trips and messages, and what the caches answer alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.ahead import walking
from syspuffs.layers.psshfs.wire import pace
from syspuffs.native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FWRITE,
    READDIR_PLUS,
    FlushOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Vattr, lookup_cn

from .harness import (
    CRED,
    NOCACHE,
    SECOND,
    Clock,
    Relay,
    counted,
    list_all,
    look,
    make,
    mkdir,
    mounted,
    read_file,
    root_of,
)


class Trips:
    """Asserts how many round trips a block of operations takes."""

    def __init__(self, relay: Relay, count: int) -> None:
        self.relay = relay
        self.count = count

    def __enter__(self) -> None:
        self.before = self.relay.trips

    def __exit__(self, *exc: object) -> None:
        assert exc[0] is not None or self.relay.trips - self.before == self.count


async def test_mount_takes_two(tmp_path: Path) -> None:
    async with counted(tmp_path) as (_, relay):
        assert relay.trips == 2


async def test_create_write_close_takes_two(tmp_path: Path) -> None:
    async with counted(tmp_path) as (server, relay):
        root = root_of(server)
        with Trips(relay, 1):
            info = await server.create(
                root, lookup_cn(b"f", CRED), Vattr(vtype=Vtype.VREG, mode=0o644)
            )
            await server.open(info.cookie, FWRITE, CRED)
            await server.getattr(info.cookie, CRED)
        with Trips(relay, 1):
            await server.write(info.cookie, 0, b"x" * 100, 0, CRED)
            await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        server.close(info.cookie, FWRITE, CRED)
        await wait_all_tasks_blocked(0.02)
        with Trips(relay, 0):
            va, ttl = await server.getattr(info.cookie, CRED)
            assert va.size == 100
            assert ttl > 0
            assert (await look(server, b"f")).cookie == info.cookie


async def test_a_new_directory_is_filled_in_two_trips_a_file(tmp_path: Path) -> None:
    options = PsshfsOptions(negative_timeout_ns=30 * SECOND)
    async with counted(tmp_path, options=options) as (server, relay):
        d = await mkdir(server, b"d")
        for number in range(5):
            with Trips(relay, 2 if number else 3):
                assert not (await look(server, b"d/f%d" % number)).cookie
                await make(server, b"f%d" % number, b"x" * 1000, directory=d.cookie)
        # What others make there is listed at once, and no error for who makes it, too.
        (tmp_path / "d/g").touch()
        assert len(await list_all(server, d.cookie)) == 8
        (tmp_path / "d/h").touch()
        with pytest.raises(VfsError):
            await make(server, b"h", directory=d.cookie)
        assert (await look(server, b"d/h")).cookie
        # In one whose names are not known they are listed after some questions.
        (tmp_path / "old").mkdir()
        old = await look(server, b"old")
        before = relay.trips
        for number in range(20):
            assert not (await look(server, b"old/f%d" % number)).cookie
            await make(server, b"f%d" % number, b"x" * 1000, directory=old.cookie)
        assert relay.trips - before <= 46  # 60 without


async def test_far_away_a_short_directory_is_listed_with_the_first_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FAR", 0.0)
    (tmp_path / "d").mkdir()
    async with counted(tmp_path) as (server, relay):
        await wait_all_tasks_blocked(0.02)
        with Trips(relay, 0):  # the root's, with the mount
            d = await look(server, b"d")
            assert not (await look(server, b"e")).cookie
        assert not (await look(server, b"d/f")).cookie
        await wait_all_tasks_blocked(0.02)
        for number in range(5):
            with Trips(relay, 2):
                assert not (await look(server, b"d/f%d" % number)).cookie
                await make(server, b"f%d" % number, b"x" * 1000, directory=d.cookie)


async def test_far_away_no_name_costs_the_listing_of_a_long_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FAR", 0.0)
    monkeypatch.setattr(walking, "SHORT_MAX", 0)
    (tmp_path / "f").touch()
    async with counted(tmp_path) as (server, relay):
        with Trips(relay, 1):
            await look(server, b"f")
            await wait_all_tasks_blocked(0.02)
        assert server.table.root.listing is None


async def test_one_trip_each(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    (tmp_path / "l").symlink_to("f")
    async with counted(tmp_path) as (server, relay):
        root = root_of(server)
        with Trips(relay, 1):
            info = await look(server, b"f")
        with Trips(relay, 0):
            await server.getattr(info.cookie, CRED)
            await look(server, b"f")
            await server.access(info.cookie, 4, CRED)
        with Trips(relay, 1):
            await server.open(info.cookie, FREAD, CRED)
        with Trips(relay, 1):
            await server.read(info.cookie, 0, 131072, 0, CRED)
        with Trips(relay, 1):
            await server.setattr(info.cookie, Vattr(mode=0o600), CRED)
        with Trips(relay, 1):
            await server.setattr(info.cookie, Vattr(mtime=SECOND), CRED)
        with Trips(relay, 1):
            d = await mkdir(server, b"d")
        with Trips(relay, 1):
            await server.symlink(root, lookup_cn(b"s", CRED), Vattr(vtype=5, mode=0o777), b"t")
        with Trips(relay, 1):
            await server.link(root, info.cookie, lookup_cn(b"h", CRED))
        with Trips(relay, 1):
            await server.rename(
                root, info.cookie, lookup_cn(b"h", CRED), d.cookie, None, lookup_cn(b"h", CRED)
            )
        with Trips(relay, 1):
            link = await look(server, b"l")
        with Trips(relay, 1):
            await server.readlink(link.cookie, CRED)
        with Trips(relay, 0):
            await server.readlink(link.cookie, CRED)
        with Trips(relay, 1):
            await server.remove(root, link.cookie, lookup_cn(b"l", CRED))
        with Trips(relay, 1):
            await server.statvfs()


async def test_a_listing_takes_two_and_answers_for_all_in_it(tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / f"f{n}").write_bytes(b"x" * n)
    async with counted(tmp_path) as (server, relay):
        root = root_of(server)
        with Trips(relay, 2):
            await server.readdir(root, 0, 100, READDIR_PLUS, CRED)
        await wait_all_tasks_blocked(0.02)
        with Trips(relay, 0):
            entries = await list_all(server, root, plus=True)
            assert len(entries) == 62
            for n in range(60):
                info = await look(server, b"f%d" % n)
                assert info.size == n
                assert info.cn_ttl > 0
                va, _ = await server.getattr(info.cookie, CRED)
                assert va.size == n
            missing = await look(server, b"nothing")
            assert missing.cookie == 0
            assert 0 < missing.cn_ttl <= 30 * SECOND
            await server.getattr(root, CRED)


async def test_own_changes_keep_a_listing_true(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    async with counted(tmp_path) as (server, relay):
        root = root_of(server)
        await list_all(server, root)
        f = await make(server, b"f", b"1")
        d = await mkdir(server, b"d")
        await server.rename(
            root, f.cookie, lookup_cn(b"f", CRED), d.cookie, None, lookup_cn(b"g", CRED)
        )
        old = await look(server, b"old")
        await server.remove(root, old.cookie, lookup_cn(b"old", CRED))
        await make(server, b"new")
        await wait_all_tasks_blocked(0.02)
        with Trips(relay, 0):
            entries = await list_all(server, root)
            assert [entry.name for entry in entries] == [b".", b"..", b"d", b"new"]
            assert (await look(server, b"old")).cookie == 0
            assert (await look(server, b"f")).cookie == 0
            assert (await look(server, b"new")).cookie != 0
        assert sorted(os.listdir(tmp_path)) == ["d", "new"]


async def test_a_directory_that_others_changed_is_listed_anew(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "a").touch()
    os.utime(tmp_path, (1000, 1000))
    async with mounted(tmp_path, clock=clock) as server:
        root = root_of(server)
        await list_all(server, root)
        clock.advance(20)
        d = await look(server, b"a")
        assert d.cookie
        (tmp_path / "b").touch()
        clock.advance(11)  # the attributes are old now, as the listing is
        await list_all(server, root)
        assert (await look(server, b"b")).cookie != 0


async def test_nothing_is_believed_without_a_time_out(tmp_path: Path) -> None:
    async with counted(tmp_path, options=NOCACHE) as (server, relay):
        info = await make(server, b"f", b"1")
        assert (info.va_ttl, info.cn_ttl) == (0, 0)
        with Trips(relay, 1):
            await look(server, b"f")
        with Trips(relay, 1):
            va, ttl = await server.getattr(info.cookie, CRED)
            assert ttl == 0
        (tmp_path / "f").write_bytes(b"22")
        va, _ = await server.getattr(info.cookie, CRED)
        assert va.size == 2
        (tmp_path / "f").unlink()
        assert (await look(server, b"f")).cookie == 0
        (tmp_path / "f").touch()
        assert (await look(server, b"f")).cookie != 0


async def test_small_files_are_read_in_two(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 200_000)
    async with counted(tmp_path) as (server, relay):
        info = await look(server, b"f")
        with Trips(relay, 2):
            await server.open(info.cookie, FREAD, CRED)
            for at in range(0, 200_000, 4096):
                await server.read(info.cookie, at, 4096, 0, CRED)


async def test_writes_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with counted(tmp_path) as (server, _):
        info = await make(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        await wait_all_tasks_blocked(0.02)
        before = server.connection.waits
        for at in range(20):
            await server.write(info.cookie, at * 1000, b"x" * 1000, 0, CRED)
        assert server.connection.waits == before
        assert server.statistics().octets_unacknowledged == 20_000
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        assert server.statistics().octets_unacknowledged == 0


class Heard:
    """The upcalls of a kernel, written down."""

    def __init__(self) -> None:
        self.flushes: list[tuple[FlushOp, Cookie]] = []

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        self.flushes.append((op, cookie))

    def unmount(self) -> None:
        raise AssertionError


async def test_forget_drops_everything(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        heard = Heard()
        server.attach(heard)
        info = await make(server, b"f", b"1")
        await list_all(server, root_of(server))
        (tmp_path / "f").write_bytes(b"22")
        (tmp_path / "g").touch()
        await server.forget()
        assert (FlushOp.INVAL_NAMECACHE_ALL, root_of(server)) in heard.flushes
        assert (FlushOp.INVAL_PAGECACHE_NODE_RANGE, info.cookie) in heard.flushes
        assert (await server.getattr(info.cookie, CRED))[0].size == 2
        assert (await look(server, b"g")).cookie != 0


async def _changed_while_open(server: Psshfs, path: Path) -> None:
    heard = Heard()
    server.attach(heard)
    path.write_bytes(b"1")
    os.utime(path, (1000, 1000))
    info = await look(server, b"f")
    await server.open(info.cookie, FREAD, CRED)
    assert bytes(await server.read(info.cookie, 0, 10, 0, CRED)) == b"1"
    path.write_bytes(b"22")
    await server.getattr(info.cookie, CRED)
    await wait_all_tasks_blocked()
    assert heard.flushes == [(FlushOp.INVAL_PAGECACHE_NODE_RANGE, info.cookie)]
    assert bytes(await server.read(info.cookie, 0, 10, 0, CRED)) == b"22"
    # What we change ourselves is no news to those above.
    await server.open(info.cookie, FWRITE, CRED)
    await server.write(info.cookie, 0, b"333", 0, CRED)
    await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
    await server.getattr(info.cookie, CRED)
    await wait_all_tasks_blocked(0.02)
    assert len(heard.flushes) == 1


async def test_pages_of_an_open_file_are_flushed_when_others_change_it(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=NOCACHE) as server:
        await _changed_while_open(server, tmp_path / "f")


async def test_reading_goes_on_while_others_read(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(data)
    async with mounted(tmp_path) as server:
        info = await look(server, b"f")

        async def reader() -> None:
            assert await read_file(server, info.cookie, 131072) == data

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(reader)
        assert server.statistics().open_files == 0
