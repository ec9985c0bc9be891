"""Reading and writing through pages: what is copied, read and taken, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC

from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.uvm import (
    FOLIO,
    UvmAobj,
    ubc_read,
    ubc_write,
    ubc_zerorange,
    uvm_vnp_setsize,
    uvm_vnp_terminate,
)
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import MAXPHYS, PAGE_SIZE, PGO_CLEANIT, PGO_FREE, PGO_SYNCIO
from syspuffs.native.errors import VfsError

from ..caller import Caller, fails, mounted, now
from .bench import bench, cold, pages, put
from .slowdisk import KIB, MIB


@contextmanager
def locked(vp: Vnode) -> Iterator[None]:
    """Hold the lock of `vp` exclusively."""
    assert vp.lock.try_exclusive()
    try:
        yield
    finally:
        vp.lock.release()


async def test_valid_pages_are_read_without_a_yield() -> None:
    async with bench() as here:
        vp = await cold(here, 3 * FOLIO)
        data = await here.read(vp)
        with locked(vp):
            for offset, length in ((0, 3 * FOLIO), (5, 10), (FOLIO - 1, 2), (3 * FOLIO - 9, 99)):
                assert now(ubc_read(vp, offset, length)) == data[offset : offset + length]
            assert now(ubc_read(vp, 3 * FOLIO, 1)) == b""
            assert now(ubc_read(vp, 1 << 50, 1)) == b""
        await put(vp)


async def test_what_is_read_is_not_what_is_kept() -> None:
    async with bench() as here:
        vp = await cold(here, 2 * FOLIO)
        await here.read(vp)
        with locked(vp):
            buffer = bytearray(b"first")
            now(ubc_write(vp, 0, memoryview(buffer)))
            buffer += b"resized"  # no view of it is held
            kept = now(ubc_read(vp, 0, 5))
            across = now(ubc_read(vp, FOLIO - 5, 10))
            now(ubc_write(vp, 0, b"again" + bytes(2 * FOLIO - 5)))
        assert kept == b"first"
        assert 0 not in bytes(across)
        await put(vp)


async def test_whole_pages_are_written_without_being_read() -> None:
    async with bench(driven=False) as here:
        vp = await cold(here, 4 * FOLIO)
        with locked(vp):
            now(here.fs.write(vp, 0, bytes(FOLIO), 0, here.cred))
            now(here.fs.write(vp, 2 * FOLIO, bytes(5 * PAGE_SIZE), 0, here.cred))
            # A last page whose rest lies behind the end.
            now(here.fs.write(vp, 3 * FOLIO, bytes(FOLIO + 1), 0, here.cred))
            now(here.fs.write(vp, vp.size + 3 * PAGE_SIZE - 1, b"x", 0, here.cred))
            # The last page of the file, with all that is in it.
            now(here.fs.write(vp, vp.size & -PAGE_SIZE, bytes(PAGE_SIZE - 1), 0, here.cred))
        assert here.disk.reads == []
        await here.putpages(vp, PGO_CLEANIT | PGO_FREE)
        here.disk.finish()
        with locked(vp):
            now(here.fs.write(vp, vp.size & -PAGE_SIZE, bytes(PAGE_SIZE - 1), 0, here.cred))
        assert here.disk.reads == []
        await put(vp)


async def test_a_page_that_is_being_read_is_not_written_to() -> None:
    async with bench(driven=False) as here:
        vp = await cold(here, FOLIO)
        for offset, length in ((0, FOLIO), (PAGE_SIZE, 2 * PAGE_SIZE), (5, 5)):
            await here.putpages(vp, PGO_FREE)
            await here.fs.getpages(vp, 0, FOLIO, 0)
            async with here.nursery() as nursery:
                nursery.start_soon(here.write, vp, offset, b"x" * length)
                await wait_all_tasks_blocked()
                assert nursery.child_tasks
                here.disk.finish()
            assert (await here.read(vp))[offset : offset + length] == b"x" * length
            async with here.nursery() as nursery:
                nursery.start_soon(here.fsync, vp)
                await wait_all_tasks_blocked()
                here.disk.finish()
        await put(vp)


async def test_pages_stay_while_blocks_are_taken() -> None:
    async with bench() as here:
        vp = await cold(here, FOLIO)
        expected = bytearray(await here.read(vp))

        async def alloc() -> None:
            await here.putpages(vp, PGO_CLEANIT | PGO_FREE)

        with locked(vp):
            await ubc_write(vp, 5, b"x", alloc)
        expected[5] = ord("x")
        assert await here.read(vp) == expected
        await put(vp)


async def test_edges_are_read_before_blocks_are_taken() -> None:
    async with bench(driven=False) as here:
        vp = await cold(here, 4 * PAGE_SIZE)
        steps = []

        async def alloc() -> None:
            steps.append(("alloc", len(here.disk.reads), pages(vp).ndirty, vp.size))

        async def write() -> None:
            with locked(vp):
                await ubc_write(vp, 10, b"x" * 2 * PAGE_SIZE, alloc)
            steps.append(("done", len(here.disk.reads), pages(vp).ndirty, vp.size))

        before = here.fs.on_disk(vp)
        async with here.nursery() as nursery:
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            here.disk.finish()
            await wait_all_tasks_blocked()
            here.disk.finish()
        assert steps == [("alloc", 2, 0, 4 * PAGE_SIZE), ("done", 2, 3, 4 * PAGE_SIZE)]
        here.disk.is_fast = True
        after = before[:10] + b"x" * 2 * PAGE_SIZE + before[10 + 2 * PAGE_SIZE :]
        assert await here.read(vp) == after
        await put(vp)


async def test_no_space_changes_nothing() -> None:
    async with bench(size=64 * KIB) as here:
        vp = await cold(here, 10 * KIB)
        before = await here.read(vp)
        octets = here.memory.octets
        for offset in (0, 9 * KIB, 50 * KIB, 1 << 40):
            with fails(ENOSPC):
                await here.write(vp, offset, bytes(100 * KIB))
        assert vp.size == 10 * KIB
        assert await here.read(vp) == before
        assert here.memory.octets == octets
        await put(vp)


async def test_growing_hits_nothing_but_memory() -> None:
    async with bench(driven=False) as here:
        vp = here.fs.vnode(1)
        with locked(vp):
            for number in range(100):
                now(here.fs.write(vp, vp.size, bytes([number]) * 777, 0, here.cred))
            now(uvm_vnp_setsize(vp, 1 << 40))
            assert now(ubc_read(vp, 99 * 777 - 1, 3)) == b"\x62\x63\x63"
            assert now(ubc_read(vp, (1 << 40) - 1, 9)) == b"\0"
        assert here.disk.reads == here.disk.writes == []
        await put(vp)


async def test_a_full_cluster_begins_its_way_at_once() -> None:
    async with bench(driven=False) as here:
        vp = here.fs.vnode(1)
        # A host writes what it has collected in any order.
        for number in (0, 1, 3, 2, 5, 4, 7, 6, 8):
            await here.write(vp, number * 2 * FOLIO, bytes(2 * FOLIO))
        assert sum(length for _, length in here.disk.writes) == MAXPHYS
        for offset in range(9 * 2 * FOLIO, 2 * MIB, PAGE_SIZE):
            await here.write(vp, offset, bytes(PAGE_SIZE))
        assert sum(length for _, length in here.disk.writes) == 2 * MAXPHYS
        assert not pages(vp).ndirty
        here.disk.finish()
        # A write that fills a cluster in its middle.
        here.disk.writes.clear()
        await here.write(vp, 2 * MIB + PAGE_SIZE, bytes(2 * MIB))
        assert sum(length for _, length in here.disk.writes) == MAXPHYS
        here.disk.finish()
        here.disk.writes.clear()
        # One that is full for the second time goes a second time, but not twice at once.
        await here.write(vp, 0, bytes(MAXPHYS))
        await here.write(vp, 0, bytes(MAXPHYS))
        assert sum(length for _, length in here.disk.writes) == MAXPHYS
        await put(vp)


async def test_zerorange() -> None:
    async with bench() as here:
        vp = await cold(here, 5 * FOLIO)
        data = bytearray(await here.read(vp))
        for offset, length in ((100, 50), (PAGE_SIZE - 1, 2 * FOLIO), (5 * FOLIO - 9, 500)):
            await here.putpages(vp, PGO_CLEANIT | PGO_FREE | PGO_SYNCIO)
            with locked(vp):
                await ubc_zerorange(vp, offset, length)
                await ubc_zerorange(vp, 6 * FOLIO, length)
            length = min(length, len(data) - offset)
            data[offset : offset + length] = bytes(length)
            assert await here.read(vp) == data
            await here.fsync(vp)
            assert here.fs.on_disk(vp) == data
        assert vp.size == 5 * FOLIO
        await put(vp)


async def test_the_end_of_a_vnode() -> None:
    async with bench() as here:
        vp = here.fs.vnode(1)
        await here.write(vp, 0, bytes(3 * PAGE_SIZE))
        assert uvm_vnp_terminate(vp) == 3
        assert vp.uobj is None
        assert uvm_vnp_terminate(vp) == 0
        figures = here.memory.statistics()
        assert figures.folios == figures.octets == figures.dirty == 0
        await put(vp)


async def test_pages_that_are_the_storage() -> None:
    """tmpfs: a vnode points to the pages, and they stay when it goes."""
    root = Caller(mounted())
    vp = root.create(root.root, b"f")
    root.write(vp, 0, b"data")
    aobj = vp.uobj
    assert isinstance(aobj, UvmAobj)
    with locked(vp):
        now(vp.fs.getpages(vp, 0, PAGE_SIZE, PGO_SYNCIO))
    now(vp.fs.putpages(vp, 0, 0, PGO_CLEANIT | PGO_FREE | PGO_SYNCIO))
    assert root.read(vp) == b"data"
    root.put(vp)
    assert root.mount.vrecycle(vp.key)
    assert vp.uobj is None
    vp = root.get(root.root, b"f")
    assert vp.uobj is aobj
    assert root.read(vp) == b"data"
    assert root.mount.kernel.pages.statistics().octets == 0
    with locked(vp):
        now(uvm_vnp_setsize(vp, 2))
        now(ubc_write(vp, 3, b"!"))
        assert now(ubc_read(vp, 0, 9)) == b"da\0!"
    root.put(vp)


async def test_a_vnode_that_dies_under_its_users() -> None:
    async with bench(driven=False) as here:
        vp = await cold(here, FOLIO)
        errors = []

        async def read() -> None:
            try:
                with locked(vp):
                    await ubc_read(vp, 0, FOLIO)
            except VfsError as exc:
                errors.append(exc.errno)

        async with here.nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            uvm_vnp_terminate(vp)
            here.disk.finish()
        assert len(errors) == 1
        assert errors[0] != EIO
        assert here.memory.statistics().octets == 0
        await put(vp)
