"""NetBSD's t_io: data of files, in places where file systems have gone wrong."""

from __future__ import annotations

import errno
import os

import pytest

from ..support.expect import pattern, raises
from ..support.host import OsFile
from ..support.hostcalls import read_fault
from ..support.target import Target

RW = os.O_RDWR | os.O_CREAT


async def test_holywrite(fs: Target) -> None:
    """What lies between two writes far from each other reads as zeros."""
    async with await fs.open(b"f", RW | os.O_TRUNC) as file:
        assert await file.pwrite(b"A", 0) == 1
        assert await file.pwrite(b"A", 654_321) == 1
        assert await file.pread(1_024, 12_345) == bytes(1_024)
        assert await file.pread(10, 654_316) == bytes(5) + b"A"
    data = await fs.read_file(b"f")
    assert data == b"A" + bytes(654_320) + b"A"


async def test_extendfile(fs: Target) -> None:
    """A file that grows from its middle keeps what was before, and gets what is new."""
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"a" * 512, 0)
        assert (await file.fstat()).size == 512
        await file.pwrite(b"b" * 1_024, 11)
        assert (await file.fstat()).size == 1_035
        assert await file.pread(2_000, 0) == b"a" * 11 + b"b" * 1_024
    assert (await fs.stat(b"f")).size == 1_035


async def test_extendfile_append(fs: Target) -> None:
    """The same at its end, wherever the writer believes that to be."""
    async with await fs.open(b"f", RW | os.O_APPEND) as file:
        await file.pwrite(b"a" * 512, 0)
        await file.pwrite(b"b" * 1_024, 0)
        await file.pwrite(b"c" * 100, 7)
        assert (await file.fstat()).size == 1_636
    assert await fs.read_file(b"f") == b"a" * 512 + b"b" * 1_024 + b"c" * 100


async def overwrite(fs: Target, size: int, *, truncate: bool) -> None:
    """Write over a file, piece by piece, and look at the whole after each."""
    contents = bytearray(pattern(size, 1))
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(contents, 0)
        for number, start in enumerate(range(0, size, max(size // 5, 1) + 1)):
            piece = pattern(max(size // 4, 1), 10 + number)[: size - start]
            contents[start : start + len(piece)] = piece
            await file.pwrite(piece, start)
            if truncate:
                cut = size - number * 7
                await file.ftruncate(cut)
                await file.ftruncate(size)
                contents[cut:] = bytes(size - cut)
            assert await file.pread(size + 1, 0) == contents
    assert await fs.read_file(b"f") == contents


async def test_overwrite512(fs: Target) -> None:
    await overwrite(fs, 512, truncate=False)


async def test_overwrite64k(fs: Target) -> None:
    await overwrite(fs, 1 << 16, truncate=False)


async def test_overwrite_trunc(fs: Target) -> None:
    await overwrite(fs, 1 << 16, truncate=True)


async def test_shrinkfile(fs: Target) -> None:
    """What was cut off does not come back when the file grows again."""
    async with await fs.open(b"f", RW) as file:
        for size in (2, 4_097, 100_000):
            await file.pwrite(b"\xff" * size, 0)
            for smaller in (size - 1, size // 2, 1):
                await file.ftruncate(smaller)
                assert (await file.fstat()).size == smaller
                await file.ftruncate(size)
                assert await file.pread(size + 1, 0) == b"\xff" * smaller + bytes(size - smaller)
            await file.ftruncate(0)
            await file.pwrite(b"x", size)
            assert await file.pread(size + 2, 0) == bytes(size) + b"x"


async def test_read_after_unlink(fs: Target) -> None:
    data = pattern(10_000)
    await fs.write_file(b"f", data)
    async with await fs.open(b"f", os.O_RDONLY) as file:
        await fs.unlink(b"f")
        assert await file.pread(20_000, 0) == data
    assert await fs.listdir() == []


async def test_wrrd_after_unlink(fs: Target) -> None:
    """A file without a name takes data, far out, and gives them back."""
    async with await fs.open(b"f", RW) as file:
        await fs.unlink(b"f")
        await file.pwrite(b"A" * 4, 654_321)
        assert await file.pread(10, 654_320) == b"\0AAAA"
        await file.fsync()
        assert (await file.fstat()).size == 654_325
    with raises(errno.ENOENT):
        await fs.stat(b"f")


@pytest.mark.ways("mounted", why="a buffer of the emulated kernel is an object or there is none")
async def test_read_fault(fs: Target) -> None:
    """A read into memory that is not there fails, and the file is as good as before."""
    await fs.write_file(b"f", b"data" * 5_000)
    async with await fs.open(b"f", os.O_RDONLY) as file:
        assert isinstance(file, OsFile)
        with raises(errno.EFAULT):
            read_fault(file.fd)
        assert await file.pread(8, 0) == b"datadata"
    assert await fs.read_file(b"f") == b"data" * 5_000
