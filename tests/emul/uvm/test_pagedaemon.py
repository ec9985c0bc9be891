"""Bounds: memory, dirty pages, and who waits for whom."""

from __future__ import annotations

from errno import EIO

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.uvm import FOLIO
from syspuffs.emul.uvm.pagedaemon import FOLIO_COST, PATIENCE
from syspuffs.emul.uvm.readahead import RA_MAX, RA_MIN, RA_SLACK, ReadAhead
from syspuffs.native.constants import PAGE_SIZE, PGO_CLEANIT, PGO_DEACTIVATE, PGO_SYNCIO
from syspuffs.native.errors import VfsError

from ..caller import fails
from .bench import bench, cold, pages, put, second
from .slowdisk import KIB, MIB

# Read-ahead.


def test_sequential_readers_get_a_window_that_grows() -> None:
    ahead = ReadAhead()
    step = 128 * KIB
    asked = 0
    ranges = []
    for offset in range(0, 32 * MIB, step):
        begun = ahead.advance(offset, offset + step, RA_MAX)
        if begun is not None:
            ranges.append(begun)
            assert begun[0] == max(asked, offset + step), "nothing twice, no gap"
            asked = begun[1]
        assert ahead.is_sequential
        assert RA_MIN // 2 <= asked - (offset + step) <= RA_MAX
    lengths = [end - start for start, end in ranges]
    assert lengths[0] == RA_MIN
    assert lengths[-1] >= RA_MAX // 2
    assert all(length % FOLIO == 0 for length in lengths)


def test_requests_may_be_out_of_order() -> None:
    """A host has several requests on their way, and they overtake each other."""
    ahead = ReadAhead()
    step = 128 * KIB
    order = [0, 1, 3, 2, 5, 4, 6, 9, 8, 7, 10, 11]
    sequential = []
    for number in order:
        ahead.advance(number * step, (number + 1) * step, RA_MAX)
        sequential.append(ahead.is_sequential)
    assert sum(sequential) >= len(order) - 1


def test_random_readers_are_left_alone() -> None:
    ahead = ReadAhead()
    for offset in (50 * MIB, 3 * MIB, 80 * MIB, MIB, 20 * MIB, 0, 9 * MIB):
        assert ahead.advance(offset, offset + PAGE_SIZE, RA_MAX) is None
        assert not ahead.is_sequential
    # Until one goes on where he was.
    offset = 9 * MIB + PAGE_SIZE
    assert ahead.advance(offset, offset + PAGE_SIZE, RA_MAX) is not None
    assert ahead.advance(offset + RA_SLACK + MIB, offset + RA_SLACK + 2 * MIB, RA_MAX) is None


async def test_reading_ahead_overlaps_with_the_reader() -> None:
    async with bench(driven=False) as here:
        vp = await cold(here, 8 * MIB)
        async with here.nursery() as nursery:
            nursery.start_soon(here.read, vp, 0, 128 * KIB)
            await wait_all_tasks_blocked()
            # His pages first, and the next ones before he has his.
            (_, first), (_, second) = here.disk.reads
            assert first == 128 * KIB
            assert second >= RA_MIN
            bp, offset = here.disk.queue.pop(0)
            here.disk.complete(bp, offset)
        assert len(here.disk.queue) == 1
        here.disk.finish()
        # From here on he finds everything there; the device is always ahead of him.
        for offset in range(128 * KIB, 8 * MIB, 128 * KIB):
            assert pages(vp).is_valid(offset, offset + 128 * KIB)
            assert len(await here.read(vp, offset, 128 * KIB)) == 128 * KIB
            here.disk.finish()
        assert sum(length for _, length in here.disk.reads) == 8 * MIB
        assert len(here.disk.reads) < 20
        await put(vp)


# Memory.


async def test_memory_is_bounded() -> None:
    limit = 2 * MIB
    async with bench(limit=limit, driven=False) as here:
        here.disk.is_fast = True
        vp = here.fs.vnode(1)
        for offset in range(0, 8 * MIB, 128 * KIB):
            await here.write(vp, offset, bytes(128 * KIB))
            assert here.memory.octets <= limit + 128 * KIB
        await here.fsync(vp)
        for offset in range(0, 8 * MIB, 100_000):
            await here.read(vp, offset, 100_000)
            assert here.memory.octets <= limit
        figures = here.memory.statistics()
        assert figures.evicted > 50
        assert figures.octets == sum(
            len(folio.data) + FOLIO_COST for folio in pages(vp).folios.values()
        )
        # A request that is larger than all memory is answered all the same.
        assert len(await here.read(vp, 0, 8 * MIB)) == 8 * MIB
        assert here.memory.octets <= limit
        await put(vp)


async def test_what_is_used_stays() -> None:
    async with bench(limit=20 * FOLIO, driven=False) as here:
        here.disk.is_fast = True
        small, large = here.fs.vnode(1), here.fs.vnode(2)
        await here.write(small, 0, bytes(2 * FOLIO))
        await here.write(large, 0, bytes(64 * FOLIO))
        await here.fsync(small)
        await here.fsync(large)
        await here.read(small)
        folio = pages(small).folios[0]
        for number in (*range(0, 64, 2), *range(1, 64, 2)):  # at random, so to speak
            await here.read(large, number * FOLIO, 10)
            assert await here.read(small, 5, 5)
        assert pages(small).folios[0] is folio
        await put(small, large)


