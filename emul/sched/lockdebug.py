"""LockDebug: locks that know who holds them and watch over their use.

The locks of a kernel are of these classes if it has a `lockdebug`, and of the plain ones, which
know nothing of all this, if it has not: `mutex_init` and `rw_init` choose, and who makes vnodes
chooses their lock. What is found wrong is raised in the offender and kept for `report`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from ..lock import EXCLUSIVE_HOLD, UPGRADE, VnodeLock
from .callers import Callers, callers
from .kthread import Lwp, curlwp
from .lockorder import LockOrder, Ordered
from .mutex import Mutex
from .rwlock import Krwlock

if TYPE_CHECKING:
    from ..kernel import Kernel

_COMPLAINTS_MAX: Final = 100
"""How many complaints are kept: the first ones tell most."""


class LockOrderError(RuntimeError):
    """Two tasks may come to wait for each other. The lock was not taken."""


class DebugLock(Ordered, Protocol):
    """What LockDebug needs to know of a lock."""

    @property
    def holders(self) -> list[Hold]:
        """Who holds it; changed by LockDebug only."""
        ...


@dataclass(slots=True, eq=False)
class Hold:
    """That `lwp` holds `lock`, since it took it `at` some place."""

    lock: DebugLock
    lwp: Lwp
    exclusive: bool
    at: Callers

    def __str__(self) -> str:
        kind = "exclusive" if self.exclusive else "shared"
        return f"{self.lock} held {kind} by {self.lwp.name}, taken at {self.at}"


class LockDebug:
    """The locks of one kernel that are held, the order in which they are taken, and complaints."""

    def __init__(self) -> None:
        self.order = LockOrder()
        self._held: dict[Lwp, list[Hold]] = {}
        self._complaints: list[str] = []

    def holds(self, lock: DebugLock, lwp: Lwp | None = None, exclusive: bool | None = None) -> bool:
        """Return whether `lwp` (the caller) holds `lock`, and exclusively or shared if it says."""
        if lwp is None:
            lwp = curlwp()
        return any(hold.lwp is lwp and exclusive in (None, hold.exclusive) for hold in lock.holders)

    def held_by(self, lwp: Lwp | None = None) -> tuple[Hold, ...]:
        """Return what `lwp` (the caller) holds, oldest first."""
        return tuple(self._held.get(curlwp() if lwp is None else lwp, ()))

    def report(self) -> list[str]:
        """Return a line for each complaint so far, and for each lock that is held now."""
        return self._complaints + [
            f"still held: {hold}" for holds in self._held.values() for hold in holds
        ]

    def forget(self, lock: DebugLock) -> None:
        """Forget the order of a vnode lock among its like: the vnode is dead, or was renamed."""
        self.order.forget(lock)

    def complain(self, text: str) -> None:
        """Keep a line for `report`."""
        if len(self._complaints) < _COMPLAINTS_MAX:
            self._complaints.append(text)

    # For the locks.

    def want(self, lock: DebugLock, *, again: bool = False) -> None:
        """Hear that the caller may wait for `lock`; `again`: although it holds it.

        Raises LockOrderError, or RuntimeError if the caller would wait for itself.
        """
        lwp = curlwp()
        held = self._held.get(lwp)
        if not held:
            return
        at = callers()
        others = []
        for hold in held:
            if hold.lock is not lock:
                others.append(hold)
            elif not again:
                self._fail(f"{lwp.name} wants {lock} at {at}, but has it: {hold}")
        wrong = self.order.enter(lwp, others, lock, at)
        if wrong is not None:
            self.complain(wrong)
            raise LockOrderError(wrong)

    def took(self, lock: DebugLock, exclusive: bool) -> None:
        """Hear that the caller has taken `lock`."""
        lwp = curlwp()
        hold = Hold(lock, lwp, exclusive, callers())
        lock.holders.append(hold)
        self._held.setdefault(lwp, []).append(hold)

    def check(self, lock: DebugLock, what: str, exclusive: bool | None = None) -> Hold:
        """Return the caller's hold, of that kind. RuntimeError: there is none."""
        lwp = curlwp()
        for hold in reversed(lock.holders):
            if hold.lwp is lwp and exclusive in (None, hold.exclusive):
                return hold
        holders = ", ".join(map(str, lock.holders)) or "nobody holds it"
        self._fail(f"{what} of {lock} by {lwp.name} at {callers()}, but: {holders}")

    def gave_up(self, lock: DebugLock, what: str) -> None:
        """Hear that the caller gives up one hold. RuntimeError: it has none."""
        hold = self.check(lock, what)
        lock.holders.remove(hold)
        held = self._held[hold.lwp]
        held.remove(hold)
        if not held:
            del self._held[hold.lwp]

    def _fail(self, text: str) -> NoReturn:
        self.complain(text)
        raise RuntimeError(text)


