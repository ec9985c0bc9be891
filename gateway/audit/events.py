"""Events: what happened, and a queue for each hook that is told of it."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import trio

from .lines import Who, line, path_fields, timestamp
from .settings import EventKind

_log = logging.getLogger(__name__)

END_SECONDS: Final = 5.0
"""How long events that wait may take when the gateway ends."""


class DeliveryError(Exception):
    """A hook did not take an event, and will not; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened. `time` is seconds since 1970; `target` is the new name of a
    rename. `octets` and `is_complete` are those of a transfer.

    A transfer is complete when the client itself has closed the handle, and nothing went wrong
    with it. Whether it has read as much as it wanted, no server knows.
    """

    kind: EventKind
    time: float
    who: Who
    path: bytes
    target: bytes | None = None
    octets: int | None = None
    is_complete: bool | None = None

    def as_json(self) -> bytes:
        """Return the event as one JSON object."""
        who = self.who
        fields: dict[str, Any] = {
            "event": self.kind.value,
            "time": timestamp(self.time),
            "session": who.session,
            "account": who.account,
            "source": who.address,
            **path_fields("path", self.path),
        }
        if self.target is not None:
            fields |= path_fields("target", self.target)
        if self.octets is not None:
            fields["octets"] = self.octets
        if self.is_complete is not None:
            fields["complete"] = self.is_complete
        return line(fields)

    def as_environment(self) -> dict[str, str]:
        """Return the event as environment variables; octets of paths are as they are."""
        found = {
            "SYSPUFFS_EVENT": self.kind.value,
            "SYSPUFFS_TIME": timestamp(self.time),
            "SYSPUFFS_SESSION": self.who.session,
            "SYSPUFFS_ACCOUNT": self.who.account,
            "SYSPUFFS_SOURCE": self.who.address,
            "SYSPUFFS_PATH": os.fsdecode(self.path),
        }
        if self.target is not None:
            found["SYSPUFFS_TARGET"] = os.fsdecode(self.target)
        if self.octets is not None:
            found["SYSPUFFS_OCTETS"] = str(self.octets)
        if self.is_complete is not None:
            found["SYSPUFFS_COMPLETE"] = "yes" if self.is_complete else "no"
        return found


Deliver = Callable[[Event], Awaitable[None]]
"""Tells one hook of one event. Errors: DeliveryError."""


class QueueStatistics(NamedTuple):
    """Events so far, and those that wait or are under way now."""

    delivered: int
    dead: int
    queued: int


class EventQueue:
    """The events of one hook. `put` never waits; `run` delivers until cancelled.

    What there is no room for, and what the hook does not take, are dead letters: counted, and
    written to the log as a whole.
    """

    def __init__(
        self,
        name: str,
        kinds: frozenset[EventKind],
        deliver: Deliver,
        *,
        parallel: int,
        queue_max: int,
    ) -> None:
        self.name = name
        self.kinds = kinds
        self._deliver = deliver
        self._parallel = parallel
        self._queue_max = queue_max
        self._queue: deque[Event] = deque()
        self._under_way = 0
        self._wake = trio.Event()
        self._is_ending = False
        self._delivered = 0
        self._dead = 0

    def statistics(self) -> QueueStatistics:
        """Return the figures of now."""
        return QueueStatistics(self._delivered, self._dead, len(self._queue) + self._under_way)

    def put(self, event: Event) -> None:
        """Have the hook told of an event."""
        if len(self._queue) >= self._queue_max:
            self._bury(event, "too many events wait")
            return
        self._queue.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled; what is left then has some seconds more."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._parallel):
                    nursery.start_soon(self._work)
        finally:
            self._is_ending = True
            with trio.move_on_after(END_SECONDS, shield=True):
                async with trio.open_nursery() as nursery:
                    for _ in range(self._parallel):
                        nursery.start_soon(self._work)
            while self._queue:
                self._bury(self._queue.popleft(), "the gateway ends")

    async def _work(self) -> None:
        while True:
            while not self._queue:
                if self._is_ending:
                    return
                self._wake = trio.Event() if self._wake.is_set() else self._wake
                await self._wake.wait()
            event = self._queue.popleft()
            self._under_way += 1
            try:
                await self._deliver(event)
            except DeliveryError as exc:
                self._bury(event, str(exc))
            except Exception as exc:
                _log.error("%s: a fault of ours", self.name, exc_info=exc)
                self._bury(event, "a fault of ours")
            except trio.Cancelled:
                if self._is_ending:
                    self._bury(event, "the gateway ends")
                else:
                    self._queue.appendleft(event)  # once more, in the seconds that are left
                raise
            else:
                self._delivered += 1
            finally:
                self._under_way -= 1

    def _bury(self, event: Event, why: str) -> None:
        self._dead += 1
        _log.error("%s was not told: %s: %s", self.name, why, event.as_json().decode().rstrip())


class Events:
    """All hooks. `put` never waits; `run` delivers until cancelled."""

    def __init__(self, queues: Sequence[EventQueue]) -> None:
        self.queues = tuple(queues)
        self.kinds = frozenset(kind for queue in queues for kind in queue.kinds)

    def put(self, event: Event) -> None:
        """Tell each hook that wants to know."""
        for queue in self.queues:
            if event.kind in queue.kinds:
                queue.put(event)

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with trio.open_nursery() as nursery:
            for queue in self.queues:
                nursery.start_soon(queue.run)
