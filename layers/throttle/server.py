"""Throttle: the FileServer that takes its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from ..bandwidth import Bucket
from ..operations import Operation
from ..ops import FileServer
from ..passing import Answers, Around

_FREE: Final = frozenset({"unmount", "inactive"})
"""Operations that nobody asks for: they are how the kernel above lets go."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it may go. None: as fast as it can.

    `operations` and `octets` are by the second; `latency` is what each operation takes longer,
    in seconds.
    """

    operations: int | None = None
    octets: int | None = None
    latency: float = 0.0


class Throttle(Around):
    """A server that waits before each operation, and for the octets of reads and writes.

    A write waits before it is made, a read after it, for only then its length is known. What is
    fire-and-forget passes at once and free, and so does what the kernel above does to let go.
    """

    name = "throttle"

    def __init__(self, below: FileServer, pace: Pace) -> None:
        self.options = pace
        self._latency = pace.latency
        self._operations = None if pace.operations is None else Bucket(pace.operations)
        self._octets = None if pace.octets is None else Bucket(pace.octets)
        super().__init__(below)

    def around(self, operation: Operation, call: Callable[..., Answers]) -> Callable[..., Answers]:
        """See Around."""
        if operation.name in _FREE:
            return call
        is_read, is_write = operation.name == "read", operation.name == "write"

        async def paced(*args: Any) -> Any:
            if self._operations is not None:
                await self._operations.take(1)
            if self._octets is not None and is_write:
                await self._octets.take(len(args[2]))
            if self._latency:
                await trio.sleep(self._latency)
            answer = await call(*args)
            if self._octets is not None and is_read:
                await self._octets.take(len(answer), is_done=True)
            return answer

        return paced
