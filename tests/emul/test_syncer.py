"""The syncer's delays, sync of one mount and of all, and what an unmount must not lose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from errno import EBUSY, EIO, ENOSPC
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.bio import Buf, bawrite, bdwrite, getblk
from syspuffs.emul.kernel import UNMOUNT_GRACE, Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.specfs import spec_mount, spec_unmount
from syspuffs.emul.syncer import DIRDELAY, FILEDELAY, METADELAY, sync_all, vfs_sync
from syspuffs.emul.vnode import Vnode, is_clean, vgone, vrecycle, vrele
from syspuffs.emul.vnops import vn_fsync
from syspuffs.native.constants import (
    FSYNC_LAZY,
    FSYNC_VFS,
    FSYNC_WAIT,
    MNT_FORCE,
    MNT_LAZY,
    MNT_NOWAIT,
    MNT_WAIT,
    Vtype,
)
from syspuffs.native.records import Cred

from .bio.told import BSIZE, SECTORS, ToldDisk
from .caller import fails
from .writeback import Writeback

BEGIN = FSYNC_VFS
FINISH = FSYNC_VFS | FSYNC_WAIT


class Lazily(Writeback):
    """Writes down when the syncer comes, and has everything written by then."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[tuple[float, object]] = []

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        await super().fsync(vp, flags, offlo, offhi, cred)
        if flags & FSYNC_LAZY:
            self.came.append((trio.current_time(), vp.key))
            vp.is_modified = False


@asynccontextmanager
async def mounted(*file_systems: Writeback) -> AsyncIterator[tuple[Kernel, list[Mount]]]:
    async with Kernel() as kernel:
        yield kernel, [await kernel.mount(fs) for fs in file_systems]
        for fs in file_systems:
            fs.errors.clear()
            fs.sync_error = fs.unmount_error = 0


# The syncer.


async def test_delays_by_type(autojump_clock: MockClock) -> None:
    fs = Lazily()
    async with mounted(fs):
        await trio.sleep(100)  # nothing to do: it has not moved
        start = trio.current_time()
        types = {30: Vtype.VREG, 31: Vtype.VDIR, 32: Vtype.VBLK}
        vps = [fs.make(key, vtype=vtype) for key, vtype in types.items()]
        await trio.sleep(60)
        assert [(when - start, key) for when, key in fs.came] == [
            (METADELAY, 32),
            (DIRDELAY, 31),
            (FILEDELAY, 30),
        ]
        for vp in vps:
            await vrele(vp)


async def test_age_counts_from_the_first_change(autojump_clock: MockClock) -> None:
    fs = Lazily()
    async with mounted(fs) as (kernel, _):
        vp = fs.make(30)
        for _ in range(20):
            await trio.sleep(2)
            fs.soil(vp)
        assert [when for when, _ in fs.came] == [FILEDELAY]
        assert kernel.syncer.statistics().waiting == 1
        await vrele(vp)
        await trio.sleep(FILEDELAY)
        assert [key for _, key in fs.came] == [30, 30]  # nobody uses it: written all the same
        assert kernel.syncer.statistics() == (0, 2, 0)
        assert vp.usecount == 0


async def test_what_is_clean_or_gone_is_left_alone(autojump_clock: MockClock) -> None:
    fs = Lazily()
    async with mounted(fs) as (kernel, _):
        clean, recycled, gone = (fs.make(key) for key in (30, 31, 32))
        clean.is_modified = recycled.is_modified = False
        await vrele(recycled)
        assert vrecycle(recycled)
        await vgone(gone)
        await vrele(gone)
        assert kernel.syncer.statistics().waiting == 1
        await trio.sleep(60)
        assert fs.came == []
        assert kernel.syncer.statistics().waiting == 0
        await vrele(clean)


