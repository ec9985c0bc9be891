"""The bound on vnodes where there is something to be written: nothing is lost for lack of room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EIO

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.freelist import RETRY
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.vnode import holdrele, vgone, vhold, vrele

from .caller import now
from .writeback import Writeback


@asynccontextmanager
async def kernel_of(desiredvnodes: int) -> AsyncIterator[tuple[Kernel, Writeback]]:
    async with Kernel(desiredvnodes=desiredvnodes) as kernel:
        fs = Writeback()
        await kernel.mount(fs)
        yield kernel, fs
        fs.gate = None
        fs.errors.clear()


async def test_dirty_ones_are_cleaned_first_and_then_recycled() -> None:
    async with kernel_of(32) as (kernel, fs):
        vps = [fs.make(key) for key in range(10, 43)]  # two too many, with the root
        for vp in vps:
            now(vrele(vp))  # and nobody waits for that
        assert fs.reclaimed() == []
        assert len(fs.mount) == 34
        await wait_all_tasks_blocked()
        assert fs.written() == [10, 11]
        assert fs.reclaimed() == [10, 11]
        statistics = kernel.statistics()
        assert (statistics.vnodes, statistics.recycled, statistics.cleaned) == (32, 2, 2)


async def test_older_one_goes_though_it_must_be_cleaned_first() -> None:
    async with kernel_of(4) as (_, fs):
        old, young = fs.make(10), fs.make(11, dirty=False)
        await vrele(old)
        await vrele(young)
        fs.gate = trio.Event()
        used = [fs.make(12), fs.make(13)]
        await wait_all_tasks_blocked()
        assert not old.is_dead
        assert len(fs.mount) == 5  # one too many for a moment
        used.append(fs.make(14))
        assert young.is_dead  # another one must go, and it can
        fs.gate.set()
        await wait_all_tasks_blocked()
        assert old.is_dead
        for vp in used:
            await vrele(vp)


async def test_found_while_it_is_cleaned_it_stays() -> None:
    async with kernel_of(16) as (_, fs):
        vps = [fs.make(key) for key in range(10, 26)]
        fs.gate = trio.Event()
        for vp in vps:
            now(vrele(vp))
        await wait_all_tasks_blocked()
        assert fs.written() == [10]
        assert fs.mount.vget(10) is vps[0]
        fs.gate.set()
        await wait_all_tasks_blocked()
        assert not vps[0].is_dead
        assert vps[0].usecount == 1
        assert vps[1].is_dead  # the next one in its place
        await vrele(vps[0])


async def test_one_that_cannot_be_cleaned_stays(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with kernel_of(3) as (kernel, fs):
        fs.errors = {10: EIO, 11: EIO}
        vps = [fs.make(key) for key in (10, 11, 12, 13)]
        with caplog.at_level("CRITICAL", "syspuffs.emul.freelist"):
            for vp in vps:
                await vrele(vp)
            await wait_all_tasks_blocked()
            assert fs.reclaimed() == [12, 13]
            before = len(fs.fsyncs)
            used = fs.make(14)
            await trio.sleep(RETRY - 1)
            assert len(fs.fsyncs) == before  # left alone for a while
            await trio.sleep(2)
            assert len(fs.fsyncs) > before
            assert not vps[0].is_dead
            fs.errors.clear()
            await trio.sleep(RETRY)
        assert [vp.is_dead for vp in vps] == [True, False, True, True]
        assert kernel.statistics().vnodes == 3
        await vrele(used)


async def test_maker_of_too_many_cleans_himself() -> None:
    """Nobody else gets a turn here: vdrain cannot be what keeps the bound."""

    async def make_many(fs: Writeback) -> None:
        for key in range(10, 1010):
            await vrele(fs.make(key))
            assert len(fs.mount) <= 100 + 100 // 16 + 1

    async with kernel_of(100) as (kernel, fs):
        now(make_many(fs))
        assert fs.reclaimed() == fs.written()
        assert len(fs.reclaimed()) > 800
        await wait_all_tasks_blocked()
        assert kernel.statistics().vnodes == 100


@pytest.mark.logs("is taken away, and what is dirty of it is lost: EIO")
async def test_vnode_that_is_taken_away_is_written_first() -> None:
    async with kernel_of(100) as (_, fs):
        written, lost = fs.make(10), fs.make(11)
        fs.errors[11] = EIO
        for vp in (written, lost):
            await vgone(vp)
            assert vp.is_dead
            await vrele(vp)
        assert fs.written() == [10, 11]


async def test_unmount_waits_for_who_holds_for_the_kernel() -> None:
    async with kernel_of(100) as (kernel, fs):
        vp = fs.make(10, dirty=False)
        await vrele(vp)
        vhold(vp)
        assert vp.usecount == 1
        assert len(kernel.free_list) == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.unmount, fs.mount)
            await wait_all_tasks_blocked()
            assert fs.mount.is_alive
            assert fs.heard == [("inactive", 10)]
            await holdrele(vp)
        assert not fs.mount.is_alive


async def test_unmount_while_vdrain_works() -> None:
    async with kernel_of(16) as (kernel, fs):
        fs.gate = trio.Event()
        for key in range(10, 26):
            now(vrele(fs.make(key)))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.unmount, fs.mount)
            await wait_all_tasks_blocked()
            fs.gate.set()
        assert not fs.mount.is_alive
        assert set(fs.written()) == set(range(10, 26))


async def test_cancelled_kernel_loses_nothing() -> None:
    """vdrain is cancelled with a vnode in hand; the unmount at the end writes it."""
    fs = Writeback()
    with trio.CancelScope() as scope:
        async with Kernel(desiredvnodes=16) as kernel:
            await kernel.mount(fs)
            fs.gate = trio.Event()
            for key in range(10, 26):
                now(vrele(fs.make(key)))
            await wait_all_tasks_blocked()
            scope.cancel()
            kernel.nursery.cancel_scope.cancel()
            fs.gate.set()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert set(fs.written()) == set(range(10, 26))
    assert ("unmount", 0) in fs.heard
