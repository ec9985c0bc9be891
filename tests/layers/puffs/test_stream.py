"""The workers behind a putter: who reads, when another takes over, and how serving ends."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from syspuffs.layers.puffs import StreamServer, puffs_over_socket, serve
from syspuffs.layers.puffs.putter import Putter
from syspuffs.layers.puffs.stream import MAX_WORKERS
from syspuffs.layers.puffs.touser import MAX_IN_FLIGHT
from syspuffs.native.constants import MNT_FORCE, FlushOp, OpClass, VfsOp, VnOp
from syspuffs.native.errors import VfsError
from syspuffs.native.frames import decode_reply, encode_request
from syspuffs.native.records import Cookie

from .harness import CRED, Peer
from .memserver import MemServer

pytestmark = pytest.mark.logs("the kernel half is lost")


class Served:
    """A stream server under a peer that plays the kernel half."""

    def __init__(self, server: MemServer, stream: StreamServer, peer: Peer) -> None:
        self.server = server
        self.stream: Any = stream
        self.peer = peer
        self.ended = trio.Event()
        self.id = 0

    async def ask(self, op: int = VnOp.GETATTR, args: Any = (CRED,)) -> int:
        self.id += 1
        await self.peer.send(encode_request(OpClass.VN, op, self.id, self.server.root.cookie, args))
        return self.id

    async def answer(self) -> tuple[int, int]:
        header, _ = decode_reply(await self.peer.frame())
        return header.id, header.rv


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    ours, theirs = socket.socketpair()
    server = MemServer()
    s = Served(server, StreamServer(server, Putter.of_socket(theirs)), Peer(ours))

    async def run() -> None:
        await s.stream.serve()
        s.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield s
        finally:
            s.peer.close()


async def test_one_worker_serves_what_need_not_wait() -> None:
    async with served() as s:
        for _ in range(10):
            await s.ask()
        assert [await s.answer() for _ in range(10)] == [(i, 0) for i in range(1, 11)]
        assert s.stream._workers == 1


async def test_another_worker_reads_while_one_waits_and_is_kept() -> None:
    async with served() as s:
        gate = s.server.gate("getattr")
        for _ in range(5):
            await s.ask()
        await s.ask(VnOp.ACCESS, (4, CRED))
        assert await s.answer() == (6, 0)
        assert s.stream._workers == 6
        gate.set()
        assert sorted([await s.answer() for _ in range(5)]) == [(i, 0) for i in range(1, 6)]
        await trio.testing.wait_all_tasks_blocked()
        assert len(s.stream._idle) == 5
        s.server.gates.clear()
        gate = s.server.gate("seek")
        for _ in range(3):
            await s.ask(VnOp.SEEK, (0, 0, CRED))
        await trio.testing.wait_all_tasks_blocked()
        assert s.stream._workers == 6, "idle ones are used first"
        gate.set()
        for _ in range(3):
            await s.answer()


async def test_idle_workers_do_not_pile_up() -> None:
    async with served() as s:
        gate = s.server.gate("getattr")
        for _ in range(60):
            await s.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert s.stream._workers == 61
        gate.set()
        for _ in range(60):
            await s.answer()
        await trio.testing.wait_all_tasks_blocked()
        assert s.stream._workers == 17


async def test_workers_have_a_bound_and_the_reading_goes_on_after_it() -> None:
    async with served() as s:
        gate = s.server.gate("getattr")
        total = MAX_WORKERS + 20
        for _ in range(total):
            await s.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert s.stream._workers == MAX_WORKERS
        assert s.server.counts()["getattr"] == MAX_WORKERS
        gate.set()
        answers = {await s.answer() for _ in range(total)}
        assert answers == {(i, 0) for i in range(1, total + 1)}


async def test_all_requests_that_a_kernel_half_may_send_leave_a_reader() -> None:
    async with served() as s:
        s.server.gate("getattr")
        for _ in range(MAX_IN_FLIGHT):
            await s.ask()
        await s.peer.send(encode_request(OpClass.VFS, VfsOp.UNMOUNT, 999, 0, (0,)))
        assert await s.answer() == (999, 0)
        await s.ended.wait()
        assert s.server.unmounted == [0]


async def test_an_unmount_ends_the_serving() -> None:
    async with served() as s:
        await s.peer.send(encode_request(OpClass.VFS, VfsOp.UNMOUNT, 1, 0, (0,)))
        assert await s.answer() == (1, 0)
        with pytest.raises(EOFError):
            await s.peer.frame()
        await s.ended.wait()
        assert s.server.unmounted == [0]


async def test_a_veto_does_not() -> None:
    async with served() as s:
        s.server.veto = VfsError(errno.EBUSY)
        await s.peer.send(encode_request(OpClass.VFS, VfsOp.UNMOUNT, 1, 0, (0,)))
        assert await s.answer() == (1, errno.EBUSY)
        await s.ask()
        assert await s.answer() == (1, 0)
        s.server.veto = None


async def test_a_veto_against_force_is_void() -> None:
    async with served() as s:
        s.server.veto = VfsError(errno.EBUSY)
        await s.peer.send(encode_request(OpClass.VFS, VfsOp.UNMOUNT, 1, 0, (MNT_FORCE,)))
        assert await s.answer() == (1, errno.EBUSY)
        await s.ended.wait()
        assert s.server.counts()["unmount"] == 1


async def test_the_end_of_the_stream_cancels_and_unmounts_by_force() -> None:
    async with served() as s:
        s.server.gate("getattr")
        await s.ask()
        await s.server.entered["getattr"].wait()
        s.peer.close()
        await s.ended.wait()
        assert s.server.unmounted == [MNT_FORCE]


async def test_an_answer_that_does_not_fit_holds_back_its_worker_only() -> None:
    async with served() as s:
        node = s.server.root
        node.data.extend(bytes(1 << 20))
        putter = s.stream._putter
        for _ in range(80):
            await s.ask(VnOp.READ, (0, 1 << 20, 0, CRED))
        await trio.testing.wait_all_tasks_blocked()
        assert putter.full
        assert s.stream._workers > 1
        got = {await s.answer() for _ in range(80)}
        assert got == {(i, 0) for i in range(1, 81)}


async def test_cancelling_serve_passes() -> None:
    ours, theirs = socket.socketpair()
    server = MemServer()
    with ours:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, server, theirs)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert server.unmounted == []


async def test_upcalls_to_nobody() -> None:
    async with served() as s:
        await trio.testing.wait_all_tasks_blocked()
        s.peer.close()
        await s.ended.wait()
        with pytest.raises(VfsError) as caught:
            await s.stream.flush(FlushOp.INVAL_NAMECACHE_ALL, Cookie(0))
        assert caught.value.errno == errno.ENXIO
        s.stream.unmount()


async def test_the_exception_of_the_body_comes_out_bare() -> None:
    ours, theirs = socket.socketpair()

    async def body() -> None:
        async with puffs_over_socket(ours, MemServer().kargs):
            raise ZeroDivisionError

    with theirs, pytest.raises(ZeroDivisionError):
        await body()
