"""Requests of SFTP version 3 as a server gets them: a record for each kind, made by one C call.

Paths, handles and names are octets copied out of the receive buffer; the data of WRITE are a view
into it. Every record begins with the id that the reply must carry; INIT, which has none, does not.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Any, Final, NamedTuple, TypeAlias

from ._codec import ffi, lib
from .errors import LocalProtocolError
from .records import Buffer
from .sftp_attrs import take_attrs
from .sftp_protocol import (
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
    Attrs,
)
from .table import CELLS, REASONS, SLOTS, TABLE, UNPACK, unpack_slots


class Init(NamedTuple):
    """Begin a session; `extensions` (name -> data) is what the client tells of itself."""

    version: int
    extensions: dict[bytes, bytes]


class Open(NamedTuple):
    """Open a file (FXF_*); `attrs` are for one that is created."""

    id: int
    path: bytes
    pflags: int
    attrs: Attrs


class Close(NamedTuple):
    """Close a handle."""

    id: int
    handle: bytes


class Read(NamedTuple):
    """Read up to `length` octets (any number of 32 bits)."""

    id: int
    handle: bytes
    offset: int
    length: int


class Write(NamedTuple):
    """Write `data`, a view into the receive buffer: good until that is used again."""

    id: int
    handle: bytes
    offset: int
    data: memoryview


class Lstat(NamedTuple):
    """Ask for attributes, not following a symbolic link."""

    id: int
    path: bytes


class Fstat(NamedTuple):
    """Ask for the attributes of an open file."""

    id: int
    handle: bytes


class Setstat(NamedTuple):
    """Change what is not None in `attrs`."""

    id: int
    path: bytes
    attrs: Attrs


class Fsetstat(NamedTuple):
    """Change attributes of an open file."""

    id: int
    handle: bytes
    attrs: Attrs


class Opendir(NamedTuple):
    """Open a directory."""

    id: int
    path: bytes


class Readdir(NamedTuple):
    """Read the next entries of a directory."""

    id: int
    handle: bytes


class Remove(NamedTuple):
    """Remove a name that is no directory."""

    id: int
    path: bytes


class Mkdir(NamedTuple):
    """Make a directory."""

    id: int
    path: bytes
    attrs: Attrs


class Rmdir(NamedTuple):
    """Remove an empty directory."""

    id: int
    path: bytes


class Realpath(NamedTuple):
    """Ask for the absolute path."""

    id: int
    path: bytes


class Stat(NamedTuple):
    """Ask for attributes, following symbolic links."""

    id: int
    path: bytes


class Rename(NamedTuple):
    """Rename; must fail when `new` exists."""

    id: int
    old: bytes
    new: bytes


class Readlink(NamedTuple):
    """Ask for the target of a symbolic link."""

    id: int
    path: bytes


class Symlink(NamedTuple):
    """Make a symbolic link at `linkpath`. The target comes first, as OpenSSH has it."""

    id: int
    target: bytes
    linkpath: bytes


class PosixRename(NamedTuple):
    """Rename, replacing `new` when it exists."""

    id: int
    old: bytes
    new: bytes


class Hardlink(NamedTuple):
    """Give the file `old` the further name `new`."""

    id: int
    old: bytes
    new: bytes


class StatvfsRequest(NamedTuple):
    """Ask for the state of the file system of a path."""

    id: int
    path: bytes


class FstatvfsRequest(NamedTuple):
    """Ask for the state of the file system of an open file."""

    id: int
    handle: bytes


class Fsync(NamedTuple):
    """Make written data stable."""

    id: int
    handle: bytes


class Lsetstat(NamedTuple):
    """Change attributes, of a symbolic link its own."""

    id: int
    path: bytes
    attrs: Attrs


class LimitsRequest(NamedTuple):
    """Ask for the server's limits."""

    id: int


class ExpandPath(NamedTuple):
    """Ask for the absolute path of one that may begin with a tilde."""

    id: int
    path: bytes


class CopyData(NamedTuple):
    """Copy from one open file to another; `length` (below 2**64) 0 means to the end."""

    id: int
    read_handle: bytes
    read_offset: int
    length: int
    write_handle: bytes
    write_offset: int


class HomeDirectory(NamedTuple):
    """Ask for the home directory of a user; empty: of the one who logged in."""

    id: int
    user: bytes


class UsersGroupsById(NamedTuple):
    """Ask for names of users and groups."""

    id: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]


class Unsupported(NamedTuple):
    """A packet that is no request of version 3, or an extension (`type` EXTENDED) unknown here."""

    id: int
    type: int
    extension: bytes


class Malformed(NamedTuple):
    """A packet whose body is none of its type; `reason` is for people. The id is right."""

    id: int
    type: int
    reason: str


Request: TypeAlias = (
    Init
    | Open
    | Close
    | Read
    | Write
    | Lstat
    | Fstat
    | Setstat
    | Fsetstat
    | Opendir
    | Readdir
    | Remove
    | Mkdir
    | Rmdir
    | Realpath
    | Stat
    | Rename
    | Readlink
    | Symlink
    | PosixRename
    | Hardlink
    | StatvfsRequest
    | FstatvfsRequest
    | Fsync
    | Lsetstat
    | LimitsRequest
    | ExpandPath
    | CopyData
    | HomeDirectory
    | UsersGroupsById
    | Unsupported
    | Malformed
)

_Build: TypeAlias = Callable[[memoryview, int], Any]

