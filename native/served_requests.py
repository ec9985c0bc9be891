"""Requests of SFTP version 3 at a server: one call of C takes a body apart, a record is built."""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Any, Final, TypeAlias

from ._codec import ffi, lib
from .errors import LocalProtocolError
from .records import Buffer
from .served_records import (
    Close,
    CopyData,
    ExpandPath,
    Fsetstat,
    Fstat,
    FstatvfsRequest,
    Fsync,
    Hardlink,
    HomeDirectory,
    Init,
    LimitsRequest,
    Lsetstat,
    Lstat,
    Malformed,
    Mkdir,
    Open,
    Opendir,
    PosixRename,
    Read,
    Readdir,
    Readlink,
    Realpath,
    Remove,
    Rename,
    Request,
    Rmdir,
    Setstat,
    Stat,
    StatvfsRequest,
    Symlink,
    Unsupported,
    UsersGroupsById,
    Write,
)
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
)
from .table import CELLS, REASONS, SLOTS, TABLE, UNPACK, unpack_slots

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
