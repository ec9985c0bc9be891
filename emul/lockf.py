"""Byte-range advisory locks (fcntl's, and flock's), for file systems that keep them themselves.

A file system's `advlock` is a call of `lf_advlock`. The locks of a file are kept beside its
vnode while there are any: who has locks has the file open, so that the vnode cannot go away
but by force.

Rules of POSIX: a lock belongs to an owner, who never conflicts with himself. What he locks
anew takes the place of what he had there, pieces of the same kind that touch become one, and
an unlock may cut one in two. Many may read-lock a range, or one write-lock it. The locks of
flock(2) are the same with owners of their own, and have nothing to do with the others.
"""

from __future__ import annotations

from errno import EAGAIN, EDEADLK, EINVAL, ENOLCK, ENXIO, EOVERFLOW
from fcntl import F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK
from typing import TYPE_CHECKING, Final, NamedTuple

from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from ..native.constants import F_FLOCK
from ..native.errors import VfsError
from ..native.records import Flock

if TYPE_CHECKING:
    from .vnode import Vnode

LOCKS_MAX: Final = 8192
"""How many locks a kernel keeps. (An unlock that cuts one in two may go beyond.)"""
_OFF_MAX: Final = 2**63 - 1


class _Lock(NamedTuple):
    """A lock, or the wish for one: octets from `start` to before `end` (None: all that follow)."""

    owner: int
    type: int
    start: int
    end: int
    pid: int
    is_flock: bool

    def conflicts(self, other: _Lock) -> bool:
        """Whether both cannot be at the same time."""
        return (
            self.owner != other.owner
            and self.is_flock == other.is_flock
            and self.start < other.end
            and other.start < self.end
            and F_WRLCK in (self.type, other.type)
        )

    def flock(self) -> Flock:
        """Return it as callers know it."""
        length = 0 if self.end > _OFF_MAX else self.end - self.start
        return Flock(self.type, self.start, length, self.pid)


class _Wait:
    """A task that waits for a lock."""

    __slots__ = ("error", "lock", "task")

    def __init__(self, lock: _Lock, task: Task) -> None:
        self.lock = lock
        self.task = task
        self.error = 0


class _File:
    """The locks of one file, in order of their beginning, and who waits, oldest first."""

    __slots__ = ("locks", "waits")

    def __init__(self) -> None:
        self.locks: list[_Lock] = []
        self.waits: list[_Wait] = []


class Locked(NamedTuple):
    """The locks of one file, and the wishes of those who wait, oldest first, with their tasks."""

    vp: Vnode
    locks: tuple[Flock, ...]
    waiting: tuple[tuple[Flock, Task], ...]


