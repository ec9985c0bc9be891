"""Further SFTP sessions with the same server, for the data of long files on long links.

One channel of SSH moves what its window holds in a round trip, 2 MiB with OpenSSH, whatever the
link could carry. When that shows to be the limit, further sessions are opened, and a file whose
data are read or written one after the other is opened on each of them: a *twin* of its handle.
READs and WRITEs go to where least is under way. Everything else stays on the main session, and so
does a file of which a twin cannot be had.

A twin is opened by path, which may lead to another file by then. So it is taken only when it is
seen to grow with our writes, or when both handles show the same attributes while no write is under
way; otherwise the file stays with the one handle that is surely right. What was under way on a
session that ends is asked or sent once more on the main one.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from socket import socket
from typing import TYPE_CHECKING, Final

import trio

from ....native import sftp
from ....native.errors import VfsError
from ..ssh.failure import ConnectError
from .connection import Connection, open_connection
from .pace import Pace
from .slot import ATTRS, HANDLE, Slot

if TYPE_CHECKING:
    from ..data.writebehind import WriteBehind

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
LOOKS: Final = 16
"""How often the size of a file that grows is looked at, an acknowledgement or more apart; once
will do, but on a way on which the octets come in bursts."""

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
        writes: WriteBehind,
        pace: Pace,
    ) -> None:
        """Have twins of `handle` opened, with `pflags`, in the background.

        `path` gives the present path, None when there is none that may be used now; `writes` are
        those of the file, and `pace` is that of the direction which needs the twins.
        """
        routes = self._routes[handle] = []
        self._nursery.start_soon(self._spread, routes, handle, pflags, path, writes, pace)

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
        writes: WriteBehind,
        pace: Pace,
    ) -> None:
        opened: list[Route] = []
        try:
            # Asked for now: behind the data of a reader the answer is some round trips late.
            known = self.connection.submit(ATTRS, sftp.fstat, handle) if writes.is_idle else None
            await self._grow()
            where = path()
            if where is None or self._routes.get(handle) is not routes:
                return  # closed meanwhile
            first: list[Slot[sftp.Attrs]] = []
            least = writes.end_answered
            asked = []
            for connection in self._further:
                # Suppressed is the end of one that its keeper has yet to hear of.
                with suppress(VfsError), connection.batch:
                    slot = connection.submit(HANDLE, sftp.open_, where, pflags)
                    # What was opened: nobody replaces a file between two requests, and does so
                    # twice.
                    look = connection.submit(ATTRS, sftp.stat, where)
                    asked.append((connection, slot, look))
            for connection, slot, look in asked:
                with suppress(VfsError):
                    opened.append((connection, await slot.after(look)))
                    first.append(look)
            same = [] if known is None else _alike(opened, first, await known)
            same = same or await _growing(opened, writes, (least, first))
            same = same or await self._equal(opened, handle, writes)
            if same and self._routes.get(handle) is routes:
                routes += same
                opened = [route for route in opened if route not in same]
                pace.expect(1 + len(same))
        except VfsError as exc:
            _log.info("a file stays with one channel: %s", exc)
        finally:
            for connection, twin in opened:
                connection.close_handle(twin)

    async def _equal(self, opened: list[Route], handle: bytes, writes: WriteBehind) -> list[Route]:
        """Return the twins that show what `handle` shows while no write is under way."""
        if not opened:
            return []
        async with writes.still():
            main = self.connection.submit(ATTRS, sftp.fstat, handle)
            asked = [connection.submit(ATTRS, sftp.fstat, twin) for connection, twin in opened]
            known = await main
            for slot in asked:
                await slot.wait()
            return _alike(opened, asked, known)

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
            _log.info("a further channel %s: %s", "did not come" if is_coming else "is gone", exc)
        finally:
            if is_coming:
                self._came()

    def _came(self) -> None:
        self._coming -= 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def _alike(opened: list[Route], looks: list[Slot[sftp.Attrs]], known: sftp.Attrs) -> list[Route]:
    """Return the twins that show what their file has shown on the main session."""
    return [
        route
        for route, look in zip(opened, looks, strict=True)
        if not look.is_failed
        and known.size is not None
        and look.result()[:4] == known[:4]
        and look.result().mtime == known.mtime
    ]


Look = tuple[int, list[Slot[sftp.Attrs]]]
"""How far a file reached for sure when its attributes were asked for, and the answers."""


async def _growing(opened: list[Route], writes: WriteBehind, first: Look) -> list[Route]:
    """Return the twins whose file grows as ours does: longer with time, and never shorter than
    what has been acknowledged nor longer than what has been sent. `first` came with the twins.

    That is no other file's way, and no write has to wait for it. None where nothing grows now.
    """
    looks: deque[Look] = deque([first])
    grown: dict[Route, list[int]] = {route: [] for route in opened}

    def compare() -> None:
        least, slots = looks.popleft()
        for route, slot in zip(opened, slots, strict=True):
            size = None if slot.is_failed else slot.result().size
            if size is None or not least <= size <= writes.end_sent:
                grown.pop(route, None)
            elif route in grown:
                grown[route].append(size)

    def is_grown(route: Route) -> bool:
        seen = grown.get(route, ())
        return len(seen) > 1 and seen[0] < seen[-1]

    for _ in range(LOOKS):
        while looks and all(slot.done for slot in looks[0][1]):
            compare()
        if writes.is_idle or all(is_grown(route) for route in grown):
            break
        least = writes.end_answered
        slots = [connection.submit(ATTRS, sftp.fstat, twin) for connection, twin in opened]
        looks.append((least, slots))
        await writes.change()
    while looks and not all(is_grown(route) for route in grown):
        for slot in looks[0][1]:
            await slot.wait()
        compare()
    return [route for route in opened if is_grown(route)]


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
