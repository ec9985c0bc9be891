"""A real sftp-server on a socket pair, a relay that counts round trips, and scripted peers."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
import trio.testing

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions, mount_psshfs
from syspuffs.native import sftp
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FWRITE, READDIR_PLUS, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Dirent, Newinfo, Vattr, lookup_cn

SFTP_SERVER = "/usr/lib/openssh/sftp-server"
CRED = Cred(os.geteuid(), os.getegid())
NOCACHE = PsshfsOptions(cache_timeout_ns=0)
SECOND = 10**9


class Clock:
    """Monotonic and wall time that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now

    def wall(self) -> int:
        return self.now + 10**18

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@asynccontextmanager
async def sftp_server(*flags: str) -> AsyncIterator[socket.socket]:
    """Run OpenSSH's sftp-server with `flags`; give our end of its socket pair."""
    near, far = socket.socketpair()
    process = subprocess.Popen([SFTP_SERVER, *flags], stdin=far.fileno(), stdout=far.fileno())
    far.close()
    try:
        yield near
    finally:
        near.close()
        process.wait(timeout=10)


@asynccontextmanager
async def mounted(
    directory: Path, *flags: str, options: PsshfsOptions | None = None, clock: Clock | None = None
) -> AsyncIterator[Psshfs]:
    """Serve `directory` of this machine through a real sftp-server."""
    async with sftp_server(*flags) as near:
        times: dict[str, Any] = {} if clock is None else {"clock": clock, "wall": clock.wall}
        async with mount_psshfs(near, os.fsencode(directory), options, **times) as server:
            yield server


class Packets:
    """Counts the packets of a stream, as their ends come."""

    def __init__(self) -> None:
        self.count = 0
        self._rest = bytearray()

    def take(self, data: bytes | bytearray) -> None:
        rest = self._rest
        rest += data
        while len(rest) >= 4 and len(rest) >= (length := 4 + int.from_bytes(rest[:4], "big")):
            del rest[:length]
            self.count += 1


