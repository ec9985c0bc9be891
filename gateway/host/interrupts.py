"""Whether a program that waits for us is to end.

The host says INTERRUPT of a request when its caller gets a signal, whichever it is. An answer of
EINTR is nothing that programs expect of a file: git takes a signal each second to show its
progress, Go programs interrupt their own threads all the time, and none of them tries stat(2)
again. So only signals by which people end programs count, and those that would kill: the host marks
SIGKILL as pending for each of these that it can.
"""

from __future__ import annotations

import signal
from typing import Final

_ENDING: Final = (
    signal.SIGABRT,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGKILL,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGXCPU,
)
_MASK: Final = sum(1 << number - 1 for number in _ENDING)
_PENDING: Final = (b"SigPnd:", b"ShdPnd:")
_HELD: Final = (b"SigBlk:", b"SigIgn:")


def is_to_end(thread: int) -> bool:
    """Return whether `thread`, which waits in the host, has got a signal that is to end it.

    One that cannot be looked at (it lives in another name space of processes) is taken to have.
    Does not wait for anything but /proc.
    """
    pending = held = 0
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            for line in file:
                word, _, value = line.partition(b"\t")
                if word in _PENDING:
                    pending |= int(value, 16)
                elif word in _HELD:
                    held |= int(value, 16)
    except OSError:
        return True
    return bool(pending & ~held & _MASK)
