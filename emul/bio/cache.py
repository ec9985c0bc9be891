"""BufferCache: the buffers of a kernel by vnode and address, and who may have which.

A buffer is busy (somebody's own) or released. Released and clean, it stands on the LRU
list until it has become the oldest of too many. A dirty one stays until it was written.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from trio.lowlevel import Abort, RaiseCancelT, current_task, reschedule, wait_task_rescheduled

from ...native.constants import DEV_BSHIFT, DEV_BSIZE
from .buf import (
    B_AGE,
    B_ASYNC,
    B_BUSY,
    B_DELWRI,
    B_DONE,
    B_INVAL,
    B_NOCACHE,
    B_ORDERED,
    B_READ,
    B_WRITE,
    Buf,
    uninterruptible,
)

if TYPE_CHECKING:
    from ..vnode import Vnode
    from .dirty import Pump

BUFMEM: Final = 16 * 1024 * 1024
"""Memory for the buffers of a kernel, octets."""

_OF_ONE_USE: Final = B_READ | B_WRITE | B_ASYNC | B_BUSY | B_AGE | B_ORDERED


class Statistics(NamedTuple):
    """Figures of a buffer cache: what there is now, and what was done so far.

    `octets` are all buffers', `dirty` those of buffers that wait for or are in a write. `hits` and
    `misses` count searches; `waits` those that had to wait for a busy buffer, `throttled` writers
    that had to wait for the device. `reads` and `writes` are transfers, failed ones included.
    """

    buffers: int
    octets: int
    dirty: int
    hits: int
    misses: int
    waits: int
    evicted: int
    reads: int
    read_errors: int
    writes: int
    write_errors: int
    throttled: int


class BufferCache:
    """The buffers of one kernel; at most `limit` octets while clean ones can make room.

    All buffers of a vnode have the same size, to which their addresses are aligned: so no two
    ever overlap, and an octet has one place only. Who wants another size lets go of the
    buffers first (`vinvalbuf`). A file system whose super block lies at octet 1024 reads the
    block that it lies in, whatever the size of its blocks; see `spec_setblksize`.

    Busy and dirty buffers cannot make room. Dirty ones have a bound of their own for each
    vnode, a device that is slow or broken being of no concern to the others: from `lodirty`
    octets on they are written out, at `hidirty` `bwillwrite` makes writers wait. Readers never
    wait for somebody else's writes; what they take beyond `limit` is given back as soon as others
    can go.
    """

    def __init__(self, limit: int = BUFMEM) -> None:
        self.limit = limit
        self.lodirty = limit // 8
        self.hidirty = limit // 4
        self.octets = 0
        self.dirty = 0
        self.hits = 0
        self.misses = 0
        self.waits = 0
        self.evicted = 0
        self.reads = 0
        self.read_errors = 0
        self.writes = 0
        self.write_errors = 0
        self.throttled = 0
        self.pumps: dict[Vnode, Pump] = {}
        """Vnodes of which a batch of delayed writes is on its way (for `dirty`)."""
        self._table: dict[Vnode, dict[int, Buf]] = {}
        # All that can be evicted, oldest first; busy and dirty ones may be among them.
        self._lru: OrderedDict[Buf, None] = OrderedDict()

    def statistics(self) -> Statistics:
        """Return the figures of now."""
        return Statistics(
            buffers=sum(map(len, self._table.values())),
            octets=self.octets,
            dirty=self.dirty,
            hits=self.hits,
            misses=self.misses,
            waits=self.waits,
            evicted=self.evicted,
            reads=self.reads,
            read_errors=self.read_errors,
            writes=self.writes,
            write_errors=self.write_errors,
            throttled=self.throttled,
        )

    def buffers(self, vp: Vnode) -> list[Buf]:
        """Return all buffers of `vp` there are."""
        return list(self._table.get(vp, {}).values())

    def __iter__(self) -> Iterator[Buf]:
        """Return the buffers as they are now."""
        return iter([bp for blocks in self._table.values() for bp in blocks.values()])

    def find(self, vp: Vnode, blkno: int) -> Buf | None:
        """Return the buffer, in whatever state, or None."""
        blocks = self._table.get(vp)
        return None if blocks is None else blocks.get(blkno)

    def take(self, vp: Vnode, blkno: int, size: int) -> Buf | None:
        """Return the buffer, made busy, a new one if there was none; None if it is busy."""
        blocks = self._table.get(vp)
        bp = None if blocks is None else blocks.get(blkno)
        if bp is None:
            return self._new(vp, blkno, size)
        if bp.bcount != size:
            raise RuntimeError(f"{size} octets wanted of {bp!r}")
        if bp.flags & B_BUSY:
            return None
        bp.flags |= B_BUSY
        self.hits += 1
        return bp

    def _new(self, vp: Vnode, blkno: int, size: int) -> Buf:
        if size <= 0 or size % DEV_BSIZE or blkno < 0 or blkno % (size >> DEV_BSHIFT):
            raise RuntimeError(f"no address of {size} octets: {blkno}")
        self.misses += 1
        if self.octets + size > self.limit:
            self._shrink(self.limit - size)
        blocks = self._table.get(vp)
        if blocks is None:
            blocks = self._table[vp] = {}
        elif (other := next(iter(blocks.values()))).bcount != size:
            raise RuntimeError(f"{size} octets wanted beside {other!r}")
        data = bytearray(size)
        bp = blocks[blkno] = Buf(vp, blkno, data, [data], B_BUSY)
        self.octets += size
        return bp

    def _shrink(self, octets: int) -> None:
        """Evict, the oldest first, until no more than `octets` are left, if that is possible."""
        lru = self._lru
        while self.octets > octets and lru:
            oldest, _ = lru.popitem(last=False)
            if not oldest.flags & (B_BUSY | B_DELWRI):  # those come back when they are released
                self.evicted += 1
                oldest.flags = B_INVAL
                self._forget(oldest)

    def _forget(self, bp: Buf) -> None:
        blocks = self._table.get(bp.vp)
        if blocks is not None and blocks.get(bp.blkno) is bp:  # not so when it was abandoned
            del blocks[bp.blkno]
            if not blocks:
                del self._table[bp.vp]
            self.octets -= bp.bcount

    def abandon(self, vp: Vnode) -> None:
        """Drop all buffers of a device that is gone, from under who has them, too."""
        for bp in self.buffers(vp):
            self.clean(bp)
            self._lru.pop(bp, None)
            self._forget(bp)
            bp.flags = bp.flags & B_BUSY | B_INVAL
            self._refuse(bp)

    def _refuse(self, bp: Buf) -> None:
        """Send away who waits for a buffer that was dropped: they find, or make, another one."""
        waiters, bp.waiters = bp.waiters, None
        for task in waiters or ():
            reschedule(task)

    def release(self, bp: Buf) -> None:
        """Put a busy buffer back, give it to who waits for it, or drop it (for `brelse`)."""
        flags = bp.flags
        if not flags & (B_DONE | B_DELWRI):
            flags |= B_INVAL  # nothing was ever in it
        elif flags & B_NOCACHE and not flags & B_DELWRI:
            flags |= B_INVAL
        if flags & B_INVAL:
            self.clean(bp)
            self._lru.pop(bp, None)
            self._forget(bp)
            bp.flags = B_INVAL
            self._refuse(bp)
            return
        if bp.waiters:
            bp.flags = flags & ~_OF_ONE_USE | B_BUSY
            reschedule(bp.waiters.popleft())
            return
        bp.flags = flags & ~_OF_ONE_USE
        if not flags & B_DELWRI:
            self._lru[bp] = None
            self._lru.move_to_end(bp, last=not flags & B_AGE)
            if self.octets > self.limit:
                self._shrink(self.limit)

    async def wait(self, bp: Buf, *, cancellable: bool = False) -> bool:
        """Wait until a busy buffer is ours; False if it was dropped."""
        self.waits += 1
        if bp.waiters is None:
            bp.waiters = deque()
        task = current_task()
        waiters = bp.waiters
        waiters.append(task)

        def give_up(_: RaiseCancelT) -> Abort:
            waiters.remove(task)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(give_up if cancellable else uninterruptible)
        return not bp.flags & B_INVAL

    def soil(self, bp: Buf) -> None:
        """Note that the contents are newer than the device's."""
        if not bp.flags & B_DELWRI:
            bp.flags |= B_DELWRI
            vp = bp.vp
            if vp.dirtyblks is None:
                vp.dirtyblks = {}
            vp.dirtyblks[bp] = None
            if vp.synctime < 0 and not vp.is_dead:
                vp.mount.kernel.syncer.add(vp)
            self.dirty += bp.bcount

    def clean(self, bp: Buf) -> None:
        """Note that the device has the contents, or that they are worth nothing."""
        if bp.flags & B_DELWRI:
            bp.flags &= ~B_DELWRI
            assert bp.vp.dirtyblks is not None
            del bp.vp.dirtyblks[bp]
            self.dirty -= bp.bcount


