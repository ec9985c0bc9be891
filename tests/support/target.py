"""Target: what programs can do with a tree, the same for every stack under test.

A test body is written once against this surface. Paths are octets relative to
the root of the tree ("" is the root itself) and are walked as Linux walks them;
failure is always `OSError` with the errno a program would see.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, NoReturn

from syspuffs.native import records
from syspuffs.native.records import Buffer, Flock

UMASK: Final = 0o022
"""In force in every stack: the mode of a new node is what was asked for without these bits."""

UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2
"""For `Target.utimens` in place of a time in ns, as utimensat(2) has them."""


def fail(number: int, path: bytes | None = None) -> NoReturn:
    """Raise the `OSError` for `number`."""
    raise OSError(number, os.strerror(number), path)


class Stat(NamedTuple):
    """What stat(2) tells; times are ns."""

    mode: int
    ino: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int

    @property
    def kind(self) -> int:
        """The type bits of the mode."""
        return stat.S_IFMT(self.mode)

    @property
    def perm(self) -> int:
        """The permission bits of the mode."""
        return stat.S_IMODE(self.mode)


class DirEntry(NamedTuple):
    """One entry of a directory; `kind` has the type bits of a mode, 0 for "not told"."""

    name: bytes
    kind: int
    ino: int


class Statvfs(NamedTuple):
    """What statvfs(3) tells, the fields that are tested."""

    bsize: int
    frsize: int
    blocks: int
    bfree: int
    bavail: int
    namemax: int


def system_statvfs(got: records.Statvfs) -> Statvfs:
    """Return what statvfs(3) would tell for a file system's own answer."""
    return Statvfs(got.bsize, got.frsize, got.blocks, got.bfree, got.bavail, got.namemax)


class File(ABC):
    """An open file. Closed once; as a context manager it closes itself."""

    @abstractmethod
    async def pread(self, length: int, offset: int) -> bytes: ...

    @abstractmethod
    async def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of `data`; with O_APPEND the offset is not regarded. Return its length."""

    @abstractmethod
    async def ftruncate(self, length: int) -> None: ...

    @abstractmethod
    async def fsync(self) -> None: ...

    @abstractmethod
    async def fstat(self) -> Stat: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def __aenter__(self) -> File:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class DirStream(ABC):
    """An open directory, read from the start to the end in portions."""

    @abstractmethod
    async def read(self) -> list[DirEntry]:
        """Return the next entries, "." and ".." among them; an empty list at the end."""

    @abstractmethod
    async def close(self) -> None: ...

    async def __aenter__(self) -> DirStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Locker(ABC):
    """Another process, which has an open file and locks ranges of it as fcntl(2) does.

    `kind` is F_RDLCK, F_WRLCK or F_UNLCK; a `length` of 0 means to the end and beyond.
    """

    pid: int

    @abstractmethod
    async def setlk(self, kind: int, start: int, length: int) -> None:
        """Lock or unlock a range, without waiting."""

    @abstractmethod
    async def getlk(self, kind: int, start: int, length: int) -> Flock:
        """Return the first lock in the way of such a one, or F_UNLCK."""


class Target(ABC):
    """A tree under test. `origin` is the directory of the host behind it, where there is one."""

    origin: Path | None = None
    race_errors: frozenset[int] = frozenset()
    """Errnos that a call may meet, beside the proper ones, when others rename what it works on."""

    @abstractmethod
    async def open(self, path: bytes, flags: int, mode: int = 0o666) -> File: ...

    @abstractmethod
    async def opendir(self, path: bytes) -> DirStream: ...

    @abstractmethod
    async def stat(self, path: bytes) -> Stat: ...

    @abstractmethod
    async def lstat(self, path: bytes) -> Stat: ...

    @abstractmethod
    async def access(self, path: bytes, mode: int) -> bool: ...

    @abstractmethod
    async def mkdir(self, path: bytes, mode: int = 0o777) -> None: ...

    @abstractmethod
    async def rmdir(self, path: bytes) -> None: ...

    @abstractmethod
    async def unlink(self, path: bytes) -> None: ...

    @abstractmethod
    async def rename(self, old: bytes, new: bytes) -> None: ...

    @abstractmethod
    async def link(self, old: bytes, new: bytes) -> None:
        """Give `old` one more name; a symbolic link is linked itself, not followed."""

    @abstractmethod
    async def symlink(self, target: bytes, path: bytes) -> None: ...

    @abstractmethod
    async def readlink(self, path: bytes) -> bytes: ...

    @abstractmethod
    async def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None: ...

    @abstractmethod
    async def chmod(self, path: bytes, mode: int) -> None: ...

    @abstractmethod
    async def chown(self, path: bytes, uid: int, gid: int, *, follow: bool = True) -> None:
        """Change owner and group; -1 leaves one as it is."""

    @abstractmethod
    async def utimens(self, path: bytes, atime: int, mtime: int, *, follow: bool = True) -> None:
        """Set times, ns or UTIME_NOW or UTIME_OMIT."""

    @abstractmethod
    async def truncate(self, path: bytes, length: int) -> None: ...

    @abstractmethod
    async def statvfs(self) -> Statvfs: ...

    @abstractmethod
    async def sync(self) -> None:
        """Write everything out."""

    @abstractmethod
    async def getfh(self, path: bytes) -> bytes:
        """Return the handle of a file: a name for the file itself, which outlives its names."""

    @abstractmethod
    async def fhopen(self, handle: bytes, flags: int) -> File:
        """Open what a handle names."""

    @abstractmethod
    def at(self, path: bytes) -> AbstractAsyncContextManager[Target]:
        """Return the tree for somebody who has `path` as his working directory."""

    @abstractmethod
    def as_user(self, uid: int, gid: int) -> AbstractAsyncContextManager[Target]:
        """Return the tree for another user, who has no further groups."""

    @abstractmethod
    def locker(self, path: bytes) -> AbstractAsyncContextManager[Locker]:
        """Return another process that has `path` open for reading and writing; it exits then."""

    # Made of the calls above.

    async def listdir(self, path: bytes = b"") -> list[bytes]:
        """Return the names in a directory, sorted, without "." and ".."."""
        names = []
        async with await self.opendir(path) as stream:
            while entries := await stream.read():
                names += [entry.name for entry in entries]
        return sorted(name for name in names if name not in (b".", b".."))

    async def write_file(self, path: bytes, data: Buffer, mode: int = 0o666) -> None:
        """Make or replace a file."""
        async with await self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode) as file:
            if len(data):
                await file.pwrite(data, 0)

    async def read_file(self, path: bytes) -> bytes:
        """Return a file's contents, read until a read returns nothing."""
        pieces = []
        offset = 0
        async with await self.open(path, os.O_RDONLY) as file:
            while piece := await file.pread(1 << 20, offset):
                pieces.append(piece)
                offset += len(piece)
        return b"".join(pieces)

    async def exists(self, path: bytes) -> bool:
        """Return whether there is such a name; a dangling link counts."""
        try:
            await self.lstat(path)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    async def verify(self) -> None:
        """Check at the end of a test that nothing was left behind; raise AssertionError."""
