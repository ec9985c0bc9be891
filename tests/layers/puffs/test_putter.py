"""The putter: frames cut out of a stream however it is chopped, and what its end means."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.layers.puffs.putter import BACKLOG, Putter
from syspuffs.native.constants import OpClass, VfsOp, VnOp
from syspuffs.native.errors import TransportBroken, TransportClosed
from syspuffs.native.frames import encode_request
from syspuffs.native.records import Cred

CRED = Cred(0, 0)


def frame(size: int = 0) -> bytes:
    """Return a whole frame with `size` octets of data."""
    if not size:
        return encode_request(OpClass.VFS, VfsOp.STATVFS, 1, 0, ())
    data = os.urandom(8) + bytes(size - 8)
    return encode_request(OpClass.VN, VnOp.WRITE, 1, 1, (0, data, 0, CRED)) + data


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Putter, socket.socket]]:
    """Yield a putter and the other end of its socket."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    putter = Putter.of_socket(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(putter.pump)
        try:
            yield putter, theirs
        finally:
            putter.close()
            theirs.close()


async def _feed(sock: socket.socket, octets: bytes, sizes: list[int]) -> None:
    rest = memoryview(octets)
    i = 0
    while rest:
        size = sizes[i % len(sizes)] if i < 200 else len(rest)
        i += 1
        try:
            rest = rest[sock.send(rest[:size]) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        await trio.testing.wait_all_tasks_blocked()
    sock.shutdown(socket.SHUT_WR)


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from([0, 8, 100, 30_000, 33_000, 65_536, 70_000, 300_000]), max_size=8),
    st.lists(st.integers(1, 100_000), min_size=1, max_size=10),
)
async def test_frames_come_out_as_they_went_in(payloads: list[int], sizes: list[int]) -> None:
    frames = [frame(size) for size in payloads]
    async with pair() as (putter, other), trio.open_nursery() as nursery:
        nursery.start_soon(_feed, other, b"".join(frames), sizes)
        for one in frames:
            assert bytes(await putter.next_frame()) == one
        with pytest.raises(TransportBroken):
            await putter.next_frame()
        assert putter.frames_in == len(frames)


async def test_frames_are_memory_of_their_own() -> None:
    frames = [frame(8), frame(40_000), frame(100), frame(200_000), frame(0)]
    async with pair() as (putter, other), trio.open_nursery() as nursery:
        nursery.start_soon(_feed, other, b"".join(frames), [1 << 20])
        got = [await putter.next_frame() for _ in frames]
        assert [bytes(one) for one in got] == frames


async def test_a_cancelled_reader_loses_nothing() -> None:
    one = frame(100_000)
    async with pair() as (putter, other):
        other.send(one[:70_000])
        with trio.move_on_after(0.01) as scope:
            await putter.next_frame()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, other, one[70_000:], [1000_000])
            assert bytes(await putter.next_frame()) == one


async def test_an_idle_stream_is_written_at_once() -> None:
    async with pair() as (putter, other):
        head, data = frame(), b""
        assert putter.push(head) is None
        assert putter.push(head, data) is None
        assert other.recv(1 << 16) == head + head


async def test_what_does_not_fit_is_queued_in_order() -> None:
    async with pair() as (putter, other):
        frames = [frame(150_000) for _ in range(20)]
        entries = [putter.push(one[:100], one[100:]) for one in frames]
        assert entries[0] is None
        assert entries[-1] is not None
        got = bytearray()
        while len(got) < sum(map(len, frames)):
            try:
                got += other.recv(1 << 20)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(other)
        assert got == b"".join(frames)
        await putter.flush()
        assert putter.queued == 0


async def test_wait_room_and_flush() -> None:
    async with pair() as (putter, other), trio.open_nursery() as nursery:
        one = frame(200_000)
        while not putter.full:
            putter.push(one)
        assert putter.queued == BACKLOG
        passed = []

        async def waiter(i: int) -> None:
            await putter.wait_room()
            passed.append(i)

        async def flusher() -> None:
            await putter.flush()
            passed.append(-1)

        nursery.start_soon(flusher)
        for i in range(3):
            nursery.start_soon(waiter, i)
        await trio.testing.wait_all_tasks_blocked()
        assert not passed
        while len(passed) < 4:
            try:
                other.recv(1 << 20)
            except BlockingIOError:
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(passed) == [-1, 0, 1, 2]
        assert passed[-1] == -1


async def test_close_wakes_everybody() -> None:
    async with pair() as (putter, _), trio.open_nursery() as nursery:
        errors = []

        async def reader() -> None:
            try:
                await putter.next_frame()
            except TransportClosed as exc:
                errors.append(exc)

        nursery.start_soon(reader)
        one = frame(200_000)
        while not putter.full:
            putter.push(one)
        nursery.start_soon(putter.wait_room)
        nursery.start_soon(putter.flush)
        await trio.testing.wait_all_tasks_blocked()
        putter.close()
        putter.close()
        await trio.testing.wait_all_tasks_blocked()
        assert len(errors) == 1
        with pytest.raises(TransportClosed):
            putter.push(frame())
        with pytest.raises(TransportClosed):
            await putter.next_frame()


async def test_a_dead_peer_is_noticed_in_writing() -> None:
    async with pair() as (putter, other):
        other.close()
        with pytest.raises(TransportBroken) as caught:
            putter.push(frame())
        assert isinstance(caught.value.__cause__, BrokenPipeError)
        with pytest.raises(TransportBroken):
            await putter.next_frame()


async def test_a_dead_peer_is_noticed_by_the_pump() -> None:
    async with pair() as (putter, other):
        one = frame(200_000)
        while not putter.full:
            putter.push(one)
        other.close()
        await putter.flush()
        assert isinstance(putter.broken, TransportBroken)


async def test_frames_go_through_pipes_too() -> None:
    read_end, write_end = os.pipe()
    back_read, back_write = os.pipe()
    ours, theirs = Putter(read_end, back_write), Putter(back_read, write_end)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.pump)
            one = frame(500_000)
            theirs.push(one)
            assert bytes(await ours.next_frame()) == one
            theirs.close()
            with pytest.raises(TransportBroken, match="end of the stream"):
                await ours.next_frame()
    finally:
        ours.close()
        theirs.close()


async def test_tcp_will_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = Putter.of_socket(socket.create_connection(listener.getsockname()))
        theirs = Putter.of_socket(listener.accept()[0])
    one = frame(100)
    ours.push(one)
    assert bytes(await theirs.next_frame()) == one
    ours.close()
    with pytest.raises(TransportBroken):
        await theirs.next_frame()
    theirs.close()


async def test_only_streams_will_do() -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    with ours, theirs, pytest.raises(ValueError, match="stream"):
        Putter.of_socket(ours)
