"""System calls of the host: in threads, and such as Python does not have."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, ParamSpec, TypeVar

import trio

from .target import fail

P = ParamSpec("P")
R = TypeVar("R")

_libc = ctypes.CDLL(None, use_errno=True)

_AT_FDCWD: Final = -100
_AT_EACCESS: Final = 0x200
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MAX_HANDLE_SZ: Final = 128


async def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a system call in a thread; a cancelled caller leaves a stuck one behind."""
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs), abandon_on_cancel=True)


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _MAX_HANDLE_SZ),
    )


def name_to_handle(path: bytes) -> bytes:
    """Return the handle of a file, of a link itself."""
    handle = _FileHandle(handle_bytes=_MAX_HANDLE_SZ)
    mount_id = ctypes.c_int()
    if _libc.name_to_handle_at(_AT_FDCWD, path, ctypes.byref(handle), ctypes.byref(mount_id), 0):
        fail(ctypes.get_errno(), path)
    kind: int = handle.handle_type
    size: int = handle.handle_bytes
    return kind.to_bytes(4, "little") + bytes(handle.f_handle)[:size]


def open_by_handle(root: bytes, handle: bytes, flags: int) -> int:
    """Open what `handle` names in the file system of `root`; for root alone."""
    data = handle[4:]
    record = _FileHandle(len(data), int.from_bytes(handle[:4], "little"))
    ctypes.memmove(record.f_handle, data, len(data))
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd: int = _libc.open_by_handle_at(place, ctypes.byref(record), flags | os.O_CLOEXEC)
        if fd < 0:
            fail(ctypes.get_errno())
        return fd
    finally:
        os.close(place)


def as_user(uid: int, gid: int, function: Callable[[], R]) -> R:
    """Call `function` in this thread as another user sees files; root alone can do that.

    (Further groups stay root's: they are the process's, and other threads are at work.)
    """
    assert threading.current_thread() is not threading.main_thread()
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        return function()
    finally:
        _libc.setfsuid(os.geteuid())
        _libc.setfsgid(os.getegid())


def access(path: bytes, mode: int) -> bool:
    """Return whether the caller of this thread may do `mode`; fail where there is no such file."""
    if _libc.faccessat(_AT_FDCWD, path, mode, _AT_EACCESS) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EACCES, errno.EROFS):
        return False
    fail(number, path)


def read_fault(fd: int) -> None:
    """Read into memory that is not there."""
    if _libc.pread(fd, ctypes.c_void_p(16), ctypes.c_size_t(4096), ctypes.c_long(0)) < 0:
        fail(ctypes.get_errno())


def remount_rdonly(point: bytes) -> None:
    """Make a mount read-only; for root alone."""
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    if _libc.mount(None, point, None, ctypes.c_ulong(flags), None) < 0:
        fail(ctypes.get_errno(), point)
