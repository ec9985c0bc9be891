"""What a FUSE server sends: one call of C for the header, one for the body.

RemoteProtocolError: the server sent nonsense. `header` looks at the first octets of a message,
`total` of which came; `body` is what follows its 16 octets.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn, TypeAlias

from ._codec import ffi, lib
from .errors import RemoteProtocolError
from .fuse_protocol import (
    Entry,
    FuseDirent,
    InitReply,
    InvalEntry,
    InvalInode,
    Lock,
    Notify,
    Opened,
    Retrieve,
    Store,
)
from .records import Buffer, Statvfs, Vattr
from .table import CELLS, REASONS, SLOTS, TABLE, UNPACK, take_vattr, unpack_slots

HEADER_LEN: Final = 16
READDIR_MAX: Final = SLOTS // 27 * 152
"""Longest answer to READDIR(PLUS) that fits into the table of numbers, octets."""

_U64: Final = (1 << 64) - 1
_ENTRY_SLOTS: Final = 22
_from_buffer = ffi.from_buffer
_header = lib.fuse_header
_decode = lib.fuse_decode
_new: Any = tuple.__new__
_2: Final = UNPACK[2]

Notification: TypeAlias = InvalInode | InvalEntry | Store | Retrieve | None


def _remote(code: int) -> NoReturn:
    raise RemoteProtocolError(f"FUSE message: {REASONS[code]}")


def header(buf: Buffer, total: int) -> tuple[int, int]:
    """Return (error, unique): 0 or a negative errno, or with unique 0 a notification's code."""
    n = _header(_from_buffer(buf), len(buf), total, TABLE, SLOTS)
    if n < 0:
        _remote(n)
    error, unique = _2(CELLS)
    return error, unique & _U64


def _slots(body: Buffer, kind: int) -> tuple[int, ...]:
    n = _decode(_from_buffer(body), len(body), kind, TABLE, SLOTS)
    if n < 0:
        _remote(n)
    return UNPACK[n](CELLS)


def _entry_of(slots: tuple[int, ...], at: int = 0) -> Entry:
    nodeid, generation, entry_ttl, attr_ttl = slots[at : at + 4]
    va = take_vattr(slots, at + 4)
    return _new(  # type: ignore[no-any-return]
        Entry, (nodeid & _U64, generation & _U64, entry_ttl, attr_ttl, va)
    )


def entry(body: Buffer) -> Entry:
    """Take a node apart: the reply of LOOKUP, MKNOD, MKDIR, SYMLINK and LINK."""
    return _entry_of(_slots(body, lib.FUSE_KIND_ENTRY))


def attr(body: Buffer) -> tuple[Vattr, int]:
    """Return attributes and their time-out, ns: the reply of GETATTR and SETATTR."""
    slots = _slots(body, lib.FUSE_KIND_ATTR)
    return take_vattr(slots, 1), slots[0]


def opened(body: Buffer) -> Opened:
    """Take the reply of OPEN and OPENDIR apart."""
    fh, flags = _slots(body, lib.FUSE_KIND_OPEN)
    return Opened(fh & _U64, flags)


def created(body: Buffer) -> tuple[Entry, Opened]:
    """Take the reply of CREATE apart."""
    slots = _slots(body, lib.FUSE_KIND_CREATE)
    return _entry_of(slots), Opened(slots[_ENTRY_SLOTS] & _U64, slots[_ENTRY_SLOTS + 1])


def count(body: Buffer) -> int:
    """Return the number in the reply of WRITE, COPY_FILE_RANGE, POLL, or of a length asked for."""
    return _slots(body, lib.FUSE_KIND_COUNT)[0]


def offset(body: Buffer) -> int:
    """Return the number in the reply of LSEEK."""
    return _slots(body, lib.FUSE_KIND_OFFSET)[0]


def statfs(body: Buffer) -> Statvfs:
    """Take the reply of STATFS apart."""
    return _new(Statvfs, _slots(body, lib.FUSE_KIND_STATFS))  # type: ignore[no-any-return]


def lock(body: Buffer) -> Lock:
    """Take the reply of GETLK apart."""
    return Lock(*_slots(body, lib.FUSE_KIND_LOCK))


def init(body: Buffer) -> InitReply:
    """Take the reply of INIT apart; what an older one does not have is 0."""
    return InitReply(*_slots(body, lib.FUSE_KIND_INIT))


def octets(body: Buffer) -> bytes:
    """Return what came, as it is: the reply of READLINK, of attributes."""
    return bytes(body)


def nothing(body: Buffer) -> None:
    """Take a reply without a body. What is behind the header all the same is an error."""
    if len(body):
        _remote(lib.CODEC_TRAILING)


def dirents(body: Buffer) -> list[FuseDirent]:
    """Return the entries that READDIR brought."""
    n = _decode(_from_buffer(body), len(body), lib.FUSE_KIND_DIRENTS, TABLE, SLOTS)
    if n < 0:
        _remote(n)
    rows = zip(*[iter(unpack_slots(n * 5))] * 5, strict=True)
    return [
        FuseDirent(fileid, vtype, off, bytes(body[start:end]), None)
        for fileid, vtype, off, start, end in rows
    ]


def dirents_plus(body: Buffer) -> list[FuseDirent]:
    """Return the entries that READDIRPLUS brought; each node but 0 counts as one lookup."""
    n = _decode(_from_buffer(body), len(body), lib.FUSE_KIND_DIRENTS_PLUS, TABLE, SLOTS)
    if n < 0:
        _remote(n)
    rows = zip(*[iter(unpack_slots(n * 27))] * 27, strict=True)
    return [
        FuseDirent(row[0], row[1], row[2], bytes(body[row[3] : row[4]]), _entry_of(row, 5))
        for row in rows
    ]


def notification(body: Buffer, code: int) -> Notification:
    """Return what a notification says; None for those which ask nothing of us."""
    n = _decode(_from_buffer(body), len(body), lib.FUSE_KIND_NOTIFY + code, TABLE, SLOTS)
    if n < 0:
        _remote(n)
    slots = UNPACK[n](CELLS)
    if code == Notify.INVAL_INODE:
        return InvalInode(slots[0] & _U64, slots[1], slots[2])
    if code in (Notify.INVAL_ENTRY, Notify.DELETE):
        return InvalEntry(slots[0] & _U64, bytes(body[slots[2] : slots[3]]))
    if code == Notify.STORE:
        return Store(slots[0] & _U64, slots[1], slots[3] - slots[2])
    if code == Notify.RETRIEVE:
        return Retrieve(slots[0] & _U64, slots[1] & _U64, slots[2], slots[3])
    return None
