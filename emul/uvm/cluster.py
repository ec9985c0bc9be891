"""Clusters: neighbouring pages on their way between memory and the device.

A cluster is made of whole pages, and of as many transfers as these have pieces on the device:
of one, unless blocks that are smaller than a page lie apart. The device reads and writes the
memory of the pages; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...native.constants import DEV_BSHIFT
from ...native.records import Buffer
from ..bio import B_ASYNC, B_READ, B_WRITE, Buf, getiobuf, putiobuf
from .folio import FOLIO, FOLIO_SHIFT, ZEROS, Folio, page_mask, runs, spans

if TYPE_CHECKING:
    from ..vnode import Vnode
    from .object import UvmObject


class Extent(NamedTuple):
    """`length` octets from `offset` of the file lie at `blkno` (DEV_BSIZE) of the device."""

    offset: int
    length: int
    blkno: int

    @property
    def end(self) -> int:
        """Where in the file it ends."""
        return self.offset + self.length

    def cut(self, start: int, end: int) -> Extent:
        """Return what of it lies between two offsets, which is not nothing."""
        first, last = max(self.offset, start), min(self.end, end)
        return Extent(first, last - first, self.blkno + ((first - self.offset) >> DEV_BSHIFT))


class Cluster:
    """What the two directions have in common. `error` is an errno, final when `is_done`."""

    __slots__ = ("_pending", "_uobj", "error")

    def __init__(self, uobj: UvmObject) -> None:
        self._uobj = uobj
        self._pending = 0
        self.error = 0

    @property
    def is_done(self) -> bool:
        """Whether all transfers are over."""
        return self._pending == 0

    def _begin(self, devvp: Vnode, transfers: list[tuple[int, list[Buffer]]], flags: int) -> None:
        """Begin the transfers (blkno, memory); `_finish` is called when all are over."""
        vp = self._uobj.vp
        strategy = devvp.fs.strategy
        self._pending = len(transfers) + 1  # one for us: they may be over before we are
        for blkno, iov in transfers:
            strategy(devvp, getiobuf(vp, blkno, iov, flags | B_ASYNC, self._iodone))
        self._over()

    def _iodone(self, bp: Buf) -> None:
        if bp.error:
            self.error = bp.error
        putiobuf(bp)
        self._over()

    def _over(self) -> None:
        self._pending -= 1
        if not self._pending:
            self._finish()

    def _finish(self) -> None:
        raise NotImplementedError


class Pagein(Cluster):
    """The pages from `offset` to `end` (octets) of a file, on their way into memory.

    They are marked as being read (`UvmObject.claim`), and valid afterwards unless there was an
    error. What has no extent is zero, and so is what lies behind `size`.
    """

    __slots__ = ("_parts", "_tail")

    def __init__(
        self,
        uobj: UvmObject,
        devvp: Vnode,
        offset: int,
        end: int,
        size: int,
        extents: Sequence[Extent],
    ) -> None:
        super().__init__(uobj)
        # What is behind the end of the file, in the last folio.
        base = (end - 1) & -FOLIO
        self._tail = slice(size - base, end - base) if size < end else None
        if extents:
            for folio, _, _ in uobj.within(offset, end):
                # As much as the file has there: it need not be moved when its neighbours come.
                uobj.provide(folio, min(FOLIO, size - (folio.index << FOLIO_SHIFT)))
        transfers: list[tuple[int, list[Buffer]]] = []
        done = offset
        for at, length, blkno in extents:
            if done < at:
                uobj.zero(done, at)
            done = at + length
            iov: list[Buffer] = [
                memoryview(uobj.folios[index].data)[start:stop]
                for index, start, stop in spans(at, done)
            ]
            transfers.append((blkno, iov))
        if done < end:
            uobj.zero(done, end)
        self._parts = [
            (folio, folio.data, page_mask(start, stop))
            for folio, start, stop in uobj.within(offset, end)
        ]
        uobj.memory.pageins += bool(transfers)
        self._begin(devvp, transfers, B_READ)

    def _finish(self) -> None:
        uobj, memory = self._uobj, self._uobj.memory
        memory.pagein_errors += self.error != 0
        if self._tail is not None:
            tail = memoryview(self._parts[-1][1])[self._tail]
            tail[:] = bytes(len(tail))
        for folio, data, mask in self._parts:
            if uobj.folios.get(folio.index) is not folio:
                continue  # cut off meanwhile
            folio.reading &= ~mask
            if not self.error:
                folio.valid |= mask
                if folio.data is not data:
                    for start, stop in runs(mask):
                        folio.store(start, memoryview(data)[start:stop])
            memory.settle(uobj, folio)
        self._parts.clear()
        uobj.wake()


class Pageout(Cluster):
    """The pages from `offset` to `end` (octets), all of them dirty, on their way to the device.

    They are clean from now on, and dirty again if there is an error. What has no extent is in a
    hole and need not be written. Pages are let go of afterwards if `free` says so.
    """

    __slots__ = ("_free", "_parts", "end", "offset")

    def __init__(
        self,
        uobj: UvmObject,
        devvp: Vnode,
        offset: int,
        end: int,
        extents: Sequence[Extent],
        *,
        free: bool,
    ) -> None:
        super().__init__(uobj)
        self.offset = offset
        self.end = end
        self._free = free
        memory = uobj.memory
        self._parts: list[tuple[Folio, int]] = []
        for folio, start, stop in uobj.within(offset, end):
            mask = page_mask(start, stop)
            folio.writing |= mask
            uobj.set_clean(folio, mask)
            uobj.backlog.writing += mask.bit_count()
            self._parts.append((folio, mask))
        transfers: list[tuple[int, list[Buffer]]] = []
        for at, length, blkno in extents:
            iov: list[Buffer] = []
            for index, start, stop in spans(at, at + length):
                view = memoryview(uobj.folios[index].data)[start:stop]
                if view:
                    iov.append(view)
                if len(view) < stop - start:
                    iov.append(ZEROS[: stop - start - len(view)])
            transfers.append((blkno, iov))
        memory.pageouts += 1
        uobj.pageouts[self] = None
        self._begin(devvp, transfers, B_WRITE)

    def _finish(self) -> None:
        uobj, memory = self._uobj, self._uobj.memory
        memory.pageout_errors += self.error != 0
        for folio, mask in self._parts:
            uobj.backlog.writing -= mask.bit_count()
            if uobj.folios.get(folio.index) is not folio:
                continue  # cut off meanwhile
            folio.writing &= ~mask
            if self.error:
                # Not what was cut off meanwhile.
                uobj.set_failed(folio, mask & folio.valid, self.error)
            if self._free and folio.is_idle:
                uobj.drop(folio)
            else:
                memory.settle(uobj, folio)
        self._parts.clear()
        del uobj.pageouts[self]
        uobj.wake()
        memory.output_done()
