"""The disk that fails: what it says, what is on the medium then, and what a power cut leaves."""

from __future__ import annotations

import mmap
from collections import Counter
from errno import EIO, ENOSPC
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from syspuffs.emul.bio import B_READ, B_WRITE, biowait, getiobuf
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import FaultDisk, Faults
from syspuffs.emul.specfs import spec_mount
from syspuffs.emul.vnode import Vnode
from syspuffs.native.errors import VfsError

from ..caller import fails

SECTORS = 64


@pytest.fixture
def vp() -> Vnode:
    return spec_mount(Kernel(), FaultDisk(bytearray(512)))


async def put(disk: FaultDisk, vp: Vnode, sector: int, text: bytes, count: int = 1) -> None:
    """Fill `count` sectors from `sector` on with `text`."""
    bp = getiobuf(vp, sector, [bytearray(text * (512 // len(text))) for _ in range(count)], B_WRITE)
    disk.strategy(bp)
    await biowait(bp)


async def get(disk: FaultDisk, vp: Vnode, sector: int, count: int = 1) -> bytes:
    """Return the first octet of each sector."""
    data = bytearray(512 * count)
    bp = getiobuf(vp, sector, [memoryview(data)[:100], memoryview(data)[100:]], B_READ)
    disk.strategy(bp)
    await biowait(bp)
    return bytes(data[::512])


def octets(image: bytes | bytearray | mmap.mmap) -> bytes:
    """Return the first octet of each sector of the medium."""
    return bytes(image[::512])


async def test_the_medium_has_what_was_flushed(vp: Vnode) -> None:
    disk = FaultDisk(bytearray(8 * 512))
    await put(disk, vp, 1, b"a", 3)
    await put(disk, vp, 2, b"b")
    assert await get(disk, vp, 0, 8) == b"\0aba\0\0\0\0"
    assert octets(disk.image) == bytes(8)
    await disk.flush()
    assert octets(disk.image) == b"\0aba\0\0\0\0"
    await put(disk, vp, 3, b"c")
    assert await get(disk, vp, 1, 3) == b"abc"


async def test_over_a_file_of_the_host(vp: Vnode, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(8 * 512))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as image:
        disk = FaultDisk(image)
        await put(disk, vp, 1, b"a")
        await disk.flush()
        await put(disk, vp, 2, b"b")
        assert await get(disk, vp, 0, 3) == b"\0ab"
        assert disk.crash(Random(0))[1 * 512] == ord("a")
    assert path.read_bytes()[512:1536:512] == b"a\0"


async def test_chosen_operations_fail(vp: Vnode) -> None:
    disk = FaultDisk(bytearray(8 * 512), faults=Faults(fail_at={1, 2, 4}, errno=ENOSPC))
    await put(disk, vp, 0, b"a")
    with fails(ENOSPC):
        await put(disk, vp, 0, b"b")
    with fails(ENOSPC):
        await disk.flush()
    assert octets(disk.image)[:1] == b"\0"
    assert await get(disk, vp, 0) == b"a"
    with fails(ENOSPC):
        await get(disk, vp, 0)
    await disk.flush()
    assert octets(disk.image)[:1] == b"a"
    assert disk.operations == 6


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
async def test_rates_are_by_kind_and_from_a_seed(vp: Vnode, rate: float) -> None:
    async def count(seed: int) -> Counter[str]:
        disk = FaultDisk(bytearray(512), seed, Faults(read=rate, write=rate / 2, flush=0.0))
        failed: Counter[str] = Counter(flush=0)
        for _ in range(200):
            for what, operation in (
                ("read", get(disk, vp, 0)),
                ("write", put(disk, vp, 0, b"x")),
                ("flush", disk.flush()),
            ):
                try:
                    await operation
                except VfsError:
                    failed[what] += 1
        return failed

    failed = await count(1)
    assert failed == await count(1)
    assert failed["flush"] == 0
    assert abs(failed["read"] - 200 * rate) < 25
    assert abs(failed["write"] - 100 * rate) < 25


async def test_torn_writes_say_so_and_leave_some_sectors(vp: Vnode) -> None:
    seen = set()
    for seed in range(200):
        disk = FaultDisk(bytearray(4 * 512), seed, Faults(write=1.0, torn=1.0))
        with fails(EIO):
            await put(disk, vp, 0, b"x", 4)
        found = await get(disk, vp, 0, 4)
        await disk.flush()
        assert octets(disk.image) == found
        seen.add(found.replace(b"\0", b"."))
    assert {b"....", b"x...", b"xx..", b"xxx.", b"..x.", b".xxx"} < seen
    assert b"xxxx" not in seen


async def test_a_lost_write_is_confessed_by_every_flush_until_it_is_written_again(
    vp: Vnode,
) -> None:
    disk = FaultDisk(bytearray(4 * 512), faults=Faults(lost=1.0))
    await put(disk, vp, 0, b"x", 2)
    assert await get(disk, vp, 0, 2) == b"\0\0"
    disk.faults = Faults()
    await put(disk, vp, 1, b"y")
    for _ in range(2):
        with fails(EIO):
            await disk.flush()
    assert octets(disk.image) == b"\0y\0\0"
    await put(disk, vp, 0, b"x")
    await disk.flush()
    assert octets(disk.image) == b"xy\0\0"


async def test_delays_change_the_order(vp: Vnode, autojump_clock: trio.testing.MockClock) -> None:
    disk = FaultDisk(bytearray(SECTORS * 512), 1, Faults(delay=1.0))
    order: list[int] = []

    async def write(number: int) -> None:
        await put(disk, vp, number, b"x")
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(write, number)
    assert sorted(order) == list(range(20)) != order
    assert 0.5 < trio.current_time() < 1.0
    await disk.flush()
    assert octets(disk.image)[:20] == b"x" * 20
    assert await get(disk, vp, 0, 20) == b"x" * 20


async def test_a_flush_does_not_promise_writes_that_were_not_answered(
    vp: Vnode, autojump_clock: trio.testing.MockClock
) -> None:
    disk = FaultDisk(bytearray(4 * 512))
    await put(disk, vp, 0, b"a")
    disk.faults = Faults(delay=10.0)

    async def write() -> None:
        with fails(EIO):  # the power was cut before it was answered
            await put(disk, vp, 1, b"b")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        disk.faults = Faults()
        await disk.flush()
        assert octets(disk.image)[:2] == b"a\0"
        images = {octets(disk.crash(Random(seed)))[:2] for seed in range(40)}
        assert images == {b"a\0", b"ab"}
        with fails(EIO):
            await get(disk, vp, 0)


# Power cuts.


async def test_dead_at_an_operation(vp: Vnode) -> None:
    disk = FaultDisk(bytearray(4 * 512), faults=Faults(die_at=3))
    await put(disk, vp, 0, b"a")
    await disk.flush()
    await put(disk, vp, 1, b"b")
    assert not disk.is_dead
    with fails(EIO):
        await put(disk, vp, 2, b"c")  # it may have been done all the same
    assert disk.is_dead
    for operation in (put(disk, vp, 3, b"d"), get(disk, vp, 0), disk.flush()):
        with fails(EIO):
            await operation
    images = {octets(disk.crash(Random(seed))).replace(b"\0", b".") for seed in range(200)}
    assert images == {b"a...", b"ab..", b"a.c.", b"abc."}
    assert octets(disk.image) == b"a\0\0\0"


async def test_a_crash_keeps_what_was_flushed_and_any_of_the_rest(vp: Vnode) -> None:
    disk = FaultDisk(bytearray(8 * 512))
    await put(disk, vp, 0, b"a", 8)
    await disk.flush()
    await put(disk, vp, 0, b"b", 4)
    await put(disk, vp, 2, b"c", 4)
    await put(disk, vp, 7, b"d")
    images = {octets(disk.crash(Random(seed))) for seed in range(400)}
    for image in images:
        assert set(image[0:2]) <= set(b"ab")
        assert set(image[2:4]) <= set(b"abc")
        assert set(image[4:6]) <= set(b"ac")
        assert image[6:7] == b"a"
        assert set(image[7:8]) <= set(b"ad")
    assert {b"aaaaaaaa", b"bbccccad", b"bbbbaaaa", b"aaccccaa", b"aaaaaaad"} < images
    assert any(image[0] != image[1] for image in images)  # torn
    assert disk.is_dead
    assert disk.crash(Random(5)) == disk.crash(Random(5))


async def test_a_flush_that_the_power_cut_meets(
    vp: Vnode, autojump_clock: trio.testing.MockClock
) -> None:
    disk = FaultDisk(bytearray(4 * 512))
    await put(disk, vp, 0, b"a")
    disk.faults = Faults(delay=1.0)

    async def flush() -> None:
        with fails(EIO):
            await disk.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        disk.crash(Random(0))
    assert octets(disk.image) == bytes(4)
