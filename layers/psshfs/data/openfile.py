"""What a node has while it is open: SFTP handles, unacknowledged writes, blocks read ahead."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from ....native.constants import FREAD, FWRITE
from ....native.records import Buffer
from ....native.sftp import NO_ATTRS
from ..wire.channels import Channels
from ..wire.pace import Pace
from .readahead import ReadAhead, Stream
from .writebehind import WriteBehind

if TYPE_CHECKING:
    from .writeback import Birth

END_LEN: Final = 1024
"""Octets that are remembered of a file's end: some lines of a log, with the times in them."""

_log = logging.getLogger(__name__)


class OpenFile:
    """The open side of one node.

    All opens of a node share one SFTP handle for reading and one for writing, which may be the
    same. `is_kept` says that create left a handle behind for the open that will follow it.
    """

    __slots__ = (
        "_readahead",
        "append_lock",
        "birth",
        "floor",
        "is_appended",
        "is_kept",
        "is_unsynced",
        "reader",
        "readers",
        "seen_end",
        "streams",
        "whole",
        "whole_asked",
        "writer",
        "writers",
        "writes",
        "writing",
    )

    def __init__(self, channels: Channels, readahead: ReadAhead, window: int, pace: Pace) -> None:
        self._readahead = readahead
        self.reader: bytes | None = None
        self.writer: bytes | None = None
        self.readers = 0
        self.writers = 0
        self.is_kept = False
        self.floor = 0
        """While writes are unacknowledged, or wait: how long the file was before them."""
        self.writing = 0
        """Writes that wait for their turn, perhaps, with the length raised for them already."""
        self.is_appended = False
        """Written to its end (O_APPEND), where others may write, too."""
        self.birth: Birth | None = None
        """The OPEN that makes it, while that is not answered (`writeback.py`)."""
        self.is_unsynced = False
        """Written since the last fsync."""
        self.writes = WriteBehind(channels, window, pace)
        self.streams: list[Stream] = []
        self.whole: bytes | None = None
        """All that is in the file, where it was read before it was opened."""
        self.whole_asked = 0
        self.seen_end: tuple[int, bytes] | None = None
        """The last octets of the file when a reader has come to its end, and where they begin: by
        them it is known again when it has grown while the server was away."""
        self.append_lock = trio.Lock()
        """Held from asking where the file ends until what goes there is sent."""

    @property
    def handle(self) -> bytes | None:
        """Some SFTP handle, None when there is none."""
        return self.reader if self.reader is not None else self.writer

    @property
    def is_open(self) -> bool:
        """Tell whether the host has the file open."""
        return self.readers > 0 or self.writers > 0

    @property
    def is_followed(self) -> bool:
        """Tell whether attributes wait until all that was written is on the server."""
        birth = self.birth
        return self.writes.is_followed or (birth is not None and birth.attrs != NO_ATTRS)

    def adopt(self, handle: bytes, mode: int) -> None:
        """Take a new handle, good for `mode`; one that another open was faster with is closed."""
        is_used = False
        if mode & FREAD and self.reader is None:
            self.reader = handle
            is_used = True
        if mode & FWRITE and self.writer is None:
            self.writer = handle
            is_used = True
        if not is_used:
            self.writes.close(handle)

    def keep_for(self, mode: int) -> None:
        """Let the first open after create have the handle that it left, and for `mode` only:
        the next one, for more, is for the server to allow."""
        self.is_kept = False
        if not mode & FREAD and self.reader == self.writer:
            self.reader = None
        if not mode & FWRITE and self.reader == self.writer:
            self.writer = None

    def count(self, mode: int, by: int) -> None:
        """Count an open (`by` 1) or a close (-1)."""
        if mode & FREAD:
            self.readers = max(0, self.readers + by)
        if mode & FWRITE:
            self.writers = max(0, self.writers + by)

    def release(self) -> bool:
        """Close handles that nobody has open; return whether nothing is left to keep."""
        reader, writer = self.reader, self.writer
        if reader is not None and not self.readers and (reader != writer or not self.writers):
            self.reader = None
            if reader != writer:
                self.writes.close(reader)
        if not self.readers:
            self.drop_blocks()
        if writer is not None and not self.writers and (reader != writer or not self.readers):
            self.writer = None
            self.writes.close(writer)
        if self.reader is None and self.writer is None and self.birth is None:
            self.is_kept = False
            return self.writes.is_idle and not self.writes.has_error
        return False

    def note_end(self, offset: int, data: Buffer) -> None:
        """Note that a reader has got `data` at `offset`, up to the end of the file."""
        start = max(0, len(data) - END_LEN)
        if start < len(data):
            self.seen_end = offset + start, bytes(memoryview(data)[start:])

    def hold(self, data: bytes, asked: int) -> None:
        """Keep the whole file, which was asked for at `asked` (monotonic ns)."""
        self.drop_blocks()
        self.whole = data
        self.whole_asked = asked
        self._readahead.octets += len(data)

    def drop_blocks(self) -> None:
        """Forget what was read ahead."""
        if self.whole is not None:
            self._readahead.octets -= len(self.whole)
            self.whole = None
        if self.streams:
            self._readahead.drop(self.streams)

    def dispose(self) -> None:
        """Let everything go, for the node is forgotten."""
        self.readers = self.writers = 0
        self.release()
        if self.writes.has_error:
            _log.error("a write failed and nobody asked: %s", self.writes.take_error())
