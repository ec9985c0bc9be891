"""The errors of the whole system.

`VfsError` is the only exception that means "the operation failed as operations
may". It is no `OSError`: a socket's ENOENT must never look like a missing file
of the mounted tree. What a peer did wrong, and what a carrier met, have types
of their own; each front end translates in one table at its edge.
"""

from __future__ import annotations

import errno as _errno
import os


class VfsError(Exception):
    """An operation of a file system ended with `errno`.

    `errno` is a positive Linux error number; `detail` is for people and logs
    and never decides anything.
    """

    __slots__ = ("detail", "errno")

    def __init__(self, errno: int, detail: str = "") -> None:
        super().__init__(errno, detail)
        self.errno = errno
        self.detail = detail

    def __str__(self) -> str:
        name = _errno.errorcode.get(self.errno, str(self.errno))
        text = f"{name} ({os.strerror(self.errno)})"
        return f"{text}: {self.detail}" if self.detail else text


class ProtocolError(Exception):
    """Somebody broke a protocol; see the two kinds below."""


class LocalProtocolError(ProtocolError):
    """We tried to build a message that the protocol does not allow: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow.

    The caller of the operation in question gets EPROTO; where the protocol has
    error notes, the peer gets one.
    """


class TransportError(Exception):
    """A byte carrier cannot carry any more; see the two kinds below."""


class TransportClosed(TransportError):
    """We closed the carrier ourselves."""


class TransportBroken(TransportError):
    """The world closed or broke the carrier; the cause is chained where there is one."""
