"""Windows on slow and long links, simulated: full use, and room for small requests."""

from __future__ import annotations

import math
import struct

import pytest
import trio
from trio.testing import MockClock

from syspuffs.layers.psshfs.wire.pace import (
    CHANNEL,
    FLOOR,
    INITIAL,
    ROUND_TRIP_AGE,
    Pace,
    RoundTrip,
)
from syspuffs.native import sftp
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FWRITE

from .harness import CRED, VERSION, attrs, look, packet, scripted, status, string

LIMITS = VERSION[:9] + string(sftp.EXT_LIMITS) + string(b"1")
LIMITS = struct.pack(">I", len(LIMITS) - 4) + LIMITS[4:]
BLOCK = 261120


class Link:
    """A server of one endless file behind a link of `rate` octets a second and `trip` seconds.

    Down, data take their time one after the other; up, writes do.
    """

    def __init__(self, rate: float, trip: float) -> None:
        self.rate = rate
        self.trip = trip
        self.free_at = 0.0
        self.send, self.receive = trio.open_memory_channel[tuple[float, bytes]](math.inf)
        self.asked = 0
        self.answered = 0
        self.most = 0

    async def __call__(self, kind: int, number: int, body: bytes) -> bytes | None:
        size = 100
        if kind == sftp.FXP_EXTENDED:
            await trio.sleep(self.trip)
            limits = struct.pack(">4Q", 262144, BLOCK, BLOCK, 0)
            return packet(sftp.FXP_EXTENDED_REPLY, number, limits)
        if kind == sftp.FXP_OPEN:
            answer = packet(sftp.FXP_HANDLE, number, string(b"h"))
        elif kind in (sftp.FXP_LSTAT, sftp.FXP_FSTAT):
            answer = packet(sftp.FXP_ATTRS, number, attrs(size=1 << 30))
        elif kind == sftp.FXP_READ:
            size = struct.unpack_from(">QI", body, 5)[1]
            answer = packet(sftp.FXP_DATA, number, string(bytes(size)))
        elif kind == sftp.FXP_OPENDIR:
            answer = status(number, sftp.FX_FAILURE)
        else:
            if kind == sftp.FXP_WRITE:
                size = len(body)
            answer = status(number, sftp.FX_OK)
        self.asked += size
        self.most = max(self.most, self.asked - self.answered)
        start = max(trio.current_time() + self.trip, self.free_at)
        self.free_at = start + size / self.rate
        self.send.send_nowait((self.free_at, answer))
        return None

    async def run(self, stream: trio.SocketStream) -> None:
        async for due, answer in self.receive:
            await trio.sleep_until(due)
            self.answered += max(100, len(answer) - 13)
            await stream.send_all(answer)


LINKS = [(1e6, 0.02), (10e6, 0.02), (100e6, 0.02), (10e6, 0.2), (100e6, 0.001)]


@pytest.mark.parametrize(("rate", "trip"), LINKS)
async def test_reading_fills_a_link_and_not_its_queues(
    rate: float, trip: float, autojump_clock: MockClock
) -> None:
    link = Link(rate, trip)
    async with (
        scripted(link, version=LIMITS, trip=trip) as (server, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(link.run, peer.stream)
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        total = max(int(rate * max(1, 20 * trip)), 4 << 20)
        offset = 0
        for part in range(2):
            started = trio.current_time()
            link.most = 0
            while offset < (part + 1) * total:
                data = await server.read(info.cookie, offset, 131072, 0, CRED)
                assert len(data) == 131072
                offset += len(data)
        seconds = trio.current_time() - started
        assert total / seconds > 0.9 * min(rate, (8 << 20) / trip)
        before = trio.current_time()
        await look(server, b"other")
        waited = trio.current_time() - before
        assert waited < 3 * trip + 0.1 + 2 * BLOCK / rate, link.most
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("rate", "trip"), LINKS)
async def test_writing_fills_a_link_and_not_its_queues(
    rate: float, trip: float, autojump_clock: MockClock
) -> None:
    link = Link(rate, trip)
    async with (
        scripted(link, version=LIMITS, trip=trip) as (server, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(link.run, peer.stream)
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        total = max(int(rate * max(1, 20 * trip)), 4 << 20)
        offset = 0
        data = bytes(131072)
        for part in range(2):
            started = trio.current_time()
            while offset < (part + 1) * total:
                await server.write(info.cookie, offset, data, 0, CRED)
                offset += len(data)
        seconds = trio.current_time() - started
        assert total / seconds > 0.85 * min(rate, (8 << 20) / trip)
        before = trio.current_time()
        await look(server, b"other")
        waited = trio.current_time() - before
        assert waited < 3 * trip + 0.1 + 2 * BLOCK / rate
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        nursery.cancel_scope.cancel()


def test_the_shortest_round_trip_is_forgotten_in_time() -> None:
    trip = RoundTrip()
    trip.add(0.1, 0)
    trip.add(0.2, 1)
    assert trip.seconds == 0.1
    trip.add(0.3, ROUND_TRIP_AGE + 2)
    assert trip.seconds == 0.1
    trip.add(0.3, 2 * ROUND_TRIP_AGE + 4)
    assert trip.seconds == 0.3


def test_window() -> None:
    trip = RoundTrip()
    trip.add(0.1, 0)
    pace = Pace(trip)
    assert pace.window == INITIAL
    pace.answered(1_000_000, 0, 0.0, 0.1)
    assert pace.window == 2_000_000 + 500_000
    pace.answered(0, pace.delivered, 0.0, 0.0)  # a clock that stood still says nothing
    pace.answered(100_000_000, pace.delivered, 0.0, 0.1)
    assert pace.window == 200_000_000 + FLOOR


def test_more_channels_widen_the_window_once() -> None:
    trip = RoundTrip()
    trip.add(0.1, 0.0)
    pace = Pace(trip)
    pace.expect(4)
    assert pace.window == INITIAL  # nothing was seen yet
    for number in range(1, 9):
        pace.answered(BLOCK, pace.delivered, number * 0.1, number * 0.1 + 0.0125)
    one = pace.in_flight
    assert one == pytest.approx(8 * BLOCK)
    pace.expect(4)
    four = pace.in_flight
    assert four == pytest.approx(4 * min(one, CHANNEL))
    pace.expect(4)
    assert pace.in_flight == pytest.approx(four, rel=0.02)
    for _ in range(200):
        pace.answered(BLOCK, pace.delivered, 1.0, 1.0125)
    assert pace.in_flight == pytest.approx(one)
