"""Requests by path while names change: which file is meant must never be in doubt."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.psshfs import Psshfs
from syspuffs.native import sftp
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FWRITE
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Vattr, lookup_cn

from .harness import (
    CRED,
    attrs,
    list_all,
    look,
    make,
    mkdir,
    mounted,
    names_of,
    packet,
    root_of,
    scripted,
    status,
    string,
)
from .test_names import errno_of


async def _rename(server: Psshfs, old: bytes, new: bytes) -> None:
    root = root_of(server)
    source, target = await look(server, old), await look(server, new)
    await server.rename(
        root,
        source.cookie,
        lookup_cn(old, CRED),
        root,
        target.cookie or None,
        lookup_cn(new, CRED),
    )


async def test_an_open_never_takes_the_file_that_replaces_its_own(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        await make(server, b"f", b"0" * 1000)
        done = False
        opened = 0
        errors: set[int] = set()

        async def replace() -> None:
            nonlocal done
            for turn in range(1, 60):
                await make(server, b"tmp", b"%d" % (turn % 10) * (1000 + turn))
                await _rename(server, b"tmp", b"f")
            done = True

        async def read() -> None:
            nonlocal opened
            while not done:
                info = await look(server, b"f")
                size = (await server.getattr(info.cookie, CRED))[0].size or 0
                try:
                    await server.open(info.cookie, FREAD, CRED)
                except VfsError as exc:
                    errors.add(exc.errno)
                    continue
                data = bytes(await server.read(info.cookie, 0, 4096, 0, CRED))
                assert len(data) == size
                assert len(set(data)) == 1
                server.close(info.cookie, FREAD, CRED)
                opened += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace)
            for _ in range(3):
                nursery.start_soon(read)
        assert opened > 20
        assert errors <= {errno.ESTALE}


async def test_paths_wait_for_the_renames_of_directories_above(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        d = await mkdir(server, b"d0")
        f = await make(server, b"f", b"content", directory=d.cookie)
        done = False

        async def move() -> None:
            nonlocal done
            for turn in range(60):
                await _rename(server, b"d%d" % turn, b"d%d" % (turn + 1))
            done = True

        async def use() -> None:
            while not done:
                await server.open(f.cookie, FREAD, CRED)
                await server.setattr(f.cookie, Vattr(mode=0o600), CRED)
                assert bytes(await server.read(f.cookie, 0, 100, 0, CRED)) == b"content"
                server.close(f.cookie, FREAD, CRED)
                info = await server.lookup(d.cookie, lookup_cn(b"f", CRED))
                assert info.cookie == f.cookie

        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            for _ in range(3):
                nursery.start_soon(use)
        assert os.listdir(tmp_path) == ["d60"]


async def test_listings_while_names_move(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        info = await make(server, b"n0", b"x")
        for turn in range(120):
            await make(server, b"other%d" % turn)
        done = False

        async def move() -> None:
            nonlocal done
            for turn in range(80):
                await _rename(server, b"n%d" % turn, b"n%d" % (turn + 1))
                assert (await look(server, b"n%d" % (turn + 1))).cookie == info.cookie
            done = True

        async def list_() -> None:
            while not done:
                server.table.root.expiry = 0
                assert server.table.root.listing is not None
                server.table.root.listing.expiry = 0
                found = names_of(await list_all(server, root, resid=1 << 20))
                assert len(found) == len(set(found)) == 121

        await list_all(server, root)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            nursery.start_soon(list_)
        assert len(names_of(await list_all(server, root))) == 121


async def test_a_cancelled_rename_leaves_nothing_believed() -> None:
    held: list[int] = []
    moved = False

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        nonlocal moved
        if kind == sftp.FXP_RENAME:
            moved = True
            held.append(number)
            return None
        if kind == sftp.FXP_LSTAT:
            exists = body == string(b"/b") if moved else body == string(b"/a")
            if exists:
                return packet(sftp.FXP_ATTRS, number, attrs())
            return status(number, sftp.FX_NO_SUCH_FILE)
        return status(number, sftp.FX_OK)

    async with scripted(handler) as (server, peer):
        root = root_of(server)
        a = await look(server, b"a")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    server.rename,
                    root,
                    a.cookie,
                    lookup_cn(b"a", CRED),
                    root,
                    None,
                    lookup_cn(b"b", CRED),
                )
                await wait_all_tasks_blocked(0.01)
                # Who asks for one of the names waits until it is known what it means.
                nursery.start_soon(look, server, b"b")
                await wait_all_tasks_blocked(0.01)
                assert peer.seen[-1] == sftp.FXP_RENAME
                scope.cancel()
        assert (await look(server, b"a")).cookie == 0
        assert (await look(server, b"b")).cookie != 0
        assert await errno_of(server.getattr(a.cookie, CRED)) == errno.ESTALE
        await peer.stream.send_all(status(held[0], sftp.FX_OK))
        await wait_all_tasks_blocked(0.01)
        assert not server.connection.is_broken


async def test_a_write_that_waits_for_another_is_not_taken_for_known() -> None:
    """What is asked behind the first of two overlapping writes says nothing of the second."""
    numbers: list[int] = []

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_OPEN:
            return packet(sftp.FXP_HANDLE, number, string(b"h"))
        if kind == sftp.FXP_WRITE:
            numbers.append(number)
            return status(number, sftp.FX_OK) if len(numbers) > 1 else None
        if kind == sftp.FXP_FSTAT and len(numbers) == 1:
            # Both answers at once: the second write has had no turn between them.
            return status(numbers[0], sftp.FX_OK) + packet(sftp.FXP_ATTRS, number, attrs(10))
        if kind in (sftp.FXP_LSTAT, sftp.FXP_FSTAT):
            return packet(sftp.FXP_ATTRS, number, attrs(10, mtime=1000 + len(numbers)))
        return status(number, sftp.FX_OK)

    async with scripted(handler) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, b"1" * 10, 0, CRED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.write, info.cookie, 0, b"2" * 10, 0, CRED)
            await wait_all_tasks_blocked()
            nursery.start_soon(server.fsync, info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        assert len(numbers) == 2
        assert (await server.getattr(info.cookie, CRED))[0].mtime == 1002 * 10**9


async def test_a_listing_that_has_seen_a_rename_before_we_heard_of_it(tmp_path: Path) -> None:
    """What stands where the victim stood is another file; who has that open reads on in it."""
    (tmp_path / "victim").write_bytes(b"old contents")
    (tmp_path / "f").write_bytes(b"new")
    async with mounted(tmp_path) as server:
        root = server.table.root
        victim = server.table.node((await look(server, b"victim")).cookie)
        node = server.table.node((await look(server, b"f")).cookie)
        with server.changing((root, b"f"), (root, b"victim")):
            (tmp_path / "f").rename(tmp_path / "victim")
            await server.load(root)
        assert victim.va.size == len(b"old contents")
        assert not victim.is_gone
        assert not node.is_gone