async def test_locked_and_failing_ones_come_later(autojump_clock: MockClock) -> None:
    fs = Lazily()
    async with mounted(fs) as (kernel, _):
        locked, failing = fs.make(30), fs.make(31)
        fs.errors[31] = EIO
        await locked.lock.exclusive()
        await trio.sleep(FILEDELAY + 2.5)
        locked.lock.release()
        await trio.sleep(1)
        assert fs.came == [(FILEDELAY + 3, 30)]
        assert kernel.syncer.statistics()[:3] == (1, 1, 1)
        fs.errors.clear()
        await trio.sleep(FILEDELAY)
        assert fs.came[1:] == [(2 * FILEDELAY, 31)]
        await vrele(locked)
        await vrele(failing)


async def test_speedup(autojump_clock: MockClock) -> None:
    fs = Lazily()
    async with mounted(fs) as (kernel, _):
        vp = fs.make(30)
        await trio.sleep(10.5)
        kernel.syncer.speedup(FILEDELAY)
        await wait_all_tasks_blocked(0.1)
        assert [(int(when), key) for when, key in fs.came] == [(10, 30)]
        await vrele(vp)


# sync.


async def test_sync_of_a_mount_begins_with_all_and_then_waits() -> None:
    fs = Writeback()
    async with mounted(fs) as (_, [mount]):
        vps = [fs.make(key) for key in (30, 31)] + [fs.make(32, dirty=False)]
        for vp in vps:
            await vrele(vp)
        await vfs_sync(mount, MNT_WAIT)
        assert fs.fsyncs == [(30, BEGIN), (31, BEGIN), (30, FINISH), (31, FINISH)]
        assert fs.heard[-1] == ("sync", MNT_WAIT)
        assert not any(vp.usecount for vp in vps)
        assert not any(vp.lock.is_locked for vp in vps)
        assert mount.holds == 0


async def test_sync_without_waiting_leaves_out_what_is_locked() -> None:
    fs = Writeback()
    async with mounted(fs) as (_, [mount]):
        vps = [fs.make(key) for key in (30, 31)]
        await vps[0].lock.exclusive()
        await vfs_sync(mount, MNT_LAZY)
        vps[0].lock.release()
        assert fs.fsyncs == [(31, BEGIN)]
        assert fs.heard == [("sync", MNT_LAZY)]
        for vp in vps:
            await vrele(vp)


async def test_sync_that_waits_comes_last_to_what_is_locked() -> None:
    fs = Writeback()
    async with mounted(fs) as (_, [mount]), trio.open_nursery() as nursery:
        locked, free = fs.make(30), fs.make(31)
        go_on = trio.Event()

        async def use() -> None:
            await locked.lock.exclusive()
            await go_on.wait()
            locked.lock.release()

        nursery.start_soon(use)
        await wait_all_tasks_blocked()
        nursery.start_soon(vfs_sync, mount, MNT_WAIT)
        await wait_all_tasks_blocked()
        assert fs.fsyncs == [(31, BEGIN), (31, FINISH)]
        go_on.set()
        await wait_all_tasks_blocked()
        assert fs.fsyncs[2:] == [(30, FINISH)]
        assert fs.heard == [("sync", MNT_WAIT)]
        await vrele(locked)
        await vrele(free)


async def test_sync_tells_the_first_error_and_does_the_rest() -> None:
    fs = Writeback()
    async with mounted(fs) as (_, [mount]):
        vps = [fs.make(key) for key in (30, 31, 32)]
        fs.errors = {30: EIO, 31: ENOSPC}
        with fails(EIO):
            await vfs_sync(mount, MNT_WAIT)
        assert fs.written() == [30, 31, 32]
        assert [vp.is_modified for vp in vps] == [True, True, False]
        assert ("sync", MNT_WAIT) in fs.heard
        fs.errors.clear()
        fs.sync_error = EIO
        with fails(EIO):
            await vfs_sync(mount, MNT_WAIT)
        assert not any(vp.is_modified for vp in vps)
        for vp in vps:
            await vrele(vp)


async def test_sync_of_one_mount_touches_no_other() -> None:
    one, two = Writeback(b"one"), Writeback(b"two")
    async with mounted(one, two) as (_, [mount, _]):
        vps = [fs.make(30) for fs in (one, two)]
        await vfs_sync(mount, MNT_WAIT)
        assert one.written() == [30]
        assert two.fsyncs == []
        assert two.heard == []
        for vp in vps:
            await vrele(vp)


