"""What all disks have in common: refusals, barriers, shared flushes, the end."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, EIO, ENOSPC, ENXIO, EROFS

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.bio import B_ASYNC, B_ORDERED, B_READ, B_WRITE, Buf, biowait, getiobuf
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import CLOSE_GRACE, Disk, FaultDisk
from syspuffs.emul.specfs import spec_mount
from syspuffs.emul.vnode import Vnode
from syspuffs.native.errors import VfsError

from ...support.logs import LogWatch
from ..bio.told import BSIZE, SECTORS, ToldDisk
from ..caller import fails, now


@pytest.fixture
def vp() -> Vnode:
    """Whom to count output on; the transfers below go to their disk directly."""
    return spec_mount(Kernel(), FaultDisk(bytearray(BSIZE)))


class Issuer:
    """Asks a disk for blocks and writes down how it went."""

    def __init__(self, disk: Disk, vp: Vnode) -> None:
        self.disk = disk
        self.vp = vp
        self.done: list[tuple[int, int]] = []

    def ask(self, blkno: int, flags: int = B_WRITE, length: int = BSIZE) -> Buf:
        bp = getiobuf(self.vp, blkno, [bytearray(length)], flags | B_ASYNC, self._iodone)
        self.disk.strategy(bp)
        return bp

    def write(self, *numbers: int, ordered: bool = False) -> None:
        for number in numbers:
            self.ask(number * SECTORS, B_WRITE | (B_ORDERED if ordered else 0))

    def _iodone(self, bp: Buf) -> None:
        self.done.append((bp.blkno // SECTORS, bp.error))


@pytest.mark.parametrize(
    ("blkno", "length", "flags", "errno"),
    [
        (0, 0, B_READ, EINVAL),
        (0, 100, B_READ, EINVAL),
        (0, 513, B_WRITE, EINVAL),
        (64 * SECTORS, 512, B_READ, EIO),
        (64 * SECTORS - 1, 1024, B_READ, EIO),
        (-1, 512, B_READ, EIO),
        (64 * SECTORS, 512, B_WRITE, ENOSPC),
        (64 * SECTORS - 1, 1024, B_WRITE | B_ORDERED, ENOSPC),
        (-1, 512, B_WRITE, ENOSPC),
        (64 * SECTORS - 1, 512, B_READ, 0),
        (64 * SECTORS - 1, 512, B_WRITE, 0),
    ],
)
def test_refused(vp: Vnode, blkno: int, length: int, flags: int, errno: int) -> None:
    disk = FaultDisk(bytearray(64 * BSIZE))
    bp = Issuer(disk, vp).ask(blkno, flags, length)
    assert bp.error == errno
    assert bp.resid == (length if errno else 0)
    statistics = disk.statistics()
    assert statistics.errors == bool(errno)
    assert statistics.reads + statistics.writes == 1
    assert statistics.octets_read + statistics.octets_written == (0 if errno else length)
    assert statistics.pending == 0
    assert disk.operations == (0 if errno else 1)


async def test_read_only(vp: Vnode) -> None:
    disk = FaultDisk(bytearray(BSIZE), rdonly=True)
    issuer = Issuer(disk, vp)
    assert issuer.ask(0, B_READ).error == 0
    assert issuer.ask(0, B_WRITE).error == EROFS
    assert issuer.ask(100, B_WRITE).error == EROFS
    await disk.flush()


async def test_closed(vp: Vnode) -> None:
    disk = ToldDisk()
    await disk.close()
    await disk.close()
    assert disk.seen == [("close", 0)]
    for flags in (B_READ, B_WRITE, B_WRITE | B_ORDERED):
        assert Issuer(disk, vp).ask(0, flags).error == ENXIO
    with fails(ENXIO):
        await disk.flush()


def test_only_whole_sectors_count() -> None:
    assert FaultDisk(bytearray(1023)).size == 512
    assert FaultDisk(bytearray(100)).size == 0


def test_a_failure_for_which_nobody_waits_is_reported_once(log_watch: LogWatch) -> None:
    log_watch.expect("WARNING .*disk: fault: delayed writes fail with E")
    disk = FaultDisk(bytearray(BSIZE))
    for errno in (EIO, ENOSPC, EIO, ENOSPC):
        disk.report(errno)
    assert len(log_watch.lines) == 2


# Flush.


async def test_nothing_written_nothing_flushed(vp: Vnode) -> None:
    disk = ToldDisk()
    now(disk.flush())
    Issuer(disk, vp).ask(0, B_READ)
    disk.complete()
    now(disk.flush())
    assert disk.statistics().flushes == 0
    Issuer(disk, vp).write(1)
    disk.complete()
    await disk.flush()
    now(disk.flush())
    assert disk.statistics().flushes == 1


async def test_a_flush_covers_what_was_written_before_it_began(vp: Vnode) -> None:
    """Each caller returns with a flush that began after his write was over, and no later one."""
    disk = ToldDisk()
    disk.flushes_at_once = False
    issuer = Issuer(disk, vp)
    order: list[str] = []

    async def caller(name: str, *, writes: bool) -> None:
        if writes:
            issuer.write(0)
            disk.complete()
        await disk.flush()
        order.append(name)

    async with trio.open_nursery() as nursery:

        async def start(name: str, *, writes: bool) -> None:
            nursery.start_soon(lambda: caller(name, writes=writes))
            await wait_all_tasks_blocked()

        await start("a", writes=True)  # begins one
        await start("b", writes=False)  # nothing new since: the same
        await start("c", writes=True)  # begins the next
        await start("d", writes=True)  # which has not begun yet: the same
        await start("e", writes=False)  # c's and d's may be his as well
        assert len(disk.flushing) == 1
        disk.flushing[0].set()
        await wait_all_tasks_blocked()
        assert sorted(order) == ["a", "b"]
        assert len(disk.flushing) == 2
        await start("f", writes=False)
        disk.flushing[1].set()
    assert sorted(order) == ["a", "b", "c", "d", "e", "f"]
    assert disk.statistics().flushes == 2
    now(disk.flush())


async def test_a_flush_that_fails_fails_for_all_and_is_tried_again(vp: Vnode) -> None:
    disk = ToldDisk()
    disk.flushes_at_once = False
    disk.flush_error = ENOSPC
    errors: list[int] = []

    async def caller() -> None:
        try:
            await disk.flush()
        except VfsError as exc:
            errors.append(exc.errno)

    Issuer(disk, vp).write(0)
    disk.complete()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        disk.flushing[0].set()
    assert errors == [ENOSPC] * 3
    disk.flushes_at_once = True
    with fails(ENOSPC):
        await disk.flush()
    disk.flush_error = 0
    await disk.flush()
    now(disk.flush())


async def test_who_is_cancelled_in_a_flush_finishes_it_first(vp: Vnode) -> None:
    disk = ToldDisk()
    disk.flushes_at_once = False
    ended: list[str] = []

    async def caller(name: str, scope: trio.CancelScope) -> None:
        with scope:
            await disk.flush()
            ended.append(name)
            await trio.lowlevel.checkpoint()
            ended.append("not cancelled")

    Issuer(disk, vp).write(0)
    disk.complete()
    scopes = [trio.CancelScope() for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for name, scope in zip("ab", scopes, strict=True):
            nursery.start_soon(caller, name, scope)
            await wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        await wait_all_tasks_blocked()
        assert ended == []
        disk.flushing[0].set()
    assert sorted(ended) == ["a", "b"]


# Barriers.


async def test_a_barrier_comes_after_all_before_and_before_all_after(vp: Vnode) -> None:
    disk = ToldDisk()
    issuer = Issuer(disk, vp)
    issuer.write(1, 2)
    issuer.write(3, ordered=True)
    issuer.write(4)
    issuer.ask(5 * SECTORS, B_READ)  # reads are in nobody's way
    issuer.write(6, ordered=True)
    issuer.write(7)
    seen = disk.seen
    await wait_all_tasks_blocked()
    assert disk.asked == [1, 2, 5]
    disk.complete(1)
    await wait_all_tasks_blocked()
    assert disk.asked == [1, 5]
    disk.complete(0)
    await wait_all_tasks_blocked()
    assert disk.asked == [5, 3]
    assert seen[-2:] == [("flush", 0), ("write", 3)]
    disk.complete(1)
    await wait_all_tasks_blocked()
    assert seen[-2:] == [("flush", 0), ("write", 4)]
    disk.complete_all()
    await wait_all_tasks_blocked()
    assert seen[-2:] == [("flush", 0), ("write", 6)]
    disk.complete_all()
    await wait_all_tasks_blocked()
    assert seen[-2:] == [("flush", 0), ("write", 7)]
    issuer.write(8)
    assert disk.asked == [7, 8]
    disk.complete_all()
    assert sorted(issuer.done) == [(number, 0) for number in range(1, 9)]


async def test_a_barrier_fails_when_what_is_before_it_cannot_be_flushed(vp: Vnode) -> None:
    disk = ToldDisk()
    disk.flush_error = EIO
    issuer = Issuer(disk, vp)
    issuer.write(1)
    disk.complete()
    issuer.write(2, ordered=True)
    issuer.write(3)
    await wait_all_tasks_blocked()
    assert disk.asked == [3]
    disk.complete()
    assert issuer.done == [(1, 0), (2, EIO), (3, 0)]


# The end.


async def test_close_waits_for_what_is_under_way(vp: Vnode) -> None:
    disk = ToldDisk()
    disk.flushes_at_once = False
    issuer = Issuer(disk, vp)
    async with trio.open_nursery() as nursery:
        issuer.write(0)
        disk.complete()
        nursery.start_soon(disk.flush)
        await wait_all_tasks_blocked()
        issuer.write(1)
        issuer.ask(0, B_READ)
        nursery.start_soon(disk.close)
        for step in (disk.complete, disk.complete, disk.flushing[0].set):
            await wait_all_tasks_blocked()
            assert ("close", 0) not in disk.seen
            step()
    assert disk.seen[-1] == ("close", 0)
    assert {error for _, error in issuer.done} == {0}


async def test_close_gives_up_a_disk_that_does_not_answer(
    vp: Vnode, autojump_clock: trio.testing.MockClock, log_watch: LogWatch
) -> None:
    log_watch.expect("ERROR .*: does not answer and is left behind: <ToldDisk told")
    disk = ToldDisk()
    disk.flushes_at_once = False
    issuer = Issuer(disk, vp)
    waiter = getiobuf(vp, 0, [bytearray(BSIZE)], B_READ)

    async def expect_eio(what: Callable[[], object]) -> None:
        with fails(EIO):
            await what()  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        issuer.write(0)
        disk.complete()
        nursery.start_soon(expect_eio, disk.flush)
        await wait_all_tasks_blocked()
        issuer.write(1)
        issuer.write(2, ordered=True)
        issuer.write(3)
        disk.strategy(waiter)
        nursery.start_soon(expect_eio, lambda: biowait(waiter))
        before = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()  # a close is never cancelled
            await disk.close()
        assert trio.current_time() - before == CLOSE_GRACE
    assert sorted(issuer.done) == [(0, 0), (1, EIO), (2, EIO), (3, EIO)]
    for _ in range(2):  # answers that come too late
        disk.complete()
    await wait_all_tasks_blocked()
    assert len(issuer.done) == 4
    assert disk.statistics().pending == 0
