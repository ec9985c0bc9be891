"""Reading directories."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import DirEntry, Target


async def entries(fs: Target, path: bytes = b"") -> list[DirEntry]:
    found: list[DirEntry] = []
    async with await fs.opendir(path) as stream:
        while some := await stream.read():
            found += some
    return found


async def test_empty(fs: Target) -> None:
    await fs.mkdir(b"d")
    found = await entries(fs, b"d")
    assert sorted(entry.name for entry in found) == [b".", b".."]


async def test_dots_tell_the_truth(fs: Target) -> None:
    await fs.mkdir(b"a")
    await fs.mkdir(b"a/d")
    async with await fs.opendir(b"a/d") as stream:
        found = {entry.name: entry for entry in await stream.read()}
        assert found[b"."].kind == found[b".."].kind == stat.S_IFDIR
        assert found[b"."].ino == (await fs.stat(b"a/d")).ino


async def test_kinds_and_numbers(fs: Target) -> None:
    await fs.write_file(b"file", b"")
    await fs.mkdir(b"dir")
    await fs.symlink(b"file", b"link")
    files = [await fs.open(name, os.O_RDONLY) for name in (b"file", b"dir")]
    found = {entry.name: entry for entry in await entries(fs)}
    for name, kind in (
        (b"file", stat.S_IFREG),
        (b"dir", stat.S_IFDIR),
        (b"link", stat.S_IFLNK),
    ):
        assert found[name].kind in (kind, 0)
        if kind != stat.S_IFLNK:
            assert found[name].ino == (await fs.lstat(name)).ino
    for file in files:
        await file.close()


async def test_each_name_once(fs: Target) -> None:
    names = [b"%d" % number for number in range(100)]
    for name in names:
        await fs.symlink(b"x", name)
    found = [entry.name for entry in await entries(fs)]
    assert sorted(found) == sorted([*names, b".", b".."])


async def test_thousand(fs: Target) -> None:
    if fs.origin is not None:  # nobody has asked for it yet, and it is quicker there
        (fs.origin / "d").mkdir()
        for number in range(1_000):
            (fs.origin / f"d/{number:04}").symlink_to("x")
    else:
        await fs.mkdir(b"d")
        for number in range(1_000):
            await fs.symlink(b"x", b"d/%04d" % number)
    assert await fs.listdir(b"d") == [b"%04d" % number for number in range(1_000)]
    for number in range(0, 1_000, 2):
        await fs.unlink(b"d/%04d" % number)
    assert await fs.listdir(b"d") == [b"%04d" % number for number in range(1, 1_000, 2)]


@needs("long_names")
async def test_long_names(fs: Target) -> None:
    names = sorted(b"%03d" % number + b"n" * 252 for number in range(40))
    for name in names:
        await fs.mkdir(name)
    assert await fs.listdir() == names


@needs("long_names")
async def test_names_of_all_lengths(fs: Target) -> None:
    names = [b"n" * length for length in range(1, 256, 7)]
    for name in names:
        await fs.symlink(b"x", name)
    assert await fs.listdir() == names


async def test_stable_while_deleting(fs: Target) -> None:
    """Each name that is there all the time comes exactly once (rm -r depends on it)."""
    for number in range(200):
        await fs.symlink(b"x", b"%03d" % number)
    seen: list[bytes] = []
    async with await fs.opendir(b"") as stream:
        while some := await stream.read():
            for entry in some:
                if entry.name in (b".", b".."):
                    continue
                seen.append(entry.name)
                await fs.unlink(entry.name)
    assert sorted(seen) == [b"%03d" % number for number in range(200)]
    assert await fs.listdir() == []


async def test_stable_while_creating(fs: Target) -> None:
    """Names that come meanwhile may be seen or not; the old ones are, once each."""
    old = [b"old%03d" % number for number in range(100)]
    for name in old:
        await fs.symlink(b"x", name)
    seen: list[bytes] = []
    number = 0
    async with await fs.opendir(b"") as stream:
        while some := await stream.read():
            seen += [entry.name for entry in some]
            if number < 20:
                await fs.symlink(b"x", b"new%03d" % number)
                number += 1
    assert len(seen) == len(set(seen))
    assert [name for name in sorted(seen) if name.startswith(b"old")] == old


async def test_change_is_seen_at_once(fs: Target) -> None:
    await fs.mkdir(b"d")
    assert await fs.listdir(b"d") == []
    await fs.write_file(b"d/f", b"")
    assert await fs.listdir(b"d") == [b"f"]
    await fs.rename(b"d/f", b"d/g")
    assert await fs.listdir(b"d") == [b"g"]
    await fs.link(b"d/g", b"d/h")
    assert await fs.listdir(b"d") == [b"g", b"h"]
    await fs.unlink(b"d/g")
    await fs.unlink(b"d/h")
    assert await fs.listdir(b"d") == []


async def test_streams_are_independent(fs: Target) -> None:
    for number in range(60):
        await fs.symlink(b"x", b"%02d" % number)
    async with await fs.opendir(b"") as one, await fs.opendir(b"") as two:
        first = await one.read()
        assert [entry.name for entry in await two.read()] == [entry.name for entry in first]


async def test_twice_the_same_order(fs: Target) -> None:
    for number in range(60):
        await fs.symlink(b"x", b"%02d" % number)
    assert await entries(fs) == await entries(fs)


async def test_not_a_directory(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    with raises(errno.ENOTDIR):
        await fs.opendir(b"f")
    with raises(errno.ENOENT):
        await fs.opendir(b"nothing")


async def test_removed_while_open(fs: Target) -> None:
    await fs.mkdir(b"d")
    async with await fs.opendir(b"d") as stream:
        await fs.rmdir(b"d")
        left = []
        with contextlib.suppress(FileNotFoundError):
            left = [entry.name for entry in await stream.read()]
        assert set(left) <= {b".", b".."}
    assert await fs.listdir() == []


async def test_read_of_a_directory(fs: Target) -> None:
    """read(2) has no business with a directory."""
    await fs.mkdir(b"d")
    async with await fs.open(b"d", os.O_RDONLY | os.O_DIRECTORY) as file:
        with raises(errno.EISDIR):
            await file.pread(100, 0)
