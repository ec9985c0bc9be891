"""getpages and putpages for file systems whose files lie in blocks on a device.

Such a file system has `devvp` and says by `bmap` where a block is; its own getpages and
putpages call `genfs_getpages` and `genfs_putpages`.
"""

from __future__ import annotations

from collections import deque
from errno import EIO, ENXIO
from typing import TYPE_CHECKING, Final

from ...native.constants import (
    MAXPHYS,
    PAGE_SIZE,
    PGO_ALLPAGES,
    PGO_CLEANIT,
    PGO_DEACTIVATE,
    PGO_FREE,
    PGO_OVERWRITE,
    PGO_SYNCIO,
)
from ...native.errors import VfsError
from .cluster import Extent, Pagein, Pageout
from .folio import page_mask
from .object import UvmObject

if TYPE_CHECKING:
    from ..vnode import Vnode

MAX_PAGEOUTS: Final = 8
"""How many clusters of one file may be on their way to the device."""
_END: Final = 1 << 63


def round_page(offset: int) -> int:
    """Return the next edge of a page."""
    return -(-offset & -PAGE_SIZE)


async def _map(
    vp: Vnode, uobj: UvmObject, offset: int, end: int, size: int
) -> tuple[int, list[Extent]]:
    """Return where the cluster that begins at page `offset` ends, and where its octets are.

    It is as long as it can be without going beyond page `end`; a hole has no extents. Blocks wholly
    behind `size` are not looked for. Means nothing if the object's generation has changed.
    """
    bmap = vp.fs.bmap
    generation = uobj.generation
    last = min(end, -(-size & -uobj.bsize))
    blkno, run = await bmap(vp, offset, min(last - offset, MAXPHYS))
    if offset + run >= last:
        return end, [] if blkno < 0 else [Extent(offset, run, blkno)]
    whole = run & -PAGE_SIZE
    if whole:
        return offset + whole, [] if blkno < 0 else [Extent(offset, whole, blkno)]
    # A page in pieces.
    end = offset + PAGE_SIZE
    last = min(end, last)
    extents = []
    while True:
        if blkno >= 0:
            extents.append(Extent(offset, run, blkno))
        offset += run
        if offset >= last or uobj.generation != generation:
            return end, extents
        blkno, run = await bmap(vp, offset, last - offset)


async def genfs_getpages(vp: Vnode, offset: int, length: int, flags: int) -> None:
    """Make pages valid; see `FileSystem.getpages`. Waiting for them can be cancelled.

    Pages that are being read already are not read twice. With PGO_OVERWRITE nothing is read: no
    page of the range is being read when it returns.
    """
    uobj = vp.uobj
    assert isinstance(uobj, UvmObject)
    size = vp.size
    start, end = offset & -PAGE_SIZE, round_page(min(offset + length, size))
    if flags & PGO_OVERWRITE:
        while uobj.is_reading(start, end):
            await uobj.wait(cancellable=True)
        return
    if not flags & PGO_SYNCIO:
        ranges = uobj.claim(start, end)
        if ranges:
            await _read(vp, uobj, ranges, size)
        return
    if uobj.is_valid(start, end):
        return
    clusters: list[Pagein] = []
    folios = uobj.wire(start, end)  # or one page might go before the next one has come
    try:
        while not uobj.is_valid(start, end):
            # Once is enough: others who failed to read a page say nothing of why.
            for cluster in clusters:
                if cluster.error:
                    raise VfsError(cluster.error, "a page cannot be read")
            ranges = uobj.claim(start, end)
            if ranges:
                clusters += await _read(vp, uobj, ranges, size)
            if uobj.is_reading(start, end):
                await uobj.wait(cancellable=True)
                _check_alive(vp, uobj)
    finally:
        uobj.unwire(folios)


def _check_alive(vp: Vnode, uobj: UvmObject) -> None:
    """Return if `uobj` still is what `vp` has. Errors: ENXIO."""
    if vp.uobj is not uobj:
        raise VfsError(ENXIO, "the vnode died")


