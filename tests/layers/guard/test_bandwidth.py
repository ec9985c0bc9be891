"""Bandwidth, by trio's own clock: what passes in which time, shared by all sessions."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from syspuffs.layers.bandwidth import Bucket
from syspuffs.layers.guard import GuardSettings, Rule, Verb
from syspuffs.native import sftp
from syspuffs.native.errors import VfsError

from ...gateway.sftp.harness import MAKE
from ...support.sftp_end import SELF
from .harness import guarded_tree


async def test_a_second_is_free_and_the_rest_is_waited_for(autojump_clock: MockClock) -> None:
    bucket = Bucket(100)
    began = trio.current_time()
    await bucket.take(100)
    assert trio.current_time() == began
    await bucket.take(50)
    assert trio.current_time() - began == pytest.approx(0.5)
    await bucket.take(1000)  # more than there ever is at once
    assert trio.current_time() - began == pytest.approx(10.5)
    await trio.sleep(100)
    began = trio.current_time()
    for _ in range(4):
        await bucket.take(100)  # time that nobody used is not saved
    assert trio.current_time() - began == pytest.approx(3)


async def test_it_is_given_back_when_the_wait_is_cancelled(autojump_clock: MockClock) -> None:
    bucket = Bucket(100)
    await bucket.take(100)
    for is_done, wait in ((False, 1.0), (True, 11.0)):
        began = trio.current_time()
        with trio.move_on_after(0):
            await bucket.take(1000, is_done=is_done)
        await bucket.take(100)
        assert trio.current_time() - began == pytest.approx(wait)


async def test_sessions_share_it(autojump_clock: MockClock) -> None:
    settings = GuardSettings(upload_rate=100_000, download_rate=50_000)
    async with (
        guarded_tree(settings, seconds=1000) as tree,
        tree.client() as one,
        tree.client() as two,
    ):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.put, b"/a", b"a" * 200_000)
            nursery.start_soon(two.put, b"/b", b"b" * 200_000)
        assert trio.current_time() - began == pytest.approx(3, abs=0.1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.get, b"/a")
            nursery.start_soon(two.get, b"/b")
        assert trio.current_time() - began == pytest.approx(7, abs=0.1)
        # What only asks does not wait for those who transfer.
        began = trio.current_time()
        handle = await one.open(b"/a", MAKE)
        await one.send(sftp.write(one.number(), handle, 0, 200_000), b"x" * 200_000)
        await two.ask(sftp.stat, b"/b")
        assert trio.current_time() == began
        await one.reply()
        await one.ask(sftp.close, handle)


async def test_a_file_that_is_moved_while_its_data_wait(autojump_clock: MockClock) -> None:
    settings = GuardSettings(upload_rate=10, rules=(Rule(b"/done", deny=Verb.OVERWRITE),))
    files = ((b"/done/", b""), (b"/f", b""))
    async with guarded_tree(settings, files=files, seconds=1000) as tree:
        root = tree.guard.kargs.root.cookie
        f, done = await tree.find(b"/f"), await tree.find(b"/done")

        async def write() -> None:
            with pytest.raises(VfsError, match="EACCES"):
                await tree.guard.write(f, 0, b"x" * 100, 0, SELF)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(1)
            await tree.guard.rename(root, f, tree.name(b"f"), done, None, tree.name(b"f"))
        for cookie in (f, done):
            tree.guard.reclaim(cookie, 1)
