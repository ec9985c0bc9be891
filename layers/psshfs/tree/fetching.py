"""How the names of a directory are fetched: OPENDIR, then READDIRs, several in flight."""

from __future__ import annotations

import errno
from collections import deque
from typing import Final, Protocol

from ....native import sftp
from ....native.errors import VfsError
from ..wire.connection import Connection
from ..wire.errmap import StatusError
from ..wire.slot import HANDLE, LISTED, Slot

DEPTH_MAX: Final = 8
"""READDIRs in flight for one directory. OpenSSH answers with 100 names each."""
FAR_DEPTH: Final = 4
"""READDIRs at the beginning where the server is far: the last one, which meets the end, is not to
wait for those before it."""
FULL_REPLY: Final = 64
"""A reply with at least so many names was cut by its length, so that more will follow."""
ENTRIES_MAX: Final = 4_000_000
"""More names than this are no directory but an attack on our memory."""


class Sink(Protocol):
    """Where a fetch puts what it finds."""

    def take(self, listed: sftp.Listed) -> None:
        """Take in what one READDIR has found."""

    def clear(self) -> None:
        """Forget it: the fetch begins once more."""


class Batches:
    """A sink that keeps all as it came."""

    def __init__(self) -> None:
        self.listed: list[sftp.Listed] = []

    def take(self, listed: sftp.Listed) -> None:
        """See Sink."""
        self.listed.append(listed)

    def clear(self) -> None:
        """See Sink."""
        self.listed.clear()


async def fetch_names(
    connection: Connection,
    path: bytes,
    depth_max: int,
    sink: Sink,
    opened: Slot[bytes] | None = None,
) -> None:
    """Fetch all entries of the directory at `path`, with up to `depth_max` READDIRs in flight;
    `sink` gets them as they come. `opened` is the OPENDIR, where that was made already.

    Errors: StatusError as the server says; EIO for a listing without end; those of a
    connection. Wire: OPENDIR, then READDIRs; two round trips for up to 100 names on OpenSSH, 300
    where it is far.
    """
    if opened is None:
        await connection.room()
        opened = connection.submit(HANDLE, sftp.opendir, path)
    handle = await opened
    pending: deque[Slot[sftp.Listed | None]] = deque()
    depth = min(FAR_DEPTH if connection.round_trip.is_far else 2, depth_max)
    wanted = depth
    total = empty = 0
    try:
        while True:
            if len(pending) < wanted and not (pending and pending[0].done):
                await connection.room()
                with connection.batch:
                    while len(pending) < wanted:
                        pending.append(connection.submit(LISTED, sftp.readdir, handle))
            listed = await pending[0]
            pending.popleft()
            if listed is None:
                return
            count = len(listed.names) + listed.dropped
            total += count
            empty = 0 if count else empty + 1
            if total > ENTRIES_MAX or empty > DEPTH_MAX:
                raise VfsError(errno.EIO, "the server's listing does not end")
            sink.take(listed)
            if count >= FULL_REPLY:
                if not connection.is_busy:  # with the listings of other directories
                    depth = min(2 * depth, depth_max)
                wanted = depth
            else:
                wanted = 1
    finally:
        for slot in pending:
            slot.abandon()
        connection.close_handle(handle)


def is_pipelining_refused(exc: StatusError) -> bool:
    """Tell whether a failed fetch is worth another try with one READDIR at a time.

    Servers that work on several requests at once may trip over two READDIRs on one handle.
    """
    return exc.is_vague
