"""Reading and writing."""

from __future__ import annotations

import errno
import os

import pytest

from ..support.expect import pattern, raises
from ..support.target import Target

RW = os.O_RDWR | os.O_CREAT


async def test_write_then_read(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        assert await file.pwrite(b"hello", 0) == 5
        assert await file.pread(5, 0) == b"hello"
        assert await file.pread(3, 1) == b"ell"
        assert (await file.fstat()).size == 5
    assert await fs.read_file(b"f") == b"hello"


async def test_read_past_the_end(fs: Target) -> None:
    await fs.write_file(b"f", b"12345")
    async with await fs.open(b"f", os.O_RDONLY) as file:
        assert await file.pread(100, 0) == b"12345"
        assert await file.pread(100, 3) == b"45"
        assert await file.pread(100, 5) == b""
        assert await file.pread(100, 1 << 20) == b""


async def test_empty_file(fs: Target) -> None:
    await fs.write_file(b"f", b"")
    assert await fs.read_file(b"f") == b""
    async with await fs.open(b"f", os.O_RDONLY) as file:
        assert await file.pread(1, 0) == b""


async def test_hole(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"end", 100_000)
        assert (await file.fstat()).size == 100_003
        assert await file.pread(100_003, 0) == bytes(100_000) + b"end"
    assert await fs.read_file(b"f") == bytes(100_000) + b"end"


async def test_fill_a_hole(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"c", 10_000)
        await file.pwrite(b"b", 5_000)
        await file.pwrite(b"a", 0)
        got = await file.pread(20_000, 0)
    assert got == b"a" + bytes(4_999) + b"b" + bytes(4_999) + b"c"


async def test_beyond_4_gib(fs: Target) -> None:
    """Offsets do not fit 32 bits; the hole costs nothing."""
    offset = (5 << 30) + 123
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"far", offset)
        assert (await file.fstat()).size == offset + 3
        assert await file.pread(10, offset) == b"far"
        assert await file.pread(10, offset - 5) == bytes(5) + b"far"
        assert await file.pread(4, 1 << 32) == bytes(4)
    assert (await fs.stat(b"f")).size == offset + 3
    await fs.truncate(b"f", 10)
    assert await fs.read_file(b"f") == bytes(10)


async def test_append(fs: Target) -> None:
    await fs.write_file(b"f", b"one")
    async with await fs.open(b"f", os.O_WRONLY | os.O_APPEND) as file:
        await file.pwrite(b" two", 0)
        await file.pwrite(b" three", 0)
        assert (await file.fstat()).size == 13
    assert await fs.read_file(b"f") == b"one two three"


async def test_append_after_truncate(fs: Target) -> None:
    await fs.write_file(b"f", b"something long")
    async with await fs.open(b"f", os.O_RDWR | os.O_APPEND) as file:
        await file.ftruncate(4)
        await file.pwrite(b"+", 0)
        assert await file.pread(20, 0) == b"some+"
    assert await fs.read_file(b"f") == b"some+"


