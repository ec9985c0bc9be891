"""Files without a name that somebody still has open."""

from __future__ import annotations

import errno
import os

from ..support.capabilities import needs
from ..support.expect import pattern, raises
from ..support.target import Target

RW = os.O_RDWR | os.O_CREAT


async def test_read_after_unlink(fs: Target) -> None:
    data = pattern(50_000)
    await fs.write_file(b"f", data)
    async with await fs.open(b"f", os.O_RDONLY) as file:
        await fs.unlink(b"f")
        assert await file.pread(100_000, 0) == data
        assert await fs.listdir() == []
    with raises(errno.ENOENT):
        await fs.stat(b"f")


async def test_write_and_read_after_unlink(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"before", 0)
        await fs.unlink(b"f")
        await file.pwrite(b" and after", 6)
        assert await file.pread(100, 0) == b"before and after"
        await file.ftruncate(3)
        await file.fsync()
        assert await file.pread(100, 0) == b"bef"
        assert (await file.fstat()).size == 3


@needs("nlink")
async def test_no_links_left(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        assert (await file.fstat()).nlink == 1
        await fs.unlink(b"f")
        assert (await file.fstat()).nlink == 0


async def test_name_taken_by_another(fs: Target) -> None:
    """The old file and the new one of the same name have nothing in common."""
    async with await fs.open(b"f", RW) as old:
        await old.pwrite(b"old", 0)
        await fs.unlink(b"f")
        async with await fs.open(b"f", RW | os.O_EXCL) as new:
            await new.pwrite(b"new contents", 0)
            assert await old.pread(100, 0) == b"old"
            assert await new.pread(100, 0) == b"new contents"
            assert (await old.fstat()).ino != (await new.fstat()).ino
            await old.pwrite(b"OLD", 0)
        assert await fs.read_file(b"f") == b"new contents"
        assert await old.pread(100, 0) == b"OLD"
    assert await fs.read_file(b"f") == b"new contents"


async def test_two_descriptors(fs: Target) -> None:
    async with await fs.open(b"f", RW) as one:
        async with await fs.open(b"f", os.O_RDWR) as two:
            await fs.unlink(b"f")
            await one.pwrite(b"from one", 0)
            assert await two.pread(100, 0) == b"from one"
        assert await one.pread(100, 0) == b"from one"


async def test_other_name_remains(fs: Target) -> None:
    async with await fs.open(b"a", RW) as file:
        await fs.link(b"a", b"b")
        await fs.unlink(b"a")
        await file.pwrite(b"through the descriptor", 0)
        await file.fsync()
    assert await fs.read_file(b"b") == b"through the descriptor"


async def test_directory_goes_too(fs: Target) -> None:
    await fs.mkdir(b"d")
    async with await fs.open(b"d/f", RW) as file:
        await file.pwrite(b"x", 0)
        await fs.unlink(b"d/f")
        await fs.rmdir(b"d")
        await file.pwrite(b"y", 1)
        assert await file.pread(10, 0) == b"xy"
    assert await fs.listdir() == []


async def test_many_rounds(fs: Target) -> None:
    """As programs use temporary files."""
    for number in range(20):
        async with await fs.open(b"tmp", RW | os.O_EXCL) as file:
            await fs.unlink(b"tmp")
            await file.pwrite(b"%d" % number, 0)
            assert await file.pread(10, 0) == b"%d" % number
    assert await fs.listdir() == []


async def test_replaced_while_open_by_two(fs: Target) -> None:
    await fs.write_file(b"f", b"first")
    async with await fs.open(b"f", os.O_RDONLY) as first:
        await fs.write_file(b"g", b"second")
        await fs.rename(b"g", b"f")
        async with await fs.open(b"f", os.O_RDONLY) as second:
            await fs.write_file(b"g", b"third")
            await fs.rename(b"g", b"f")
            assert await first.pread(10, 0) == b"first"
            assert await second.pread(10, 0) == b"second"
            assert await fs.read_file(b"f") == b"third"
