"""System calls on record locks (fcntl: F_GETLK, F_SETLK, F_SETLKW)."""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, EOPNOTSUPP
from fcntl import F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK
from typing import Final

from ...native.constants import FREAD, FWRITE
from ...native.errors import VfsError
from ...native.records import Flock
from ..lockf import lf_advlock
from ..vnode import Vnode
from ..vnops import vn_getattr
from .filedesc import File
from .proc import Proc

_NEEDED: Final = {F_RDLCK: FREAD, F_WRLCK: FWRITE, F_UNLCK: 0}
_EVERYTHING: Final = Flock(F_UNLCK, 0, 0, 0)


class LockCalls(Proc):
    """Record locks: of ranges of a file, each held by a process, not by a descriptor.

    A file system that keeps no locks of its own has the kernel keep them.
    """

    async def fcntl_lock(self, fd: int, cmd: int, flock: Flock, whence: int = os.SEEK_SET) -> Flock:
        """Lock, unlock or test a range; `flock.pid` is not regarded.

        F_SETLK does not wait for a lock that somebody has, F_SETLKW does. Returns what F_GETLK
        fills in: the first lock in the way with its pid, or F_UNLCK. `flock.start` counts from
        where `whence` says; a negative `flock.len` means the octets before it.

        Errors, first match wins:
            EBADF      `fd`; to lock for reading (writing) what is not open for that
            EINVAL     `cmd`, `whence` or type; the range begins before the file does
            EOVERFLOW  the range ends too far away
            EAGAIN     F_SETLK: there is a lock in the way
            EDEADLK    F_SETLKW: who has it waits for this process
            ENOLCK     too many locks
        """
        if cmd not in (F_GETLK, F_SETLK, F_SETLKW):
            raise VfsError(EINVAL)
        async with self.files.get_open(fd) as file:
            if flock.type not in _NEEDED:
                raise VfsError(EINVAL)
            if cmd != F_GETLK and _NEEDED[flock.type] & ~file.f_mode:
                raise VfsError(EBADF)
            vp = file.f_vp
            start = flock.start + await _origin(file, whence)
            got = await self._advlock(vp, cmd, flock._replace(start=start, pid=self.pid))
            if cmd != F_GETLK and flock.type != F_UNLCK:
                self._locked.add(vp)
                if not self.files.has(fd, file):  # closed while we waited: too late to lock
                    await self.unlock_all(vp)
                    raise VfsError(EBADF)
            return got

    async def unlock_all(self, vp: Vnode) -> None:
        """Release all locks of this process on a file; cannot fail."""
        if vp in self._locked:
            self._locked.remove(vp)
            try:
                await self._advlock(vp, F_SETLK, _EVERYTHING._replace(pid=self.pid))
            except VfsError:
                pass  # the file system has gone, and its locks with it

    async def _advlock(self, vp: Vnode, cmd: int, flock: Flock) -> Flock:
        try:
            return await vp.fs.advlock(vp, self.pid, cmd, flock, 0)
        except VfsError as exc:
            if exc.errno != EOPNOTSUPP:
                raise
            return await lf_advlock(vp, self.pid, cmd, flock)


async def _origin(file: File, whence: int) -> int:
    if whence == os.SEEK_SET:
        return 0
    if whence == os.SEEK_CUR:
        return file.f_offset
    if whence != os.SEEK_END:
        raise VfsError(EINVAL)
    va = await vn_getattr(file.f_vp, file.f_cred)
    return file.f_vp.size if va.size is None else va.size
