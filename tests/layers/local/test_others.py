"""Other programs change the tree meanwhile, and nothing leads out of it."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from syspuffs.native.constants import FREAD, FWRITE, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Newinfo, Vattr, lookup_cn

from .harness import DIRECTORY, FILE, US, raises, served


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The served directory, with something beside it that nobody must see."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    made = tmp_path / "served"
    made.mkdir()
    return made


# Names.


@pytest.mark.parametrize("name", [b"", b".", b"../outside", b"a/b", b"/etc", b"a\0b"])
async def test_names_that_are_none(place: Path, name: bytes) -> None:
    with served(place) as tree:
        server, root = tree.server, tree.root
        f, cn = await tree.create(root, "f"), lookup_cn(name, US)
        right = lookup_cn(b"f", US)
        for operation in (
            lambda: server.lookup(root, cn),
            lambda: server.create(root, cn, FILE),
            lambda: server.mkdir(root, cn, DIRECTORY),
            lambda: server.mknod(root, cn, Vattr(Vtype.VFIFO, 0o600)),
            lambda: server.symlink(root, cn, Vattr(), b"x"),
            lambda: server.link(root, f, cn),
            lambda: server.remove(root, f, cn),
            lambda: server.rmdir(root, f, cn),
            lambda: server.rename(root, f, right, root, None, cn),
            lambda: server.rename(root, f, cn, root, None, right),
        ):
            with raises(errno.EINVAL):
                await operation()
        with raises(errno.ENAMETOOLONG):
            await server.lookup(root, lookup_cn(b"n" * 256, US))
    assert os.listdir(place) == ["f"]


async def test_above_the_root_is_the_root(place: Path) -> None:
    (place / "d").mkdir()
    with served(place) as tree:
        up = lookup_cn(b"..", US)
        assert (await tree.server.lookup(tree.root, up)).cookie == tree.root
        d = await tree.walk("d")
        assert (await tree.server.lookup(d, up)).cookie == tree.root
        entries = await tree.entries(tree.root)
        inodes = {entry.name: entry.fileid for entry in entries}
        assert inodes[b".."] == inodes[b"."] == place.stat().st_ino


async def test_links_are_not_followed(place: Path) -> None:
    (place / "file").symlink_to("../outside/secret")
    (place / "directory").symlink_to("../outside")
    with served(place) as tree:
        for name in ("file", "directory"):
            link = await tree.walk(name)
            assert (await tree.attributes(link)).vtype == Vtype.VLNK
            with raises(errno.ENOTDIR):
                await tree.server.lookup(link, lookup_cn(b"secret", US))
            with raises(errno.EINVAL):
                await tree.read(link)
            with raises(errno.EINVAL):
                await tree.server.setattr(link, Vattr(size=0), US)
            with raises(errno.EOPNOTSUPP):
                await tree.server.setattr(link, Vattr(mode=0o777), US)
            await tree.server.setattr(link, Vattr(atime=1, mtime=2), US)
            assert (place / name).lstat().st_mtime_ns == 2
        await tree.server.link(tree.root, await tree.walk("file"), lookup_cn(b"other", US))
        assert (place / "other").is_symlink()
        if os.geteuid() == 0:
            await tree.server.setattr(link, Vattr(uid=1, gid=2), US)
            assert (place / "directory").lstat().st_uid == 1
    outside = (place.parent / "outside" / "secret").stat()
    assert (outside.st_uid, outside.st_size) == (os.geteuid(), 6)
    assert outside.st_mtime_ns > 2


# What was a directory, or a file, is something else now.


async def test_a_directory_is_replaced_by_a_link(place: Path) -> None:
    (place / "d" / "e").mkdir(parents=True)
    (place / "d" / "f").write_text("mine")
    with served(place) as tree:
        d, e, f = await tree.walk("d"), await tree.walk("d/e"), await tree.walk("d/f")
        os.rename(place / "d", place / "old")
        (place / "d").symlink_to("../outside")
        # For a moment the directory is still believed to be there: it is, where it is now.
        assert await tree.names(d) == [b".", b"..", b"e", b"f"]
        tree.clock.advance(1.1)
        for cookie in (d, e, f):
            with raises(errno.ESTALE):
                await tree.attributes(cookie)
            with raises(errno.ESTALE):
                await tree.attributes(cookie)
        with raises(errno.ESTALE):
            await tree.create(d, "new")
        with raises(errno.ESTALE):
            await tree.server.open(f, FREAD, US)
        assert await tree.walk("old") == d  # found again by its new name
        assert await tree.walk("old/f") == f
        assert await tree.read(f) == b"mine"
    assert os.listdir(place.parent / "outside") == ["secret"]


async def test_a_directory_is_taken_out_of_the_tree(place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    with served(place) as tree:
        b = await tree.walk("a/b")
        await tree.create(b, "f")
        os.rename(place / "a", place.parent / "outside" / "a")
        (place.parent / "outside" / "a" / "b" / "after").touch()
        tree.clock.advance(1.1)
        with raises(errno.ESTALE):
            await tree.names(b)
        with raises(errno.ESTALE):
            await tree.create(b, "new")
        with raises(errno.ESTALE):
            await tree.server.lookup(b, lookup_cn(b"..", US))
        os.rename(place.parent / "outside" / "a", place / "a")
        assert await tree.walk("a/b") == b
        assert await tree.names(b) == [b".", b"..", b"after", b"f"]


async def test_directories_change_places(place: Path) -> None:
    """What is known of the way up must not go round in circles."""
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "f").touch()
    with served(place) as tree:
        a, b = await tree.walk("a"), await tree.walk("a/b")
        f = await tree.walk("a/b/f")
        os.rename(place / "a" / "b", place / "b")
        os.rename(place / "a", place / "b" / "a")
        # First the one below: by a descriptor that is believed for another moment.
        assert (await tree.server.lookup(b, lookup_cn(b"a", US))).cookie == a
        tree.held[a] += 1
        tree.clock.advance(1.1)
        for cookie in (a, b, f):
            with raises(errno.ESTALE):
                await tree.attributes(cookie)
        assert await tree.walk("b/a") == a
        assert await tree.walk("b") == b
        assert (await tree.attributes(f)).size == 0
        assert await tree.names(b) == [b".", b"..", b"a", b"f"]


async def test_a_file_is_replaced(place: Path) -> None:
    (place / "f").write_text("old")
    with served(place) as tree:
        old = await tree.walk("f")
        (place / "new").write_text("new")
        os.rename(place / "new", place / "f")
        for operation in (
            lambda: tree.attributes(old),
            lambda: tree.read(old),
            lambda: tree.server.open(old, FREAD, US),
            lambda: tree.server.setattr(old, Vattr(mode=0), US),
            lambda: tree.server.readlink(old, US),
            lambda: tree.server.access(old, 4, US),
            lambda: tree.server.link(tree.root, old, lookup_cn(b"l", US)),
        ):
            with raises(errno.ESTALE, errno.EINVAL):
                await operation()
        new = await tree.walk("f")
        assert new != old
        assert await tree.read(new) == b"new"


async def test_an_open_file_is_replaced(place: Path) -> None:
    (place / "f").write_text("old")
    with served(place) as tree:
        old = await tree.walk("f")
        await tree.server.open(old, FREAD, US)
        os.unlink(place / "f")
        (place / "f").write_text("newer")
        assert await tree.read(old) == b"old"
        assert (await tree.attributes(old)).nlink == 0
        new = await tree.walk("f")
        assert await tree.read(new) == b"newer"
        with raises(errno.ESTALE):
            await tree.server.remove(tree.root, old, lookup_cn(b"f", US))
        with raises(errno.ESTALE):
            await tree.server.rename(
                tree.root, old, lookup_cn(b"f", US), tree.root, None, lookup_cn(b"g", US)
            )
        with raises(errno.ESTALE):
            await tree.server.rename(
                tree.root, new, lookup_cn(b"f", US), tree.root, old, lookup_cn(b"f", US)
            )
        tree.server.close(old, FREAD, US)
    assert (place / "f").read_text() == "newer"


async def test_a_file_becomes_a_pipe(place: Path) -> None:
    """Nobody waits for somebody to write into it."""
    (place / "f").touch()
    with served(place) as tree:
        f = await tree.walk("f")
        os.unlink(place / "f")
        os.mkfifo(place / "f")
        for mode in (FREAD, FWRITE, FREAD | FWRITE):
            with raises(errno.ESTALE, errno.ENXIO):
                await tree.server.open(f, mode, US)
        pipe = await tree.walk("f")
        assert await tree.server.open(pipe, FREAD | FWRITE, US) == (0, 0)
        with raises(errno.EINVAL):
            await tree.read(pipe)
        with raises(errno.EINVAL):
            await tree.server.write(pipe, 0, b"x", 0, US)
        await tree.server.fsync(pipe, 1, 0, 0, US)
        await tree.server.setattr(pipe, Vattr(mode=0o600), US)
        await tree.server.access(pipe, 6, US)
        tree.server.close(pipe, FREAD | FWRITE, US)


async def test_a_renamed_file_is_found_again(place: Path) -> None:
    (place / "f").write_text("data")
    with served(place) as tree:
        f = await tree.walk("f")
        os.rename(place / "f", place / "g")
        with raises(errno.ESTALE):
            await tree.attributes(f)
        assert await tree.walk("f") == 0
        assert await tree.walk("g") == f
        assert await tree.read(f) == b"data"


async def test_an_inode_that_was_freed_is_another_file(place: Path) -> None:
    with served(place) as tree:
        seen: dict[int, list[Cookie]] = {}
        for number in range(20):
            name = f"{number}"
            cookie = await tree.create(tree.root, name)
            seen.setdefault((place / name).stat().st_ino, []).append(cookie)
            await tree.server.open(cookie, FREAD, US)
            tree.server.close(cookie, FREAD, US)
            os.unlink(place / name)
        assert len({cookie for cookies in seen.values() for cookie in cookies}) == 20
        os.mkdir(place / "d")  # an inode of before, as a rule
        d = await tree.walk("d")
        assert (await tree.attributes(d)).vtype == Vtype.VDIR


async def test_removed_directories(place: Path) -> None:
    (place / "ours" / "below").mkdir(parents=True)
    (place / "theirs").mkdir()
    with served(place) as tree:
        ours, theirs = await tree.walk("ours"), await tree.walk("theirs")
        below = await tree.walk("ours/below")
        await tree.server.rmdir(ours, below, lookup_cn(b"below", US))
        await tree.server.rmdir(tree.root, ours, lookup_cn(b"ours", US))
        os.rmdir(place / "theirs")
        tree.clock.advance(1.1)
        for cookie, number in ((ours, errno.ENOENT), (below, errno.ENOENT), (theirs, errno.ESTALE)):
            with raises(number):
                await tree.create(cookie, "f")
        with raises(errno.ENOENT):
            await tree.entries(ours)
        assert (await tree.attributes(below)).nlink == 0
        with raises(errno.ENOENT):
            await tree.server.lookup(ours, lookup_cn(b"..", US))
        with raises(errno.ENOENT):
            await tree.server.lookup(below, lookup_cn(b"..", US))


@pytest.mark.parametrize("seed", range(8))
async def test_at_random(place: Path, seed: int) -> None:
    """Whatever others do: errors of the file system and no others, and never a look outside."""
    chance = random.Random(seed)
    outside = place.parent / "outside"
    forbidden = {outside.stat().st_ino, (outside / "secret").stat().st_ino}
    names = ("a", "b", "c")

    def path(base: Path = place) -> Path:
        return base.joinpath(*chance.choices(names, k=chance.randint(1, 3)))

    def disturb() -> None:
        kind = chance.randrange(9)
        try:
            if kind < 3:
                path().mkdir()
            elif kind == 3:
                path().touch()
            elif kind == 4:
                path().symlink_to(chance.choice([str(outside), f"{outside}/secret", "..", "a/.."]))
            elif kind < 7:
                os.rename(path(), path())
            elif kind == 7:
                os.rename(path(), outside / chance.choice(names))
            else:
                os.rename(outside / chance.choice(names), path())
        except OSError:
            pass

    def look(info: Newinfo) -> None:
        tree.took(info)
        if info.va is not None:
            assert info.va.fileid not in forbidden

    async def ask() -> None:
        server = tree.server
        known = [tree.root, *tree.held]
        one, other, targ = chance.choice(known), chance.choice(known), chance.choice(known)
        cn, new = (lookup_cn(os.fsencode(chance.choice(names)), US) for _ in range(2))
        match chance.randrange(9):
            case 0 | 1 | 2:
                look(await server.lookup(one, cn))
            case 3:
                look(await server.mkdir(one, cn, DIRECTORY))
            case 4:
                await tree.attributes(one)
                look(await server.lookup(one, lookup_cn(b"..", US)))
            case 5:
                await tree.entries(one)
            case 6:
                await server.rename(one, other, cn, targ, None, new)
            case 7:
                await server.rmdir(one, other, cn)
            case 8:
                await server.open(one, FREAD, US)
                data = await server.read(one, 0, 100, 0, US)
                assert data != b"secret"
                server.close(one, FREAD, US)

    errors, rounds = 0, 600
    with served(place, fds_max=8) as tree:
        for _ in range(rounds):
            disturb()
            tree.clock.advance(1.1)
            try:
                await ask()
            except VfsError:
                errors += 1
            if chance.random() < 0.02:
                tree.forget_all()
        for node in tree.server.table.nodes.values():
            if node.file is not None:
                node.file.dispose()
                node.file = None
    assert errors < rounds * 0.8
    assert (outside / "secret").read_text() == "secret"
