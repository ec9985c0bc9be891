"""Waiting in place: it is done where answers are prompt, and holds nobody else up for long."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.psshfs.wire.connection import Connection, open_connection
from syspuffs.layers.psshfs.wire.slot import STATUS
from syspuffs.native import sftp
from syspuffs.native.errors import VfsError

from .harness import status

Answering = Callable[[socket.socket, int], None]
"""Answers the request with that number, on a thread of its own."""


def at_once(peer: socket.socket, number: int) -> None:
    peer.sendall(status(number, sftp.FX_OK))


def _answer_all(peer: socket.socket, answering: list[Answering]) -> None:
    with peer.makefile("rb") as stream:
        while head := stream.read(4):
            body = stream.read(int.from_bytes(head, "big"))
            answering[-1](peer, int.from_bytes(body[1:5], "big"))


@contextmanager
def _server(answering: list[Answering]) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=_answer_all, args=(theirs, answering))
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join()
        theirs.close()


@asynccontextmanager
async def connected(answering: list[Answering]) -> AsyncIterator[Connection]:
    with _server(answering) as ours:
        async with open_connection(ours) as connection:
            yield connection


async def ask(connection: Connection, times: int = 1) -> None:
    for _ in range(times):
        await connection.submit(STATUS, sftp.remove, b"/x")


async def stay_once(connection: Connection) -> None:
    """Ask until waits are made in place: the next one will be."""
    with trio.fail_after(30):
        before = connection.inbox.stayed
        while connection.inbox.stayed == before:
            await ask(connection)


async def test_who_waits_alone_stays_in_place() -> None:
    async with connected([at_once]) as connection:
        await ask(connection, 8)
        assert connection.inbox.stayed == 0  # nothing is known of the server yet
        await stay_once(connection)


async def test_others_run_between_waits_in_place() -> None:
    async with connected([at_once]) as connection, trio.open_nursery() as nursery:
        await stay_once(connection)
        ran = trio.Event()

        async def other() -> None:
            ran.set()

        nursery.start_soon(other)
        asked = 0
        while not ran.is_set():
            await ask(connection)
            asked += 1
        assert asked <= 40


async def test_those_who_ask_together_do_not_stay() -> None:
    async with connected([at_once]) as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, connection, 100)
        assert connection.inbox.stayed == 0


async def test_a_late_answer_holds_nobody_up() -> None:
    release = threading.Event()

    def late(peer: socket.socket, number: int) -> None:
        release.wait(30)
        at_once(peer, number)

    answering: list[Answering] = [at_once]
    async with connected(answering) as connection:
        await stay_once(connection)
        answering.append(late)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, connection)
            await wait_all_tasks_blocked()
            assert connection.in_flight == 1
            assert not release.is_set()
            release.set()
        answering.append(at_once)
        stayed = connection.inbox.stayed
        await ask(connection, 3)
        assert connection.inbox.stayed == stayed  # once bitten
        await stay_once(connection)


@pytest.mark.logs("SFTP connection lost")
async def test_the_end_of_the_connection_ends_a_wait_in_place() -> None:
    def hang_up(peer: socket.socket, number: int) -> None:
        peer.shutdown(socket.SHUT_RDWR)

    answering: list[Answering] = [at_once]
    async with connected(answering) as connection:
        await stay_once(connection)
        answering.append(hang_up)
        with pytest.raises(VfsError) as caught:
            await ask(connection)
        assert caught.value.errno == errno.ENOTCONN
        assert connection.is_broken


async def test_within_a_batch_nobody_stays() -> None:
    async with connected([at_once]) as connection:
        await stay_once(connection)
        stayed = connection.inbox.stayed
        with connection.batch:
            slot = connection.submit(STATUS, sftp.remove, b"/x")
            assert not connection.inbox.stay(slot)
        assert connection.inbox.stayed == stayed
        await slot


DRIBBLE = """
import socket, struct
peer = socket.socket(fileno=0)
stream = peer.makefile("rb")
while head := stream.read(4):
    body = stream.read(int.from_bytes(head, "big"))
    text = b"x" * (100_000 if body.endswith(b"/long") else 0)
    answer = struct.pack(">BIII", 101, int.from_bytes(body[1:5], "big"), 0, len(text)) + text
    answer = struct.pack(">I", len(answer) + 4) + answer + struct.pack(">I", 0)
    if text:
        for at in range(len(answer)):
            peer.send(answer[at : at + 1])
    else:
        peer.send(answer)
"""


async def test_an_answer_that_comes_octet_by_octet_holds_nobody_up() -> None:
    ours, theirs = socket.socketpair()
    # A process of its own: a thread could not send while we look.
    with subprocess.Popen([sys.executable, "-c", DRIBBLE], stdin=theirs.fileno()), ours, theirs:
        async with open_connection(ours) as connection:
            for _ in range(8):
                await stay_once(connection)
                slot = connection.submit(STATUS, sftp.remove, b"/long")
                assert not connection.inbox.stay(slot)
                await slot
        ours.shutdown(socket.SHUT_RDWR)
