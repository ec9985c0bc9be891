"""A program's wish to mount, by whichever way it came to us."""

from __future__ import annotations

import os
import socket as _socket
from abc import ABC, abstractmethod
from contextlib import suppress

from .namespace import NameSpace


class MountCall(ABC):
    """A wish to mount. `mounted` or `refused` is called once, and `close` in the end."""

    def __init__(self, directory: str, words: str, pid: int) -> None:
        self.directory = os.path.realpath(directory)
        """Where."""
        self.words = words
        """Options, as in the value of `-o`."""
        self.refusal = ""
        self.is_told = False
        """Whether the program was told why it was refused."""
        self.namespace = NameSpace(pid)

    async def mounted(self, fuse: _socket.socket) -> None:
        """Hand over what the program takes for /dev/fuse; the caller closes it. Errors: OSError."""
        await self.namespace.cover(self.directory)
        self.hand_over(fuse)

    def refused(self, text: str) -> None:
        """Have the mount fail; the program goes on as it does then. `text` says why."""
        self.refusal = text
        with suppress(OSError):
            self.refuse()

    def close(self) -> None:
        """Let go of the program's name space."""
        self.namespace.close()

    @abstractmethod
    def hand_over(self, fuse: _socket.socket) -> None:
        """Let the program have `fuse`, and go on. Errors: OSError."""

    @abstractmethod
    def refuse(self) -> None:
        """Let the program go on without. Errors: OSError."""
