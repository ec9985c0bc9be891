"""Device nodes: exclusive, read and written through the same buffers as the file system's."""

from __future__ import annotations

from collections.abc import Coroutine
from errno import (
    EBUSY,
    EINVAL,
    EIO,
    ENOSPC,
    ENOTDIR,
    ENXIO,
    EOPNOTSUPP,
    EROFS,
)
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import bdwrite, bread, brelse, incore
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import FaultDisk, Faults
from syspuffs.emul.specfs import spec_mount, spec_setblksize, spec_unmount
from syspuffs.emul.vnops import vn_open
from syspuffs.native.constants import FREAD, FSYNC_LAZY, FWRITE, IO_SYNC, Vtype
from syspuffs.native.records import FSCRED, Vattr, lookup_cn

from ...support.logs import LogWatch
from ..caller import fails, now
from .told import BSIZE, SECTORS, ToldDisk, device, fsync, memory, peek, read, write


async def test_a_disk_is_one_file_systems_alone() -> None:
    disk = memory()
    async with Kernel() as kernel:
        devvp = spec_mount(kernel, disk)
        assert (devvp.vtype, devvp.size, devvp.usecount) == (Vtype.VBLK, disk.size, 1)
        with fails(EBUSY):
            spec_mount(kernel, disk)
        assert kernel.mounts == ()
        await spec_unmount(devvp)
        assert devvp.is_dead
        assert devvp.usecount == 0
        assert not disk.is_open
        assert len(kernel.devices) == 0


async def test_the_kernel_closes_what_was_not_given_back() -> None:
    disk = memory()
    async with Kernel() as kernel:
        devvp = spec_mount(kernel, disk)
    assert not disk.is_open
    assert devvp.is_dead


async def test_reads_and_writes_any_octets() -> None:
    disk = memory(8)
    model = bytearray(disk.image)
    rng = Random(1)
    async with device(disk) as devvp:
        for _ in range(200):
            offset = rng.randrange(len(model))
            length = rng.randrange(min(3 * BSIZE, len(model) - offset) + 1)
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                now(write(devvp, offset, data, rng.choice((0, IO_SYNC))))
                model[offset : offset + length] = data
            assert now(read(devvp, offset, length + 100)) == model[offset : offset + length + 100]
        await fsync(devvp)
    assert disk.image == model


def test_bounds() -> None:
    disk = memory(2)
    devvp = spec_mount(Kernel(), disk)
    assert now(read(devvp, 2 * BSIZE, 10)) == b""
    assert now(read(devvp, 1 << 40, 10)) == b""
    assert now(read(devvp, 2 * BSIZE - 3, 10)) == b"\1\1\1"
    for offset, resid in ((-1, 1), (0, -1)):
        with fails(EINVAL):
            now(read(devvp, offset, resid))
    with fails(EINVAL):
        now(write(devvp, -1, b"x"))
    with fails(ENOSPC):  # all or nothing
        now(write(devvp, 2 * BSIZE - 1, b"xx"))
    assert disk.operations == 1
    assert not devvp.dirtyblks


async def test_io_sync_writes_at_once_and_else_fsync_does() -> None:
    disk = memory()
    async with device(disk) as devvp:
        now(write(devvp, 0, b"one", IO_SYNC))
        assert (disk.statistics().writes, disk.statistics().flushes) == (1, 0)
        now(write(devvp, 0, b"two"))
        assert disk.statistics().writes == 1
        now(fsync(devvp, FSYNC_LAZY))
        assert (disk.statistics().writes, disk.statistics().flushes) == (2, 0)
        await fsync(devvp)
        assert disk.image[:3] == b"two"
        assert disk.statistics().flushes == 1
        now(fsync(devvp))  # nothing has been written since
        assert disk.statistics().flushes == 1


async def test_fsync_fails_when_the_flush_does_and_succeeds_when_that_does() -> None:
    disk = memory()
    async with device(disk) as devvp:
        await write(devvp, 0, b"data")
        disk.faults = Faults(flush=1.0)
        for _ in range(2):
            with fails(EIO):
                await fsync(devvp)
        disk.faults = Faults()
        await fsync(devvp)
        assert disk.image[:4] == b"data"


def test_the_node_sees_what_the_file_system_has_in_buffers() -> None:
    devvp = spec_mount(Kernel(), memory())
    bp = now(bread(devvp, SECTORS, BSIZE))
    bp.data[:4] = b"meta"
    bdwrite(bp)
    assert now(read(devvp, BSIZE, 6)) == b"meta\1\1"
    now(write(devvp, BSIZE + 2, b"TA"))
    assert now(peek(devvp, 1))[:4] == b"meTA"


def test_the_size_of_blocks_before_and_after_the_super_block_is_known() -> None:
    disk = memory()
    devvp = spec_mount(Kernel(), disk)
    assert now(read(devvp, 1024, 1024)) == bytes(1024)
    now(write(devvp, 1024, b"super"))
    now(spec_setblksize(devvp, 1024))
    assert incore(devvp, 0) is None
    brelse(now(bread(devvp, 2, 1024)))
    assert now(read(devvp, 1024, 5)) == b"super"
    for size in (256, 1000, 0):
        with pytest.raises(RuntimeError):
            now(spec_setblksize(devvp, size))


