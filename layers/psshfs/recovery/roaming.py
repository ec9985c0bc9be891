"""Hears that the network may have changed: its links, addresses and routes, or a sleep.

A clock that is set takes a timer of a special kind with it, and a machine that wakes up sets its
clock: so a sleep is heard of the moment it is over. The clocks themselves are looked at now and
then as well, for kernels that forbid the timer.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final

import trio

_log = logging.getLogger(__name__)

_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""rtnetlink(7): RTMGRP_LINK, and IFADDR and ROUTE of IPv4 and IPv6."""
_LOOK_EVERY: Final = 10.0
"""Seconds between two looks at the clocks."""
_ASLEEP: Final = 2 * 10**9
"""So much more on the clock that counts sleep than on the other, ns, is sleep."""
_QUIET: Final = 0.5
"""Changes come in flocks: seconds without another one before they are told."""
_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_CANCEL_ON_SET: Final = 1 | 2
"""timerfd_settime(2): TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET."""
_NEVER: Final = struct.pack("qqqq", 0, 0, 1 << 40, 0)
"""An itimerspec that is not reached."""


def asleep() -> int:
    """Return for how long the machine has slept since it was started, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Roaming:
    """`with` opens and closes what it listens to; `run` listens.

    `slept` is as `asleep`. A machine that forbids netlink sockets has changes of the network go
    unheard.
    """

    def __init__(self, *, slept: Callable[[], int] = asleep) -> None:
        self.changed = trio.Event()
        """Set by the next change; another event after that."""
        self._slept = slept
        self._netlink: trio.socket.SocketType | None = None
        self._timer = -1

    def __enter__(self) -> Roaming:
        with suppress(OSError):
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
            try:
                netlink.bind((0, _GROUPS))
            except OSError:
                netlink.close()
                raise
            self._netlink = trio.socket.from_stdlib_socket(netlink)
        self._timer = _timer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._netlink is not None:
            self._netlink.close()
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1

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
        before = self._slept()
        while True:
            with trio.move_on_after(_LOOK_EVERY):
                await self._clock_set()
            now = self._slept()
            if now - before > _ASLEEP:
                self._tell()
            before = now

    async def _clock_set(self) -> None:
        """Return when the clock has been set; by hand or by a time server, too."""
        if self._timer < 0:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._timer)
        with suppress(OSError):  # ECANCELED says it
            os.read(self._timer, 8)

    async def _listen(self, netlink: trio.socket.SocketType) -> None:
        """Tell of changes, each time when nothing more happens; end when nothing can be heard."""
        try:
            while True:
                await self._hear(netlink)
                with trio.move_on_after(_QUIET) as scope:
                    while True:
                        await self._hear(netlink)
                        scope.deadline = trio.current_time() + _QUIET
                self._tell()
        except OSError as exc:
            _log.info("changes of the network are not heard of any more: %s", exc)

    async def _hear(self, netlink: trio.socket.SocketType) -> None:
        try:
            await netlink.recv(65536)
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:  # more than fits has happened
                raise


def _timer() -> int:
    """Return a descriptor that is readable when the clock has been set, -1 if there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd: int = libc.timerfd_create(time.CLOCK_REALTIME, _TFD_FLAGS)
    except AttributeError:
        return -1  # a libc without it
    if fd >= 0 and libc.timerfd_settime(fd, _CANCEL_ON_SET, _NEVER, None):
        os.close(fd)
        fd = -1
    return fd
