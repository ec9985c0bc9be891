"""Krwlock: many readers or one writer, first come, first served."""

from __future__ import annotations

from typing import Final

from ..lock import VnodeLock
from .kthread import Lwp, curlwp

RW_READER: Final = 0
RW_WRITER: Final = 1


class Krwlock:
    """A vnode lock with a name that knows its writer.

    The rules are VnodeLock's: no yield when it is free, waiters served in order of arrival, neither
    kind starved, not recursive. A writer that enters again, or exits what is another's, is told so;
    readers are only counted.
    """

    __slots__ = ("_lock", "_writer", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = VnodeLock()
        # None for a moment after the lock was handed to a writer that has not run yet.
        self._writer: Lwp | None = None

    def __repr__(self) -> str:
        writer = "" if self._writer is None else f" writer={self._writer.name}"
        return f"<Krwlock {self.name}{writer} {self._lock!r}>"

    @property
    def lock_held(self) -> bool:
        """Whether anybody holds it."""
        return self._lock.is_locked

    def write_held(self) -> bool:
        """Return whether the caller is its writer."""
        return self._writer is not None and self._writer is curlwp()

    async def enter(self, op: int) -> None:
        """Take it as `op` says. RuntimeError: the caller is its writer already."""
        if not self.tryenter(op):
            if self.write_held():
                raise RuntimeError(f"{curlwp().name} enters {self!r} against itself")
            if op == RW_WRITER:
                await self._lock.exclusive()
                self._writer = curlwp()
            else:
                await self._lock.shared()

    def tryenter(self, op: int) -> bool:
        """Take it as `op` says if that needs no waiting; return whether it was taken."""
        if op == RW_WRITER:
            if not self._lock.try_exclusive():
                return False
            self._writer = curlwp()
            return True
        return self._lock.try_shared()

    def exit(self) -> None:
        """Give up one hold. RuntimeError: nobody holds it, or another one as a writer."""
        if self._lock.is_exclusive:
            self._let_go("exit")
        self._lock.release()

    def tryupgrade(self) -> bool:
        """Turn the caller's hold as a reader into the writer's if there is no other reader."""
        if not self._lock.tryupgrade():
            return False
        self._writer = curlwp()
        return True

    def downgrade(self) -> None:
        """Turn the writer's hold into a reader's. RuntimeError: the caller is not its writer."""
        self._let_go("downgrade")
        self._lock.downgrade()

    def destroy(self) -> None:
        """End it. RuntimeError: somebody holds it."""
        if self._lock.is_locked:
            raise RuntimeError(f"destroy of {self!r}")

    def _let_go(self, what: str) -> None:
        if not self.write_held():
            raise RuntimeError(f"{what} of {self!r} by {curlwp().name}, who is not its writer")
        self._writer = None
