"""The mount name space of a caught program: who lives in it, and what is seen in it.

It is the program's own, and all that the program starts is in it, wherever in the tree of processes
that has gone: so nothing of it is left behind by who ends what lives there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

_POLL: Final = 0.02
_STAND_IN: Final = str(Path(__file__).with_name("standin.py"))


class NameSpace:
    """The name space in which process `pid` lives, held until `close`. Errors: OSError."""

    def __init__(self, pid: int) -> None:
        self._mnt = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._mnt)
            raise
        self._name = os.readlink(f"/proc/self/fd/{self._mnt}")
        self._is_ours = self._name == os.readlink("/proc/self/ns/mnt")

    def close(self) -> None:
        """Let go of it."""
        os.close(self._mnt)
        os.close(self._user)

    async def cover(self, directory: str) -> None:
        """See to it that `directory` is a mount there, as it is here; see `standin`.

        Where that fails the program sees its mount point as it was, which hardly any minds.
        """
        fds = (self._user, self._mnt)
        await trio.run_process(
            [sys.executable, "-IS", _STAND_IN, *map(str, fds), directory],
            check=False,
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _has(self, pid: str) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/ns/mnt") == self._name
        except OSError:
            return False

    def send(self, number: int) -> bool:
        """Send a signal (0: none) to all that live in it; return whether there were any.

        Nobody, if it is our own: then the program was not caught in one of its own.
        """
        found = False
        if self._is_ours:
            return found
        for pid in os.listdir("/proc"):
            if not pid.isdigit() or not self._has(pid):
                continue
            with suppress(OSError):
                process = os.pidfd_open(int(pid))
                try:
                    # Once more: the number may have gone to another one in between.
                    if self._has(pid) and not _is_zombie(pid):
                        found = True
                        signal.pidfd_send_signal(process, number)
                finally:
                    os.close(process)
        return found

    async def emptied(self, number: int, seconds: float) -> bool:
        """Send `number` to all in it and wait until it is empty; return whether it is by then."""
        with trio.move_on_after(seconds):
            self.send(number)
            while self.send(0):
                await trio.sleep(_POLL)
            return True
        return False


def _is_zombie(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
