"""A disk that does what it was asked for when it is told to, and device nodes over disks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EIO
from random import Random

import trio

from syspuffs.emul.bio import B_READ, Buf, bread, brelse, getblk
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import Disk, FaultDisk
from syspuffs.emul.specfs import spec_mount, spec_unmount
from syspuffs.emul.vnode import Vnode
from syspuffs.emul.vnops import vn_fsync, vn_read
from syspuffs.native.constants import FSYNC_WAIT
from syspuffs.native.errors import VfsError
from syspuffs.native.records import FSCRED

BSIZE = 4096
SECTORS = BSIZE // 512
"""Octets of the blocks of these tests, and how far apart their addresses are."""


class ToldDisk(Disk):
    """Keeps transfers in `queue`, oldest first, until `complete` ends one.

    `flushing` are the flushes that wait for `flushed`; with `flushes_at_once` there are none.
    """

    def __init__(self, blocks: int = 64) -> None:
        super().__init__("told", blocks * BSIZE)
        self.image = bytearray(self.size)
        self.queue: list[Buf] = []
        self.seen: list[tuple[str, int]] = []
        self.flushes_at_once = True
        self.flush_error = 0
        self.flushing: list[trio.Event] = []

    def _start(self, bp: Buf, offset: int) -> None:
        self.queue.append(bp)
        self.seen.append(("read" if bp.flags & B_READ else "write", bp.blkno // SECTORS))

    @property
    def asked(self) -> list[int]:
        """The blocks of the queue."""
        return [bp.blkno // SECTORS for bp in self.queue]

    def complete(self, index: int = 0, error: int = 0) -> None:
        """End a transfer; one that fails has done nothing."""
        bp = self.queue.pop(index)
        offset = bp.blkno << 9
        if not error:
            for view in bp.iov:
                if bp.flags & B_READ:
                    memoryview(view)[:] = self.image[offset : offset + len(view)]
                else:
                    self.image[offset : offset + len(view)] = view
                offset += len(view)
        self._done(bp, bp.bcount if error else 0, error)

    def complete_all(self, error: int = 0) -> None:
        while self.queue:
            self.complete(0, error)

    async def drive(self, rng: Random, errors: float = 0.0) -> None:
        """End transfers in any order, some with an error; for ever."""
        while True:
            for _ in range(rng.randrange(4)):
                await trio.lowlevel.checkpoint()
            if self.queue:
                index = rng.randrange(len(self.queue))
                self.complete(index, EIO if rng.random() < errors else 0)
            elif not self._pending:
                await trio.sleep(0.001)

    def block(self, number: int) -> bytes:
        """What is on the medium."""
        return bytes(self.image[number * BSIZE : (number + 1) * BSIZE])

    async def _flush(self) -> None:
        self.seen.append(("flush", len(self.flushing)))
        if not self.flushes_at_once:
            self.flushing.append(trio.Event())
            await self.flushing[-1].wait()
        if self.flush_error:
            raise VfsError(self.flush_error)

    async def _close(self) -> None:
        self.seen.append(("close", 0))


@asynccontextmanager
async def device(disk: Disk, kernel: Kernel | None = None) -> AsyncIterator[Vnode]:
    """The device node of `disk` in a kernel that runs; given back when all went well."""
    async with kernel or Kernel() as kernel:
        devvp = spec_mount(kernel, disk)
        yield devvp
        await spec_unmount(devvp)


def memory(blocks: int = 64) -> FaultDisk:
    """A disk in memory that answers at once; each block is filled with its number."""
    return FaultDisk(bytearray(b"".join(bytes([number]) * BSIZE for number in range(blocks))))


async def fill(devvp: Vnode, number: int, octet: int) -> Buf:
    """Return the block, busy, with all octets set."""
    bp = await getblk(devvp, number * SECTORS, BSIZE)
    bp.data[:] = bytes([octet]) * BSIZE
    return bp


async def peek(devvp: Vnode, number: int) -> bytes:
    """Return what the block has in it."""
    bp = await bread(devvp, number * SECTORS, BSIZE)
    data = bytes(bp.data)
    brelse(bp)
    return data


async def fsync(devvp: Vnode, flags: int = FSYNC_WAIT) -> None:
    await vn_fsync(devvp, flags, 0, 0, FSCRED)


async def read(devvp: Vnode, offset: int, resid: int) -> bytes:
    return bytes(await vn_read(devvp, offset, resid, FSCRED))


async def write(devvp: Vnode, offset: int, data: bytes, ioflag: int = 0) -> None:
    await devvp.lock.exclusive()
    try:
        await devvp.fs.write(devvp, offset, data, ioflag, FSCRED)
    finally:
        devvp.lock.release()
