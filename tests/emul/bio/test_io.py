"""Transfers: what is read and written when, and what becomes of errors."""

from __future__ import annotations

from errno import EIO, ENOSPC, ENXIO

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import (
    B_ASYNC,
    B_BUSY,
    B_DELWRI,
    B_DONE,
    B_ORDERED,
    B_READ,
    B_WRITE,
    Buf,
    bawrite,
    bdwrite,
    biodone,
    biowait,
    bread,
    breada,
    breadn,
    brelse,
    bufs_sync,
    bwrite,
    getblk,
    getiobuf,
    incore,
    putiobuf,
    vwaitforio,
)
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import CLOSE_GRACE, Faults
from syspuffs.emul.specfs import spec_mount, spec_unmount
from syspuffs.emul.vnode import Vnode
from syspuffs.native.errors import VfsError

from ...support.logs import LogWatch
from ..caller import fails, now
from .told import BSIZE, SECTORS, ToldDisk, device, fill, fsync, memory, peek


async def test_read_error_is_told_and_nothing_is_kept() -> None:
    disk = memory()
    async with device(disk) as devvp:
        disk.faults = Faults(read=1.0)
        for _ in range(2):  # each asks again
            with fails(EIO):
                await bread(devvp, 0, BSIZE)
        assert incore(devvp, 0) is None
        disk.faults = Faults()
        assert await peek(devvp, 0) == bytes(BSIZE)
        statistics = devvp.mount.kernel.bufs.statistics()
        assert (statistics.reads, statistics.read_errors) == (3, 2)


async def test_those_who_wait_for_a_read_that_fails_try_themselves() -> None:
    disk = ToldDisk()
    said: list[object] = []

    async def visit() -> None:
        try:
            said.append((await peek(devvp, 0))[0])
        except VfsError as exc:
            said.append(exc.errno)

    async with device(disk) as devvp, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(visit)
        await wait_all_tasks_blocked()
        disk.complete(error=EIO)
        await wait_all_tasks_blocked()
        disk.complete()
    assert sorted(map(str, said)) == ["0", "0", str(EIO)]


async def test_breadn_reads_ahead_without_waiting() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        bdwrite(await fill(devvp, 5, 1))

        async def visit() -> None:
            ahead = [number * SECTORS for number in (4, 5, 6)]
            brelse(await breadn(devvp, 3 * SECTORS, BSIZE, ahead))
            scope.cancel()

        with trio.CancelScope() as scope:
            nursery.start_soon(visit)
            await wait_all_tasks_blocked()
            assert disk.asked == [3, 4, 6]  # what is there is not read
            disk.complete()
            await trio.sleep_forever()
        assert disk.asked == [4, 6]
        disk.complete(1, EIO)  # nobody hears of it
        assert incore(devvp, 6 * SECTORS) is None
        disk.complete_all()
        ahead = incore(devvp, 4 * SECTORS)
        assert ahead is not None
        assert ahead.flags & (B_BUSY | B_DONE) == B_DONE
        breada(devvp, 4 * SECTORS, BSIZE)
        assert disk.asked == []
        brelse(now(bread(devvp, 4 * SECTORS, BSIZE)))
        await write_all(devvp, disk)


