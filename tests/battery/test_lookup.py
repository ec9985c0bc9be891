"""Walking paths."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import Target


async def test_missing_name(fs: Target) -> None:
    with raises(errno.ENOENT):
        await fs.stat(b"nothing")


async def test_missing_directory_on_the_way(fs: Target) -> None:
    with raises(errno.ENOENT):
        await fs.stat(b"nothing/below")
    with raises(errno.ENOENT):
        await fs.mkdir(b"nothing/below")
    with raises(errno.ENOENT):
        await fs.open(b"nothing/below", os.O_CREAT | os.O_WRONLY)


async def test_file_on_the_way(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    with raises(errno.ENOTDIR):
        await fs.stat(b"f/below")
    with raises(errno.ENOTDIR):
        await fs.stat(b"f/")
    with raises(errno.ENOTDIR):
        await fs.mkdir(b"f/below")
    with raises(errno.ENOTDIR):
        await fs.unlink(b"f/below")
    with raises(errno.ENOTDIR):
        await fs.opendir(b"f")


async def test_root(fs: Target) -> None:
    root = await fs.stat(b"")
    assert root.kind == stat.S_IFDIR
    assert (await fs.stat(b".")).ino == root.ino
    assert (await fs.stat(b"./.")).ino == root.ino


async def test_dots_on_the_way(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/b")
    await fs.write_file(b"a/f", b"dots")
    assert await fs.read_file(b"a/b/../f") == b"dots"
    assert await fs.read_file(b"./a/./b/.././f") == b"dots"
    async with await fs.opendir(b"a"):  # its number is its own as long as it is in use
        assert (await fs.stat(b"a/b/..")).ino == (await fs.stat(b"a")).ino


async def test_dotdot_back_to_the_top(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/b")
    await fs.write_file(b"f", b"top")
    assert await fs.read_file(b"a/b/../../f") == b"top"


async def test_dotdot_after_rename(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"b")
    await fs.mkdir(b"a/sub")
    await fs.write_file(b"b/f", b"in b")
    await fs.rename(b"a/sub", b"b/sub")
    assert await fs.read_file(b"b/sub/../f") == b"in b"


async def test_double_slashes(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.write_file(b"a//f", b"x")
    assert await fs.read_file(b"a///f") == b"x"
    assert (await fs.stat(b"a//")).kind == stat.S_IFDIR


async def test_deep_tree(fs: Target) -> None:
    path = b""
    for level in range(30):
        path += b"d%d" % level if not path else b"/d%d" % level
        await fs.mkdir(path)
    await fs.write_file(path + b"/f", b"deep")
    assert await fs.read_file(path + b"/f") == b"deep"
    back = path + b"/.." * 30
    assert (await fs.stat(back)).ino == (await fs.stat(b"")).ino


async def test_same_node_every_time(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    async with await fs.open(b"f", os.O_RDONLY) as file:
        first = await file.fstat()
        assert (await fs.stat(b"f")).ino == first.ino
        assert (await fs.lstat(b"f")).ino == first.ino


@needs("inode")
async def test_number_is_kept(fs: Target) -> None:
    """Also while nobody uses the node."""
    await fs.write_file(b"f", b"x")
    await fs.mkdir(b"d")
    numbers = [(await fs.stat(name)).ino for name in (b"f", b"d")]
    await fs.listdir()
    await fs.write_file(b"other", b"")
    assert [(await fs.stat(name)).ino for name in (b"f", b"d")] == numbers


async def test_names_are_case_sensitive(fs: Target) -> None:
    await fs.write_file(b"name", b"lower")
    await fs.write_file(b"NAME", b"upper")
    assert await fs.read_file(b"name") == b"lower"
    assert await fs.read_file(b"NAME") == b"upper"


async def test_missing_name_appears(fs: Target) -> None:
    """That a name is missing may be remembered, but not beyond its creation."""
    for _ in range(2):
        assert not await fs.exists(b"late")
    await fs.write_file(b"late", b"now")
    assert await fs.read_file(b"late") == b"now"
    await fs.unlink(b"late")
    assert not await fs.exists(b"late")
    await fs.mkdir(b"late")
    assert (await fs.stat(b"late")).kind == stat.S_IFDIR


@pytest.mark.parametrize("kind", ["mkdir", "symlink", "link", "rename"])
async def test_missing_name_appears_otherwise(fs: Target, kind: str) -> None:
    await fs.write_file(b"f", b"x")
    assert not await fs.exists(b"late")
    if kind == "mkdir":
        await fs.mkdir(b"late")
    elif kind == "symlink":
        await fs.symlink(b"f", b"late")
    elif kind == "link":
        await fs.link(b"f", b"late")
    else:
        await fs.rename(b"f", b"late")
    assert await fs.exists(b"late")


async def test_access(fs: Target) -> None:
    await fs.write_file(b"f", b"x")
    assert await fs.access(b"f", os.F_OK)
    assert await fs.access(b"f", os.R_OK | os.W_OK)
