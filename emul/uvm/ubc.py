"""Reading and writing files through their pages. (NetBSD's ubc_uiomove, one for each direction.)"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from errno import ENXIO
from typing import TYPE_CHECKING, Final

from ...native.constants import (
    MAXPHYS,
    PAGE_SHIFT,
    PAGE_SIZE,
    PGO_CLEANIT,
    PGO_OVERWRITE,
    PGO_SYNCIO,
)
from ...native.errors import VfsError
from ...native.records import Buffer
from .aobj import UvmAobj
from .folio import ALL_PAGES, FOLIO, FOLIO_SHIFT, page_mask
from .genfs import MAX_PAGEOUTS
from .object import UvmObject
from .vnp import uvm_zero_tail

if TYPE_CHECKING:
    from ..vnode import Vnode

_CLUSTER_SHIFT: Final = MAXPHYS.bit_length() - 1
_CLUSTER_PAGES: Final = MAXPHYS >> PAGE_SHIFT
_CLUSTER_FOLIOS: Final = MAXPHYS >> FOLIO_SHIFT


async def ubc_read(vp: Vnode, offset: int, resid: int) -> Buffer:
    """Return up to `resid` octets from `offset` (not negative); fewer only at the end of the file.

    One copy is made, which is the caller's. Does not yield if the pages are valid, unless reading
    ahead of a sequential reader has to wait for an indirect block. Entry: `vp` shared.
    Errors: EIO, a page cannot be read; never zeros or an end of file in its place.
    """
    uobj = vp.uobj
    assert uobj is not None
    length = min(resid, vp.size - offset)
    if length <= 0:
        return b""
    octets = uobj.copyout(offset, length)
    if isinstance(uobj, UvmAobj):
        assert octets is not None
        return octets
    end = offset + length
    if octets is None:
        # Wired, or a memory that is too small would lose one page while the next one comes.
        folios = uobj.wire(offset, end)
        try:
            await vp.fs.getpages(vp, offset, length, 0)
            await _read_ahead(vp, uobj, offset, end)
            await vp.fs.getpages(vp, offset, length, PGO_SYNCIO)
            octets = uobj.copyout(offset, length)
        finally:
            uobj.unwire(folios)
        if octets is None:
            raise VfsError(ENXIO, "the vnode died")
    else:
        await _read_ahead(vp, uobj, offset, end)
    if uobj.readahead.is_sequential and vp.size > uobj.memory.limit // 2:
        # Free-behind: a file this large would push everything else out, and its own beginning
        # before somebody reads it again.
        for folio, _, _ in uobj.within(offset, end & -FOLIO):
            uobj.memory.deactivate(folio)
    return octets


async def _read_ahead(vp: Vnode, uobj: UvmObject, offset: int, end: int) -> None:
    ahead = uobj.readahead.advance(offset, end, uobj.memory.readahead_max)
    if ahead is not None and ahead[0] < vp.size:
        try:
            await vp.fs.getpages(vp, ahead[0], ahead[1] - ahead[0], 0)
        except VfsError:
            pass  # who wants these pages will ask for them, and hear of it


async def ubc_write(
    vp: Vnode, offset: int, data: Buffer, alloc: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Write `data` at `offset` (not negative) into pages, which are dirty afterwards.

    In this order: pages that are covered in part are made valid, which may read them, as is the
    last page of a file that grows beyond it; `alloc` is awaited, in which the file system takes the
    blocks of the range; the data are copied, and `vp.size` grows if they end behind it. What fails,
    or is cancelled, before the end of `alloc` has changed nothing; nothing fails after it. Clusters
    that are full then begin their way to the device.

    May wait until other data are written, when too much is dirty; does not yield if it need not
    wait for that or for a page, and if `alloc` does not. `data` is not kept. Entry: `vp` exclusive.
    Errors: what `alloc` raises; EIO, a page cannot be read, or earlier data cannot be written.
    """
    length = len(data)
    if not length:
        return
    uobj = vp.uobj
    assert uobj is not None
    end = offset + length
    if isinstance(uobj, UvmAobj):
        if alloc is not None:
            await alloc()
        uobj.copyin(offset, data)
        if end > vp.size:
            vp.size = end
        return
    memory = uobj.memory
    if memory.is_full(uobj):
        await memory.throttle(uobj)
    folios = uobj.wire(offset, end)
    try:
        if (offset | end) & (PAGE_SIZE - 1) or any([folio.reading for folio in folios]):
            await _prepare(vp, uobj, offset, end)
        if offset & -PAGE_SIZE > vp.size:
            await uvm_zero_tail(vp, uobj)
        if alloc is not None:
            await alloc()
        if vp.uobj is not uobj:
            raise VfsError(ENXIO, "the vnode died")
        uobj.copyin(offset, data)
        uobj.generation += 1
        if end > vp.size:
            vp.size = end
    finally:
        uobj.unwire(folios)
    memory.soiled(uobj.backlog)
    # Only a write that has filled a folio can have filled a cluster.
    if uobj.ndirty >= _CLUSTER_PAGES and (
        len(folios) > 2 or folios[0].dirty == ALL_PAGES or folios[-1].dirty == ALL_PAGES
    ):
        await _write_behind(vp, uobj, offset, end)


