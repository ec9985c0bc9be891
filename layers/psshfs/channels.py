"""Further SFTP sessions with the same server, for the data of long files on long links.

One channel of SSH moves what its window holds in a round trip, 2 MiB with OpenSSH, whatever the
link could carry. When that shows to be the limit, further sessions are opened, and a file whose
data are read or written one after the other is opened on each of them: a *twin* of its handle.
READs and WRITEs go to where least is under way. Everything else stays on the main session, and so
does a file of which a twin cannot be had.

A twin is opened by path, which may lead to another file by then. So it is taken only when both
handles show the same attributes while no write is under way; otherwise the file stays
with the one handle that is surely right. What was under way on a session that ends is
asked or sent once more on the main one.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from socket import socket
from typing import Final

import trio

from ...native import sftp
from ...native.errors import VfsError
from .connection import Connection, open_connection
from .pace import Pace
from .slot import ATTRS, HANDLE
from .ssh.failure import ConnectError

_log = logging.getLogger(__name__)

Opener = Callable[[], AbstractAsyncContextManager[socket]]
"""Opens another stream to the same server, without questions to anybody; ConnectError."""

CHANNEL_FULL: Final = 800_000
"""Octets in flight, bandwidth times delay, from which on the window of one channel counts as the
limit: two fifths of OpenSSH's. It is opened again in steps, and what the ends take for their work
counts as delay, too: at 20 ms one channel reaches half of what its window allows."""
ROUND_TRIP_MIN: Final = 0.004
"""Seconds below which one channel carries 500 MB/s, and others would only cost."""
OPEN_TIME: Final = 30.0
"""Seconds that a further session may take to come."""
RETRY: Final = 60.0
"""Seconds after which a server that refused a session is asked again."""

Route = tuple[Connection, bytes]
"""A session and what it calls a file."""


class Channels:
    """The sessions of a mount: `connection`, the main one, and others that `opener` gives.

    There are `most` in all; without an opener there is one. `timeout` is as for `open_connection`.
    Tasks belong to `nursery`; when it is cancelled the sessions end.
    """

    def __init__(
        self,
        connection: Connection,
        nursery: trio.Nursery,
        opener: Opener | None,
        most: int,
        timeout: float,
    ) -> None:
        self.connection = connection
        self._nursery = nursery
        self._opener = opener if most > 1 else None
        self._most = most
        self._timeout = timeout
        self._further: list[Connection] = []
        self._coming = 0
        self._retry_at = 0.0
        self._routes: dict[bytes, list[Route]] = {}
        self._changed = trio.Event()

    @property
    def count(self) -> int:
        """How many sessions there are, the main one among them."""
        return 1 + len(self._further)

    def route(self, handle: bytes) -> Route:
        """Return where the next data of a file go, `handle` being the main session's."""
        best: Route = (self.connection, handle)
        routes = self._routes.get(handle)
        if routes is not None:
            least = self.connection.in_flight
            for route in routes:
                connection = route[0]
                if connection.in_flight < least and not connection.is_broken:
                    best, least = route, connection.in_flight
        return best

    def is_spread(self, handle: bytes) -> bool:
        """Tell whether data of a file may be under way on several sessions."""
        return bool(self._routes.get(handle))

    def is_wanted(self, handle: bytes, pace: Pace) -> bool:
        """Tell whether `pace` says that one session is too few, and nothing was done about it."""
        return (
            pace.in_flight >= CHANNEL_FULL
            and self.connection.round_trip.seconds >= ROUND_TRIP_MIN
            and self._opener is not None
            and handle not in self._routes
            and (bool(self._further) or trio.current_time() >= self._retry_at)
        )

    def spread(
        self,
        handle: bytes,
        pflags: int,
        path: Callable[[], bytes | None],
        still: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Have twins of `handle` opened, with `pflags`, in the background.

        `path` gives the present path, None when there is none that may be used now; no write of
        the file is under way within `still`.
        """
        routes = self._routes[handle] = []
        self._nursery.start_soon(self._spread, routes, handle, pflags, path, still)

    def close(self, handle: bytes) -> None:
        """Close a file on all sessions; nobody hears the answers."""
        for connection, twin in self._routes.pop(handle, ()):
            connection.close_handle(twin)
        self.connection.close_handle(handle)

    # Twins.

    async def _spread(
        self,
        routes: list[Route],
        handle: bytes,
        pflags: int,
        path: Callable[[], bytes | None],
        still: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        await self._grow()
        where = path()
        if where is None or self._routes.get(handle) is not routes:
            return  # closed meanwhile
        opened: list[Route] = []
        try:
            for connection in list(self._further):
                with suppress(VfsError):
                    opened.append(
                        (connection, await connection.submit(HANDLE, sftp.open_, where, pflags))
                    )
            if not opened:
                return
            async with still():
                asked = [self.connection.submit(ATTRS, sftp.fstat, handle)]
                asked += [connection.submit(ATTRS, sftp.fstat, twin) for connection, twin in opened]
                known = await asked[0]
                for route, slot in zip(list(opened), asked[1:], strict=True):
                    await slot.wait()
                    same = not slot.is_failed and slot.result()[:4] == known[:4]
                    same = same and slot.result().mtime == known.mtime and known.size is not None
                    if same and self._routes.get(handle) is routes:
                        routes.append(route)
                        opened.remove(route)
        except VfsError as exc:
            _log.info("a file stays with one channel: %s", exc)
        finally:
            for connection, twin in opened:
                connection.close_handle(twin)

    # Sessions.

    async def _grow(self) -> None:
        """Open the further sessions, unless they are there; return when no more will come."""
        while self._coming:
            await self._changed.wait()
        if self._further or trio.current_time() < self._retry_at:
            return
        self._coming = self._most - 1
        for _ in range(self._coming):
            self._nursery.start_soon(self._keep)
        while self._coming:
            await self._changed.wait()
        if self._further:
            _log.info("%d channels carry data from now on", self.count)
        else:
            self._retry_at = trio.current_time() + RETRY

    async def _keep(self) -> None:
        """Keep one further session from its opening to its end."""
        is_coming = True
        try:
            with trio.CancelScope(deadline=trio.current_time() + OPEN_TIME) as scope:
                async with _session(self._opener, self._timeout) as connection:
                    connection.packet_max = self.connection.packet_max
                    connection.loss_level = logging.INFO  # nothing is lost with it
                    scope.deadline = float("inf")
                    self._further.append(connection)
                    is_coming = False
                    self._came()
                    main = self.connection
                    lost = main.lost  # another one once it is back
                    try:
                        # With the main session goes what its handles were: all twins, too.
                        await _either(connection.broken.wait, lost.wait, main.broken.wait)
                    finally:
                        self._further.remove(connection)
                        for routes in self._routes.values():
                            routes[:] = [route for route in routes if route[0] is not connection]
                        if lost.is_set():
                            self._routes.clear()
                    if not main.broken.is_set():
                        # Raised for the stream's sake: nothing that is sent again elsewhere may
                        # arrive from here as well.
                        raise VfsError(errno.ENOTCONN, connection.cause or main.loss)
        except (ConnectError, VfsError) as exc:
            _log.info("no further channel: %s", exc)
        finally:
            if is_coming:
                self._came()

    def _came(self) -> None:
        self._coming -= 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()


@asynccontextmanager
async def _session(opener: Opener | None, timeout: float) -> AsyncIterator[Connection]:
    assert opener is not None
    async with opener() as stream, open_connection(stream, timeout=timeout) as connection:
        version, _ = await connection.greet()
        if version != 3:
            raise VfsError(errno.EPROTO, f"the server speaks SFTP version {version}, not 3")
        yield connection


async def _either(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of several waits is over."""

    async def first(wait: Callable[[], Awaitable[object]]) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(first, wait)
