"""How much room there is at the server.

Programs that go through a tree (find, grep, rm: fts(3)) ask it of each directory that they have
just read, so on a long link the question is sent together with the READDIRs and need not be
waited for. An answer does for a second, unless we change something, and for who goes on to ask the
next one is fetched meanwhile.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from ....native import sftp
from ....native.constants import NAME_MAX
from ....native.errors import VfsError
from ....native.records import Statvfs
from ..tree.attributes import SIZE_MAX
from ..wire.connection import Connection
from ..wire.errmap import StatusError
from ..wire.slot import STATVFS, Slot

if TYPE_CHECKING:
    from ..tree.nodetable import NodeTable

ANSWER_MAX: Final = 5.0
"""Seconds that an answer is waited for before the last one is given."""
FRESH: Final = 10**9
"""Age up to which an answer to a question that was sent ahead is given, ns."""


class _Asked(NamedTuple):
    slot: Slot[Statvfs]
    at: int
    stamp: int


class Space:
    """The state of the mounted directory's file system, by statvfs@openssh.com."""

    def __init__(self, connection: Connection, table: NodeTable, clock: Callable[[], int]) -> None:
        self._connection = connection
        self._table = table
        self._clock = clock
        self._last = Statvfs(namemax=NAME_MAX)
        self._ahead: _Asked | None = None

    def ask(self) -> None:
        """Send the question for somebody who may come, unless that was done just now."""
        ahead = self._ahead
        if ahead is not None and self._is_fresh(ahead):
            return
        try:
            self._ahead = self._submit()
        except VfsError:
            self._ahead = None
            return
        self._ahead.slot.shared = True

    async def look(self) -> Statvfs:
        """Return the state; the last one that was heard after ANSWER_MAX, zeros where none was:
        umount(8) asks first, and must not wait for a network that is gone.

        Errors: the server's, but for a server that does not know the request.
        """
        asked = self._ahead
        if asked is None or not self._is_fresh(asked):
            self._ahead = None
            asked = self._submit()
            if self._connection.round_trip.is_far:
                asked.slot.shared = True
                self._ahead = asked
        elif self._clock() - asked.at > FRESH // 2:
            self._ahead = None
            self.ask()
        try:
            with trio.move_on_after(ANSWER_MAX):
                state = await asked.slot
                self._last = Statvfs(*(min(value, SIZE_MAX) for value in state))
        except StatusError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
        return self._last

    def _submit(self) -> _Asked:
        path = self._table.path(self._table.root)
        slot = self._connection.submit(STATVFS, sftp.statvfs, path)
        return _Asked(slot, self._clock(), self._table.changes)

    def _is_fresh(self, asked: _Asked) -> bool:
        return asked.stamp == self._table.changes and self._clock() - asked.at <= FRESH
