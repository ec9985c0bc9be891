"""Requests of SFTP version 3: each function returns one whole packet, made by one call of C.

Paths must not have NUL in them: OpenSSH's server ends the session over one.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack
from struct import error as StructError
from typing import Final, NoReturn

from ._codec import lib
from .errors import LocalProtocolError
from .sftp_attrs import put_attrs
from .sftp_protocol import (
    EXT_COPY_DATA,
    EXT_EXPAND_PATH,
    EXT_FSTATVFS,
    EXT_FSYNC,
    EXT_HARDLINK,
    EXT_HOME_DIRECTORY,
    EXT_LIMITS,
    EXT_LSETSTAT,
    EXT_POSIX_RENAME,
    EXT_STATVFS,
    EXT_USERS_GROUPS,
    FXP_CLOSE,
    FXP_EXTENDED,
    FXP_FSETSTAT,
    FXP_FSTAT,
    FXP_INIT,
    FXP_LSTAT,
    FXP_MKDIR,
    FXP_OPEN,
    FXP_OPENDIR,
    FXP_READ,
    FXP_READDIR,
    FXP_READLINK,
    FXP_REALPATH,
    FXP_REMOVE,
    FXP_RENAME,
    FXP_RMDIR,
    FXP_SETSTAT,
    FXP_STAT,
    FXP_SYMLINK,
    FXP_WRITE,
    NO_ATTRS,
    VERSION,
    Attrs,
)
from .table import CELLS, OUT, OUT_LEN, OUTPUT, REASONS, TABLE

_BAD_VALUE: Final = (StructError, TypeError, ValueError, OverflowError)
_encode = lib.sftp_encode
_2: Final = Struct("=2q").pack_into
_3: Final = Struct("=3q").pack_into
_4: Final = Struct("=4q").pack_into


def _local(code: int) -> NoReturn:
    raise LocalProtocolError(f"SFTP request: {REASONS[code]}")


def _finish(type: int, id: int, ext: bytes, form: bytes, n: int, base: bytes) -> bytes:
    """Return the packet whose arguments are in the table."""
    n = _encode(OUT, OUT_LEN, type, id, ext, len(ext), form, TABLE, n, base, len(base))
    if n < 0:
        _local(n)
    return OUTPUT[:n]


def _one_string(type: int, id: int, form: bytes, string: bytes, ext: bytes = b"") -> bytes:
    try:
        _2(CELLS, 0, 0, len(string))
        return _finish(type, id, ext, form, 2, string)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request {type}: {exc}") from exc


def _two_strings(type: int, id: int, first: bytes, second: bytes, ext: bytes = b"") -> bytes:
    try:
        n = len(first)
        _4(CELLS, 0, 0, n, n, n + len(second))
        return _finish(type, id, ext, b"ss", 4, first + second)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request {type}: {exc}") from exc


def _string_attrs(
    type: int, id: int, form: bytes, string: bytes, attrs: Attrs, ext: bytes = b""
) -> bytes:
    try:
        _2(CELLS, 0, 0, len(string))
        put_attrs(attrs, 2)
        return _finish(type, id, ext, form, 9, string)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request {type}: {exc}") from exc


def init() -> bytes:
    """Return the packet that begins a session; it has no id."""
    return pack(">IBI", 5, FXP_INIT, VERSION)


def open_(id: int, path: bytes, pflags: int, attrs: Attrs = NO_ATTRS) -> bytes:
    """Open a file (FXF_*); `attrs` are for one that is created."""
    try:
        _3(CELLS, 0, 0, len(path), pflags)
        put_attrs(attrs, 3)
        return _finish(FXP_OPEN, id, b"", b"sua", 10, path)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request {FXP_OPEN}: {exc}") from exc


def opendir(id: int, path: bytes) -> bytes:
    """Open a directory."""
    return _one_string(FXP_OPENDIR, id, b"s", path)


def close(id: int, handle: bytes) -> bytes:
    """Close a handle."""
    return _one_string(FXP_CLOSE, id, b"b", handle)


def read(id: int, handle: bytes, offset: int, length: int) -> bytes:
    """Read up to `length` octets."""
    try:
        _4(CELLS, 0, 0, len(handle), offset, length)
        return _finish(FXP_READ, id, b"", b"bqu", 4, handle)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request {FXP_READ}: {exc}") from exc


def write(id: int, handle: bytes, offset: int, length: int) -> bytes:
    """Return the head of a packet; `length` octets of data must be sent right behind it."""
    try:
        _4(CELLS, 0, 0, len(handle), offset, length)
        return _finish(FXP_WRITE, id, b"", b"bqd", 4, handle)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request {FXP_WRITE}: {exc}") from exc


def readdir(id: int, handle: bytes) -> bytes:
    """Read the next entries of a directory."""
    return _one_string(FXP_READDIR, id, b"b", handle)


def lstat(id: int, path: bytes) -> bytes:
    """Ask for attributes, not following a symbolic link."""
    return _one_string(FXP_LSTAT, id, b"s", path)


def stat(id: int, path: bytes) -> bytes:
    """Ask for attributes, following symbolic links."""
    return _one_string(FXP_STAT, id, b"s", path)


def fstat(id: int, handle: bytes) -> bytes:
    """Ask for the attributes of an open file."""
    return _one_string(FXP_FSTAT, id, b"b", handle)


def setstat(id: int, path: bytes, attrs: Attrs) -> bytes:
    """Change what is not None in `attrs`."""
    return _string_attrs(FXP_SETSTAT, id, b"sa", path, attrs)


def fsetstat(id: int, handle: bytes, attrs: Attrs) -> bytes:
    """Change attributes of an open file."""
    return _string_attrs(FXP_FSETSTAT, id, b"ba", handle, attrs)


def remove(id: int, path: bytes) -> bytes:
    """Remove a name that is no directory."""
    return _one_string(FXP_REMOVE, id, b"s", path)


def rmdir(id: int, path: bytes) -> bytes:
    """Remove an empty directory."""
    return _one_string(FXP_RMDIR, id, b"s", path)


def mkdir(id: int, path: bytes, attrs: Attrs = NO_ATTRS) -> bytes:
    """Make a directory."""
    return _string_attrs(FXP_MKDIR, id, b"sa", path, attrs)


def realpath(id: int, path: bytes) -> bytes:
    """Ask for the absolute path."""
    return _one_string(FXP_REALPATH, id, b"s", path)


def readlink(id: int, path: bytes) -> bytes:
    """Ask for the target of a symbolic link."""
    return _one_string(FXP_READLINK, id, b"s", path)


def rename(id: int, old: bytes, new: bytes) -> bytes:
    """Rename; fails when `new` exists."""
    return _two_strings(FXP_RENAME, id, old, new)


def symlink(id: int, target: bytes, linkpath: bytes) -> bytes:
    """Make a symbolic link. The target comes first, as OpenSSH has it against the draft."""
    return _two_strings(FXP_SYMLINK, id, target, linkpath)


def posix_rename(id: int, old: bytes, new: bytes) -> bytes:
    """Rename, replacing `new` when it exists."""
    return _two_strings(FXP_EXTENDED, id, old, new, EXT_POSIX_RENAME)


def hardlink(id: int, old: bytes, new: bytes) -> bytes:
    """Give the file `old` the further name `new`."""
    return _two_strings(FXP_EXTENDED, id, old, new, EXT_HARDLINK)


def statvfs(id: int, path: bytes) -> bytes:
    """Ask for the state of the file system of a path."""
    return _one_string(FXP_EXTENDED, id, b"s", path, EXT_STATVFS)


def fstatvfs(id: int, handle: bytes) -> bytes:
    """Ask for the state of the file system of an open file."""
    return _one_string(FXP_EXTENDED, id, b"b", handle, EXT_FSTATVFS)


def fsync(id: int, handle: bytes) -> bytes:
    """Make written data stable."""
    return _one_string(FXP_EXTENDED, id, b"b", handle, EXT_FSYNC)


def lsetstat(id: int, path: bytes, attrs: Attrs) -> bytes:
    """Change attributes, of a symbolic link its own."""
    return _string_attrs(FXP_EXTENDED, id, b"sa", path, attrs, EXT_LSETSTAT)


def limits(id: int) -> bytes:
    """Ask for the server's limits."""
    try:
        return _finish(FXP_EXTENDED, id, EXT_LIMITS, b"", 0, b"")
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request limits: {exc}") from exc


