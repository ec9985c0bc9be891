"""NetBSD's t_full: a file system without space left."""

from __future__ import annotations

import errno
import os
from functools import partial

from ..support.expect import eventually, pattern, raises
from ..support.target import Target
from .routes import SMALL

RW = os.O_RDWR | os.O_CREAT


async def has_space(fs: Target) -> bool:
    """Return whether more than half of all is free."""
    got = await fs.statvfs()
    return 2 * got.bavail > got.blocks


async def test_fillfs(small: Target) -> None:
    """Writing ends in ENOSPC, as often as it is tried, and what was written before is there.

    When the file is gone its space is there again.
    """
    piece = 8_192
    async with await small.open(b"f", RW) as file:
        written = 0
        # An error of write-behind comes with fsync, where there is write-behind.
        with raises(errno.ENOSPC):
            while written < 2 * SMALL:
                await file.pwrite(pattern(piece, written // piece), written)
                written += piece
            await file.fsync()
        assert SMALL // 2 < written < SMALL + piece
        for _ in range(3):
            with raises(errno.ENOSPC):
                await file.pwrite(pattern(64 * piece), written)
                await file.fsync()
        for start in range(0, written - piece, piece):
            assert await file.pread(piece, start) == pattern(piece, start // piece)
    assert await small.listdir() == [b"f"]
    await small.unlink(b"f")
    await eventually(partial(has_space, small))
    await small.write_file(b"g", pattern(SMALL // 2))
    assert await small.read_file(b"g") == pattern(SMALL // 2)
    await small.mkdir(b"d")
