"""System calls of block I/O, carried through: vectors of memory, short transfers, errno."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EIO
from typing import Final

from ...native.records import Buffer

IOV_MAX: Final = os.sysconf("SC_IOV_MAX")
"""Longest vector that the host takes in one call."""


def datasync(fd: int) -> int:
    """Call fdatasync; return 0 or an errno."""
    try:
        os.fdatasync(fd)
    except OSError as exc:
        return exc.errno or EIO
    return 0


def move(fd: int, is_read: bool, iov: Sequence[Buffer], offset: int, moved: int) -> tuple[int, int]:
    """Read or write `iov` but for the first `moved` octets; return what is left, and an errno."""
    call = os.preadv if is_read else os.pwritev
    left = sum(map(len, iov)) - moved
    rest = _after(iov, moved) if moved else iov
    offset += moved
    while left:
        try:
            count = call(fd, rest[:IOV_MAX], offset)
        except OSError as exc:
            return left, exc.errno or EIO
        if not count:
            return left, EIO  # somebody has cut the file
        left -= count
        offset += count
        if left:
            rest = _after(rest, count)
    return 0, 0


def _after(iov: Sequence[Buffer], count: int) -> list[Buffer]:
    """Return what comes after the first `count` octets."""
    for index, view in enumerate(iov):
        if count < len(view):
            return [memoryview(view)[count:], *iov[index + 1 :]]
        count -= len(view)
    return []