class Lockf:
    """The advisory locks of one kernel."""

    def __init__(self) -> None:
        self._files: dict[Vnode, _File] = {}
        self._waiting: dict[int, list[tuple[_File, _Wait]]] = {}  # by owner
        self._count = 0

    def __len__(self) -> int:
        """Return the number of locks."""
        return self._count

    def snapshot(self) -> list[Locked]:
        """Return all locks of now."""
        return [
            Locked(
                vp,
                tuple(lock.flock() for lock in file.locks),
                tuple((wait.lock.flock(), wait.task) for wait in file.waits),
            )
            for vp, file in self._files.items()
        ]

    def getlk(self, vp: Vnode, wish: _Lock) -> Flock:
        """Return the first lock that stands in the way of `wish`, or an F_UNLCK of its range."""
        file = self._files.get(vp)
        if file is not None:
            for lock in file.locks:
                if lock.conflicts(wish):
                    return lock.flock()
        return wish._replace(type=F_UNLCK).flock()

    def setlk(self, vp: Vnode, wish: _Lock) -> bool:
        """Set the lock if nothing stands in its way; return whether it was set. Errors: ENOLCK."""
        file = self._files.get(vp)
        if file is None:
            file = _File()
        elif any(lock.conflicts(wish) for lock in file.locks):
            return False
        if self._count >= LOCKS_MAX:
            raise VfsError(ENOLCK)
        self._files[vp] = file
        self._change(file, wish)
        self._grant(vp, file)  # what was a write lock may be a read lock now
        return True

    def unlock(self, vp: Vnode, wish: _Lock) -> None:
        """Take away what the owner has in the range."""
        file = self._files.get(vp)
        if file is not None:
            self._change(file, wish)
            self._grant(vp, file)

    async def wait(self, vp: Vnode, wish: _Lock) -> None:
        """Wait for a lock that could not be set, until it was.

        Locks are handed over in the order of the wishes, so far as they are in each other's way.
        Cancelled, the owner has what he had before. Errors: EDEADLK; ENXIO, the vnode has died.
        """
        file = self._files[vp]
        if not wish.is_flock and self._would_deadlock(file, wish):
            raise VfsError(EDEADLK)
        wait = _Wait(wish, current_task())
        entry = (file, wait)
        file.waits.append(wait)
        self._waiting.setdefault(wish.owner, []).append(entry)

        def abort(_: RaiseCancelT) -> Abort:
            file.waits.remove(wait)
            self._end_wait(file, wait)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
        if wait.error:
            raise VfsError(wait.error, "the vnode is dead")

    def forget(self, vp: Vnode) -> None:
        """Drop the locks of a vnode that has died; who waits hears ENXIO."""
        file = self._files.pop(vp, None)
        if file is None:
            return
        self._count -= len(file.locks)
        for wait in file.waits:
            wait.error = ENXIO
            self._end_wait(file, wait)
            reschedule(wait.task)

    def _change(self, file: _File, wish: _Lock) -> None:
        """Put `wish` in the place of what its owner has in the range."""
        owner, kind, start, end, pid, is_flock = wish
        kept: list[_Lock] = []
        for lock in file.locks:
            if lock.owner != owner or lock.is_flock != is_flock:
                kept.append(lock)
            elif lock.end < start or end < lock.start:
                kept.append(lock)
            elif lock.type == kind:  # they touch at least: one lock of both
                start, end = min(start, lock.start), max(end, lock.end)
            else:
                if lock.start < start:
                    kept.append(lock._replace(end=min(start, lock.end)))
                if lock.end > end:
                    kept.append(lock._replace(start=max(end, lock.start)))
        if kind != F_UNLCK:
            kept.append(_Lock(owner, kind, start, end, pid, is_flock))
        kept.sort(key=_start_of)
        self._count += len(kept) - len(file.locks)
        file.locks = kept

    def _grant(self, vp: Vnode, file: _File) -> None:
        """Give their locks to those who can have them now."""
        for wait in file.waits.copy():
            if not any(lock.conflicts(wait.lock) for lock in file.locks):
                file.waits.remove(wait)
                self._change(file, wait.lock)
                self._end_wait(file, wait)
                reschedule(wait.task)
        if not file.locks:  # then nobody waits
            del self._files[vp]

    def _end_wait(self, file: _File, wait: _Wait) -> None:
        owner = wait.lock.owner
        waiting = self._waiting[owner]
        waiting.remove((file, wait))
        if not waiting:
            del self._waiting[owner]

    def _would_deadlock(self, file: _File, wish: _Lock) -> bool:
        """Whether somebody in the way of `wish` waits, by way of others perhaps, for its owner.

        An owner of whom one task waits counts as one who waits, as on Linux, though another task of
        his might let go.
        """
        seen: set[int] = set()
        todo = [(file, wish)]
        while todo:
            file, wanted = todo.pop()
            for lock in file.locks:
                if not lock.conflicts(wanted):
                    continue
                if lock.owner == wish.owner:
                    return True
                if lock.owner not in seen:
                    seen.add(lock.owner)
                    todo += [
                        (where, wait.lock) for where, wait in self._waiting.get(lock.owner, ())
                    ]
        return False


def _start_of(lock: _Lock) -> int:
    return lock.start


def _range(flock: Flock) -> tuple[int, int]:
    """Return where a lock begins and ends. Errors: EINVAL, EOVERFLOW."""
    start, length = flock.start, flock.len
    if length < 0:  # the octets before `start`
        start, length = start + length, -length
    if start < 0:
        raise VfsError(EINVAL)
    if start > _OFF_MAX or start + length - 1 > _OFF_MAX:
        raise VfsError(EOVERFLOW)
    return start, start + length if length else _OFF_MAX + 1


async def lf_advlock(vp: Vnode, owner: int, op: int, flock: Flock, flags: int = 0) -> Flock:
    """Lock, unlock or test a range of `vp` for `owner`, as `FileSystem.advlock` says.

    With F_FLOCK in `flags` it is one of flock(2), in which nobody looks for a deadlock.
    Does not yield unless F_SETLKW has to wait. Errors, first match wins:
        EINVAL     `op` or the type is none; the range begins before 0
        EOVERFLOW  the range ends behind the largest offset
        EAGAIN     F_SETLK: somebody else has a lock in the way
        EDEADLK    F_SETLKW: who has it waits for `owner`, directly or by way of others
        ENOLCK     more locks than a kernel keeps
        ENXIO      the vnode has died while F_SETLKW waited
    """
    kind = flock.type
    if op not in (F_GETLK, F_SETLK, F_SETLKW) or kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise VfsError(EINVAL)
    if op == F_GETLK and kind == F_UNLCK:
        raise VfsError(EINVAL)
    start, end = _range(flock)
    wish = _Lock(owner, kind, start, end, flock.pid, bool(flags & F_FLOCK))
    lockf = vp.mount.kernel.lockf
    if op == F_GETLK:
        return lockf.getlk(vp, wish)
    if kind == F_UNLCK:
        lockf.unlock(vp, wish)
    elif not lockf.setlk(vp, wish):
        if op == F_SETLK:
            raise VfsError(EAGAIN)
        await lockf.wait(vp, wish)
    return flock
