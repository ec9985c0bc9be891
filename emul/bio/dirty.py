"""Delayed writes: what is dirty goes out in batches, by itself or because somebody asks."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import ParkingLot

from ...native.errors import VfsError
from .buf import (
    B_ASYNC,
    B_BUSY,
    B_DELWRI,
    B_DONE,
    B_INVAL,
    B_READ,
    B_WRITE,
    Buf,
    IoWait,
)
from .cache import BufferCache, brelse

if TYPE_CHECKING:
    from ..vnode import Vnode

_logger = logging.getLogger(__name__)

_BATCH: Final = 64
"""Delayed writes that go out together: enough for neighbours among them to be merged."""


def start_write(bp: Buf, flags: int) -> None:
    """Hand a busy buffer to the device."""
    if not bp.flags & B_BUSY or not bp.data:
        raise RuntimeError(f"write of {bp!r}")
    vp = bp.vp
    cache = vp.mount.kernel.bufs
    cache.soil(bp)
    cache.writes += 1
    bp.error = 0
    bp.flags = bp.flags & ~(B_READ | B_DONE) | B_WRITE | flags
    vp.fs.strategy(vp, bp)


def _push(bp: Buf, wait: IoWait) -> bool:
    """See to it that a dirty buffer is being written, and let `wait` wait for that.

    False if somebody works on it. What is being written has been so since before the call, with
    the contents of then: nobody can have changed them.
    """
    flags = bp.flags
    if not flags & B_BUSY:
        bp.flags = flags | B_BUSY
        wait.watch(bp)
        start_write(bp, B_ASYNC)
    elif not flags & B_DONE:
        wait.watch(bp)
    else:
        return False
    return True


def _address(bp: Buf) -> tuple[int, int]:
    return bp.vp.serial, bp.blkno


class Pump(IoWait):
    """Writes out what is dirty of one vnode, batch by batch, until it is little enough.

    Those who wait for less to be dirty are parked in `waiters` and look again after each batch.
    """

    __slots__ = ("_cache", "_vp", "waiters")

    def __init__(self, cache: BufferCache, vp: Vnode) -> None:
        super().__init__()
        self._cache = cache
        self._vp = vp
        self.waiters = ParkingLot()

    def run(self) -> None:
        """Begin a batch, the oldest first; end if there is nothing to do.

        Buffers that could not be written once are left to the next sync: to try all the time
        would help nobody.
        """
        cache, vp = self._cache, self._vp
        while is_over(vp, cache.lodirty):
            able = (
                bp
                for bp in vp.dirtyblks or ()
                if (not bp.error if not bp.flags & B_BUSY else not bp.flags & B_DONE)
            )
            batch = sorted(islice(able, _BATCH), key=_address)
            if not batch:
                break
            cache.pumps[vp] = self
            self.pending += 1  # our own, or a device that answers at once would end the batch
            for bp in batch:
                _push(bp, self)
            self.pending -= 1
            if self.pending:
                return
        cache.pumps.pop(vp, None)

    def finished(self) -> None:
        """Go on after a batch."""
        self.run()
        self.waiters.unpark_all()


def is_over(vp: Vnode, bound: int) -> bool:
    """Whether more than `bound` octets of `vp` are dirty."""
    dirty = vp.dirtyblks
    if not dirty:
        return False
    return len(dirty) * next(iter(dirty)).bcount > bound


def start_pump(cache: BufferCache, vp: Vnode) -> None:
    """Begin to write out what is too much, unless that is going on."""
    if vp not in cache.pumps:
        Pump(cache, vp).run()


async def bwillwrite(vp: Vnode) -> None:
    """Wait until the device `vp` has taken enough of what is dirty that there may be more.

    For a file system at the beginning of each operation that will dirty buffers, before it
    has any of them busy or has changed anything. Does not yield while there is room.
    Errors: what the device said when nothing can be written any more.
    """
    cache = vp.mount.kernel.bufs
    if not is_over(vp, cache.hidirty):
        return
    cache.throttled += 1
    while is_over(vp, cache.hidirty):
        start_pump(cache, vp)
        pump = cache.pumps.get(vp)
        if pump is not None:
            await pump.waiters.park()
        elif errors := [bp.error for bp in vp.dirtyblks or () if bp.error]:
            raise VfsError(errors[0], "delayed writes fail")
        else:
            return  # tasks have all of it in their hands: there are not many of those


async def bufs_sync(bufs: Iterable[Buf]) -> None:
    """Write those of `bufs` that are dirty, and wait for just these. Not cancellable.

    The caller has none of them busy; for who has, it waits. It also waits for writes of them
    that others began. What became dirty again since the call is not waited for.
    Errors: what the device says, the first one; all have been tried, the failed ones are dirty.
    """
    wait = IoWait()
    held = [
        bp
        for bp in sorted((bp for bp in bufs if bp.flags & B_DELWRI), key=_address)
        if not _push(bp, wait)
    ]
    for bp in held:
        if not bp.flags & B_DELWRI or _push(bp, wait):
            continue
        if await bp.vp.mount.kernel.bufs.wait(bp):
            if bp.flags & B_DELWRI:
                wait.watch(bp)
                start_write(bp, B_ASYNC)
            else:
                brelse(bp)
    await wait.wait()
    if wait.error:
        raise VfsError(wait.error, "delayed write failed")


async def vflushbuf(vp: Vnode, sync: bool) -> None:
    """Begin to write all dirty buffers of `vp`; with `sync` as `bufs_sync` of them."""
    dirty = list(vp.dirtyblks or ())
    if sync:
        await bufs_sync(dirty)
    else:
        unheard = IoWait()
        for bp in sorted(dirty, key=_address):
            _push(bp, unheard)


async def vinvalbuf(vp: Vnode, save: bool) -> None:
    """Drop all buffers of `vp`; with `save` write what is dirty first, and be not cancellable.

    Waits for who has one busy, and goes on until there are none: the caller sees to it that they
    are not made faster than that. Without `save` what was dirty is lost, and the log says how
    much that was.
    Errors: with `save`, what `bufs_sync` says; nothing is dropped then.
    """
    cache = vp.mount.kernel.bufs
    if save:
        await vflushbuf(vp, True)
    lost = 0
    try:
        while bufs := cache.buffers(vp):
            for bp in bufs:
                if bp.flags & B_BUSY:
                    if not await cache.wait(bp, cancellable=not save):
                        continue
                elif bp.flags & B_INVAL:
                    continue  # it went away while we waited for others
                bp.flags |= B_BUSY
                if bp.flags & B_DELWRI:
                    lost += bp.bcount
                brelse(bp, B_INVAL)
    finally:
        if lost:
            _logger.warning("%d octets that were not written yet were dropped: %r", lost, vp)


async def vwaitforio(vp: Vnode) -> None:
    """Wait until all writes of `vp` that have been begun are over. Not cancellable.

    Does not yield if there are none. How they ended stands in their buffers.
    """
    if vp.numoutput:
        if vp.output_waiters is None:
            vp.output_waiters = ParkingLot()
        with trio.CancelScope(shield=True):
            await vp.output_waiters.park()
