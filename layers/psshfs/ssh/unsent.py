"""What a program has given to TCP and the server may not have got: none of it shall arrive later.

When a connection is given up as dead, its kernel goes on trying to send what it holds for minutes
after the program's end. Should the network come back, writes of the old connection would reach the
server behind those of the next one, and could go over newer data. A connection that is closed
with SO_LINGER and no time is reset instead, and its octets are dropped. But ssh ends by itself when
it finds the network dead, and then closes as usual; so somebody has to hold its connections beside
it, from the login on, and be the last to close them.

What the server's machine has got already is out of reach, and so is what went into a tunnel of
somebody else's: a ControlMaster that was there before, a forwarded port.
"""

from __future__ import annotations

import ctypes
import os
import socket as _socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_PIDFD_GETFD: Final = 438
"""The same number on all machines that Linux 5.6 and later run on, but for Alpha."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_NOWHERE: Final = struct.pack("=H14x", _socket.AF_UNSPEC)


class Held:
    """The TCP connections of a child, and of what it has started (ProxyCommand): duplicates.

    There are none where the kernel does not let us have its descriptors. The peer sees the end of
    a connection when the child has ended and this is closed.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._sockets = [] if pid is None else list(_connections(pid))

    def reset(self) -> None:
        """Close, and have what has not been sent dropped when the child has closed them, too."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _AT_ONCE)
        self.close()

    def close(self) -> None:
        """Hold them no longer; harmless when called twice."""
        while self._sockets:
            self._sockets.pop().close()


def abort(sock: _socket.socket) -> None:
    """End a TCP connection of our own with a reset, now; the socket stays open, of no use.

    Does nothing to other sockets: what went into a vsock or a socket of this machine has arrived.
    """
    if _is_tcp(sock):
        # Python's connect wants an address of the socket's family; this one disconnects.
        ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), _NOWHERE, len(_NOWHERE))


def _is_tcp(sock: _socket.socket) -> bool:
    return sock.family in (_socket.AF_INET, _socket.AF_INET6) and sock.type == _socket.SOCK_STREAM


def _connections(pid: int) -> Iterator[_socket.socket]:
    """Duplicate the TCP connections of a process and of those below it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):  # closed meanwhile
                    if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                        fd = libc.syscall(_PIDFD_GETFD, process, int(number), 0)
                        if fd >= 0:
                            sock = _socket.socket(fileno=fd)
                            if _is_tcp(sock):
                                yield sock
                            else:
                                sock.close()
        finally:
            os.close(process)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _connections(int(child))