async def _prepare(vp: Vnode, uobj: UvmObject, offset: int, end: int) -> None:
    """Make what a write from `offset` to `end` leaves of its first and last page valid.

    No page of the range is being read afterwards. Entry: the folios are wired.
    """
    getpages = vp.fs.getpages
    size = vp.size
    first, last = offset & -PAGE_SIZE, end & -PAGE_SIZE
    # What they leave of pages at or behind the end is zero already.
    if first < offset and first < size:
        await getpages(vp, first, PAGE_SIZE, PGO_SYNCIO)
    if last < end < size:
        await getpages(vp, last, PAGE_SIZE, PGO_SYNCIO)
    if uobj.is_reading(offset, end):
        await getpages(vp, offset, end - offset, PGO_SYNCIO | PGO_OVERWRITE)


async def _write_behind(vp: Vnode, uobj: UvmObject, offset: int, end: int) -> None:
    """Begin to write the clusters of a range that are dirty from end to end."""
    for cluster in range(offset >> _CLUSTER_SHIFT, (end + MAXPHYS - 1) >> _CLUSTER_SHIFT):
        if len(uobj.pageouts) >= MAX_PAGEOUTS:
            return  # the device is busy enough; somebody else will do it
        first = cluster * _CLUSTER_FOLIOS
        dirty = uobj.dirty
        for index in range(first, first + _CLUSTER_FOLIOS):
            folio = dirty.get(index)
            if folio is None or folio.dirty != ALL_PAGES:
                break
        else:
            try:
                await vp.fs.putpages(vp, cluster * MAXPHYS, (cluster + 1) * MAXPHYS, PGO_CLEANIT)
            except VfsError:
                return  # they are dirty as before, and marked: the next fsync tells


async def ubc_zerorange(vp: Vnode, offset: int, length: int) -> None:
    """Make a range within the file zero; the pages are dirty afterwards, and blocks stay.

    Entry: `vp` exclusive. Errors: EIO, a page cannot be read; nothing has changed then.
    """
    uobj = vp.uobj
    assert isinstance(uobj, UvmObject)
    end = min(offset + length, vp.size)
    if offset >= end:
        return
    folios = uobj.wire(offset, end)
    try:
        await _prepare(vp, uobj, offset, end)
        # No await below. Takes no memory: what is behind that of a folio is zero.
        uobj.generation += 1
        for folio, start, stop in uobj.within(offset, end):
            folio.zero(start, stop)
            mask = page_mask(start, stop)
            folio.valid |= mask
            uobj.set_dirty(folio, mask)
    finally:
        uobj.unwire(folios)
    uobj.memory.soiled(uobj.backlog)
