"""Servers without OpenSSH's extensions: `sftp-server -P` takes them away."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from syspuffs.native import sftp
from syspuffs.native.constants import FSYNC_WAIT, FWRITE, Vtype
from syspuffs.native.records import Statvfs, Vattr, lookup_cn

from .harness import (
    CRED,
    SECOND,
    attrs,
    list_all,
    look,
    make,
    mkdir,
    mounted,
    names_of,
    packet,
    read_file,
    root_of,
    scripted,
    status,
)
from .test_names import errno_of

NONE = ("-P", "posix-rename,hardlink,statvfs,fsync,lsetstat,limits")
"""Requests denied; OpenSSH does not announce extensions that are."""


async def test_data_goes_in_small_pieces_without_limits(tmp_path: Path) -> None:
    data = os.urandom(1_000_001)
    async with mounted(tmp_path, *NONE) as server:
        assert server.session.max_read == server.session.max_write == 32768
        info = await make(server, b"f", data)
        assert (tmp_path / "f").read_bytes() == data
        for step in (5000, 131072, 1048576):
            assert await read_file(server, info.cookie, step) == data


async def test_rename_replaces_by_the_safest_order(tmp_path: Path) -> None:
    async with mounted(tmp_path, *NONE) as server:
        root = root_of(server)
        a = await make(server, b"a", b"A")
        b = await make(server, b"b", b"B")

        def cn(name: bytes):  # type: ignore[no-untyped-def]
            return lookup_cn(name, CRED)

        await server.rename(root, a.cookie, cn(b"a"), root, b.cookie, cn(b"b"))
        assert os.listdir(tmp_path) == ["b"]
        assert (tmp_path / "b").read_bytes() == b"A"
        await server.rename(root, a.cookie, cn(b"b"), root, None, cn(b"c"))
        assert os.listdir(tmp_path) == ["c"]
        d, e = await mkdir(server, b"d"), await mkdir(server, b"e")
        await make(server, b"x", directory=d.cookie)
        await server.rename(root, d.cookie, cn(b"d"), root, e.cookie, cn(b"e"))
        assert sorted(os.listdir(tmp_path)) == ["c", "e"]
        assert os.listdir(tmp_path / "e") == ["x"]
        f = await mkdir(server, b"f")
        over = server.rename(root, f.cookie, cn(b"f"), root, d.cookie, cn(b"e"))
        assert await errno_of(over) == errno.ENOTEMPTY
        over = server.rename(root, a.cookie, cn(b"c"), root, None, cn(b"e"))
        assert await errno_of(over) == errno.ENOTEMPTY
        (tmp_path / "c").unlink()
        gone = server.rename(root, a.cookie, cn(b"c"), root, None, cn(b"y"))
        assert await errno_of(gone) == errno.ENOENT
        assert sorted(names_of(await list_all(server, root))) == [b"e", b"f"]


async def test_no_hard_links(tmp_path: Path) -> None:
    async with mounted(tmp_path, *NONE) as server:
        a = await make(server, b"a")
        link = server.link(root_of(server), a.cookie, lookup_cn(b"b", CRED))
        assert await errno_of(link) == errno.EPERM


async def test_statvfs_is_zero(tmp_path: Path) -> None:
    async with mounted(tmp_path, *NONE) as server:
        assert await server.statvfs() == Statvfs(namemax=255)


async def test_fsync_waits_for_acknowledgements(tmp_path: Path) -> None:
    async with mounted(tmp_path, *NONE) as server:
        a = await make(server, b"a")
        await server.open(a.cookie, FWRITE, CRED)
        await server.write(a.cookie, 0, bytes(300_000), 0, CRED)
        await server.fsync(a.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "a").stat().st_size == 300_000


async def test_links_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("x")
    async with mounted(tmp_path, *NONE) as server:
        info = await look(server, b"l")
        assert info.vtype == Vtype.VLNK
        change = server.setattr(info.cookie, Vattr(mtime=5 * SECOND, atime=5 * SECOND), CRED)
        assert await errno_of(change) == errno.EOPNOTSUPP


@pytest.mark.parametrize("victim", [b"b", None])
async def test_a_rename_that_fails_after_all_brings_the_target_back(
    tmp_path: Path, victim: bytes | None
) -> None:
    async with mounted(tmp_path, *NONE) as server:
        root = root_of(server)
        a = await make(server, b"a", b"A")
        b = await make(server, b"b", b"B")
        (tmp_path / "a").unlink()
        over = server.rename(
            root,
            a.cookie,
            lookup_cn(b"a", CRED),
            root,
            b.cookie if victim else None,
            lookup_cn(b"b", CRED),
        )
        assert await errno_of(over) == errno.ENOENT
        assert os.listdir(tmp_path) == ["b"]
        assert (tmp_path / "b").read_bytes() == b"B"


@pytest.mark.logs("a replaced file stays as")
@pytest.mark.parametrize("fails", [True, False])
async def test_the_order_of_a_safe_rename(fails: bool) -> None:
    def path_of(body: bytes) -> bytes:
        return body[4 : 4 + int.from_bytes(body[:4], "big")]

    steps: list[str] = []

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        path = path_of(body)
        if kind == sftp.FXP_LSTAT:
            return packet(sftp.FXP_ATTRS, number, attrs(size=len(path)))
        if kind == sftp.FXP_RENAME:
            target = path_of(body[4 + len(path) :])
            aside = b"/.psshfs-"
            steps.append(f"{path[:9].decode()} {target[:9].decode()}")
            if path == b"/a" and (len(steps) == 1 or fails):
                return status(number, sftp.FX_FAILURE)
            assert (path == b"/a") or path.startswith(aside) or target.startswith(aside)
        if kind == sftp.FXP_REMOVE:
            steps.append(f"remove {path[:9].decode()}")
            return status(number, sftp.FX_FAILURE)
        return status(number, sftp.FX_OK)

    async with scripted(handler) as (server, _):
        root = root_of(server)
        a, b = await look(server, b"a"), await look(server, b"b")
        rename = server.rename(
            root, a.cookie, lookup_cn(b"a", CRED), root, b.cookie, lookup_cn(b"b", CRED)
        )
        if fails:
            assert await errno_of(rename) == errno.EIO
            assert steps == ["/a /b", "/b /.psshfs-", "/a /b", "/.psshfs- /b"]
        else:
            await rename
            assert steps == ["/a /b", "/b /.psshfs-", "/a /b", "remove /.psshfs-"]


@pytest.mark.parametrize(
    "wanted",
    [Vattr(mode=0o600), Vattr(uid=500, gid=600), Vattr(atime=7 * SECOND, mtime=7 * SECOND)],
    ids=["chmod", "chown", "utimes"],
)
async def test_a_change_that_the_server_ignores(wanted: Vattr) -> None:
    """OK, and nothing is done (FAT on the server, a server of some appliance): what is told behind
    it, and from then on, is what the server has, not what was asked for."""
    there = attrs(size=5, mtime=5)

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        if kind in (sftp.FXP_LSTAT, sftp.FXP_FSTAT):
            return packet(sftp.FXP_ATTRS, number, there)
        return status(number, sftp.FX_OK)

    async with scripted(handler) as (server, peer):
        f = await look(server, b"f")
        before, _ = await server.getattr(f.cookie, CRED)
        assert (before.mode, before.uid, before.gid, before.mtime) == (0o644, 0, 0, 5 * SECOND)
        peer.seen.clear()
        after, _ = await server.setattr(f.cookie, wanted, CRED)
        assert after == before
        assert (await server.getattr(f.cookie, CRED))[0] == before
        # One more look than for a change that was made: the first one may have been too early.
        assert peer.seen == [sftp.FXP_SETSTAT, sftp.FXP_LSTAT, sftp.FXP_LSTAT]
