"""Hard links and symbolic links."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ..support.capabilities import needs
from ..support.expect import pattern, raises
from ..support.target import Target

# Hard links.


async def test_hard_link(fs: Target) -> None:
    await fs.write_file(b"a", b"shared")
    await fs.link(b"a", b"b")
    assert await fs.read_file(b"b") == b"shared"
    assert await fs.listdir() == [b"a", b"b"]
    await fs.unlink(b"a")
    assert await fs.read_file(b"b") == b"shared"


async def test_hard_link_in_another_directory(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.write_file(b"a", b"shared")
    await fs.link(b"a", b"d/b")
    await fs.unlink(b"a")
    assert await fs.read_file(b"d/b") == b"shared"


@needs("inode")
async def test_hard_link_is_the_same_node(fs: Target) -> None:
    await fs.write_file(b"a", b"x")
    await fs.link(b"a", b"b")
    assert (await fs.stat(b"a")).ino == (await fs.stat(b"b")).ino
    await fs.write_file(b"b", b"written by the other name")
    assert await fs.read_file(b"a") == b"written by the other name"
    await fs.chmod(b"a", 0o600)
    assert (await fs.stat(b"b")).perm == 0o600


@needs("nlink")
async def test_link_count(fs: Target) -> None:
    await fs.write_file(b"a", b"x")
    assert (await fs.stat(b"a")).nlink == 1
    await fs.link(b"a", b"b")
    await fs.link(b"b", b"c")
    for name in (b"a", b"b", b"c"):
        assert (await fs.stat(name)).nlink == 3
    await fs.unlink(b"a")
    assert (await fs.stat(b"c")).nlink == 2
    await fs.rename(b"b", b"d")
    assert (await fs.stat(b"c")).nlink == 2
    await fs.write_file(b"e", b"")
    await fs.rename(b"e", b"d")
    assert (await fs.stat(b"c")).nlink == 1


async def test_hard_link_refused(fs: Target) -> None:
    await fs.write_file(b"a", b"x")
    await fs.write_file(b"b", b"y")
    await fs.mkdir(b"d")
    with raises(errno.EEXIST):
        await fs.link(b"a", b"b")
    with raises(errno.EEXIST):
        await fs.link(b"a", b"a")
    with raises(errno.EEXIST):
        await fs.link(b"a", b"d")
    with raises(errno.EPERM):
        await fs.link(b"d", b"e")
    with raises(errno.ENOENT):
        await fs.link(b"nothing", b"e")
    with raises(errno.ENOENT):
        await fs.link(b"a", b"nothing/e")
    with raises(errno.ENOTDIR):
        await fs.link(b"a", b"b/e")
    with raises(errno.ENAMETOOLONG):
        await fs.link(b"a", b"x" * 256)
    assert await fs.listdir() == [b"a", b"b", b"d"]
    assert await fs.read_file(b"b") == b"y"


@needs("inode")
async def test_hard_link_to_a_symbolic_link(fs: Target) -> None:
    """The link itself gets the name, not what it points to."""
    await fs.symlink(b"nowhere", b"s")
    await fs.link(b"s", b"t")
    assert await fs.readlink(b"t") == b"nowhere"


# Symbolic links.


@pytest.mark.parametrize(
    "target",
    [b"f", b"a/b/c", b"../up", b"/absolute/path", b".", b"..", b"//", b"with space", b"\xff\xfe"],
)
async def test_readlink(fs: Target, target: bytes) -> None:
    await fs.symlink(target, b"link")
    assert await fs.readlink(b"link") == target
    got = await fs.lstat(b"link")
    assert got.kind == stat.S_IFLNK
    assert got.size == len(target)


async def test_long_target(fs: Target) -> None:
    """The longest that Linux takes is 4095 octets; nothing may be cut off."""
    for length in (255, 256, 1_000, 1_023, 1_024, 4_000):
        target = (b"t" * 99 + b"/") * (length // 100) + b"e" * (length % 100)
        name = b"link%d" % length
        await fs.symlink(target, name)
        assert await fs.readlink(name) == target


async def test_target_too_long(fs: Target) -> None:
    with raises(errno.ENAMETOOLONG):
        await fs.symlink(b"t/" * 2_048, b"link")
    with raises(errno.ENOENT):
        await fs.symlink(b"", b"link")
    assert await fs.listdir() == []


async def test_follow(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.write_file(b"d/f", b"found")
    await fs.symlink(b"d", b"to-dir")
    await fs.symlink(b"d/f", b"to-file")
    await fs.symlink(b"../d/f", b"d/around")
    assert await fs.read_file(b"to-dir/f") == b"found"
    assert await fs.read_file(b"to-file") == b"found"
    assert await fs.read_file(b"to-dir/around") == b"found"
    assert (await fs.stat(b"to-dir")).kind == stat.S_IFDIR
    assert (await fs.lstat(b"to-dir")).kind == stat.S_IFLNK
    assert await fs.listdir(b"to-dir") == [b"around", b"f"]
    assert (await fs.lstat(b"to-dir/")).kind == stat.S_IFDIR


async def test_dangling(fs: Target) -> None:
    await fs.symlink(b"nothing", b"link")
    with raises(errno.ENOENT):
        await fs.stat(b"link")
    with raises(errno.ENOENT):
        await fs.open(b"link", os.O_RDONLY)
    assert (await fs.lstat(b"link")).kind == stat.S_IFLNK
    await fs.write_file(b"nothing", b"now something")
    assert await fs.read_file(b"link") == b"now something"


async def test_loop(fs: Target) -> None:
    await fs.symlink(b"b", b"a")
    await fs.symlink(b"a", b"b")
    await fs.symlink(b"self", b"self")
    for name in (b"a", b"self", b"a/below"):
        with raises(errno.ELOOP):
            await fs.stat(name)
    with raises(errno.ELOOP):
        await fs.open(b"self", os.O_RDONLY)
    assert await fs.readlink(b"self") == b"self"


async def test_chain(fs: Target) -> None:
    """Thirty links one after the other are within Linux's forty."""
    await fs.write_file(b"0", b"end of the chain")
    for number in range(30):
        await fs.symlink(b"%d" % number, b"%d" % (number + 1))
    assert await fs.read_file(b"30") == b"end of the chain"


