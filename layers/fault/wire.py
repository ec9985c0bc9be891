"""Faults of messages: a relay between the two ends of a stream that does what the rules say.

Rules are held against requests, on their way to the server; answers and notes pass as they are.
Two tasks, one for each direction, each with one message in hand, so that nothing gathers here; a
message that is delayed or hangs is held aside by a task of its own and lets others go by, as a
slow server does. HELD_MAX of them, and the stream waits.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from .protocols import MESSAGE_MAX, Frames, Fuse, Protocol, Sftp
from .reorder import Queue
from .rules import Fault, Place, Rules

HELD_MAX: Final = 64
"""Messages that are held aside at the same time."""
_READ: Final = 256 * 1024
_DATAGRAM: Final = 1024 * 1024 + 64 * 1024
"""Longest datagram: as much data as FUSE moves at once, and its head."""
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
            while octets := await self._far.recv(self._read):
                async with self._to_near:
                    if self._datagrams:
                        await self._near.send(octets)
                        continue
                    pending += octets
                    whole = self._whole(pending)
                    if whole:
                        await _send_all(self._near, bytes(pending[:whole]))
                        del pending[:whole]
        self._nursery.cancel_scope.cancel()

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
            await self._pass(message)
            return
        if fault.rule.delay or fault.rule.hang or fault.rule.reorder is not None:
            await self._room.acquire_on_behalf_of(fault)
            self._nursery.start_soon(self._aside, fault, message)
        else:
            await self._broken(fault, message)

    async def _aside(self, fault: Fault, message: bytes) -> None:
        try:
            await fault.wait()
            if fault.rule.reorder is not None:
                await self._order.after(fault.rule.reorder)
            await self._broken(fault, message)
        except _ENDED:
            self._nursery.cancel_scope.cancel()
        finally:
            self._room.release_on_behalf_of(fault)

    async def _broken(self, fault: Fault, message: bytes) -> None:
        rule, error = fault.rule, fault.error
        if rule.death:
            raise _Dead
        if rule.torn is not None:
            await self._send(message[: rule.torn])
            raise _Dead
        if error is not None:
            async with self._to_near:
                await _send_all(self._near, self._protocol.refusal(message, error.errno))
        elif rule.flip is not None:
            # The length stays: with it nothing that follows would be a message any more.
            await self._pass(message[:4] + fault.flipped(message[4:]))
        elif not rule.lost:
            await self._pass(message)

    async def _pass(self, message: bytes) -> None:
        await self._send(message)
        self._order.gone_by()

    async def _send(self, message: bytes) -> None:
        async with self._to_far:
            await _send_all(self._far, message)


async def _send_all(sock: trio.socket.SocketType, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[await sock.send(view) :]


@asynccontextmanager
async def faulty_wire(
    sock: socket.socket, place: Place, rules: Rules
) -> AsyncIterator[socket.socket]:
    """Yield a socket in place of `sock`, between which and the server faults happen.

    `sock` stays the caller's; the other one is the caller's, too, who may close it. Both have
    ended when the block is left.
    """
    kind = socket.SOCK_SEQPACKET if place == "fuse" else socket.SOCK_STREAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
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
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield theirs
            nursery.cancel_scope.cancel()
