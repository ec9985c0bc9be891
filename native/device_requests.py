"""FUSE requests as a daemon reads them from the kernel's device: one call of C takes one apart.

Numbers of 64 bits come as signed ones with the same bits: they are ours (nodes, handles) or only
handed back (`unique`). Names are as the kernel sends them, without their NUL.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import iter_unpack
from typing import Any, Final, NamedTuple, TypeAlias

from ._codec import ffi, lib
from .errors import RemoteProtocolError
from .fuse_protocol import Opcode
from .memory import allocate
from .table import CELLS, REASONS, SLOTS, TABLE, UNPACK

_decode = lib.fuse_decode_request
_new: Any = tuple.__new__

HEADER_SLOTS: Final = 6
HEADER_LEN: Final = 40


class RequestBuffer:
    """Memory for one request at a time, with arbitrary contents at first.

    `view` is what to read into. It is allocated by the codec, so that C needs no pointer of its
    own to it (see table.pointer for why that matters).
    """

    __slots__ = ("octets", "pointer", "view")

    def __init__(self, length: int) -> None:
        self.pointer = allocate(length)
        self.octets = ffi.buffer(self.pointer)
        self.view = memoryview(self.octets)


class Request(NamedTuple):
    """One request: what is asked, its number, whom it concerns, who asks, and the arguments.

    By opcode, for those that have any:

    LOOKUP, UNLINK, RMDIR, REMOVEXATTR   name
    FORGET                               lookups
    BATCH_FORGET                         list of (node, lookups)
    SETATTR                              valid, fh, size, atime, mtime, mode, uid, gid
    SYMLINK                              name, target
    MKNOD                                mode, rdev, name
    MKDIR                                mode, name
    RENAME, RENAME2                      new directory, flags, old name, new name
    LINK                                 node, name
    OPEN, OPENDIR                        flags
    CREATE                               flags, mode, name
    READ, READDIRPLUS                    fh, offset, size
    WRITE                                fh, offset, data (a view of the buffer)
    FSYNC, FSYNCDIR                      fh, flags
    RELEASE                              fh, flags, owner of locks
    RELEASEDIR                           fh
    FLUSH                                fh, owner of locks
    GETLK, SETLK, SETLKW                 fh, owner, first and last octet, type, pid, flags
    FALLOCATE                            fh, offset, length, mode
    LSEEK                                fh, offset (as it was given: negative ones, too), whence
    COPY_FILE_RANGE                      fh, offset, node, its fh, its offset, length, flags
    SETXATTR                             flags, name, value
    GETXATTR                             size, name
    LISTXATTR                            size
    ACCESS                               mode
    INIT                                 major, minor, max_readahead, flags
    INTERRUPT                            number of the request that is meant
    """

    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    args: tuple[Any, ...]


_Slots: TypeAlias = tuple[int, ...]
_Args: TypeAlias = Callable[[_Slots, RequestBuffer], tuple[Any, ...]]


def _name(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    return (buffer.octets[slots[6] : slots[7]],)


def _number_name(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    return slots[6], buffer.octets[slots[7] : slots[8]]


def _numbers_name(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    return slots[6], slots[7], buffer.octets[slots[8] : slots[9]]


def _symlink(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    octets = buffer.octets
    return octets[slots[6] : slots[7]], octets[slots[8] : slots[9]]


def _rename(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    octets = buffer.octets
    return slots[6], 0, octets[slots[7] : slots[8]], octets[slots[9] : slots[10]]


def _rename2(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    octets = buffer.octets
    return slots[6], slots[7], octets[slots[8] : slots[9]], octets[slots[10] : slots[11]]


def _write(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    return slots[6], slots[7], buffer.view[slots[9] : slots[10]]


def _setxattr(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    octets = buffer.octets
    return slots[7], octets[slots[8] : slots[9]], octets[slots[10] : slots[11]]


def _batch_forget(slots: _Slots, buffer: RequestBuffer) -> tuple[Any, ...]:
    return (list(iter_unpack("=qq", buffer.view[slots[7] : slots[8]])),)


_ARGS: Final[dict[int, _Args]] = {
    Opcode.LOOKUP: _name,
    Opcode.SYMLINK: _symlink,
    Opcode.MKNOD: _numbers_name,
    Opcode.MKDIR: _number_name,
    Opcode.UNLINK: _name,
    Opcode.RMDIR: _name,
    Opcode.RENAME: _rename,
    Opcode.LINK: _number_name,
    Opcode.WRITE: _write,
    Opcode.SETXATTR: _setxattr,
    Opcode.GETXATTR: _number_name,
    Opcode.REMOVEXATTR: _name,
    Opcode.CREATE: _numbers_name,
    Opcode.BATCH_FORGET: _batch_forget,
    Opcode.RENAME2: _rename2,
}
"""Arguments with octets among them, by opcode; those of the others are the slots as they are."""


def take(buffer: RequestBuffer, length: int) -> Request:
    """Return the request that fills the first `length` octets of `buffer`.

    Data of a WRITE stay in the buffer, everything else is copied out of it. An opcode without
    arguments of ours may be one that we do not know. RemoteProtocolError: it is no request.
    """
    n = _decode(buffer.pointer, length, TABLE, SLOTS)
    if n < 0:
        raise RemoteProtocolError(f"FUSE request: {REASONS[n]}")
    slots = UNPACK[n](CELLS)
    args = _ARGS.get(slots[0])
    return _new(  # type: ignore[no-any-return]
        Request, (*slots[:6], slots[6:] if args is None else args(slots, buffer))
    )
