"""System calls on descriptors: close, duplicate, flags, readiness."""

from __future__ import annotations

import fcntl
import math
import os
import select
from collections.abc import Iterable
from errno import EINVAL
from typing import Final

import trio

from ...native.constants import FSYNC_CLOSE, FWRITE
from ...native.errors import VfsError
from ..vnops import vn_fsync
from .filedesc import File
from .locks import LockCalls

POLL_INTERVAL: Final = 0.05
"""How often `poll` asks again, seconds: a file system says what is ready, and not when."""

_F_DUPFD_CLOEXEC: Final = 1030
_SETTABLE: Final = os.O_APPEND | os.O_NONBLOCK


class DescriptorCalls(LockCalls):
    """Calls on descriptors, whatever is behind them."""

    async def close(self, fd: int) -> None:
        """Close a descriptor; it is closed whatever is said.

        The record locks of this process on the file go. Of a file open for writing, data that wait
        to be written are handed to where close(2) promises them, and what went wrong is said here
        (EIO, ENOSPC, EDQUOT and others of the file system). Errors: EBADF.
        """
        await self._close(self.files.remove(fd))

    async def _close(self, file: File) -> None:
        """End one descriptor's use of `file`, whose count comes from the caller."""
        async with file:
            vp = file.f_vp
            try:
                if file.f_mode & FWRITE:
                    await vn_fsync(vp, FSYNC_CLOSE, 0, 0, file.f_cred)
            finally:
                await self.unlock_all(vp)

    def dup(self, fd: int, minimum: int = 0) -> int:
        """Return the lowest free number (from `minimum` on) for the same open file.

        Errors: EBADF, EMFILE.
        """
        file = self.files.get(fd)
        try:
            new = self.files.reserve(minimum)
        except VfsError:
            file.f_count -= 1  # not the last one, for `fd` has its own
            raise
        self.files.install(new, file)
        return new

    async def dup2(self, fd: int, new: int) -> int:
        """Let `new` be the same open file as `fd`; what it was before is closed, errors unheard.

        Errors: EBADF, EBUSY (another task is opening a file with that number).
        """
        file = self.files.get(fd)
        if fd == new:
            file.f_count -= 1
            return new
        try:
            before = self.files.replace(new, file)
        except VfsError:
            file.f_count -= 1
            raise
        if before is not None:
            try:
                await self._close(before)
            except VfsError:
                pass  # as Linux has it: who wants to know calls close
        return new

    async def fcntl(self, fd: int, cmd: int, arg: int = 0) -> int:
        """Do what F_DUPFD, F_GETFD, F_SETFD, F_GETFL and F_SETFL do (locks: see `setlk`).

        Descriptors are never closed on exec, for there is none. Of the flags of the open file,
        O_APPEND and O_NONBLOCK can be changed. Errors: EBADF, EINVAL, EMFILE.
        """
        if cmd in (fcntl.F_DUPFD, _F_DUPFD_CLOEXEC):
            if not 0 <= arg < self.files.limit:
                raise VfsError(EINVAL)
            return self.dup(fd, arg)
        async with self.files.get(fd) as file:
            if cmd in (fcntl.F_GETFD, fcntl.F_SETFD):
                return 0
            if cmd == fcntl.F_GETFL:
                return file.f_flag
            if cmd != fcntl.F_SETFL:
                raise VfsError(EINVAL)
            if not file.is_path:
                file.f_flag = (file.f_flag & ~_SETTABLE) | (arg & _SETTABLE)
            return 0

    async def poll(
        self, fds: Iterable[tuple[int, int]], timeout: float | None = None
    ) -> list[tuple[int, int]]:
        """Return those of `fds` (descriptor, events) of which something is ready, and what.

        Waits `timeout` seconds for one of them, for ever with None. A descriptor that is not open
        is ready with POLLNVAL, a negative one never.
        """
        wanted = [(fd, events) for fd, events in fds if fd >= 0]
        ready = await self._poll_all(wanted)
        if ready or timeout == 0:
            return ready
        with trio.move_on_after(math.inf if timeout is None else timeout):
            while not ready:
                await trio.sleep(POLL_INTERVAL)
                ready = await self._poll_all(wanted)
        return ready

    async def _poll_all(self, wanted: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(fd, ready) for fd, events in wanted if (ready := await self._poll(fd, events))]

    async def _poll(self, fd: int, events: int) -> int:
        try:
            file = self.files.get_open(fd)
        except VfsError:
            return select.POLLNVAL
        async with file:
            return await file.f_vp.fs.poll(file.f_vp, events)
