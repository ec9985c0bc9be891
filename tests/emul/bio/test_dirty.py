"""Delayed writes: written in batches, bounded, tried again, and only those that were asked for."""

from __future__ import annotations

from errno import EIO, ENOSPC

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import (
    B_DELWRI,
    Buf,
    bawrite,
    bdwrite,
    bread,
    brelse,
    bufs_sync,
    bwillwrite,
    getblk,
    vflushbuf,
    vinvalbuf,
)
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import FaultDisk, Faults
from syspuffs.emul.specfs import spec_mount, spec_unmount
from syspuffs.emul.vnode import Vnode
from syspuffs.native.errors import VfsError

from ...support.logs import LogWatch
from ..caller import fails, now
from .told import BSIZE, SECTORS, ToldDisk, device, fill, memory, peek


async def soil(devvp: Vnode, *numbers: int, octet: int = 0xDD) -> list[Buf]:
    """Make blocks dirty; return their buffers, released."""
    bufs = [await fill(devvp, number, octet) for number in numbers]
    for bp in bufs:
        bdwrite(bp)
    return bufs


async def test_bufs_sync_writes_just_those_and_waits_for_just_those() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        bufs = await soil(devvp, 9, 3, 7, 5)
        bawrite(await fill(devvp, 20, 1))  # somebody else's, on its way
        nursery.start_soon(bufs_sync, [bufs[0], bufs[1], await clean(devvp, disk)])
        await wait_all_tasks_blocked()
        assert disk.asked == [20, 3, 9]  # by address, so that neighbours meet
        disk.complete(1)
        disk.complete(1)
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        assert [bool(bp.flags & B_DELWRI) for bp in bufs] == [False, False, True, True]
        disk.complete_all()
        await finish(devvp, disk)


async def clean(devvp: Vnode, disk: ToldDisk) -> Buf:
    """Return a buffer that needs no writing."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peek, devvp, 0)
        await wait_all_tasks_blocked()
        disk.complete(-1)
    bp = await bread(devvp, 0, BSIZE)
    brelse(bp)
    return bp


async def finish(devvp: Vnode, disk: ToldDisk) -> None:
    """Leave nothing behind that is not written."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vflushbuf, devvp, True)
        while devvp.dirtyblks:
            await wait_all_tasks_blocked()
            disk.complete_all()


async def test_bufs_sync_waits_for_a_write_that_is_under_way() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        (bp,) = await soil(devvp, 3)
        bawrite(await getblk(devvp, 3 * SECTORS, BSIZE))
        nursery.start_soon(bufs_sync, [bp])
        await wait_all_tasks_blocked()
        assert disk.asked == [3]
        assert nursery.child_tasks
        disk.complete()


async def test_bufs_sync_waits_for_who_works_on_a_buffer_and_writes_what_he_made() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        bufs = await soil(devvp, 3, 4)
        mine = await getblk(devvp, 3 * SECTORS, BSIZE)
        nursery.start_soon(bufs_sync, bufs)
        await wait_all_tasks_blocked()
        assert disk.asked == [4]
        mine.data[:] = b"\xee" * BSIZE
        bdwrite(mine)
        await wait_all_tasks_blocked()
        assert disk.asked == [4, 3]
        disk.complete_all()
    assert disk.block(3) == b"\xee" * BSIZE


async def test_bufs_sync_of_a_buffer_that_its_owner_drops() -> None:
    async with device(memory()) as devvp, trio.open_nursery() as nursery:
        bufs = await soil(devvp, 3)
        mine = await getblk(devvp, 3 * SECTORS, BSIZE)
        nursery.start_soon(bufs_sync, bufs)
        await wait_all_tasks_blocked()
        brelse(mine, 0x40)


async def test_bufs_sync_tries_all_and_tells_the_first_error(log_watch: LogWatch) -> None:
    log_watch.expect("delayed writes fail")
    disk = memory()
    async with device(disk) as devvp:
        bufs = await soil(devvp, 1, 2, 3)
        disk.faults = Faults(fail_at={1}, errno=ENOSPC)
        with fails(ENOSPC):
            await bufs_sync(bufs)
        assert [bp.error for bp in bufs] == [0, ENOSPC, 0]
        assert list(devvp.dirtyblks or ()) == [bufs[1]]
        await bufs_sync(bufs)
        assert not devvp.dirtyblks


async def test_bufs_sync_of_clean_buffers_does_not_yield() -> None:
    async with device(memory()) as devvp:
        bufs = await soil(devvp, 1, 2)
        now(bufs_sync(bufs))  # the device answers at once
        operations = bufs[0].vp.mount.kernel.bufs.writes
        now(bufs_sync(bufs))
        assert bufs[0].vp.mount.kernel.bufs.writes == operations


