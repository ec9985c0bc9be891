"""System calls that Python's `os` does not have. All raise OSError.

XXX: by ctypes, a few microseconds a call; the one that counts, getdents64, brings many entries.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_UTIME_OMIT: Final = (1 << 30) - 2
_FALLOC_FL_KEEP_SIZE: Final = 0x1
_FALLOC_FL_PUNCH_HOLE: Final = 0x2
_SECOND: Final = 10**9

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


def _declared(name: str, *arguments: Any) -> Any:
    function = getattr(_libc, name)
    function.argtypes = arguments
    function.restype = ctypes.c_ssize_t if name == "getdents64" else ctypes.c_int
    return function


_getdents64: Final = _declared("getdents64", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_utimensat: Final = _declared(
    "utimensat", ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_Timespec * 2), ctypes.c_int
)
_fallocate: Final = _declared(
    "fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
)
_syncfs: Final = _declared("syncfs", ctypes.c_int)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class RawDirent(NamedTuple):
    """An entry as the host has it; `offset` is where the next one is, `kind` DT_* (0: unknown)."""

    ino: int
    offset: int
    kind: int
    name: bytes


_HEAD: Final = struct.Struct("=QqHB")
_buffer: Final = ctypes.create_string_buffer(32 * 1024)


def getdents(fd: int, limit: int) -> Iterator[RawDirent]:
    """Return the next entries of an open directory, about `limit` octets; none at the end."""
    # One buffer for all: what it holds is copied before anybody else gets to run.
    room = max(512, min(limit, len(_buffer)))
    length = _checked(_getdents64(fd, _buffer, room))
    return _entries(ctypes.string_at(_buffer, length))


def _entries(octets: bytes) -> Iterator[RawDirent]:
    at = 0
    while at < len(octets):
        ino, offset, length, kind = _HEAD.unpack_from(octets, at)
        name = at + _HEAD.size
        yield RawDirent(ino, offset, kind, octets[name : octets.index(0, name)])
        at += length


def utime(path: bytes, atime: int | None, mtime: int | None) -> None:
    """Set times of what `path` leads to, ns; None leaves one. OverflowError: out of range."""
    times = (_Timespec * 2)(_timespec(atime), _timespec(mtime))
    _checked(_utimensat(-1, path, times, 0))


def _timespec(time: int | None) -> _Timespec:
    if time is None:
        return _Timespec(0, _UTIME_OMIT)
    seconds, rest = divmod(time, _SECOND)
    if not -(1 << 63) <= seconds < 1 << 63:
        raise OverflowError(f"no time: {time} ns")
    return _Timespec(seconds, rest)


def fallocate(fd: int, offset: int, length: int) -> None:
    """Reserve space; the file grows if need be."""
    _checked(_fallocate(fd, 0, offset, length))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros and give its space back; the size stays."""
    _checked(_fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length))


def syncfs(fd: int) -> None:
    """Write out everything of the file system in which `fd` lies."""
    _checked(_syncfs(fd))