class Relay:
    """Passes octets between client and server as a link does that is longer than everything else
    takes: what the server says is let through when it has answered all and nobody at the client's
    end has anything left to do. `trips` counts the times that the client, having heard from the
    server, spoke again: the round trips of such a link.
    """

    def __init__(self) -> None:
        self.trips = 0
        self._heard = True
        self._asked = Packets()
        self._answered = Packets()
        self._held = bytearray()

    async def run(self, client: socket.socket, server: socket.socket) -> None:
        near = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        far = trio.SocketStream(trio.socket.from_stdlib_socket(server))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass, near, far)
            nursery.start_soon(self._hold, far, near)

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                self.trips += self._heard
                self._heard = False
                self._asked.take(data)
                await target.send_all(data)

    async def _hold(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                self._held += data
                self._answered.take(data)
                while self._held and self._answered.count >= self._asked.count:
                    await trio.testing.wait_all_tasks_blocked()
                    if self._answered.count >= self._asked.count:
                        held, self._held = self._held, bytearray()
                        self._heard = True
                        await target.send_all(held)


@asynccontextmanager
async def counted(
    directory: Path, *flags: str, options: PsshfsOptions | None = None, clock: Clock | None = None
) -> AsyncIterator[tuple[Psshfs, Relay]]:
    """As `mounted`, with a relay between."""
    times: dict[str, Any] = {} if clock is None else {"clock": clock, "wall": clock.wall}
    relay = Relay()
    near, far = socket.socketpair()
    async with sftp_server(*flags) as server_end, trio.open_nursery() as nursery:
        nursery.start_soon(relay.run, far, server_end)
        try:
            async with mount_psshfs(near, os.fsencode(directory), options, **times) as server:
                yield server, relay
        finally:
            nursery.cancel_scope.cancel()
            near.close()
            far.close()


# Short forms of operations.


def root_of(server: Psshfs) -> Cookie:
    return server.kargs.root.cookie


async def look(server: Psshfs, path: bytes) -> Newinfo:
    """Look a path up from the root; the last answer."""
    info = server.kargs.root
    for name in path.split(b"/"):
        info = await server.lookup(info.cookie, lookup_cn(name, CRED))
    return info


async def make(
    server: Psshfs,
    name: bytes,
    content: bytes = b"",
    *,
    mode: int = 0o644,
    directory: Cookie | None = None,
) -> Newinfo:
    """Create a file as a program does: create, open, write, flush, close."""
    parent = root_of(server) if directory is None else directory
    info = await server.create(parent, lookup_cn(name, CRED), Vattr(vtype=Vtype.VREG, mode=mode))
    await server.open(info.cookie, FWRITE, CRED)
    if content:
        await server.write(info.cookie, 0, content, 0, CRED)
    await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
    server.close(info.cookie, FWRITE, CRED)
    return info


async def mkdir(server: Psshfs, name: bytes, parent: Cookie | None = None) -> Newinfo:
    return await server.mkdir(
        root_of(server) if parent is None else parent,
        lookup_cn(name, CRED),
        Vattr(vtype=Vtype.VDIR, mode=0o755),
    )


async def read_file(server: Psshfs, cookie: Cookie, step: int = 65536) -> bytes:
    """Read a file from begin to end as a program does."""
    await server.open(cookie, FREAD, CRED)
    pieces = []
    offset = 0
    while True:
        data = bytes(await server.read(cookie, offset, step, 0, CRED))
        pieces.append(data)
        offset += len(data)
        if len(data) < step:
            break
    server.close(cookie, FREAD, CRED)
    return b"".join(pieces)


async def list_all(
    server: Psshfs, cookie: Cookie, *, resid: int = 4096, plus: bool = False
) -> list[Dirent]:
    result: list[Dirent] = []
    offset = 0
    while True:
        entries, is_end = await server.readdir(
            cookie, offset, resid, READDIR_PLUS if plus else 0, CRED
        )
        result += entries
        if is_end:
            return result
        offset = entries[-1].offset


def names_of(entries: Sequence[Dirent]) -> list[bytes]:
    return [entry.name for entry in entries if entry.name not in (b".", b"..")]


# Scripted peers.


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def packet(kind: int, number: int, body: bytes = b"") -> bytes:
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


def status(number: int, code: int, message: bytes = b"said so") -> bytes:
    return packet(sftp.FXP_STATUS, number, struct.pack(">I", code) + string(message) + string(b""))


def attrs(size: int = 0, mode: int = 0o100644, mtime: int = 1000) -> bytes:
    return struct.pack(">IQIIIII", 15, size, 0, 0, mode, mtime, mtime)


def names(*entries: tuple[bytes, bytes]) -> bytes:
    body = struct.pack(">I", len(entries))
    for name, attributes in entries:
        body += string(name) + string(b"-rw-r--r--    1 0 0 0 Jan 1 " + name) + attributes
    return body


VERSION = struct.pack(">IBI", 5, sftp.FXP_VERSION, 3)
Handler = Callable[[int, int, bytes], bytes | Awaitable[bytes | None] | None]


class Peer:
    """A server that greets as one should and leaves the rest to `handler`.

    `handler(kind, id, body)` returns octets to send, or None for silence. `seen` has the types
    of all requests after the greeting. The root is "/". The greeting takes `trip` seconds.
    """

    def __init__(self, handler: Handler, *, version: bytes = VERSION, trip: float = 0.0) -> None:
        self.handler = handler
        self.trip = trip
        self.version = version
        self.seen: list[int] = []
        self.stream: trio.SocketStream

    async def run(self, end: socket.socket) -> None:
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(end))
        buffer = b""
        try:
            async for data in self.stream:
                buffer += data
                while len(buffer) >= 4:
                    length = struct.unpack_from(">I", buffer)[0]
                    if len(buffer) < 4 + length:
                        break
                    whole, buffer = buffer[4 : 4 + length], buffer[4 + length :]
                    answer = await self._answer(whole)
                    if answer:
                        await self.stream.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _answer(self, whole: bytes) -> bytes | None:
        kind = whole[0]
        if kind == sftp.FXP_INIT:
            return self.version
        number = struct.unpack_from(">I", whole, 1)[0]
        if kind == sftp.FXP_REALPATH:
            await trio.sleep(self.trip)
            return packet(sftp.FXP_NAME, number, names((b"/", struct.pack(">I", 0))))
        if kind == sftp.FXP_STAT:
            return packet(sftp.FXP_ATTRS, number, attrs(mode=0o40755))
        self.seen.append(kind)
        answer = self.handler(kind, number, whole[5:])
        if answer is None or isinstance(answer, bytes):
            return answer
        return await answer


@asynccontextmanager
async def scripted(
    handler: Handler,
    *,
    options: PsshfsOptions | None = None,
    version: bytes = VERSION,
    trip: float = 0.0,
) -> AsyncIterator[tuple[Psshfs, Peer]]:
    """Mount what a scripted peer serves."""
    near, far = socket.socketpair()
    peer = Peer(handler, version=version, trip=trip)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run, far)
        try:
            async with mount_psshfs(near, b"/", options) as server:
                yield server, peer
        except VfsError as exc:
            failure = exc  # kept out of the nursery, which would wrap it into a group
        finally:
            nursery.cancel_scope.cancel()
            near.close()
            far.close()
    if failure is not None:
        raise failure
