"""What a file system tells the page cache of its vnodes: sizes, and the end."""

from __future__ import annotations

from errno import ENXIO
from typing import TYPE_CHECKING

from ...native.constants import PAGE_SIZE, PGO_SYNCIO
from ...native.errors import VfsError
from .aobj import UvmAobj
from .folio import FOLIO, page_mask
from .object import UvmObject

if TYPE_CHECKING:
    from ..vnode import Vnode


async def uvm_vnp_setsize(vp: Vnode, size: int) -> None:
    """Set the size of the file `vp` to `size` octets, in memory.

    Smaller: afterwards the rest of the last block is zero, and dirty (it is read for that if need
    be), the pages behind are gone, dirty or not, and no transfer is on its way to a block behind
    the end. The file system frees these blocks AFTER this: no late write then lands in what has
    become another file's. Larger: see `uvm_zero_tail`.

    Entry: `vp` exclusive. All or nothing: it cannot be cancelled once something has changed.
    Errors: EIO, the last block cannot be read; ENXIO, the vnode has died meanwhile.
    """
    uobj = vp.uobj
    if isinstance(uobj, UvmAobj):
        if size < vp.size:
            uobj.truncate(size)
        vp.size = size
        return
    assert uobj is not None
    if size >= vp.size:
        if size > vp.size:
            await uvm_zero_tail(vp, uobj)
        vp.size = size
        uobj.generation += 1
        return
    page, base = size & -PAGE_SIZE, size & -FOLIO
    rest = size % uobj.bsize
    wired = uobj.wire(base, base + 1)
    try:
        if rest:
            await vp.fs.getpages(vp, page, PAGE_SIZE, PGO_SYNCIO)
        while size > base and uobj.is_reading(base, base + FOLIO):
            await uobj.wait(cancellable=True)  # or it would land behind the end
        if vp.uobj is not uobj:
            raise VfsError(ENXIO, "the vnode died")
        # No await until the state is whole again.
        vp.size = size
        uobj.generation += 1
        uobj.cut(size)
        if rest and len(wired[0].data) > page - base:  # and no hole
            uobj.set_dirty(wired[0], page_mask(page - base, size - base))
    finally:
        uobj.unwire(wired)
    while any(out.end > size for out in uobj.pageouts):
        await uobj.wait(cancellable=False)


async def uvm_zero_tail(vp: Vnode, uobj: UvmObject) -> None:
    """Make the rest of the last block zero, and dirty, before the file grows over it.

    It should be so; but after a crash the block may have more in it than the file had.
    Entry: `vp` exclusive. Errors: EIO, it cannot be read; ENXIO, the vnode has died meanwhile.
    """
    size = vp.size
    if not size % uobj.bsize:
        return
    page, base = size & -PAGE_SIZE, size & -FOLIO
    wired = uobj.wire(page, size)
    try:
        await vp.fs.getpages(vp, page, PAGE_SIZE, PGO_SYNCIO)
        if vp.uobj is not uobj:
            raise VfsError(ENXIO, "the vnode died")
        if len(wired[0].data) > page - base:  # and no hole
            uobj.set_dirty(wired[0], page_mask(page - base, size - base))
    finally:
        uobj.unwire(wired)


def uvm_vnp_terminate(vp: Vnode) -> int:
    """Take the pages from `vp`, whose end has come; return how many dirty ones were lost.

    For the file system's `reclaim`. The kernel has them written before, unless the unmount is a
    forced one. The pages of an anonymous object stay with whom they belong to.
    """
    uobj, vp.uobj = vp.uobj, None
    return uobj.drop_all() if isinstance(uobj, UvmObject) else 0
