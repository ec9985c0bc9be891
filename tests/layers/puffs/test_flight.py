"""Requests in flight over a socket: cancellation, late replies, back-pressure, and death."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
import trio.testing

from syspuffs.layers.puffs.putter import BACKLOG
from syspuffs.layers.puffs.touser import MAX_IN_FLIGHT
from syspuffs.native.constants import FREAD, OpClass, VfsOp, VnOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.frames import decode_request, encode_error
from syspuffs.native.records import Cookie, Dirent, Newinfo, Vattr, lookup_cn

from .harness import CRED, DEATH, DIRECTORY, FILE, ROOT_COOKIE, Asked, mounted, played, shrink
from .memserver import MemServer

pytestmark = pytest.mark.logs(DEATH)
HUGE = bytes(1 << 20)


async def test_replies_may_come_in_any_order() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = [
            Asked(nursery, lambda i=i: m.fs.getattr(m.root, CRED._replace(uid=i)))  # type: ignore[misc]
            for i in range(20)
        ]
        requests = [await peer.request(VnOp.GETATTR) for _ in asked]
        for header, (cred,) in reversed(requests):
            await peer.reply(header, (Vattr(vtype=Vtype.VDIR, uid=cred.uid), 0))
        for i, one in enumerate(asked):
            assert (await one.wait())[0].uid == i
        assert m.fs.statistics().in_flight == 0


async def test_a_cancelled_caller_sends_nothing() -> None:
    async with played() as (m, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await m.create(b"a")
        assert scope.cancelled_caught
        with trio.move_on_after(0):
            await peer.frame()
            raise AssertionError("something was sent")


@pytest.mark.parametrize("what", ["lookup", "create", "mkdir", "readdir", "fhtovp"])
async def test_a_late_answer_gives_its_nodes_back(what: str) -> None:
    calls: dict[str, Any] = {
        "lookup": lambda m: m.fs.lookup(m.root, lookup_cn(b"a", CRED)),
        "create": lambda m: m.fs.create(m.root, lookup_cn(b"a", CRED), FILE),
        "mkdir": lambda m: m.fs.mkdir(m.root, lookup_cn(b"a", CRED), DIRECTORY),
        "readdir": lambda m: m.fs.readdir(m.root, 0, 4096, 1, CRED),
        "fhtovp": lambda m: m.fs.fhtovp(b"handle"),
    }
    info = Newinfo(Cookie(5), Vtype.VREG)
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: calls[what](m))
        header, _ = await peer.request()
        asked.scope.cancel()
        await asked.done.wait()
        assert m.fs.statistics().in_flight == 1
        if what == "readdir":
            dots = [Dirent(1, Vtype.VDIR, b".", 1), Dirent(2, Vtype.VREG, b"a", 2, info)]
            await peer.reply(header, (dots, True))
        else:
            await peer.reply(header, info)
        reclaim, args = await peer.request(VnOp.RECLAIM)
        assert (reclaim.cookie, args) == (5, (1,))
        assert m.fs.statistics().in_flight == 0


async def test_a_late_error_or_root_is_thrown_away() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        for answer in (errno.ENOENT, Newinfo(Cookie(0), 0), Newinfo(ROOT_COOKIE, Vtype.VDIR)):
            asked = Asked(nursery, lambda: m.lookup(b"a"))
            header, _ = await peer.request(VnOp.LOOKUP)
            asked.scope.cancel()
            await asked.done.wait()
            if isinstance(answer, int):
                await peer.send(encode_error(OpClass.VN, VnOp.LOOKUP, header.id, 1, answer))
            else:
                await peer.reply(header, answer)
        await m.settle()
        with trio.move_on_after(0):
            await peer.frame()
            raise AssertionError("something was given back")


async def test_a_late_open_is_closed() -> None:
    async with mounted("socket") as m, trio.open_nursery() as nursery:
        vp = await m.create(b"a")
        gate = m.server.gate("open")
        asked = Asked(nursery, lambda: m.fs.open(vp, FREAD, CRED))
        await m.server.entered["open"].wait()
        asked.scope.cancel()
        await asked.done.wait()
        gate.set()
        await m.settle()
        assert m.server.calls[-2:] == ["open", "close"]
        m.server.check_opens()
        await m.give_up(vp)


async def test_cancellation_of_a_nested_call_reaches_the_server() -> None:
    async with mounted("direct") as m, trio.open_nursery() as nursery:
        m.server.gate("lookup")
        asked = Asked(nursery, lambda: m.lookup(b"a"))
        await m.server.entered["lookup"].wait()
        assert m.fs.statistics().in_flight == 1
        asked.scope.cancel()
        await asked.done.wait()
        assert asked.error is None
        assert asked.result is None
        assert m.fs.statistics().in_flight == 0


async def test_what_is_not_written_yet_is_withdrawn() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        vp = await _a_file(m, peer)
        # Nobody reads at the other end: the first write fills the socket, the others queue.
        putter = shrink(m)
        writes = []
        for i in range(5):
            writes.append(
                Asked(nursery, lambda i=i: m.fs.write(vp, i, HUGE, 0, CRED))  # type: ignore[misc]
            )
            await m.settle()  # in this order: the scheduler shuffles what is ready
        assert putter.queued == 5
        # The first is partly written and has to go on, from memory of its own.
        for i in (0, 3):
            writes[i].scope.cancel()
            await writes[i].done.wait()
        assert m.fs.statistics().withdrawn == 1
        offsets = []
        for _ in range(4):
            header, args = await peer.request(VnOp.WRITE)
            assert args[1] == HUGE
            offsets.append(args[0])
            await peer.reply(header, None)
        assert offsets == [0, 1, 2, 4]
        for i in (1, 2, 4):
            await writes[i].wait()
        assert m.fs.statistics().in_flight == 0
        await m.give_up(vp)


async def test_a_cancelled_writer_may_reuse_its_memory() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        vp = await _a_file(m, peer)
        data = bytearray(HUGE)
        shrink(m)
        asked = Asked(nursery, lambda: m.fs.write(vp, 0, data, 0, CRED))
        await m.settle()
        asked.scope.cancel()
        await asked.done.wait()
        data[:] = b"\xff" * len(data)
        _, args = await peer.request(VnOp.WRITE)
        assert args[1] == HUGE
        await m.give_up(vp)


async def test_the_queue_has_a_bound_and_callers_wait() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        vp = await _a_file(m, peer)
        putter = shrink(m)
        total = BACKLOG + 10
        data = bytes(100_000)
        writes = [
            Asked(nursery, lambda i=i: m.fs.write(vp, i, data, 0, CRED))  # type: ignore[misc]
            for i in range(total)
        ]
        await m.settle()
        assert putter.queued == BACKLOG
        assert m.fs.statistics().in_flight < total
        # What cannot wait passes the bound.
        m.fs.close(vp, FREAD, CRED)
        assert putter.queued == BACKLOG + 1
        for _ in range(total + 1):
            header, _ = decode_request(await peer.frame())
            if header.optype == VnOp.WRITE:
                await peer.reply(header, None)
        for one in writes:
            await one.wait()
        await m.give_up(vp)


async def test_requests_in_flight_have_a_bound() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        total = MAX_IN_FLIGHT + 7
        asked = [Asked(nursery, lambda: m.fs.getattr(m.root, CRED)) for _ in range(total)]
        await m.settle()
        assert m.fs.statistics().in_flight == MAX_IN_FLIGHT
        first, _ = await peer.request(VnOp.GETATTR)
        # An unmount is not held up by it.
        unmount = Asked(nursery, lambda: m.fs.unmount(0))
        headers = [first]
        while True:
            header, _ = await peer.request()
            if header.opclass == OpClass.VFS:
                assert header.optype == VfsOp.UNMOUNT
                await peer.send(encode_error(OpClass.VFS, VfsOp.UNMOUNT, header.id, 0, 16))
                break
            headers.append(header)
        with pytest.raises(VfsError):
            await unmount.wait()
        assert len(headers) == MAX_IN_FLIGHT
        for header in headers:
            await peer.reply(header, (Vattr(vtype=Vtype.VDIR), 0))
        for _ in range(7):
            header, _ = await peer.request(VnOp.GETATTR)
            await peer.reply(header, (Vattr(vtype=Vtype.VDIR), 0))
        for one in asked:
            await one.wait()


async def test_abandoned_requests_count_as_in_flight() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = [Asked(nursery, lambda: m.lookup(b"a")) for _ in range(MAX_IN_FLIGHT)]
        await m.settle()
        for one in asked:
            one.scope.cancel()
        await m.settle()
        assert m.fs.statistics().in_flight == MAX_IN_FLIGHT
        waiting = Asked(nursery, lambda: m.lookup(b"b"))
        await m.settle()
        header, _ = await peer.request(VnOp.LOOKUP)
        await peer.reply(header, Newinfo(Cookie(0), 0))
        await m.settle()
        assert not waiting.done.is_set()
        waiting.scope.cancel()


async def test_the_death_of_the_server_ends_everybody_at_once() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        vp = await _a_file(m, peer)
        asked = [Asked(nursery, lambda: m.fs.getattr(m.root, CRED)) for _ in range(3)]
        asked += [Asked(nursery, lambda: m.fs.write(vp, 0, HUGE, 0, CRED)) for _ in range(3)]
        asked += [Asked(nursery, lambda: m.fs.statvfs()) for _ in range(MAX_IN_FLIGHT)]
        await m.settle()
        peer.close()
        with trio.fail_after(1):
            for one in asked:
                with pytest.raises(VfsError) as caught:
                    await one.wait()
                assert caught.value.errno == errno.ENXIO
        for call in (m.fs.getattr(m.root, CRED), m.fs.statvfs(), m.fs.sync(1, CRED)):
            with pytest.raises(VfsError) as caught:
                await call
            assert caught.value.errno == errno.ENXIO
        m.fs.close(vp, FREAD, CRED)
        await m.give_up(vp)
        # The mount above can still be unmounted, without asking anybody.
        await m.kernel.unmount(m.mount)
        assert not m.mount.is_alive


async def test_a_server_that_ends_without_an_unmount() -> None:
    """The same with a real server half, whose task is cancelled in the middle of operations."""
    async with trio.open_nursery() as nursery:
        async with mounted("socket") as m:
            vp = await m.create(b"a")
            m.server.gate("read")
            asked = Asked(nursery, lambda: m.fs.read(vp, 0, 1, 0, CRED))
            await m.server.entered["read"].wait()
            touser: Any = m.fs.touser
            touser._putter.fail(EOFError())
            with pytest.raises(VfsError) as caught:
                await asked.wait()
            assert caught.value.errno == errno.ENXIO
            await m.give_up(vp)
            await m.kernel.unmount(m.mount)


async def test_many_callers_over_one_socket() -> None:
    """Random sizes both ways, more than the socket holds, and nothing gets mixed up."""
    server = MemServer(maxmsglen=1 << 20)
    async with mounted("socket", server) as m:
        files = [await m.create(b"%d" % i) for i in range(8)]

        async def work(i: int) -> None:
            vp = files[i]
            for round in range(12):
                size = (i * 7919 + round * 104729) % 400_000
                data = bytes([i * 16 + round]) * size
                await m.fs.write(vp, 0, data, 0, CRED)
                assert bytes(await m.fs.read(vp, 0, size, 0, CRED)) == data
                va, _ = await m.fs.getattr(vp, CRED)
                assert va.size == vp.size

        async with trio.open_nursery() as nursery:
            for i in range(len(files)):
                nursery.start_soon(work, i)
        await m.give_up(*files)
        server.check_given_back()


async def _a_file(m: Any, peer: Any) -> Any:
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.lookup(b"file"))
        header, _ = await peer.request(VnOp.LOOKUP)
        await peer.reply(header, Newinfo(Cookie(5), Vtype.VREG))
    return asked.result
