"""INIT: what both sides can do, and what follows from it."""

from __future__ import annotations

from errno import EPROTO, ETIMEDOUT
from typing import Final, NamedTuple

import trio

from ...native import fuse_replies, fuse_requests
from ...native.errors import VfsError
from ...native.fuse_protocol import MAJOR, MINOR, MINOR_MIN, InitFlag, InitReply
from ...native.records import FSCRED
from .connection import DATA_MAX, Connection

_SECONDS: Final = 30.0
"""How long a server may take to begin. Those that reach out over a network do so before."""
_PAGE: Final = 4096
_PAGES: Final = 32
"""What a message carries at most without InitFlag.MAX_PAGES, pages."""

# DONT_MASK costs nothing, for who asked us has taken his umask from the mode, and there are servers
# (fuse-overlayfs) which do not begin without it.
_OFFERED: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.POSIX_LOCKS
    | InitFlag.FLOCK_LOCKS
    | InitFlag.BIG_WRITES
    | InitFlag.DONT_MASK
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.NO_OPEN_SUPPORT
    | InitFlag.NO_OPENDIR_SUPPORT
    | InitFlag.EXPLICIT_INVAL_DATA
)


class Session(NamedTuple):
    """What was agreed on. Sizes are octets of data in one message."""

    minor: int
    read_max: int
    write_max: int
    readdirplus: bool
    locks: bool
    flocks: bool


async def open_session(connection: Connection) -> Session:
    """Begin. Errors: EPROTO another protocol; ETIMEDOUT no answer; ENOTCONN the server ended."""
    with trio.move_on_after(_SECONDS):
        reply = await connection.ask(
            fuse_requests.init,
            *(0, FSCRED, MAJOR, MINOR, DATA_MAX, int(_OFFERED)),
            decode=fuse_replies.init,
        )
        return _agreed(reply)
    raise VfsError(ETIMEDOUT, "the FUSE server does not answer INIT")


def _agreed(reply: InitReply) -> Session:
    if reply.major != MAJOR or reply.minor < MINOR_MIN:
        raise VfsError(EPROTO, f"the server speaks FUSE {reply.major}.{reply.minor}")
    flags = InitFlag(reply.flags) & _OFFERED
    pages = reply.max_pages if flags & InitFlag.MAX_PAGES and reply.max_pages else _PAGES
    data_max = min(pages * _PAGE, DATA_MAX)
    return Session(
        minor=min(reply.minor, MINOR),
        read_max=data_max,
        write_max=min(max(reply.max_write, _PAGE), data_max),
        readdirplus=InitFlag.DO_READDIRPLUS in flags,
        locks=InitFlag.POSIX_LOCKS in flags,
        flocks=InitFlag.FLOCK_LOCKS in flags,
    )
