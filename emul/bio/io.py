"""Transfers: reading and writing buffers, now or later, and what happens at their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...native.errors import VfsError
from ...native.records import Buffer
from .buf import (
    B_ASYNC,
    B_BUSY,
    B_DELWRI,
    B_DONE,
    B_INVAL,
    B_READ,
    Buf,
    IoWait,
)
from .cache import brelse, getblk
from .dirty import start_pump, start_write

if TYPE_CHECKING:
    from ..vnode import Vnode


async def bread(vp: Vnode, blkno: int, size: int) -> Buf:
    """Return the buffer of `blkno`, busy, with its contents.

    Does not yield if it is in the cache and released. Not cancellable.
    Errors: what the device says (EIO, ENXIO); the caller has no buffer then.
    """
    bp = vp.mount.kernel.bufs.take(vp, blkno, size)
    if bp is None:
        bp = await getblk(vp, blkno, size)
    if bp.flags & (B_DONE | B_DELWRI):
        return bp
    _start_read(bp, 0)
    await _finish_read(bp)
    return bp


async def breadn(vp: Vnode, blkno: int, size: int, rablks: Sequence[int]) -> Buf:
    """As `bread`, and begin to read the blocks `rablks` as well if they are not there."""
    bp = vp.mount.kernel.bufs.take(vp, blkno, size)
    if bp is None:
        bp = await getblk(vp, blkno, size)
    if not bp.flags & (B_DONE | B_DELWRI):
        _start_read(bp, 0)
    for rablk in rablks:
        breada(vp, rablk, size)
    await _finish_read(bp)
    return bp


def breada(vp: Vnode, blkno: int, size: int) -> None:
    """Begin to read a block that will be wanted, unless there is a buffer of it.

    Never waits. Nobody hears of an error: who wants the block then asks the device again.
    """
    cache = vp.mount.kernel.bufs
    if cache.find(vp, blkno) is None:
        bp = cache.take(vp, blkno, size)
        assert bp is not None
        _start_read(bp, B_ASYNC)


def _start_read(bp: Buf, flags: int) -> None:
    vp = bp.vp
    vp.mount.kernel.bufs.reads += 1
    bp.flags |= B_READ | flags
    vp.fs.strategy(vp, bp)


async def _finish_read(bp: Buf) -> None:
    """Wait for a read that nobody else waits for, if it was begun; drop the buffer on error."""
    try:
        await biowait(bp)
    except VfsError:
        brelse(bp)
        raise


async def bwrite(bp: Buf) -> None:
    """Write a busy buffer, wait for that, and release it. Not cancellable.

    Errors: what the device says (EIO, ENOSPC, EROFS, ENXIO); the buffer is released then, too, and
    stays dirty: the next sync tries again.
    """
    start_write(bp, 0)
    try:
        await biowait(bp)
    finally:
        brelse(bp)


def bawrite(bp: Buf) -> None:
    """Begin to write a busy buffer; it releases itself. Never waits.

    Errors stay with the buffer, which stays dirty: a sync tries again and reports what it meets.
    """
    start_write(bp, B_ASYNC)


def bdwrite(bp: Buf) -> None:
    """Release a busy buffer whose contents have changed, to be written some time. Never waits.

    When much waits to be written already, the oldest go out now; a writer who calls
    `bwillwrite` first waits his turn when it has become too much.
    """
    vp = bp.vp
    cache = vp.mount.kernel.bufs
    if not bp.flags & B_BUSY:
        raise RuntimeError(f"bdwrite of {bp!r}")
    if vp.is_dead:
        brelse(bp, B_INVAL)  # the device has gone: there is no later
        return
    cache.soil(bp)
    bp.flags |= B_DONE
    cache.release(bp)
    dirty = vp.dirtyblks
    if dirty and len(dirty) * bp.bcount > cache.lodirty:
        start_pump(cache, vp)


async def biowait(bp: Buf) -> None:
    """Wait until the transfer of a buffer of ours is over. Not cancellable.

    Does not yield if it is. Errors: what it ended with.
    """
    if not bp.flags & B_DONE:
        wait = IoWait()
        wait.watch(bp)
        await wait.wait()
    if bp.error:
        raise VfsError(bp.error, f"vnode {bp.vp.serial}, block {bp.blkno}")


def biodone(bp: Buf) -> None:
    """Hear from the device that a transfer is over; `error` and `resid` say how.

    In the trio thread, never waits; called once for each call of `strategy`, perhaps before that
    returns.
    """
    flags = bp.flags
    if flags & B_DONE:
        raise RuntimeError(f"biodone of {bp!r}, which is done")
    bp.flags = flags = flags | B_DONE
    vp = bp.vp
    dev, bp.dev = bp.dev, None
    if not flags & B_READ and dev is not None:
        if bp.error and flags & B_ASYNC:
            dev.report(bp.error)
        vp.numoutput -= 1
        if not vp.numoutput and vp.output_waiters is not None:
            vp.output_waiters.unpark_all()
            vp.output_waiters = None
    if bp.data:
        cache = vp.mount.kernel.bufs
        if not flags & B_READ:
            if bp.error:
                cache.write_errors += 1
            else:
                cache.clean(bp)
        elif bp.error:
            cache.read_errors += 1
            bp.flags |= B_INVAL
        if vp.is_dead:
            bp.flags |= B_INVAL
    # Taken first: who is called below may begin another transfer with the same buffer.
    watchers, bp.watchers = bp.watchers, None
    if bp.iodone is not None:
        iodone, bp.iodone = bp.iodone, None
        iodone(bp)
    elif flags & B_ASYNC and bp.data:
        brelse(bp)
    if watchers is not None:
        for watcher in watchers:
            watcher.done(bp)


def getiobuf(
    vp: Vnode,
    blkno: int,
    iov: list[Buffer],
    flags: int,
    iodone: Callable[[Buf], object] | None = None,
    private: Any = None,
) -> Buf:
    """Return a buffer for a transfer between the device's `blkno` and the memory `iov`.

    It is not in the cache. The views (octets, writable for B_READ) are used until `biodone` and
    not kept longer. `vp` is whose output a write is. Hand it to `devvp.fs.strategy(devvp, bp)`;
    then wait with `biowait`, or be called by `iodone`; then `putiobuf`.
    """
    bp = Buf(vp, blkno, bytearray(), iov, flags | B_BUSY)
    bp.iodone = iodone
    bp.private = private
    return bp


def putiobuf(bp: Buf) -> None:
    """End an I/O buffer, which no disk has, and let go of the memory."""
    if bp.data or bp.dev is not None:
        raise RuntimeError(f"putiobuf of {bp!r}")
    bp.flags = B_INVAL
    bp.iov = []
