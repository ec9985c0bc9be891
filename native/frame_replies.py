"""How the result of each puffs operation lies in the codec's table.

As in `frame_requests`: `pack` returns the number of slots in use, the octets to which spans
refer, and the setbacks; `build` gets all slots and the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, repeat
from operator import itemgetter
from struct import Struct, pack_into
from typing import Any, Final, TypeAlias

from ._codec import ffi, lib
from .constants import FlushOp, OpClass, VfsOp, VnOp
from .records import Buffer, Dirent, Flock, Newinfo, Statvfs, Vattr
from .table import CELLS, SLOTS, TABLE, VATTR_SLOTS, VNOVAL, take_vattr

Packed: TypeAlias = tuple[int, bytes, int]
Pack: TypeAlias = Callable[[Any], Packed]
Build: TypeAlias = Callable[[tuple[int, ...], Buffer], Any]

_new: Any = tuple.__new__
_1: Final = Struct("=q").pack_into
_2: Final = Struct("=2q").pack_into
_4: Final = Struct("=4q").pack_into
_7: Final = Struct("=7q").pack_into
_STATVFS: Final = Struct("=11Q").pack_into
_VATTR: Final = Struct("=17q8x").pack_into
_VATTR_TTL: Final = Struct("=17q8xq").pack_into
_A: Final = 11
_NEWINFO: Final = lib.FRAME_NEWINFO_SLOTS
_NO_VATTR: Final = (VNOVAL,) * 17 + (0,)
_NO_NEWINFO: Final = (-1,) * _NEWINFO
_U64: Final = 2**64 - 1
_names: Final = itemgetter(2)


def _pack_none(result: None) -> Packed:
    if result is not None:
        raise TypeError("this operation has no result")
    return 0, b"", 0


def _build_none(t: tuple[int, ...], buf: Buffer) -> None:
    return None


def _pack_setbacks(result: int) -> Packed:
    return 0, b"", result


def _build_setbacks(t: tuple[int, ...], buf: Buffer) -> int:
    return t[6]


def _pack_open(result: tuple[int, int]) -> Packed:
    oflags, setbacks = result
    _1(CELLS, 0, oflags)
    return 1, b"", setbacks


def _build_open(t: tuple[int, ...], buf: Buffer) -> tuple[int, int]:
    return t[_A], t[6]


def _pack_number(result: int) -> Packed:
    _1(CELLS, 0, result)
    return 1, b"", 0


def _build_number(t: tuple[int, ...], buf: Buffer) -> int:
    return t[_A]


def _pack_newinfo(result: Newinfo) -> Packed:
    cookie, vtype, size, rdev, va, va_ttl, cn_ttl = result
    if va is None:
        _7(CELLS, 0, cookie, vtype, size, rdev, va_ttl, cn_ttl, 0)
    else:
        _7(CELLS, 0, cookie, vtype, size, rdev, va_ttl, cn_ttl, 1)
        _VATTR(CELLS, 56, *[VNOVAL if v is None else v for v in va])
    return _NEWINFO, b"", 0


def _build_newinfo(t: tuple[int, ...], buf: Buffer) -> Newinfo:
    va = take_vattr(t, 18) if t[17] else None
    return _new(Newinfo, (t[11], t[12], t[13], t[14], va, t[15], t[16]))  # type: ignore[no-any-return]


def _pack_vattr(result: tuple[Vattr, int]) -> Packed:
    va, ttl = result
    _VATTR_TTL(CELLS, 0, *[VNOVAL if v is None else v for v in va], ttl)
    return VATTR_SLOTS + 1, b"", 0


def _build_vattr(t: tuple[int, ...], buf: Buffer) -> tuple[Vattr, int]:
    return take_vattr(t, _A), t[_A + VATTR_SLOTS]


def _pack_payload(result: Buffer | None) -> Packed:
    _1(CELLS, 0, -1 if result is None else len(result))
    return 1, b"", 0


def _build_payload(t: tuple[int, ...], buf: Buffer) -> memoryview:
    return memoryview(buf)[t[0] - t[10] : t[0]]


def _pack_octets(result: Buffer) -> Packed:
    octets = result if type(result) is bytes else memoryview(result).tobytes()
    _2(CELLS, 0, 0, len(octets))
    return 2, octets, 0


def _build_octets(t: tuple[int, ...], buf: Buffer) -> bytes:
    return bytes(buf[t[_A] : t[_A + 1]])


def _pack_flock(result: Flock) -> Packed:
    kind, start, length, pid = result
    _4(CELLS, 0, kind, start, length, pid)
    return 4, b"", 0


def _build_flock(t: tuple[int, ...], buf: Buffer) -> Flock:
    return _new(Flock, t[_A : _A + 4])  # type: ignore[no-any-return]


def _pack_statvfs(result: Statvfs) -> Packed:
    _STATVFS(CELLS, 0, *result)
    return 11, b"", 0


def _build_statvfs(t: tuple[int, ...], buf: Buffer) -> Statvfs:
    return _new(Statvfs, [v & _U64 for v in t[_A : _A + 11]])  # type: ignore[no-any-return]


# Directory entries: columns, so that one call of C and a few of the interpreter's own loops
# take a whole listing apart.


def _newinfo_row(info: Newinfo | None) -> Sequence[int]:
    if info is None:
        return _NO_NEWINFO
    cookie, vtype, size, rdev, va, va_ttl, cn_ttl = info
    if va is None:
        return (cookie, vtype, size, rdev, va_ttl, cn_ttl, 0, *_NO_VATTR)
    values = [VNOVAL if v is None else v for v in va]
    return (cookie, vtype, size, rdev, va_ttl, cn_ttl, 1, *values, 0)


def pack_dirents(result: tuple[Sequence[Dirent], bool]) -> tuple[int, bytes, Any]:
    """Pack a directory listing; return slots in use, the names, and the table.

    The table is the common one unless the listing is too long for that.
    """
    entries, end = result
    n = len(entries)
    if n == 0:
        pack_into("=3q", CELLS, 0, 0, bool(end), 0)
        return 3, b"", TABLE
    fileids, vtypes, names, offsets, infos = zip(*entries, strict=True)
    ends = list(accumulate(map(len, names)))
    plus = any(info is not None for info in infos)
    slots = 3 + n * (5 + _NEWINFO * plus)
    table, cells = TABLE, CELLS
    if slots > SLOTS:
        table = ffi.new("int64_t[]", slots)
        cells = ffi.buffer(table)
    pack_into(
        f"={3 + 5 * n}q",
        cells,
        0,
        *(n, bool(end), plus),
        *fileids,
        *vtypes,
        *(0, *ends[:-1]),
        *ends,
        *offsets,
    )
    if plus:
        at = (3 + 5 * n) * 8
        for info in infos:
            pack_into(f"={_NEWINFO}q", cells, at, *_newinfo_row(info))
            at += _NEWINFO * 8
    return slots, b"".join(names), table


def _row_newinfo(row: tuple[int, ...]) -> Newinfo | None:
    if row[0] < 0:
        return None
    va = take_vattr(row, 7) if row[6] else None
    return _new(Newinfo, (row[0], row[1], row[2], row[3], va, row[4], row[5]))  # type: ignore[no-any-return]


def _build_dirents(t: tuple[int, ...], buf: Buffer) -> tuple[tuple[Dirent, ...], bool]:
    n = t[_A]
    octets = bytes(buf[: t[0]])
    at = _A + 3
    names = [
        octets[a:b]
        for a, b in zip(t[at + 2 * n : at + 3 * n], t[at + 3 * n : at + 4 * n], strict=True)
    ]
    infos: Any = repeat(None, n)
    if t[_A + 2]:
        rows = iter(t[at + 5 * n :])
        infos = map(_row_newinfo, zip(*[rows] * _NEWINFO, strict=True))
    columns = zip(
        t[at : at + n],
        t[at + n : at + 2 * n],
        names,
        t[at + 4 * n : at + 5 * n],
        infos,
        strict=True,
    )
    return tuple(map(_new, repeat(Dirent), columns)), t[_A + 1] == 1


_NONE = (_pack_none, _build_none)
_SETBACKS = (_pack_setbacks, _build_setbacks)
_NUMBER = (_pack_number, _build_number)
_NEW = (_pack_newinfo, _build_newinfo)
_VA = (_pack_vattr, _build_vattr)
_OCTETS = (_pack_octets, _build_octets)

_BY_OP: Final[dict[tuple[int, int], tuple[Any, Any]]] = {
    (OpClass.VFS, VfsOp.UNMOUNT): _NONE,
    (OpClass.VFS, VfsOp.STATVFS): (_pack_statvfs, _build_statvfs),
    (OpClass.VFS, VfsOp.SYNC): _NONE,
    (OpClass.VFS, VfsOp.FHTOVP): _NEW,
    (OpClass.VFS, VfsOp.VPTOFH): _OCTETS,
    (OpClass.VFS, VfsOp.EXTATTRCTL): _NONE,
    (OpClass.VN, VnOp.LOOKUP): _NEW,
    (OpClass.VN, VnOp.CREATE): _NEW,
    (OpClass.VN, VnOp.MKNOD): _NEW,
    (OpClass.VN, VnOp.OPEN): (_pack_open, _build_open),
    (OpClass.VN, VnOp.ACCESS): _NONE,
    (OpClass.VN, VnOp.GETATTR): _VA,
    (OpClass.VN, VnOp.SETATTR): _VA,
    (OpClass.VN, VnOp.READ): (_pack_payload, _build_payload),
    (OpClass.VN, VnOp.WRITE): _NONE,
    (OpClass.VN, VnOp.POLL): _NUMBER,
    (OpClass.VN, VnOp.MMAP): _SETBACKS,
    (OpClass.VN, VnOp.FSYNC): _NONE,
    (OpClass.VN, VnOp.SEEK): _NONE,
    (OpClass.VN, VnOp.REMOVE): _SETBACKS,
    (OpClass.VN, VnOp.LINK): _VA,
    (OpClass.VN, VnOp.RENAME): _NONE,
    (OpClass.VN, VnOp.MKDIR): _NEW,
    (OpClass.VN, VnOp.RMDIR): _SETBACKS,
    (OpClass.VN, VnOp.SYMLINK): _NEW,
    (OpClass.VN, VnOp.READDIR): (pack_dirents, _build_dirents),
    (OpClass.VN, VnOp.READLINK): _OCTETS,
    (OpClass.VN, VnOp.INACTIVE): _SETBACKS,
    (OpClass.VN, VnOp.PRINT): _OCTETS,
    (OpClass.VN, VnOp.PATHCONF): _NUMBER,
    (OpClass.VN, VnOp.ADVLOCK): (_pack_flock, _build_flock),
    (OpClass.VN, VnOp.GETEXTATTR): _OCTETS,
    (OpClass.VN, VnOp.LISTEXTATTR): _OCTETS,
    (OpClass.VN, VnOp.DELETEEXTATTR): _NONE,
    (OpClass.VN, VnOp.SETEXTATTR): _NONE,
    (OpClass.VN, VnOp.FALLOCATE): _NONE,
    (OpClass.VN, VnOp.FDISCARD): _NONE,
    (OpClass.VN, VnOp.SEEK_DATA): _NUMBER,
    (OpClass.VN, VnOp.COPY_FILE_RANGE): _NUMBER,
    (OpClass.VN, VnOp.RENAME_WITH): _NONE,
    **{(OpClass.FLUSH, op): _NONE for op in FlushOp},
    (OpClass.UNMOUNT, 0): _NONE,
}

PACK: Final[dict[int, Pack]] = {c << 6 | op: shape[0] for (c, op), shape in _BY_OP.items()}
BUILD: Final[dict[int, Build]] = {c << 6 | op: shape[1] for (c, op), shape in _BY_OP.items()}
