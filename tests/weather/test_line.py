"""The delay line itself: what it says of the network is what its users get."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.line import Line
from tests.support.mounts import wait_until

_LIMIT: Final = 10.0


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets and ends when its client has."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def answer(peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(1 << 16):
                    peer.sendall(data)
            except ConnectionError:
                return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=answer, args=(peer,))
            thread.start()
            threads.append(thread)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    acceptor.join(_LIMIT)
    for thread in threads:
        thread.join(_LIMIT)
        assert not thread.is_alive()


def connect(line: Line) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), timeout=_LIMIT)


def ask(peer: socket.socket, octets: bytes) -> bytes:
    """Send and give as much as is sent back."""
    peer.sendall(octets)
    return receive(peer, len(octets))


def receive(peer: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (data := peer.recv(count - len(got))):
        got += data
    return got


def is_silent(peer: socket.socket) -> bool:
    """Whether nothing comes for twice the round trip of these tests."""
    peer.settimeout(0.1)
    try:
        peer.recv(1)
    except TimeoutError:
        return True
    finally:
        peer.settimeout(_LIMIT)
    return False


def test_delay(echo: int) -> None:
    with Line(echo, round_trip=0.05) as line, connect(line) as peer:
        began = time.monotonic()
        assert ask(peer, b"x") == b"x"
        first = time.monotonic() - began
        assert first >= 0.05
        line.tune(round_trip=0.1)
        began = time.monotonic()
        assert ask(peer, b"x") == b"x"
        assert time.monotonic() - began >= 0.1


def test_rate_and_order(echo: int) -> None:
    octets = b"".join(number.to_bytes(4, "big") for number in range(1 << 18))
    with Line(echo, rate=4e6) as line, connect(line) as peer:
        sender = threading.Thread(target=peer.sendall, args=(octets,))
        began = time.monotonic()
        sender.start()
        assert receive(peer, len(octets)) == octets
        assert time.monotonic() - began >= len(octets) / 4e6
        sender.join(_LIMIT)
        assert line.traffic() == (1, 1, len(octets), len(octets))


def test_end_is_passed_on_behind_the_data(echo: int) -> None:
    with Line(echo, round_trip=0.02) as line, connect(line) as peer:
        peer.sendall(b"last words")
        peer.shutdown(socket.SHUT_WR)
        assert receive(peer, 100) == b"last words"
        assert wait_until(lambda: line.traffic().alive == 0)


def test_cut(echo: int) -> None:
    with Line(echo) as line, connect(line) as one, connect(line) as two:
        assert ask(one, b"1") + ask(two, b"2") == b"12"
        assert line.cut() == 2
        for peer in (one, two):
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        with connect(line) as peer:
            assert ask(peer, b"3") == b"3"
            assert line.cut(how="end") == 1
            assert peer.recv(1) == b""
        assert line.traffic()[:2] == (3, 0)


def test_refuse(echo: int) -> None:
    with Line(echo) as line, connect(line) as peer:
        assert ask(peer, b"1") == b"1"
        line.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(line)
        assert ask(peer, b"2") == b"2"
        line.refuse(on=False)
        with connect(line) as other:
            assert ask(other, b"3") == b"3"


def test_hold_loses_nothing(echo: int) -> None:
    with Line(echo, round_trip=0.02) as line, connect(line) as peer:
        assert ask(peer, b"1") == b"1"
        line.hold()
        peer.sendall(b"2")
        assert is_silent(peer)
        with connect(line) as other:
            other.sendall(b"new")
            assert is_silent(other)
            line.hold(on=False)
            assert receive(other, 3) == b"new"
        assert ask(peer, b"3") == b"2"
        assert peer.recv(1) == b"3"


def test_swallow(echo: int) -> None:
    with Line(echo, round_trip=0.02) as line, connect(line) as peer:
        assert ask(peer, b"1") == b"1"
        line.swallow()
        peer.sendall(bytes(1 << 20))
        assert is_silent(peer)
        assert line.traffic().alive == 1
        line.swallow(on=False)
        with connect(line) as other:
            assert ask(other, b"2") == b"2"


def test_half_close_and_garbage(echo: int) -> None:
    with Line(echo, round_trip=0.02) as line, connect(line) as peer:
        assert ask(peer, b"1") == b"1"
        assert line.inject("client", b"\x00junk") == 1
        assert receive(peer, 5) == b"\x00junk"
        assert line.inject("server", b"more") == 1
        assert receive(peer, 4) == b"more"
        assert line.half_close("client") == 1
        assert peer.recv(1) == b""
        peer.sendall(b"still heard")
        assert wait_until(lambda: line.traffic().from_client == 12)
