"""Opening files again by path after a connection was lost, if they are still the same.

Version 3 names no inode. So a file is the same when it is where we have put it, regular, and as
long and as old as we know it; where writes of ours are under way, as long as they can have made
it. A file that we only read may have grown, as logs do (`tail -f`): it is the same when it has not
become older and the end that a reader saw last is where it was. Its length and time alone would
not do, for a log that was rotated meanwhile may be longer already. What does not fit has been
replaced or changed by others meanwhile: its handles get ESTALE for good, for to go on at an offset
in another file's data would be a lie.
"""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ....native import sftp
from ..tree.node import Node
from ..tree.nodetable import NodeTable
from ..wire.errmap import StatusError
from ..wire.handle import Handle
from ..wire.restoring import Restoring
from ..wire.slot import ATTRS, DATA, WIRE_HANDLE, Slot
from .aftermath import is_in_doubt

_log = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Files that are opened again at the same time."""


class Expected(NamedTuple):
    """What a file must be to be the same; `mtime` in seconds, None where it may be any."""

    path: bytes
    size_min: int = 0
    size_max: int = 1 << 63
    mtime: int | None = None
    appended: Sequence[Slot[Any]] = ()
    """Writes to its end that the server may have made: what is there now must be theirs."""
    seen_end: tuple[int, bytes] | None = None
    """Where what a reader saw at its end begins, and that, of a file that may have grown."""

    def has_grown(self, attrs: sftp.Attrs) -> bool:
        """Tell whether the file is longer than it was, which is in order for what it is."""
        return (
            self.seen_end is not None
            and attrs.size is not None
            and attrs.size > self.size_max
            and (self.mtime is None or attrs.mtime is None or attrs.mtime >= self.mtime)
        )

    def fits(self, attrs: sftp.Attrs) -> bool:
        """Tell whether a file has these attributes; what it does not tell does not count."""
        if attrs.mode is not None and not stat.S_ISREG(attrs.mode):
            return False
        if self.has_grown(attrs):
            return True
        if attrs.size is not None and not self.size_min <= attrs.size <= self.size_max:
            return False
        return self.mtime is None or attrs.mtime is None or attrs.mtime == self.mtime


def expected_of(table: NodeTable, ahead: Restoring) -> dict[Handle, Expected | None]:
    """Return what is known of the files that the nodes' handles stand for; None where no name is
    left, and with it no way to the file."""
    found: dict[Handle, Expected | None] = {}
    for node in table.nodes.values():
        file = node.file
        if file is None:
            continue
        for handle in {file.reader, file.writer, *file.writes.closing}:
            if isinstance(handle, Handle):
                found[handle] = None if node.is_gone else _expected(table, node, handle, ahead)
    return found


def _expected(table: NodeTable, node: Node, handle: Handle, ahead: Restoring) -> Expected:
    file, va = node.file, node.va
    assert file is not None
    path = table.path(node)
    size = va.size or 0
    size_min = size_max = size
    mtime = None if va.mtime is None else va.mtime // 10**9
    writes = file.writes
    if node.is_modified or not writes.is_idle:
        mtime = None
        if not writes.is_idle or writes.has_error or file.writing:
            size_min = min(file.floor, size)
    for slot in ahead.connection.retained:
        if is_in_doubt(slot, path, handle):
            mtime = None
            wanted = slot.args[1].size
            if wanted is not None:
                size_min, size_max = min(size_min, wanted), max(size_max, wanted)
    appended = [
        slot
        for slot in ahead.connection.retained
        if file.is_appended and slot.encode is sftp.write and slot.args[0] is handle
    ]
    is_only_read = handle is not file.writer and mtime is not None
    return Expected(
        path, size_min, size_max, mtime, appended, file.seen_end if is_only_read else None
    )


async def reopen(
    ahead: Restoring, handles: Sequence[Handle], expected: dict[Handle, Expected | None]
) -> list[Handle]:
    """Give each of `handles` a new `wire`, or an `error`; return those that were opened.

    A handle of which `expected` knows nothing was opened only just, and is opened again by its own
    path, unless it was written to. Wire: LSTAT, OPEN and FSTAT of `AT_ONCE` files at a time: three
    round trips.
    Errors: ENOTCONN when the connection is lost again.
    """
    wanted: list[tuple[Handle, Expected]] = []
    written = [s.args[0] for s in ahead.connection.retained if s.encode is sftp.write]
    for handle in handles:
        if handle.error:
            continue
        unknown = None if any(handle is one for one in written) else Expected(handle.path)
        expectation = expected.get(handle, unknown)
        if not handle.pflags:
            handle.error = errno.ESTALE  # a directory's: who lists it begins again
        elif expectation is None:
            handle.error = errno.ESTALE
            _log.warning("%r was open and has no name any more: lost", handle.path)
        else:
            wanted.append((handle, expectation))
    opened: list[Handle] = []
    for at in range(0, len(wanted), AT_ONCE):
        opened += await _reopen_some(ahead, wanted[at : at + AT_ONCE])
    return opened


async def _reopen_some(ahead: Restoring, wanted: list[tuple[Handle, Expected]]) -> list[Handle]:
    with ahead.connection.batch:
        looked = [ahead.submit(ATTRS, sftp.lstat, expected.path) for _, expected in wanted]
    there = [
        (handle, expected)
        for (handle, expected), slot in zip(wanted, looked, strict=True)
        # Not opened before it is looked at: to open a fifo could hold up the server.
        if await _fits(slot, handle, expected)
    ]
    with ahead.connection.batch:
        opened = [
            ahead.submit(WIRE_HANDLE, sftp.open_, expected.path, handle.pflags)
            for handle, expected in there
        ]
    wires: list[tuple[Handle, Expected, bytes]] = []
    for (handle, expected), slot in zip(there, opened, strict=True):
        try:
            wires.append((handle, expected, await slot))
        except StatusError as exc:
            _lost(handle, expected, exc.errno, str(exc))
    with ahead.connection.batch:
        known = [ahead.submit(ATTRS, sftp.fstat, wire) for _, _, wire in wires]
    reopened = []
    for (handle, expected, wire), again in zip(wires, known, strict=True):
        if not await _fits(again, handle, expected) or not await _has(ahead, again, wire, expected):
            _lost(handle, expected, errno.ESTALE, "it is another file now")
        elif handle in ahead.connection.handles:
            handle.wire = wire
            handle.age = ahead.connection.losses
            reopened.append(handle)
            continue
        ahead.drop(wire)
    return reopened


async def _fits(slot: Slot[sftp.Attrs], handle: Handle, expected: Expected) -> bool:
    try:
        attrs = await slot
    except StatusError as exc:
        _lost(handle, expected, exc.errno, str(exc))
        return False
    if not expected.fits(attrs):
        _lost(handle, expected, errno.ESTALE, "it is another file now")
        return False
    return True


async def _has(ahead: Restoring, slot: Slot[sftp.Attrs], wire: bytes, expected: Expected) -> bool:
    """Tell whether what was appended to the file is what we have appended, as far as it got, and
    whether one that has grown has what we have seen in it.

    `slot` has the file's present attributes. A file that may be written only cannot be looked at.
    """
    if expected.seen_end is not None and expected.has_grown(slot.result()):
        offset, seen = expected.seen_end
        return await _shows(ahead, wire, offset, memoryview(seen))
    size = slot.result().size or 0
    written = [one for one in expected.appended if one.args[1] < size]
    if not written:
        return True
    try:
        wire = await ahead.submit(WIRE_HANDLE, sftp.open_, expected.path, sftp.FXF_READ)
    except StatusError:
        return False
    try:
        for one in written:
            offset = one.args[1]
            if not await _shows(ahead, wire, offset, memoryview(one.payload)[: size - offset]):
                return False
    finally:
        ahead.drop(wire)
    return True


async def _shows(ahead: Restoring, wire: bytes, offset: int, data: memoryview) -> bool:
    """Tell whether an open file has `data` at `offset`."""
    at = 0
    while at < len(data):
        read = Slot(ahead.connection, DATA)
        read.asked = min(len(data) - at, _PIECE)
        ahead.connection.submit_ahead(read, sftp.read, wire, offset + at, read.asked)
        try:
            there = await read
        except StatusError:
            return False
        if not there or data[at : at + len(there)] != there:
            return False
        at += len(there)
    return True


_PIECE: Final = 32 * 1024
"""What every server gives in one answer, octets."""


def _lost(handle: Handle, expected: Expected, number: int, why: str) -> None:
    if not handle.error:
        handle.error = errno.ESTALE if number == errno.ENOENT else number
        _log.warning("%r cannot be opened again: %s", expected.path, why)
