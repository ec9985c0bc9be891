"""What becomes of a request whose caller gets a signal.

The host tells when the caller of a request got a signal, whichever it is. It goes on waiting for
our answer even if the caller is being killed, so the answer decides when ^C and timeout(1) take
effect:

* Nothing happens for _GRACE_SECONDS, in which nearly all requests end as usual; later only for
  signals that are meant to end the program. Then the answer is EINTR. It is nothing that programs
  expect of a file: git takes a signal each second to show its progress, Go programs interrupt
  their own threads all the time, and none of them tries stat(2) again. So only signals by which
  people end programs count, and those that would kill: the host marks SIGKILL as pending for each
  of these that it can.
* What only asks (`ASKING`) is cancelled with that.
* What changes something goes on to its end, without a caller: whether it has happened, nobody can
  tell halfway. What its answer would have told the host is taken back (a lookup, an open file), an
  error of a write or of a flush is told to the next that asks for durability through that file.
  At most _ORPHANS_MAX go on like this; further ones are cancelled, and may have happened.
* Who waits for a lock may wait for ever, and any signal ends that, at once (locking.py).
"""

from __future__ import annotations

import signal
from errno import EINTR
from typing import Final

import trio

from ...native import device_replies
from ...native.fuse_protocol import Opcode
from .device import Device
from .worker import Worker

_GRACE_SECONDS: Final = 0.25
_ORPHANS_MAX: Final = 64

ASKING: Final = frozenset(
    {
        Opcode.LOOKUP,
        Opcode.GETATTR,
        Opcode.READLINK,
        Opcode.READ,
        Opcode.STATFS,
        Opcode.GETXATTR,
        Opcode.LISTXATTR,
        Opcode.ACCESS,
        Opcode.READDIRPLUS,
    }
)
"""What changes nothing, and is given up with its caller."""

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


class Interrupts:
    """The requests whose callers got a signal, and those that go on without a caller."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._workers: set[Worker] = set()
        self._orphans = 0

    def add(self, worker: Worker) -> bool:
        """Note a signal for who waits for a request; return whether `watch` is to begin now."""
        is_first = not self._workers
        worker.is_interrupted = True
        self._workers.add(worker)
        return is_first

    def ended(self, worker: Worker) -> None:
        """Note that the request of a worker that was interrupted has ended."""
        self._workers.discard(worker)
        worker.is_interrupted = False
        if worker.is_answered:
            worker.is_answered = False
            self._orphans -= 1

    async def watch(self) -> None:
        """Answer those whose callers are to end, for as long as there are any to look at."""
        while True:
            await trio.sleep(_GRACE_SECONDS)
            for worker in list(self._workers):
                if is_to_end(worker.request.pid):
                    self._workers.discard(worker)
                    self._let_go(worker)
            if not self._workers:
                return

    def _let_go(self, worker: Worker) -> None:
        request = worker.request
        self._device.reply(device_replies.error(request.unique, EINTR))
        worker.is_answered = True
        self._orphans += 1
        if request.opcode in ASKING or self._orphans > _ORPHANS_MAX:
            worker.scope.cancel()
