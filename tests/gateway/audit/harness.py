"""A served tree whose sessions are recorded, and listeners for what comes of it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from syspuffs.gateway.audit import Recorder, Who
from syspuffs.gateway.sftp import Export, Session, View

from ...support.sftp_end import SELF
from ..sftp.harness import Wire

WHO = Who("s1", "alice", ("192.0.2.1", 50222), "publickey", "SSH-2.0-test")


@asynccontextmanager
async def recorded(
    recorder: Recorder, export: Export, *, who: Who = WHO, start: bytes = b"", **options: Any
) -> AsyncIterator[Wire]:
    """Serve one session as the gateway does, and give its client."""
    near, far = socket.socketpair()
    for end in (near, far):
        end.setblocking(False)
    view = View(export, SELF, start=start)
    journal = recorder.journal(who, view)
    session = Session(view, far.fileno(), far.fileno(), journal=journal, **options)

    async def serve() -> None:
        with far, recorder.session(who, session, journal):
            await session.serve()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        wire = Wire(near)
        await wire.greet()
        yield wire
        await wire.stream.aclose()


def lines(octets: bytes) -> list[dict[str, Any]]:
    """Return the objects of an audit."""
    assert octets == b"" or octets.endswith(b"\n")
    return [json.loads(line) for line in octets.splitlines()]


async def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something is so that a process or a thread brings about."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)
