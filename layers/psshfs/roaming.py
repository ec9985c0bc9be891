"""Hears that the network may have changed: its links, addresses and routes, or a sleep."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Final

import trio

_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""rtnetlink(7): RTMGRP_LINK, and IFADDR and ROUTE of IPv4 and IPv6."""
_LOOK_EVERY: Final = 10.0
"""Seconds between two looks at the clocks: nothing wakes a program when the machine wakes up."""
_ASLEEP: Final = 2 * 10**9
"""So much more on the clock that counts sleep than on the other, ns, is sleep."""
_QUIET: Final = 0.5
"""Changes come in flocks: seconds without another one before they are told."""


class Roaming:
    """`with` opens and closes what it listens to; `run` listens.

    A machine that forbids netlink sockets has changes of the network go unheard.
    """

    def __init__(self) -> None:
        self.changed = trio.Event()
        """Set by the next change; another event after that."""
        self._netlink: trio.socket.SocketType | None = None

    def __enter__(self) -> Roaming:
        with suppress(OSError):
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
            try:
                netlink.bind((0, _GROUPS))
            except OSError:
                netlink.close()
                raise
            self._netlink = trio.socket.from_stdlib_socket(netlink)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._netlink is not None:
            self._netlink.close()

    async def run(self) -> None:
        """Listen; ends by cancellation only."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_clocks)
            if self._netlink is not None:
                nursery.start_soon(self._listen, self._netlink)

    def _tell(self) -> None:
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def _watch_clocks(self) -> None:
        asleep = _asleep()
        while True:
            await trio.sleep(_LOOK_EVERY)
            now = _asleep()
            if now - asleep > _ASLEEP:
                self._tell()
            asleep = now

    async def _listen(self, netlink: trio.socket.SocketType) -> None:
        while True:
            await self._hear(netlink)
            with trio.move_on_after(_QUIET) as scope:
                while True:
                    await self._hear(netlink)
                    scope.deadline = trio.current_time() + _QUIET
            self._tell()

    async def _hear(self, netlink: trio.socket.SocketType) -> None:
        with suppress(OSError):  # ENOBUFS: more than fits has happened
            await netlink.recv(65536)


def _asleep() -> int:
    """Return for how long the machine has slept since it was started, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
