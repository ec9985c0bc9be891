"""Devices that fail: what was not read is not there, what was not written is not forgotten."""

from __future__ import annotations

from errno import EIO

import pytest
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.uvm import FOLIO
from syspuffs.native.constants import MAXPHYS, PAGE_SIZE, PGO_CLEANIT, PGO_FREE, PGO_SYNCIO

from ..caller import fails
from .bench import bench, cold, pages, put
from .slowdisk import KIB, MIB

DELAYED = pytest.mark.logs("slow: delayed writes fail")


async def test_a_page_that_cannot_be_read_is_an_error() -> None:
    async with bench() as here:
        vp = await cold(here, 2 * FOLIO)
        expected = here.fs.on_disk(vp)
        here.disk.bad_reads = True
        for offset, resid in ((0, 1), (0, 2 * FOLIO), (2 * FOLIO - 1, 5), (0, 1)):
            with fails(EIO):
                await here.read(vp, offset, resid)
        assert len(here.disk.reads) <= 12, "two tries each, and some ahead"
        await here.quiet()
        assert not pages(vp).folios, "nothing is left of them"
        with fails(EIO):
            await here.write(vp, 5, b"x")
        with fails(EIO):
            await here.truncate(vp, 5)
        assert vp.size == 2 * FOLIO
        assert pages(vp).is_clean
        assert here.memory.statistics().pagein_errors >= 6
        here.disk.bad_reads = False
        assert await here.read(vp) == expected, "half of what failed had come"
        await put(vp)


async def test_a_read_that_fails_harms_no_other() -> None:
    """Pages that were there before stay, and read-ahead that fails is nobody's error."""
    async with bench() as here:
        vp = await cold(here, 8 * FOLIO)
        await here.putpages(vp, PGO_FREE)
        first = await here.read(vp, FOLIO + 1, PAGE_SIZE)
        here.disk.bad_reads = True
        with fails(EIO):
            await here.read(vp, FOLIO, FOLIO)
        assert await here.read(vp, FOLIO + 1, PAGE_SIZE) == first
        here.disk.bad_reads = False
        await here.putpages(vp, PGO_FREE)
        size = FOLIO
        assert len(await here.read(vp, 0, size)) == size
        here.disk.bad_reads = True
        offset = size
        while pages(vp).is_valid(offset, offset + PAGE_SIZE):
            assert len(await here.read(vp, offset, PAGE_SIZE)) == PAGE_SIZE
            offset += PAGE_SIZE
        here.disk.bad_reads = False
        assert len(await here.read(vp)) == 8 * FOLIO
        await put(vp)


async def test_where_pages_are_cannot_be_found_out() -> None:
    async with bench() as here:
        vp = await cold(here, FOLIO)
        here.fs.bad_maps = True
        with fails(EIO):
            await here.read(vp)
        assert not pages(vp).folios
        await here.write(vp, 0, bytes(PAGE_SIZE))
        with fails(EIO):
            await here.fsync(vp)
        await here.putpages(vp, PGO_CLEANIT, FOLIO, 2 * FOLIO)
        assert (pages(vp).ndirty, pages(vp).nfailed, pages(vp).error) == (1, 1, EIO)
        here.fs.bad_maps = False
        await here.fsync(vp)
        assert (pages(vp).ndirty, pages(vp).nfailed, pages(vp).error) == (0, 0, 0)
        assert (await here.read(vp))[: PAGE_SIZE + 1] == bytes(PAGE_SIZE) + b"\x61"
        await put(vp)


@DELAYED
async def test_a_page_that_cannot_be_written_stays_dirty() -> None:
    async with bench() as here:
        vp = here.fs.vnode(1)
        data = bytes(range(256)) * (2 * FOLIO // 256)
        await here.write(vp, 0, data)
        here.disk.bad_writes = True
        for _ in range(3):
            with fails(EIO):
                await here.fsync(vp)
        with fails(EIO):
            await here.putpages(vp, PGO_CLEANIT | PGO_FREE | PGO_SYNCIO)
        assert pages(vp).ndirty == pages(vp).nfailed == 2 * FOLIO // PAGE_SIZE
        assert here.memory.statistics().failed == 2 * FOLIO // PAGE_SIZE
        assert await here.read(vp) == data
        here.disk.bad_writes = False
        await here.fsync(vp)
        assert here.fs.on_disk(vp) == data
        assert pages(vp).error == 0
        assert here.memory.statistics().failed == 0
        await put(vp)


@DELAYED
async def test_an_error_of_write_behind_is_told_by_fsync() -> None:
    async with bench(size=4 * MIB) as here:
        vp = here.fs.vnode(1)
        here.disk.bad_writes = True
        await here.write(vp, 0, b"x" * MAXPHYS)
        await here.quiet()
        assert pages(vp).nfailed == MAXPHYS // PAGE_SIZE
        for _ in range(2):
            with fails(EIO):
                await here.fsync(vp)
        # Who goes on writing hears it, too, before anything of it is taken.
        with fails(EIO):
            await here.write(vp, MAXPHYS, b"y")
        assert vp.size == MAXPHYS
        here.disk.bad_writes = False
        await here.write(vp, MAXPHYS, b"y")
        await here.fsync(vp)
        assert here.fs.on_disk(vp) == b"x" * MAXPHYS + b"y" + bytes(PAGE_SIZE - 1)
        await put(vp)


@DELAYED
async def test_what_is_cut_off_cannot_fail_any_more() -> None:
    async with bench(bsize=KIB, driven=False) as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, b"x" * 2 * FOLIO)
        here.disk.bad_writes = True
        await here.putpages(vp, PGO_CLEANIT)
        async with here.nursery() as nursery:
            nursery.start_soon(here.truncate, vp, 5 * KIB)
            await wait_all_tasks_blocked()
            here.disk.finish()
        assert (pages(vp).ndirty, pages(vp).nfailed) == (2, 2)
        await here.truncate(vp, 0)
        assert (pages(vp).ndirty, pages(vp).nfailed, pages(vp).error) == (0, 0, 0)
        await here.fsync(vp)
        await put(vp)
