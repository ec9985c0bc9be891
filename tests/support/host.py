"""OsTarget: a directory of the host, by system calls from threads.

A mount under this directory must be served by another process: a thread of this
one that waits in the kernel holds the interpreter lock in places.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar

import trio

from syspuffs.native.records import Buffer

from .hostcalls import access, as_user, call, name_to_handle, open_by_handle
from .lockers import process_locker
from .target import (
    UTIME_NOW,
    UTIME_OMIT,
    DirEntry,
    DirStream,
    File,
    Locker,
    Stat,
    Statvfs,
    Target,
    fail,
)

P = ParamSpec("P")
R = TypeVar("R")

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Opening:
    """An open(2) in a thread; closes its descriptor itself when nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = False
        self._fd: int | None = None

    def run(self, path: bytes, flags: int, mode: int) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC, mode)
        with self._lock:
            if self._abandoned:
                os.close(fd)
            self._fd = fd
        return fd

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._fd is not None:
                os.close(self._fd)


def _stat(result: os.stat_result) -> Stat:
    return Stat(
        result.st_mode,
        result.st_ino,
        result.st_nlink,
        result.st_uid,
        result.st_gid,
        result.st_rdev,
        result.st_size,
        result.st_blocks,
        result.st_atime_ns,
        result.st_mtime_ns,
        result.st_ctime_ns,
    )


def _getdents(fd: int, room: int) -> list[DirEntry]:
    """Read entries as they come, "." and ".." among them (os.scandir would drop these)."""
    buffer = ctypes.create_string_buffer(room)
    got = _libc.getdents64(fd, buffer, room)
    if got < 0:
        fail(ctypes.get_errno())
    entries = []
    start = 0
    while start < got:
        ino, _, length, kind = struct.unpack_from("=QqHB", buffer, start)
        name = buffer.raw[start + 19 : start + length].split(b"\0", 1)[0]
        entries.append(DirEntry(name, kind << 12, ino))
        start += length
    return entries


def _utimensat(path: bytes, atime: int, mtime: int, follow: bool) -> None:
    """os.utime knows neither UTIME_NOW nor UTIME_OMIT for one of the two."""
    times = (_Timespec * 2)()
    for slot, value in zip(times, (atime, mtime), strict=True):
        if value in (UTIME_NOW, UTIME_OMIT):
            slot.sec, slot.nsec = 0, value
        else:
            slot.sec, slot.nsec = divmod(value, 10**9)
    at_fdcwd, at_symlink_nofollow = -100, 0x100
    if _libc.utimensat(at_fdcwd, path, times, 0 if follow else at_symlink_nofollow) < 0:
        fail(ctypes.get_errno(), path)


def _syncfs(fd: int) -> None:
    if _libc.syncfs(fd) < 0:
        fail(ctypes.get_errno())


def _write_all(fd: int, data: Buffer, offset: int) -> int:
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        count = os.pwrite(fd, view[done:], offset + done)
        if count == 0:
            fail(errno.EIO)
        done += count
    return done


class OsFile(File):
    """A file descriptor."""

    def __init__(self, target: OsTarget, fd: int) -> None:
        self._target = target
        self.fd = fd

    async def pread(self, length: int, offset: int) -> bytes:
        return await call(os.pread, self.fd, length, offset)

    async def pwrite(self, data: Buffer, offset: int) -> int:
        return await call(_write_all, self.fd, data, offset)

    async def ftruncate(self, length: int) -> None:
        await call(os.ftruncate, self.fd, length)

    async def fsync(self) -> None:
        await call(os.fsync, self.fd)

    async def fstat(self) -> Stat:
        return _stat(await call(os.fstat, self.fd))

    async def close(self) -> None:
        self._target.open_fds.discard(self.fd)
        # close(2) must not be given up half way: the number would be used again.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(os.close, self.fd)


class OsDirStream(DirStream):
    """A descriptor of a directory."""

    def __init__(self, target: OsTarget, fd: int) -> None:
        self._target = target
        self._fd = fd

    async def read(self) -> list[DirEntry]:
        return await call(_getdents, self._fd, 2048)

    async def close(self) -> None:
        self._target.open_fds.discard(self._fd)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(os.close, self._fd)


