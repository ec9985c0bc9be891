"""How the arguments of each puffs operation lie in the codec's table.

For each shape of arguments there is a function that packs them into the table and one that
builds them from its slots; letters and order are those of frame_ops.c. `pack` returns the number
of slots in use, the octets to which spans in the table refer, and the pid of the credentials
(0 without). `build` gets all slots, the header's 11 among them, and the frame with the number
of its octets before the payload; groups lie behind all else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final, TypeAlias

from .constants import ErrorNote, FlushOp, OpClass, VfsOp, VnOp
from .records import Buffer, Componentname, Cred, Flock
from .table import CELLS, VATTR_SLOTS, VNOVAL, put_groups, take_vattr

Packed: TypeAlias = tuple[int, bytes, int]
Pack: TypeAlias = Callable[[Any], Packed]
Build: TypeAlias = Callable[[tuple[int, ...], Buffer], tuple[Any, ...]]

_new: Any = tuple.__new__
_1: Final = Struct("=q").pack_into
_2: Final = Struct("=2q").pack_into
_3: Final = Struct("=3q").pack_into
_4: Final = Struct("=4q").pack_into
_5: Final = Struct("=5q").pack_into
_6: Final = Struct("=6q").pack_into
_7: Final = Struct("=7q").pack_into
_8: Final = Struct("=8q").pack_into
_VATTR: Final = Struct("=17q8x").pack_into
_ADVLOCK: Final = Struct("=Q6q").pack_into
_A: Final = 11
"""Slot of the first argument: those of the header come before."""
_U64: Final = 2**64 - 1


def _cred(t: tuple[int, ...], at: int, groups_at: int) -> Cred:
    n = t[at + 2]
    groups = t[groups_at : groups_at + n] if n else ()
    return _new(Cred, (t[at], t[at + 1], groups, t[7]))  # type: ignore[no-any-return]


def _cn(t: tuple[int, ...], buf: Buffer, at: int, groups_at: int) -> Componentname:
    name = buf[t[at + 2] : t[at + 3]]
    if type(name) is not bytes:
        name = bytes(name)
    cred = _cred(t, at + 4, groups_at)
    return _new(Componentname, (t[at], name, cred, t[at + 1]))  # type: ignore[no-any-return]


def _pack_none(args: tuple[()]) -> Packed:
    () = args
    return 0, b"", 0


def _build_none(t: tuple[int, ...], buf: Buffer) -> tuple[()]:
    return ()


def _pack_number(args: tuple[int]) -> Packed:
    (number,) = args
    _1(CELLS, 0, number)
    return 1, b"", 0


def _pack_range(args: tuple[int, int]) -> Packed:
    offset, length = args
    _2(CELLS, 0, offset, length)
    return 2, b"", 0


def _build_numbers(t: tuple[int, ...], buf: Buffer) -> tuple[int, ...]:
    return t[_A:]


def _pack_cred(args: tuple[Cred]) -> Packed:
    ((uid, gid, groups, pid),) = args
    _3(CELLS, 0, uid, gid, len(groups))
    return put_groups(groups, 3) if groups else 3, b"", pid


def _build_cred(t: tuple[int, ...], buf: Buffer) -> tuple[Cred]:
    return (_cred(t, _A, _A + 3),)


def _pack_number_cred(args: tuple[int, Cred]) -> Packed:
    number, (uid, gid, groups, pid) = args
    _4(CELLS, 0, number, uid, gid, len(groups))
    return put_groups(groups, 4) if groups else 4, b"", pid


def _build_number_cred(t: tuple[int, ...], buf: Buffer) -> tuple[int, Cred]:
    return t[_A], _cred(t, _A + 1, _A + 4)


def _pack_seek(args: tuple[int, int, Cred]) -> Packed:
    old, new, (uid, gid, groups, pid) = args
    _5(CELLS, 0, old, new, uid, gid, len(groups))
    return put_groups(groups, 5) if groups else 5, b"", pid


def _build_seek(t: tuple[int, ...], buf: Buffer) -> tuple[int, int, Cred]:
    return t[_A], t[_A + 1], _cred(t, _A + 2, _A + 5)


def _pack_read(args: tuple[int, int, int, Cred]) -> Packed:
    offset, resid, flags, (uid, gid, groups, pid) = args
    _6(CELLS, 0, offset, resid, flags, uid, gid, len(groups))
    return put_groups(groups, 6) if groups else 6, b"", pid


def _build_read(t: tuple[int, ...], buf: Buffer) -> tuple[int, int, int, Cred]:
    return t[_A], t[_A + 1], t[_A + 2], _cred(t, _A + 3, _A + 6)


def _pack_write(args: tuple[int, Buffer | None, int, Cred]) -> Packed:
    offset, data, ioflag, (uid, gid, groups, pid) = args
    _6(CELLS, 0, offset, -1 if data is None else len(data), ioflag, uid, gid, len(groups))
    return put_groups(groups, 6) if groups else 6, b"", pid


def _build_write(t: tuple[int, ...], buf: Buffer) -> tuple[int, Buffer, int, Cred]:
    data = memoryview(buf)[t[0] - t[10] : t[0]]
    return t[_A], data, t[_A + 2], _cred(t, _A + 3, _A + 6)


def _pack_copy(args: tuple[int, int, int, int, Cred]) -> Packed:
    *numbers, (uid, gid, groups, pid) = args
    _7(CELLS, 0, *numbers, uid, gid, len(groups))
    return put_groups(groups, 7) if groups else 7, b"", pid


def _build_copy(t: tuple[int, ...], buf: Buffer) -> tuple[int, int, int, int, Cred]:
    return t[_A], t[_A + 1], t[_A + 2], t[_A + 3], _cred(t, _A + 4, _A + 7)


# Names.


def _pack_cn(args: tuple[Componentname]) -> Packed:
    ((nameiop, name, (uid, gid, groups, pid), flags),) = args
    _7(CELLS, 0, nameiop, flags, 0, len(name), uid, gid, len(groups))
    return put_groups(groups, 7) if groups else 7, name, pid


def _build_cn(t: tuple[int, ...], buf: Buffer) -> tuple[Componentname]:
    return (_cn(t, buf, _A, _A + 7),)


def _pack_target_cn(args: tuple[int, Componentname]) -> Packed:
    targ, (nameiop, name, (uid, gid, groups, pid), flags) = args
    _8(CELLS, 0, targ, nameiop, flags, 0, len(name), uid, gid, len(groups))
    return put_groups(groups, 8) if groups else 8, name, pid


def _build_target_cn(t: tuple[int, ...], buf: Buffer) -> tuple[int, Componentname]:
    return t[_A], _cn(t, buf, _A + 1, _A + 8)


def _put_va(va: Any, at: int) -> None:
    _VATTR(CELLS, at * 8, *[VNOVAL if v is None else v for v in va])


def _pack_create(args: tuple[Componentname, Any]) -> Packed:
    (nameiop, name, (uid, gid, groups, pid), flags), va = args
    _7(CELLS, 0, nameiop, flags, 0, len(name), uid, gid, len(groups))
    _put_va(va, 7)
    end = 7 + VATTR_SLOTS
    return put_groups(groups, end) if groups else end, name, pid


def _build_create(t: tuple[int, ...], buf: Buffer) -> tuple[Any, ...]:
    return _cn(t, buf, _A, _A + 7 + VATTR_SLOTS), take_vattr(t, _A + 7)


def _pack_symlink(args: tuple[Componentname, Any, bytes]) -> Packed:
    (nameiop, name, (uid, gid, groups, pid), flags), va, target = args
    n = len(name)
    _7(CELLS, 0, nameiop, flags, 0, n, uid, gid, len(groups))
    _put_va(va, 7)
    end = 7 + VATTR_SLOTS
    _2(CELLS, end * 8, n, n + len(target))
    end += 2
    return put_groups(groups, end) if groups else end, name + target, pid


def _build_symlink(t: tuple[int, ...], buf: Buffer) -> tuple[Any, ...]:
    end = _A + 7 + VATTR_SLOTS
    target = bytes(buf[t[end] : t[end + 1]])
    return _cn(t, buf, _A, end + 2), take_vattr(t, _A + 7), target


def _pack_setattr(args: tuple[Any, Cred]) -> Packed:
    va, (uid, gid, groups, pid) = args
    _put_va(va, 0)
    _3(CELLS, VATTR_SLOTS * 8, uid, gid, len(groups))
    end = VATTR_SLOTS + 3
    return put_groups(groups, end) if groups else end, b"", pid


def _build_setattr(t: tuple[int, ...], buf: Buffer) -> tuple[Any, ...]:
    end = _A + VATTR_SLOTS
    return take_vattr(t, _A), _cred(t, end, end + 3)


def _pack_names(args: Sequence[Any], groups_at: int) -> Packed:
    src, cn_src, targ_dir, targ, cn_targ = args
    nameiop, name, (uid, gid, groups, pid), flags = cn_src
    n = len(name)
    _8(CELLS, 0, src, nameiop, flags, 0, n, uid, gid, len(groups))
    nameiop, name_targ, (uid, gid, groups_targ, _), flags = cn_targ
    _2(CELLS, 64, targ_dir, 0 if targ is None else targ)
    _7(CELLS, 80, nameiop, flags, n, n + len(name_targ), uid, gid, len(groups_targ))
    end = put_groups(groups, groups_at) if groups else groups_at
    if groups_targ:
        end = put_groups(groups_targ, end)
    return end, name + name_targ, pid


def _names(t: tuple[int, ...], buf: Buffer, groups: int) -> tuple[Any, ...]:
    cn_src = _cn(t, buf, _A + 1, groups)
    cn_targ = _cn(t, buf, _A + 10, groups + t[_A + 7])
    return t[_A], cn_src, t[_A + 8], t[_A + 9] or None, cn_targ


def _pack_rename(args: tuple[int, Componentname, int, int | None, Componentname]) -> Packed:
    return _pack_names(args, 17)


def _build_rename(t: tuple[int, ...], buf: Buffer) -> tuple[Any, ...]:
    return _names(t, buf, _A + 17)


def _pack_rename_with(
    args: tuple[int, Componentname, int, int | None, Componentname, int],
) -> Packed:
    *names, flags = args
    _1(CELLS, 136, flags)
    return _pack_names(names, 18)


def _build_rename_with(t: tuple[int, ...], buf: Buffer) -> tuple[Any, ...]:
    return *_names(t, buf, _A + 18), t[_A + 17]


# Locks, extended attributes, file handles, notes.


def _pack_advlock(args: tuple[int, int, Flock, int]) -> Packed:
    owner, op, (kind, start, length, pid), flags = args
    _ADVLOCK(CELLS, 0, owner, op, kind, start, length, pid, flags)
    return 7, b"", 0


def _build_advlock(t: tuple[int, ...], buf: Buffer) -> tuple[int, int, Flock, int]:
    return t[_A] & _U64, t[_A + 1], _new(Flock, t[_A + 2 : _A + 6]), t[_A + 6]


def _pack_getextattr(args: tuple[int, bytes, Cred]) -> Packed:
    namespace, name, (uid, gid, groups, pid) = args
    _6(CELLS, 0, namespace, 0, len(name), uid, gid, len(groups))
    return put_groups(groups, 6) if groups else 6, name, pid


def _build_getextattr(t: tuple[int, ...], buf: Buffer) -> tuple[int, bytes, Cred]:
    return t[_A], bytes(buf[t[_A + 1] : t[_A + 2]]), _cred(t, _A + 3, _A + 6)


def _pack_setextattr(args: tuple[int, bytes, Buffer, int, Cred]) -> Packed:
    namespace, name, value, flags, (uid, gid, groups, pid) = args
    n = len(name)
    _5(CELLS, 0, namespace, 0, n, n, n + len(value))
    _4(CELLS, 40, flags, uid, gid, len(groups))
    return put_groups(groups, 9) if groups else 9, b"".join((name, value)), pid


def _build_setextattr(t: tuple[int, ...], buf: Buffer) -> tuple[int, bytes, bytes, int, Cred]:
    name, value = bytes(buf[t[_A + 1] : t[_A + 2]]), bytes(buf[t[_A + 3] : t[_A + 4]])
    return t[_A], name, value, t[_A + 5], _cred(t, _A + 6, _A + 9)


def _pack_numbers_name(args: tuple[int, int, bytes]) -> Packed:
    first, second, name = args
    _4(CELLS, 0, first, second, 0, len(name))
    return 4, name, 0


def _build_numbers_name(t: tuple[int, ...], buf: Buffer) -> tuple[int, int, bytes]:
    return t[_A], t[_A + 1], bytes(buf[t[_A + 2] : t[_A + 3]])


def _pack_handle(args: tuple[bytes]) -> Packed:
    (handle,) = args
    _2(CELLS, 0, 0, len(handle))
    return 2, handle, 0


def _build_handle(t: tuple[int, ...], buf: Buffer) -> tuple[bytes]:
    return (bytes(buf[t[_A] : t[_A + 1]]),)


def _pack_note(args: tuple[int, bytes]) -> Packed:
    errno, text = args
    text = text[:255]  # for people; a long one is no reason to lose the note
    _3(CELLS, 0, errno, 0, len(text))
    return 3, text, 0


def _build_note(t: tuple[int, ...], buf: Buffer) -> tuple[int, bytes]:
    return t[_A], bytes(buf[t[_A + 1] : t[_A + 2]])


_NONE = (_pack_none, _build_none)
_NUMBER = (_pack_number, _build_numbers)
_RANGE = (_pack_range, _build_numbers)
_CRED = (_pack_cred, _build_cred)
_NUMBER_CRED = (_pack_number_cred, _build_number_cred)
_READ = (_pack_read, _build_read)
_SEEK = (_pack_seek, _build_seek)
_NUMBERS_NAME = (_pack_numbers_name, _build_numbers_name)
_CN = (_pack_cn, _build_cn)
_CREATE = (_pack_create, _build_create)
_TARGET_CN = (_pack_target_cn, _build_target_cn)
_GETEXTATTR = (_pack_getextattr, _build_getextattr)

_BY_OP: Final[dict[tuple[int, int], tuple[Any, Any]]] = {
    (OpClass.VFS, VfsOp.UNMOUNT): _NUMBER,
    (OpClass.VFS, VfsOp.STATVFS): _NONE,
    (OpClass.VFS, VfsOp.SYNC): _NUMBER_CRED,
    (OpClass.VFS, VfsOp.FHTOVP): (_pack_handle, _build_handle),
    (OpClass.VFS, VfsOp.VPTOFH): _NONE,
    (OpClass.VFS, VfsOp.EXTATTRCTL): _NUMBERS_NAME,
    (OpClass.VN, VnOp.LOOKUP): _CN,
    (OpClass.VN, VnOp.CREATE): _CREATE,
    (OpClass.VN, VnOp.MKNOD): _CREATE,
    (OpClass.VN, VnOp.OPEN): _NUMBER_CRED,
    (OpClass.VN, VnOp.CLOSE): _NUMBER_CRED,
    (OpClass.VN, VnOp.ACCESS): _NUMBER_CRED,
    (OpClass.VN, VnOp.GETATTR): _CRED,
    (OpClass.VN, VnOp.SETATTR): (_pack_setattr, _build_setattr),
    (OpClass.VN, VnOp.READ): _READ,
    (OpClass.VN, VnOp.WRITE): (_pack_write, _build_write),
    (OpClass.VN, VnOp.POLL): _NUMBER,
    (OpClass.VN, VnOp.MMAP): _NUMBER_CRED,
    (OpClass.VN, VnOp.FSYNC): _READ,
    (OpClass.VN, VnOp.SEEK): _SEEK,
    (OpClass.VN, VnOp.REMOVE): _TARGET_CN,
    (OpClass.VN, VnOp.LINK): _TARGET_CN,
    (OpClass.VN, VnOp.RENAME): (_pack_rename, _build_rename),
    (OpClass.VN, VnOp.MKDIR): _CREATE,
    (OpClass.VN, VnOp.RMDIR): _TARGET_CN,
    (OpClass.VN, VnOp.SYMLINK): (_pack_symlink, _build_symlink),
    (OpClass.VN, VnOp.READDIR): _READ,
    (OpClass.VN, VnOp.READLINK): _CRED,
    (OpClass.VN, VnOp.ABORTOP): _CN,
    (OpClass.VN, VnOp.INACTIVE): _NONE,
    (OpClass.VN, VnOp.RECLAIM): _NUMBER,
    (OpClass.VN, VnOp.PRINT): _NONE,
    (OpClass.VN, VnOp.PATHCONF): _NUMBER,
    (OpClass.VN, VnOp.ADVLOCK): (_pack_advlock, _build_advlock),
    (OpClass.VN, VnOp.GETEXTATTR): _GETEXTATTR,
    (OpClass.VN, VnOp.LISTEXTATTR): _NUMBER_CRED,
    (OpClass.VN, VnOp.DELETEEXTATTR): _GETEXTATTR,
    (OpClass.VN, VnOp.SETEXTATTR): (_pack_setextattr, _build_setextattr),
    (OpClass.VN, VnOp.FALLOCATE): _RANGE,
    (OpClass.VN, VnOp.FDISCARD): _RANGE,
    (OpClass.VN, VnOp.SEEK_DATA): _SEEK,
    (OpClass.VN, VnOp.COPY_FILE_RANGE): (_pack_copy, _build_copy),
    (OpClass.VN, VnOp.RENAME_WITH): (_pack_rename_with, _build_rename_with),
    **{(OpClass.ERROR, kind): (_pack_note, _build_note) for kind in ErrorNote},
    **{(OpClass.FLUSH, op): _NUMBERS_NAME for op in FlushOp},
    (OpClass.UNMOUNT, 0): _NONE,
}

PACK: Final[dict[int, Pack]] = {c << 6 | op: shape[0] for (c, op), shape in _BY_OP.items()}
BUILD: Final[dict[int, Build]] = {c << 6 | op: shape[1] for (c, op), shape in _BY_OP.items()}
