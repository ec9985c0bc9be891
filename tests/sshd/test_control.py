"""Messages between the gateway and its SSH processes."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from syspuffs.gateway.sshd.control import (
    BadMessage,
    Closed,
    Connect,
    Opened,
    Orders,
    Ping,
    decode_orders,
    encode_orders,
    receive,
    send,
)
from syspuffs.gateway.sshd.settings import Credentials, SshSettings

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def test_messages(pair: Pair) -> None:
    ours, theirs = pair
    send(ours, Connect(7, "2001:db8::1", 22), ours.fileno())
    send(ours, Opened(7, 1, True, "/\xff"))
    received = receive(theirs)
    assert received is not None
    message, fd = received
    assert message == Connect(7, "2001:db8::1", 22)
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert receive(theirs) == (Opened(7, 1, True, "/\xff"), None)
    with pytest.raises(BlockingIOError):
        receive(theirs)
    ours.close()
    assert receive(theirs) is None


def test_a_full_socket(pair: Pair) -> None:
    def fill() -> None:
        for _ in range(10000):
            send(pair[0], Ping())

    with pytest.raises(BlockingIOError):
        fill()
    pair[1].close()
    with pytest.raises(ConnectionError):
        fill()


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"[]",
        b"3",
        b"{}",
        b'{"is": "Orders"}',
        b'{"is": []}',
        b'{"is": "Ping", "more": 1}',
        b'{"is": "Closed", "connection": "1", "is_failure": true, "reason": ""}',
        b'{"is": "Closed", "connection": true, "is_failure": true, "reason": ""}',
        b'{"is": "Closed", "connection": 1, "is_failure": 1, "reason": ""}',
        b'{"is": "Closed", "connection": 1, "is_failure": true, "reason": null}',
        b'{"is": "Closed", "connection": 1, "is_failure": true}',
        b"[" * 50000,
        b"\xff",
        json.dumps({"is": "Ping", "x": "y" * 70000}).encode(),
    ],
)
def test_no_messages(pair: Pair, data: bytes) -> None:
    before = set(os.listdir("/proc/self/fd"))
    rights = array.array("i", [0, 0])
    pair[0].sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights[:1])])
    with pytest.raises(BadMessage):
        receive(pair[1])
    pair[0].sendmsg([b'{"is": "Ping"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    with pytest.raises(BadMessage):
        receive(pair[1])
    assert set(os.listdir("/proc/self/fd")) == before
    send(pair[0], Closed(1, True, ""))
    assert receive(pair[1]) == (Closed(1, True, ""), None)


def test_orders(tmp_path: Path) -> None:
    orders = Orders(
        SshSettings(listen=(("", 22),), state=tmp_path),
        {"alice": Credentials(keys=("x" * 200000,))},
        (b"private",),
        b"secret",
    )
    fd = encode_orders(orders)
    again = os.dup(fd)
    assert decode_orders(fd) == decode_orders(again) == orders