async def test_the_size_of_blocks_is_not_changed_over_data_that_cannot_be_written(
    log_watch: LogWatch,
) -> None:
    log_watch.expect("delayed writes fail")
    disk = memory()
    async with device(disk) as devvp:
        await write(devvp, 0, b"data")
        disk.faults = Faults(write=1.0)
        with fails(EIO):
            await spec_setblksize(devvp, 1024)
        disk.faults = Faults()
        await fsync(devvp)
        assert disk.image[:4] == b"data"


@pytest.mark.parametrize("size", [512, 1536, 5 * 1024, 12 * 1024 + 511])
def test_every_sector_of_an_odd_disk_can_be_reached(size: int) -> None:
    disk = FaultDisk(bytearray(size))
    devvp = spec_mount(Kernel(), disk)
    whole = size // 512 * 512
    assert devvp.size == whole
    data = Random(size).randbytes(whole)
    now(write(devvp, 0, data))
    assert now(read(devvp, 0, size)) == data
    now(spec_setblksize(devvp, 4096))  # a file system does not use what fills no block
    assert now(read(devvp, 0, size)) == data[: whole // 4096 * 4096]


async def test_reads_ahead_of_itself() -> None:
    disk = ToldDisk()
    async with device(disk) as devvp, trio.open_nursery() as nursery:
        nursery.start_soon(read, devvp, BSIZE, 20 * BSIZE)
        await wait_all_tasks_blocked()
        assert disk.asked == list(range(1, 10))
        while disk.queue:
            disk.complete()
            await wait_all_tasks_blocked()
        assert disk.seen == [("read", number) for number in range(1, 21)]


async def test_who_writes_faster_than_the_device_waits_for_it() -> None:
    disk = ToldDisk()
    kernel = Kernel()
    kernel.bufs.lodirty = kernel.bufs.hidirty = 10 * BSIZE
    async with device(disk, kernel) as devvp, trio.open_nursery() as nursery:
        nursery.start_soon(write, devvp, 0, bytes(60 * BSIZE))
        await wait_all_tasks_blocked()
        assert len(devvp.dirtyblks or ()) == 11
        while nursery.child_tasks:
            disk.complete()
            await wait_all_tasks_blocked()
        assert kernel.bufs.statistics().throttled > 0
        nursery.start_soon(fsync, devvp)
        while devvp.dirtyblks:
            await wait_all_tasks_blocked()
            disk.complete_all()


def test_read_only() -> None:
    devvp = spec_mount(Kernel(), FaultDisk(bytearray(BSIZE), rdonly=True))
    now(vn_open(devvp, FREAD, FSCRED))
    with fails(EROFS):
        now(vn_open(devvp, FREAD | FWRITE, FSCRED))
    with fails(EROFS):
        now(write(devvp, 0, b"x"))


def test_what_a_device_is_not() -> None:
    devvp = spec_mount(Kernel(), memory())
    fs = devvp.fs
    now(devvp.lock.exclusive())
    va, _ = now(fs.getattr(devvp, FSCRED))
    assert (va.vtype, va.mode, va.size, va.blocksize) == (Vtype.VBLK, 0o600, 64 * BSIZE, BSIZE)
    assert now(fs.bmap(devvp, BSIZE, 100)) == (SECTORS, 100)
    assert fs.typename == "specfs"
    cn = lookup_cn(b"x", FSCRED)
    operations: list[Coroutine[Any, Any, object]] = [
        fs.lookup(devvp, cn),
        fs.create(devvp, cn, Vattr()),
        fs.mknod(devvp, cn, Vattr()),
        fs.mkdir(devvp, cn, Vattr()),
        fs.symlink(devvp, cn, Vattr(), b"x"),
        fs.remove(devvp, devvp, cn),
        fs.link(devvp, devvp, cn),
        fs.rename(devvp, devvp, cn, devvp, None, cn),
        fs.rmdir(devvp, devvp, cn),
        fs.readdir(devvp, 0, 100, 0, FSCRED),
    ]
    for operation in operations:
        with fails(ENOTDIR):
            now(operation)
    operations = [fs.root(), fs.statvfs(), fs.setattr(devvp, Vattr(), FSCRED)]
    for operation in operations:
        with fails(EOPNOTSUPP):
            now(operation)
    with fails(EINVAL):
        now(fs.readlink(devvp, FSCRED))
    devvp.lock.release()


async def test_a_device_that_was_given_back_is_dead() -> None:
    async with Kernel() as kernel:
        devvp = spec_mount(kernel, memory())
        fs = devvp.fs
        await spec_unmount(devvp)
        assert devvp.fs is not fs
        with fails(ENXIO):
            await devvp.fs.read(devvp, 0, 10, 0, FSCRED)
        with fails(ENXIO):
            await bread(devvp, 0, BSIZE)
