"""Lookup counts, inactive and reclaim, setbacks, and what is fire-and-forget."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from syspuffs.emul.vnode import vrele
from syspuffs.native.constants import (
    FLAG_FAF,
    FREAD,
    FSYNC_WAIT,
    FWRITE,
    KFlag,
    Setback,
    VfsOp,
    VnOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Newinfo, lookup_cn

from ...support.logs import LogWatch
from .harness import CRED, DEATH, Asked, Client, mounted, played
from .memserver import ALL_OPS, MemServer

pytestmark = pytest.mark.logs(DEATH)
both = pytest.mark.parametrize("way", ["direct", "socket"])


@both
async def test_reclaim_carries_the_lookups_that_were_absorbed(way: str) -> None:
    async with mounted(way) as m:
        vp = await m.create(b"a")
        node = m.server.node(vp.data.cookie)
        for _ in range(4):
            assert await m.lookup(b"a") is vp
        assert node.nlookup == 5
        await m.give_up(*[vp] * 5)
        assert node.nlookup == 0
        assert m.server.counts()["reclaim"] == 1


@both
async def test_an_unused_vnode_is_found_again_without_a_reclaim(way: str) -> None:
    async with mounted(way) as m:
        vp = await m.create(b"a")
        await vrele(vp)
        assert await m.lookup(b"a") is vp
        assert "reclaim" not in m.server.calls
        await m.give_up(vp)


@both
async def test_the_root_is_never_reclaimed(way: str) -> None:
    async with mounted(way) as m:
        d = await m.mkdir(b"d")
        for _ in range(3):
            found = await m.fs.lookup(d, lookup_cn(b"..", CRED))
            assert found.vp is m.root
            await vrele(found.vp)
        await m.give_up(d)
        await m.kernel.unmount(m.mount)
        assert m.server.counts()["reclaim"] == 1


@both
async def test_inactive_on_demand_is_sent_to_nodes_that_asked(way: str) -> None:
    async with mounted(way) as m:
        quiet, asking = await m.create(b"q"), await m.create(b"a")
        m.server.setbacks["open"] = Setback.INACT_N1
        await m.fs.open(asking, FREAD, CRED)
        m.fs.close(asking, FREAD, CRED)
        await m.give_up(quiet, asking)
        assert m.server.counts()["inactive"] == 1
        await m.give_up(await m.lookup(b"a"))
        assert m.server.counts()["inactive"] == 1, "asked for once, sent once"


@both
async def test_without_on_demand_inactive_is_always_sent(way: str) -> None:
    async with mounted(way, MemServer(kflags=0)) as m:
        await vrele(await m.create(b"a"))
        await vrele(await m.lookup(b"a"))
        assert m.server.counts()["inactive"] == 2


@both
async def test_a_node_without_a_name_is_recycled_with_its_last_reference(way: str) -> None:
    async with mounted(way) as m:
        vp = await m.create(b"a")
        cookie = vp.data.cookie
        await m.fs.open(vp, FREAD | FWRITE, CRED)
        await m.fs.remove(m.root, vp, lookup_cn(b"a", CRED))
        assert m.server.counts()["remove"] == 1
        # The open file goes on working; only flushing it is pointless.
        await m.fs.write(vp, 0, b"still here", 0, CRED)
        assert bytes(await m.fs.read(vp, 0, 99, 0, CRED)) == b"still here"
        await m.fs.fsync(vp, FSYNC_WAIT, 0, 0, CRED)
        assert "fsync" not in m.server.calls
        m.fs.close(vp, FREAD | FWRITE, CRED)
        await vrele(vp)
        await m.settle()
        assert vp.is_dead
        assert m.server.counts()["reclaim"] == 1
        assert cookie not in m.server.nodes


@both
async def test_a_hard_link_keeps_the_node(way: str) -> None:
    async with mounted(way) as m:
        vp = await m.create(b"a")
        await m.fs.link(m.root, vp, lookup_cn(b"b", CRED))
        await m.fs.remove(m.root, vp, lookup_cn(b"a", CRED))
        await vrele(vp)
        assert not vp.is_dead
        await m.give_up(await m.lookup(b"b"))


@both
async def test_inactive_itself_may_say_that_no_name_is_left(way: str) -> None:
    async with mounted(way, MemServer(kflags=0)) as m:
        vp = await m.create(b"a")
        m.server.setbacks["inactive"] = Setback.NOREF_N1
        await vrele(vp)
        assert vp.is_dead
        m.server.setbacks.clear()


@both
async def test_setbacks_of_remove_reach_both_nodes(way: str) -> None:
    async with mounted(way) as m:
        d, vp = await m.mkdir(b"d"), await m.create(b"a")
        await m.fs.rename(m.root, vp, lookup_cn(b"a", CRED), d, None, lookup_cn(b"a", CRED))
        m.server.setbacks["remove"] = Setback.INACT_N1 | Setback.INACT_N2
        await m.fs.remove(d, vp, lookup_cn(b"a", CRED))
        await m.give_up(vp)
        await m.give_up(d)
        assert m.server.counts()["inactive"] == 2


@both
async def test_mmap_may_ask_for_inactive(way: str) -> None:
    async with mounted(way) as m:
        vp = await m.create(b"a")
        m.server.setbacks["mmap"] = Setback.INACT_N1
        await m.fs.mmap(vp, 1, CRED)
        await m.give_up(vp)
        assert m.server.counts()["inactive"] == 1


async def test_close_reclaim_and_abortop_wait_for_nobody() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.create(b"a"))
        header, _ = await peer.request(VnOp.CREATE)
        await peer.reply(header, Newinfo(Cookie(5), Vtype.VREG))
        vp = await asked.wait()
        m.fs.close(vp, FREAD, CRED)
        m.fs.abortop(m.root, lookup_cn(b"x", CRED))
        await m.give_up(vp)
        seen = []
        for _ in range(3):
            header, args = await peer.request()
            assert header.opclass & FLAG_FAF
            seen.append((header.optype, header.id))
        assert seen == [(VnOp.CLOSE, 0), (VnOp.ABORTOP, 0), (VnOp.RECLAIM, 0)]
        assert args == (1,)


@both
async def test_inactive_is_sent_for_a_cancelled_caller(way: str) -> None:
    async with mounted(way) as m:
        m.server.setbacks["open"] = Setback.INACT_N1
        vp = await m.create(b"a")
        await m.fs.open(vp, FREAD, CRED)
        m.fs.close(vp, FREAD, CRED)
        with trio.CancelScope() as scope:
            scope.cancel()
            await vrele(vp)
        await m.settle()
        assert m.server.counts()["inactive"] == 1


@both
async def test_inactive_goes_on_when_its_caller_is_cancelled(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(way) as m, trio.open_nursery() as nursery:
        m.server.setbacks["open"] = Setback.INACT_N1
        m.server.setbacks["inactive"] = Setback.NOREF_N1
        vp = await m.create(b"a")
        await m.fs.open(vp, FREAD, CRED)
        m.fs.close(vp, FREAD, CRED)
        gate = m.server.gate("inactive")
        asked = Asked(nursery, lambda: vrele(vp))
        await m.server.entered["inactive"].wait()
        asked.scope.cancel()
        gate.set()
        await asked.done.wait()
        assert vp.is_dead, "its answer was heard"


@both
async def test_an_inactive_without_an_answer_ends(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(way) as m:
        m.server.setbacks["open"] = Setback.INACT_N1
        vp = await m.create(b"a")
        await m.fs.open(vp, FREAD, CRED)
        gate = m.server.gate("inactive")
        await vrele(vp)
        assert vp.usecount == 0
        gate.set()


async def test_a_late_lookup_cannot_lose_its_node() -> None:
    """RECLAIM overtakes the reply to a LOOKUP: the count keeps the node alive on the server."""
    async with mounted("socket") as m, trio.open_nursery() as nursery:
        vp = await m.create(b"a")
        node = m.server.node(vp.data.cookie)
        gate = m.server.gate("lookup")
        asked = Asked(nursery, lambda: m.lookup(b"a"))
        await m.server.entered["lookup"].wait()
        await m.give_up(vp)
        assert vp.is_dead
        gate.set()
        again = await asked.wait()
        assert again.data.cookie == node.cookie
        assert node.nlookup == 1
        await m.give_up(again)


@both
async def test_after_a_forced_unmount_operations_end_with_enxio(way: str) -> None:
    async with mounted(way) as m:
        fs = m.fs
        vp = await m.create(b"a")
        m.server.veto = VfsError(errno.EBUSY)
        await m.kernel.unmount(m.mount, 0x80000)
        m.server.veto = None
        m.server.unmounted.append(0)
        for call in (fs.statvfs(), vp.fs.getattr(vp, CRED), fs.sync(1, CRED)):
            with pytest.raises(VfsError) as caught:
                await call
            assert caught.value.errno == errno.ENXIO
        await vrele(vp)


async def test_forced_unmount_does_not_wait_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, m.fs.statvfs)
        await m.kernel.unmount(m.mount, 0x80000)
        with pytest.raises(VfsError) as caught:
            await asked.wait()
        assert caught.value.errno == errno.ENXIO
        assert trio.current_time() < 60
        assert peer is not None


async def test_an_unmount_without_an_answer_is_vetoed_by_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.kernel.unmount(m.mount))
        header, _ = await peer.request(6)  # SYNC
        await peer.reply(header, None)
        with pytest.raises(VfsError) as caught:
            await asked.wait()
        assert caught.value.errno == errno.ETIMEDOUT
        assert m.mount.is_alive


async def test_the_end_of_a_server_that_was_unmounted_is_no_news(log_watch: LogWatch) -> None:
    for _ in range(30):  # the scheduler shuffles the reply and the end of the stream
        client = Client()
        async with played() as (m, peer), trio.open_nursery() as nursery:
            m.mount.set_client(client)
            asked = Asked(nursery, lambda: m.fs.unmount(0))
            header, _ = await peer.request(VfsOp.UNMOUNT)
            await peer.reply(header, None)
            peer.close()
            await asked.wait()
        assert client.unmount_requests == 0
    assert log_watch.lines == []


async def test_a_server_that_dies_over_its_unmount_is_unmounted() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.unmount(0))
        await peer.request(VfsOp.UNMOUNT)
        peer.close()
        await asked.wait()


async def test_cookies_and_flags_of_the_mask() -> None:
    server = MemServer(ops=ALL_OPS - {VnOp.RECLAIM, VnOp.CLOSE}, kflags=KFlag.IAONDEMAND)
    async with mounted("socket", server) as m:
        vp = await m.create(b"a")
        m.fs.close(vp, FREAD, CRED)
        await m.give_up(vp)
        assert server.calls == ["create"]
