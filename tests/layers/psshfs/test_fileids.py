"""File ids: the same at the next mount, and never one for two living nodes."""

from __future__ import annotations

from pathlib import Path

from syspuffs.layers.psshfs import Psshfs
from syspuffs.native.constants import Vtype
from syspuffs.native.records import Cookie, Newinfo, lookup_cn

from .harness import CRED, NOCACHE, list_all, look, make, mkdir, mounted, root_of


def fileid(info: Newinfo) -> int:
    assert info.va is not None
    assert info.va.fileid is not None
    return info.va.fileid


async def listed(server: Psshfs, cookie: Cookie) -> dict[bytes, int]:
    return {entry.name: entry.fileid for entry in await list_all(server, cookie)}


async def rename(server: Psshfs, old: bytes, new: bytes) -> Cookie:
    root = root_of(server)
    info = await look(server, old)
    old_cn, new_cn = lookup_cn(old, CRED), lookup_cn(new, CRED)
    await server.rename(root, info.cookie, old_cn, root, None, new_cn)
    server.reclaim(info.cookie, 1)
    return info.cookie


async def test_the_same_at_the_next_mount(tmp_path: Path) -> None:
    """Whatever is looked at first, and by whatever way: a name, a listing, a creation."""
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/f").touch()
    async with mounted(tmp_path) as server:
        d = await look(server, b"d")
        f = await look(server, b"d/f")
        made = await make(server, b"made")
        e = (await listed(server, d.cookie))[b"e"]
        seen = {b"d": fileid(d), b"f": fileid(f), b"e": e, b"made": fileid(made)}
    assert len(set(seen.values())) == 4
    async with mounted(tmp_path, options=NOCACHE) as server:
        names = await listed(server, root_of(server))
        assert (names[b"made"], names[b"d"]) == (seen[b"made"], seen[b"d"])
        assert names[b"."] == 1
        assert fileid(await look(server, b"d/e")) == seen[b"e"]
        below = await listed(server, (await look(server, b"d")).cookie)
        assert (below[b"f"], below[b"."], below[b".."]) == (seen[b"f"], seen[b"d"], 1)


async def test_a_log_that_is_rotated(tmp_path: Path) -> None:
    """Each file keeps its number when it moves on, and those who come after have others."""
    async with mounted(tmp_path) as server:
        root = root_of(server)
        ids = []
        for serial in range(4):
            info = await make(server, b"log")
            ids.append(fileid(info))
            await rename(server, b"log", b"log.%d" % serial)
            va, _ = await server.getattr(info.cookie, CRED)
            assert va.fileid == ids[-1]
        names = await listed(server, root)
        assert [names[b"log.%d" % serial] for serial in range(4)] == ids
        assert len(set(ids)) == 4
    async with mounted(tmp_path) as server:
        assert len(set((await listed(server, root_of(server))).values())) == 5  # the root twice


async def test_a_moved_directory(tmp_path: Path) -> None:
    """What is below the one that moved and below the one that came in its place is not the same."""
    async with mounted(tmp_path) as server:
        old = await mkdir(server, b"d")
        await make(server, b"f", directory=old.cookie)
        await rename(server, b"d", b"e")
        new = await mkdir(server, b"d")
        await make(server, b"f", directory=new.cookie)
        await make(server, b"g", directory=new.cookie)
        await make(server, b"g", directory=old.cookie)
        assert fileid(new) != fileid(old)
        ids = [*(await listed(server, old.cookie)).values()]
        ids += (await listed(server, new.cookie)).values()
        assert len(set(ids)) == 7


async def test_a_removed_file_that_is_held(tmp_path: Path) -> None:
    """What takes the name of a file that is still open is another file."""
    async with mounted(tmp_path) as server:
        root = root_of(server)
        old = await make(server, b"f")
        await server.remove(root, old.cookie, lookup_cn(b"f", CRED))
        new = await make(server, b"f")
        assert fileid(new) != fileid(old)
        assert (await listed(server, root))[b"f"] == fileid(new)
        # When nobody holds it any more the number is free: file systems do so with theirs.
        await server.remove(root, new.cookie, lookup_cn(b"f", CRED))
        server.reclaim(old.cookie, 1)
        server.reclaim(new.cookie, 1)
        assert fileid(await make(server, b"f")) == fileid(old)


async def test_a_moved_file_that_is_forgotten(tmp_path: Path) -> None:
    """Its number may go to what comes under its old name, so the listing must not show it twice."""
    async with mounted(tmp_path) as server:
        root = root_of(server)
        (tmp_path / "other").touch()
        await listed(server, root)
        moved = await make(server, b"a")
        await rename(server, b"a", b"b")
        server.reclaim(moved.cookie, 1)
        made = await make(server, b"a")
        names = await listed(server, root)
        assert fileid(made) == fileid(moved) == names[b"a"]
        assert fileid(await look(server, b"b")) == names[b"b"]
        assert len({names[b"a"], names[b"b"], names[b"other"]}) == 3


async def test_the_first_of_two_names_goes(tmp_path: Path) -> None:
    """A file with a second name keeps its number, and the first name leads to another one later."""
    async with mounted(tmp_path) as server:
        root = root_of(server)
        kept = await make(server, b"a")
        await server.link(root, kept.cookie, lookup_cn(b"b", CRED))
        await server.remove(root, kept.cookie, lookup_cn(b"a", CRED))
        made = await make(server, b"a")
        names = await listed(server, root)
        assert (names[b"a"], names[b"b"]) == (fileid(made), fileid(kept))
        assert fileid(made) != fileid(kept)


async def test_another_type_under_the_name(tmp_path: Path) -> None:
    """What others put there while the old one is held has a number of its own, in listings too."""
    (tmp_path / "x").touch()
    async with mounted(tmp_path, options=NOCACHE) as server:
        root = root_of(server)
        old = await look(server, b"x")
        await listed(server, root)
        (tmp_path / "x").unlink()
        (tmp_path / "x").mkdir()
        names = await listed(server, root)
        new = await look(server, b"x")
        assert (old.vtype, new.vtype) == (Vtype.VREG, Vtype.VDIR)
        assert names[b"x"] == fileid(new) != fileid(old)


async def test_ids_are_small_integers(tmp_path: Path) -> None:
    """Ids of more than 60 bits would take 48 octets each, in place of 32."""
    for serial in range(200):
        (tmp_path / f"{serial}").touch()
    async with mounted(tmp_path) as server:
        ids = (await listed(server, root_of(server))).values()
        assert max(ids).bit_length() <= 60
        assert len(set(ids)) == 201
        assert sorted(value.bit_length() for value in ids)[100] > 55
