"""How pages come from the device and go there: how many transfers, when, and what is waited for."""

from __future__ import annotations

from errno import EIO

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.uvm import FOLIO
from syspuffs.emul.uvm.pagedaemon import FOLIO_COST
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import (
    MAXPHYS,
    PAGE_SIZE,
    PGO_CLEANIT,
    PGO_DEACTIVATE,
    PGO_FREE,
    PGO_OVERWRITE,
    PGO_SYNCIO,
)
from syspuffs.native.errors import VfsError

from .bench import Bench, bench, cold, pages, put
from .slowdisk import KIB, MIB


async def getpages(here: Bench, vp: Vnode, offset: int, length: int, flags: int) -> None:
    await here.fs.getpages(vp, offset, length, flags)


async def test_one_transfer_for_a_cluster() -> None:
    async with bench() as here:
        vp = await cold(here, 3 * MIB)
        await getpages(here, vp, 0, 3 * MIB, PGO_SYNCIO)
        assert [length for _, length in here.disk.reads] == [MAXPHYS] * 3
        await here.write(vp, 0, bytes(3 * MIB))
        await here.fsync(vp)
        assert [length for _, length in here.disk.writes] == [MAXPHYS] * 3
        await put(vp)


async def test_only_what_is_missing_is_read() -> None:
    async with bench() as here:
        vp = await cold(here, FOLIO)
        for page in (3, 4, 9):
            await getpages(here, vp, page * PAGE_SIZE, PAGE_SIZE, PGO_SYNCIO)
        here.disk.reads.clear()
        await getpages(here, vp, PAGE_SIZE + 1, 11 * PAGE_SIZE, PGO_SYNCIO)
        base = here.fs.files[1].blocks[0] * PAGE_SIZE
        assert here.disk.reads == [
            (base + first * PAGE_SIZE, (last - first) * PAGE_SIZE)
            for first, last in ((1, 3), (5, 9), (10, 13))
        ]
        await put(vp)


async def test_pages_in_pieces() -> None:
    """Blocks of 1 KiB that lie apart, and a hole among them."""
    async with bench(bsize=KIB, contiguity=0) as here:
        vp = await cold(here, 10 * KIB)
        here.fs.give_back(here.fs.files[1], 9)
        async with here.nursery() as nursery:
            nursery.start_soon(getpages, here, vp, 0, 10 * KIB, PGO_SYNCIO)
        assert len(here.disk.reads) == 9
        assert {length for _, length in here.disk.reads} == {KIB}
        expected = (bytes(range(1, 251)) * 41)[: 9 * KIB] + bytes(KIB)
        assert await here.read(vp) == expected
        await put(vp)


async def test_holes_are_not_read_and_take_no_memory() -> None:
    async with bench(size=MIB) as here:
        vp = here.fs.vnode(1)
        await here.truncate(vp, 64 * MIB)
        before = here.memory.octets
        assert await here.read(vp, 0, 4 * MIB) == bytes(4 * MIB)
        assert here.disk.reads == []
        assert here.memory.octets - before < 100 * KIB
        # Nor are they written, even when they have become dirty.
        await here.write(vp, 5 * FOLIO, b"x")
        await here.truncate(vp, 3 * FOLIO + 17)
        await here.fsync(vp)
        assert here.disk.writes == []
        await put(vp)


async def test_two_readers_of_one_page_read_it_once() -> None:
    """NetBSD's busypage: who wants a page that is under way waits for it."""
    async with bench(driven=False) as here:
        vp = await cold(here, FOLIO)
        async with here.nursery() as nursery:
            for offset in (0, PAGE_SIZE, 0):
                nursery.start_soon(getpages, here, vp, offset, 4 * PAGE_SIZE, PGO_SYNCIO)
            await wait_all_tasks_blocked()
            assert sum(length for _, length in here.disk.reads) == 5 * PAGE_SIZE
            here.disk.finish()
        await put(vp)