async def write_all(devvp: Vnode, disk: ToldDisk) -> None:
    """Leave nothing behind that is not written."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bufs_sync, list(devvp.dirtyblks or ()))
        await wait_all_tasks_blocked()
        disk.complete_all()


async def test_bwrite_returns_when_the_device_has_answered() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        bp = await fill(devvp, 2, 0xAA)
        nursery.start_soon(bwrite, bp)
        await wait_all_tasks_blocked()
        assert disk.asked == [2]
        assert bp.flags & B_BUSY
        assert devvp.numoutput == 1
        disk.complete()
        await wait_all_tasks_blocked()
        assert not bp.flags & (B_BUSY | B_DELWRI)
        assert devvp.numoutput == 0
        assert disk.block(2) == b"\xaa" * BSIZE
        assert now(peek(devvp, 2)) == b"\xaa" * BSIZE


async def test_bwrite_that_fails_keeps_the_buffer_dirty_and_the_next_sync_writes_it(
    log_watch: LogWatch,
) -> None:
    disk = memory()
    async with device(disk) as devvp:
        disk.faults = Faults(write=1.0, errno=ENOSPC)
        bp = await fill(devvp, 2, 0xAA)
        with fails(ENOSPC):
            await bwrite(bp)
        assert bp.flags & B_DELWRI
        assert not bp.flags & B_BUSY
        assert bp.error == ENOSPC
        assert await peek(devvp, 2) == b"\xaa" * BSIZE
        assert log_watch.lines == []  # who waits is told
        log_watch.expect("delayed writes fail with ENOSPC")
        with fails(ENOSPC):  # fsync says what is true now
            await fsync(devvp)
        disk.faults = Faults()
        await fsync(devvp)
        assert not bp.flags & B_DELWRI
        assert bp.error == 0
        assert disk.image[2 * BSIZE : 3 * BSIZE] == b"\xaa" * BSIZE


async def test_bawrite_releases_itself_and_an_error_is_logged_once(log_watch: LogWatch) -> None:
    log_watch.expect("fault: delayed writes fail with EIO")
    disk = memory()
    async with device(disk) as devvp:
        disk.faults = Faults(write=1.0)
        for number in range(3):
            bp = await fill(devvp, number, 0xAA)
            bawrite(bp)
            assert not bp.flags & B_BUSY
            assert bp.flags & B_DELWRI
        assert len(log_watch.lines) == 1
        assert devvp.numoutput == 0
        assert len(devvp.dirtyblks or ()) == 3
        disk.faults = Faults()
        await bufs_sync(list(devvp.dirtyblks or ()))
        assert not devvp.dirtyblks
        assert devvp.mount.kernel.bufs.statistics().write_errors == 3


def test_bdwrite_waits_for_a_sync() -> None:
    disk = memory()
    devvp = spec_mount(Kernel(), disk)
    bdwrite(now(fill(devvp, 1, 0xAA)))
    assert disk.operations == 0
    assert now(peek(devvp, 1)) == b"\xaa" * BSIZE
    assert disk.operations == 0
    assert devvp.synctime >= 0  # the syncer knows


async def test_a_reader_waits_while_a_buffer_is_written() -> None:
    disk = ToldDisk()
    found: list[bytes] = []

    async def visit() -> None:
        found.append(await peek(devvp, 1))

    async with device(disk) as devvp, trio.open_nursery() as nursery:
        bawrite(await fill(devvp, 1, 0xAA))
        nursery.start_soon(visit)
        await wait_all_tasks_blocked()
        assert found == []
        disk.complete()
    assert found == [b"\xaa" * BSIZE]


async def test_iodone_is_called_once_and_owns_the_buffer() -> None:
    disk = ToldDisk()
    seen: list[tuple[object, int]] = []

    def iodone(bp: Buf) -> None:
        assert bp.flags & B_BUSY
        seen.append((bp.private, bp.error))
        brelse(bp)

    async with device(disk) as devvp:
        bp = await fill(devvp, 1, 0xAA)
        bp.iodone, bp.private = iodone, "mine"
        bawrite(bp)
        disk.complete()
        assert seen == [("mine", 0)]
        bawrite(await getblk(devvp, 1 * SECTORS, BSIZE))
        disk.complete()
        assert len(seen) == 1


async def test_io_buffers_scatter_and_gather() -> None:
    disk = memory()
    async with device(disk) as devvp:
        pieces = [bytearray(512), bytearray(100), bytearray(412 + 1024)]
        bp = getiobuf(devvp, SECTORS, [memoryview(piece) for piece in pieces], B_READ)
        devvp.fs.strategy(devvp, bp)
        await biowait(bp)
        putiobuf(bp)
        assert b"".join(pieces) == b"\1" * 2048
        pieces[0][:] = b"0" * 512
        pieces[1][:] = b"1" * 100
        bp = getiobuf(devvp, 0, [memoryview(piece) for piece in pieces], B_WRITE)
        devvp.fs.strategy(devvp, bp)
        await biowait(bp)
        assert bp.resid == 0
        putiobuf(bp)
        await disk.flush()
        assert disk.image[:700] == b"0" * 512 + b"1" * 100 + b"\1" * 88
        assert devvp.mount.kernel.bufs.statistics().buffers == 0


async def test_output_is_counted_on_the_vnode_of_the_buffer_and_waited_for() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, device(memory()) as vp, trio.open_nursery() as nursery:
        done: list[Buf] = []
        for blkno in (0, 8, 16):
            bp = getiobuf(vp, blkno, [bytearray(BSIZE)], B_WRITE | B_ASYNC, done.append)
            devvp.fs.strategy(devvp, bp)
        devvp.fs.strategy(devvp, getiobuf(vp, 24, [bytearray(BSIZE)], B_READ, done.append))
        assert (vp.numoutput, devvp.numoutput) == (3, 0)
        now(vwaitforio(devvp))
        waited = trio.Event()

        async def wait() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await vwaitforio(vp)
            waited.set()

        nursery.start_soon(wait)
        for _ in range(3):
            await wait_all_tasks_blocked()
            assert not waited.is_set()
            disk.complete()
        await waited.wait()
        assert vp.numoutput == 0
        disk.complete()  # the read
        assert [bp.error for bp in done] == [0, 0, 0, 0]
        now(vwaitforio(vp))


async def test_misuse_is_noticed() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp:
        bp = getiobuf(devvp, 0, [bytearray(512)], B_READ)
        devvp.fs.strategy(devvp, bp)
        for misuse in (putiobuf, brelse, lambda bp: devvp.fs.strategy(devvp, bp)):
            with pytest.raises(RuntimeError):
                misuse(bp)
        disk.complete()
        with pytest.raises(RuntimeError, match="done"):
            biodone(bp)
        for flags in (0, B_READ | B_WRITE):
            with pytest.raises(RuntimeError, match="strategy"):
                devvp.fs.strategy(devvp, getiobuf(devvp, 0, [bytearray(512)], flags))
        free = await bread_told(devvp, disk)
        brelse(free)
        with pytest.raises(RuntimeError, match="write"):
            bawrite(free)


async def bread_told(devvp: Vnode, disk: ToldDisk) -> Buf:
    breada(devvp, 0, BSIZE)
    disk.complete()
    return await bread(devvp, 0, BSIZE)


async def test_a_dead_device_says_so_and_holds_nothing(log_watch: LogWatch) -> None:
    log_watch.expect("8192 octets that were not written yet were dropped")
    disk = memory()
    async with Kernel() as kernel:
        devvp = spec_mount(kernel, disk)
        bdwrite(await fill(devvp, 0, 1))
        held = await bread(devvp, 1 * SECTORS, BSIZE)
        later = await fill(devvp, 2, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spec_unmount, devvp)
            await wait_all_tasks_blocked()
            brelse(held)
            await wait_all_tasks_blocked()
            with fails(ENXIO):
                await bwrite(later)
        assert devvp.is_dead
        with fails(ENXIO):
            await bread(devvp, 0, BSIZE)
        bdwrite(await getblk(devvp, 0, BSIZE))
        with fails(ENXIO):
            await bwrite(await getblk(devvp, 0, BSIZE))
        assert kernel.bufs.statistics().octets == 0
        assert not devvp.dirtyblks
        assert devvp.numoutput == 0


async def test_a_barrier_in_a_buffer_is_one_time_only() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp:
        bp = await fill(devvp, 0, 1)
        bp.flags |= B_ORDERED
        bawrite(bp)
        while not disk.queue:
            await trio.lowlevel.checkpoint()
        disk.complete()
        await wait_all_tasks_blocked()
        assert not bp.flags & B_ORDERED


async def test_a_task_that_never_releases_does_not_hold_up_an_unmount(
    log_watch: LogWatch, autojump_clock: trio.testing.MockClock
) -> None:
    log_watch.expect("ERROR .*fault: somebody does not release its buffers")
    log_watch.expect("4096 octets that were not written yet were dropped")
    found: list[int] = []

    async def visit() -> None:
        with fails(ENXIO):
            await bread(devvp, 0, BSIZE)
        found.append(0)

    async with Kernel() as kernel, trio.open_nursery() as nursery:
        devvp = spec_mount(kernel, memory())
        bdwrite(await fill(devvp, 0, 1))
        held = [await bread(devvp, number * SECTORS, BSIZE) for number in (0, 1, 2)]
        bdwrite(await fill(devvp, 3, 1))
        nursery.start_soon(visit)
        await wait_all_tasks_blocked()
        with trio.fail_after(CLOSE_GRACE + 1):
            await spec_unmount(devvp)
        assert kernel.bufs.statistics()[:3] == (0, 0, 0)
        brelse(held[0])
        bdwrite(held[1])
        with fails(ENXIO):
            await bwrite(held[2])
        assert kernel.bufs.statistics()[:3] == (0, 0, 0)
    assert found == [0]
