"""Flushes and unmount requests of a server, all the way up to the mount's client and back."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
import trio.testing

from syspuffs.layers.puffs.fromserver import MAX_FLUSHES
from syspuffs.native.constants import ID_FROM_SERVER, FlushOp, OpClass, VnOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.frames import decode_reply, encode_reply, encode_request
from syspuffs.native.records import Cookie, Newinfo

from .harness import CRED, DEATH, Asked, Client, mounted, played

pytestmark = pytest.mark.logs(DEATH)
both = pytest.mark.parametrize("way", ["direct", "socket"])


@both
async def test_a_flush_goes_up_and_comes_back_when_it_is_done(way: str) -> None:
    async with mounted(way) as m, trio.open_nursery() as nursery:
        client = Client()
        m.mount.set_client(client)
        vp = await m.create(b"a")
        cookie = vp.data.cookie
        upcalls: Any = m.server.upcalls
        await upcalls.flush(FlushOp.INVAL_PAGECACHE_NODE_RANGE, cookie, 4096, 8192)
        await upcalls.flush(FlushOp.FLUSH_PAGECACHE_NODE_RANGE, cookie, 1)
        await upcalls.flush(FlushOp.INVAL_ATTR_NODE, cookie)
        await upcalls.flush(FlushOp.INVAL_NAMECACHE_NODE, cookie)
        root = m.root.data.cookie
        await upcalls.flush(FlushOp.INVAL_NAMECACHE_DIR, root)
        await upcalls.flush(FlushOp.INVAL_NAMECACHE_NAME, root, name=b"a")
        await upcalls.flush(FlushOp.INVAL_NAMECACHE_ALL, Cookie(0))
        assert client.flushes == [
            (FlushOp.INVAL_PAGECACHE_NODE_RANGE, cookie, 4096, 8192, b""),
            (FlushOp.FLUSH_PAGECACHE_NODE_RANGE, cookie, 1, 0, b""),
            (FlushOp.INVAL_ATTR_NODE, cookie, 0, 0, b""),
            (FlushOp.INVAL_NAMECACHE_NODE, cookie, 0, 0, b""),
            (FlushOp.INVAL_NAMECACHE_DIR, root, 0, 0, b""),
            (FlushOp.INVAL_NAMECACHE_NAME, root, 0, 0, b"a"),
            (FlushOp.INVAL_NAMECACHE_ALL, None, 0, 0, b""),
        ]
        client.gate = trio.Event()
        asked = Asked(nursery, lambda: upcalls.flush(FlushOp.INVAL_ATTR_NODE, cookie))
        await m.settle()
        assert not asked.done.is_set(), "it is done when the caches above are done"
        # Meanwhile operations go on.
        await m.fs.getattr(vp, CRED)
        client.gate.set()
        await asked.wait()
        await m.give_up(vp)


@both
async def test_flushes_that_make_no_sense(way: str) -> None:
    async with mounted(way) as m:
        m.mount.set_client(Client())
        vp = await m.create(b"a")
        root, cookie = m.root.data.cookie, vp.data.cookie
        upcalls: Any = m.server.upcalls
        for args in (
            (FlushOp.INVAL_PAGECACHE_NODE_RANGE, root),
            (FlushOp.FLUSH_PAGECACHE_NODE_RANGE, root),
            (FlushOp.INVAL_NAMECACHE_DIR, cookie),
            (FlushOp.INVAL_NAMECACHE_NAME, cookie, 0, 0, b"x"),
            (FlushOp.INVAL_NAMECACHE_NAME, root),
            (FlushOp.INVAL_NAMECACHE_DIR, root, 0, 0, b"x"),
            (FlushOp.INVAL_PAGECACHE_NODE_RANGE, cookie, 8192, 4096),
            (FlushOp.INVAL_PAGECACHE_NODE_RANGE, cookie, 4096, 4096),
        ):
            with pytest.raises(VfsError) as caught:
                await upcalls.flush(*args)
            assert caught.value.errno == errno.EINVAL, args
        # The kernel may have forgotten a node that the server still knows.
        await upcalls.flush(FlushOp.INVAL_ATTR_NODE, Cookie(4711))
        await m.give_up(vp)
        await upcalls.flush(FlushOp.INVAL_ATTR_NODE, cookie)


@both
async def test_an_error_of_the_caches_comes_back(way: str) -> None:
    async with mounted(way) as m:
        client = Client()
        client.error = VfsError(errno.EIO)
        m.mount.set_client(client)
        upcalls: Any = m.server.upcalls
        with pytest.raises(VfsError) as caught:
            await upcalls.flush(FlushOp.INVAL_ATTR_NODE, m.root.data.cookie)
        assert caught.value.errno == errno.EIO


@both
@pytest.mark.logs("failed by a bug")
async def test_a_bug_above_is_eio(way: str) -> None:
    async with mounted(way) as m:
        client = Client()
        client.error = ZeroDivisionError()
        m.mount.set_client(client)
        upcalls: Any = m.server.upcalls
        with pytest.raises(VfsError) as caught:
            await upcalls.flush(FlushOp.INVAL_ATTR_NODE, m.root.data.cookie)
        assert caught.value.errno == errno.EIO
        await m.fs.getattr(m.root, CRED)


@both
async def test_a_flush_keeps_no_reference(way: str) -> None:
    async with mounted(way) as m:
        m.mount.set_client(Client())
        vp = await m.create(b"a")
        upcalls: Any = m.server.upcalls
        await upcalls.flush(FlushOp.INVAL_ATTR_NODE, vp.data.cookie)
        assert vp.usecount == 1
        await m.give_up(vp)
        assert vp.is_dead


@both
async def test_the_server_asks_to_be_unmounted(way: str) -> None:
    async with mounted(way) as m:
        client = Client()
        m.mount.set_client(client)
        upcalls: Any = m.server.upcalls
        upcalls.unmount()
        await m.settle()
        assert client.unmount_requests == 1


async def test_a_flush_does_not_overtake_the_reply_before_it() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        client = Client()
        m.mount.set_client(client)
        for round in range(20):  # the scheduler shuffles what is ready
            asked = Asked(nursery, lambda: m.lookup(b"a"))
            header, _ = await peer.request(VnOp.LOOKUP)
            cookie = Cookie(100 + round)
            reply = encode_reply(OpClass.VN, VnOp.LOOKUP, header.id, 1, Newinfo(cookie, Vtype.VREG))
            op = FlushOp.INVAL_ATTR_NODE
            flush = encode_request(OpClass.FLUSH, op, ID_FROM_SERVER | round, cookie, (0, 0, b""))
            await peer.send(reply + flush)
            answer, _ = decode_reply(await peer.frame())
            assert answer.rv == 0
            await m.give_up(await asked.wait())
            await peer.request(VnOp.RECLAIM)
        assert len(client.flushes) == 20


async def test_an_unmount_request_is_answered_first() -> None:
    async with played() as (m, peer):
        client = Client()
        m.mount.set_client(client)
        await peer.send(encode_request(OpClass.UNMOUNT, 0, ID_FROM_SERVER | 9, 0, ()))
        answer, _ = decode_reply(await peer.frame())
        assert (answer.id, answer.rv, client.unmount_requests) == (ID_FROM_SERVER | 9, 0, 1)


async def test_the_death_of_the_server_asks_for_no_unmount() -> None:
    async with played() as (m, peer):
        client = Client()
        m.mount.set_client(client)
        peer.close()
        await m.settle()
        assert client.unmount_requests == 0


async def test_flushes_have_a_bound() -> None:
    async with played() as (m, peer):
        client = Client()
        client.gate = trio.Event()
        m.mount.set_client(client)
        for i in range(MAX_FLUSHES + 1):
            await peer.send(
                encode_request(OpClass.FLUSH, FlushOp.INVAL_NAMECACHE_ALL, i, 0, (0, 0, b""))
            )
        answer, _ = decode_reply(await peer.frame())
        assert (answer.id, answer.rv) == (MAX_FLUSHES, errno.EAGAIN)
        client.gate.set()
        for _ in range(MAX_FLUSHES):
            answer, _ = decode_reply(await peer.frame())
            assert answer.rv == 0


async def test_a_flush_ends_when_the_kernel_half_goes() -> None:
    async with trio.open_nursery() as nursery:
        async with mounted("socket") as m:
            client = Client()
            client.gate = trio.Event()
            m.mount.set_client(client)
            upcalls: Any = m.server.upcalls
            asked = Asked(nursery, lambda: upcalls.flush(FlushOp.INVAL_NAMECACHE_ALL, Cookie(0)))
            await m.settle()
            await m.kernel.unmount(m.mount)
            with pytest.raises(VfsError) as caught:
                await asked.wait()
            assert caught.value.errno == errno.ENXIO