def incore(vp: Vnode, blkno: int) -> Buf | None:
    """Return the buffer if there is one, as it is: perhaps busy, perhaps without contents."""
    return vp.mount.kernel.bufs.find(vp, blkno)


async def getblk(vp: Vnode, blkno: int, size: int) -> Buf:
    """Return the buffer of `blkno`, busy: the caller's own until `brelse` or a write.

    Its contents are valid if B_DONE or B_DELWRI is set; of a new one they are zeros. Waits while
    it is somebody else's, first come, first served; does not yield otherwise. Who asks for a
    buffer that he has himself waits for ever. Not cancellable. RuntimeError for another size
    than the vnode's buffers have.
    """
    cache = vp.mount.kernel.bufs
    while (bp := cache.take(vp, blkno, size)) is None:
        bp = cache.find(vp, blkno)
        assert bp is not None
        if await cache.wait(bp):
            cache.hits += 1
            break
    return bp


def brelse(bp: Buf, set_flags: int = 0) -> None:
    """Release a busy buffer, first setting B_INVAL, B_NOCACHE or B_AGE if that is wanted.

    With B_INVAL it is dropped, unwritten contents too: what a block held that was freed. The same
    happens to a buffer that never had contents.
    """
    if not bp.flags & B_BUSY or not bp.data:
        raise RuntimeError(f"brelse of {bp!r}")
    bp.flags |= set_flags
    bp.vp.mount.kernel.bufs.release(bp)