async def test_bufs_sync_cannot_be_cancelled() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        bufs = await soil(devvp, 1)
        ended: list[bool] = []

        async def sync() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await bufs_sync(bufs)
                ended.append(True)

        nursery.start_soon(sync)
        await wait_all_tasks_blocked()
        assert ended == []
        disk.complete()
        await wait_all_tasks_blocked()
        assert ended == [True]


async def test_vflushbuf_of_one_device_leaves_the_others_alone() -> None:
    one, two = memory(), memory()
    async with Kernel() as kernel:
        vps = [spec_mount(kernel, one), spec_mount(kernel, two)]
        for vp in vps:
            await soil(vp, 1, 2, 3)
        await vflushbuf(vps[0], True)
        assert (one.statistics().writes, two.statistics().writes) == (3, 0)
        await vflushbuf(vps[1], True)
        for vp in vps:
            await spec_unmount(vp)


async def test_vflushbuf_that_does_not_wait() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp:
        await soil(devvp, 8, 2, 4)
        now(vflushbuf(devvp, False))
        assert disk.asked == [2, 4, 8]
        now(vflushbuf(devvp, False))
        assert disk.asked == [2, 4, 8]
        disk.complete_all()
        assert not devvp.dirtyblks


async def test_vinvalbuf_writes_or_drops(log_watch: LogWatch) -> None:
    disk = memory()
    async with device(disk) as devvp:
        cache = devvp.mount.kernel.bufs
        await soil(devvp, 1, 2)
        await peek(devvp, 3)
        await vinvalbuf(devvp, True)
        assert cache.buffers(devvp) == []
        assert await peek(devvp, 1) == b"\xdd" * BSIZE
        await soil(devvp, 3, 4)
        log_watch.expect("8192 octets that were not written yet were dropped")
        await vinvalbuf(devvp, False)
        assert cache.buffers(devvp) == []
        assert await peek(devvp, 3) == b"\3" * BSIZE
        assert len(log_watch.lines) == 1


async def test_vinvalbuf_that_cannot_save_drops_nothing(log_watch: LogWatch) -> None:
    log_watch.expect("delayed writes fail")
    disk = memory()
    async with device(disk) as devvp:
        await soil(devvp, 1)
        disk.faults = Faults(write=1.0)
        with fails(EIO):
            await vinvalbuf(devvp, True)
        disk.faults = Faults()
        await vinvalbuf(devvp, True)
        assert await peek(devvp, 1) == b"\xdd" * BSIZE


async def test_vinvalbuf_waits_for_who_has_one() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        mine = await getblk(devvp, 0, BSIZE)
        bawrite(await fill(devvp, 1, 1))
        nursery.start_soon(vinvalbuf, devvp, True)
        await wait_all_tasks_blocked()
        disk.complete()
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        brelse(mine)


# Bounds.


def bounded(lodirty: int, hidirty: int) -> Kernel:
    """A kernel whose devices may have so many dirty blocks."""
    kernel = Kernel()
    kernel.bufs.lodirty = lodirty * BSIZE
    kernel.bufs.hidirty = hidirty * BSIZE
    return kernel


async def test_the_oldest_are_written_when_there_are_too_many() -> None:
    disk = ToldDisk(512)
    async with device(disk, bounded(100, 200)) as devvp:
        await soil(devvp, *range(300, 200, -1))
        assert disk.asked == []
        await soil(devvp, 0)
        assert disk.asked == list(range(237, 301))  # one batch, by address
        await soil(devvp, *range(1, 80))
        assert len(disk.queue) == 64  # and one batch at a time
        disk.complete_all()
        # The next came by themselves, until no more than 100 were left.
        assert len(devvp.dirtyblks or ()) == 180 - 2 * 64
        await finish(devvp, disk)


async def test_writers_wait_for_the_device_and_readers_do_not() -> None:
    disk = ToldDisk(512)
    async with device(disk, bounded(50, 100)) as devvp, trio.open_nursery() as nursery:
        now(bwillwrite(devvp))
        await soil(devvp, *range(100))
        now(bwillwrite(devvp))
        await soil(devvp, 100)
        let_in: list[int] = []

        async def write(number: int) -> None:
            await bwillwrite(devvp)
            await soil(devvp, number)
            let_in.append(number)

        for number in range(200, 204):
            nursery.start_soon(write, number)
        nursery.start_soon(peek, devvp, 300)
        await wait_all_tasks_blocked()
        assert let_in == []
        assert disk.asked[-1] == 300
        disk.complete(-1)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 4  # the reader is through
        while len(let_in) < 4:
            assert disk.queue
            disk.complete()
            await wait_all_tasks_blocked()
        assert devvp.mount.kernel.bufs.statistics().throttled == 4
        await finish(devvp, disk)


