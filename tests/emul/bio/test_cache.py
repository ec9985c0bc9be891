"""Which buffers there are, who has them, which go; and that what is there costs no yield."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import (
    B_AGE,
    B_BUSY,
    B_DELWRI,
    B_DONE,
    B_INVAL,
    B_NOCACHE,
    BufferCache,
    bdwrite,
    bread,
    brelse,
    getblk,
    incore,
)
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.specfs import spec_mount
from syspuffs.emul.vnode import Vnode

from ..caller import now
from .told import BSIZE, SECTORS, ToldDisk, device, fill, memory, peek


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(bufmem=4 * BSIZE)
    kernel.bufs.lodirty = kernel.bufs.hidirty = 4 * BSIZE  # nothing is written by itself
    return kernel


@pytest.fixture
def devvp(kernel: Kernel) -> Vnode:
    """A device in memory; its kernel runs no tasks, and has room for four buffers."""
    return spec_mount(kernel, memory())


def cached(devvp: Vnode) -> list[int]:
    """Return the blocks that are in the cache, and check its accounts."""
    cache = devvp.mount.kernel.bufs
    buffers = cache.buffers(devvp)
    statistics = cache.statistics()
    assert statistics.buffers == len(buffers)
    assert statistics.octets == len(buffers) * BSIZE
    dirty = [bp for bp in buffers if bp.flags & B_DELWRI]
    assert statistics.dirty == len(dirty) * BSIZE
    assert set(devvp.dirtyblks or ()) == set(dirty)
    return sorted(bp.blkno // SECTORS for bp in buffers)


def test_a_block_is_read_once_and_then_found(devvp: Vnode) -> None:
    bp = now(bread(devvp, 3 * SECTORS, BSIZE))
    assert bp.data == b"\3" * BSIZE
    assert bp.flags & (B_BUSY | B_DONE) == B_BUSY | B_DONE
    brelse(bp)
    again = now(bread(devvp, 3 * SECTORS, BSIZE))
    assert again is bp
    brelse(bp)
    assert not bp.flags & B_BUSY
    statistics = devvp.mount.kernel.bufs.statistics()
    assert (statistics.misses, statistics.hits, statistics.reads) == (1, 1, 1)


def test_incore_looks_and_does_not_touch(devvp: Vnode) -> None:
    assert incore(devvp, 0) is None
    bp = now(bread(devvp, 0, BSIZE))
    assert incore(devvp, 0) is bp
    brelse(bp)
    assert incore(devvp, 0) is bp
    assert not bp.flags & B_BUSY


def test_getblk_asks_no_device_and_drops_what_nobody_filled(devvp: Vnode) -> None:
    bp = now(getblk(devvp, 0, BSIZE))
    assert not bp.flags & (B_DONE | B_DELWRI)
    assert bp.data == bytes(BSIZE)
    brelse(bp)
    assert cached(devvp) == []
    assert devvp.mount.kernel.bufs.statistics().reads == 0


def test_the_least_recently_used_goes_first(devvp: Vnode) -> None:
    for number in (1, 2, 3, 4, 1, 5):
        now(peek(devvp, number))
    assert cached(devvp) == [1, 3, 4, 5]
    assert devvp.mount.kernel.bufs.statistics().evicted == 1


def test_what_was_marked_old_goes_before_all_others(devvp: Vnode) -> None:
    for number in (1, 2, 3):
        now(peek(devvp, number))
    brelse(now(bread(devvp, 4 * SECTORS, BSIZE)), B_AGE)
    now(peek(devvp, 5))
    assert cached(devvp) == [1, 2, 3, 5]


def test_busy_and_dirty_buffers_stay_and_the_bound_holds_again_afterwards(devvp: Vnode) -> None:
    held = [now(bread(devvp, number * SECTORS, BSIZE)) for number in range(3)]
    dirty = now(fill(devvp, 3, 0xDD))
    bdwrite(dirty)
    more = [now(bread(devvp, number * SECTORS, BSIZE)) for number in (10, 11)]
    assert len(cached(devvp)) == 6
    for bp in held + more:
        brelse(bp)
    assert dirty.data == b"\xdd" * BSIZE
    now(peek(devvp, 20))
    assert len(cached(devvp)) == 4
    assert 20 in cached(devvp)


def test_not_to_be_kept(devvp: Vnode) -> None:
    brelse(now(bread(devvp, 0, BSIZE)), B_NOCACHE)
    assert cached(devvp) == []


def test_invalid_goes_with_what_was_not_written(devvp: Vnode) -> None:
    bdwrite(now(fill(devvp, 1, 0xDD)))
    bp = now(bread(devvp, 1 * SECTORS, BSIZE))
    assert bp.data == b"\xdd" * BSIZE
    brelse(bp, B_INVAL)
    assert cached(devvp) == []
    assert now(peek(devvp, 1)) == b"\1" * BSIZE


@pytest.mark.parametrize(
    ("blkno", "size"), [(1, BSIZE), (SECTORS, 0), (0, 100), (-SECTORS, BSIZE), (4, BSIZE)]
)
def test_no_address(devvp: Vnode, blkno: int, size: int) -> None:
    with pytest.raises(RuntimeError, match="no address"):
        now(getblk(devvp, blkno, size))


def test_one_size_for_all_buffers_of_a_vnode(devvp: Vnode) -> None:
    bp = now(bread(devvp, 0, BSIZE))
    for blkno in (0, 2):  # the block itself, and one that would overlap it
        with pytest.raises(RuntimeError, match="wanted"):
            now(bread(devvp, blkno, 1024))
    brelse(bp, B_INVAL)
    brelse(now(bread(devvp, 2, 1024)))  # all are gone: another size may come
    with pytest.raises(RuntimeError, match="wanted"):
        now(bread(devvp, 0, BSIZE))


def test_released_once(devvp: Vnode) -> None:
    bp = now(bread(devvp, 0, BSIZE))
    brelse(bp)
    with pytest.raises(RuntimeError, match="brelse"):
        brelse(bp)
    with pytest.raises(RuntimeError, match="bdwrite"):
        bdwrite(bp)


def test_devices_do_not_share_buffers(kernel: Kernel) -> None:
    one, two = spec_mount(kernel, memory()), spec_mount(kernel, memory())
    bdwrite(now(fill(one, 0, 1)))
    assert now(peek(two, 0)) == bytes(BSIZE)
    assert kernel.bufs.statistics().buffers == 2
    assert BufferCache().statistics().buffers == 0


async def test_a_busy_buffer_goes_to_who_waits_longest() -> None:
    order: list[int] = []

    async def visit(devvp: Vnode, number: int) -> None:
        bp = await getblk(devvp, 0, BSIZE)
        order.append(number)
        assert bp.data[0] == number
        bp.data[0] += 1
        await trio.lowlevel.checkpoint()
        brelse(bp)

    async with device(memory()) as devvp, trio.open_nursery() as nursery:
        bp = await bread(devvp, 0, BSIZE)
        for number in range(1, 5):
            nursery.start_soon(visit, devvp, number)
            await wait_all_tasks_blocked()
        bp.data[0] = 1
        brelse(bp)
        assert bp.flags & B_BUSY  # handed over, not up for grabs
        late = await getblk(devvp, 0, BSIZE)
        order.append(5)
        assert late.data[0] == 5
        brelse(late)
    assert order == [1, 2, 3, 4, 5]
    assert devvp.mount.kernel.bufs.statistics().waits == 5


async def test_who_waits_for_a_buffer_that_is_dropped_gets_another() -> None:
    found: list[bytes] = []

    async def visit(devvp: Vnode) -> None:
        found.append(await peek(devvp, 7))

    async with device(memory()) as devvp, trio.open_nursery() as nursery:
        bp = await fill(devvp, 7, 0xDD)
        for _ in range(3):
            nursery.start_soon(visit, devvp)
        await wait_all_tasks_blocked()
        brelse(bp, B_INVAL)
    assert found == [b"\7" * BSIZE] * 3


async def test_waiting_for_a_buffer_cannot_be_cancelled() -> None:
    got: list[str] = []

    async def visit(devvp: Vnode, scope: trio.CancelScope) -> None:
        with scope:
            bp = await getblk(devvp, 0, BSIZE)
            got.append("buffer")
            brelse(bp)
            await trio.lowlevel.checkpoint()
            got.append("no cancellation")

    async with device(memory()) as devvp, trio.open_nursery() as nursery:
        bp = await bread(devvp, 0, BSIZE)
        scope = trio.CancelScope()
        nursery.start_soon(visit, devvp, scope)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert got == []
        brelse(bp)
    assert got == ["buffer"]


async def test_two_readers_of_a_block_ask_the_device_once() -> None:
    disk = ToldDisk()
    disk.image[:4] = b"data"
    found: list[bytes] = []

    async def visit(devvp: Vnode) -> None:
        found.append((await peek(devvp, 0))[:4])

    async with device(disk) as devvp, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(visit, devvp)
        await wait_all_tasks_blocked()
        assert disk.asked == [0]
        disk.complete()
    assert found == [b"data"] * 3
