"""Disks over files and block devices of the host: what moves, by whom, and what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from errno import EBUSY, EFBIG, EIO, EISDIR, ENOENT, ENOTBLK, EOPNOTSUPP, EROFS, ETXTBSY
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from syspuffs.emul.bio import (
    B_ORDERED,
    B_READ,
    B_WRITE,
    Buf,
    biowait,
    bread,
    brelse,
    getiobuf,
)
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import HostDisk, open_disk
from syspuffs.emul.rumpuser.queue import DiskQueue
from syspuffs.emul.specfs import spec_mount, spec_unmount
from syspuffs.emul.vnode import Vnode
from syspuffs.native.errors import VfsError

from ..bio.told import device, fill, fsync, read, write
from ..caller import fails, now

KIB = 1024
MIB = 1024 * KIB
SIZE = 4 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(Random(1).randbytes(SIZE))
    return path


def opened(path: Path, *, rdonly: bool = False) -> HostDisk:
    return open_disk(os.fsencode(path), rdonly=rdonly)


def threaded(path: Path) -> HostDisk:
    """A disk whose writes, at least, are done by its threads, wherever the file is."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return HostDisk(fd, str(path), SIZE, sectsize=512, rdonly=False, is_in_memory=False)


@pytest.fixture
def memfd() -> Iterator[Path]:
    """A file in memory."""
    fd = os.memfd_create("disk")
    os.write(fd, Random(1).randbytes(SIZE))
    yield Path(f"/proc/self/fd/{fd}")
    os.close(fd)


def issue(devvp: Vnode, offset: int, iov: list[memoryview], flags: int) -> Buf:
    bp = getiobuf(devvp, offset >> 9, list(iov), flags)
    devvp.fs.strategy(devvp, bp)
    return bp


def cut(data: bytearray, rng: Random) -> list[memoryview]:
    """Return views of all of `data`, in pieces."""
    cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(5)))})
    view = memoryview(data)
    return [view[start:end] for start, end in pairwise(cuts)]


@pytest.mark.parametrize("opener", [opened, threaded])
async def test_moves_octets_as_pread_and_pwrite_do(
    image: Path, opener: Callable[[Path], HostDisk]
) -> None:
    """Many transfers of all lengths at a time, none of them overlapping."""
    rng = Random(2)
    model = bytearray(image.read_bytes())
    async with device(opener(image)) as devvp:
        for _ in range(20):
            under_way: list[tuple[Buf, int, bytearray]] = []
            offset = 0
            while offset < SIZE:
                offset += rng.choice((0, 0, 512, 64 * KIB))
                length = min(rng.choice((512, 4 * KIB, 64 * KIB, MIB)), SIZE - offset)
                if length > 0:
                    flags = rng.choice((B_READ, B_WRITE))
                    data = bytearray(length if flags == B_READ else rng.randbytes(length))
                    bp = issue(devvp, offset, cut(data, rng), flags)
                    under_way.append((bp, offset, data))
                offset += length
            for bp, offset, data in under_way:
                await biowait(bp)
                assert bp.resid == 0
                if bp.flags & B_READ:
                    assert data == model[offset : offset + len(data)]
                else:
                    model[offset : offset + len(data)] = data
    assert image.read_bytes() == model


async def test_file_in_memory_is_moved_at_once(memfd: Path) -> None:
    data = memfd.read_bytes()
    async with device(opened(memfd)) as devvp:
        assert now(read(devvp, 5, 10000)) == data[5:10005]
        now(write(devvp, 100, b"x" * 5000))
        await fsync(devvp)
        assert memfd.read_bytes()[100:5100] == b"x" * 5000
        assert not any(thread.name.startswith("disk") for thread in threading.enumerate())


async def test_what_the_host_has_in_memory_is_read_at_once(image: Path) -> None:
    with image.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as exc:
            if exc.errno == EOPNOTSUPP:
                pytest.skip("the file system of this place knows no RWF_NOWAIT")
            raise
    data = image.read_bytes()
    async with device(opened(image)) as devvp:
        assert now(read(devvp, 0, 100_000)) == data[:100_000]


async def test_threads_come_with_work_and_go_with_the_disk(image: Path) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("disk") for thread in threading.enumerate())

    async with Kernel() as kernel:
        devvp = spec_mount(kernel, threaded(image))
        assert threads() == 0
        bufs = [
            issue(devvp, number * 8192, [memoryview(bytes(512))], B_WRITE) for number in range(20)
        ]
        for bp in bufs:
            await biowait(bp)
        assert threads() == 2
        await spec_unmount(devvp)
        assert threads() == 0


