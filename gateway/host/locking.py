"""Advisory locks of the host's programs, fcntl(2)'s and flock(2)'s, where a file server has them.

Without ADVLOCK below, the host is told nothing of it in INIT and keeps locks by itself, as it does
for most file systems: then this module is never asked.

A lock ends with the file at the latest, whoever forgot it: fcntl's when its owner closes any
descriptor of the file (FLUSH says who closes), flock's and those of open file descriptions with
the open that they were taken through (RELEASE). Who waits keeps a task, but no place among the
requests that may wait at a time: the request that unlocks must be read. A signal ends the wait at
once; that a lock came in the same moment is possible, and it ends with the file then.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_GETLK, F_SETLK, F_SETLKW, F_UNLCK
from typing import TYPE_CHECKING, Any, Final

import trio

from ...native import device_replies as replies
from ...native.constants import F_FLOCK, KFlag, VnOp
from ...native.device_requests import Request
from ...native.errors import VfsError
from ...native.fuse_protocol import LK_FLOCK, InitFlag, Lock, Opcode
from ...native.records import Flock, Kargs

if TYPE_CHECKING:
    from .handlers import FuseEnd
    from .nodes import Node

LOCKERS_MAX: Final = 4096
"""Requests that may wait for a lock at a time; another one hears ENOLCK."""
_U64: Final = 2**64 - 1
_EVERYTHING: Final = Flock(F_UNLCK, 0, 0, 0)


def lock_flags(kargs: Kargs) -> InitFlag:
    """Return which locks the host is to leave to the server."""
    if VnOp.ADVLOCK not in kargs.ops:
        return InitFlag(0)
    if kargs.kflags & KFlag.LOCAL_FLOCK:
        return InitFlag.POSIX_LOCKS
    return InitFlag.POSIX_LOCKS | InitFlag.FLOCK_LOCKS


class Locking:
    """The handlers of these requests, for one host end, and who has locks through which open."""

    def __init__(self, end: FuseEnd) -> None:
        self._end = end
        self.handlers: dict[int, Callable[..., Any]] = {
            Opcode.GETLK: self.getlk,
            Opcode.SETLK: self.setlk,
            Opcode.SETLKW: self.setlkw,
        }
        self._posix: dict[int, dict[int, int]] = {}  # by node: owners, and through which open
        self._flock: dict[int, int] = {}  # by open: the owner
        self._waiting: dict[int, trio.CancelScope] = {}

    async def getlk(self, request: Request, fh: int, owner: int, *lock: int) -> bytes:
        """Tell a lock that is in the way."""
        node = self._end.files.opened(fh).node
        flock, flags = _asked(*lock)
        found = await self._end.server.advlock(node.cookie, owner & _U64, F_GETLK, flock, flags)
        return replies.lock(request.unique, *Lock.of(found))

    async def setlk(self, request: Request, fh: int, owner: int, *lock: int) -> bytes:
        """Lock or unlock, or fail at once. Errors: EAGAIN."""
        await self._set(F_SETLK, fh, owner, *lock)
        return replies.error(request.unique, 0)

    async def setlkw(self, request: Request, fh: int, owner: int, *lock: int) -> bytes:
        """Lock as soon as that can be. Errors: EINTR a signal; ENOLCK too many wait."""
        if len(self._waiting) >= LOCKERS_MAX:
            raise VfsError(errno.ENOLCK)
        with trio.CancelScope() as scope:
            self._waiting[request.unique] = scope
            try:
                await self._set(F_SETLKW, fh, owner, *lock)
            finally:
                del self._waiting[request.unique]
        if scope.cancelled_caught:
            raise VfsError(errno.EINTR)
        return replies.error(request.unique, 0)

    async def _set(self, op: int, fh: int, owner: int, *lock: int) -> None:
        node = self._end.files.opened(fh).node
        flock, flags = _asked(*lock)
        if flock.type != F_UNLCK:  # noted before: an operation that fails may have happened
            if flags & F_FLOCK:
                self._flock[fh] = owner
            else:
                self._posix.setdefault(node.ino, {})[owner] = fh
        await self._end.server.advlock(node.cookie, owner & _U64, op, flock, flags)

    def interrupt(self, unique: int) -> bool:
        """End the wait of a request for a lock; return whether it was one."""
        scope = self._waiting.get(unique)
        if scope is None:
            return False
        scope.cancel()
        return True

    async def closed(self, node: Node, owner: int) -> None:
        """Hear that `owner` has closed a descriptor of a file: his locks on it end."""
        owners = self._posix.get(node.ino)
        if owners is not None and owners.pop(owner, None) is not None:
            if not owners:
                del self._posix[node.ino]
            await self._unlock(node, owner, 0)

    async def released(self, node: Node, fh: int) -> None:
        """Hear that an open has ended: the locks that were taken through it end."""
        owner = self._flock.pop(fh, None)
        if owner is not None:
            await self._unlock(node, owner, F_FLOCK)
        for owner, through in list(self._posix.get(node.ino, {}).items()):
            if through == fh:
                await self.closed(node, owner)

    async def _unlock(self, node: Node, owner: int, flags: int) -> None:
        # A server that fails here has gone, and its locks with it.
        with suppress(VfsError):
            await self._end.server.advlock(node.cookie, owner & _U64, F_SETLK, _EVERYTHING, flags)


def _asked(start: int, end: int, kind: int, pid: int, lk_flags: int) -> tuple[Flock, int]:
    """Return what is asked as a file server takes it. Errors: EINVAL."""
    if end < start:
        raise VfsError(errno.EINVAL)
    return Lock(start, end, kind, pid).flock(), F_FLOCK if lk_flags & LK_FLOCK else 0
