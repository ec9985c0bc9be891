"""p2k: one vnode reference for each live cookie, whatever was looked up, and locks that end."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.p2k import P2k, p2k_over
from syspuffs.native.constants import (
    FREAD,
    FWRITE,
    MNT_FORCE,
    READDIR_PLUS,
    NameiOp,
    Setback,
    VnOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Vattr, lookup_cn

from ...disk.images import check_clean
from ...support.disks import ext2fs, make_empty_image

ROOT_CRED = Cred(0, 0)


@asynccontextmanager
async def _served(*, rdonly: bool = False) -> AsyncIterator[tuple[P2k, TmpFs]]:
    fs = TmpFs(mntfromname=b"none")
    async with p2k_over(fs, rdonly=rdonly) as server:
        yield server, fs


def _usecounts(fs: TmpFs) -> dict[int, int]:
    return {vp.serial: vp.usecount for vp in fs.mount}


async def _create(server: P2k, name: bytes) -> Cookie:
    made = await server.create(
        server.kargs.root.cookie,
        lookup_cn(name, ROOT_CRED, NameiOp.CREATE),
        Vattr(Vtype.VREG, 0o644),
    )
    return made.cookie


async def test_a_cookie_holds_one_reference_however_often_it_is_looked_up() -> None:
    async with _served() as (server, fs):
        root = server.kargs.root.cookie
        cookie = await _create(server, b"a")
        for _ in range(3):
            assert (await server.lookup(root, lookup_cn(b"a", ROOT_CRED))).cookie == cookie
        assert _usecounts(fs)[cookie] == 1
        server.reclaim(cookie, 3)
        assert _usecounts(fs)[cookie] == 1, "one lookup is still out"
        server.reclaim(cookie, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert _usecounts(fs)[cookie] == 0
        with pytest.raises(VfsError) as caught:
            await server.getattr(cookie, ROOT_CRED)
        assert caught.value.errno == errno.ESTALE


async def test_readdir_plus_counts_a_lookup_for_each_entry_but_the_dots() -> None:
    async with _served() as (server, fs):
        root = server.kargs.root.cookie
        cookie = await _create(server, b"a")
        entries, eof = await server.readdir(root, 0, 4096, READDIR_PLUS, ROOT_CRED)
        assert eof
        assert [(entry.name, entry.newinfo is None) for entry in entries] == [
            (b".", True),
            (b"..", True),
            (b"a", False),
        ]
        server.reclaim(cookie, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert _usecounts(fs)[cookie] == 0


async def test_the_root_is_never_reclaimed() -> None:
    async with _served() as (server, _):
        root = server.kargs.root.cookie
        server.reclaim(root, 100)
        va, _ = await server.getattr(root, ROOT_CRED)
        assert va.vtype == Vtype.VDIR


async def test_a_missing_name_is_an_answer() -> None:
    async with _served() as (server, _):
        found = await server.lookup(server.kargs.root.cookie, lookup_cn(b"no", ROOT_CRED))
        assert found.cookie == 0
        assert found.cn_ttl > 0


async def test_an_unlinked_node_is_recycled_when_it_becomes_inactive() -> None:
    async with _served() as (server, fs):
        root = server.kargs.root.cookie
        cookie = await _create(server, b"a")
        assert await server.inactive(cookie) == 0
        await server.write(cookie, 0, b"still here", 0, ROOT_CRED)
        await server.remove(root, cookie, lookup_cn(b"a", ROOT_CRED, NameiOp.DELETE))
        assert bytes(await server.read(cookie, 0, 100, 0, ROOT_CRED)) == b"still here"
        assert await server.inactive(cookie) == Setback.NOREF_N1
        server.reclaim(cookie, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert cookie not in _usecounts(fs)


async def _open_after_inactive(server: P2k) -> None:
    """Somebody closes a file without a name; somebody else had looked it up, and opens it now."""
    root = server.kargs.root.cookie
    cookie = await _create(server, b"a")
    await server.open(cookie, FREAD | FWRITE, ROOT_CRED)
    await server.write(cookie, 0, b"contents", 0, ROOT_CRED)
    await server.remove(root, cookie, lookup_cn(b"a", ROOT_CRED, NameiOp.DELETE))
    server.close(cookie, FREAD | FWRITE, ROOT_CRED)
    assert await server.inactive(cookie) == Setback.NOREF_N1
    await server.open(cookie, FREAD, ROOT_CRED)
    assert bytes(await server.read(cookie, 0, 100, 0, ROOT_CRED)) == b"contents"
    server.close(cookie, FREAD, ROOT_CRED)
    assert await server.inactive(cookie) == Setback.NOREF_N1
    server.reclaim(cookie, 1)
    await server.unmount(0)


async def test_data_without_a_name_last_as_long_as_the_cookie(tmp_path: Path) -> None:
    async with _served() as (server, _):
        await _open_after_inactive(server)
    image = make_empty_image(tmp_path / "disk.img")
    async with ext2fs(image) as fs, p2k_over(fs) as server:
        await _open_after_inactive(server)
    check_clean(image)


async def test_a_read_only_mount_refuses_every_change() -> None:
    async with _served(rdonly=True) as (server, _):
        root = server.kargs.root.cookie
        cn = lookup_cn(b"a", ROOT_CRED, NameiOp.CREATE)
        va = Vattr(Vtype.VREG, 0o644)
        for change in (
            server.create(root, cn, va),
            server.mkdir(root, cn, Vattr(Vtype.VDIR, 0o755)),
            server.symlink(root, cn, Vattr(Vtype.VLNK, 0o777), b"x"),
            server.setattr(root, Vattr(mode=0o700), ROOT_CRED),
            server.remove(root, root, cn),
            server.rename(root, root, cn, root, None, cn),
        ):
            with pytest.raises(VfsError) as caught:
                await change
            assert caught.value.errno == errno.EROFS


async def test_operations_name_what_the_file_system_has() -> None:
    async with _served() as (server, _):
        assert VnOp.RENAME in server.kargs.ops
        assert VnOp.GETEXTATTR not in server.kargs.ops
        assert server.kargs.typename == "p2k|tmpfs"


async def test_renames_against_removals_never_deadlock() -> None:
    """Renames lock up to four vnodes; removals lock a directory and its child."""
    async with _served() as (server, fs):
        root = server.kargs.root.cookie
        dirs = []
        for name in (b"x", b"y"):
            cn = lookup_cn(name, ROOT_CRED, NameiOp.CREATE)
            dirs.append((await server.mkdir(root, cn, Vattr(Vtype.VDIR, 0o755))).cookie)

        async def shuffle(source: Cookie, target: Cookie, name: bytes) -> None:
            cn = lookup_cn(name, ROOT_CRED, NameiOp.CREATE)
            for _ in range(50):
                made = await server.create(source, cn, Vattr(Vtype.VREG, 0o644))
                await trio.lowlevel.checkpoint()
                await server.rename(source, made.cookie, cn, target, None, cn)
                await trio.lowlevel.checkpoint()
                await server.remove(target, made.cookie, cn)
                server.reclaim(made.cookie, 1)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    source, target = dirs if number % 2 else dirs[::-1]
                    nursery.start_soon(shuffle, source, target, b"f%d" % number)
        assert not any(vp.lock.is_locked for vp in fs.mount)


async def test_unmount_drops_what_the_host_never_gave_back() -> None:
    async with _served() as (server, fs):
        await _create(server, b"a")
        await server.unmount(0)
        await server.unmount(MNT_FORCE)  # again: nothing happens
        assert not fs.mount.is_alive
