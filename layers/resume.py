"""Going on, in the same task, with a coroutine that was begun by hand.

Who has begun an operation by `send(None)` and got a trap in place of a result knows that it has to
wait; until then nothing had to be made for it. The local is called `operation` for those who look
at the frames of a task (gateway/control/frames.py).
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def resume(operation: Coroutine[Any, Any, Any], trap: Any) -> Generator[Any, Any, Any]:
    """Go on with an operation that has begun to wait in this task; return what it returns."""
    try:
        while True:
            try:
                value = yield trap
            except BaseException as exc:
                trap = operation.throw(exc)
            else:
                trap = operation.send(value)
    except StopIteration as done:
        return done.value
