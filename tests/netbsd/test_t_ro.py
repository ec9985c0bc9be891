"""NetBSD's t_ro: nothing of a read-only file system can be changed."""

from __future__ import annotations

import errno
import os
import stat

from ..support.capabilities import needs
from ..support.expect import raises
from ..support.target import Target

NAMES = [b"dir", b"file", b"link"]


async def fill(fs: Target) -> None:
    """Put there what NetBSD's cases find."""
    await fs.write_file(b"file", b"contents")
    await fs.mkdir(b"dir")
    await fs.symlink(b"file", b"link")


async def test_create(ro: Target) -> None:
    for flags in (os.O_WRONLY, os.O_RDONLY, os.O_RDWR | os.O_EXCL):
        with raises(errno.EROFS):
            await ro.open(b"new", flags | os.O_CREAT)
    assert await ro.listdir() == NAMES


async def test_rmfile(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.unlink(b"file")
    with raises(errno.EROFS):
        await ro.rmdir(b"dir")
    with raises(errno.EROFS):
        await ro.rename(b"file", b"dir/file")
    assert await ro.listdir() == NAMES


async def test_fileio(ro: Target) -> None:
    """It can be read, and not opened to be written."""
    async with await ro.open(b"file", os.O_RDONLY) as file:
        assert await file.pread(100, 0) == b"contents"
        with raises(errno.EBADF):
            await file.pwrite(b"x", 0)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC):
        with raises(errno.EROFS):
            await ro.open(b"file", flags)
    with raises(errno.EROFS):
        await ro.truncate(b"file", 0)
    assert await ro.read_file(b"link") == b"contents"


async def test_attrs(ro: Target) -> None:
    before = await ro.stat(b"file")
    for call in (
        ro.chmod(b"file", 0o600),
        ro.chown(b"file", -1, 1),
        ro.chown(b"link", -1, 1, follow=False),
        ro.utimens(b"file", 1, 2),
        ro.chmod(b"dir", 0o700),
    ):
        with raises(errno.EROFS):
            await call
    assert (await ro.stat(b"file"))._replace(atime=0) == before._replace(atime=0)


async def test_createdir(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.mkdir(b"new")
    with raises(errno.EEXIST):
        await ro.mkdir(b"dir")
    assert await ro.listdir() == NAMES


@needs("special")
async def test_createfifo(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.mknod(b"new", stat.S_IFIFO | 0o600)
    assert await ro.listdir() == NAMES


async def test_createsymlink(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.symlink(b"file", b"new")
    assert await ro.readlink(b"link") == b"file"


async def test_createlink(ro: Target) -> None:
    with raises(errno.EROFS):
        await ro.link(b"file", b"new")
    assert (await ro.stat(b"file")).nlink == 1
