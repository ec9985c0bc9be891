"""The host's FUSE device: requests are read from it, replies and notifications written to it."""

from __future__ import annotations

import errno
import logging
import os
import select
from typing import Final

import trio

from ...layers.busypoll import BusyPoll
from ...native import device_replies
from ...native.device_requests import Request, RequestBuffer
from ...native.errors import VfsError
from ...native.fuse_protocol import MAJOR, MINOR, InitFlag
from ...native.records import Buffer

_log = logging.getLogger(__name__)

_MAX_WRITE: Final = 1024 * 1024
"""The longest WRITE, octets, and the longest READ: what the host takes without being told else."""
_PAGE: Final = os.sysconf("SC_PAGESIZE")
BUFFER_LEN: Final = _MAX_WRITE + _PAGE
"""What a read must have room for, octets: a WRITE and its header."""

_MINOR_MIN: Final = 23
"""The first version whose reply to INIT has today's form (Linux 3.15)."""
_FLAGS: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.HANDLE_KILLPRIV
    | InitFlag.MAX_PAGES
)
"""What we want of what the host offers. Access control lists and write-back stay its own business
or are left out; locks are asked for where a file server has them (locking.py). READDIRPLUS is
asked for always, for names without attributes would cost a LOOKUP each."""

_AWAKE_SECONDS: Final = 0.00005
"""For how long the leader looks for the next request before it sleeps: a little less than what
that and waking up costs."""

_GONE: Final = (errno.ENODEV, errno.ENOTCONN, errno.EBADF, errno.EPIPE)


class DeviceGone(Exception):
    """The host has unmounted, or the descriptor was closed."""


class Device:
    """One end of a mount. Owns the descriptor; `close` may be called again.

    `notify` blocks while the host has locked what is meant, so it is for threads; everything else
    is for the one thread of trio.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._busy_poll = BusyPoll(fd, _AWAKE_SECONDS)

    def read(self, buffer: RequestBuffer) -> int:
        """Read a request into `buffer`; return its length, 0 when none is there.

        Errors: DeviceGone.
        """
        while True:
            try:
                length = os.readv(self._fd, (buffer.view,))
            except BlockingIOError:
                return 0
            except OSError as exc:
                if exc.errno in _GONE:
                    raise DeviceGone from exc
                if exc.errno != errno.ENOENT:  # a request that was withdrawn while we read it
                    raise
            else:
                if not length:
                    raise DeviceGone  # a socket in the device's place
                return length

    def is_soon_readable(self) -> bool:
        """Look for a very short while whether a request comes."""
        return self._busy_poll.is_readable()

    async def readable(self) -> None:
        """Wait until there may be a request. Errors: DeviceGone after `close` or `wake`."""
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except (trio.ClosedResourceError, OSError, ValueError) as exc:
            raise DeviceGone from exc

    def wake(self) -> None:
        """Let who waits in `readable` go."""
        trio.lowlevel.notify_closing(self._fd)

    def reply(self, message: bytes) -> bool:
        """Write a reply; return whether the host still wanted it."""
        try:
            os.write(self._fd, message)
        except OSError as exc:
            return self._unwanted(exc)
        return True

    def reply_data(self, head: bytes, data: Buffer) -> bool:
        """Write a reply of a head and data, which are not copied; see `reply`."""
        try:
            os.writev(self._fd, (head, data))
        except OSError as exc:
            return self._unwanted(exc)
        return True

    def _unwanted(self, exc: OSError) -> bool:
        # ENOENT: the host has given the request up; the others: it has given up the mount.
        if exc.errno != errno.ENOENT and exc.errno not in _GONE:
            raise exc
        return False

    def notify(self, message: bytes) -> None:
        """Tell the host something of our own accord; return when it has done it. May block.

        Errors: OSError, among them ENOENT when it does not hold what is meant.
        """
        os.write(self._fd, message)

    def close(self) -> bool:
        """Give the descriptor up; return whether the mount still stands."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return False
        poll = select.poll()
        poll.register(fd, 0)
        stands = not any(events & select.POLLERR for _, events in poll.poll(0))
        os.close(fd)
        return stands


def negotiate(request: Request, locks: InitFlag) -> bytes:
    """Return the reply to INIT, with `locks` beside what we want always.

    Errors: EPROTO, logged, for a host that is too old.
    """
    major, minor, max_readahead, flags = request.args
    if major != MAJOR or minor < _MINOR_MIN or not flags & InitFlag.DO_READDIRPLUS:
        _log.critical("the host speaks FUSE %d.%d; it takes 7.%d", major, minor, _MINOR_MIN)
        raise VfsError(errno.EPROTO)
    wanted = int(flags & (_FLAGS | locks))
    # Without MAX_PAGES (before Linux 4.20) a request has 32 pages.
    pages = _MAX_WRITE // _PAGE if wanted & InitFlag.MAX_PAGES else 32
    return device_replies.init(
        request.unique, min(minor, MINOR), max_readahead, wanted, pages * _PAGE, pages
    )
