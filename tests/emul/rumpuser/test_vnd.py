"""Disks over files of another file system: the same transfers, by vnode operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EINVAL, EIO, EISDIR, ENOENT, ENOSPC, ENXIO, EROFS
from random import Random
from stat import S_IFIFO

import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import B_READ, B_WRITE, Buf, biowait, getiobuf
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.rumpuser import open_vnd
from syspuffs.emul.rumpuser.vnd import IO_TASKS
from syspuffs.emul.specfs import spec_mount, spec_unmount
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import IO_SYNC, MNT_FORCE
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Buffer, Cred

from ...support.kernel import VfsTarget
from ...support.logs import LogWatch
from ..bio.told import device, fsync, read, write
from ..caller import fails

SIZE = 1 << 20
IMAGE = b"dir/image"


class SlowFs(TmpFs):
    """A tmpfs that takes its time over data, notes what it is asked, and fails when told to."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0)
        self.delay = 0.0
        self.error = 0
        self.under_way = 0
        self.most = 0
        self.syncs = 0
        self.opens = 0

    async def _take_time(self) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.delay:
                await trio.sleep(self.delay)
            if self.error:
                raise VfsError(self.error)
        finally:
            self.under_way -= 1

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        self.opens += 1
        return await super().open(vp, mode, cred)

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        self.opens -= 1
        super().close(vp, fflag, cred)

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        await self._take_time()
        return await super().read(vp, offset, resid, ioflag, cred)

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        await self._take_time()
        await super().write(vp, offset, data, ioflag, cred)

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        self.syncs += 1
        await self._take_time()
        await super().fsync(vp, flags, offlo, offhi, cred)


@asynccontextmanager
async def below(data: bytes = bytes(SIZE)) -> AsyncIterator[tuple[Mount, VfsTarget, SlowFs]]:
    """A kernel with a SlowFs that has the file dir/image."""
    fs = SlowFs()
    async with Kernel() as kernel:
        mount = await kernel.mount(fs)
        target = VfsTarget(mount)
        await target.mkdir(b"dir")
        await target.write_file(IMAGE, data)
        yield mount, target, fs


def issue(devvp: Vnode, offset: int, data: bytearray | bytes, flags: int) -> Buf:
    view = memoryview(data)
    half = len(data) // 1024 * 512
    bp = getiobuf(devvp, offset >> 9, [view[:half], view[half:]] if half else [view], flags)
    devvp.fs.strategy(devvp, bp)
    return bp


async def test_transfers_are_reads_and_writes_of_the_file() -> None:
    model = bytearray(Random(1).randbytes(SIZE))
    async with below(bytes(model)) as (mount, target, fs):
        disk = await open_vnd(mount, IMAGE)
        assert (disk.size, disk.name, fs.opens) == (SIZE, "dir/image", 1)
        async with device(disk) as devvp:
            rng = Random(2)
            for _ in range(50):
                offset = rng.randrange(SIZE // 512) * 512
                length = min(rng.choice((512, 4096, 65536)), SIZE - offset)
                if rng.random() < 0.5:
                    data = rng.randbytes(length)
                    await biowait(issue(devvp, offset, data, B_WRITE))
                    model[offset : offset + length] = data
                else:
                    into = bytearray(length)
                    bp = issue(devvp, offset, into, B_READ)
                    await biowait(bp)
                    assert bp.resid == 0
                    assert into == model[offset : offset + length]
            await write(devvp, 1000, b"through the buffers")
            assert await read(devvp, 1000, 19) == b"through the buffers"
            model[1000:1019] = b"through the buffers"
            before = fs.syncs
            await fsync(devvp)
            assert fs.syncs == before + 1
        assert fs.opens == 0
        assert await target.read_file(IMAGE) == model
        await target.verify()


async def test_several_under_way_at_once_and_not_too_many(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with below() as (mount, _, fs):
        fs.delay = 1.0
        async with device(await open_vnd(mount, IMAGE)) as devvp:
            before = trio.current_time()
            for bp in [
                issue(devvp, number * 4096, bytearray(4096), B_READ) for number in range(64)
            ]:
                await biowait(bp)
            assert trio.current_time() - before == 64 / IO_TASKS
        assert fs.most == IO_TASKS


async def test_errors_below_are_errors_of_the_transfer(log_watch: LogWatch) -> None:
    async with below() as (mount, _, fs):
        async with device(await open_vnd(mount, IMAGE)) as devvp:
            await write(devvp, 0, b"data")
            fs.error = ENOSPC
            bp = issue(devvp, 4096, bytes(4096), B_WRITE)
            with fails(ENOSPC):
                await biowait(bp)
            bp = issue(devvp, 4096, bytearray(4096), B_READ)
            with fails(ENOSPC):
                await biowait(bp)
            log_watch.expect("dir/image: delayed writes fail with ENOSPC")
            with fails(ENOSPC):
                await fsync(devvp)
            fs.error = 0
            await fsync(devvp)
            await write(devvp, 0, b"more", IO_SYNC)
            fs.error = EIO
            with fails(EIO):  # from the flush alone
                await fsync(devvp)
            fs.error = 0
            await fsync(devvp)


async def test_a_file_that_was_cut_is_no_disk_any_more() -> None:
    async with below() as (mount, target, _):
        async with device(await open_vnd(mount, IMAGE)) as devvp:
            await target.truncate(IMAGE, 1000)
            bp = issue(devvp, 512, bytearray(4096), B_READ)
            with fails(EIO):
                await biowait(bp)
            assert bp.resid == 4096 - 488


async def test_what_cannot_be_opened() -> None:
    async with below() as (mount, target, fs):
        await target.symlink(b"image", b"dir/link")
        for path, errno in (
            (b"dir", EISDIR),
            (b"missing", ENOENT),
            (b"", ENOENT),
            (b"dir/fifo", EINVAL),
        ):
            if path == b"dir/fifo":
                await target.mknod(path, S_IFIFO | 0o644)
            with fails(errno):
                await open_vnd(mount, path)
        mount.is_rdonly = True
        with fails(EROFS):
            await open_vnd(mount, IMAGE)
        disk = await open_vnd(mount, b"/dir/link", rdonly=True)
        assert disk.is_rdonly
        assert disk.size == SIZE
        await disk.close()
        assert fs.opens == 0
        await target.verify()


async def test_the_kernel_below_ends_first(
    autojump_clock: trio.testing.MockClock, log_watch: LogWatch
) -> None:
    log_watch.expect("references left")  # that of the disk, if the kernel debugs
    async with Kernel() as above:
        async with below() as (mount, _, fs):
            devvp = spec_mount(above, await open_vnd(mount, IMAGE))
            fs.delay = 1.0
            bufs = [issue(devvp, number * 512, bytearray(512), B_READ) for number in range(20)]
            await wait_all_tasks_blocked()
            mount.kernel.nursery.cancel_scope.cancel()
            for bp in bufs:
                with fails(EIO):
                    await biowait(bp)
        with fails(EIO):
            await biowait(issue(devvp, 0, bytearray(512), B_READ))
        await spec_unmount(devvp)


async def test_a_forced_unmount_below_is_an_error_above() -> None:
    async with Kernel() as above:
        async with below() as (mount, _, _):
            devvp = spec_mount(above, await open_vnd(mount, IMAGE))
            await mount.kernel.unmount(mount, MNT_FORCE)
            bp = issue(devvp, 0, bytearray(512), B_READ)
            with fails(ENXIO):
                await biowait(bp)
            await spec_unmount(devvp)
