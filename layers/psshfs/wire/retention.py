"""What a lost connection keeps: the requests that it owes an answer, and those made meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import trio

from ....native.errors import VfsError
from .slot import Slot


class Retention:
    """Requests in their order, and for how long each has been without a connection.

    A request that is lost several times counts from the first; times are trio's.
    """

    __slots__ = ("_since", "_verdict", "slots")

    def __init__(self) -> None:
        self.slots: dict[Slot[Any], bool] = {}
        """Whether each was sent before the loss."""
        self._since: dict[Slot[Any], float] = {}
        self._verdict = 0

    def lose(self, slots: Iterable[Slot[Any]]) -> None:
        """Keep what was sent and not answered, but for that which nobody waits for."""
        now = trio.current_time()
        since, self._since = self._since, {}
        for slot in slots:
            if not slot.is_abandoned:
                self.slots[slot] = True
                self._since[slot] = since.get(slot, now)

    def add(self, slot: Slot[Any], why: str) -> None:
        """Keep a request that was made meanwhile. Errors: what `give_up` said, because of `why`."""
        if self._verdict:
            raise VfsError(self._verdict, why)
        self.slots[slot] = False

    def give_up(self, number: int, age: float) -> None:
        """Fail all requests with errno `number`, and those made until `take`; with `age` only
        those that were lost for the first time so many seconds ago."""
        until = trio.current_time() - age
        if not age:
            self._verdict = number
        for slot in list(self.slots):
            if not age or self._since.get(slot, until + 1) <= until:
                del self.slots[slot]
                slot.fail(number)

    def take(self) -> list[Slot[Any]]:
        """Return what is still wanted and keep nothing."""
        slots = [slot for slot in self.slots if not slot.done and not slot.is_abandoned]
        self.slots.clear()
        self._verdict = 0
        return slots