async def test_flush_reaches_fdatasync(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    async with device(threaded(image)) as devvp:
        await write(devvp, 0, b"data")
        await fsync(devvp)
        assert len(calls) == 1
        await fsync(devvp)
        assert len(calls) == 1


async def test_a_flush_that_failed_is_never_forgotten(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells it once and drops what it could not write: to ask again would be answered yes."""

    def fdatasync(fd: int) -> None:
        raise OSError(EIO, "fdatasync")

    async with device(threaded(image)) as devvp:
        await write(devvp, 0, b"data")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fdatasync)
            with fails(EIO):
                await fsync(devvp)
        for _ in range(2):
            with fails(EIO):
                await fsync(devvp)


class Calls:
    """Stands before os.pwritev or os.preadv: counts, waits at a gate, moves little, and fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.real = getattr(os, name)
        self.seen: list[tuple[int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.limit = 1 << 40
        self.bad: dict[int, int] = {}
        monkeypatch.setattr(os, name, self)

    def __call__(self, fd: int, iov: Any, offset: int, *flags: int) -> int:
        length = sum(map(len, iov))
        self.gate.wait(10)
        self.seen.append((offset, length))
        for bad, errno in self.bad.items():
            if offset <= bad < offset + length:
                raise OSError(errno, "bad sector")
        if length > self.limit:
            whole = b"".join(iov)[: self.limit] if self.real.__name__ == "pwritev" else None
            if whole is not None:
                return int(os.pwrite(fd, whole, offset))
            piece = os.pread(fd, self.limit, offset)
            for view in iov:
                here = min(len(view), len(piece))
                memoryview(view)[:here] = piece[:here]
                piece = piece[here:]
            return self.limit
        return int(self.real(fd, iov, offset, *flags))


async def test_neighbours_are_written_together(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, "pwritev")
    async with device(threaded(image)) as devvp:
        calls.gate.clear()
        data = [bytes([number]) * 4 * KIB for number in range(100)]
        bufs = [
            issue(devvp, number * 4 * KIB, [memoryview(data[number])], B_WRITE)
            for number in range(100)
        ]
        calls.gate.set()
        for bp in bufs:
            await biowait(bp)
    # Four were in the hands of the threads before there was a queue; the rest went at once.
    assert sorted(calls.seen) == [
        *((number * 4 * KIB, 4 * KIB) for number in range(4)),
        (16 * KIB, 96 * 4 * KIB),
    ]
    assert image.read_bytes()[: 400 * KIB] == b"".join(data)


async def test_one_wake_up_for_all_that_are_over(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = DiskQueue._collect
    wake_ups: list[int] = []

    def counted(self: DiskQueue) -> None:
        wake_ups.append(len(self._over))
        collect(self)

    monkeypatch.setattr(DiskQueue, "_collect", counted)
    async with device(threaded(image)) as devvp:
        sector = memoryview(bytes(512))
        bufs = [issue(devvp, number * 8192, [sector], B_WRITE) for number in range(4)]
        queue = devvp.data.disk._queue
        while len(queue._over) < 4:  # the threads work, this one does not come round
            time.sleep(0.001)
        for bp in bufs:
            await biowait(bp)
        assert wake_ups == [4]


async def test_a_bad_sector_is_not_the_end_of_its_neighbours(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, "pwritev")
    calls.bad = {50 * 4 * KIB + 100: EIO}
    async with device(threaded(image)) as devvp:
        calls.gate.clear()
        bufs = [
            issue(devvp, number * 4 * KIB, [memoryview(b"n" * 4 * KIB)], B_WRITE)
            for number in range(60)
        ]
        calls.gate.set()
        for number, bp in enumerate(bufs):
            if number == 50:
                with fails(EIO):
                    await biowait(bp)
                assert bp.resid == 4 * KIB
            else:
                await biowait(bp)
    data = image.read_bytes()
    assert data[: 50 * 4 * KIB].strip(b"n") == b""
    assert data[51 * 4 * KIB : 60 * 4 * KIB].strip(b"n") == b""


@pytest.mark.parametrize("name", ["preadv", "pwritev"])
async def test_short_transfers_are_continued(
    image: Path, memfd: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls = Calls(monkeypatch, name)
    calls.limit = 1000
    for path, opener in ((image, threaded), (memfd, opened)):
        before = path.read_bytes()
        async with device(opener(path)) as devvp:
            data = bytearray(b"w" * 10 * 512)
            flags = B_READ if name == "preadv" else B_WRITE
            bp = issue(devvp, 512, cut(data, Random(3)), flags)
            await biowait(bp)
            assert bp.resid == 0
        if flags == B_READ:
            assert data == before[512 : 11 * 512]
        assert path.read_bytes()[512 : 11 * 512] == data


async def test_a_vector_longer_than_the_host_takes(image: Path) -> None:
    before = image.read_bytes()
    for opener in (opened, threaded):
        async with device(opener(image)) as devvp:
            data = bytearray(3000 * 512)
            view = memoryview(data)
            pieces = [view[start : start + 512] for start in range(0, len(data), 512)]
            await biowait(issue(devvp, 0, pieces, B_READ))
            assert data == before[: len(data)]
            await biowait(issue(devvp, 0, pieces, B_WRITE))
    assert image.read_bytes() == before


@pytest.mark.parametrize("opener", [opened, threaded])
async def test_somebody_has_cut_the_file(image: Path, opener: Callable[[Path], HostDisk]) -> None:
    async with device(opener(image)) as devvp:
        os.truncate(image, 10 * KIB)
        bp = issue(devvp, 8 * KIB, [memoryview(bytearray(4 * KIB))], B_READ)
        with fails(EIO):
            await biowait(bp)
        assert bp.resid == 2 * KIB


async def test_the_hosts_errno_is_the_buffers(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, "pwritev")
    async with device(threaded(image)) as devvp:
        calls.bad = {0: EFBIG}
        bp = issue(devvp, 0, [memoryview(bytes(512))], B_WRITE)
        with fails(EFBIG):
            await biowait(bp)


async def test_a_barrier_is_between_two_flushes(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    writes = Calls(monkeypatch, "pwritev")
    monkeypatch.setattr(os, "fdatasync", lambda fd: order.append(f"sync {len(writes.seen)}"))
    async with device(threaded(image)) as devvp:
        bufs = [
            issue(devvp, number * 64 * KIB, [memoryview(bytes(512))], B_WRITE | flags)
            for number, flags in enumerate((0, 0, B_ORDERED, 0))
        ]
        for bp in bufs:
            await biowait(bp)
    assert order == ["sync 2", "sync 3"]


async def test_reads_that_wait_do_not_hold_up_the_kernel(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread waits for the medium other tasks run, and who waits is woken by biodone."""
    calls = Calls(monkeypatch, "pwritev")
    calls.gate.clear()
    ticks = 0
    async with device(threaded(image)) as devvp, trio.open_nursery() as nursery:
        bp = issue(devvp, 0, [memoryview(bytes(512))], B_WRITE)

        async def tick() -> None:
            nonlocal ticks
            for _ in range(10):
                await trio.lowlevel.checkpoint()
                ticks += 1
            calls.gate.set()

        nursery.start_soon(tick)
        await biowait(bp)
        assert ticks == 10


# Opening.


async def test_one_writer_or_many_readers(image: Path) -> None:
    disk = opened(image)
    for rdonly in (False, True):
        with fails(EBUSY):
            opened(image, rdonly=rdonly)
    await disk.close()
    readers = [opened(image, rdonly=True) for _ in range(2)]
    with fails(EBUSY):
        opened(image)
    assert readers[0].is_rdonly
    for disk in readers:
        await disk.close()
    await opened(image).close()


async def test_a_lock_is_told_in_words(image: Path) -> None:
    disk = opened(image)
    with pytest.raises(VfsError, match=r"disk\.img: it is locked by another mount"):
        opened(image)
    await disk.close()


async def test_read_only_writes_nothing(image: Path) -> None:
    before = image.read_bytes()
    async with device(opened(image, rdonly=True)) as devvp:
        brelse(await bread(devvp, 0, 4096))
        bp = issue(devvp, 0, [memoryview(bytes(512))], B_WRITE)
        with fails(EROFS):
            await biowait(bp)
    assert image.read_bytes() == before


def test_what_is_no_disk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, errno in ((".", EISDIR), ("fifo", ENOTBLK), ("missing", ENOENT)):
        for rdonly in (False, True):
            with fails(errno):
                opened(tmp_path / name, rdonly=rdonly)
    with fails(ENOTBLK):
        open_disk(b"/dev/null")


async def test_never_read_only_by_itself() -> None:
    program = Path(sys.executable).resolve()  # may be read, and by nobody be written while it runs
    with fails(ETXTBSY):
        opened(program)
    await opened(program, rdonly=True).close()


async def test_size_and_name(tmp_path: Path) -> None:
    path = tmp_path / "odd \udcff name"
    path.write_bytes(bytes(5000))
    disk = opened(path)
    assert disk.size == 4608
    assert (disk.sectsize, disk.name) == (512, str(path))
    await disk.close()


@pytest.fixture
def loop(image: Path) -> Iterator[Path]:
    """A block device."""
    if os.geteuid() != 0:
        pytest.skip("only root makes block devices")
    made = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


async def test_block_device(loop: Path, image: Path) -> None:
    before = image.read_bytes()
    async with device(opened(loop)) as devvp:
        assert (devvp.size, devvp.data.disk.sectsize) == (SIZE, 512)
        with fails(EBUSY):  # by O_EXCL, which mount(2) minds, too
            opened(loop)
        assert await read(devvp, 1000, 5000) == before[1000:6000]
        bp = await fill(devvp, 3, 0xAA)
        brelse(bp, 0x40)
        await write(devvp, 3 * 4096, b"block")
        await fsync(devvp)
        assert image.read_bytes()[3 * 4096 : 3 * 4096 + 5] == b"block"
    await opened(loop, rdonly=True).close()