class OsTarget(Target):
    """The tree below `root` of the host."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.open_fds: set[int] = set()

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make a system call as the user of this tree."""
        return await call(function, *args, **kwargs)

    def path(self, path: bytes) -> bytes:
        """Return the host's path of `path`."""
        return self.root + b"/" + path if path else self.root

    async def _open(self, path: bytes, flags: int, mode: int) -> int:
        opening = _Opening()
        try:
            return await self._call(opening.run, path, flags, mode)
        except trio.Cancelled:
            opening.abandon()
            raise

    async def open(self, path: bytes, flags: int, mode: int = 0o666) -> File:
        fd = await self._open(self.path(path), flags, mode)
        self.open_fds.add(fd)
        return OsFile(self, fd)

    async def opendir(self, path: bytes) -> DirStream:
        fd = await self._open(self.path(path), os.O_RDONLY | os.O_DIRECTORY, 0)
        self.open_fds.add(fd)
        return OsDirStream(self, fd)

    async def stat(self, path: bytes) -> Stat:
        return _stat(await self._call(os.stat, self.path(path)))

    async def lstat(self, path: bytes) -> Stat:
        return _stat(await self._call(os.lstat, self.path(path)))

    async def access(self, path: bytes, mode: int) -> bool:
        return await self._call(access, self.path(path), mode)

    async def mkdir(self, path: bytes, mode: int = 0o777) -> None:
        await self._call(os.mkdir, self.path(path), mode)

    async def rmdir(self, path: bytes) -> None:
        await self._call(os.rmdir, self.path(path))

    async def unlink(self, path: bytes) -> None:
        await self._call(os.unlink, self.path(path))

    async def rename(self, old: bytes, new: bytes) -> None:
        await self._call(os.rename, self.path(old), self.path(new))

    async def link(self, old: bytes, new: bytes) -> None:
        await self._call(os.link, self.path(old), self.path(new), follow_symlinks=False)

    async def symlink(self, target: bytes, path: bytes) -> None:
        await self._call(os.symlink, target, self.path(path))

    async def readlink(self, path: bytes) -> bytes:
        return await self._call(os.readlink, self.path(path))

    async def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None:
        await self._call(os.mknod, self.path(path), mode, rdev)

    async def chmod(self, path: bytes, mode: int) -> None:
        await self._call(os.chmod, self.path(path), mode)

    async def chown(self, path: bytes, uid: int, gid: int, *, follow: bool = True) -> None:
        await self._call(os.chown, self.path(path), uid, gid, follow_symlinks=follow)

    async def utimens(self, path: bytes, atime: int, mtime: int, *, follow: bool = True) -> None:
        await self._call(_utimensat, self.path(path), atime, mtime, follow)

    async def truncate(self, path: bytes, length: int) -> None:
        await self._call(os.truncate, self.path(path), length)

    async def statvfs(self) -> Statvfs:
        got = await self._call(os.statvfs, self.root)
        return Statvfs(
            got.f_bsize, got.f_frsize, got.f_blocks, got.f_bfree, got.f_bavail, got.f_namemax
        )

    async def sync(self) -> None:
        fd = await self._open(self.root, os.O_RDONLY | os.O_DIRECTORY, 0)
        try:
            await self._call(_syncfs, fd)
        finally:
            os.close(fd)

    async def getfh(self, path: bytes) -> bytes:
        return await self._call(name_to_handle, self.path(path))

    async def fhopen(self, handle: bytes, flags: int) -> File:
        fd = await self._call(open_by_handle, self.root, handle, flags)
        self.open_fds.add(fd)
        return OsFile(self, fd)

    @asynccontextmanager
    async def at(self, path: bytes) -> AsyncIterator[Target]:
        fd = await self._open(self.path(path), os.O_PATH | os.O_DIRECTORY, 0)
        try:
            there = OsTarget(b"/proc/self/fd/%d" % fd)
            yield there
            await there.verify()
        finally:
            os.close(fd)

    @asynccontextmanager
    async def as_user(self, uid: int, gid: int) -> AsyncIterator[Target]:
        fd = await self._open(self.root, os.O_PATH | os.O_DIRECTORY, 0)
        try:
            # By the descriptor, for the way to it may be barred to others.
            user = UserTarget(b"/proc/self/fd/%d" % fd, uid, gid)
            yield user
            await user.verify()
        finally:
            os.close(fd)

    def locker(self, path: bytes) -> AbstractAsyncContextManager[Locker]:
        return process_locker(self.path(path))

    async def verify(self) -> None:
        left = sorted(self.open_fds)
        for fd in left:
            os.close(fd)
        self.open_fds.clear()
        assert not left, f"the test left descriptors open: {left}"


class UserTarget(OsTarget):
    """The same tree for another user (to be made by root)."""

    def __init__(self, root: bytes, uid: int, gid: int) -> None:
        super().__init__(root)
        self._uid = uid
        self._gid = gid

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await call(as_user, self._uid, self._gid, partial(function, *args, **kwargs))
