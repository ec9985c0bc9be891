"""Sleep queues: tsleep and wakeup on anything."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled


class Sleeper(NamedTuple):
    """Who sleeps on what."""

    name: str
    wmesg: str
    ident: object


class _Queue:
    """The sleepers of one ident, oldest first, each with its wmesg. It is there while they are."""

    __slots__ = ("ident", "sleepers")

    def __init__(self, ident: object) -> None:
        self.ident = ident  # kept, so that nothing else gets its address meanwhile
        self.sleepers: dict[Task, str] = {}


_queues: Final[dict[int, _Queue]] = {}
"""By the address of the ident: it need not be hashable, and equal ones are not the same."""


async def tsleep(ident: object, wmesg: str, timo: float = math.inf, *, catch: bool = False) -> bool:
    """Sleep until `wakeup(ident)`, for `timo` seconds at most; return whether it was woken.

    `wmesg` says to people what is waited for. With `catch` cancellation interrupts the sleep
    (PCATCH), otherwise it does not. Always yields. Between the look at what is waited for and the
    sleep there must be no await, and for a real thread both are in one `blocking` call; else the
    wakeup comes too early. Who cannot have that uses a Condvar.
    """
    if timo == math.inf:
        await _sleep(ident, wmesg, catch)
        return True
    with trio.move_on_after(timo, shield=not catch) as scope:
        await _sleep(ident, wmesg, True)
    return not scope.cancelled_caught


async def _sleep(ident: object, wmesg: str, catch: bool) -> None:
    task = current_task()
    queue = _queues.get(id(ident))
    if queue is None:
        queue = _queues[id(ident)] = _Queue(ident)
    queue.sleepers[task] = wmesg

    def abort(_: RaiseCancelT) -> Abort:
        if not catch:
            return Abort.FAILED
        del queue.sleepers[task]
        if not queue.sleepers:
            del _queues[id(ident)]
        return Abort.SUCCEEDED

    await wait_task_rescheduled(abort)


def wakeup(ident: object) -> None:
    """Wake all who sleep on `ident`."""
    queue = _queues.pop(id(ident), None)
    if queue is not None:
        for task in queue.sleepers:
            reschedule(task)


def wakeup_one(ident: object) -> None:
    """Wake who has slept longest on `ident`, if anybody does."""
    queue = _queues.get(id(ident))
    if queue is not None:
        task = next(iter(queue.sleepers))
        del queue.sleepers[task]
        if not queue.sleepers:
            del _queues[id(ident)]
        reschedule(task)


def sleepers() -> list[Sleeper]:
    """Return who sleeps now: what `ps` shows."""
    return [
        Sleeper(task.name, wmesg, queue.ident)
        for queue in _queues.values()
        for task, wmesg in queue.sleepers.items()
    ]
