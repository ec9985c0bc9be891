"""rename(2), all combinations."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import Target

FILE, DIRECTORY, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


async def make(fs: Target, name: bytes, kind: str) -> None:
    """Make a node; "full" is a directory with something in it."""
    if kind == "file":
        await fs.write_file(name, b"I was " + name)
    elif kind == "link":
        await fs.symlink(b"where " + name + b" points", name)
    elif kind in ("dir", "full"):
        await fs.mkdir(name)
        if kind == "full":
            await fs.write_file(name + b"/inside", b"in " + name)


async def test_file(fs: Target) -> None:
    await fs.write_file(b"a", b"contents")
    before = await fs.stat(b"a")
    await fs.rename(b"a", b"b")
    after = await fs.stat(b"b")
    assert (after.mode, after.size) == (before.mode, before.size)
    assert await fs.listdir() == [b"b"]
    assert await fs.read_file(b"b") == b"contents"
    with raises(errno.ENOENT):
        await fs.stat(b"a")


async def test_inode_goes_along(fs: Target) -> None:
    await fs.write_file(b"a", b"x")
    async with await fs.open(b"a", os.O_RDONLY) as file:
        before = await file.fstat()
        await fs.rename(b"a", b"b")
        assert (await fs.stat(b"b")).ino == before.ino
        assert (await file.fstat()).ino == before.ino


async def test_to_another_directory(fs: Target) -> None:
    await fs.mkdir(b"from")
    await fs.mkdir(b"to")
    await fs.write_file(b"from/f", b"moved")
    await fs.rename(b"from/f", b"to/g")
    assert await fs.read_file(b"to/g") == b"moved"
    assert await fs.listdir(b"from") == []
    assert await fs.listdir(b"to") == [b"g"]


async def test_directory_with_contents(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/sub")
    await fs.write_file(b"a/sub/f", b"deep")
    await fs.rename(b"a", b"b")
    assert await fs.read_file(b"b/sub/f") == b"deep"
    with raises(errno.ENOENT):
        await fs.stat(b"a/sub/f")
    await fs.mkdir(b"a")
    assert await fs.listdir(b"a") == []


async def test_directory_to_another_directory(fs: Target) -> None:
    await fs.mkdir(b"x")
    await fs.mkdir(b"y")
    await fs.mkdir(b"x/d")
    await fs.write_file(b"x/d/f", b"1")
    await fs.rename(b"x/d", b"y/e")
    assert await fs.read_file(b"y/e/f") == b"1"
    async with await fs.opendir(b"y"):
        assert (await fs.stat(b"y/e/..")).ino == (await fs.stat(b"y")).ino
    assert await fs.listdir(b"x") == []
    await fs.rmdir(b"x")


@pytest.mark.parametrize(
    ("source", "victim", "error"),
    [
        ("file", "file", None),
        ("file", "link", None),
        ("file", "dir", errno.EISDIR),
        ("file", "full", errno.EISDIR),
        ("link", "file", None),
        ("link", "link", None),
        ("link", "dir", errno.EISDIR),
        ("link", "full", errno.EISDIR),
        ("dir", "file", errno.ENOTDIR),
        ("dir", "link", errno.ENOTDIR),
        ("dir", "dir", None),
        ("dir", "full", errno.ENOTEMPTY),
        ("full", "file", errno.ENOTDIR),
        ("full", "link", errno.ENOTDIR),
        ("full", "dir", None),
        ("full", "full", errno.ENOTEMPTY),
    ],
)
async def test_over(fs: Target, source: str, victim: str, error: int | None) -> None:
    await make(fs, b"old", source)
    await make(fs, b"new", victim)
    kinds = [(await fs.lstat(name)).kind for name in (b"old", b"new")]
    if error is None:
        await fs.rename(b"old", b"new")
        assert await fs.listdir() == [b"new"]
        assert (await fs.lstat(b"new")).kind == kinds[0]
    else:
        with raises(error, *([errno.EEXIST] if error == errno.ENOTEMPTY else [])):
            await fs.rename(b"old", b"new")
        assert await fs.listdir() == [b"new", b"old"]
        assert [(await fs.lstat(name)).kind for name in (b"old", b"new")] == kinds
    name = b"new" if error is None else b"old"
    if source == "file":
        assert await fs.read_file(name) == b"I was old"
    elif source == "link":
        assert await fs.readlink(name) == b"where old points"
    else:
        assert await fs.listdir(name) == ([b"inside"] if source == "full" else [])


@pytest.mark.parametrize("kind", ["file", "link", "dir", "full"])
async def test_to_itself(fs: Target, kind: str) -> None:
    await make(fs, b"n", kind)
    before = (await fs.lstat(b"n")).kind
    await fs.rename(b"n", b"n")
    assert await fs.listdir() == [b"n"]
    assert (await fs.lstat(b"n")).kind == before


@needs("inode")
async def test_over_another_name_of_itself(fs: Target) -> None:
    """POSIX: nothing happens, and both names stay."""
    await fs.write_file(b"a", b"x")
    await fs.link(b"a", b"b")
    await fs.rename(b"a", b"b")
    assert await fs.listdir() == [b"a", b"b"]


async def test_missing(fs: Target) -> None:
    with raises(errno.ENOENT):
        await fs.rename(b"a", b"b")
    await fs.write_file(b"b", b"stays")
    with raises(errno.ENOENT):
        await fs.rename(b"a", b"b")
    assert await fs.read_file(b"b") == b"stays"
    with raises(errno.ENOENT):
        await fs.rename(b"b", b"nothing/b")
    with raises(errno.ENOTDIR):
        await fs.rename(b"b", b"b/b")


async def test_into_its_own_subtree(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/b")
    await fs.mkdir(b"a/b/c")
    for place in (b"a/a", b"a/b/a", b"a/b/c/a"):
        with raises(errno.EINVAL):
            await fs.rename(b"a", place)
    assert await fs.listdir(b"a") == [b"b"]
    assert await fs.listdir(b"a/b/c") == []


async def test_into_its_own_subtree_over_something(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/b")
    await fs.write_file(b"a/f", b"")
    with raises(errno.EINVAL):
        await fs.rename(b"a", b"a/b")
    with raises(errno.EINVAL):
        await fs.rename(b"a", b"a/f")
    assert await fs.listdir(b"a") == [b"b", b"f"]


async def test_over_its_own_parent(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/b")
    await fs.write_file(b"a/b/f", b"")
    for source in (b"a/b", b"a/b/f"):
        with raises(errno.ENOTEMPTY, errno.EEXIST):
            await fs.rename(source, b"a")
    assert await fs.listdir(b"a/b") == [b"f"]


async def test_dots(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/b")
    for old, new in ((b"a/.", b"c"), (b"a/b/..", b"c"), (b"a/b", b"a/."), (b"a/b", b"a/b/..")):
        with raises(errno.EBUSY, errno.EINVAL, errno.ENOTEMPTY):
            await fs.rename(old, new)
    assert await fs.listdir() == [b"a"]
    assert await fs.listdir(b"a") == [b"b"]


async def test_trailing_slashes(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.rename(b"d/", b"e/")
    assert await fs.listdir() == [b"e"]
    await fs.write_file(b"f", b"")
    with raises(errno.ENOTDIR):
        await fs.rename(b"f/", b"g")
    with raises(errno.ENOTDIR):
        await fs.rename(b"f", b"g/")
    assert await fs.listdir() == [b"e", b"f"]


async def test_name_too_long(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    with raises(errno.ENAMETOOLONG):
        await fs.rename(b"f", b"x" * 256)
    with raises(errno.ENAMETOOLONG):
        await fs.rename(b"x" * 256, b"g")
    assert await fs.listdir() == [b"f"]


async def test_link_is_not_followed(fs: Target) -> None:
    await fs.write_file(b"target", b"t")
    await fs.symlink(b"target", b"old")
    await fs.rename(b"old", b"new")
    assert await fs.readlink(b"new") == b"target"
    assert await fs.read_file(b"target") == b"t"


async def test_while_open(fs: Target) -> None:
    """A descriptor goes with the file, not with the name."""
    async with await fs.open(b"a", os.O_RDWR | os.O_CREAT) as file:
        await file.pwrite(b"before", 0)
        await fs.rename(b"a", b"b")
        await file.pwrite(b" after", 6)
        assert await file.pread(20, 0) == b"before after"
        await fs.write_file(b"a", b"another")
        await file.ftruncate(3)
        assert await fs.read_file(b"a") == b"another"
    assert await fs.read_file(b"b") == b"bef"


async def test_directory_while_a_file_in_it_is_open(fs: Target) -> None:
    await fs.mkdir(b"a")
    async with await fs.open(b"a/f", os.O_RDWR | os.O_CREAT) as file:
        await file.pwrite(b"1", 0)
        await fs.rename(b"a", b"b")
        await file.pwrite(b"2", 1)
        await file.fsync()
        assert await fs.read_file(b"b/f") == b"12"
        await fs.chmod(b"b/f", 0o600)
        assert (await file.fstat()).perm == 0o600


async def test_over_an_open_file(fs: Target) -> None:
    """The victim lives on while it is open."""
    await fs.write_file(b"victim", b"old contents")
    await fs.write_file(b"f", b"new")
    async with await fs.open(b"victim", os.O_RDWR) as file:
        await fs.rename(b"f", b"victim")
        assert await file.pread(20, 0) == b"old contents"
        await file.pwrite(b"OLD", 0)
        assert await file.pread(20, 0) == b"OLD contents"
        assert await fs.read_file(b"victim") == b"new"
    assert await fs.read_file(b"victim") == b"new"


async def test_save_by_rename(fs: Target) -> None:
    """As editors do it, over and over."""
    for number in range(10):
        async with await fs.open(b".f.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            await file.pwrite(b"version %d" % number, 0)
            await file.fsync()
        await fs.rename(b".f.tmp", b"f")
        assert await fs.read_file(b"f") == b"version %d" % number
        assert await fs.listdir() == [b"f"]


async def test_exchange_by_three_renames(fs: Target) -> None:
    await make(fs, b"a", "full")
    await make(fs, b"b", "file")
    for _ in range(3):
        await fs.rename(b"a", b"t")
        await fs.rename(b"b", b"a")
        await fs.rename(b"t", b"b")
    assert await fs.read_file(b"b/inside" if await _is_dir(fs, b"b") else b"a/inside") == b"in a"
    assert await _is_dir(fs, b"b")


async def _is_dir(fs: Target, path: bytes) -> bool:
    return (await fs.stat(path)).kind == DIRECTORY


async def test_down_and_up_again(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"b")
    await fs.write_file(b"a/f", b"1")
    await fs.rename(b"a", b"b/a")
    await fs.rename(b"b/a/f", b"f")
    await fs.rename(b"b/a", b"a")
    await fs.rename(b"f", b"a/f")
    assert await fs.read_file(b"a/f") == b"1"
    assert await fs.listdir(b"b") == []