async def test_free_behind() -> None:
    """A large file that is read from front to back does not push out what others use."""
    limit = 2 * MIB
    async with bench(limit=limit, driven=False) as here:
        here.disk.is_fast = True
        small, large = here.fs.vnode(1), here.fs.vnode(2)
        await here.write(large, 0, bytes(8 * MIB))
        await here.fsync(large)
        await here.write(small, 0, bytes(8 * FOLIO))
        await here.fsync(small)
        await here.read(small)
        for folio in pages(small).folios.values():
            folio.referenced = False
        for offset in range(0, 8 * MIB, FOLIO):
            await here.read(large, offset, FOLIO)
        assert len(pages(small).folios) == 8
        await put(small, large)


async def test_deactivated_pages_go_first() -> None:
    async with bench(limit=10 * FOLIO, driven=False) as here:
        here.disk.is_fast = True
        vp = await cold(here, 64 * FOLIO)
        here.disk.is_fast = True
        for number in (0, 20, 40, 30):
            await here.read(vp, number * FOLIO, 10)
        await here.putpages(vp, PGO_DEACTIVATE, 30 * FOLIO, 31 * FOLIO)
        for number in (10, 50, 60, 5, 15, 25):
            await here.read(vp, number * FOLIO, 10)
        assert 30 not in pages(vp).folios
        assert 0 in pages(vp).folios
        await put(vp)


# Dirty pages.


async def test_the_daemon_writes_in_time() -> None:
    """NetBSD's uvmwait: who needs memory gets it when the daemon has made some."""
    limit = 4 * MIB
    async with bench(limit=limit) as here:
        vp = here.fs.vnode(1)
        # Every second page, so that no cluster is ever full.
        for offset in range(0, 8 * MIB, 2 * PAGE_SIZE):
            await here.write(vp, offset, bytes(PAGE_SIZE))
            figures = here.memory.statistics()
            assert (figures.dirty + figures.writing) * PAGE_SIZE <= limit // 2 + PAGE_SIZE
            assert figures.octets <= limit + FOLIO + FOLIO_COST
        assert figures.pageouts > 0
        await put(vp)


async def test_a_writer_waits_for_a_device_that_cannot_keep_up(autojump_clock: MockClock) -> None:
    async with bench(limit=4 * MIB, driven=False) as here:
        vp = here.fs.vnode(1)
        written = 0

        async def write() -> None:
            nonlocal written
            for offset in range(0, 8 * MIB, 64 * KIB):
                await here.write(vp, offset, bytes(64 * KIB))
                written = offset + 64 * KIB

        async with here.nursery() as nursery:
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            assert 2 * MIB <= written <= 2 * MIB + 64 * KIB
            before = written
            here.disk.step()
            await wait_all_tasks_blocked()
            assert before < written < 4 * MIB
            while written < 8 * MIB:
                here.disk.finish()
                await wait_all_tasks_blocked()
            assert here.memory.statistics().throttled > 1
        await put(vp)


async def test_a_writer_who_waits_can_be_cancelled(autojump_clock: MockClock) -> None:
    async with bench(limit=4 * MIB, driven=False) as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, bytes(3 * MIB))
        async with here.nursery() as nursery:
            scope = trio.CancelScope()

            async def write() -> None:
                with scope:
                    await here.write(vp, 3 * MIB, b"x")

            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            scope.cancel()
        assert scope.cancelled_caught
        assert vp.size == 3 * MIB
        # Nor does he wait for ever where nothing moves.
        began = trio.current_time()
        await here.write(vp, 3 * MIB, b"x")
        assert trio.current_time() - began == pytest.approx(PATIENCE)
        await put(vp)


async def test_a_slow_device_is_no_concern_of_others(autojump_clock: MockClock) -> None:
    async with bench(limit=4 * MIB, driven=False) as slow, second(slow) as quick:
        quick.disk.is_fast = True
        stuck, vp = slow.fs.vnode(1), quick.fs.vnode(1)
        await slow.write(stuck, 0, bytes(2 * MIB))
        began = trio.current_time()
        for offset in range(0, 8 * MIB, 64 * KIB):
            await quick.write(vp, offset, bytes(64 * KIB))
        assert trio.current_time() == began
        slow.heal()
        await put(stuck, vp)


async def test_mounts_share_what_may_be_dirty(autojump_clock: MockClock) -> None:
    async with bench(limit=4 * MIB, driven=False) as here, second(here) as there:
        vp, other = here.fs.vnode(1), there.fs.vnode(1)
        await here.write(vp, 0, bytes(MIB + 512 * KIB))
        await here.write(vp, 0, b"x")
        await there.write(other, 0, b"x")
        began = trio.current_time()
        await there.write(other, 0, b"y")
        assert trio.current_time() == began
        await here.write(vp, 0, b"y")
        assert trio.current_time() > began, "more than half of what may be dirty is his"
        await put(vp, other)


@pytest.mark.logs("slow: delayed writes fail")
async def test_refused_pages_are_bounded_too() -> None:
    async with bench(limit=4 * MIB) as here:
        here.disk.bad_writes = True
        errors = 0
        vps = [here.fs.vnode(number + 1) for number in range(80)]
        for vp in vps:
            try:
                await here.write(vp, 0, bytes(FOLIO))
            except VfsError:
                errors += 1
            await here.putpages(vp, PGO_CLEANIT)
            await here.quiet()
        assert errors > 30
        # Half of the memory, and what was under way when the others were counted.
        assert here.memory.statistics().failed * PAGE_SIZE <= 3 * MIB
        with fails(EIO):
            await here.write(vps[-1], 0, b"x")
        here.disk.bad_writes = False
        for vp in vps:
            await here.putpages(vp, PGO_CLEANIT | PGO_SYNCIO)
        await here.write(vps[-1], 0, b"x")
        await put(*vps)


async def test_dirty_vnodes_are_the_syncers() -> None:
    async with bench() as here:
        vp = here.fs.vnode(1)
        assert vp.synctime < 0
        await here.write(vp, 0, b"x")
        assert vp.synctime >= 0
        await put(vp)
