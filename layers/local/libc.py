"""System calls that Python's `os` does not have. All raise OSError.

XXX: by ctypes, a few microseconds a call; the one that counts, getdents64, brings many entries.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ...native.constants import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE

_UTIME_OMIT: Final = (1 << 30) - 2
_IN_NONBLOCK: Final = os.O_NONBLOCK
_IN_CLOEXEC: Final = os.O_CLOEXEC
_IN_ATTRIB: Final = 0x4
_IN_DELETE_SELF: Final = 0x400
_IN_MOVE_SELF: Final = 0x800
_IN_ONLYDIR: Final = 0x01000000
IN_IGNORED: Final = 0x8000
"""An event that says that a watch has ended."""
IN_DELETE: Final = 0x200
IN_ISDIR: Final = 0x40000000
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
_inotify_init1: Final = _declared("inotify_init1", ctypes.c_int)
_inotify_add_watch: Final = _declared(
    "inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32
)
_inotify_rm_watch: Final = _declared("inotify_rm_watch", ctypes.c_int, ctypes.c_int)


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
    _checked(_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length))


def syncfs(fd: int) -> None:
    """Write out everything of the file system in which `fd` lies."""
    _checked(_syncfs(fd))


def inotify_init() -> int:
    """Return a descriptor from which events can be read; reading does not wait."""
    return _checked(_inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))


def inotify_add_watch(fd: int, path: bytes) -> int:
    """Be told when a directory is moved, or replaced, or changed in its attributes.

    And when a name in it is removed: a directory that somebody holds on to hears nothing of that.
    """
    mask = _IN_MOVE_SELF | IN_DELETE | _IN_DELETE_SELF | _IN_ATTRIB | _IN_ONLYDIR
    return _checked(_inotify_add_watch(fd, path, mask))


def inotify_rm_watch(fd: int, watch: int) -> None:
    """End a watch."""
    _checked(_inotify_rm_watch(fd, watch))
