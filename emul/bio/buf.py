"""Buf: one transfer between memory and a device, and the memory that it leaves behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from ...native.records import Buffer

if TYPE_CHECKING:
    from ..rumpuser import Disk
    from ..vnode import Vnode

B_READ: Final = 0x001
"""From the device to memory. Exactly one of B_READ and B_WRITE is set while a disk has it."""
B_WRITE: Final = 0x002
"""From memory to the device. (NetBSD's is 0; a mask can be tested.)"""
B_ASYNC: Final = 0x004
"""Nobody waits for it: `biodone` releases a cached buffer."""
B_BUSY: Final = 0x008
"""Somebody owns it: a task that works on its contents, or the disk."""
B_DONE: Final = 0x010
"""The transfer is over; of a cached buffer: its contents are valid."""
B_DELWRI: Final = 0x020
"""The contents are newer than the device's. Stays until a write has succeeded."""
B_INVAL: Final = 0x040
"""The contents are worth nothing; the buffer is dropped when it is released."""
B_NOCACHE: Final = 0x080
"""Not to be kept once it is clean and released."""
B_AGE: Final = 0x100
"""Will hardly be wanted again: first to go when memory is short."""
B_ORDERED: Final = 0x200
"""A barrier: reaches the medium after all writes begun before it, and before all begun later."""


class Buf:
    """A buffer. Made by `getblk` and its like (cached) or by `getiobuf` (an I/O buffer).

    `blkno` is the address on the device in units of DEV_BSIZE, `bcount` the length in octets; both
    never change for a cached buffer. Its memory is `data`, and belongs to who has made it busy, or
    to the disk during a transfer. An I/O buffer has no `data`; it goes between the device and
    `iov`, views of somebody else's memory, `bcount` octets in all.

    `vp` is the device's vnode for a cached buffer and the file's for page output: where writes
    are counted (`numoutput`). `dev` is the disk that has it, and None when none has.

    `error` is the errno with which the last transfer ended, 0 for success; a dirty buffer with an
    error could not be written and waits for the next sync. `resid` counts the octets that were
    not transferred. `iodone` is called once, by `biodone`, in the trio thread; it must not raise,
    and who sets it releases the buffer there. `private` is the issuer's.
    """

    __slots__ = (
        "bcount",
        "blkno",
        "data",
        "dev",
        "error",
        "flags",
        "iodone",
        "iov",
        "private",
        "resid",
        "vp",
        "waiters",
        "watchers",
    )

    def __init__(self, vp: Vnode, blkno: int, data: bytearray, iov: list[Buffer], flags: int):
        self.vp = vp
        self.blkno = blkno
        self.bcount = sum(map(len, iov))
        self.data = data
        self.iov = iov
        self.flags = flags
        self.error = 0
        self.resid = 0
        self.iodone: Callable[[Buf], object] | None = None
        self.private: Any = None
        self.dev: Disk | None = None
        # Both None until needed, as most buffers never are waited for.
        self.waiters: deque[Task] | None = None  # who wants it when it is released
        self.watchers: list[IoWait] | None = None  # who wants to hear that the transfer is over

    def __repr__(self) -> str:
        names = " ".join(self.flag_names)
        return f"<Buf vnode={self.vp.serial} {self.blkno}+{self.bcount} {names}>"

    @property
    def flag_names(self) -> list[str]:
        """The flags that are set, by name."""
        return [name for name, bit in _NAMES if self.flags & bit]


_NAMES: Final = [
    (name, value)
    for name, value in list(globals().items())
    if name.startswith("B_") and isinstance(value, int)
]


def uninterruptible(_: RaiseCancelT) -> Abort:
    """Refuse to end a wait early, as a sleep at PRIBIO does.

    A file system is then never cancelled between two steps of a change. What is waited for is
    a device, which bounds its own time, or somebody who waits for one.
    """
    return Abort.FAILED


class IoWait:
    """Waits for any number of transfers with one wake-up; one task waits, once.

    `error` is the first errno that one of them ended with.
    """

    __slots__ = ("_task", "error", "pending")

    def __init__(self) -> None:
        self.pending = 0
        self.error = 0
        self._task: Task | None = None

    def watch(self, bp: Buf) -> None:
        """Wait for the transfer of `bp`, which is not over, too."""
        self.pending += 1
        if bp.watchers is None:
            bp.watchers = [self]
        else:
            bp.watchers.append(self)

    def done(self, bp: Buf) -> None:
        """Hear from `biodone`."""
        self.pending -= 1
        if bp.error and not self.error:
            self.error = bp.error
        if not self.pending:
            self.finished()

    def finished(self) -> None:
        """Hear that all are over: called each time that no transfer is pending any more."""
        if self._task is not None:
            task, self._task = self._task, None
            reschedule(task)

    async def wait(self) -> None:
        """Return when all transfers are over; does not yield if they are. Not cancellable."""
        if self.pending:
            self._task = current_task()
            await wait_task_rescheduled(uninterruptible)
