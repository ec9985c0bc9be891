"""What is behind the mount: whatever a call has promised is on the server when it returns."""

from __future__ import annotations

import os
import stat

from ..support.capabilities import needs
from ..support.expect import pattern
from ..support.target import Target

pytestmark = needs("origin")


async def test_written_when_closed(fs: Target) -> None:
    assert fs.origin is not None
    data = pattern(300_000)
    await fs.write_file(b"f", data)
    assert (fs.origin / "f").read_bytes() == data


async def test_written_when_synced(fs: Target) -> None:
    assert fs.origin is not None
    async with await fs.open(b"f", os.O_CREAT | os.O_WRONLY) as file:
        for number in range(5):
            await file.pwrite(pattern(50_000, number), number * 50_000)
            await file.fsync()
            assert (fs.origin / "f").stat().st_size == (number + 1) * 50_000
    want = b"".join(pattern(50_000, number) for number in range(5))
    assert (fs.origin / "f").read_bytes() == want


async def test_names_and_attributes(fs: Target) -> None:
    assert fs.origin is not None
    await fs.mkdir(b"d", 0o700)
    await fs.write_file(b"d/f", b"x", 0o640)
    await fs.symlink(b"../target", b"d/s")
    await fs.rename(b"d/f", b"d/g")
    await fs.utimens(b"d/g", 1_000_000_000 * 10**9, 1_100_000_000 * 10**9)
    await fs.truncate(b"d/g", 10)
    await fs.utimens(b"d/g", 1_000_000_000 * 10**9, 1_100_000_000 * 10**9)
    assert stat.S_IMODE((fs.origin / "d").stat().st_mode) == 0o700
    assert os.readlink(fs.origin / "d/s") == "../target"
    got = (fs.origin / "d/g").stat()
    assert (stat.S_IMODE(got.st_mode), got.st_size) == (0o640, 10)
    assert (got.st_atime, got.st_mtime) == (1_000_000_000, 1_100_000_000)
    await fs.unlink(b"d/g")
    await fs.unlink(b"d/s")
    assert os.listdir(fs.origin / "d") == []
    await fs.rmdir(b"d")
    assert os.listdir(fs.origin) == []


@needs("chown")
async def test_owner(fs: Target) -> None:
    assert fs.origin is not None
    await fs.write_file(b"f", b"x")
    await fs.chown(b"f", 12, 34)
    got = (fs.origin / "f").stat()
    assert (got.st_uid, got.st_gid) == (12, 34)


async def test_hard_link_is_one(fs: Target) -> None:
    assert fs.origin is not None
    await fs.write_file(b"a", b"x")
    await fs.link(b"a", b"b")
    assert (fs.origin / "a").stat().st_ino == (fs.origin / "b").stat().st_ino


async def test_rename_replaces_in_one_step(fs: Target) -> None:
    """The inode that was written is the one that gets the name: no copy, no gap."""
    assert fs.origin is not None
    await fs.write_file(b"old", b"old")
    await fs.write_file(b"new", b"new")
    inode = (fs.origin / "new").stat().st_ino
    await fs.rename(b"new", b"old")
    assert (fs.origin / "old").stat().st_ino == inode


async def test_nothing_hidden_is_left(fs: Target) -> None:
    """No names of our own making stay behind, whatever open files went through."""
    assert fs.origin is not None
    async with await fs.open(b"f", os.O_CREAT | os.O_RDWR) as file:
        await file.pwrite(b"x", 0)
        await fs.unlink(b"f")
        await file.pwrite(b"y", 1)
        assert await file.pread(10, 0) == b"xy"
    await fs.write_file(b"a", b"1")
    await fs.write_file(b"b", b"2")
    async with await fs.open(b"b", os.O_RDONLY) as file:
        await fs.rename(b"a", b"b")
        assert await file.pread(10, 0) == b"2"
    await fs.listdir()
    assert os.listdir(fs.origin) == ["b"]


async def test_made_behind_our_back(fs: Target) -> None:
    """A name that nobody has asked for yet is seen at once."""
    assert fs.origin is not None
    (fs.origin / "behind").write_bytes(b"made on the server")
    assert await fs.read_file(b"behind") == b"made on the server"
    assert await fs.listdir() == [b"behind"]


async def test_holes_read_as_zeros_there(fs: Target) -> None:
    assert fs.origin is not None
    async with await fs.open(b"f", os.O_CREAT | os.O_WRONLY) as file:
        await file.pwrite(b"end", 500_000)
    assert (fs.origin / "f").read_bytes() == bytes(500_000) + b"end"