async def test_a_batch_that_is_not_enough_lets_nobody_in() -> None:
    disk = ToldDisk(512)
    async with device(disk, bounded(50, 100)) as devvp, trio.open_nursery() as nursery:
        await soil(devvp, *range(250))
        nursery.start_soon(bwillwrite, devvp)
        for still_dirty in (250 - 64, 250 - 128):
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            for _ in range(64):
                disk.complete()
            assert len(devvp.dirtyblks or ()) == still_dirty
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        for _ in range(64):
            disk.complete()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        await finish(devvp, disk)


async def test_a_slow_device_does_not_throttle_another() -> None:
    kernel = bounded(4, 8)
    slow, fast = ToldDisk(), memory()
    async with kernel:
        vps = [spec_mount(kernel, slow), spec_mount(kernel, fast)]
        await soil(vps[0], *range(20))
        for number in range(30):
            now(bwillwrite(vps[1]))
            await soil(vps[1], number)
        await finish(vps[0], slow)
        await vflushbuf(vps[1], True)
        for vp in vps:
            await spec_unmount(vp)


async def test_writers_are_told_when_nothing_can_be_written_any_more(
    log_watch: LogWatch,
) -> None:
    log_watch.expect("delayed writes fail with ENOSPC")
    disk = memory(256)
    async with device(disk, bounded(50, 100)) as devvp:
        disk.faults = Faults(write=1.0, errno=ENOSPC)
        await soil(devvp, *range(101))
        with fails(ENOSPC):
            await bwillwrite(devvp)
        tried = disk.operations
        await soil(devvp, 150)
        assert disk.operations == tried + 1  # those that failed wait for a sync
        disk.faults = Faults()
        await vflushbuf(devvp, True)
        now(bwillwrite(devvp))
        await disk.flush()
        for number in [*range(101), 150]:
            assert disk.image[number * BSIZE] == 0xDD
        assert len(log_watch.lines) == 1


async def test_what_tasks_have_in_their_hands_does_not_stop_writers() -> None:
    async with device(memory(), bounded(2, 4)) as devvp:
        await soil(devvp, *range(3))
        held = [await getblk(devvp, number * SECTORS, BSIZE) for number in range(3)]
        more = [await fill(devvp, number, 1) for number in range(3, 6)]
        for bp in more:
            bdwrite(bp)
        held += [await getblk(devvp, bp.blkno, BSIZE) for bp in more if bp.flags & B_DELWRI]
        now(bwillwrite(devvp))
        for bp in held:
            bdwrite(bp)
        await vflushbuf(devvp, True)


# No data are lost by a device that fails for a time.


@pytest.mark.parametrize("failing", range(12))
async def test_an_error_at_any_operation_costs_nothing_but_an_error(
    failing: int, log_watch: LogWatch
) -> None:
    log_watch.expect("delayed writes fail")
    disk = memory()
    disk.faults = Faults(fail_at={failing})
    errors = 0
    async with device(disk) as devvp:
        for number in range(4):
            while True:
                try:
                    bp = await bread(devvp, number * SECTORS, BSIZE)
                    break
                except VfsError:
                    errors += 1
            assert bp.data == bytes([number]) * BSIZE
            bp.data[0] = 0xEE
            bdwrite(bp)
        while True:
            try:
                await vflushbuf(devvp, True)
                await disk.flush()
                break
            except VfsError:
                errors += 1
        assert errors == (disk.operations > failing)
    for number in range(4):
        assert disk.image[number * BSIZE : number * BSIZE + 2] == bytes([0xEE, number])


async def test_many_errors_and_torn_writes_cost_nothing_but_time(log_watch: LogWatch) -> None:
    log_watch.expect("delayed writes fail")
    disk = FaultDisk(bytearray(64 * BSIZE), 1, Faults(read=0.2, write=0.5, flush=0.3, torn=0.5))
    async with device(disk) as devvp:
        for round_ in range(1, 21):
            for number in range(64):
                bp = await fill(devvp, number, round_)
                (bawrite if number % 3 else bdwrite)(bp)
            while True:
                try:
                    await vflushbuf(devvp, True)
                    await disk.flush()
                    break
                except VfsError:
                    pass
            assert bytes(disk.image) == bytes([round_]) * len(disk.image)
        assert disk.statistics().errors > 100
