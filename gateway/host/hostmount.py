"""Mounting on the host and taking it away again: mount(2) for root, fusermount3 for everybody."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from enum import Enum
from pathlib import Path
from typing import Final

from ..words.options import HostOptions

_log = logging.getLogger(__name__)

_DEVICE: Final = "/dev/fuse"
_HELPER: Final = "fusermount3"
_HELPER_SECONDS: Final = 30.0
"""How long the helper may take: it looks at the mount point, which may lie on a slow disk."""

_AUTO_UNMOUNT: Final = "auto_unmount"
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MNT_DETACH: Final = 2
_FLAGS: Final = {
    "ro": (1, True),
    "nosuid": (_MS_NOSUID, True),
    "suid": (_MS_NOSUID, False),
    "nodev": (_MS_NODEV, True),
    "dev": (_MS_NODEV, False),
    "noexec": (8, True),
    "sync": (16, True),
    "dirsync": (128, True),
    "noatime": (1024, True),
}
"""Words that are flags of mount(2), and whether they set theirs."""


class HostMountFailure(Enum):
    """Why the host did not mount."""

    NO_MOUNT_POINT = "no mount point"
    NOT_A_DIRECTORY = "mount point is no directory"
    BUSY = "mount point is busy"
    PERMISSION = "no permission"
    NO_FUSE = "no FUSE"
    OTHER = "other"


class HostMountError(Exception):
    """The host did not mount; nothing is left behind. The text names the cause and a next step."""

    def __init__(self, failure: HostMountFailure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


def check_mount_point(mountpoint: str) -> None:
    """Raise HostMountError unless something can be mounted on `mountpoint`.

    Called before anything else is started, and before mounting.
    """
    try:
        state = os.stat(mountpoint)
    except FileNotFoundError:
        raise HostMountError(
            HostMountFailure.NO_MOUNT_POINT,
            f"{mountpoint}: mount point does not exist (create it: mkdir -p {mountpoint})",
        ) from None
    except OSError as exc:
        stale = exc.errno == errno.ENOTCONN
        step = f" (a dead mount is left there: umount {mountpoint})" if stale else ""
        raise HostMountError(
            HostMountFailure.BUSY if stale else HostMountFailure.PERMISSION,
            f"{mountpoint}: {exc.strerror}{step}",
        ) from None
    if not os.path.isdir(mountpoint):
        raise HostMountError(
            HostMountFailure.NOT_A_DIRECTORY,
            f"{mountpoint}: mount point is not a directory (give a directory)",
        )
    if state.st_dev != os.stat(os.path.join(mountpoint, "..")).st_dev and _is_ours(mountpoint):
        raise HostMountError(
            HostMountFailure.BUSY,
            f"{mountpoint}: something is mounted there already (umount {mountpoint} first)",
        )
    if not os.path.exists(_DEVICE):
        raise HostMountError(
            HostMountFailure.NO_FUSE, "/dev/fuse is missing (load the kernel module: modprobe fuse)"
        )
    if os.geteuid() != 0:
        if not os.access(_DEVICE, os.R_OK | os.W_OK):
            raise HostMountError(
                HostMountFailure.PERMISSION,
                "no permission to open /dev/fuse (as root: chmod 0666 /dev/fuse)",
            )
        if shutil.which(_HELPER) is None:
            raise HostMountError(
                HostMountFailure.NO_FUSE, "fusermount3 is not installed (apt-get install fuse3)"
            )
        if not os.access(mountpoint, os.W_OK):
            raise HostMountError(
                HostMountFailure.PERMISSION,
                f"{mountpoint}: no write permission (a user may only mount on what he may write)",
            )


def _is_ours(mountpoint: str) -> bool:
    """Tell whether a FUSE mount already stands on exactly this directory."""
    path = os.path.realpath(mountpoint).encode()
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if fields[4].decode("unicode_escape").encode("latin-1") == path:
            return fields[fields.index(b"-") + 1].startswith(b"fuse.")
    return False


def _printable(text: bytes) -> str:
    """Return `text` as puffs shows it: what is not ' '..'~' becomes '.'."""
    return "".join(chr(octet) if 32 < octet < 127 else "." for octet in text)


def _words(options: HostOptions) -> list[str]:
    """Return the words of the mount that are neither its name nor its type."""
    words = ["nosuid", "nodev", *options.words]
    if options.readonly:
        words.append("ro")
    if options.allow_other or options.allow_root:
        words.append("allow_other")  # whom allow_root keeps out is refused by the host's end
    if options.default_permissions:
        words.append("default_permissions")
    return words


class Keeper:
    """The helper of `auto_unmount`: it unmounts when our end of the socket is closed, however."""

    def __init__(self, sock: socket.socket, helper: subprocess.Popen[bytes]) -> None:
        self._sock = sock
        self._helper = helper

    def close(self) -> None:
        """Let the helper go; what is still mounted it unmounts."""
        self._sock.close()
        try:
            self._helper.wait(_HELPER_SECONDS)
        except subprocess.TimeoutExpired:
            _log.warning("%s does not end", _HELPER)


def mount(mountpoint: str, options: HostOptions) -> tuple[int, Keeper | None]:
    """Mount on `mountpoint` and return the descriptor of the device, which the caller owns.

    With `auto_unmount` there is a Keeper beside it, to be closed after the unmount. Errors:
    HostMountError. Root needs no helper but for that; where mount(2) is not allowed to him (no
    CAP_SYS_ADMIN) he is one of the others.
    """
    fsname, subtype = _printable(options.fsname), _printable(b"puffs|" + options.typename.encode())
    if os.geteuid() == 0 and _AUTO_UNMOUNT not in options.words:
        try:
            return _mount_directly(mountpoint, options, fsname, subtype), None
        except PermissionError:
            _log.debug("mount(2) is not allowed; trying %s", _HELPER)
        except OSError as exc:
            raise HostMountError(
                HostMountFailure.NO_FUSE if exc.errno == errno.ENODEV else HostMountFailure.OTHER,
                f"{mountpoint}: the host refused the mount: {exc.strerror}",
            ) from None
    return _mount_by_helper(mountpoint, options, fsname, subtype)


def _mount_directly(mountpoint: str, options: HostOptions, fsname: str, subtype: str) -> int:
    flags, data = 0, []
    for word in _words(options):
        if word in _FLAGS:
            flag, sets = _FLAGS[word]
            flags = flags | flag if sets else flags & ~flag
        else:
            data.append(word)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        rootmode = stat.S_IFMT(os.stat(mountpoint).st_mode)
        data[:0] = [
            f"fd={fd}",
            f"rootmode={rootmode:o}",
            f"user_id={os.getuid()}",
            f"group_id={os.getgid()}",
        ]
        if libc.mount(
            fsname.encode(),
            os.fsencode(mountpoint),
            f"fuse.{subtype}".encode(),
            ctypes.c_ulong(flags),
            ",".join(data).encode(),
        ):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mount_by_helper(
    mountpoint: str, options: HostOptions, fsname: str, subtype: str
) -> tuple[int, Keeper | None]:
    """Have the helper mount. It hands the descriptor over a socket whose number is in its
    environment, and with `auto_unmount` stays until that is closed."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace(",", "\\,")

    words = [f"fsname={escaped(fsname)}", f"subtype={escaped(subtype)}", *_words(options)]
    stays = _AUTO_UNMOUNT in options.words
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    fds: list[int] = []
    with contextlib.ExitStack() as stack, tempfile.TemporaryFile() as said:
        stack.enter_context(ours)
        try:
            with theirs:
                helper = subprocess.Popen(
                    [_HELPER, "-o", ",".join(words), "--", mountpoint],
                    env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stderr=said,
                )
            ours.settimeout(_HELPER_SECONDS)
            fds = socket.recv_fds(ours, 1, 1)[1]
            if fds and stays:
                os.set_inheritable(fds[0], False)
                stack.pop_all()
                return fds[0], Keeper(ours, helper)
            status = helper.wait(_HELPER_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise HostMountError(
                HostMountFailure.NO_FUSE, f"{_HELPER} cannot be run: {exc} (apt-get install fuse3)"
            ) from None
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
    if status or not fds:
        for fd in fds:
            os.close(fd)
        raise HostMountError(
            HostMountFailure.PERMISSION,
            f"{mountpoint}: the host refused the mount: {lines[-1].removeprefix(_HELPER + ': ')}",
        )
    os.set_inheritable(fds[0], False)
    return fds[0], None


def unmount(mountpoint: str) -> None:
    """Take the mount away, whoever uses it: they keep what they have open, and get errors."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if not libc.umount2(os.fsencode(mountpoint), _MNT_DETACH):
            return
        if ctypes.get_errno() != errno.EPERM:
            _log.debug("%s: umount: %s", mountpoint, os.strerror(ctypes.get_errno()))
            return
    try:
        subprocess.run(
            [_HELPER, "-u", "-q", "-z", "--", mountpoint],
            stdin=subprocess.DEVNULL,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        _log.warning("%s: not unmounted: %s cannot be run: %s", mountpoint, _HELPER, exc)
