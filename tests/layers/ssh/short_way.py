"""How many of a channel's packets go through asyncssh: a program, for asyncssh has its own process.

`python short_way.py CONFIG CIPHER COUNT` logs in at the host "it" of an ssh configuration, opens an
SFTP channel as the pump does, asks COUNT times where "." is, and prints as JSON how often asyncssh
was given octets that came, and data to send, meanwhile; then, how many octets of three further
answers were delivered when one bit of the first one has changed on its way, and why the connection
has ended.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from typing import Any

import asyncssh

from syspuffs.layers.psshfs.ssh.relay import Relay
from syspuffs.layers.psshfs.ssh.shortcut import Shortcut
from syspuffs.layers.psshfs.ssh.splitter import Splitter


class Tunnel:
    """Puts a splitter before the connection."""

    async def create_connection(self, factory: Any, host: str, port: int) -> Any:
        connection = factory()
        self.splitter = Splitter(connection)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: self.splitter, host, port)
        return transport, connection


class Session(asyncssh.SSHClientSession[bytes]):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._relay.attach(chan)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._relay.deliver(data)


def counted(thing: Any, name: str, counts: dict[str, int]) -> None:
    """Have the calls of a method counted."""
    method = getattr(thing, name)
    counts[name] = 0

    def call(*args: Any) -> Any:
        counts[name] += 1
        return method(*args)

    setattr(thing, name, call)


async def ask(far: socket.socket, body: bytes) -> bytes:
    """Send a packet and return the next one."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(far, struct.pack(">I", len(body)) + body)
    got = b""
    while len(got) < 4 or len(got) < 4 + int.from_bytes(got[:4], "big"):
        got += await loop.sock_recv(far, 65536)
    return got[4:]


async def run(config: str, cipher: str, count: int) -> dict[str, Any]:
    """Do what the program does."""
    tunnel: Any = Tunnel()
    async with asyncssh.connect(
        "it", config=[config], tunnel=tunnel, encryption_algs=[cipher]
    ) as it:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            relay = Relay(asyncio.get_running_loop(), near, lambda: None)
            channel, _ = await it.create_session(
                lambda: Session(relay), subsystem="sftp", encoding=None, window=1 << 20
            )
            assert tunnel.splitter.find_packets()
            shortcut = Shortcut.of(it)
            assert shortcut is not None
            tunnel.splitter.take = shortcut.take
            counts: dict[str, int] = {}
            counted(channel, "write", counts)
            shortcut.add(channel, relay)
            relay.start()
            assert (await ask(far, struct.pack(">BI", 1, 3)))[0] == 2
            counts["write"] = 0
            counted(it, "data_received", counts)
            for number in range(count):
                answer = await ask(far, struct.pack(">BII", 16, number, 1) + b".")
                assert answer[:5] == struct.pack(">BI", 104, number)
            asked = dict(counts)
            spoiled = await spoil(it, tunnel.splitter, relay, far)
            shortcut.remove(relay)
            relay.stop()
    return asked | spoiled


async def spoil(it: Any, splitter: Any, relay: Relay, far: socket.socket) -> dict[str, Any]:
    """Ask three times, and change the first answer before anybody has looked at it."""
    take = splitter.take
    reasons: list[str] = []
    force_close = it._force_close

    def taken(packet: memoryview) -> bool:
        splitter.take = take
        packet[-20] ^= 1
        return bool(take(packet))

    def closed(exc: Exception | None) -> None:
        reasons.append(type(exc).__name__)
        force_close(exc)

    it._force_close = closed
    splitter.take = taken
    before = relay.received
    body = struct.pack(">BII", 16, 1, 1) + b"."
    await asyncio.get_running_loop().sock_sendall(far, 3 * (struct.pack(">I", len(body)) + body))
    await asyncio.wait_for(it.wait_closed(), 10)
    return {"delivered": relay.received - before, "reason": reasons[0]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
