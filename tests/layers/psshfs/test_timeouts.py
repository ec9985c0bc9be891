"""How long each kind of knowledge is believed, and what drops it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syspuffs.layers.psshfs import PsshfsOptions
from syspuffs.native.constants import FREAD, FlushOp, OpenFlag
from syspuffs.native.records import Cookie

from .harness import CRED, SECOND, Clock, counted, list_all, look, make, mounted, read_file, root_of
from .test_roundtrips import Trips


def _options(**seconds: float) -> PsshfsOptions:
    return PsshfsOptions(
        **{f"{name}_timeout_ns": int(value * SECOND) for name, value in seconds.items()}  # type: ignore[arg-type]
    )


async def test_attributes_and_names_grow_old_apart(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "f").write_bytes(b"1")
    async with mounted(tmp_path, options=_options(attr=2, name=9), clock=clock) as server:
        info = await look(server, b"f")
        assert (info.va_ttl, info.cn_ttl) == (2 * SECOND, 9 * SECOND)
        (tmp_path / "f").write_bytes(b"22")
        clock.advance(3)
        again = await look(server, b"f")
        assert (again.cookie, again.va_ttl, again.cn_ttl) == (info.cookie, 0, 6 * SECOND)
        assert (await server.getattr(info.cookie, CRED))[0].size == 2


async def test_link_targets_have_a_time_of_their_own(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "l").symlink_to("one")
    async with mounted(tmp_path, options=_options(link=5), clock=clock) as server:
        link = (await look(server, b"l")).cookie
        assert await server.readlink(link, CRED) == b"one"
        (tmp_path / "l").unlink()
        (tmp_path / "l").symlink_to("two")
        clock.advance(4)
        assert await server.readlink(link, CRED) == b"one"
        clock.advance(2)
        assert await server.readlink(link, CRED) == b"two"


async def test_listings_have_a_time_of_their_own(tmp_path: Path) -> None:
    clock = Clock()
    async with mounted(tmp_path, options=_options(dir=5, attr=60), clock=clock) as server:
        root = root_of(server)
        assert len(await list_all(server, root)) == 2
        (tmp_path / "new").touch()
        clock.advance(4)
        assert len(await list_all(server, root)) == 2
        clock.advance(2)
        assert len(await list_all(server, root)) == 3


@pytest.mark.parametrize(("negative", "first", "listed"), [(None, 1, 30), (7, 7, 7), (0, 0, 0)])
async def test_names_that_are_not_there(
    tmp_path: Path, negative: float | None, first: int, listed: int
) -> None:
    clock = Clock()
    options = PsshfsOptions() if negative is None else _options(negative=negative)
    async with mounted(tmp_path, options=options, clock=clock) as server:
        root = root_of(server)
        info = await look(server, b"x")
        assert (info.cookie, info.cn_ttl) == (0, first * SECOND)
        await list_all(server, root)
        info = await look(server, b"y")
        assert (info.cookie, info.cn_ttl) == (0, listed * SECOND)


async def test_a_missing_name_is_asked_for_once_in_a_second(tmp_path: Path) -> None:
    async with counted(tmp_path) as (server, relay):
        with Trips(relay, 1):
            for _ in range(4):  # as mv(1) does
                assert (await look(server, b"new")).cookie == 0
        # What we make ourselves is there at once.
        await make(server, b"new", b"1")
        assert (await look(server, b"new")).cookie != 0


async def test_listings_give_way_when_there_are_too_many_names(tmp_path: Path) -> None:
    clock = Clock()
    for number in range(3):
        (tmp_path / f"d{number}").mkdir()
        for name in range(10):
            (tmp_path / f"d{number}/f{name}").touch()
    async with mounted(tmp_path, options=PsshfsOptions(names_max=25), clock=clock) as server:
        listings = server.table.listings
        nodes = [(await look(server, b"d%d" % number)).cookie for number in range(3)]
        for node in nodes[:2]:
            await list_all(server, node)
        assert listings.names == 20
        await list_all(server, nodes[2])
        assert listings.names == 30  # all were read a moment ago
        clock.advance(61)
        await list_all(server, nodes[1])
        assert listings.names == 20
        assert server.table.node(nodes[0]).listing is None
        assert len(await list_all(server, nodes[0])) == 12
        for node in nodes:
            server.reclaim(node, 1)
        assert listings.names == 0


class Heard:
    """The upcalls of a kernel, written down."""

    def __init__(self) -> None:
        self.flushes: list[tuple[FlushOp, Cookie, bytes]] = []

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        self.flushes.append((op, cookie, name))

    def unmount(self) -> None:
        raise AssertionError


async def test_forget_drops_what_lies_below_a_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"1")
    async with mounted(tmp_path) as server:
        heard = Heard()
        server.attach(heard)
        a, b = await look(server, b"a"), await look(server, b"b")
        files = [await look(server, b"a/f"), await look(server, b"b/f")]
        await list_all(server, a.cookie)
        for name in ("a", "b"):
            (tmp_path / name / "f").write_bytes(b"22")
            (tmp_path / name / "g").touch()
        await server.forget(b"a")
        assert [(await server.getattr(f.cookie, CRED))[0].size for f in files] == [2, 1]
        assert (await look(server, b"a/g")).cookie != 0
        assert (FlushOp.INVAL_NAMECACHE_NAME, root_of(server), b"a") in heard.flushes
        assert (FlushOp.INVAL_NAMECACHE_DIR, a.cookie, b"") in heard.flushes
        assert (FlushOp.INVAL_PAGECACHE_NODE_RANGE, files[0].cookie, b"") in heard.flushes
        assert b.cookie not in {cookie for _, cookie, _ in heard.flushes}
        await server.forget(b"b/f")
        assert (await server.getattr(files[1].cookie, CRED))[0].size == 2


async def test_forget_drops_that_a_name_is_missing(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        heard = Heard()
        server.attach(heard)
        assert (await look(server, b"x")).cookie == 0
        (tmp_path / "x").touch()
        assert (await look(server, b"x")).cookie == 0
        await server.forget(b"/x/")
        assert (await look(server, b"x")).cookie != 0
        assert heard.flushes == [(FlushOp.INVAL_NAMECACHE_NAME, root_of(server), b"x")]


async def test_an_open_believes_attributes_of_an_age(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    os.utime(tmp_path / "f", (1000, 1000))
    async with counted(tmp_path, options=_options(open=60)) as (server, relay):
        info = await look(server, b"f")
        with Trips(relay, 2):
            await read_file(server, info.cookie)
        with Trips(relay, 0):
            assert await server.open(info.cookie, FREAD, CRED) == (OpenFlag.IO_KEEP, 0)
        (tmp_path / "f").write_bytes(b"22")
        with Trips(relay, 0):
            await server.open(info.cookie, FREAD, CRED)
            assert (await server.getattr(info.cookie, CRED))[0].size == 1


async def test_an_older_listing_does_not_take_back_what_was_heard_since(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "f").write_bytes(b"x")
    async with mounted(tmp_path, options=_options(attr=5, name=1, dir=100), clock=clock) as server:
        await list_all(server, root_of(server))
        info = await look(server, b"f")
        (tmp_path / "f").write_bytes(b"x" * 99)
        clock.advance(6)
        assert (await server.getattr(info.cookie, CRED))[0].size == 99
        clock.advance(2)
        info = await look(server, b"f")
        assert info.va is not None
        assert info.va.size == 99
        assert (await server.getattr(info.cookie, CRED))[0].size == 99
