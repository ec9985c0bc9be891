"""What a daemon writes to the kernel's device: each function returns one message.

Replies with attributes are made by one call of C. For those of a few numbers `struct` is as
quick as the way through the table. Time-outs and times are ns; what attributes do not fit into
their fields is cut to the nearest that does. LocalProtocolError: a number is out of range.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from struct import Struct
from struct import error as StructError
from typing import Final, TypeAlias

from ._codec import lib
from .errors import LocalProtocolError
from .fuse_protocol import Notify
from .packed import Files
from .records import Statvfs
from .table import CELLS, OUT, OUT_LEN, OUTPUT, REASONS, SLOTS, TABLE

Attr: TypeAlias = tuple[int, ...]
"""ino, size, blocks (of 512 octets), atime, mtime, ctime, mode with the type in it, nlink, uid,
gid, rdev, blksize."""
DirentRow: TypeAlias = tuple[int, ...]
"""Length of the name, type (DT_), offset, node (0: none is told), time-outs of name and attributes,
then what Attr has."""

NO_ATTR: Final[Attr] = (0,) * lib.FUSE_ATTR_SLOTS
ROWS_MAX: Final = min(SLOTS // lib.FUSE_DIRENT_SLOTS, (OUT_LEN - 16) // 408)
"""Most entries in one reply to a READDIRPLUS, whatever their names."""

PAGE_MAX: Final = (SLOTS - 4) // 3
"""Most entries of one page in one reply."""

_encode = lib.fuse_encode_reply
_encode_dirents = lib.fuse_encode_dirents
_encode_page = lib.fuse_encode_page
_length: Final = Struct("=I").pack
_head: Final = Struct("=IiQ").pack
_open: Final = Struct("=IiQQI4x").pack
_count: Final = Struct("=IiQI4x").pack
_offset: Final = Struct("=IiQQ").pack
_lock: Final = Struct("=IiQQQII").pack
_statfs: Final = Struct("=IiQ5Q3I28x").pack
_init: Final = Struct("=IiQ4IHHIIH34x").pack
_inval_inode: Final = Struct("=IiQQqq").pack
_inval_entry: Final = Struct("=IiQQI4x").pack
_one: Final = Struct("=q").unpack_from
_pack_attr: Final = Struct("=13q").pack_into
_pack_entry: Final = Struct("=15q").pack_into
_pack_create: Final = Struct("=17q").pack_into
_BAD_VALUE: Final = (StructError, TypeError, OverflowError)
_U64: Final = (1 << 64) - 1


def _wrong(exc: object) -> LocalProtocolError:
    return LocalProtocolError(f"FUSE reply: {exc}")


def _reply(unique: int, kind: int, n: int) -> bytes:
    length = _encode(OUT, OUT_LEN, unique, kind, TABLE, n)
    if length < 0:
        raise _wrong(REASONS[length])
    return OUTPUT[:length]


def error(unique: int, errno: int) -> bytes:
    """Return the reply that says `errno`, or that something without an answer is done (0)."""
    return _head(16, -errno, unique & _U64)


def data_head(unique: int, length: int) -> bytes:
    """Return the head of a reply of `length` octets, which are sent right behind it."""
    return _head(16 + length, 0, unique & _U64)


def entry(unique: int, nodeid: int, entry_ttl: int, attr_ttl: int, attr: Attr) -> bytes:
    """Return the reply with a node, which counts as a lookup unless its number is 0."""
    try:
        _pack_entry(CELLS, 0, nodeid, entry_ttl, attr_ttl, *attr)
    except _BAD_VALUE as exc:
        raise _wrong(exc) from exc
    return _reply(unique, lib.FUSE_KIND_ENTRY, 15)


def created(
    unique: int, nodeid: int, entry_ttl: int, attr_ttl: int, attr: Attr, fh: int, flags: int
) -> bytes:
    """Return the reply with a node that is open."""
    try:
        _pack_create(CELLS, 0, nodeid, entry_ttl, attr_ttl, *attr, fh, flags)
    except _BAD_VALUE as exc:
        raise _wrong(exc) from exc
    return _reply(unique, lib.FUSE_KIND_CREATE, 17)


def attributes(unique: int, attr_ttl: int, attr: Attr) -> bytes:
    """Return the reply with attributes."""
    try:
        _pack_attr(CELLS, 0, attr_ttl, *attr)
    except _BAD_VALUE as exc:
        raise _wrong(exc) from exc
    return _reply(unique, lib.FUSE_KIND_ATTR, 13)


def opened(unique: int, fh: int, flags: int) -> bytes:
    """Return the reply with an open file or directory."""
    return _open(32, 0, unique & _U64, fh, flags)


def count(unique: int, number: int) -> bytes:
    """Return the reply with the octets written, or the length of extended attributes."""
    return _count(24, 0, unique & _U64, number)


def offset(unique: int, number: int) -> bytes:
    """Return the reply with a place in a file, octets. It must not be negative."""
    return _offset(24, 0, unique & _U64, number)


def lock(unique: int, start: int, end: int, kind: int, pid: int) -> bytes:
    """Return the reply with a lock (F_UNLCK: none is in the way); `end` is its last octet."""
    try:
        return _lock(40, 0, unique & _U64, start, end, kind, pid)
    except _BAD_VALUE as exc:
        raise _wrong(exc) from exc


def dirents(unique: int, rows: Sequence[DirentRow], names: bytes) -> bytes:
    """Return the reply with at most ROWS_MAX entries; `names` follow one another in `names`."""
    n = len(rows)
    try:
        Struct(f"={n * lib.FUSE_DIRENT_SLOTS}q").pack_into(CELLS, 0, *chain.from_iterable(rows))
    except _BAD_VALUE as exc:
        raise _wrong(exc) from exc
    length = _encode_dirents(OUT, OUT_LEN, unique, TABLE, n, names, len(names))
    if length < 0:
        raise _wrong(REASONS[length])
    return OUTPUT[:length]


def page(
    files: Files, start: int, room: int, ttls: tuple[int, int], owner: tuple[int, int]
) -> tuple[bytes, int]:
    """Return what a reply to a READDIRPLUS has behind its head for entries of `files` from number
    `start` on, as many as have room in `room` octets, and their number.

    The node of each is its file id. `ttls` are those of name and attributes, `owner` is uid and
    gid to be shown in place of all (-1: none).
    """
    room = min(room, OUT_LEN)
    end = start + min(room // dirent_length(1), PAGE_MAX)
    columns = files.names[start:end], files.packed[start:end]
    names, packed = map(b"".join, columns)
    lengths = [len(name) for name in columns[0]]
    n = len(lengths)
    numbers, offsets = files.fileids[start:end], files.offsets[start:end]
    try:
        Struct(f"={4 + 3 * n}q").pack_into(CELLS, 0, *ttls, *owner, *numbers, *offsets, *lengths)
    except _BAD_VALUE as exc:
        raise _wrong(exc) from exc
    length = _encode_page(OUT, room, TABLE, n, packed, len(packed), names, len(names))
    if length < 0:
        raise _wrong(REASONS[length])
    return OUTPUT[:length], _one(CELLS)[0]


def dirents_and_page(dirents: bytes, page: bytes) -> bytes:
    """Return the reply `dirents` with what `page` has made behind it."""
    return _length(len(dirents) + len(page)) + dirents[4:] + page


def dirent_length(name_length: int) -> int:
    """Return how many octets of a reply an entry takes."""
    return (152 + name_length + 7) & ~7


def statfs(unique: int, state: Statvfs) -> bytes:
    """Return the reply with the state of the file system."""
    blocks = (state.blocks, state.bfree, state.bavail, state.files, state.ffree)
    sizes = (state.bsize, state.namemax, state.frsize)
    try:
        return _statfs(
            96,
            0,
            unique & _U64,
            *[number & _U64 for number in blocks],
            *[min(max(number, 0), 0xFFFFFFFF) for number in sizes],
        )
    except _BAD_VALUE as exc:
        raise _wrong(exc) from exc


def init(
    unique: int,
    minor: int,
    max_readahead: int,
    flags: int,
    max_write: int,
    max_pages: int,
) -> bytes:
    """Return the reply to INIT in the form of 7.23; times are given to the ns.

    How many requests the kernel sends of its own accord at a time is left to it (12).
    """
    values = (7, minor, max_readahead, flags, 0, 0, max_write, 1, max_pages)
    return _init(80, 0, unique & _U64, *values)


def inval_inode(nodeid: int, offset: int, length: int) -> bytes:
    """Drop attributes and, unless `offset` is negative, pages (`length` up to 0: all behind it)."""
    return _inval_inode(40, Notify.INVAL_INODE, 0, nodeid & _U64, offset, length)


def inval_entry(parent: int, name: bytes) -> bytes:
    """Drop the name of a directory and what is known of it."""
    head = _inval_entry(33 + len(name), Notify.INVAL_ENTRY, 0, parent & _U64, len(name))
    return b"%b%b\0" % (head, name)


def told_node(reply: bytes) -> int:
    """Return the node in a reply that was made by `entry` or `created`."""
    return _one(reply, 16)[0]  # type: ignore[no-any-return]


def told_handle(reply: bytes, created: bool) -> int:
    """Return the handle in a reply that was made by `opened`, or by `created`."""
    return _one(reply, 144 if created else 16)[0]  # type: ignore[no-any-return]
