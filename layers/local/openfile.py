"""The host's descriptors of one file that is open."""

from __future__ import annotations

import os

from ...native.constants import FREAD, FWRITE


class OpenFile:
    """What is open of a node: one descriptor to read and one to write, which may be the same.

    Counts who opened it for what, and those who are using a descriptor in a thread (`users`): it is
    closed when nobody needs it. `is_kept` says that it waits for the open behind a creation.
    """

    __slots__ = ("is_kept", "reader", "readers", "users", "writer", "writers")

    def __init__(self) -> None:
        self.reader = -1
        self.writer = -1
        self.readers = 0
        self.writers = 0
        self.users = 0
        self.is_kept = False

    @property
    def fd(self) -> int:
        """Some descriptor of the file, -1 for none."""
        return self.reader if self.reader >= 0 else self.writer

    @property
    def is_needed(self) -> bool:
        """Whether there is somebody to keep it for."""
        return bool(self.readers or self.writers or self.users or self.is_kept)

    def missing(self, mode: int) -> int:
        """Return for which of FREAD and FWRITE there is no descriptor."""
        missing = mode & FREAD if self.reader < 0 else 0
        return missing | (mode & FWRITE if self.writer < 0 else 0)

    def adopt(self, fd: int, mode: int) -> None:
        """Take a descriptor for what was missing."""
        if mode & FREAD:
            self.reader = fd
        if mode & FWRITE:
            self.writer = fd

    def count(self, mode: int, change: int) -> None:
        """Count opens for `mode`, or closes."""
        if mode & FREAD:
            self.readers = max(0, self.readers + change)
        if mode & FWRITE:
            self.writers = max(0, self.writers + change)

    def release(self) -> None:
        """Close what nobody needs. A file that is open for writing cannot be executed."""
        if self.users or self.is_kept:
            return
        if not self.writers and self.writer >= 0 and self.writer != self.reader:
            os.close(self.writer)
            self.writer = -1
        if not self.readers and self.reader >= 0 and self.reader != self.writer:
            os.close(self.reader)
            self.reader = -1
        if not self.readers and not self.writers:
            self.dispose()

    def dispose(self) -> None:
        """Close everything."""
        reader, self.reader = self.reader, -1
        writer, self.writer = self.writer, -1
        for fd in {reader, writer} - {-1}:
            os.close(fd)
