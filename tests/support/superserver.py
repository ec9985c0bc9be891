"""A port where each connection gets a program of its own, as inetd has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final


@contextmanager
def superserver(
    command: Sequence[str], *, host: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[int]:
    """Run `command` with each connection as its standard input and output; give the port.

    It is at `host`, an address of where the command `within` puts what it is given to run. All
    programs have ended when the block is left.
    """
    process = subprocess.Popen(
        [*within, sys.executable, "-c", _ACCEPT, host, *command],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        with process.stdout as said:
            yield int(said.readline())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
