"""NetBSD's t_unpriv: what somebody may not do who is nobody in particular."""

from __future__ import annotations

import errno
import os

import pytest

from ..support.capabilities import USER_LACKS
from ..support.expect import raises
from ..support.target import UTIME_NOW, UTIME_OMIT, Target

pytestmark = pytest.mark.skipif(bool(USER_LACKS), reason="only root can be two users")

USER = 1001
GROUP = 2001


async def test_owner(fs: Target) -> None:
    """Only root gives files away, and only to a group of his own may an owner give his."""
    await fs.chmod(b"", 0o777)
    await fs.write_file(b"theirs", b"")
    async with fs.as_user(USER, GROUP) as user:
        await user.write_file(b"mine", b"")
        got = await user.stat(b"mine")
        assert (got.uid, got.gid) == (USER, GROUP)
        for name, uid, gid in (
            (b"theirs", USER, -1),
            (b"theirs", -1, GROUP),
            (b"theirs", 0, 0),
            (b"mine", 0, -1),
            (b"mine", 1, -1),
            (b"mine", -1, 7),
            (b"mine", 1, GROUP),
        ):
            with raises(errno.EPERM):
                await user.chown(name, uid, gid)
        await user.chown(b"mine", USER, GROUP)
        with raises(errno.EPERM):
            await user.chmod(b"theirs", 0o777)
        await user.chmod(b"mine", 0o600)
    await fs.chown(b"mine", 0, 0)
    async with fs.as_user(USER, GROUP) as user:
        with raises(errno.EPERM):
            await user.chmod(b"mine", 0o777)
        with raises(errno.EACCES):
            await user.open(b"mine", os.O_RDONLY)


async def test_dirperms(fs: Target) -> None:
    """A directory without permission to write takes and gives no names; without search, no path."""
    await fs.mkdir(b"dir")
    await fs.mkdir(b"dir/sub")
    await fs.write_file(b"dir/f", b"contents")
    for mode, listed, found in ((0o755, True, True), (0o711, False, True), (0o744, True, False)):
        await fs.chmod(b"dir", mode)
        async with fs.as_user(USER, GROUP) as user:
            for call in (
                user.open(b"dir/new", os.O_WRONLY | os.O_CREAT),
                user.mkdir(b"dir/new"),
                user.symlink(b"x", b"dir/new"),
                user.unlink(b"dir/f"),
                user.rmdir(b"dir/sub"),
                user.rename(b"dir/f", b"dir/g"),
            ):
                with raises(errno.EACCES):
                    await call
            if listed:
                assert await user.listdir(b"dir") == [b"f", b"sub"]
            else:
                with raises(errno.EACCES):
                    await user.listdir(b"dir")
            if found:
                assert await user.read_file(b"dir/f") == b"contents"
            else:
                with raises(errno.EACCES):
                    await user.stat(b"dir/f")
    await fs.chmod(b"dir", 0o777)
    async with fs.as_user(USER, GROUP) as user:
        await user.write_file(b"dir/new", b"")
        await user.unlink(b"dir/f")
    await fs.chmod(b"dir", 0o1777)
    async with fs.as_user(USER + 1, GROUP) as other:
        with raises(errno.EPERM, errno.EACCES):
            await other.unlink(b"dir/new")
    assert await fs.listdir(b"dir") == [b"new", b"sub"]


async def test_times(fs: Target) -> None:
    """Times of others' files: who may write may say "now", and nobody but the owner more."""
    await fs.write_file(b"theirs", b"")
    await fs.chmod(b"theirs", 0o644)
    async with fs.as_user(USER, GROUP) as user:
        for atime, mtime in ((1, 2), (UTIME_NOW, UTIME_OMIT), (UTIME_OMIT, 3)):
            with raises(errno.EPERM):
                await user.utimens(b"theirs", atime, mtime)
        with raises(errno.EACCES, errno.EPERM):
            await user.utimens(b"theirs", UTIME_NOW, UTIME_NOW)
    await fs.chown(b"theirs", USER, GROUP)
    async with fs.as_user(USER, GROUP) as user:
        await user.utimens(b"theirs", 10**9, 2 * 10**9)
        await user.utimens(b"theirs", UTIME_NOW, UTIME_OMIT)
    got = await fs.stat(b"theirs")
    assert got.mtime == 2 * 10**9
    assert got.atime > 10**18