class OnDisk(Writeback):
    """A file system that is nothing but ten blocks of metadata."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = ToldDisk()

    async def start(self) -> None:
        self.devvp = spec_mount(self.mount.kernel, self.disk)

    async def write_all(self, function: Callable[[Buf], None]) -> None:
        assert self.devvp is not None
        for block in range(10):
            function(await getblk(self.devvp, block * SECTORS, BSIZE))

    async def sync(self, waitfor: int, cred: Cred) -> None:
        assert self.devvp is not None
        await vn_fsync(self.devvp, FSYNC_WAIT if waitfor == MNT_WAIT else 0, 0, 0, cred)

    async def unmount(self, flags: int) -> None:
        assert self.devvp is not None
        await spec_unmount(self.devvp)
        self.devvp = None


async def test_buffers_of_another_mount_are_neither_written_nor_waited_for() -> None:
    """NetBSD's p2k waited for all buffers of the emulated kernel at every sync."""
    one, dirty, writing = OnDisk(), OnDisk(), OnDisk()
    async with mounted(one, dirty, writing) as (kernel, [mount, *_]):
        await one.write_all(bdwrite)
        await dirty.write_all(bdwrite)
        await writing.write_all(bawrite)
        assert one.devvp is not None
        assert dirty.devvp is not None
        assert writing.devvp is not None
        done = trio.Event()

        async def sync() -> None:
            await vfs_sync(mount, MNT_WAIT)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync)
            await wait_all_tasks_blocked()
            assert not done.is_set()
            one.disk.complete_all()
            await wait_all_tasks_blocked()
            assert done.is_set()
        assert one.disk.statistics().writes == 10
        assert is_clean(one.devvp)
        assert len(dirty.devvp.dirtyblks or ()) == 10
        assert dirty.disk.queue == []
        assert writing.devvp.numoutput == 10
        assert len(writing.disk.queue) == 10
        assert kernel.bufs.statistics().writes == 20

        for fs in (dirty, writing):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fs.disk.drive, Random(1))
                await kernel.unmount(fs.mount)
                nursery.cancel_scope.cancel()
            assert fs.disk.statistics().writes == 10


async def test_sync_of_all_begins_everywhere_and_ignores_errors() -> None:
    one, two = Writeback(b"one"), Writeback(b"two")
    async with mounted(one, two) as (kernel, mounts):
        vps = [fs.make(30) for fs in (one, two)]
        two.fsyncs = one.fsyncs  # one after the other, as they come
        one.errors[30] = EIO
        await sync_all(kernel)
        assert [flags for _, flags in one.fsyncs] == [BEGIN, BEGIN, BEGIN, FINISH, BEGIN, FINISH]
        assert [vp.is_modified for vp in vps] == [True, False]
        assert one.heard == two.heard == [("sync", MNT_NOWAIT), ("sync", MNT_WAIT)]
        assert not any(mount.holds for mount in mounts)
        for vp in vps:
            await vrele(vp)


async def test_unmount_waits_for_a_sync_of_all() -> None:
    fs = Writeback()
    async with mounted(fs) as (kernel, [mount]), trio.open_nursery() as nursery:
        await vrele(fs.make(30))
        fs.gate = trio.Event()
        nursery.start_soon(sync_all, kernel)
        await wait_all_tasks_blocked()
        nursery.start_soon(kernel.unmount, mount)
        await wait_all_tasks_blocked()
        assert not any(what == "unmount" for what, _ in fs.heard)
        fs.gate.set()
        await wait_all_tasks_blocked()
        assert not mount.is_alive


# Unmount.


async def test_unmount_writes_everything_first() -> None:
    fs = Writeback()
    async with mounted(fs) as (kernel, [mount]):
        vp = fs.make(30)
        await vrele(vp)
        await kernel.unmount(mount)
        assert fs.written() == [30]
        what = [what for what, _ in fs.heard]
        assert what.index("sync") < what.index("unmount") < what.index("reclaim")