async def test_a_reader_who_gives_up_leaves_the_page_to_the_others() -> None:
    """As NetBSD's read_fault: whatever happens to a reader, no page stays busy."""
    async with bench(driven=False) as here:
        vp = await cold(here, FOLIO)
        async with here.nursery() as nursery:
            scope = trio.CancelScope()

            async def giving_up() -> None:
                with scope:
                    await here.read(vp, 0, FOLIO)

            async def staying() -> None:
                assert len(await here.read(vp, 0, FOLIO)) == FOLIO

            nursery.start_soon(giving_up)
            nursery.start_soon(staying)
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            assert not vp.lock.is_exclusive
            here.disk.finish()
        assert scope.cancelled_caught
        assert [folio.wired for folio in pages(vp).folios.values()] == [0]
        assert pages(vp).is_valid(0, FOLIO)
        await put(vp)


async def test_asking_for_pages_is_not_waiting_for_them() -> None:
    async with bench(driven=False) as here:
        vp = await cold(here, FOLIO)
        await getpages(here, vp, 0, FOLIO, 0)
        assert len(here.disk.queue) == 1
        assert not pages(vp).is_valid(0, 1)
        # Who is about to write them all waits, and reads none.
        async with here.nursery() as nursery:
            nursery.start_soon(getpages, here, vp, 0, FOLIO, PGO_OVERWRITE | PGO_SYNCIO)
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            here.disk.finish()
        await getpages(here, vp, 0, FOLIO, PGO_SYNCIO)
        assert len(here.disk.reads) == 1
        await put(vp)


async def test_behind_the_end_there_is_nothing() -> None:
    async with bench(bsize=KIB) as here:
        vp = await cold(here, PAGE_SIZE + 100)
        await getpages(here, vp, 0, 10 * FOLIO, PGO_SYNCIO)
        assert sum(length for _, length in here.disk.reads) == PAGE_SIZE + KIB
        assert list(pages(vp).folios) == [0]
        assert pages(vp).copyout(PAGE_SIZE, PAGE_SIZE) == (await here.read(vp))[PAGE_SIZE:] + bytes(
            PAGE_SIZE - 100
        )
        await getpages(here, vp, 10 * FOLIO, FOLIO, PGO_SYNCIO)
        await put(vp)


async def test_a_page_that_changes_on_its_way_is_written_again() -> None:
    async with bench(driven=False) as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, b"1" * FOLIO)
        await here.putpages(vp, PGO_CLEANIT)
        assert len(here.disk.queue) == 1
        await here.write(vp, 0, b"2" * PAGE_SIZE)  # does not wait
        assert pages(vp).ndirty == 1
        await here.putpages(vp, PGO_CLEANIT)
        assert len(here.disk.queue) == 1, "one write of a page at a time"
        async with here.nursery() as nursery:
            nursery.start_soon(here.fsync, vp)
            await wait_all_tasks_blocked()
            assert len(here.disk.queue) == 1
            here.disk.finish()
            await wait_all_tasks_blocked()
            assert here.disk.writes[1:] == [(here.disk.writes[0][0], PAGE_SIZE)]
            assert nursery.child_tasks
            here.disk.finish()
        assert here.fs.on_disk(vp) == b"2" * PAGE_SIZE + b"1" * (FOLIO - PAGE_SIZE)
        await put(vp)


async def test_fsync_waits_for_writes_that_others_began() -> None:
    async with bench(driven=False) as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, bytes(FOLIO))
        await here.putpages(vp, PGO_CLEANIT)
        assert not pages(vp).ndirty
        assert not pages(vp).is_clean
        async with here.nursery() as nursery:
            nursery.start_soon(here.fsync, vp)
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            assert vp.numoutput == 1
            here.disk.finish()
        assert pages(vp).is_clean
        assert len(here.disk.writes) == 1
        await put(vp)


