"""The other end of perfuse's socket, played by the tests."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from errno import ENOSYS

import trio

from syspuffs.layers.perfuse import Perfuse, fuse_pair, perfuse_on
from syspuffs.native.fuse_protocol import Opcode
from syspuffs.native.records import Cookie, Cred

ROOT = Cookie(1)
CRED = Cred(0, 0)
FILE = struct.pack("=6Q10I", 7, 5, 1, 0, 0, 0, 0, 0, 0, 0o100644, 1, 0, 0, 0, 512, 0)


def entry(nodeid: int, generation: int = 0, attr: bytes = FILE) -> bytes:
    return struct.pack("=4Q2I", nodeid, generation, 1, 1, 0, 0) + attr


SILENT = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY)


def absent(nodeid: int, body: bytes) -> int:
    return -ENOSYS


def message(unique: int, answer: bytes | int) -> bytes:
    error, body = (answer, b"") if isinstance(answer, int) else (0, answer)
    return struct.pack("=IiQ", 16 + len(body), error, unique) + body


class Server:
    """The other end: answers by a table, by opcode; notes what was asked."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = trio.socket.from_stdlib_socket(sock)
        self.asked: list[tuple[int, int, bytes]] = []
        self.uniques: dict[int, int] = {}
        """By opcode: the number of the last request."""
        self.answers: dict[int, Callable[[int, bytes], bytes | int | None]] = {
            Opcode.INIT: lambda *_: struct.pack(
                "=4IHHIIHH32x", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0
            )
        }

    async def serve(self) -> None:
        with suppress(ConnectionResetError):  # the end, with answers that nobody has read
            while request := await self.sock.recv(1 << 20):
                _, opcode, unique, nodeid = struct.unpack_from("=IIQQ", request)
                body = request[40:]
                self.asked.append((opcode, nodeid, body))
                self.uniques[opcode] = unique
                if opcode in SILENT:
                    continue
                answer = self.answers.get(opcode, absent)(nodeid, body)
                if answer is not None:
                    await self.reply(unique, answer)

    async def reply(self, unique: int, answer: bytes | int) -> None:
        await self.sock.send(message(unique, answer))

    def reply_ahead(self, opcode: int, answer: bytes) -> None:
        """Answer the next request, if it is the first one since the last with that opcode.

        Gives nobody a turn.
        """
        os.write(self.sock.fileno(), message(self.uniques[opcode] + 2, answer))

    def bodies(self, opcode: int) -> list[tuple[int, bytes]]:
        return [(nodeid, body) for code, nodeid, body in self.asked if code == opcode]

    async def seen(self, opcode: int) -> None:
        with trio.fail_after(5):
            while not self.bodies(opcode):
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def both(
    prepare: Callable[[Server], None] = lambda _: None,
) -> AsyncIterator[tuple[Perfuse, Server]]:
    """Yield both ends of a session. `prepare` is called before it begins."""
    ours, theirs = fuse_pair()
    server = Server(theirs)
    with server.sock:
        prepare(server)
        async with trio.open_nursery() as nursery:
            async with perfuse_on(ours) as perfuse:
                nursery.start_soon(server.serve)
                await perfuse.begin()
                yield perfuse, server
            nursery.cancel_scope.cancel()
