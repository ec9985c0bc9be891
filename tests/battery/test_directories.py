"""mkdir, rmdir and unlink, and what they refuse."""

from __future__ import annotations

import errno
import stat

import pytest

from ..support.expect import raises
from ..support.target import Target


async def test_mkdir(fs: Target) -> None:
    await fs.mkdir(b"d", 0o750)
    got = await fs.stat(b"d")
    assert (got.kind, got.perm) == (stat.S_IFDIR, 0o750)
    assert await fs.listdir() == [b"d"]
    assert await fs.listdir(b"d") == []


async def test_mkdir_trailing_slash(fs: Target) -> None:
    await fs.mkdir(b"d/")
    assert await fs.listdir() == [b"d"]


@pytest.mark.parametrize("kind", ["file", "dir", "link", "dangling"])
async def test_mkdir_over_something(fs: Target, kind: str) -> None:
    await fs.mkdir(b"elsewhere")
    if kind == "file":
        await fs.write_file(b"n", b"")
    elif kind == "dir":
        await fs.mkdir(b"n")
    else:
        await fs.symlink(b"elsewhere" if kind == "link" else b"nothing", b"n")
    with raises(errno.EEXIST):
        await fs.mkdir(b"n")
    assert await fs.listdir() == [b"elsewhere", b"n"]


async def test_mkdir_of_dots(fs: Target) -> None:
    await fs.mkdir(b"d")
    for name in (b"", b".", b"..", b"d/.", b"d/.."):
        with raises(errno.EEXIST):
            await fs.mkdir(name)


async def test_rmdir(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.rmdir(b"d")
    assert await fs.listdir() == []
    with raises(errno.ENOENT):
        await fs.stat(b"d")
    with raises(errno.ENOENT):
        await fs.rmdir(b"d")


@pytest.mark.parametrize("kind", ["file", "dir", "link"])
async def test_rmdir_not_empty(fs: Target, kind: str) -> None:
    await fs.mkdir(b"d")
    if kind == "file":
        await fs.write_file(b"d/n", b"")
    elif kind == "dir":
        await fs.mkdir(b"d/n")
    else:
        await fs.symlink(b"x", b"d/n")
    with raises(errno.ENOTEMPTY):
        await fs.rmdir(b"d")
    assert await fs.listdir(b"d") == [b"n"]
    await (fs.rmdir if kind == "dir" else fs.unlink)(b"d/n")
    await fs.rmdir(b"d")


async def test_rmdir_of_a_file(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.symlink(b"f", b"s")
    for name in (b"f", b"s"):
        with raises(errno.ENOTDIR):
            await fs.rmdir(name)
    assert await fs.listdir() == [b"f", b"s"]


async def test_rmdir_of_dots(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.mkdir(b"d/e")
    with raises(errno.EINVAL):
        await fs.rmdir(b"d/.")
    with raises(errno.ENOTEMPTY):
        await fs.rmdir(b"d/e/..")
    assert await fs.listdir(b"d") == [b"e"]


async def test_unlink_of_a_directory(fs: Target) -> None:
    await fs.mkdir(b"d")
    with raises(errno.EISDIR, errno.EPERM):
        await fs.unlink(b"d")
    assert await fs.listdir() == [b"d"]


async def test_unlink(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.unlink(b"f")
    with raises(errno.ENOENT):
        await fs.unlink(b"f")
    with raises(errno.ENOENT):
        await fs.unlink(b"nothing/f")


async def test_unlink_trailing_slash(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    with raises(errno.ENOTDIR):
        await fs.unlink(b"f/")
    assert await fs.listdir() == [b"f"]


async def test_remade_directory_is_new(fs: Target) -> None:
    """NetBSD's dir_simple, several times: nothing of the old directory shows in the new one."""
    for number in range(5):
        await fs.mkdir(b"d")
        assert await fs.listdir(b"d") == []
        await fs.write_file(b"d/%d" % number, b"")
        await fs.unlink(b"d/%d" % number)
        await fs.rmdir(b"d")


async def test_tree_down_and_up(fs: Target) -> None:
    level = paths = [b"d"]
    for _ in range(3):
        level = [path + b"/" + name for path in level for name in (b"a", b"b")]
        paths = paths + level
    for path in paths:
        await fs.mkdir(path)
        await fs.write_file(path + b"/f", path)
    for path in paths:
        assert await fs.read_file(path + b"/f") == path
    for path in reversed(paths):
        await fs.unlink(path + b"/f")
        await fs.rmdir(path)
    assert await fs.listdir() == []
