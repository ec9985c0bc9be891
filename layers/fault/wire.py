"""Faults of messages: a relay between the two ends of a stream that does what the rules say.

Rules are held against requests, on their way to the server; answers and notes pass as they are,
but for those of requests that a rule took: such an answer comes late, or as a refusal.

Two tasks, one for each direction, each with one message in hand, so that nothing gathers here; a
message that is delayed or hangs is held aside by a task of its own and lets others go by, as a
slow server does. HELD_MAX of them, or of answers that are waited for, and the stream waits.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from errno import EIO
from typing import Final

import trio

from ...native.errors import VfsError
from ..background import background
from .protocols import MESSAGE_MAX, Frames, Fuse, Protocol, Sftp
from .reorder import Held, Queue
from .rules import Fault, Place, Rules

HELD_MAX: Final = 64
"""Messages that are held aside at the same time."""
_READ: Final = 256 * 1024
_DATAGRAM: Final = 1024 * 1024 + 64 * 1024
"""Longest datagram: as much data as FUSE moves at once, and its head."""
_HEAD: Final = 64
"""As much of a request as its refusal is made of."""
_SHORT: Final = VfsError(EIO)
_CREDENTIALS: Final = struct.Struct("=iII")
_PROTOCOLS: Final[dict[Place, type[Protocol]]] = {"frames": Frames, "sftp": Sftp, "fuse": Fuse}


class _Dead(Exception):
    """The stream has to end."""


_ENDED: Final = (_Dead, OSError, trio.ClosedResourceError)


class _Relay:
    """Requests come from `near` and go to `far`; answers go the other way."""

    def __init__(
        self, near: trio.socket.SocketType, far: trio.socket.SocketType, place: Place, rules: Rules
    ) -> None:
        self._near = near
        self._far = far
        self._place = place
        self._rules = rules
        self._protocol = _PROTOCOLS[place]()
        self._to_far = trio.Lock()
        self._to_near = trio.Lock()
        self._read = _DATAGRAM if self._protocol.has_boundaries else _READ
        self._room = trio.CapacityLimiter(HELD_MAX)
        self._order = Queue()
        self._marked: dict[int, tuple[Fault | None, bytes]] = {}
        """Requests whose answers are to come out else, by their numbers."""
        self.peer_pid = 0

    async def run(self) -> None:
        """Relay until an end closes, or a fault is the end."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._answers)
            try:
                await self._requests()
            finally:
                nursery.cancel_scope.cancel()

    def close(self) -> None:
        """End the stream for both."""
        for sock in (self._near, self._far):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    async def _answers(self) -> None:
        """Pass on what the server says, whole messages only, for ours go between them."""
        pending = bytearray()
        with suppress(*_ENDED):
            while octets := await self._received():
                if self._datagrams:
                    await self._answer(octets)
                    continue
                pending += octets
                whole = self._whole(pending)
                if self._marked or self._order:
                    while whole:
                        size = max(min(self._protocol.length(pending[:4]) or whole, whole), 4)
                        await self._answer(bytes(pending[:size]))
                        del pending[:size]
                        whole = max(whole - size, 0)
                elif whole:
                    async with self._to_near:
                        await _send_all(self._near, bytes(pending[:whole]))
                    del pending[:whole]
        self._nursery.cancel_scope.cancel()

    async def _received(self) -> bytes:
        """Return what the server says next, and note who it is where datagrams tell."""
        if not self._datagrams or self.peer_pid:
            return await self._far.recv(self._read)
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        octets, control, _, _ = await self._far.recvmsg(self._read, space)
        for level, kind, value in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.peer_pid = _CREDENTIALS.unpack(value)[0]
        return octets

    async def _answer(self, message: bytes) -> None:
        number = self._protocol.answered(message) if self._marked or self._order else None
        fault, request = self._marked.pop(number or 0, (None, b""))
        if fault is not None and fault.rule.reorder is not None:
            held = self._order.hold(fault.rule.reorder)
            self._nursery.start_soon(self._later, fault, message, held)
            return
        if fault is not None:
            self._room.release_on_behalf_of(fault)
            message = self._protocol.refusal(request, (fault.error or _SHORT).errno)
        async with self._to_near:
            await _send_all(self._near, message)
        if number is not None:
            self._order.gone_by()

    async def _later(self, fault: Fault, message: bytes, held: Held) -> None:
        try:
            await self._order.wait(held)
            async with self._to_near:
                await _send_all(self._near, message)
        except _ENDED:
            self._nursery.cancel_scope.cancel()
        finally:
            self._room.release_on_behalf_of(fault)

    @property
    def _datagrams(self) -> bool:
        return self._protocol.has_boundaries

    def _whole(self, pending: bytearray) -> int:
        """Return how many octets at the front are whole messages, or make no sense as such."""
        at = 0
        while True:
            size = self._protocol.length(pending[at : at + 4])
            if size is None or size > len(pending) - at:
                return len(pending) if size is not None and size > MESSAGE_MAX else at
            if size < 4:
                return len(pending)
            at += size

    async def _requests(self) -> None:
        pending = bytearray()
        with suppress(*_ENDED):
            while octets := await self._near.recv(self._read):
                if self._datagrams:
                    await self._one(octets)
                    continue
                pending += octets
                while pending:
                    size = self._protocol.length(pending)
                    if size is None or len(pending) < size <= MESSAGE_MAX:
                        break
                    if not 4 <= size <= MESSAGE_MAX:
                        size = len(pending)  # nonsense: for the server to say so
                    message = bytes(pending[:size])
                    del pending[:size]
                    await self._one(message)

    async def _one(self, message: bytes) -> None:
        name = self._protocol.request(message)
        fault = None if name is None else self._rules.due(self._place, name)
        if fault is None:
            await self._send(message)
            return
        if fault.rule.delay or fault.rule.hang:
            await self._room.acquire_on_behalf_of(fault)
            self._nursery.start_soon(self._aside, fault, message)
        else:
            await self._broken(fault, message)

    async def _aside(self, fault: Fault, message: bytes) -> None:
        try:
            await fault.wait()
        finally:
            self._room.release_on_behalf_of(fault)
        try:
            await self._broken(fault, message)
        except _ENDED:
            self._nursery.cancel_scope.cancel()

    async def _broken(self, fault: Fault, message: bytes) -> None:
        rule, error = fault.rule, fault.error
        if rule.death:
            raise _Dead
        if rule.torn is not None:
            await self._send(message[: rule.torn])
            raise _Dead
        if error is not None and not rule.after:
            async with self._to_near:
                await _send_all(self._near, self._protocol.refusal(message, error.errno))
        elif rule.flip is not None:
            # The length stays: with it nothing that follows would be a message any more.
            await self._send(message[:4] + fault.flipped(message[4:]))
        elif rule.short is not None:
            if self._protocol.request(message) == "write":
                await self._mark(fault, message)
            await self._send(self._protocol.shortened(message, rule.short))
        elif not rule.lost:
            if rule.reorder is not None or rule.after:
                await self._mark(fault, message)
            await self._send(message)

    async def _mark(self, fault: Fault, message: bytes) -> None:
        """Have the answer of a request come out else."""
        await self._room.acquire_on_behalf_of(fault)
        self._marked[self._protocol.number(message)] = fault, message[:_HEAD]

    async def _send(self, message: bytes) -> None:
        async with self._to_far:
            await _send_all(self._far, message)


async def _send_all(sock: trio.socket.SocketType, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[await sock.send(view) :]


class Wire:
    """One end of a faulty stream. The caller may close `socket` before its time."""

    def __init__(self, end: socket.socket, relay: _Relay) -> None:
        self.socket = end
        self._relay = relay

    @property
    def peer_pid(self) -> int:
        """Who answered first by datagrams, by the kernel's word; 0 until then."""
        return self._relay.peer_pid


@asynccontextmanager
async def faulty_wire(sock: socket.socket, place: Place, rules: Rules) -> AsyncIterator[Wire]:
    """Yield a socket in place of `sock`, between which and the server faults happen.

    `sock` stays the caller's. Both have ended when the block is left.
    """
    kind = socket.SOCK_SEQPACKET if place == "fuse" else socket.SOCK_STREAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    if place == "fuse":  # a datagram has to fit in
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2  # told doubled
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    relay = _Relay(
        trio.socket.from_stdlib_socket(ours),
        trio.socket.from_stdlib_socket(sock.dup()),
        place,
        rules,
    )

    async def run() -> None:
        try:
            await relay.run()
        finally:
            relay.close()

    with theirs:
        async with background(run):
            yield Wire(theirs, relay)
