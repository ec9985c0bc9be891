"""Both ways of putting a kernel half over a server, and a peer that says whatever it is told to."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
import trio.testing

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.vfs import Lookup
from syspuffs.emul.vnode import Vnode, vrecycle, vrele
from syspuffs.layers.puffs import PuffsFs, puffs_over, puffs_over_socket, serve
from syspuffs.native.constants import MAXMSGLEN_DEFAULT, FlushOp, KFlag, OpClass, VnOp, Vtype
from syspuffs.native.frames import Header, decode_request, encode_reply
from syspuffs.native.records import Buffer, Cookie, Cred, Kargs, Newinfo, Vattr, lookup_cn

from .memserver import ALL_OPS, MemServer

CRED = Cred(1000, 100, (100, 4), 77)
FILE = Vattr(vtype=Vtype.VREG, mode=0o644)
DIRECTORY = Vattr(vtype=Vtype.VDIR, mode=0o755)
ROOT_COOKIE = Cookie(1)
DEATH = "the server of .* is gone"
"""What is logged when a server dies."""


@dataclass
class Mounted:
    """A mounted kernel half. Over a `Peer`, `server` is one that nobody uses."""

    kernel: Kernel
    mount: Mount
    fs: PuffsFs
    server: MemServer

    @property
    def root(self) -> Vnode:
        return self.mount.root

    async def create(self, name: bytes) -> Vnode:
        return vnode_of(await self.fs.create(self.root, lookup_cn(name, CRED), FILE))

    async def mkdir(self, name: bytes) -> Vnode:
        return vnode_of(await self.fs.mkdir(self.root, lookup_cn(name, CRED), DIRECTORY))

    async def lookup(self, name: bytes) -> Vnode:
        return vnode_of(await self.fs.lookup(self.root, lookup_cn(name, CRED)))

    async def give_up(self, *vnodes: Vnode) -> None:
        """Drop a reference on each, and have what is unused reclaimed."""
        for vp in vnodes:
            await vrele(vp)
        await self.settle()
        for vp in self.mount:
            vrecycle(vp)
        await self.settle()

    async def settle(self) -> None:
        """Return when frames that were sent have been handled."""
        await trio.testing.wait_all_tasks_blocked()


def vnode_of(found: Lookup) -> Vnode:
    assert found.vp is not None
    return found.vp


@asynccontextmanager
async def mounted(way: str, server: MemServer | None = None) -> AsyncIterator[Mounted]:
    """Mount `server` the `way` "direct" or "socket"; unmount properly at the end."""
    server = server or MemServer()
    async with trio.open_nursery() as nursery:
        if way == "direct":
            over = puffs_over(server)
        else:
            ours, theirs = socket.socketpair()
            nursery.start_soon(serve, server, theirs)
            over = puffs_over_socket(ours, server.kargs)
        async with over as fs, Kernel() as kernel:
            mount = await kernel.mount(fs)
            await trio.testing.wait_all_tasks_blocked()  # the server is attached
            yield Mounted(kernel, mount, fs, server)
            if mount.is_alive and not server.unmounted:
                await kernel.unmount(mount)


class Peer:
    """The other end of a socket: a server that is played by the test, request by request."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._got = bytearray()

    async def frame(self) -> bytes:
        while True:
            if len(self._got) >= 4:
                length = int.from_bytes(self._got[:4], "little")
                if len(self._got) >= length:
                    frame = bytes(self._got[:length])
                    del self._got[:length]
                    return frame
            piece = await self._sock.recv(1 << 20)
            if not piece:
                raise EOFError
            self._got += piece

    async def request(self, op: int | None = None) -> tuple[Header, tuple[Any, ...]]:
        """Return the next request, which must be `op` if that is given."""
        header, args = decode_request(await self.frame())
        if op is not None:
            assert header.optype == op, VnOp(header.optype).name
        return header, args

    async def note(self) -> tuple[int, int, bytes]:
        """Return (kind, cookie, text) of the next frame, an error note."""
        header, args = await self.request()
        assert header.opclass & 0x07 == OpClass.ERROR, header
        return header.optype, header.cookie, args[1]

    async def send(self, octets: Buffer) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[await self._sock.send(rest) :]

    async def reply(self, header: Header, result: Any) -> None:
        await self.send(
            encode_reply(header.opclass & 0x07, header.optype, header.id, header.cookie, result)
        )

    def close(self) -> None:
        self._sock.close()


def peer_kargs(
    kflags: int = KFlag.CACHE_FS_TTL | KFlag.IAONDEMAND,
    ops: frozenset[int] = ALL_OPS,
    maxmsglen: int = MAXMSGLEN_DEFAULT,
) -> Kargs:
    root = Newinfo(ROOT_COOKIE, Vtype.VDIR)
    return Kargs("played", b"test", root, kflags, ops, maxmsglen)


@asynccontextmanager
async def played(kargs: Kargs | None = None) -> AsyncIterator[tuple[Mounted, Peer]]:
    """Mount a kernel half whose server is played by the test; ends with the server's death.

    That is logged: see `DEATH`.
    """
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    try:
        async with puffs_over_socket(ours, kargs or peer_kargs()) as fs, Kernel() as kernel:
            mount = await kernel.mount(fs)
            try:
                yield Mounted(kernel, mount, fs, MemServer()), peer
            finally:
                peer.close()  # or the forced unmount would wait for an answer
            await trio.testing.wait_all_tasks_blocked()
    finally:
        peer.close()


def shrink(m: Mounted) -> Any:
    """Give the socket of `m` the smallest send buffer, soon full; return the putter."""
    touser: Any = m.fs.touser
    putter = touser._putter
    with socket.socket(fileno=os.dup(putter._wfd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return putter


class Asked:
    """A call that runs in a task of its own; its result or exception can be looked at later."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Awaitable[Any]]) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = None
        nursery.start_soon(self._run, call)

    async def _run(self, call: Callable[[], Awaitable[Any]]) -> None:
        with self.scope:
            try:
                self.result = await call()
            except Exception as exc:
                self.error = exc
        self.done.set()

    async def wait(self) -> Any:
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


class Client:
    """A mount's client that remembers what it heard; flushes wait for `gate` if there is one."""

    def __init__(self) -> None:
        self.flushes: list[tuple[FlushOp, Any, int, int, bytes]] = []
        self.unmount_requests = 0
        self.gate: trio.Event | None = None
        self.error: Exception | None = None

    async def flush(
        self, op: FlushOp, vp: Vnode | None, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.flushes.append((op, None if vp is None else vp.data.cookie, start, end, name))

    def request_unmount(self) -> None:
        self.unmount_requests += 1
