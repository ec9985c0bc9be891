"""Attributes of SFTP version 3 in the table of numbers: six slots and the mask of those present."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from .sftp_protocol import (
    ATTR_ACMODTIME,
    ATTR_ALL,
    ATTR_PERMISSIONS,
    ATTR_SIZE,
    ATTR_UIDGID,
    NO_ATTRS,
    Attrs,
)
from .table import CELLS

_new: Any = tuple.__new__
_7: Final = Struct("=7q").pack_into


def mask_of(attrs: Attrs) -> int:
    """Return the mask of what is there; ValueError when half of a pair is missing."""
    size, uid, gid, mode, atime, mtime = attrs
    mask = 0
    if size is not None:
        mask = ATTR_SIZE
    if uid is not None or gid is not None:
        if uid is None or gid is None:
            raise ValueError("uid and gid go together")
        mask |= ATTR_UIDGID
    if mode is not None:
        mask |= ATTR_PERMISSIONS
    if atime is not None or mtime is not None:
        if atime is None or mtime is None:
            raise ValueError("atime and mtime go together")
        mask |= ATTR_ACMODTIME
    return mask


def put_attrs(attrs: Attrs, at: int) -> None:
    """Pack attributes at slot `at`."""
    mask = mask_of(attrs)
    size, uid, gid, mode, atime, mtime = attrs
    _7(CELLS, at * 8, size or 0, uid or 0, gid or 0, mode or 0, atime or 0, mtime or 0, mask)


def take_attrs(slots: tuple[int, ...]) -> Attrs:
    """Build attributes from their seven slots."""
    mask = slots[6]
    if mask == ATTR_ALL:
        return _new(Attrs, slots[:6])  # type: ignore[no-any-return]
    if mask == 0:
        return NO_ATTRS
    size, uid, gid, mode, atime, mtime, _ = slots
    return Attrs(
        size if mask & ATTR_SIZE else None,
        uid if mask & ATTR_UIDGID else None,
        gid if mask & ATTR_UIDGID else None,
        mode if mask & ATTR_PERMISSIONS else None,
        atime if mask & ATTR_ACMODTIME else None,
        mtime if mask & ATTR_ACMODTIME else None,
    )