async def test_append_by_two(fs: Target) -> None:
    """Each append goes to where the end is then, also when another descriptor moved it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    async with await fs.open(b"f", flags) as one, await fs.open(b"f", flags) as two:
        for number in range(10):
            await (one if number % 2 else two).pwrite(b"%d" % number, 0)
    assert await fs.read_file(b"f") == b"0123456789"


async def test_truncate_down(fs: Target) -> None:
    await fs.write_file(b"f", pattern(100_000))
    await fs.truncate(b"f", 70_001)
    assert (await fs.stat(b"f")).size == 70_001
    assert await fs.read_file(b"f") == pattern(100_000)[:70_001]


async def test_truncate_up(fs: Target) -> None:
    await fs.write_file(b"f", b"abc")
    await fs.truncate(b"f", 50_000)
    assert (await fs.stat(b"f")).size == 50_000
    assert await fs.read_file(b"f") == b"abc" + bytes(49_997)


async def test_truncate_down_and_up_shows_zeros(fs: Target) -> None:
    """What was cut off does not come back."""
    await fs.write_file(b"f", b"\xff" * 20_000)
    await fs.truncate(b"f", 5_001)
    await fs.truncate(b"f", 20_000)
    assert await fs.read_file(b"f") == b"\xff" * 5_001 + bytes(14_999)


async def test_truncate_then_write_beyond(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"\xff" * 9_000, 0)
        await file.ftruncate(10)
        await file.pwrite(b"z", 8_000)
        assert await file.pread(9_000, 0) == b"\xff" * 10 + bytes(7_990) + b"z"


async def test_ftruncate(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"0123456789", 0)
        await file.ftruncate(4)
        assert (await file.fstat()).size == 4
        assert await file.pread(10, 0) == b"0123"
        await file.ftruncate(6)
        assert await file.pread(10, 0) == b"0123\0\0"
    assert (await fs.stat(b"f")).size == 6


async def test_truncate_to_the_same_size(fs: Target) -> None:
    await fs.write_file(b"f", b"same")
    await fs.truncate(b"f", 4)
    assert await fs.read_file(b"f") == b"same"


async def test_truncate_refused(fs: Target) -> None:
    await fs.mkdir(b"d")
    with raises(errno.EISDIR):
        await fs.truncate(b"d", 0)
    with raises(errno.ENOENT):
        await fs.truncate(b"nothing", 0)
    await fs.write_file(b"f", b"x")
    with raises(errno.EINVAL):
        await fs.truncate(b"f", -1)


async def test_truncate_while_open(fs: Target) -> None:
    """A descriptor sees the truncation by path at once."""
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"0123456789", 0)
        await fs.truncate(b"f", 3)
        assert (await file.fstat()).size == 3
        assert await file.pread(10, 0) == b"012"
        await file.pwrite(b"!", 3)
    assert await fs.read_file(b"f") == b"012!"


@pytest.mark.parametrize("size", [1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537])
async def test_sizes_around_blocks(fs: Target, size: int) -> None:
    data = pattern(size, size)
    await fs.write_file(b"f", data)
    assert (await fs.stat(b"f")).size == size
    assert await fs.read_file(b"f") == data


@pytest.mark.parametrize("unit", [512, 65536])
async def test_overwrite(fs: Target, unit: int) -> None:
    """Pieces in the middle, not aligned to anything (NetBSD's overwrite512 and overwrite64k)."""
    want = bytearray(pattern(4 * unit, 1))
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(want, 0)
        for number in range(6):
            offset = number * unit // 2 + 13 * number
            piece = pattern(unit, 100 + number)[: 4 * unit - offset]
            want[offset : offset + len(piece)] = piece
            await file.pwrite(piece, offset)
        assert await file.pread(4 * unit, 0) == want
    assert await fs.read_file(b"f") == want


async def test_overwrite_and_truncate(fs: Target) -> None:
    """NetBSD's overwrite_trunc: write over the end, cut in the written part, write again."""
    async with await fs.open(b"f", RW) as file:
        await file.pwrite(b"a" * 10_000, 0)
        await file.pwrite(b"b" * 5_000, 9_000)
        await file.ftruncate(9_500)
        await file.pwrite(b"c" * 10, 9_495)
        want = b"a" * 9_000 + b"b" * 495 + b"c" * 10
        assert await file.pread(20_000, 0) == want
    assert await fs.read_file(b"f") == want


async def test_one_octet_at_a_time(fs: Target) -> None:
    data = pattern(100, 5)
    async with await fs.open(b"f", RW) as file:
        for offset in range(len(data)):
            await file.pwrite(data[offset : offset + 1], offset)
        got = b"".join([await file.pread(1, offset) for offset in range(len(data))])
    assert got == data


async def test_backwards(fs: Target) -> None:
    data = pattern(50_000, 6)
    async with await fs.open(b"f", RW) as file:
        for offset in range(45_000, -1, -5_000):
            await file.pwrite(data[offset : offset + 5_000], offset)
    async with await fs.open(b"f", os.O_RDONLY) as file:
        for offset in range(49_000, -1, -1_000):
            assert await file.pread(1_000, offset) == data[offset : offset + 1_000]


async def test_large(fs: Target) -> None:
    """4 MiB and a bit, written and read in large pieces that are not aligned."""
    data = pattern((4 << 20) + 321, 7)
    async with await fs.open(b"f", RW) as file:
        for offset in range(0, len(data), 700_001):
            await file.pwrite(data[offset : offset + 700_001], offset)
        await file.fsync()
    assert (await fs.stat(b"f")).size == len(data)
    assert await fs.read_file(b"f") == data
    async with await fs.open(b"f", os.O_RDONLY) as file:
        assert await file.pread(1 << 20, (3 << 20) - 5) == data[(3 << 20) - 5 : (4 << 20) - 5]


async def test_random_access(fs: Target) -> None:
    data = pattern(300_000, 8)
    await fs.write_file(b"f", data)
    async with await fs.open(b"f", os.O_RDONLY) as file:
        for number in range(40):
            offset = number * 104_729 % 300_000
            assert await file.pread(4_096, offset) == data[offset : offset + 4_096]


async def test_two_descriptors(fs: Target) -> None:
    """What one wrote the other reads, without closing anything."""
    async with await fs.open(b"f", RW) as one, await fs.open(b"f", os.O_RDWR) as two:
        await one.pwrite(b"one", 0)
        assert await two.pread(10, 0) == b"one"
        await two.pwrite(b"TWO!", 3)
        assert await one.pread(10, 0) == b"oneTWO!"
        assert (await one.fstat()).size == 7
        await one.ftruncate(1)
        assert await two.pread(10, 0) == b"o"


async def test_written_by_one_seen_by_path(fs: Target) -> None:
    """The size is right at once, before fsync and close."""
    async with await fs.open(b"f", RW) as file:
        for size in (1, 10, 5_000, 200_000):
            await file.pwrite(b"x", size - 1)
            assert (await fs.stat(b"f")).size == size


async def test_write_only_file_is_read_back(fs: Target) -> None:
    """Writes that touch blocks in part, through a descriptor that may not read."""
    await fs.write_file(b"f", b"a" * 5_000)
    async with await fs.open(b"f", os.O_WRONLY) as file:
        await file.pwrite(b"b" * 10, 4_090)
    assert await fs.read_file(b"f") == b"a" * 4_090 + b"b" * 10 + b"a" * 900


async def test_zero_octets(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        assert await file.pwrite(b"", 0) == 0
        assert await file.pread(0, 0) == b""
        assert (await file.fstat()).size == 0


async def test_fsync(fs: Target) -> None:
    async with await fs.open(b"f", RW) as file:
        await file.fsync()
        await file.pwrite(b"safe", 0)
        await file.fsync()
        await file.fsync()
    async with await fs.open(b"f", os.O_RDONLY) as file:
        await file.fsync()
        assert await file.pread(10, 0) == b"safe"


async def test_read_only_mode_while_open_for_writing(fs: Target) -> None:
    """Permissions count when a file is opened, not later."""
    async with await fs.open(b"f", RW, 0o600) as file:
        await fs.chmod(b"f", 0o400)
        await file.pwrite(b"still", 0)
        await file.fsync()
        assert await file.pread(10, 0) == b"still"


async def test_many_small_files(fs: Target) -> None:
    await fs.mkdir(b"d")
    for number in range(50):
        await fs.write_file(b"d/%d" % number, b"contents %d" % number)
    for number in range(50):
        assert await fs.read_file(b"d/%d" % number) == b"contents %d" % number
