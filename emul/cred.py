"""Who may do what: POSIX permission rules as Linux has them, for file systems that keep modes.

All functions take plain numbers, know no vnode and never wait. The kernel's own
credentials (FSCRED, NOCRED: a negative pid) may do everything; uid 0 may do all but
execute what nobody may execute.
"""

from __future__ import annotations

from errno import EACCES, EPERM
from stat import S_ISGID, S_ISUID, S_ISVTX, S_IXGRP

from ..native.constants import VEXEC, Vtype
from ..native.errors import VfsError
from ..native.records import Cred

_ANY_X = 0o111


def is_kernel(cred: Cred) -> bool:
    """Whether the kernel itself asks, which is never refused."""
    return cred.pid < 0


def is_owner(cred: Cred, uid: int) -> bool:
    """Whether `cred` may do what only the owner `uid` may do."""
    return cred.uid in (uid, 0) or cred.pid < 0


def in_group(cred: Cred, gid: int) -> bool:
    """Whether `gid` is one of the groups of `cred`."""
    return gid == cred.gid or gid in cred.groups


def may_access(cred: Cred, vtype: int, mode: int, uid: int, gid: int, wanted: int) -> bool:
    """Return whether `cred` may do all of `wanted` (VREAD, VWRITE, VEXEC) to such a node."""
    if cred.uid == 0:
        return not wanted & VEXEC or bool(mode & _ANY_X) or vtype == Vtype.VDIR or cred.pid < 0
    # Exactly one class counts: an owner without the bit is refused although others have it.
    if cred.uid == uid:
        granted = mode >> 6
    elif in_group(cred, gid):
        granted = mode >> 3
    else:
        granted = mode
    return not wanted & ~granted or cred.pid < 0


def check_access(cred: Cred, vtype: int, mode: int, uid: int, gid: int, wanted: int) -> None:
    """Return if `may_access`. Errors: EACCES."""
    if not may_access(cred, vtype, mode, uid, gid, wanted):
        raise VfsError(EACCES)


def check_owner(cred: Cred, uid: int) -> None:
    """Return if `cred` is the owner or root, as changing a mode or times asks. Errors: EPERM."""
    if not is_owner(cred, uid):
        raise VfsError(EPERM)


def check_sticky(cred: Cred, dir_mode: int, dir_uid: int, uid: int) -> None:
    """Return if a directory's sticky bit lets `cred` take away a name of a node of `uid`.

    The owner of either may, and root. Errors: EPERM.
    """
    if dir_mode & S_ISVTX and not is_owner(cred, uid) and not is_owner(cred, dir_uid):
        raise VfsError(EPERM)


def mode_after_chmod(cred: Cred, uid: int, gid: int, mode: int) -> int:
    """Return the mode that a node of `uid`, `gid` gets when `cred` asks for `mode`.

    S_ISGID is dropped without an error when `cred` is not in the group. Errors: EPERM (not the
    owner).
    """
    check_owner(cred, uid)
    if mode & S_ISGID and cred.uid != 0 and not in_group(cred, gid) and not is_kernel(cred):
        mode &= ~S_ISGID
    return mode


def check_chown(cred: Cred, uid: int, gid: int, new_uid: int | None, new_gid: int | None) -> None:
    """Return if `cred` may give a node of `uid`, `gid` to `new_uid` and `new_gid` (None: stays).

    Root may; the owner may name himself, and any of his groups. Errors: EPERM.
    """
    if cred.uid == 0 or is_kernel(cred):
        return
    if (
        cred.uid != uid
        or (new_uid is not None and new_uid != uid)
        or (new_gid is not None and new_gid != gid and not in_group(cred, new_gid))
    ):
        raise VfsError(EPERM)


def drop_setid(mode: int) -> int:
    """Return `mode` without S_ISUID, and without S_ISGID where that means "run as group".

    S_ISGID without S_IXGRP stays: it once meant mandatory locks, and Linux leaves it alone.
    """
    mode &= ~S_ISUID
    if mode & S_IXGRP:
        mode &= ~S_ISGID
    return mode


def mode_after_chown(vtype: int, mode: int) -> int:
    """Return the mode of a node that has got a new owner or group.

    Everything but a directory loses its set-id bits, whoever asks: Linux does that to root, too.
    """
    return mode if vtype == Vtype.VDIR else drop_setid(mode)


def mode_after_write(cred: Cred, vtype: int, mode: int) -> int:
    """Return the mode of a node after `cred` has written to it or truncated it.

    A regular file loses its set-id bits, even if its owner writes; root may keep them.
    """
    if vtype != Vtype.VREG or cred.uid == 0 or is_kernel(cred):
        return mode
    return drop_setid(mode)


def creation(cred: Cred, vtype: int, mode: int, dir_mode: int, dir_gid: int) -> tuple[int, int]:
    """Return (gid, mode) of a node that `cred` makes with `mode`; its uid is that of `cred`.

    In a directory with S_ISGID it gets the directory's group, and a directory the bit as well; an
    executable file keeps S_ISGID only if `cred` is in that group.
    """
    if not dir_mode & S_ISGID:
        return cred.gid, mode
    if vtype == Vtype.VDIR:
        return dir_gid, mode | S_ISGID
    setgid_program = S_ISGID | S_IXGRP
    if mode & setgid_program == setgid_program and cred.uid != 0 and not in_group(cred, dir_gid):
        mode &= ~S_ISGID
    return dir_gid, mode
