"""mount(2) and umount2(2) of a caught program, which the kernel has us answer.

The program's system call filter (see `stage`) hands these two on to whoever holds its listener:
seccomp's user notification. A mount of type fuse names the descriptor that the program has of
/dev/fuse; it becomes one end of our socket pair in place, and mount(2) returns 0. So programs are
caught that mount by themselves and know no fusermount, as ntfs-3g is, and those which unmount by
themselves in the end hear that it has worked. All other mounts are left to the kernel, which
refuses them.
"""

from __future__ import annotations

import os
import select
import socket as _socket
from collections.abc import Callable
from contextlib import suppress
from errno import EPERM
from fcntl import ioctl
from struct import Struct
from typing import Final

import trio

from . import stage
from .calls import MountCall

_NOTIF: Final = Struct("=QIIiIQ6Q")
_RESP: Final = Struct("=QqiI")
_ADDFD: Final = Struct("=QIIII")
_NOTIF_RECV: Final = 0xC0502100
_NOTIF_SEND: Final = 0xC0182101
_NOTIF_ADDFD: Final = 0x40182103
_ADDFD_SETFD: Final = 1
_CONTINUE: Final = 1
_PAGE: Final = 4096
_FLAGS: Final = ((1, "ro"), (8, "noexec"), (1024, "noatime"))
_NAMELESS: Final = ("", "fuse", "/dev/fuse")
"""What libfuse calls a file system that has no name."""


class SystemCall(MountCall):
    """A call of mount(2) that waits for its answer."""

    def __init__(
        self, listener: int, number: int, pid: int, fd: int, directory: str, words: str
    ) -> None:
        super().__init__(directory, words, pid)
        self._listener = listener
        self._number = number
        self._fd = fd

    def hand_over(self, fuse: _socket.socket) -> None:
        """See MountCall."""
        fields = (self._number, _ADDFD_SETFD, fuse.fileno(), self._fd, os.O_CLOEXEC)
        ioctl(self._listener, _NOTIF_ADDFD, _ADDFD.pack(*fields))
        _answer(self._listener, self._number)

    def refuse(self) -> None:
        """See MountCall. libfuse turns to fusermount then, and is told why; others are not."""
        _answer(self._listener, self._number, errno=EPERM)


async def serve_calls(
    listener: int, mount: Callable[[SystemCall], bool], unmount: Callable[[str], bool]
) -> None:
    """Answer calls until nobody is left who could make one. Owns `listener`.

    `mount` and `unmount` return whether they take the call, which the kernel refuses otherwise.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while True:
            await trio.lowlevel.wait_readable(listener)
            # To receive where there is nothing is to wait: nothing else would run.
            if any(event & select.POLLIN for _, event in poll.poll(0)):
                _take(listener, mount, unmount)
            elif poll.poll(0):
                return
    finally:
        trio.lowlevel.notify_closing(listener)
        os.close(listener)


def _take(
    listener: int, mount: Callable[[SystemCall], bool], unmount: Callable[[str], bool]
) -> None:
    notif = bytearray(_NOTIF.size)
    try:
        ioctl(listener, _NOTIF_RECV, notif)
    except OSError:
        return  # whoever called has been killed
    number, pid, _, nr, _, _, *args = _NOTIF.unpack(notif)
    mount_nr, umount_nr, _ = stage.SYSTEM_CALLS[os.uname().machine][1:]
    taken = done = False
    with suppress(OSError, ValueError):
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if nr == mount_nr:
                call = _mount_call(listener, number, pid, memory, args)
                taken = call is not None and mount(call)
            elif nr == umount_nr:
                done = unmount(_path(pid, _string(memory, args[0])))
        finally:
            os.close(memory)
    if not taken:
        _answer(listener, number, flags=0 if done else _CONTINUE)


def _answer(listener: int, number: int, *, errno: int = 0, flags: int = 0) -> None:
    with suppress(OSError):  # whoever called has been killed
        ioctl(listener, _NOTIF_SEND, _RESP.pack(number, 0, -errno, flags))


def _string(memory: int, address: int) -> bytes:
    """Return the C string at `address`. Errors: OSError, and ValueError if it is too long."""
    text = b""
    while address and len(text) < _PAGE:
        piece = os.pread(memory, _PAGE - address % _PAGE, address)
        head, end, _ = piece.partition(b"\0")
        text += head
        if end or not piece:
            return text
        address += len(piece)
    if address:
        raise ValueError("too long")
    return text


def _path(pid: int, path: bytes) -> str:
    """Return a path of a process as an absolute one."""
    return os.fsdecode(os.path.join(os.readlink(b"/proc/%d/cwd" % pid), path))


def _mount_call(
    listener: int, number: int, pid: int, memory: int, args: list[int]
) -> SystemCall | None:
    """Return what a program wants to mount; None for what is no FUSE. Errors: OSError, ValueError.

    The words are those that it would have given to fusermount.
    """
    source, target, fstype = (os.fsdecode(_string(memory, address)) for address in args[:3])
    kind, _, subtype = fstype.partition(".")
    if kind not in ("fuse", "fuseblk"):
        return None
    options = os.fsdecode(_string(memory, args[4])).split(",")
    fd = next(int(word[3:]) for word in options if word.startswith("fd="))
    words = [word for word in options if not word.startswith("fd=")]
    words += [word for flag, word in _FLAGS if args[3] & flag]
    if subtype:
        words.append(f"subtype={subtype}")
    if source not in (*_NAMELESS, subtype):
        words.append("fsname=" + source.replace("\\", "\\\\").replace(",", "\\,"))
    directory = _path(pid, os.fsencode(target))
    return SystemCall(listener, number, pid, fd, directory, ",".join(words))
