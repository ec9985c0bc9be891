"""Clients that do not fetch their answers, and what requests in flight may hold: bounded memory."""

from __future__ import annotations

import os

import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from syspuffs.gateway.sftp import Session
from syspuffs.gateway.sftp.answers import PACKET_MAX
from syspuffs.gateway.sftp.intake import Intake
from syspuffs.gateway.sftp.session import OWED_MAX, QUEUED_MAX
from syspuffs.native import sftp

from .harness import BOTH, Served, Wire

BLOCK = 261_120


async def push(wire: Wire, packets: list[bytes]) -> int:
    """Send packets until the session takes no more; return how many octets it has taken."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        for octets in packets:
            await wire.send(octets)
            sent += len(octets)

    with trio.move_on_after(60) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            scope.cancel()
    return sent


async def test_a_client_that_reads_no_answers_stops_being_served(tree: Served) -> None:
    async with tree.client() as other, tree.raw() as (wire, session):
        await wire.greet()
        await wire.put(b"/f", bytes(BLOCK))
        handle = await wire.open(b"/f")
        packets = [sftp.read(number, handle, 0, BLOCK) for number in range(100_000)]
        sent = await push(wire, packets)
        assert sent < len(packets[0]) * len(packets), "it took everything"
        got = session.statistics()
        assert QUEUED_MAX <= got.octets_queued <= QUEUED_MAX + 2 * BLOCK
        await other.put(b"/g", bytes(BLOCK))  # notices nothing
        await wire.stream.aclose()


async def test_a_client_that_fetches_late_gets_everything(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.put(b"/f", bytes(range(256)) * 1020)
        handle = await wire.open(b"/f")
        async with trio.open_nursery() as nursery:
            packets = [sftp.read(number, handle, 0, BLOCK) for number in range(60)]
            nursery.start_soon(wire.send, *packets)
            await wait_all_tasks_blocked()
            replies = await wire.replies(60)
        for kind, body in replies.values():
            assert kind == sftp.FXP_DATA
            assert bytes(sftp.decode_data(body)) == bytes(range(256)) * 1020
        await wire.ask(sftp.close, handle)


async def test_answers_that_wait_for_an_earlier_one_are_bounded(tree: Served) -> None:
    async with tree.client() as other, tree.raw() as (wire, session):
        await wire.greet()
        await wire.put(b"/f", bytes(BLOCK))
        handle = await wire.open(b"/f")
        released = trio.Event()
        held = 0

        async def hold(op: str, args: object) -> None:
            nonlocal held
            if op == "read" and not held:
                held = 1
                await released.wait()

        tree.counting.before = hold
        async with trio.open_nursery() as nursery:
            packets = [sftp.read(number, handle, 0, BLOCK) for number in range(200)]
            nursery.start_soon(wire.send, *packets)
            await wait_all_tasks_blocked()
            got = session.statistics()
            assert OWED_MAX <= got.octets_owed <= OWED_MAX + 2 * BLOCK
            assert got.octets_queued == 0
            await other.put(b"/g", b"notices nothing")
            released.set()
            assert list(await wire.replies(200)) == list(range(200))
        assert session.statistics().octets_owed == 0
        await wire.stream.aclose()


async def test_reads_that_wait_are_bounded(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.put(b"/f", bytes(BLOCK))
        handle = await wire.open(b"/f")
        released = trio.Event()

        async def hold(op: str, args: object) -> None:
            if op == "read":
                await released.wait()

        tree.counting.before = hold
        async with trio.open_nursery() as nursery:
            packets = [sftp.read(number, handle, 0, BLOCK) for number in range(500)]
            nursery.start_soon(wire.send, *packets)
            await wait_all_tasks_blocked()
            assert OWED_MAX // BLOCK <= tree.counting.in_flight <= OWED_MAX // BLOCK + 1
            released.set()
            assert len(await wire.replies(500)) == 500
        await wire.ask(sftp.close, handle)


async def test_small_requests_that_wait_are_bounded(tree: Served) -> None:
    async with tree.client() as wire:
        released = trio.Event()

        async def hold(op: str, args: object) -> None:
            await released.wait()

        tree.counting.before = hold
        async with trio.open_nursery() as nursery:
            packets = [sftp.lstat(number, b"/x%d" % number) for number in range(5000)]
            nursery.start_soon(wire.send, *packets)
            await wait_all_tasks_blocked()
            assert tree.counting.in_flight == 129
            released.set()
            assert len(await wire.replies(5000)) == 5000


async def _held_writes(tree: Served, size: int, count: int) -> tuple[int, int]:
    """Return how many octets a session holds, and how many writes, when none gets on."""
    async with tree.raw() as (wire, session):
        await wire.greet()
        handle = await wire.open(b"/f", BOTH)
        released = trio.Event()

        async def hold(op: str, args: object) -> None:
            if op == "write":
                await released.wait()

        tree.counting.before = hold
        async with trio.open_nursery() as nursery:
            packets = [
                sftp.write(number, handle, number * size, size) + bytes([number % 251]) * size
                for number in range(count)
            ]
            nursery.start_soon(wire.send, *packets)
            await wait_all_tasks_blocked()
            owed, in_flight = session.statistics().octets_owed, tree.counting.in_flight
            released.set()
            assert len(await wire.replies(count)) == count
        tree.counting.before = None
        for number in range(count):
            data = await wire.read(handle, number * size, size)
            assert data == bytes([number % 251]) * size
        await wire.ask(sftp.close, handle)
        await wire.stream.aclose()
        return owed, in_flight


async def test_writes_that_wait_are_bounded(tree: Served) -> None:
    owed, in_flight = await _held_writes(tree, BLOCK, 100)
    assert owed <= OWED_MAX + 2 * 1024 * 1024
    assert in_flight >= 16


async def test_short_writes_that_wait_are_bounded(tree: Served) -> None:
    owed, in_flight = await _held_writes(tree, 100, 2000)
    assert owed <= OWED_MAX + 2 * 1024 * 1024
    assert in_flight >= 64


async def test_an_idle_session_is_small(tree: Served) -> None:
    async with tree.raw() as (wire, session):
        await wire.greet()
        await wire.put(b"/f", bytes(3_000_000))
        await wire.get(b"/f")
        await wire.ask(sftp.lstat, b"/f")
        await wait_all_tasks_blocked()
        assert _memory(session) <= 32 * 1024
        got = session.statistics()
        assert (got.workers, got.octets_owed, got.octets_queued, got.in_flight) == (1, 0, 0, 0)
        await wire.stream.aclose()


def _memory(session: Session) -> int:
    return len(session._intake.chunk.view)


async def test_workers_are_few_again_after_a_crowd(tree: Served) -> None:
    async with tree.raw() as (wire, session):
        await wire.greet()
        released = trio.Event()

        async def hold(op: str, args: object) -> None:
            await released.wait()

        tree.counting.before = hold
        await wire.send(*(sftp.lstat(number, b"/x") for number in range(100)))
        await wait_all_tasks_blocked()
        assert session.statistics().workers == 101
        released.set()
        await wire.replies(100)
        assert session.statistics().workers <= 10
        await wire.stream.aclose()


async def test_a_client_that_always_has_something_yields_to_others() -> None:
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    try:
        intake = Intake(ours, PACKET_MAX)
        request = sftp.lstat(1, b"/") * 2
        for _ in range(3):
            os.write(theirs, request)
            with assert_checkpoints():
                assert len(await intake.packets()) == 2
            turns = 0
            os.write(theirs, request)
            while intake.take(linger=False):
                turns += 1
                os.write(theirs, request)
            assert 0 < turns < 100
            with assert_checkpoints():
                assert await intake.packets()
    finally:
        os.close(ours)
        os.close(theirs)