class DebugVnodeLock(VnodeLock):
    """A vnode lock under LockDebug. `name` tells it from others of its class in reports."""

    __slots__ = ("_debug", "_name", "has_instances", "holders", "lock_class")

    def __init__(
        self, debug: LockDebug, lock_class: str, name: str = "", *, has_instances: bool = True
    ) -> None:
        super().__init__()
        self.lock_class = lock_class
        self.has_instances = has_instances
        self.holders: list[Hold] = []
        self._debug = debug
        self._name = name

    def __str__(self) -> str:
        return f"{self.lock_class} {self._name}".rstrip()

    def try_shared(self) -> bool:
        """See VnodeLock. No order is noted: who tries does not wait."""
        if not super().try_shared():
            return False
        self._debug.took(self, False)
        return True

    def try_exclusive(self) -> bool:
        """See VnodeLock. No order is noted: who tries does not wait."""
        if not super().try_exclusive():
            return False
        self._debug.took(self, True)
        return True

    async def shared(self) -> None:
        """See VnodeLock. Errors: as `LockDebug.want`."""
        self._debug.want(self)
        await super().shared()

    async def exclusive(self) -> None:
        """See VnodeLock. Errors: as `LockDebug.want`."""
        self._debug.want(self)
        await super().exclusive()

    def tryupgrade(self) -> bool:
        """See VnodeLock. RuntimeError: the caller does not hold it shared."""
        hold = self._debug.check(self, "upgrade", False)
        if not super().tryupgrade():
            return False
        hold.exclusive = True
        return True

    async def upgrade(self) -> bool:
        """See VnodeLock. Errors: as `LockDebug.want`; the caller does not hold it shared."""
        self._debug.want(self, again=True)
        return await super().upgrade()

    def downgrade(self) -> None:
        """See VnodeLock. RuntimeError: the caller does not hold it exclusively."""
        hold = self._debug.check(self, "downgrade", True)
        super().downgrade()
        hold.exclusive = False

    def release(self) -> None:
        """See VnodeLock. RuntimeError: the caller does not hold it."""
        self._debug.gave_up(self, "release")
        super().release()

    async def _wait(self, want: int) -> None:
        await super()._wait(want)
        if want == UPGRADE:
            self._debug.check(self, "upgrade", False).exclusive = True
        else:
            self._debug.took(self, want == EXCLUSIVE_HOLD)


class DebugMutex(Mutex):
    """A mutex under LockDebug."""

    __slots__ = ("_debug", "holders", "lock_class")

    has_instances: Final = False

    def __init__(self, debug: LockDebug, name: str) -> None:
        super().__init__(name)
        self.lock_class = f"mutex {name}"
        self.holders: list[Hold] = []
        self._debug = debug

    def __str__(self) -> str:
        return self.lock_class

    def try_enter(self) -> bool:
        """See Mutex. No order is noted: who tries does not wait."""
        if not super().try_enter():
            return False
        self._debug.took(self, True)
        return True

    async def enter(self) -> None:
        """See Mutex. Errors: as `LockDebug.want`."""
        self._debug.want(self)
        await super().enter()

    async def __aenter__(self) -> None:
        await self.enter()

    def exit(self) -> None:
        """See Mutex."""
        self._debug.gave_up(self, "exit")
        super().exit()

    def exit_to_sleep(self) -> None:
        """See Mutex. Who comes back from a sleep enters once more: errors as `LockDebug.want`."""
        self._debug.want(self, again=True)
        self.exit()

    def entered(self) -> None:
        """See Mutex."""
        self._debug.took(self, True)

    def destroy(self) -> None:
        """See Mutex."""
        try:
            super().destroy()
        except RuntimeError as exc:
            self._debug.complain(f"{exc} at {callers()}")
            raise

    async def _wait(self) -> None:
        await super()._wait()
        self._debug.took(self, True)


class DebugKrwlock(Krwlock):
    """A reader/writer lock under LockDebug."""

    __slots__ = ("_debug",)

    _lock: DebugVnodeLock

    def __init__(self, debug: LockDebug, name: str) -> None:
        super().__init__(name)
        self._lock = DebugVnodeLock(debug, f"rwlock {name}", has_instances=False)
        self._debug = debug

    async def enter(self, op: int) -> None:
        """See Krwlock. Errors: as `LockDebug.want`."""
        self._debug.want(self._lock)
        await super().enter(op)

    def exit(self) -> None:
        """See Krwlock; readers are known here, too."""
        self._debug.check(self._lock, "exit")
        super().exit()

    def downgrade(self) -> None:
        """See Krwlock."""
        self._debug.check(self._lock, "downgrade", True)
        super().downgrade()

    def destroy(self) -> None:
        """See Krwlock."""
        try:
            super().destroy()
        except RuntimeError as exc:
            self._debug.complain(f"{exc} at {callers()}")
            raise


def mutex_init(kernel: Kernel, name: str) -> Mutex:
    """Return a new mutex of `kernel`; all of one name are one class to the order of locks."""
    debug = kernel.lockdebug
    return Mutex(name) if debug is None else DebugMutex(debug, name)


def rw_init(kernel: Kernel, name: str) -> Krwlock:
    """Return a new reader/writer lock of `kernel`; `name` as for `mutex_init`."""
    debug = kernel.lockdebug
    return Krwlock(name) if debug is None else DebugKrwlock(debug, name)
