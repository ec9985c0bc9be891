"""A server that breaks the protocol: EPROTO and an error note, or the end of the connection.

Also the reverse, a kernel half that sends what is no request.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.emul.vnode import vrele
from syspuffs.layers.puffs import PuffsFs, StreamServer
from syspuffs.layers.puffs.putter import Putter
from syspuffs.native.constants import (
    FLAG_FAF,
    FLAG_RESPONSE,
    ID_FROM_SERVER,
    MNT_FORCE,
    ErrorNote,
    OpClass,
    VfsOp,
    VnOp,
    Vtype,
)
from syspuffs.native.errors import LocalProtocolError, RemoteProtocolError, VfsError
from syspuffs.native.frames import (
    decode_header,
    decode_reply,
    encode_error,
    encode_reply,
    encode_request,
)
from syspuffs.native.records import Cookie, Dirent, Newinfo, Vattr, lookup_cn

from ...support.logs import LogWatch
from .harness import CRED, DEATH, ROOT_COOKIE, Asked, Mounted, Peer, mounted, played
from .memserver import MemServer

pytestmark = pytest.mark.logs(DEATH, "broke the protocol")
VN = int(OpClass.VN)


async def eproto(asked: Asked) -> None:
    with pytest.raises(VfsError) as caught:
        await asked.wait()
    assert caught.value.errno == errno.EPROTO


async def given_back(peer: Peer) -> tuple[int, int]:
    """Return (cookie, lookups) of the next frame, a RECLAIM."""
    header, args = await peer.request(VnOp.RECLAIM)
    return header.cookie, args[0]


async def a_file(m: Mounted, peer: Peer, cookie: int = 5) -> Any:
    """Return a vnode whose cookie is `cookie`."""
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.lookup(b"file"))
        header, _ = await peer.request(VnOp.LOOKUP)
        await peer.reply(header, Newinfo(Cookie(cookie), Vtype.VREG))
    return asked.result


async def still_works(m: Mounted, peer: Peer) -> None:
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.getattr(m.root, CRED))
        header, _ = await peer.request(VnOp.GETATTR)
        await peer.reply(header, (Vattr(vtype=Vtype.VDIR), 0))
        await asked.wait()


async def test_lookup_of_the_directory_itself() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.lookup(b"a"))
        header, _ = await peer.request(VnOp.LOOKUP)
        await peer.reply(header, Newinfo(ROOT_COOKIE, Vtype.VDIR))
        await eproto(asked)
        assert (await peer.note())[:2] == (ErrorNote.LOOKUP, ROOT_COOKIE)
        await still_works(m, peer)
        assert m.fs.statistics().notes == 1


@pytest.mark.parametrize("cookie", [5, ROOT_COOKIE])
@pytest.mark.parametrize("op", ["create", "mkdir", "mknod", "symlink"])
async def test_a_new_node_with_the_cookie_of_an_old_one(op: str, cookie: int) -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        old = await a_file(m, peer)
        cn = lookup_cn(b"b", CRED)
        va = Vattr(vtype=Vtype.VFIFO, mode=0)
        call = getattr(m.fs, op)
        args = (m.root, cn, va, b"x") if op == "symlink" else (m.root, cn, va)
        asked = Asked(nursery, lambda: call(*args))
        header, _ = await peer.request(VnOp[op.upper()])
        await peer.reply(header, Newinfo(Cookie(cookie), Vtype.VREG))
        await eproto(asked)
        assert (await peer.note())[:2] == (ErrorNote.MAKENODE, cookie)
        await m.give_up(old)
        # The lookup of the answer counted, too, and goes back with the first one.
        assert await given_back(peer) == (5, 2 if cookie == 5 else 1)


async def test_a_new_node_of_the_wrong_type() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.mkdir(b"d"))
        header, _ = await peer.request(VnOp.MKDIR)
        await peer.reply(header, Newinfo(Cookie(9), Vtype.VREG))
        await eproto(asked)
        assert await given_back(peer) == (9, 1)
        assert (await peer.note())[:2] == (ErrorNote.MAKENODE, 9)


async def test_a_new_node_without_a_cookie_is_eopnotsupp() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.create(b"d"))
        header, _ = await peer.request(VnOp.CREATE)
        await peer.reply(header, Newinfo(Cookie(0), 0))
        with pytest.raises(VfsError) as caught:
            await asked.wait()
        assert caught.value.errno == errno.EOPNOTSUPP


async def test_a_live_node_that_changes_its_type() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        old = await a_file(m, peer)
        asked = Asked(nursery, lambda: m.lookup(b"b"))
        header, _ = await peer.request(VnOp.LOOKUP)
        await peer.reply(header, Newinfo(Cookie(5), Vtype.VDIR))
        await eproto(asked)
        assert (await peer.note())[0] == ErrorNote.LOOKUP
        await m.give_up(old)
        assert await given_back(peer) == (5, 2)


@pytest.mark.parametrize("vtype", [Vtype.VNON, Vtype.VBAD, 200])
async def test_a_node_of_no_type(vtype: int) -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.lookup(b"a"))
        header, _ = await peer.request(VnOp.LOOKUP)
        frame = bytearray(
            encode_reply(VN, VnOp.LOOKUP, header.id, header.cookie, Newinfo(Cookie(5), 1))
        )
        frame[56:60] = vtype.to_bytes(4, "little")
        await peer.send(frame)
        await eproto(asked)
        assert (await peer.note())[0] == ErrorNote.LOOKUP
        await still_works(m, peer)


async def test_more_read_than_asked_for() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        vp = await a_file(m, peer)
        asked = Asked(nursery, lambda: m.fs.read(vp, 0, 4, 0, CRED))
        header, _ = await peer.request(VnOp.READ)
        await peer.send(encode_reply(VN, VnOp.READ, header.id, 5, b"12345") + b"12345")
        await eproto(asked)
        assert (await peer.note())[:2] == (ErrorNote.READ, 5)
        await m.give_up(vp)


async def test_more_entries_than_asked_for() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.readdir(m.root, 0, 60, 1, CRED))
        header, _ = await peer.request(VnOp.READDIR)
        entries = [
            Dirent(i, 1, b"%d" % i, i + 1, Newinfo(Cookie(100 + i), Vtype.VREG)) for i in range(3)
        ]
        await peer.reply(header, (entries, False))
        await eproto(asked)
        assert {(await given_back(peer))[0] for _ in range(3)} == {100, 101, 102}
        assert (await peer.note())[0] == ErrorNote.READDIR
        assert m.fs.statistics().given_back == 3


async def test_one_bad_entry_spoils_the_listing_and_leaks_nothing() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.readdir(m.root, 0, 4096, 1, CRED))
        header, _ = await peer.request(VnOp.READDIR)
        cookies = [100, ROOT_COOKIE, 101]
        entries = [
            Dirent(i, 1, b"%d" % i, i + 1, Newinfo(Cookie(cookie), Vtype.VREG))
            for i, cookie in enumerate(cookies)
        ]
        await peer.reply(header, (entries, True))
        await eproto(asked)
        await m.give_up()
        assert (await peer.note())[:2] == (ErrorNote.READDIR, ROOT_COOKIE)
        assert {await given_back(peer), await given_back(peer)} == {(100, 1), (101, 1)}


async def test_an_empty_listing_is_the_end() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.readdir(m.root, 0, 4096, 1, CRED))
        header, _ = await peer.request(VnOp.READDIR)
        await peer.reply(header, ((), False))
        assert await asked.wait() == ([], True)


@pytest.mark.parametrize("rv", [4096, 2**31, 2**32 - 1])
async def test_an_error_number_out_of_range(rv: int) -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.getattr(m.root, CRED))
        header, _ = await peer.request(VnOp.GETATTR)
        frame = bytearray(encode_error(VN, VnOp.GETATTR, header.id, header.cookie, 5))
        frame[24:28] = rv.to_bytes(4, "little")
        await peer.send(frame)
        await eproto(asked)
        assert (await peer.note())[0] == ErrorNote.ERROR
        await still_works(m, peer)


async def test_the_reply_to_another_operation() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.getattr(m.root, CRED))
        header, _ = await peer.request(VnOp.GETATTR)
        await peer.send(encode_reply(VN, VnOp.ACCESS, header.id, header.cookie, None))
        await eproto(asked)
        assert (await peer.note())[0] == ErrorNote.ERROR


async def test_unknown_ids_are_dropped_and_counted() -> None:
    async with played() as (m, peer):
        for id in (0, 999, 2**62):
            await peer.send(encode_reply(VN, VnOp.ACCESS, id, 1, None))
        await still_works(m, peer)
        assert m.fs.statistics().unknown == 3


async def test_a_reply_comes_twice() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.getattr(m.root, CRED))
        header, _ = await peer.request(VnOp.GETATTR)
        for _ in range(2):
            await peer.reply(header, (Vattr(vtype=Vtype.VDIR), 0))
        await asked.wait()
        await still_works(m, peer)


@pytest.mark.parametrize(
    "octets",
    [b"\0" * 64, b"\xff" * 64, (47).to_bytes(4, "little") * 20, b"HTTP/1.1 200 OK\r\n\r\n"],
)
async def test_what_cannot_be_a_frame_ends_the_connection(octets: bytes) -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.getattr(m.root, CRED))
        await peer.request(VnOp.GETATTR)
        await peer.send(octets)
        with pytest.raises(VfsError) as caught:
            await asked.wait()
        assert caught.value.errno == errno.ENXIO
        await m.kernel.unmount(m.mount)


async def test_a_frame_that_ends_in_the_middle() -> None:
    async with played() as (m, peer), trio.open_nursery() as nursery:
        asked = Asked(nursery, lambda: m.fs.getattr(m.root, CRED))
        header, _ = await peer.request(VnOp.GETATTR)
        frame = encode_reply(VN, VnOp.GETATTR, header.id, 1, (Vattr(vtype=Vtype.VDIR), 0))
        await peer.send(frame[:-1])
        await m.settle()
        assert not asked.done.is_set()
        peer.close()
        with pytest.raises(VfsError) as caught:
            await asked.wait()
        assert caught.value.errno == errno.ENXIO


async def test_requests_that_no_server_may_make() -> None:
    async with played() as (m, peer):
        await peer.send(encode_request(VN, VnOp.GETATTR, ID_FROM_SERVER | 1, 1, (CRED,)))
        reply, _ = decode_reply(await peer.frame())
        assert (reply.id, reply.rv) == (ID_FROM_SERVER | 1, errno.EOPNOTSUPP)
        bad = bytearray(encode_request(OpClass.FLUSH, 1, ID_FROM_SERVER | 2, 1, (0, 0, b"")))
        bad[6:8] = (99).to_bytes(2, "little")
        await peer.send(bad)
        reply, _ = decode_reply(await peer.frame())
        assert (reply.id, reply.rv) == (ID_FROM_SERVER | 2, errno.EINVAL)
        await still_works(m, peer)


async def test_a_flush_that_says_nobody_s_name_ends_the_connection() -> None:
    async with played() as (m, peer):
        bad = bytearray(encode_request(OpClass.FLUSH, 1, ID_FROM_SERVER | 2, 1, (0, 0, b"")))
        bad[23] = 0xFF  # of the cookie
        await peer.send(bad)
        await m.settle()
        with pytest.raises(VfsError) as caught:
            await m.fs.statvfs()
        assert caught.value.errno == errno.ENXIO


def _corrupted(data: st.DataObject, frame: bytes) -> bytes:
    """Return `frame` with some octets changed, all but its length and id."""
    octets = bytearray(frame)
    places = [i for i in range(len(octets)) if not (i < 4 or 8 <= i < 16)]
    for i in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6)):
        octets[i] = data.draw(st.integers(0, 255))
    return bytes(octets)


@settings(max_examples=30)
@given(st.data())
async def test_no_corrupted_reply_kills_the_mount(data: st.DataObject) -> None:
    async with played() as (m, peer):
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                asked = Asked(nursery, lambda: m.lookup(b"a"))
                header, _ = await peer.request(VnOp.LOOKUP)
                va = Vattr(*range(1, 18))._replace(vtype=Vtype.VREG)
                frame = encode_reply(
                    *(VN, VnOp.LOOKUP, header.id, header.cookie),
                    Newinfo(Cookie(7), Vtype.VREG, 3, 4, va, 5, 6),
                )
                frame = _corrupted(data, frame)
                await peer.send(frame)
                if decode_header_or_none(frame) is None or frame[4] & FLAG_RESPONSE:
                    await m.settle()
                asked.scope.cancel()
            if isinstance(asked.error, Exception):
                assert isinstance(asked.error, (VfsError, AssertionError)), asked.error
            if asked.result is not None:
                await vrele(asked.result)
            # Whatever the kernel half made of it, it goes on, or it is clearly over.
            async with trio.open_nursery() as nursery:
                asked = Asked(nursery, m.fs.statvfs)
                await m.settle()
                if asked.done.is_set():
                    assert isinstance(asked.error, VfsError)
                    assert asked.error.errno == errno.ENXIO
                    return
                header = decode_header(await peer.frame())
                while (header.opclass, header.optype) != (OpClass.VFS, VfsOp.STATVFS):
                    header = decode_header(await peer.frame())
                await peer.send(encode_error(OpClass.VFS, VfsOp.STATVFS, header.id, 0, 5))
                await asked.done.wait()


def decode_header_or_none(frame: bytes) -> Any:
    try:
        return decode_header(frame)
    except RemoteProtocolError:
        return None


async def test_a_bug_in_a_note_or_close_harms_nobody(log_watch: LogWatch) -> None:
    log_watch.expect("failed by a bug")
    for way in ("direct", "socket"):
        async with mounted(way) as m:
            vp = await m.create(b"a")
            m.server.notes = None  # type: ignore[assignment]
            m.fs.violated(ErrorNote.READ, 5, "text")
            m.server.nodes[vp.data.cookie].opens = None  # type: ignore[assignment]
            m.fs.close(vp, 1, CRED)
            await m.settle()
            await m.fs.getattr(vp, CRED)
            m.server.nodes[vp.data.cookie].opens = Counter()
            await m.give_up(vp)
    assert len(log_watch.lines) == 6


async def test_a_server_s_errno_out_of_range_is_its_bug(log_watch: LogWatch) -> None:
    log_watch.expect("failed by a bug")
    async with mounted("direct") as m:
        m.server.veto = VfsError(0)
        with pytest.raises(VfsError) as caught:
            await m.kernel.unmount(m.mount)
        assert caught.value.errno == errno.EIO
        m.server.veto = None


async def test_kargs_that_no_kernel_half_takes() -> None:
    with pytest.raises(LocalProtocolError):
        PuffsFs(MemServer(maxmsglen=100).kargs)


# The other side: a kernel half that misbehaves.


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[MemServer, StreamServer, Peer, trio.Event]]:
    ours, theirs = socket.socketpair()
    server = MemServer()
    stream = StreamServer(server, Putter.of_socket(theirs))
    ended = trio.Event()
    peer = Peer(ours)

    async def serve() -> None:
        await stream.serve()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            yield server, stream, peer, ended
        finally:
            peer.close()


@pytest.mark.logs("request refused|frame dropped|the kernel half is lost")
async def test_bad_requests_are_answered_and_the_server_lives() -> None:
    async with _serving() as (server, stream, peer, ended):
        root = server.root.cookie
        good = encode_request(VN, VnOp.LOOKUP, 7, root, (lookup_cn(b"abc", CRED),))
        with_slash = good.replace(b"abc", b"a/c")
        assert with_slash != good
        await peer.send(with_slash)
        reply, _ = decode_reply(await peer.frame())
        assert (reply.id, reply.rv) == (7, errno.EPROTO)
        unknown = bytearray(good)
        unknown[6:8] = (60).to_bytes(2, "little")
        await peer.send(unknown)
        reply, _ = decode_reply(await peer.frame())
        assert (reply.id, reply.rv) == (7, errno.EOPNOTSUPP)
        # A cookie that is none, in something that wants no reply.
        await peer.send(encode_request(VN, VnOp.RECLAIM, 0, 4711, (1,)))
        await peer.send(good)
        reply, _ = decode_reply(await peer.frame())
        assert reply.rv == 0
        assert stream.statistics().refused == 2
        peer.close()
        await ended.wait()
        assert server.unmounted == [MNT_FORCE]


@pytest.mark.logs("the kernel half is lost")
async def test_a_request_that_says_nobody_s_name_ends_the_connection() -> None:
    async with _serving() as (server, _, peer, ended):
        bad = bytearray(encode_request(VN, VnOp.GETATTR, 7, server.root.cookie, (CRED,)))
        bad[15] = 0xFF  # of the id
        await peer.send(bad)
        await ended.wait()
        assert server.unmounted == [MNT_FORCE]


async def test_what_only_a_server_may_ask_is_refused() -> None:
    async with _serving() as (server, _, peer, ended):
        for opclass, op, args in (
            (OpClass.FLUSH, VfsOp.UNMOUNT, (0, 0, b"")),  # FLUSH of the same number
            (OpClass.UNMOUNT, 0, ()),
        ):
            await peer.send(encode_request(opclass, op, 7, 0, args))
            reply, _ = decode_reply(await peer.frame())
            assert (reply.id, reply.rv) == (7, errno.EOPNOTSUPP)
        assert server.calls == []
        assert not ended.is_set()
        peer.close()
        await ended.wait()


async def test_whatever_comes_as_fire_and_forget_has_no_reply() -> None:
    async with _serving() as (server, _, peer, _ended):
        root = server.root.cookie
        for opclass, op, cookie, args in (
            (VN, VnOp.GETATTR, root, (CRED,)),
            (VN, VnOp.GETATTR, 4711, (CRED,)),
            (OpClass.VFS, VfsOp.SYNC, 0, (1, CRED)),
            (OpClass.VFS, VfsOp.VPTOFH, root, ()),
            (OpClass.FLUSH, 1, 0, (0, 0, b"")),
        ):
            await peer.send(encode_request(opclass | FLAG_FAF, op, 0, cookie, args))
        await peer.send(encode_request(OpClass.ERROR, 3, 0, 9, (71, b"b\xffd")))
        await peer.send(encode_request(OpClass.VFS, VfsOp.VPTOFH, 9, root, ()))
        reply, handle = decode_reply(await peer.frame())
        assert (reply.id, handle) == (9, b"%d" % root)
        assert server.calls == ["getattr", "getattr", "sync", "nodetofh", "nodetofh"]
        assert server.notes == [(3, 71, "b\ufffdd", 9)]
        await peer.send(encode_request(OpClass.VFS, VfsOp.EXTATTRCTL, 10, 0, (1, 2, b"x")))
        reply, _ = decode_reply(await peer.frame())
        assert (reply.id, reply.rv) == (10, 0)


@pytest.mark.logs("the kernel half is lost")
async def test_garbage_ends_the_serving_and_unmounts_by_force() -> None:
    async with _serving() as (server, _, peer, ended):
        await peer.send(b"\0" * 100)
        await ended.wait()
        assert server.unmounted == [MNT_FORCE]
        peer.close()


@pytest.mark.logs("request refused|frame dropped|the kernel half is lost|failed by a bug")
@settings(max_examples=30)
@given(st.data())
async def test_no_corrupted_request_kills_the_server(data: st.DataObject) -> None:
    async with _serving() as (server, _, peer, ended):
        octets = b""
        for id in range(1, 6):
            request = encode_request(
                *(VN, VnOp.CREATE, id, server.root.cookie),
                (lookup_cn(b"name", CRED), Vattr(vtype=1, mode=0o644)),
            )
            octets += _corrupted(data, request)
        octets += encode_request(OpClass.VFS, VfsOp.STATVFS, 99, 0, ())
        await peer.send(octets)
        try:
            while decode_header(await peer.frame()).id != 99:
                pass
            assert not ended.is_set()
        except (EOFError, ConnectionResetError):
            # Something did not even have a header that could be answered.
            await ended.wait()
            assert server.unmounted == [MNT_FORCE]
