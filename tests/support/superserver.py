"""A port where each connection gets a program of its own, as inetd has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final

from .sshd import list_descendants


class Superserver:
    """Runs `command` with each connection as its standard input and output; `with` starts and ends
    it, and all that it has started.

    It listens at `host`, an address of where the command `within` puts what it is given to run.
    """

    def __init__(
        self, command: Sequence[str], *, host: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        self.port = 0
        self._argv = [*within, sys.executable, "-c", _ACCEPT, host, *command]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Superserver:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        with self._process.stdout as said:
            self.port = int(said.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill_sessions(self) -> None:
        """Kill what every connection has."""
        assert self._process is not None
        for pid in list_descendants(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


_ACCEPT: Final = """
import os, signal, socket, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server((sys.argv[1], 0))
os.write(1, b"%d\\n" % listener.getsockname()[1])
while True:
    peer, _ = listener.accept()
    subprocess.Popen(sys.argv[2:], stdin=peer, stdout=peer)
    peer.close()
"""
