"""The pump process: logs in with asyncssh and moves one SFTP channel to a socket and back.

Run as `python -m syspuffs.layers.psshfs.ssh.pump DATA STATUS` with two inherited socket
descriptors. STATUS carries one JSON object a line: first our orders (see `stream._PumpWatch`),
then our events: "note" for the log, "ready" when the channel is open, "failed" with the cause
of the end. The end of STATUS or DATA is our end: nobody needs us any more.
"""

from __future__ import annotations

import ctypes.util
import json
import logging
import os
import signal
import socket
import sys
from typing import NoReturn

from .failure import Cause


def main(argv: list[str]) -> NoReturn:
    """Run the pump on the descriptors named by `argv`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What asyncio and asyncssh have to say would come between us and the user's terminal.
    logging.disable()
    data = socket.socket(fileno=int(argv[1]))
    status = socket.socket(fileno=int(argv[2]))
    for end in (data, status):
        os.set_inheritable(end.fileno(), False)
    data.setblocking(False)
    # asyncssh looks for optional libraries when it is imported. For one that ldconfig does not
    # know Python would run a compiler and a linker to be sure, each time that we start.
    for name in ("_findLib_gcc", "_findLib_ld"):
        if hasattr(ctypes.util, name):
            setattr(ctypes.util, name, lambda library: None)
    try:
        from .pumping import run_pump
    except ImportError as exc:
        text = (
            f"the built-in ssh cannot be used: {exc}; "
            "install asyncssh and uvloop, or use ssh_command=ssh"
        )
        event = {"event": "failed", "kind": Cause.NOT_FOUND.value, "text": text}
        status.sendall(json.dumps(event).encode() + b"\n")
        os._exit(1)
    # Nothing is left to be put in order, and nobody should wait for the interpreter to do so.
    os._exit(run_pump(data, status))


if __name__ == "__main__":
    main(sys.argv)