def expand_path(id: int, path: bytes) -> bytes:
    """Ask for the absolute path of one that may begin with a tilde."""
    return _one_string(FXP_EXTENDED, id, b"s", path, EXT_EXPAND_PATH)


def copy_data(
    id: int, read_handle: bytes, roff: int, length: int, write_handle: bytes, woff: int
) -> bytes:
    """Copy on the server; `length` 0 means to the end of the file."""
    try:
        n = len(read_handle)
        _4(CELLS, 0, 0, n, roff, length)
        _3(CELLS, 32, n, n + len(write_handle), woff)
        base = read_handle + write_handle
        return _finish(FXP_EXTENDED, id, EXT_COPY_DATA, b"bqqbq", 7, base)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request copy-data: {exc}") from exc


def home_directory(id: int, user: bytes) -> bytes:
    """Ask for the home directory of a user; empty: of the one who logged in."""
    return _one_string(FXP_EXTENDED, id, b"s", user, EXT_HOME_DIRECTORY)


def users_groups_by_id(id: int, uids: Sequence[int], gids: Sequence[int]) -> bytes:
    """Ask for names of users and groups."""
    try:
        users, groups = pack(f">{len(uids)}I", *uids), pack(f">{len(gids)}I", *gids)
        n = len(users)
        _4(CELLS, 0, 0, n, n, n + len(groups))
        return _finish(FXP_EXTENDED, id, EXT_USERS_GROUPS, b"bb", 4, users + groups)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP request users-groups-by-id: {exc}") from exc