async def test_ranges() -> None:
    """fsync of a range writes its pages only, and waits for no others."""
    async with bench(driven=False) as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, bytes(4 * FOLIO))
        await here.putpages(vp, PGO_CLEANIT, 3 * FOLIO, 4 * FOLIO)
        async with here.nursery() as nursery:
            flags = PGO_CLEANIT | PGO_SYNCIO
            nursery.start_soon(here.fs.putpages, vp, 5, FOLIO + 5, flags)
            await wait_all_tasks_blocked()
            bp, offset = here.disk.queue.pop()
            assert bp.bcount == FOLIO + PAGE_SIZE
            here.disk.complete(bp, offset)
        assert pages(vp).ndirty == (2 * FOLIO - PAGE_SIZE) // PAGE_SIZE
        here.disk.finish()
        await put(vp)


async def test_letting_go_of_pages() -> None:
    async with bench(driven=False) as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, b"x" * 2 * FOLIO)
        await here.putpages(vp, PGO_FREE)
        assert pages(vp).ndirty == 32, "what is dirty stays"
        await here.putpages(vp, PGO_CLEANIT | PGO_FREE)
        assert len(pages(vp).folios) == 2
        here.disk.finish()
        assert not pages(vp).folios, "they go when they have been written"
        async with here.nursery() as nursery:
            nursery.start_soon(getpages, here, vp, 0, 2 * FOLIO, PGO_SYNCIO)
            await wait_all_tasks_blocked()
            here.disk.finish()
        await here.putpages(vp, PGO_FREE, PAGE_SIZE, 2 * PAGE_SIZE)
        assert not pages(vp).is_valid(PAGE_SIZE, 2 * PAGE_SIZE)
        assert pages(vp).is_valid(0, PAGE_SIZE)
        await here.putpages(vp, PGO_DEACTIVATE)
        await put(vp)


@pytest.mark.parametrize("limit", [10 * KIB, FOLIO, FOLIO + FOLIO_COST + 100, 3 * FOLIO])
async def test_a_small_memory(limit: int) -> None:
    """Nobody loses the folio that he has for the one that he needs as well."""
    async with bench(limit=limit) as here:
        vp = await cold(here, 4 * FOLIO)
        expected = bytearray(await here.read(vp))
        for offset in (FOLIO - 10, 3 * FOLIO - 10, 5, 2 * FOLIO - 10):
            await here.read(vp, offset & -FOLIO, 1)
            await here.write(vp, offset, b"-" * 20)
            expected[offset : offset + 20] = b"-" * 20
        await getpages(here, vp, 0, 4 * FOLIO, PGO_SYNCIO)
        assert await here.read(vp) == expected
        await put(vp)


async def test_what_changes_while_blocks_are_looked_for() -> None:
    async with bench(bsize=KIB) as here:
        vp = here.fs.vnode(1)
        await here.truncate(vp, FOLIO)
        await here.write(vp, 0, b"1" * KIB)

        async def write() -> None:
            await here.write(vp, 2 * KIB, b"2" * KIB)

        here.fs.before_map = write
        await here.putpages(vp, PGO_CLEANIT)
        await here.fsync(vp)
        assert here.fs.on_disk(vp)[: 3 * KIB] == b"1" * KIB + bytes(KIB) + b"2" * KIB

        async def cut() -> None:
            await here.truncate(vp, PAGE_SIZE)
            raise VfsError(EIO, "of no concern any more")

        await here.write(vp, 0, b"3" * FOLIO)
        here.fs.before_map = cut
        await here.putpages(vp, PGO_CLEANIT | PGO_SYNCIO)
        assert here.fs.on_disk(vp) == b"3" * PAGE_SIZE

        # Somebody else writes some of the pages.
        async def put_some() -> None:
            await here.putpages(vp, PGO_CLEANIT, 4 * PAGE_SIZE, 7 * PAGE_SIZE)

        await here.write(vp, 0, bytes(range(256)) * (FOLIO // 256))
        here.fs.before_map = put_some
        here.disk.writes.clear()
        await here.fsync(vp)
        assert here.fs.on_disk(vp) == bytes(range(256)) * (FOLIO // 256)
        assert sum(length for _, length in here.disk.writes) == FOLIO
        await put(vp)
