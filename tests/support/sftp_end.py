"""The SFTP end of the gateway in the test process: sessions whose clients hold a socket."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from syspuffs.gateway.sftp import Export, Session, View
from syspuffs.native.records import Cred

from .target import UMASK

SELF = Cred(os.geteuid(), os.getegid(), tuple(os.getgroups()), os.getpid())


@asynccontextmanager
async def sftp_session(
    export: Export,
    *,
    start: bytes = b"",
    handles_max: int = 1024,
    cred: Cred = SELF,
    **options: Any,
) -> AsyncIterator[tuple[socket.socket, Session]]:
    """Serve one session of `export`; give the client's end of its socket, and the session.

    The session is over when the block has been left: the client's end is closed there.
    """
    near, far = socket.socketpair()
    far.setblocking(False)
    near.setblocking(False)
    view = View(export, cred, umask=UMASK, user=b"me", start=start, handles_max=handles_max)
    session = Session(view, far.fileno(), far.fileno(), **options)

    async def serve() -> None:
        with far:
            await session.serve()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            with near:
                yield near, session
        except BaseException:
            nursery.cancel_scope.cancel()
            raise


@asynccontextmanager
async def sftp_client_of(export: Export, **options: Any) -> AsyncIterator[socket.socket]:
    """The same, for who wants the client's end alone."""
    async with sftp_session(export, **options) as (near, session):
        yield near
    assert session.failures == 0
    assert session.cause == "" or "client" in session.cause
