"""Fifos, sockets and devices."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import Target

DEVICES = {
    "null": (stat.S_IFCHR, os.makedev(1, 3)),
    "loop": (stat.S_IFBLK, os.makedev(7, 200)),
    "big": (stat.S_IFCHR, os.makedev(300, 70_000)),
}


@needs("special")
@pytest.mark.parametrize("ifmt", [stat.S_IFIFO, stat.S_IFSOCK])
async def test_mknod(fs: Target, ifmt: int) -> None:
    await life(fs, ifmt, 0)


@needs("special", "devices")
@pytest.mark.parametrize("name", DEVICES)
async def test_mknod_device(fs: Target, name: str) -> None:
    await life(fs, *DEVICES[name])


async def life(fs: Target, ifmt: int, rdev: int) -> None:
    """Follow a node from its making to its end."""
    await fs.mknod(b"n", ifmt | 0o640, rdev)
    got = await fs.lstat(b"n")
    assert (got.kind, got.perm, got.rdev) == (ifmt, 0o640, rdev)
    assert await fs.listdir() == [b"n"]
    with raises(errno.EEXIST):
        await fs.mknod(b"n", ifmt | 0o600, rdev)
    await fs.chmod(b"n", 0o600)
    await fs.rename(b"n", b"m")
    await fs.link(b"m", b"l")
    got = await fs.lstat(b"l")
    assert (got.kind, got.perm, got.rdev) == (ifmt, 0o600, rdev)
    await fs.unlink(b"m")
    await fs.unlink(b"l")
    assert await fs.listdir() == []


@needs("special")
async def test_special_is_no_directory(fs: Target) -> None:
    await fs.mknod(b"n", stat.S_IFIFO | 0o600)
    with raises(errno.ENOTDIR):
        await fs.stat(b"n/below")
    with raises(errno.ENOTDIR):
        await fs.rmdir(b"n")
    with raises(errno.EINVAL):
        await fs.readlink(b"n")


@needs("special")
async def test_rename_over_special(fs: Target) -> None:
    await fs.mknod(b"n", stat.S_IFIFO | 0o600)
    await fs.write_file(b"f", b"file")
    await fs.rename(b"f", b"n")
    assert await fs.read_file(b"n") == b"file"
    await fs.mkdir(b"d")
    await fs.mknod(b"p", stat.S_IFIFO | 0o600)
    with raises(errno.EISDIR):
        await fs.rename(b"p", b"d")
    with raises(errno.ENOTDIR):
        await fs.rename(b"d", b"p")
