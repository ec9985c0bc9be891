"""What a program has given to TCP and the server may not have got: none of it shall arrive later.

When a connection is given up as dead, its kernel goes on trying to send what it holds for minutes
after the program's end. Should the network come back, writes of the old connection would reach the
server behind those of the next one, and could go over newer data. A connection that is closed
with SO_LINGER and no time is reset instead, and its octets are dropped. What the server's machine
has got already is out of reach.
"""

from __future__ import annotations

import ctypes
import os
import socket as _socket
import struct
from contextlib import suppress
from typing import Final

_PIDFD_GETFD: Final = 438
"""The same number on all machines that Linux 5.6 and later run on, but for Alpha."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)


def discard_unsent(pid: int) -> None:
    """Have all TCP connections of a child end with a reset, which need not have been told to it.

    Does nothing where the kernel does not let us have its descriptors, and for what a program of
    its own (ProxyCommand) has connected.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                    fd = libc.syscall(_PIDFD_GETFD, process, int(number), 0)
                    if fd >= 0:
                        _set(fd)
        finally:
            os.close(process)


def _set(fd: int) -> None:
    with _socket.socket(fileno=fd) as sock:
        if sock.family in (_socket.AF_INET, _socket.AF_INET6) and sock.type == _socket.SOCK_STREAM:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _AT_ONCE)
