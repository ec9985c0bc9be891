"""Answers to READs and WRITEs of one handle leave in the order of the requests.

The protocol lets them leave in any order, and the file server below may end them in any. But
OpenSSH's scp and sftp (9.2, measured) cut the file after an upload or download to where they know
that everything has arrived, and they know so no further than the answers came in order: with
answers out of order, a file of 3,000,001 octets ended with 261,120, and scp reported success.
"""

from __future__ import annotations

from collections import deque
from typing import Any


class Due:
    """One answer that is owed: its `reply` once it is there, which takes so many `octets`."""

    __slots__ = ("octets", "reply")

    def __init__(self) -> None:
        self.reply: Any = None
        self.octets = 0


def whole_front(queue: deque[Due]) -> list[Due]:
    """Take from `queue` the answers that none is owed before any more, and return them."""
    front = []
    while queue and queue[0].reply is not None:
        front.append(queue.popleft())
    return front
