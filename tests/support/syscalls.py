"""SyscallTarget: a tree used by the system calls of the emulated kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fcntl import F_GETLK, F_SETLK
from typing import Final

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.syscalls import Process
from syspuffs.emul.syscalls import Stat as SystemStat
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import FileSystem
from syspuffs.native.constants import Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import VTYPE_TO_IFMT, Buffer, Cred, Flock

from .nodes import OURSELVES, system_call
from .target import DirEntry, DirStream, File, Locker, Stat, Statvfs, Target, system_statvfs

ROOT: Final = Cred(0, 0)
GETDENTS_SIZE: Final = 1024
"""What one getdents may answer, octets."""


def _stat(got: SystemStat) -> Stat:
    return Stat(
        got.st_mode,
        got.st_ino,
        got.st_nlink,
        got.st_uid,
        got.st_gid,
        got.st_rdev,
        got.st_size,
        got.st_blocks,
        got.st_atime,
        got.st_mtime,
        got.st_ctime,
    )


class SyscallFile(File):
    """A descriptor of an emulated process."""

    def __init__(self, process: Process, fd: int) -> None:
        self.process = process
        self.fd = fd

    @system_call
    async def pread(self, length: int, offset: int) -> bytes:
        return bytes(await self.process.pread(self.fd, length, offset))

    @system_call
    async def pwrite(self, data: Buffer, offset: int) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += await self.process.pwrite(self.fd, view[done:], offset + done)
        return done

    @system_call
    async def ftruncate(self, length: int) -> None:
        await self.process.ftruncate(self.fd, length)

    @system_call
    async def fsync(self) -> None:
        await self.process.fsync(self.fd)

    @system_call
    async def fstat(self) -> Stat:
        return _stat(await self.process.fstat(self.fd))

    @system_call
    async def close(self) -> None:
        await self.process.close(self.fd)


class SyscallDirStream(DirStream):
    """A descriptor of a directory."""

    def __init__(self, process: Process, fd: int) -> None:
        self.process = process
        self.fd = fd

    @system_call
    async def read(self) -> list[DirEntry]:
        entries = await self.process.getdents(self.fd, GETDENTS_SIZE)
        return [
            DirEntry(entry.name, VTYPE_TO_IFMT.get(Vtype(entry.vtype), 0), entry.fileid)
            for entry in entries
        ]

    @system_call
    async def close(self) -> None:
        await self.process.close(self.fd)


class SyscallLocker(Locker):
    """A process with one descriptor."""

    def __init__(self, process: Process, fd: int) -> None:
        self.pid = process.pid
        self.process = process
        self.fd = fd

    @system_call
    async def setlk(self, kind: int, start: int, length: int) -> None:
        await self.process.fcntl_lock(self.fd, F_SETLK, Flock(kind, start, length, 0))

    @system_call
    async def getlk(self, kind: int, start: int, length: int) -> Flock:
        return await self.process.fcntl_lock(self.fd, F_GETLK, Flock(kind, start, length, 0))


class SyscallTarget(Target):
    """The tree at the working directory of `process`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @system_call
    async def open(self, path: bytes, flags: int, mode: int = 0o666) -> File:
        return SyscallFile(self.process, await self.process.open(path or b".", flags, mode))

    @system_call
    async def opendir(self, path: bytes) -> DirStream:
        fd = await self.process.open(path or b".", os.O_RDONLY | os.O_DIRECTORY)
        return SyscallDirStream(self.process, fd)

    @system_call
    async def stat(self, path: bytes) -> Stat:
        return _stat(await self.process.stat(path or b"."))

    @system_call
    async def lstat(self, path: bytes) -> Stat:
        return _stat(await self.process.lstat(path or b"."))

    @system_call
    async def access(self, path: bytes, mode: int) -> bool:
        try:
            await self.process.access(path or b".", mode)
        except VfsError as error:
            if error.errno in (errno.EACCES, errno.EROFS):
                return False
            raise
        return True

    @system_call
    async def mkdir(self, path: bytes, mode: int = 0o777) -> None:
        await self.process.mkdir(path or b".", mode)

    @system_call
    async def rmdir(self, path: bytes) -> None:
        await self.process.rmdir(path or b".")

    @system_call
    async def unlink(self, path: bytes) -> None:
        await self.process.unlink(path or b".")

    @system_call
    async def rename(self, old: bytes, new: bytes) -> None:
        await self.process.rename(old or b".", new or b".")

    @system_call
    async def link(self, old: bytes, new: bytes) -> None:
        await self.process.link(old or b".", new or b".")

    @system_call
    async def symlink(self, target: bytes, path: bytes) -> None:
        await self.process.symlink(target, path or b".")

    @system_call
    async def readlink(self, path: bytes) -> bytes:
        return await self.process.readlink(path or b".")

    @system_call
    async def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None:
        await self.process.mknod(path or b".", mode, rdev)

    @system_call
    async def chmod(self, path: bytes, mode: int) -> None:
        await self.process.chmod(path or b".", mode)

    @system_call
    async def chown(self, path: bytes, uid: int, gid: int, *, follow: bool = True) -> None:
        await self.process.chown(path or b".", uid, gid, follow=follow)

    @system_call
    async def utimens(self, path: bytes, atime: int, mtime: int, *, follow: bool = True) -> None:
        await self.process.utimensat(path or b".", atime, mtime, follow=follow)

    @system_call
    async def truncate(self, path: bytes, length: int) -> None:
        await self.process.truncate(path or b".", length)

    @system_call
    async def statvfs(self) -> Statvfs:
        return system_statvfs(await self.process.statvfs(b"."))

    @system_call
    async def sync(self) -> None:
        await self.process.sync()

    @system_call
    async def getfh(self, path: bytes) -> bytes:
        return await self.process.getfh(path or b".")

    @system_call
    async def fhopen(self, handle: bytes, flags: int) -> File:
        return SyscallFile(self.process, await self.process.fhopen(handle, flags))

    @asynccontextmanager
    async def at(self, path: bytes) -> AsyncIterator[Target]:
        async with self.process.fork() as child:
            there = SyscallTarget(child)
            await there.chdir(path)
            yield there
            await there.verify()

    @system_call
    async def chdir(self, path: bytes) -> None:
        await self.process.chdir(path or b".")

    @asynccontextmanager
    async def as_user(self, uid: int, gid: int) -> AsyncIterator[Target]:
        async with self.process.fork() as child:
            child.setgroups([])
            child.setgid(gid)
            child.setuid(uid)
            user = SyscallTarget(child)
            yield user
            await user.verify()

    @asynccontextmanager
    async def locker(self, path: bytes) -> AsyncIterator[Locker]:
        async with self.process.fork() as child:
            yield SyscallLocker(child, await child.open(path, os.O_RDWR))

    async def verify(self) -> None:
        left = list(self.process.files)
        assert not left, f"the test left descriptors open: {left}"


@asynccontextmanager
async def mounted(fs: FileSystem, *, rdonly: bool = False) -> AsyncIterator[SyscallTarget]:
    """Mount `fs` on a directory of a kernel whose root is another file system.

    The process that uses it has it as its root, and is who runs the tests. At the end everything
    must be unmounted without force: a reference that was left would make that fail.
    """
    async with Kernel() as kernel:
        root = await kernel.mount(TmpFs(mntfromname=b"none"))
        async with Process(kernel, ROOT) as init:
            await init.mkdir(b"mnt")
            await init.mount(fs, b"mnt", rdonly=rdonly)
            async with init.fork() as process:
                await process.chroot(b"mnt")
                await process.chdir(b"/")
                process.setgid(OURSELVES.gid)
                process.setuid(OURSELVES.uid)
                yield SyscallTarget(process)
            await init.unmount(b"mnt")
        await kernel.unmount(root)