async def _read(
    vp: Vnode, uobj: UvmObject, ranges: list[tuple[int, int]], size: int
) -> list[Pagein]:
    """Begin to read `ranges`, which the caller has claimed."""
    clusters: list[Pagein] = []
    devvp = vp.fs.devvp
    assert devvp is not None, "pages come from a device"
    todo = deque(ranges)
    try:
        while todo:
            at, end = todo[0]
            stop, extents = await _map(vp, uobj, at, end, size)
            _check_alive(vp, uobj)
            if stop < end:
                todo[0] = stop, end
            else:
                todo.popleft()
            clusters.append(Pagein(uobj, devvp, at, stop, size, extents))
    finally:
        for at, end in todo:
            uobj.unclaim(at, end)
    return clusters


async def genfs_putpages(vp: Vnode, offlo: int, offhi: int, flags: int) -> None:
    """Write pages and let go of them; see `FileSystem.putpages`. Entry: any lock on `vp` or none.

    It waits without PGO_SYNCIO, too, while MAX_PAGEOUTS clusters of the file are on their way. All
    of the range is tried, whatever fails; the first error is raised. Not cancellable.
    """
    uobj = vp.uobj
    if uobj is None:
        return
    assert isinstance(uobj, UvmObject), "no pager behind it"
    whole = flags & PGO_ALLPAGES
    lo = 0 if whole else offlo & -PAGE_SIZE
    hi = _END if whole or not offhi else round_page(offhi)
    failure: VfsError | None = None
    if flags & PGO_CLEANIT:
        # A page that was changed on its way to the device is written again when it has arrived.
        again = flags & PGO_SYNCIO and uobj.is_redirtied(lo, hi)
        try:
            await _write(vp, uobj, lo, hi, free=bool(flags & PGO_FREE))
            if again:
                await _wait(uobj, lo, hi)
                await _write(vp, uobj, lo, hi, free=bool(flags & PGO_FREE))
        except VfsError as exc:
            failure = exc
    if flags & PGO_SYNCIO:
        await _wait(uobj, lo, hi)
        if failure is None and uobj.has_failed(lo, hi):
            failure = VfsError(uobj.error or EIO, "a page cannot be written")
    if flags & (PGO_FREE | PGO_DEACTIVATE):
        for folio, start, stop in list(uobj.within(lo, hi)):
            if flags & PGO_FREE:
                uobj.free(folio, page_mask(start, stop))
            else:
                uobj.memory.deactivate(folio)
    if failure is not None:
        raise failure


async def _wait(uobj: UvmObject, lo: int, hi: int) -> None:
    """Wait for the clusters of a range that are on their way to the device now."""
    for cluster in [out for out in uobj.pageouts if out.offset < hi and lo < out.end]:
        while not cluster.is_done:
            await uobj.wait(cancellable=False)


async def _write(vp: Vnode, uobj: UvmObject, lo: int, hi: int, *, free: bool) -> None:
    """Begin to write the dirty pages of a range that are not on their way already.

    Errors: where they belong cannot be found out; they are marked as failed.
    """
    devvp = vp.fs.devvp
    failure: VfsError | None = None
    for at, end in uobj.writable(lo, hi):
        while at < end:
            while len(uobj.pageouts) >= MAX_PAGEOUTS:
                await uobj.wait(cancellable=False)
            size = vp.size
            end = min(end, round_page(size))
            if at >= end:
                break  # cut off meanwhile
            generation = uobj.generation
            try:
                stop, extents = await _map(vp, uobj, at, end, size)
            except VfsError as exc:
                if uobj.generation != generation:
                    continue
                failure = failure or exc
                for folio, start, last in uobj.within(at, end):
                    uobj.set_failed(folio, page_mask(start, last) & folio.dirty, exc.errno)
                uobj.memory.output_done()
                break
            if uobj.generation != generation:
                continue  # this was the map of another file, so to speak
            assert devvp is not None, "pages go to a device"
            for first, last in uobj.writable(at, stop):
                Pageout(uobj, devvp, first, last, _cut(extents, first, last), free=free)
            at = stop
    if failure is not None:
        raise failure


def _cut(extents: list[Extent], start: int, end: int) -> list[Extent]:
    """Return what of `extents` lies from `start` to `end`."""
    if not extents or (start <= extents[0].offset and extents[-1].end <= end):
        return extents
    return [
        extent.cut(start, end) for extent in extents if extent.offset < end and start < extent.end
    ]