async def test_what_cannot_be_written_vetoes_the_unmount() -> None:
    fs = Writeback()
    async with mounted(fs) as (kernel, [mount]):
        vp = fs.make(30)
        await vrele(vp)
        fs.errors[30] = EIO
        with fails(EIO):
            await kernel.unmount(mount)
        assert mount.is_alive
        assert not mount.is_unmounting
        assert vp.is_modified
        assert not any(what == "unmount" for what, _ in fs.heard)
        fs.errors.clear()
        await kernel.unmount(mount)
        assert fs.written() == [30, 30]


async def test_what_is_written_to_during_the_sync_is_synced_again() -> None:
    class Busy(Writeback):
        rounds = 0

        async def sync(self, waitfor: int, cred: Cred) -> None:
            await super().sync(waitfor, cred)
            if self.rounds:
                self.rounds -= 1
                vp = self.mount.vget(30)
                assert vp is not None
                self.soil(vp)
                await vrele(vp)

    fs = Busy()
    async with mounted(fs) as (kernel, [mount]):
        vp = fs.make(30)
        await vrele(vp)
        fs.rounds = 2
        await kernel.unmount(mount)
        assert fs.written() == [30, 30, 30]
        assert not vp.is_modified

    fs = Busy()
    async with mounted(fs) as (kernel, [mount]):
        await vrele(fs.make(30))
        fs.rounds = 100  # for ever, by the standards of an unmount
        with fails(EBUSY):
            await kernel.unmount(mount)
        fs.rounds = 0


async def test_second_unmount_at_the_same_time() -> None:
    fs = Writeback()
    async with mounted(fs) as (kernel, [mount]), trio.open_nursery() as nursery:
        await vrele(fs.make(30))
        fs.gate = trio.Event()
        nursery.start_soon(kernel.unmount, mount)
        await wait_all_tasks_blocked()
        with fails(EBUSY):
            await kernel.unmount(mount)
        fs.gate.set()


@pytest.mark.logs("was unmounted by force and has lost 0 pages of 1 files")
@pytest.mark.logs("cannot be written: EIO")
async def test_force_says_what_was_lost() -> None:
    fs = Writeback()
    async with mounted(fs) as (kernel, [mount]):
        written, lost = fs.make(30), fs.make(31)
        fs.errors[31] = EIO
        await kernel.unmount(mount, MNT_FORCE)
        assert fs.written() == [30, 31]
        assert written.is_dead
        assert lost.is_dead
        await vrele(written)
        await vrele(lost)


async def test_force_with_nothing_to_write_asks_for_nothing() -> None:
    fs = Writeback()
    async with mounted(fs) as (kernel, [mount]):
        await kernel.unmount(mount, MNT_FORCE)
        assert fs.heard == [("unmount", MNT_FORCE), ("reclaim", 1)]


@pytest.mark.logs("was unmounted by force and has lost")
async def test_force_bounds_the_writing(autojump_clock: MockClock) -> None:
    fs = Writeback()
    async with mounted(fs) as (kernel, [mount]):
        vp = fs.make(30)
        fs.gate = trio.Event()  # never set
        start = trio.current_time()
        await kernel.unmount(mount, MNT_FORCE)
        assert trio.current_time() - start <= 3 * UNMOUNT_GRACE
        await vrele(vp)


async def test_end_of_the_kernel_writes_what_users_have_left() -> None:
    fs = Writeback()

    async def use(vp: Vnode) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await vrele(vp)

    async with Kernel() as kernel:
        await kernel.mount(fs)
        kernel.nursery.start_soon(use, fs.make(30))
        await wait_all_tasks_blocked()
    assert fs.written() == [30]
    assert ("unmount", MNT_FORCE) in fs.heard


@pytest.mark.logs("was unmounted by force and has lost 0 pages of 1 files")
@pytest.mark.logs("cannot be written: EIO")
async def test_end_of_the_kernel_says_what_is_lost() -> None:
    fs = Writeback()

    async def fail() -> None:
        async with Kernel() as kernel:
            await kernel.mount(fs)
            await vrele(fs.make(30))
            fs.errors[30] = EIO
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert fs.reclaimed() == [1, 30]
