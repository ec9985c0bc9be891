"""What became of changes that were sent and not answered before a connection was lost.

To send them once more would be a guess: a MKDIR that was made the first time fails the second
time, and a program would hear EEXIST of a directory that is its own. So each is looked at. The host
asks for a name before it makes it, so that what is there now and looks like ours is taken for ours:
another client's MKDIR or exclusive OPEN of the same name within the same outage is the one case
which version 3 gives no means to tell.

All else may be sent twice: questions, writes at an offset, attributes.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ....native import sftp
from ..wire.errmap import StatusError
from ..wire.restoring import Restoring
from ..wire.slot import ATTRS, NAMES, ONE_NAME, WIRE_HANDLE, Slot


async def settle(ahead: Restoring) -> None:
    """Complete the retained requests whose changes the server turns out to have made.

    The others stay, to be sent again. Wire: a round trip or two for each change in doubt.
    Errors: ENOTCONN when the connection is lost again; what was completed stays so.
    """
    retained = ahead.connection.retained
    for slot, was_sent in list(retained.items()):
        judge = _JUDGES.get(slot.encode)
        if judge is None or not was_sent or slot.is_abandoned or slot.done:
            continue
        if (found := await judge(ahead, *slot.args)) is None:
            continue
        if slot.is_abandoned or slot.done:
            if found:
                ahead.drop(found)
        else:
            del retained[slot]
            slot.complete(found or None)


async def _look(ahead: Restoring, path: bytes) -> sftp.Attrs | None:
    try:
        return await ahead.submit(ATTRS, sftp.lstat, path)
    except StatusError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return None


# A judge returns None for what is to be sent again, b"" for what was done, a handle for an OPEN.
_Judge = Callable[..., Awaitable[bytes | None]]


def _looking(judge: _Judge) -> _Judge:
    """A server that does not let us look: the request itself says why."""

    async def judged(ahead: Restoring, *args: Any) -> bytes | None:
        try:
            return await judge(ahead, *args)
        except StatusError:
            return None

    return judged


async def _removed(ahead: Restoring, path: bytes) -> bytes | None:
    return b"" if await _look(ahead, path) is None else None


async def _renamed(ahead: Restoring, old: bytes, new: bytes) -> bytes | None:
    if await _look(ahead, old) is not None:
        return None
    return b"" if await _look(ahead, new) is not None else None


async def _made_directory(ahead: Restoring, path: bytes, attrs: sftp.Attrs) -> bytes | None:
    found = await _look(ahead, path)
    if found is None or not _is_of(stat.S_ISDIR, found, attrs):
        return None
    handle = await ahead.submit(WIRE_HANDLE, sftp.opendir, path)
    try:
        names = await ahead.submit(NAMES, sftp.readdir, handle)
    finally:
        ahead.drop(handle)
    is_empty = all(entry.name in (b".", b"..") for entry in names or ())
    return b"" if is_empty else None


async def _made_file(
    ahead: Restoring, path: bytes, pflags: int, attrs: sftp.Attrs = sftp.NO_ATTRS
) -> bytes | None:
    if not pflags & sftp.FXF_EXCL:
        return None
    found = await _look(ahead, path)
    if found is None or found.size or not _is_of(stat.S_ISREG, found, attrs):
        return None
    pflags &= sftp.FXF_READ | sftp.FXF_WRITE
    return await ahead.submit(WIRE_HANDLE, sftp.open_, path, pflags)


async def _made_symlink(ahead: Restoring, target: bytes, path: bytes) -> bytes | None:
    found = await _look(ahead, path)
    if found is None or not _is_of(stat.S_ISLNK, found, sftp.NO_ATTRS):
        return None
    return b"" if await ahead.submit(ONE_NAME, sftp.readlink, path) == target else None


async def _linked(ahead: Restoring, old: bytes, new: bytes) -> bytes | None:
    found = await _look(ahead, new)
    return b"" if found is not None and found == await _look(ahead, old) else None


def _is_of(kind: Callable[[int], bool], found: sftp.Attrs, wanted: sftp.Attrs) -> bool:
    """Tell whether `found` is of a kind, and has no permission that was not asked for."""
    if found.mode is None:
        return True
    asked = 0o7777 if wanted.mode is None else wanted.mode
    return kind(found.mode) and not stat.S_IMODE(found.mode) & 0o777 & ~asked


_JUDGES: Final[dict[Callable[..., bytes], _Judge]] = {
    sftp.remove: _looking(_removed),
    sftp.rmdir: _looking(_removed),
    sftp.rename: _looking(_renamed),
    sftp.posix_rename: _looking(_renamed),
    sftp.mkdir: _looking(_made_directory),
    sftp.open_: _looking(_made_file),
    sftp.symlink: _looking(_made_symlink),
    sftp.hardlink: _looking(_linked),
}


def is_in_doubt(slot: Slot[Any], path: bytes, handle: bytes) -> bool:
    """Tell whether a request may have changed size or times of the file at `path`."""
    if slot.encode is sftp.fsetstat:
        return slot.args[0] is handle
    return slot.encode is sftp.setstat and bool(slot.args[0] == path)
