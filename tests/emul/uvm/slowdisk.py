"""A disk in memory that takes its time."""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO
from random import Random

import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import B_READ, Buf
from syspuffs.emul.rumpuser import Disk

KIB = 1024
MIB = 1024 * KIB
OLD = b"\xff"
"""An octet that `cold` puts into no file."""


class SlowDisk(Disk):
    """A disk in memory that does what it was asked for later, in any order.

    The memory of a transfer is read or written when it is over, or when it begins: `rng` says. With
    `is_fast` all is done at once. With `bad_reads` and `bad_writes` they fail, after half of the
    first piece of memory was filled with OLD. `reads` and `writes` are what it was asked for
    (octets), `queue` is what it has not done; `on_write` hears of what it writes.
    """

    def __init__(self, size: int, rng: Random) -> None:
        super().__init__("slow", size, rdonly=False)
        self.image = bytearray(rng.randbytes(64 * KIB) * (size // (64 * KIB)))
        self.rng = rng
        self.is_fast = False
        self.queue: list[tuple[Buf, int]] = []
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.bad_reads = False
        self.bad_writes = False
        self.on_write: Callable[[Buf, int], None] = lambda bp, offset: None
        self._asked = trio.Event()

    def _start(self, bp: Buf, offset: int) -> None:
        (self.reads if bp.flags & B_READ else self.writes).append((offset, bp.bcount))
        if self.is_fast:
            self.complete(bp, offset)
            return
        if not bp.flags & B_READ and not self.bad_writes and self.rng.random() < 0.5:
            self._transfer(bp, offset)
        self.queue.append((bp, offset))
        self._asked.set()

    def _transfer(self, bp: Buf, offset: int) -> None:
        if not bp.flags & B_READ:
            self.on_write(bp, offset)
        for piece in bp.iov:
            view = memoryview(piece)
            if bp.flags & B_READ:
                view[:] = self.image[offset : offset + len(view)]
            else:
                self.image[offset : offset + len(view)] = view
            offset += len(view)

    def complete(self, bp: Buf, offset: int) -> None:
        """Do a transfer."""
        if self.bad_reads if bp.flags & B_READ else self.bad_writes:
            if bp.flags & B_READ:  # as much as half of it came
                memoryview(bp.iov[0])[: len(bp.iov[0]) // 2] = OLD * (len(bp.iov[0]) // 2)
            self._done(bp, bp.bcount, EIO)
            return
        self._transfer(bp, offset)
        self._done(bp, 0, 0)

    def step(self) -> None:
        """Complete one transfer of those that wait."""
        bp, offset = self.queue.pop(self.rng.randrange(len(self.queue)))
        self.complete(bp, offset)

    def finish(self) -> None:
        """Complete all that wait now."""
        while self.queue:
            self.step()

    async def run(self) -> None:
        """Complete transfers whenever nobody else has anything to do."""
        while True:
            await self._asked.wait()
            await wait_all_tasks_blocked()
            if self.queue:
                self.step()
            if not self.queue:
                self._asked = trio.Event()

    async def _flush(self) -> None:
        """Do nothing: there is no cache."""

    async def _close(self) -> None:
        """Do nothing."""