async def test_through_a_file(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.symlink(b"f/below", b"link")
    with raises(errno.ENOTDIR):
        await fs.stat(b"link")
    await fs.symlink(b"f", b"to-file")
    with raises(errno.ENOTDIR):
        await fs.stat(b"to-file/below")


async def test_symlink_over_something(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    await fs.mkdir(b"d")
    await fs.symlink(b"x", b"s")
    for name in (b"f", b"d", b"s"):
        with raises(errno.EEXIST):
            await fs.symlink(b"y", name)
    assert await fs.readlink(b"s") == b"x"


async def test_readlink_of_something_else(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    for name in (b"f", b""):
        with raises(errno.EINVAL):
            await fs.readlink(name)
    with raises(errno.ENOENT):
        await fs.readlink(b"nothing")


async def test_unlink_takes_the_link(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.write_file(b"d/f", b"stays")
    await fs.symlink(b"d", b"link")
    with raises(errno.ENOTDIR):
        await fs.rmdir(b"link")
    await fs.unlink(b"link")
    assert await fs.listdir() == [b"d"]
    assert await fs.read_file(b"d/f") == b"stays"


async def test_replaced_link(fs: Target) -> None:
    """A target that is remembered must not outlive its link."""
    for number in range(5):
        await fs.symlink(b"target-%d" % number, b"tmp")
        await fs.rename(b"tmp", b"current")
        assert await fs.readlink(b"current") == b"target-%d" % number
    await fs.unlink(b"current")
    await fs.symlink(b"again", b"current")
    assert await fs.readlink(b"current") == b"again"


async def test_write_through_a_link(fs: Target) -> None:
    await fs.mkdir(b"d")
    await fs.write_file(b"d/f", b"")
    await fs.symlink(b"d/f", b"link")
    data = pattern(10_000)
    await fs.write_file(b"link", data)
    assert await fs.read_file(b"d/f") == data
    await fs.truncate(b"link", 3)
    assert (await fs.stat(b"d/f")).size == 3
