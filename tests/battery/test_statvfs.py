"""The state of the file system."""

from __future__ import annotations

from ..support.capabilities import needs
from ..support.target import Target


@needs("long_names")
async def test_statvfs(fs: Target) -> None:
    got = await fs.statvfs()
    assert got.bsize >= 512
    assert got.frsize >= 512
    assert got.frsize & (got.frsize - 1) == 0
    assert got.blocks > 0
    assert got.blocks >= got.bfree >= got.bavail
    assert got.namemax == 255


async def test_statvfs_is_steady(fs: Target) -> None:
    first = await fs.statvfs()
    await fs.write_file(b"f", b"x" * 100_000)
    second = await fs.statvfs()
    assert (first.bsize, first.frsize, first.namemax) == (
        second.bsize,
        second.frsize,
        second.namemax,
    )
