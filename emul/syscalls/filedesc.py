"""Open files, and the table by which a process numbers them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EBADF, EBUSY, EMFILE
from types import TracebackType
from typing import Final

from ...native.errors import VfsError
from ...native.records import Cred
from ..lock import VnodeLock
from ..vnode import Vnode
from ..vnops import vn_rele

NOFILE: Final = 1024
"""How many descriptors a process may have, unless it is made with another limit."""


class File:
    """One open file, shared by all descriptors that `dup` and `fork` made of it.

    Owns a reference on `f_vp` and, unless it is there for its path alone, one open of it with
    `f_mode` (FREAD, FWRITE, FAPPEND; 0 for O_PATH). `f_flag` are the flags of open(2) that F_GETFL
    tells and F_SETFL may have changed since. `f_offset`, octets (directories: what readdir said),
    is changed by who holds `f_lock`.
    `f_cred` is whose open it was. Every descriptor counts in `f_count`, and every call that uses
    the file, as `async with`: a file that is closed meanwhile lives until the call is done.
    """

    __slots__ = ("f_count", "f_cred", "f_flag", "f_lock", "f_mode", "f_offset", "f_vp", "is_path")

    def __init__(self, vp: Vnode, mode: int, flag: int, cred: Cred) -> None:
        self.f_vp = vp
        self.f_mode = mode
        self.f_flag = flag
        self.f_cred = cred
        self.f_offset = 0
        self.f_count = 1
        self.f_lock = VnodeLock()
        self.is_path = bool(flag & os.O_PATH)

    async def drop(self) -> None:
        """Count one user off; the last one ends the open."""
        self.f_count -= 1
        if not self.f_count:
            vp = self.f_vp
            if not self.is_path:
                vp.fs.close(vp, self.f_mode, self.f_cred)
            await vn_rele(vp)

    async def __aenter__(self) -> File:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.f_count > 1:
            self.f_count -= 1
        else:
            await self.drop()


class FdTable:
    """Descriptors of one process, numbers from 0 to `limit` - 1. Nothing here waits.

    A number that is reserved is taken, but there is no file behind it yet.
    """

    __slots__ = ("_files", "_lowest", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._files: dict[int, File | None] = {}
        self._lowest = 0  # no number below is free

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[int]:
        """Return the numbers in use as they are now, in order."""
        return iter(sorted(self._files))

    def get(self, fd: int) -> File:
        """Return a file and count the caller as a user of it. Errors: EBADF."""
        file = self._files.get(fd)
        if file is None:
            raise VfsError(EBADF)
        file.f_count += 1
        return file

    def get_open(self, fd: int, mode: int = 0) -> File:
        """Return as `get` a file that was opened for all of `mode`. Errors: EBADF."""
        file = self._files.get(fd)
        if file is None or file.is_path or mode & ~file.f_mode:
            raise VfsError(EBADF)
        file.f_count += 1
        return file

    def has(self, fd: int, file: File) -> bool:
        """Whether `fd` is a descriptor of `file`."""
        return self._files.get(fd) is file

    def reserve(self, minimum: int = 0) -> int:
        """Return the lowest free number from `minimum` on. Errors: EMFILE."""
        files = self._files
        fd = max(minimum, self._lowest)
        while fd in files:
            fd += 1
        if fd >= self.limit:
            raise VfsError(EMFILE)
        files[fd] = None
        if minimum <= self._lowest:
            self._lowest = fd + 1
        return fd

    def cancel(self, fd: int) -> None:
        """Give back a number that was reserved."""
        del self._files[fd]
        self._lowest = min(self._lowest, fd)

    def install(self, fd: int, file: File) -> None:
        """Put `file`, with the caller's count of it, behind a number that was reserved."""
        self._files[fd] = file

    def replace(self, fd: int, file: File) -> File | None:
        """Put `file`, with the caller's count, behind `fd`; return what was there, with its count.

        Errors: EBADF (beyond the limit), EBUSY (reserved by another task of the process).
        """
        if not 0 <= fd < self.limit:
            raise VfsError(EBADF)
        if self._files.get(fd, file) is None:
            raise VfsError(EBUSY)
        before = self._files.get(fd)
        self._files[fd] = file
        return before

    def remove(self, fd: int) -> File:
        """Free a number; return the file with the number's count of it. Errors: EBADF."""
        file = self._files.get(fd)
        if file is None:
            raise VfsError(EBADF)
        self.cancel(fd)
        return file

    def copy(self) -> FdTable:
        """Return another table of the same files, each counted once more."""
        table = FdTable(self.limit)
        table._lowest = self._lowest
        for fd, file in self._files.items():
            if file is not None:
                file.f_count += 1
                table._files[fd] = file
            else:  # only the parent has the call that reserved it
                table._lowest = min(table._lowest, fd)
        return table
