"""One block of a directory: entries from its beginning to its end, each as long as it says.

Entries never move. A new one takes an entry without an inode, or the space that another one has
behind its name; a removed one becomes such space. A block of the index of a hashed directory
looks like entries without an inode, and is passed over like these.

A block reaches the medium in sectors, of which a power cut may leave some old and some new. An
entry is therefore put only where, of all such mixtures, none breaks the chain of entries: what
changes in the chain lies in one sector, or has no entries behind it in the block that could be
lost (see `find_room`). Removing changes single numbers and is safe anywhere.
"""

from __future__ import annotations

import struct
from errno import EUCLEAN
from typing import Final, NamedTuple

from ...native.constants import DEV_BSIZE, Vtype
from ...native.errors import VfsError

_HEAD: Final = struct.Struct("<IHBB")
_INO: Final = struct.Struct("<I")
_REC_LEN: Final = struct.Struct("<H")
_REC_LEN_AT: Final = 4
_NAME_LEN_AT: Final = 6
_TYPE_AT: Final = 7
_NOBODY: Final = bytes(4)
_HEAD_SIZE: Final = _HEAD.size
REC_MIN: Final = 12
"""Shortest entry, octets."""

VTYPE_TO_FT: Final = {
    Vtype.VREG: 1,
    Vtype.VDIR: 2,
    Vtype.VCHR: 3,
    Vtype.VBLK: 4,
    Vtype.VFIFO: 5,
    Vtype.VSOCK: 6,
    Vtype.VLNK: 7,
}
"""Type of a vnode -> the number in an entry."""
FT_TO_VTYPE: Final = {0: Vtype.VNON} | {number: vtype for vtype, number in VTYPE_TO_FT.items()}
"""The number in an entry -> type of a vnode; 0 does not tell."""


class Dirent(NamedTuple):
    """An entry as it stands in a block: `pos` and `reclen` in octets, `ino` 0 for nobody."""

    pos: int
    reclen: int
    ino: int
    ftype: int
    name: bytes


def rec_size(name: bytes) -> int:
    """Return how many octets an entry takes."""
    return _HEAD_SIZE + len(name) + 3 & -4


def parse_block(data: bytes | bytearray, inodes_count: int, *, has_filetype: bool) -> list[Dirent]:
    """Return all entries of a block, those without an inode, too.

    Errors: EUCLEAN, something that no file system writes.
    """
    entries = []
    pos, size = 0, len(data)
    unpack = _HEAD.unpack_from
    while pos < size:
        if size - pos < REC_MIN:
            raise VfsError(EUCLEAN, f"directory block: {size - pos} octets left over")
        ino, reclen, namelen, ftype = unpack(data, pos)
        if not has_filetype:
            namelen |= ftype << 8
            ftype = 0
        if reclen < REC_MIN or reclen & 3 or pos + reclen > size:
            raise VfsError(EUCLEAN, f"directory block: entry of {reclen} octets at {pos}")
        if not ino:
            entries.append(Dirent(pos, reclen, 0, 0, b""))
        else:
            if _HEAD_SIZE + namelen > reclen:
                raise VfsError(EUCLEAN, f"directory block: name of {namelen} octets at {pos}")
            name = bytes(data[pos + _HEAD_SIZE : pos + _HEAD_SIZE + namelen])
            if not name or b"/" in name or b"\0" in name:
                raise VfsError(EUCLEAN, f"directory block: name {name!r} at {pos}")
            if ino > inodes_count:
                raise VfsError(EUCLEAN, f"directory block: inode {ino} at {pos}")
            entries.append(Dirent(pos, reclen, ino, ftype if ftype < 8 else 0, name))
        pos += reclen
    return entries


