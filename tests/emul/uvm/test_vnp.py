"""Sizes that change: what may be seen of old data, and where late transfers may land."""

from __future__ import annotations

from errno import EIO

import pytest
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.uvm import FOLIO
from syspuffs.native.constants import (
    PAGE_SIZE,
    PGO_CLEANIT,
    PGO_FREE,
    PGO_SYNCIO,
)

from ..caller import fails
from .bench import bench, cold, pages, put
from .blockfs import File
from .slowdisk import KIB, OLD


@pytest.mark.parametrize("bsize", [KIB, 2 * KIB, PAGE_SIZE])
async def test_no_late_write_into_a_freed_block(bsize: int) -> None:
    """A shorter size waits for output behind it; the disk checks whose block is written."""
    async with bench(bsize=bsize, driven=False) as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, b"x" * 3 * FOLIO)
        await here.putpages(vp, PGO_CLEANIT)
        async with here.nursery() as nursery:
            nursery.start_soon(here.truncate, vp, FOLIO + 5 * KIB)
            await wait_all_tasks_blocked()
            assert vp.size == FOLIO + 5 * KIB
            assert len(here.fs.files[1].blocks) == 3 * FOLIO // bsize
            here.disk.finish()
        assert len(here.fs.files[1].blocks) == -(-(FOLIO + 5 * KIB) // bsize)
        # The tail of the last block is zero again, there and here.
        here.disk.is_fast = True
        await here.fsync(vp)
        assert here.fs.on_disk(vp).rstrip(b"\0") == b"x" * (FOLIO + 5 * KIB)
        await here.truncate(vp, 2 * FOLIO)
        assert (await here.read(vp)).rstrip(b"\0") == b"x" * (FOLIO + 5 * KIB)
        await put(vp)


async def test_a_page_comes_in_while_the_file_grows_in_memory() -> None:
    """The memory of a folio is replaced while the device writes into the old one."""
    async with bench(driven=False) as here:
        vp = await cold(here, 2 * PAGE_SIZE)
        await here.fs.getpages(vp, 0, PAGE_SIZE, 0)
        await here.write(vp, 3 * PAGE_SIZE, b"y" * PAGE_SIZE)
        here.disk.finish()
        here.disk.is_fast = True
        assert (await here.read(vp))[:250] == bytes(range(1, 251))
        await here.putpages(vp, PGO_CLEANIT | PGO_FREE | PGO_SYNCIO)
        assert (await here.read(vp))[3 * PAGE_SIZE :] == b"y" * PAGE_SIZE
        await put(vp)


async def test_a_page_comes_in_after_its_file_was_cut_off() -> None:
    """What was read for the old pages touches none of the new ones."""
    async with bench(driven=False, limit=2 * FOLIO) as here:
        vp = await cold(here, PAGE_SIZE + 100)
        await here.fs.getpages(vp, 0, 2 * PAGE_SIZE, 0)
        await here.truncate(vp, 0)
        data = b"new" * PAGE_SIZE
        await here.write(vp, 0, data)
        here.disk.finish()
        assert await here.read(vp) == data
        here.check_accounts()
        # Nor does it make room in their place.
        here.heal()
        other = here.fs.vnode(2)
        await here.truncate(other, 4 * FOLIO)
        await here.write(other, 0, bytes(2 * FOLIO))
        assert await here.read(vp) == data
        here.check_accounts()
        await put(vp, other)


async def test_old_octets_are_never_seen() -> None:
    """Half of what cannot be read has come, and stays in memory until it is zeroed."""
    async with bench(bsize=KIB) as here:
        vp = await cold(here, 4 * PAGE_SIZE)
        file = here.fs.files[1]
        await here.fs.getpages(vp, 3 * PAGE_SIZE, PAGE_SIZE, PGO_SYNCIO)  # so that memory stays
        here.disk.bad_reads = True
        for page in range(3):
            with fails(EIO):
                await here.fs.getpages(vp, page * PAGE_SIZE, PAGE_SIZE, PGO_SYNCIO)
        assert OLD in pages(vp).folios[0].data
        here.disk.bad_reads = False
        # A hole, and two pages with a hole in front and behind.
        for index in (0, 1, 2, 3, 4, 5, 10, 11):
            here.fs.free.add(file.blocks.pop(index))
        expected = here.fs.on_disk(vp)
        assert expected.count(b"\0") > PAGE_SIZE
        assert await here.read(vp) == expected
        # A last page of which all is overwritten.
        await here.truncate(vp, 4 * PAGE_SIZE + 100)
        await here.write(vp, vp.size - 1, b"x")
        await here.putpages(vp, PGO_CLEANIT | PGO_SYNCIO)
        await here.putpages(vp, PGO_FREE, 4 * PAGE_SIZE, 5 * PAGE_SIZE)
        here.disk.bad_reads = True
        with fails(EIO):
            await here.fs.getpages(vp, 4 * PAGE_SIZE, PAGE_SIZE, PGO_SYNCIO)
        await here.write(vp, 4 * PAGE_SIZE, b"x" * 101)
        await here.truncate(vp, 5 * PAGE_SIZE)
        assert OLD not in await here.read(vp, 3 * PAGE_SIZE)
        here.disk.bad_reads = False
        await put(vp)


async def test_old_octets_behind_the_end_are_never_seen() -> None:
    """A crash left more in the last block than the file had."""
    async with bench(bsize=2 * KIB) as here:
        file = here.fs.files.setdefault(1, File(1))
        for size in (100, PAGE_SIZE + 100, FOLIO + 3 * KIB + 1):
            for grow in ("read first", "set size", "write far", "write near", "overwrite"):
                vp = await cold(here, size)
                last = file.blocks[(size - 1) // (2 * KIB)]
                start, end = last * 2 * KIB + size % (2 * KIB), (last + 1) * 2 * KIB
                here.disk.image[start:end] = OLD * (end - start)
                if grow == "read first":
                    assert OLD not in await here.read(vp)
                if grow == "write far":
                    await here.write(vp, 3 * FOLIO, b"x")
                elif grow == "write near":
                    await here.write(vp, size + 1, b"x")
                elif grow == "overwrite":
                    await here.write(vp, size & -PAGE_SIZE, b"x" * (size % PAGE_SIZE + 1))
                await here.truncate(vp, 4 * FOLIO)
                assert OLD not in await here.read(vp)
                await here.fsync(vp)
                assert OLD not in here.fs.on_disk(vp)
                await here.putpages(vp, PGO_FREE)
                assert OLD not in await here.read(vp)
                await here.truncate(vp, 0)
                await put(vp)