_U64: Final = 2**64 - 1
_new: Any = tuple.__new__
_from_buffer = ffi.from_buffer
_decode = lib.sftp_decode_request
_2: Final = UNPACK[2]
_4: Final = UNPACK[4]
_5: Final = UNPACK[5]
_7: Final = UNPACK[7]
_9: Final = UNPACK[9]
_10: Final = UNPACK[10]


def _init(buf: memoryview, id: int) -> Init:
    version, n = _2(CELLS)
    spans = unpack_slots(2 + 4 * n)[2:]
    quads = zip(*[iter(spans)] * 4, strict=True)
    return Init(version, {buf[a:b].tobytes(): buf[c:d].tobytes() for a, b, c, d in quads})


def _open(buf: memoryview, id: int) -> Open:
    slots = _10(CELLS)
    a, b, pflags = slots[:3]
    return _new(Open, (id, buf[a:b].tobytes(), pflags, take_attrs(slots[3:])))  # type: ignore[no-any-return]


def _read(buf: memoryview, id: int) -> Read:
    a, b, offset, length = _4(CELLS)
    return _new(Read, (id, buf[a:b].tobytes(), offset, length))  # type: ignore[no-any-return]


def _write(buf: memoryview, id: int) -> Write:
    a, b, offset, start, end = _5(CELLS)
    return _new(Write, (id, buf[a:b].tobytes(), offset, buf[start:end]))  # type: ignore[no-any-return]


def _string(record: type[Any]) -> _Build:
    def build(buf: memoryview, id: int) -> Any:
        a, b = _2(CELLS)
        return _new(record, (id, buf[a:b].tobytes()))

    return build


def _two_strings(record: type[Any]) -> _Build:
    def build(buf: memoryview, id: int) -> Any:
        a, b, c, d = _4(CELLS)
        return _new(record, (id, buf[a:b].tobytes(), buf[c:d].tobytes()))

    return build


def _string_attrs(record: type[Any]) -> _Build:
    def build(buf: memoryview, id: int) -> Any:
        slots = _9(CELLS)
        a, b = slots[:2]
        return _new(record, (id, buf[a:b].tobytes(), take_attrs(slots[2:])))

    return build


def _limits(buf: memoryview, id: int) -> LimitsRequest:
    return LimitsRequest(id)


def _copy_data(buf: memoryview, id: int) -> CopyData:
    a, b, roff, length, c, d, woff = _7(CELLS)
    return CopyData(id, buf[a:b].tobytes(), roff, length & _U64, buf[c:d].tobytes(), woff)


def _users_groups(buf: memoryview, id: int) -> UsersGroupsById:
    a, b, c, d = _4(CELLS)
    uids = unpack_from(f">{(b - a) // 4}I", buf, a)
    return UsersGroupsById(id, uids, unpack_from(f">{(d - c) // 4}I", buf, c))


def _unsupported(buf: memoryview, id: int) -> Unsupported:
    a, b = _2(CELLS)
    return Unsupported(id, FXP_EXTENDED, buf[a:b].tobytes())


_EXTENSION: Final = lib.SFTP_KIND_EXTENSION

_BUILD: Final[dict[int, _Build]] = {
    FXP_INIT: _init,
    FXP_OPEN: _open,
    FXP_CLOSE: _string(Close),
    FXP_READ: _read,
    FXP_WRITE: _write,
    FXP_LSTAT: _string(Lstat),
    FXP_FSTAT: _string(Fstat),
    FXP_SETSTAT: _string_attrs(Setstat),
    FXP_FSETSTAT: _string_attrs(Fsetstat),
    FXP_OPENDIR: _string(Opendir),
    FXP_READDIR: _string(Readdir),
    FXP_REMOVE: _string(Remove),
    FXP_MKDIR: _string_attrs(Mkdir),
    FXP_RMDIR: _string(Rmdir),
    FXP_REALPATH: _string(Realpath),
    FXP_STAT: _string(Stat),
    FXP_RENAME: _two_strings(Rename),
    FXP_READLINK: _string(Readlink),
    FXP_SYMLINK: _two_strings(Symlink),
    FXP_EXTENDED: _unsupported,
    _EXTENSION: _two_strings(PosixRename),
    _EXTENSION + 1: _two_strings(Hardlink),
    _EXTENSION + 2: _string(StatvfsRequest),
    _EXTENSION + 3: _string(FstatvfsRequest),
    _EXTENSION + 4: _string(Fsync),
    _EXTENSION + 5: _string_attrs(Lsetstat),
    _EXTENSION + 6: _limits,
    _EXTENSION + 7: _string(ExpandPath),
    _EXTENSION + 8: _copy_data,
    _EXTENSION + 9: _string(HomeDirectory),
    _EXTENSION + 10: _users_groups,
}
"""By what C calls the kind of a request."""


def decode_request(buf: Buffer, type: int, id: int, start: int, end: int) -> Request:
    """Return the request whose body is `buf[start:end]`; `scan` says type, id, start and end.

    A body that is none of its type comes back as `Malformed`, an unknown type or extension as
    `Unsupported`: whether the session goes on is the caller's to say. `Write.data` is the only
    thing that still refers to `buf`.
    """
    if buf.__class__ is not memoryview:
        buf = memoryview(buf)
    kind = _decode(_from_buffer(buf), len(buf), start, end, type, TABLE, SLOTS)
    if kind >= 0:
        return _BUILD[kind](buf, id)  # type: ignore[no-any-return]
    if kind == lib.CODEC_OP:
        return Unsupported(id, type, b"")
    if kind == lib.CODEC_SPACE:
        raise LocalProtocolError("SFTP request outside its buffer")
    return Malformed(id, type, REASONS[kind])
