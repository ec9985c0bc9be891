"""Operations on names against a real sftp-server."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Awaitable
from pathlib import Path

import pytest
import trio

from syspuffs.layers.psshfs import PsshfsOptions
from syspuffs.layers.psshfs.options import Symlinks
from syspuffs.native.constants import FREAD, FWRITE, Setback, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Vattr, lookup_cn

from .harness import (
    CRED,
    NOCACHE,
    list_all,
    look,
    make,
    mkdir,
    mounted,
    names_of,
    read_file,
    root_of,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root's rights")


async def errno_of(operation: Awaitable[object]) -> int:
    with pytest.raises(VfsError) as caught:
        await operation
    return caught.value.errno


async def test_lookup(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o750)
    (tmp_path / "d/f").write_bytes(b"12345")
    (tmp_path / "l").symlink_to("d/f")
    async with mounted(tmp_path) as server:
        root = root_of(server)
        d = await server.lookup(root, lookup_cn(b"d", CRED))
        assert (d.vtype, d.va and d.va.mode) == (Vtype.VDIR, 0o750)
        f = await server.lookup(d.cookie, lookup_cn(b"f", CRED))
        assert (f.vtype, f.size) == (Vtype.VREG, 5)
        again = await server.lookup(d.cookie, lookup_cn(b"f", CRED))
        assert again.cookie == f.cookie
        assert again.va
        assert f.va
        assert again.va.fileid == f.va.fileid
        link = await server.lookup(root, lookup_cn(b"l", CRED))
        assert link.vtype == Vtype.VLNK
        assert await server.readlink(link.cookie, CRED) == b"d/f"
        assert await errno_of(server.readlink(f.cookie, CRED)) == errno.EINVAL
        assert (await server.lookup(d.cookie, lookup_cn(b"..", CRED))).cookie == root
        assert (await server.lookup(root, lookup_cn(b"..", CRED))).cookie == root
        missing = await server.lookup(root, lookup_cn(b"nothing", CRED))
        assert missing.cookie == 0
        assert 0 < missing.cn_ttl <= 10**9
        assert await errno_of(server.lookup(f.cookie, lookup_cn(b"x", CRED))) == errno.ENOTDIR
        assert (
            await errno_of(server.lookup(root, lookup_cn(b"x" * 256, CRED))) == errno.ENAMETOOLONG
        )
        assert await errno_of(server.getattr(Cookie(9999), CRED)) == errno.ESTALE
        va, ttl = await server.getattr(f.cookie, CRED)
        info = (tmp_path / "d/f").stat()
        assert (va.size, va.mtime, va.uid) == (5, int(info.st_mtime) * 10**9, info.st_uid)
        assert 0 < ttl <= 30 * 10**9


async def test_create_and_remove(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f", b"hello", mode=0o600)
        assert (tmp_path / "f").read_bytes() == b"hello"
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
        assert await read_file(server, info.cookie) == b"hello"
        cn = lookup_cn(b"f", CRED)
        assert (
            await errno_of(server.create(root_of(server), cn, Vattr(vtype=1, mode=0o600)))
            == errno.EEXIST
        )
        setback = await server.remove(root_of(server), info.cookie, cn)
        assert setback == Setback.NOREF_N2
        assert not (tmp_path / "f").exists()
        assert await errno_of(server.getattr(info.cookie, CRED)) == errno.ESTALE
        assert (await server.lookup(root_of(server), cn)).cookie == 0
        server.reclaim(info.cookie, 1)
        assert server.statistics().nodes == 1


@pytest.mark.parametrize("mode", [0o666, 0o777, 0o620, 0o4755])
async def test_the_servers_umask_takes_nothing(tmp_path: Path, mode: int) -> None:
    async with mounted(tmp_path, "-u", "077") as server:
        await make(server, b"f", mode=mode)
        await server.mkdir(
            root_of(server), lookup_cn(b"d", CRED), Vattr(vtype=Vtype.VDIR, mode=mode)
        )
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) & 0o777 == mode & 0o777


async def test_mknod(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        info = await server.mknod(root, lookup_cn(b"f", CRED), Vattr(vtype=1, mode=0o640))
        assert info.vtype == Vtype.VREG
        assert server.statistics().open_files == 0
        for vtype in (Vtype.VFIFO, Vtype.VSOCK, Vtype.VBLK, Vtype.VCHR):
            made = server.mknod(root, lookup_cn(b"x", CRED), Vattr(vtype=vtype, mode=0o640))
            assert await errno_of(made) == errno.EOPNOTSUPP


async def test_mkdir_rmdir(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        d = await mkdir(server, b"d")
        assert (tmp_path / "d").is_dir()
        sub = await mkdir(server, b"sub", d.cookie)
        f = await make(server, b"f")
        assert await errno_of(mkdir(server, b"d")) == errno.EEXIST
        assert await errno_of(mkdir(server, b"f")) == errno.EEXIST
        assert await errno_of(mkdir(server, b"x", f.cookie)) == errno.ENOTDIR
        rmdir = server.rmdir
        assert await errno_of(rmdir(root, d.cookie, lookup_cn(b"d", CRED))) == errno.ENOTEMPTY
        assert await errno_of(rmdir(root, f.cookie, lookup_cn(b"f", CRED))) == errno.ENOTDIR
        remove = server.remove(root, d.cookie, lookup_cn(b"d", CRED))
        assert await errno_of(remove) == errno.EISDIR
        await rmdir(d.cookie, sub.cookie, lookup_cn(b"sub", CRED))
        assert await rmdir(root, d.cookie, lookup_cn(b"d", CRED)) == Setback.NOREF_N2
        assert await errno_of(mkdir(server, b"x", d.cookie)) == errno.ENOENT
        assert await errno_of(server.lookup(d.cookie, lookup_cn(b"x", CRED))) == errno.ENOENT
        assert os.listdir(tmp_path) == ["f"]


async def test_remove_refines_what_others_have_put_there(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        f = await make(server, b"f")
        (tmp_path / "f").unlink()
        (tmp_path / "f").mkdir()
        remove = server.remove(root_of(server), f.cookie, lookup_cn(b"f", CRED))
        assert await errno_of(remove) == errno.EISDIR
        (tmp_path / "f").rmdir()
        d = await mkdir(server, b"d")
        (tmp_path / "d").rmdir()
        (tmp_path / "d").touch()
        rmdir = server.rmdir(root_of(server), d.cookie, lookup_cn(b"d", CRED))
        assert await errno_of(rmdir) == errno.ENOTDIR
        (tmp_path / "d").unlink()
        rmdir = server.rmdir(root_of(server), d.cookie, lookup_cn(b"d", CRED))
        assert await errno_of(rmdir) == errno.ENOENT


async def test_symlink(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=PsshfsOptions(symlinks=Symlinks.RAW)) as server:
        va = Vattr(vtype=Vtype.VLNK, mode=0o777)
        root = root_of(server)
        for target in (b"plain", b"/abs/olute", b"../..", b"with \xff octets", b"t" * 4095):
            info = await server.symlink(root, lookup_cn(b"l", CRED), va, target)
            assert os.readlink(os.fsencode(tmp_path) + b"/l") == target
            assert info.vtype == Vtype.VLNK
            assert info.size == len(target)
            assert await server.readlink(info.cookie, CRED) == target
            await server.remove(root, info.cookie, lookup_cn(b"l", CRED))
        await make(server, b"f")
        again = server.symlink(root, lookup_cn(b"f", CRED), va, b"x")
        assert await errno_of(again) == errno.EEXIST
        long = server.symlink(root, lookup_cn(b"g", CRED), va, b"t" * 4096)
        assert await errno_of(long) == errno.ENAMETOOLONG
        assert not (tmp_path / "g").is_symlink()


async def test_hard_links_are_one_node(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        f = await make(server, b"f", b"data")
        d = await mkdir(server, b"d")
        va, _ = await server.link(d.cookie, f.cookie, lookup_cn(b"g", CRED))
        assert va.nlink == 2
        assert (tmp_path / "d/g").stat().st_ino == (tmp_path / "f").stat().st_ino
        g = await look(server, b"d/g")
        assert g.cookie == f.cookie
        entries = await list_all(server, d.cookie)
        assert entries[-1].fileid == va.fileid
        assert await errno_of(server.link(root, f.cookie, lookup_cn(b"d", CRED))) == errno.EEXIST
        assert await errno_of(server.link(root, d.cookie, lookup_cn(b"x", CRED))) == errno.EPERM
        # The first name goes: the other one leads to the node still.
        assert await server.remove(root, f.cookie, lookup_cn(b"f", CRED)) == 0
        va, _ = await server.getattr(f.cookie, CRED)
        assert va.nlink == 1
        assert await read_file(server, f.cookie) == b"data"
        assert await server.remove(d.cookie, f.cookie, lookup_cn(b"g", CRED))
        assert await errno_of(server.getattr(f.cookie, CRED)) == errno.ESTALE


async def test_rename(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        a = await make(server, b"a", b"A")
        d = await mkdir(server, b"d")
        e = await mkdir(server, b"e")
        x = await make(server, b"x", b"X", directory=d.cookie)

        def cn(name: bytes):  # type: ignore[no-untyped-def]
            return lookup_cn(name, CRED)

        await server.rename(root, a.cookie, cn(b"a"), root, None, cn(b"b"))
        assert (await look(server, b"b")).cookie == a.cookie
        assert (await look(server, b"a")).cookie == 0
        await server.rename(root, a.cookie, cn(b"b"), d.cookie, x.cookie, cn(b"x"))
        assert (tmp_path / "d/x").read_bytes() == b"A"
        assert (await look(server, b"d/x")).cookie == a.cookie
        assert await errno_of(server.getattr(x.cookie, CRED)) == errno.ESTALE
        # A directory moves, and all paths below with it.
        await server.rename(root, d.cookie, cn(b"d"), e.cookie, None, cn(b"dd"))
        assert await read_file(server, a.cookie) == b"A"
        assert (await look(server, b"e/dd/x")).cookie == a.cookie
        assert (await server.lookup(d.cookie, cn(b".."))).cookie == e.cookie
        into = server.rename(root, e.cookie, cn(b"e"), d.cookie, None, cn(b"no"))
        assert await errno_of(into) == errno.EINVAL
        f = await make(server, b"f")
        over = server.rename(root, f.cookie, cn(b"f"), root, e.cookie, cn(b"e"))
        assert await errno_of(over) == errno.EISDIR
        over = server.rename(root, e.cookie, cn(b"e"), root, f.cookie, cn(b"f"))
        assert await errno_of(over) == errno.ENOTDIR
        g = await mkdir(server, b"g")
        over = server.rename(root, g.cookie, cn(b"g"), root, e.cookie, cn(b"e"))
        assert await errno_of(over) == errno.ENOTEMPTY
        # Targets that we do not know of give the same answers.
        over = server.rename(root, f.cookie, cn(b"f"), root, None, cn(b"e"))
        assert await errno_of(over) == errno.EISDIR
        (tmp_path / "new").touch()
        over = server.rename(root, e.cookie, cn(b"e"), root, None, cn(b"new"))
        assert await errno_of(over) == errno.ENOTDIR
        await server.rename(e.cookie, d.cookie, cn(b"dd"), root, g.cookie, cn(b"g"))
        assert (await look(server, b"g/x")).cookie == a.cookie
        (tmp_path / "f").unlink()
        gone = server.rename(root, f.cookie, cn(b"f"), root, None, cn(b"h"))
        assert await errno_of(gone) == errno.ENOENT


@ROOT_ONLY
async def test_rename_of_two_names_of_one_file_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.link(tmp_path / "a", tmp_path / "b")
    async with mounted(tmp_path) as server:
        a, b = await look(server, b"a"), await look(server, b"b")
        root = root_of(server)
        await list_all(server, root)
        await server.rename(
            root, a.cookie, lookup_cn(b"a", CRED), root, b.cookie, lookup_cn(b"b", CRED)
        )
        assert sorted(names_of(await list_all(server, root))) == [b"a", b"b"]
        assert (await look(server, b"a")).cookie
        assert (await look(server, b"b")).cookie


async def test_readdir(tmp_path: Path) -> None:
    for n in range(250):
        (tmp_path / f"f{n:03}").write_bytes(b"x" * n)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("f000")
    async with mounted(tmp_path) as server:
        root = root_of(server)
        entries = await list_all(server, root, resid=1000)
        assert [entry.name for entry in entries[:2]] == [b".", b".."]
        assert sorted(names_of(entries)) == sorted(map(os.fsencode, os.listdir(tmp_path)))
        assert len({entry.fileid for entry in entries[2:]}) == 252
        types = {entry.name: entry.vtype for entry in entries}
        assert (types[b"sub"], types[b"link"], types[b"f001"]) == (
            Vtype.VDIR,
            Vtype.VLNK,
            Vtype.VREG,
        )
        for resid in (1, 30, 51, 52):
            assert [e.name for e in await list_all(server, root, resid=resid)] == [
                e.name for e in entries
            ]
        plus = await list_all(server, root, plus=True)
        assert [e.name for e in plus] == [e.name for e in entries]
        for entry in plus[2:]:
            info = entry.newinfo
            assert info is not None
            assert info.va is not None
            assert info.va.fileid == entry.fileid
            if entry.name.startswith(b"f"):
                assert info.size == int(entry.name[1:])
        assert server.statistics().nodes == 253
        for entry in plus[2:]:
            assert entry.newinfo is not None
            server.reclaim(entry.newinfo.cookie, 1)
        assert server.statistics().nodes == 1
        # File ids survive the nodes.
        assert {e.name: e.fileid for e in await list_all(server, root)} == {
            e.name: e.fileid for e in entries
        }


@pytest.mark.parametrize("options", [PsshfsOptions(), NOCACHE])
async def test_readdir_while_names_come_and_go(tmp_path: Path, options: PsshfsOptions) -> None:
    for n in range(300):
        (tmp_path / f"f{n:03}").touch()
    async with mounted(tmp_path, options=options) as server:
        root = root_of(server)
        seen: list[bytes] = []
        offset = 0
        turn = 0
        is_end = False
        while not is_end:
            entries, is_end = await server.readdir(root, offset, 300, 0, CRED)
            seen += names_of(entries)
            offset = entries[-1].offset
            turn += 1
            # Another reader begins anew, which fetches again; we and others change names.
            (tmp_path / f"other{turn}").touch()
            await list_all(server, root)
            await make(server, b"ours%d" % turn)
            victim = seen[-1]
            info = await look(server, victim)
            await server.remove(root, info.cookie, lookup_cn(victim, CRED))
        old = [name for name in seen if name.startswith(b"f")]
        assert sorted(old) == [b"f%03d" % n for n in range(300)]
        assert len(seen) == len(set(seen))


async def test_a_reader_that_renames_all_it_finds_comes_to_an_end(tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / f"f{n}").touch()
    async with mounted(tmp_path) as server:
        root = root_of(server)
        offset = count = 0
        is_end = False
        while not is_end:
            entries, is_end = await server.readdir(root, offset, 60, 0, CRED)
            offset = entries[-1].offset
            for name in names_of(entries):
                info = await look(server, name)
                await server.rename(
                    root,
                    info.cookie,
                    lookup_cn(name, CRED),
                    root,
                    None,
                    lookup_cn(b"n" + name, CRED),
                )
                count += 1
        assert count == 50
        assert all(name.startswith("nf") for name in os.listdir(tmp_path))


async def test_readdir_of_what_is_no_directory(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        f = await make(server, b"f")
        assert await errno_of(server.readdir(f.cookie, 0, 100, 0, CRED)) == errno.ENOTDIR
        (tmp_path / "d").mkdir()
        d = await look(server, b"d")
        (tmp_path / "d").rmdir()
        assert await errno_of(server.readdir(d.cookie, 0, 100, 0, CRED)) == errno.ENOENT


async def test_two_readers_fetch_once(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    async with mounted(tmp_path) as server:
        before = server.statistics().connection.requests
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(list_all, server, root_of(server))
        # OPENDIR, two READDIR, CLOSE
        assert server.statistics().connection.requests - before == 4


async def test_directories_stay_while_children_live(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").write_bytes(b"deep")
    async with mounted(tmp_path) as server:
        a = await look(server, b"a")
        b = await server.lookup(a.cookie, lookup_cn(b"b", CRED))
        f = await server.lookup(b.cookie, lookup_cn(b"f", CRED))
        server.reclaim(a.cookie, 1)
        server.reclaim(b.cookie, 1)
        assert await read_file(server, f.cookie) == b"deep"
        assert server.statistics().nodes == 4
        again = await look(server, b"a")
        assert again.cookie == a.cookie
        server.reclaim(f.cookie, 1)
        assert server.statistics().nodes == 2
        server.reclaim(again.cookie, 1)
        assert server.statistics().nodes == 1


async def test_open_file_outlives_its_name(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        f = await make(server, b"f", b"before")
        await server.open(f.cookie, FREAD | FWRITE, CRED)
        await server.remove(root_of(server), f.cookie, lookup_cn(b"f", CRED))
        await server.write(f.cookie, 6, b" after", 0, CRED)
        assert bytes(await server.read(f.cookie, 0, 100, 0, CRED)) == b"before after"
        va, _ = await server.getattr(f.cookie, CRED)
        assert va.size == 12
        va, _ = await server.setattr(f.cookie, Vattr(size=3, mode=0o600), CRED)
        assert (va.size, va.mode) == (3, 0o600)
        # The name is free for another file, which is another node.
        g = await make(server, b"f", b"new")
        assert g.cookie != f.cookie
        assert bytes(await server.read(f.cookie, 0, 100, 0, CRED)) == b"bef"
        assert await server.inactive(f.cookie) == Setback.NOREF_N1
        server.reclaim(f.cookie, 1)
        assert await read_file(server, g.cookie) == b"new"


async def test_removed_by_others_while_open(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=NOCACHE) as server:
        f = await make(server, b"f", b"content")
        await server.open(f.cookie, FREAD, CRED)
        (tmp_path / "f").unlink()
        va, _ = await server.getattr(f.cookie, CRED)
        assert va.size == 7
        assert bytes(await server.read(f.cookie, 0, 100, 0, CRED)) == b"content"
        assert (await look(server, b"f")).cookie == 0
        g = await make(server, b"f", b"anew")
        assert g.cookie != f.cookie
        assert (tmp_path / "f").read_bytes() == b"anew"


async def test_a_name_that_turns_into_another_type_is_another_node(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    async with mounted(tmp_path, options=NOCACHE) as server:
        first = await look(server, b"x")
        (tmp_path / "x").unlink()
        (tmp_path / "x").mkdir()
        assert await errno_of(server.getattr(first.cookie, CRED)) == errno.ESTALE
        second = await look(server, b"x")
        assert second.vtype == Vtype.VDIR
        assert second.cookie != first.cookie
        (tmp_path / "x").rmdir()
        (tmp_path / "x").symlink_to("y")
        entries = await list_all(server, root_of(server), plus=True)
        info = entries[-1].newinfo
        assert info is not None
        assert info.vtype == Vtype.VLNK
        assert info.cookie != second.cookie


async def test_long_names_and_paths(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        await make(server, b"n" * 255)
        long = server.create(root, lookup_cn(b"n" * 256, CRED), Vattr(vtype=1, mode=0o644))
        assert await errno_of(long) == errno.ENAMETOOLONG
        info = server.kargs.root
        for _ in range(20):
            if len(server.table.path(server.table.node(info.cookie))) + 251 > 4095:
                break
            info = await mkdir(server, b"d" * 250, info.cookie)
        deep = mkdir(server, b"d" * 250, info.cookie)
        assert await errno_of(deep) == errno.ENAMETOOLONG


async def test_read_only(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    async with mounted(tmp_path, options=PsshfsOptions(ro=True)) as server:
        root = root_of(server)
        f = await look(server, b"f")
        cn = lookup_cn(b"x", CRED)
        assert await errno_of(server.open(f.cookie, FWRITE, CRED)) == errno.EROFS
        assert await errno_of(server.remove(root, f.cookie, cn)) == errno.EROFS
        assert await errno_of(server.setattr(f.cookie, Vattr(mode=0), CRED)) == errno.EROFS
        assert await errno_of(mkdir(server, b"d")) == errno.EROFS
        assert await read_file(server, f.cookie) == b"1"


async def test_mount_errors(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for path, number in ((tmp_path / "none", errno.ENOENT), (tmp_path / "f", errno.ENOTDIR)):
        with pytest.raises(VfsError) as caught:
            async with mounted(path):
                raise AssertionError
        assert caught.value.errno == number


async def test_mount_of_a_link_and_of_the_login_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/here").touch()
    (tmp_path / "l").symlink_to("d")
    async with mounted(tmp_path / "l") as server:
        assert names_of(await list_all(server, root_of(server))) == [b"here"]
    async with mounted(Path(""), "-d", str(tmp_path / "d")) as server:
        assert names_of(await list_all(server, root_of(server))) == [b"here"]


async def test_the_whole_server(tmp_path: Path) -> None:
    async with mounted(Path("/")) as server:
        info = await look(server, os.fsencode(tmp_path).lstrip(b"/"))
        assert info.vtype == Vtype.VDIR
        va, _ = await server.getattr(root_of(server), CRED)
        assert va.vtype == Vtype.VDIR


async def test_statvfs_and_pathconf(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        state = await server.statvfs()
        there = os.statvfs(tmp_path)
        assert (state.bsize, state.blocks, state.namemax) == (
            there.f_bsize,
            there.f_blocks,
            there.f_namemax,
        )
        root = root_of(server)
        assert await server.pathconf(root, os.pathconf_names["PC_NAME_MAX"]) == 255
        assert await errno_of(server.pathconf(root, 12345)) == errno.EINVAL
        assert b"fileid 1" in await server.print(root)


async def test_between_file_systems_of_the_server(tmp_path: Path) -> None:
    far = Path("/dev/shm")
    if not far.is_dir() or far.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems")
    with tempfile.TemporaryDirectory(dir=far) as name:
        there, here = os.fsencode(name).lstrip(b"/"), os.fsencode(tmp_path).lstrip(b"/")
        async with mounted(Path("/")) as server:
            source, target = await look(server, there), await look(server, here)
            f = await make(server, b"f", b"1", directory=source.cookie)
            cn = lookup_cn(b"f", CRED)
            move = server.rename(source.cookie, f.cookie, cn, target.cookie, None, cn)
            assert await errno_of(move) == errno.EXDEV
            link = server.link(target.cookie, f.cookie, cn)
            assert await errno_of(link) == errno.EXDEV
            assert await read_file(server, f.cookie) == b"1"


async def test_an_exception_of_the_users_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with mounted(tmp_path):
            raise ZeroDivisionError
