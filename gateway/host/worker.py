"""One of those who read a mount's requests in turns, while it waits for one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeAlias

import trio
from trio.lowlevel import Task

from ...native.device_requests import Request, RequestBuffer
from ...native.records import Buffer

Answer: TypeAlias = bytes | tuple[bytes, Buffer]
"""A reply, or the head of one and its data."""


class Worker:
    """One worker, and the request that it waits for.

    `since` is ns of CLOCK_MONOTONIC, of when it began to wait, `operation` what waits.
    `is_interrupted`: the caller got a signal; `is_answered`: and has gone.
    """

    __slots__ = (
        "buffer",
        "is_answered",
        "is_interrupted",
        "leads",
        "operation",
        "request",
        "scope",
        "since",
        "task",
    )

    def __init__(self) -> None:
        self.task: Task = trio.lowlevel.current_task()
        self.leads = True
        self.is_answered = False
        self.is_interrupted = False
        self.since = 0
        self.request: Request
        self.operation: Coroutine[Any, Any, Answer]
        self.buffer: RequestBuffer | None = None
        """Lent to a WRITE until it is done."""
        self.scope: trio.CancelScope
