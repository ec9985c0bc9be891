"""Looking for what comes before sleeping: what is there is seen; looking in vain costs little."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from syspuffs.layers.busypoll import BusyPoll

SKIPS_MAX = 256


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _looks_until_seen(poll: BusyPoll) -> int:
    looks = 1
    while not poll.is_readable():
        looks += 1
        assert looks <= SKIPS_MAX + 2
    return looks


def test_what_is_there_is_seen_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    poll = BusyPoll(ours.fileno(), 60.0)
    theirs.send(b"x")
    assert poll.is_readable()
    assert poll.is_readable()


def test_the_other_end_going_is_seen(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    assert BusyPoll(ours.fileno(), 60.0).is_readable()


def test_who_looked_in_vain_looks_less_often(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    poll = BusyPoll(ours.fileno(), 0.0)
    assert not any(poll.is_readable() for _ in range(4 * SKIPS_MAX))
    theirs.send(b"x")
    assert _looks_until_seen(poll) > 1
    assert poll.is_readable()  # worth it again


def test_looking_in_vain_once_is_soon_forgotten(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    poll = BusyPoll(ours.fileno(), 0.0)
    assert not poll.is_readable()
    theirs.send(b"x")
    assert not poll.is_readable()
    _looks_until_seen(poll)
    assert poll.is_readable()
