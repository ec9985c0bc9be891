"""The owner of a connection: brings it back when it is lost, and knows when to give up.

The first attempt is made at once, later ones after 1, 2, 4, 8 and then every 15 seconds, and at
once when the network changes or the machine wakes up. Nothing asks a human anything: the opener
sees to that. What waits, waits in the connection (`Connection.retained`); what the
attempts are worth to those who wait is the patience.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from ....native import sftp
from ....native.errors import VfsError
from ..ssh.failure import ConnectError
from ..wire.channels import Opener
from ..wire.connection import Connection
from ..wire.slot import ONE_NAME
from .roaming import Roaming

_log = logging.getLogger(__name__)

PAUSES: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before the attempts; the last one again and again."""
ATTEMPT_MAX: Final = 30.0
"""Seconds that one attempt may take, login and all."""
PROBE: Final = 10.0
"""Seconds that a connection has to show that it has outlived a change of the network."""
LASTING: Final = 5.0
"""Where a connection lasted so long, seconds, the next attempt is made without a pause."""


class Link:
    """Keeps `connection` connected. `restore` makes it whole over a new socket, up to `resume`.

    `patience` is how long requests wait, seconds: 0 not at all (EIO), inf for ever, else they
    get ETIMEDOUT.
    """

    def __init__(
        self,
        connection: Connection,
        opener: Opener,
        restore: Callable[[], Awaitable[None]],
        *,
        patience: float,
    ) -> None:
        self._connection = connection
        self._opener = opener
        self._restore = restore
        self._patience = patience
        self._said = ""
        self.attempts = 0
        """Attempts since the last loss."""

    async def run(self) -> None:
        """Watch over the connection; ends by cancellation only."""
        async with trio.open_nursery() as nursery:
            with Roaming() as roaming:
                nursery.start_soon(self._lose_patience)
                nursery.start_soon(roaming.run)
                nursery.start_soon(self._probe, roaming)
                await self._reconnect(roaming)

    async def _reconnect(self, roaming: Roaming) -> None:
        pauses = iter(PAUSES)
        await self._connection.lost.wait()
        while True:
            pause = next(pauses, PAUSES[-1])
            if pause:
                changed = roaming.changed
                with trio.move_on_after(pause):
                    await changed.wait()
                    pauses = iter(PAUSES[1:])
            self.attempts += 1
            resumed_at = await self._attempt()
            if resumed_at is not None:
                is_good = trio.current_time() - resumed_at >= LASTING
                pauses = iter(PAUSES if is_good else PAUSES[1:])

    async def _attempt(self) -> float | None:
        """Connect and stay until the connection is lost; return since when it was whole."""
        resumed_at: float | None = None
        try:
            with trio.fail_after(ATTEMPT_MAX) as scope:
                async with self._opener() as stream:
                    self._connection.take(stream)
                    try:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._connection.serve)
                            failure = await self._restored()
                            if failure is None:
                                resumed_at = trio.current_time()
                                scope.deadline = float("inf")
                                self._rejoice()
                                await self._connection.lost.wait()
                                failure = VfsError(errno.ENOTCONN)
                            nursery.cancel_scope.cancel()
                    finally:
                        if resumed_at is None:
                            self._connection.drop("this attempt is over")
                    # Raised for the stream's sake: it ends a program that may hang at once.
                    raise failure
        except* (ConnectError, VfsError, OSError) as group:
            # Groups, for an opener may have nurseries.
            if resumed_at is None:
                self._say(str(group.exceptions[0]))
        except* trio.TooSlowError:
            self._say(f"no answer for {ATTEMPT_MAX:g} s")
        return resumed_at

    async def _restored(self) -> VfsError | None:
        try:
            await self._restore()
        except VfsError as exc:
            return exc
        return None

    def _rejoice(self) -> None:
        _log.warning("connected again at attempt %d", self.attempts)
        self._said = ""
        self.attempts = 0

    def _say(self, why: str) -> None:
        if why != self._said:
            self._said = why
            _log.warning("cannot connect again yet: %s", why)

    async def _lose_patience(self) -> None:
        """End the waiting of requests by the policy."""
        connection = self._connection
        while True:
            await connection.lost.wait()
            resumed = connection.resumed
            if not resumed.is_set():
                # Those that go from one loss to the next have waited before.
                if self._patience not in (0, float("inf")):
                    connection.give_up(errno.ETIMEDOUT, self._patience)
                with trio.move_on_after(self._patience) as scope:
                    await resumed.wait()
                if scope.cancelled_caught:
                    connection.give_up(errno.ETIMEDOUT if self._patience else errno.EIO)
                    await resumed.wait()
            await trio.lowlevel.checkpoint()

    async def _probe(self, roaming: Roaming) -> None:
        """Find out at once whether the connection has outlived a change of the network."""
        connection = self._connection
        while True:
            await roaming.changed.wait()
            received = connection.statistics().octets_received
            with suppress(VfsError), trio.move_on_after(PROBE) as scope:
                await connection.submit(ONE_NAME, sftp.realpath, b".")
            if scope.cancelled_caught and connection.statistics().octets_received == received:
                connection.drop("no answer since the network changed or the machine slept")
