"""`writeback=yes`: close() returns early, and nothing is lost or told wrongly for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.wire.handle import Handle
from syspuffs.native import sftp
from syspuffs.native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    MNT_FORCE,
    MNT_WAIT,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Newinfo, Vattr, lookup_cn

from .harness import CRED, counted, list_all, look, make, mkdir, mounted, read_file, root_of
from .test_names import errno_of
from .test_roundtrips import Trips

WRITEBACK = PsshfsOptions(writeback=True, negative_timeout_ns=30 * 10**9)


async def _directory(server: Psshfs) -> Cookie:
    """Make a directory of which is known that only we make names in it."""
    d = (await mkdir(server, b"d")).cookie
    first = await make(server, b"first", directory=d)
    await server.remove(d, first.cookie, lookup_cn(b"first", CRED))
    return d


async def _create(server: Psshfs, name: bytes, directory: Cookie, mode: int = 0o644) -> Newinfo:
    va = Vattr(vtype=Vtype.VREG, mode=mode)
    return await server.create(directory, lookup_cn(name, CRED), va)


async def test_files_are_made_without_waiting(tmp_path: Path) -> None:
    async with counted(tmp_path, options=WRITEBACK) as (server, relay):
        d = await _directory(server)
        before = relay.trips
        waits = server.connection.waits
        for number in range(100):
            assert not (await look(server, b"d/f%d" % number)).cookie
            info = await make(server, b"f%d" % number, b"%d" % number * 100, directory=d)
            assert (await server.getattr(info.cookie, CRED))[0].size == len(b"%d" % number) * 100
        assert server.connection.waits == waits
        await server.unmount(0)
        for number in range(100):
            assert (tmp_path / f"d/f{number}").read_bytes() == b"%d" % number * 100
        assert relay.trips - before <= 10  # 200 without
        assert len(server.writeback) == server.writeback.octets == 0


async def test_the_node_learns_what_the_server_has(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        info = await make(server, b"f", b"data", directory=d, mode=0o604)
        await server.sync(MNT_WAIT, CRED)
        with trio.fail_after(5):
            while not (await server.getattr(info.cookie, CRED))[1]:
                await trio.sleep(0.01)
        va = (await server.getattr(info.cookie, CRED))[0]
        status = (tmp_path / "d/f").stat()
        assert (va.size, va.mode, va.uid) == (4, 0o604, status.st_uid)
        assert va.mtime == int(status.st_mtime) * 10**9
        assert await read_file(server, info.cookie) == b"data"
        assert server.statistics().open_files == 0
        server.reclaim(info.cookie, 1)
        assert info.cookie not in server.table.nodes


async def test_permissions_are_those_asked_for(tmp_path: Path) -> None:
    async with mounted(tmp_path, "-u", "077", options=WRITEBACK) as server:
        d = await _directory(server)
        await make(server, b"f", b"x", directory=d, mode=0o664)
        await server.unmount(0)
        info = await look(server, b"d/f")
        assert (await server.getattr(info.cookie, CRED))[0].mode == 0o664
        assert (tmp_path / "d/f").stat().st_mode & 0o777 == 0o664


async def test_whoever_comes_next_sees_what_was_written(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        read = await make(server, b"read", b"r" * 5000, directory=d)
        assert await read_file(server, read.cookie) == b"r" * 5000
        renamed = await make(server, b"renamed", b"n" * 5000, directory=d)
        await server.rename(
            d, renamed.cookie, lookup_cn(b"renamed", CRED), d, None, lookup_cn(b"new", CRED)
        )
        removed = await make(server, b"removed", b"x", directory=d)
        await server.remove(d, removed.cookie, lookup_cn(b"removed", CRED))
        cut = await make(server, b"cut", b"c" * 5000, directory=d)
        await server.setattr(cut.cookie, Vattr(size=10), CRED)
        dated = await make(server, b"dated", b"d", directory=d)
        await server.setattr(dated.cookie, Vattr(atime=10**9, mtime=10**9), CRED)
        linked = await make(server, b"linked", b"l", directory=d)
        await server.link(d, linked.cookie, lookup_cn(b"link", CRED))
        names = sorted(entry.name for entry in await list_all(server, d))[2:]
        assert names == [b"cut", b"dated", b"link", b"linked", b"new", b"read"]
        await server.unmount(0)
        assert sorted(os.listdir(tmp_path / "d")) == [name.decode() for name in names]
        assert (tmp_path / "d/new").read_bytes() == b"n" * 5000
        assert (tmp_path / "d/cut").read_bytes() == b"c" * 10
        assert (tmp_path / "d/dated").stat().st_mtime == 1


async def test_a_file_that_is_written_in_pieces(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        info = await _create(server, b"f", d)
        await server.open(info.cookie, FREAD | FWRITE, CRED)
        await server.write(info.cookie, 0, b"abc", 0, CRED)
        await server.write(info.cookie, 0, b"def", IO_APPEND, CRED)
        await server.write(info.cookie, 1, b"X", 0, CRED)
        assert bytes(await server.read(info.cookie, 0, 100, 0, CRED)) == b"aXcdef"
        await server.write(info.cookie, 6, b"g" * 3_000_000, 0, CRED)
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "d/f").stat().st_size == 3_000_006
        server.close(info.cookie, FREAD | FWRITE, CRED)
        # One of which all is written before the server has answered at all.
        big = await _create(server, b"big", d)
        await server.open(big.cookie, FWRITE, CRED)
        for at in range(0, 2_000_000, 100_000):
            await server.write(big.cookie, at, b"b" * 100_000, 0, CRED)
        await server.fsync(big.cookie, FSYNC_CLOSE, 0, 0, CRED)
        server.close(big.cookie, FWRITE, CRED)
        await server.unmount(0)
        assert (tmp_path / "d/big").read_bytes() == b"b" * 2_000_000
        assert not server.connection.handles


async def test_times_and_permissions_wait_for_nobody(tmp_path: Path) -> None:
    """What tar and cp -p do."""
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        waits = server.connection.waits
        for number in range(100):
            info = await _create(server, b"f%d" % number, d, 0o600)
            await server.open(info.cookie, FWRITE, CRED)
            if number:
                await server.write(info.cookie, 0, b"x" * number, 0, CRED)
            await server.setattr(info.cookie, Vattr(mtime=number * 10**9, atime=10**9), CRED)
            await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
            server.close(info.cookie, FWRITE, CRED)
            va, _ = await server.setattr(info.cookie, Vattr(mode=0o640), CRED)
            assert (va.mode, va.mtime, va.size) == (0o640, number * 10**9, number)
            assert (await server.getattr(info.cookie, CRED))[0] == va
        assert server.connection.waits == waits
        await server.unmount(0)
        for number in range(100):
            status = (tmp_path / f"d/f{number}").stat()
            assert (status.st_size, status.st_mode & 0o777) == (number, 0o640)
            assert (status.st_mtime, status.st_atime) == (number, 1)
        assert not server.connection.handles


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_root_gives_files_away_without_waiting(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        await make(server, b"before", directory=d)
        await server.sync(MNT_WAIT, CRED)
        waits = server.connection.waits
        for number in range(20):
            info = await make(server, b"%d" % number, b"x", directory=d)
            await server.setattr(info.cookie, Vattr(uid=number, gid=number), CRED)
            await trio.lowlevel.checkpoint()
        info = await make(server, b"f", b"x", directory=d)
        va, _ = await server.setattr(info.cookie, Vattr(uid=12, gid=34), CRED)
        await server.setattr(info.cookie, Vattr(mode=0o604), CRED)
        assert (va.uid, va.gid) == (12, 34)
        assert server.connection.waits == waits
        kept = await make(server, b"kept", b"x", directory=d)
        await server.setattr(kept.cookie, Vattr(uid=12, gid=34), CRED)
        await server.setattr(kept.cookie, Vattr(mode=0o4755), CRED)
        await server.unmount(0)
        assert [(tmp_path / f"d/{number}").stat().st_uid for number in range(20)] == [*range(20)]
        status = (tmp_path / "d/f").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o604)
        status = (tmp_path / "d/kept").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o4755)


async def test_a_write_behind_new_times_makes_it_younger(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        info = await _create(server, b"f", d)
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, b"old", 0, CRED)
        await server.setattr(info.cookie, Vattr(mtime=10**9, atime=10**9), CRED)
        await server.write(info.cookie, 3, b"new", 0, CRED)
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "d/f").read_bytes() == b"oldnew"
        assert (tmp_path / "d/f").stat().st_mtime > 10**9
        server.close(info.cookie, FWRITE, CRED)
        await server.unmount(0)


async def test_a_server_that_sets_by_path_only(tmp_path: Path) -> None:
    async with mounted(tmp_path, "-P", "fsetstat", options=WRITEBACK) as server:
        d = await _directory(server)
        info = await _create(server, b"f", d)
        await server.setattr(info.cookie, Vattr(mode=0o604, mtime=10**9, atime=10**9), CRED)
        await server.open(info.cookie, FWRITE, CRED)
        server.close(info.cookie, FWRITE, CRED)
        await server.unmount(0)
        status = (tmp_path / "d/f").stat()
        assert (status.st_mode & 0o777, status.st_mtime) == (0o604, 1)


@pytest.mark.logs(r"not saved")
async def test_what_could_not_be_set_is_told(tmp_path: Path) -> None:
    flags = ("-P", "fsetstat,setstat")
    async with mounted(tmp_path, *flags, options=WRITEBACK) as server:
        d = await _directory(server)
        info = await _create(server, b"f", d)
        await server.setattr(info.cookie, Vattr(mtime=10**9, atime=10**9), CRED)
        await server.open(info.cookie, FWRITE, CRED)
        server.close(info.cookie, FWRITE, CRED)
        assert await errno_of(server.sync(MNT_WAIT, CRED)) == errno.EACCES
        await server.unmount(MNT_FORCE)


async def test_what_is_to_be_set_by_a_handle_that_is_lost_is_told(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        info = await _create(server, b"f", await _directory(server))
        node = server.table.node(info.cookie)
        file = server.open_file(node)
        assert file.birth is not None
        birth = file.birth
        await server.sync(MNT_WAIT, CRED)
        assert isinstance(file.writer, Handle)
        file.writer.error = errno.ESTALE
        server.connection.losses += 1
        birth.attrs = sftp.Attrs(mode=0o600)
        server.writeback._set_behind(birth, file.writer)
        assert await errno_of(server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)) == errno.ESTALE
        await server.unmount(MNT_FORCE)


async def test_the_queue_is_bounded(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        longest = 0
        for number in range(700):
            await make(server, b"f%d" % number, b"x" * 100, directory=d)
            longest = max(longest, len(server.writeback))
        assert 200 < longest <= 256
        await server.unmount(0)
        assert len(os.listdir(tmp_path / "d")) == 700


async def test_a_name_that_another_host_made_is_an_error(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        (tmp_path / "d/f").write_bytes(b"theirs")
        info = await _create(server, b"f", d)
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, b"ours", 0, CRED)
        # Told to who asks for durability, once.
        fsync = server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert await errno_of(fsync) == errno.EEXIST
        server.close(info.cookie, FWRITE, CRED)
        assert (tmp_path / "d/f").read_bytes() == b"theirs"
        there = await look(server, b"d/f")
        assert await read_file(server, there.cookie) == b"theirs"
        await server.unmount(0)


@pytest.mark.logs(r"not saved", r"a write failed and nobody asked")
@pytest.mark.parametrize("asker", ["open", "sync", "unmount"])
async def test_an_error_after_close_is_told(
    tmp_path: Path, asker: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with mounted(tmp_path, options=WRITEBACK) as server:
        d = await _directory(server)
        (tmp_path / "d/f").write_bytes(b"theirs")
        info = await make(server, b"f", b"ours", directory=d)
        await server.writeback.drain()
        assert "b'f' was not saved" in caplog.text
        if asker == "open":
            assert await errno_of(server.open(info.cookie, FREAD, CRED)) == errno.EEXIST
        elif asker == "sync":
            assert await errno_of(server.sync(MNT_WAIT, CRED)) == errno.EEXIST
        else:
            with pytest.raises(VfsError):
                await server.unmount(0)
        await server.unmount(MNT_FORCE)


async def test_names_that_may_be_there_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"theirs")
    async with counted(tmp_path, options=WRITEBACK) as (server, relay):
        with Trips(relay, 2):  # the second: what FAILURE means
            with pytest.raises(VfsError):
                await _create(server, b"f", root_of(server))