def _head(data: bytes | bytearray, pos: int) -> tuple[int, int, int]:
    """Return the inode, the length and the used octets of the entry at `pos`. Errors: EUCLEAN.

    For blocks that have passed `parse_block` once; what they hold now was written by us.
    """
    ino, reclen, namelen, _ = _HEAD.unpack_from(data, pos)
    if reclen < REC_MIN or reclen & 3 or pos + reclen > len(data):
        raise VfsError(EUCLEAN, f"directory block: entry of {reclen} octets at {pos}")
    return ino, reclen, (_HEAD_SIZE + namelen + 3 & -4) if ino else 0


def _is_safe(pos: int, at: int, end: int, size: int) -> bool:
    """Whether a power cut can do no harm while the entry from `pos` to `end` is split at `at`."""
    if at == pos:
        return True  # it is nobody's, and used with all of its space
    # Its length and the new head change. In one sector they do so together. If they lie in two,
    # the chain may be broken here; then everything that is lost was free, or is new.
    sector = (pos + _REC_LEN_AT) // DEV_BSIZE
    return (sector == at // DEV_BSIZE == (at + _HEAD_SIZE - 1) // DEV_BSIZE) or end == size


def find_room(data: bytes | bytearray, start: int, need: int) -> tuple[int, int]:
    """Return where the first entry stands, from the one at `start` on, with `need` octets to spare.

    (-1, room) if there is none: there is room for `room` octets at most. Errors: EUCLEAN.
    """
    pos, size, largest = start, len(data), 0
    while pos < size:
        _, reclen, used = _head(data, pos)
        room = reclen - used
        if room > largest and _is_safe(pos, pos + used, pos + reclen, size):
            if room >= need:
                return pos, room
            largest = room
        pos += reclen
    return -1, largest


def insert(data: bytearray, pos: int, ino: int, ftype: int, name: bytes) -> int:
    """Enter a name in the entry at `pos` that `find_room` has found; return where it stands."""
    _, reclen, used = _head(data, pos)
    at = pos + used
    data[at + _HEAD_SIZE : at + _HEAD_SIZE + len(name)] = name
    _HEAD.pack_into(data, at, ino, reclen - used, len(name), ftype)
    if used:
        _REC_LEN.pack_into(data, pos + _REC_LEN_AT, used)
    return at


def is_entry(data: bytes | bytearray, pos: int, name: bytes) -> bool:
    """Whether `name` stands at `pos`, the beginning of an entry."""
    end = pos + _HEAD_SIZE + len(name)
    return (
        end <= len(data)
        and data[pos + _NAME_LEN_AT] == len(name)
        and data[pos + _HEAD_SIZE : end] == name
        and data[pos : pos + _REC_LEN_AT] != _NOBODY
    )


def remove(data: bytearray, pos: int) -> None:
    """Make the entry at `pos`, which has an inode, free space. Errors: EUCLEAN, it is none."""
    before, at = -1, 0
    while at < pos:
        before = at
        at += _head(data, at)[1]
    if at != pos:
        raise VfsError(EUCLEAN, f"directory block: no entry at {pos}")
    _INO.pack_into(data, pos, 0)
    if before >= 0:
        reclen = pos + _head(data, pos)[1] - before
        _REC_LEN.pack_into(data, before + _REC_LEN_AT, reclen)


def replace(data: bytearray, pos: int, ino: int, ftype: int) -> None:
    """Let the entry at `pos` name another inode."""
    _INO.pack_into(data, pos, ino)
    data[pos + _TYPE_AT] = ftype


def empty_block(size: int) -> bytes:
    """Return a block without entries."""
    return _HEAD.pack(0, size, 0, 0).ljust(size, b"\0")


def first_block(size: int, ino: int, parent: int, ftype: int) -> bytes:
    """Return the first block of a new directory; `ftype` is the number of the type, or 0."""
    dot = _HEAD.pack(ino, REC_MIN, 1, ftype) + b".\0\0\0"
    return (dot + _HEAD.pack(parent, size - REC_MIN, 2, ftype) + b"..\0\0").ljust(size, b"\0")
