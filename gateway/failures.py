"""From what went wrong to an exit status and one line: the only table that does so.

Errors of psshfs's streams, of the host mount and of the command line have types of their
own, which carry a cause and a text; an error inside a nursery comes wrapped in groups.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from errno import EBUSY, EINVAL, EIO, ENODEV, ENOENT, ENOTDIR, EPERM
from signal import SIGINT
from typing import Any, Final

from ..native.errors import VfsError
from .status import CommandError, Status

_CONNECT: Final = {
    "UNKNOWN_HOST": Status.UNKNOWN_HOST,
    "REFUSED": Status.REFUSED,
    "UNREACHABLE": Status.UNREACHABLE,
    "UNKNOWN_HOST_KEY": Status.HOST_KEY_UNKNOWN,
    "CHANGED_HOST_KEY": Status.HOST_KEY_CHANGED,
    "AUTHENTICATION": Status.AUTHENTICATION,
    "NO_SUBSYSTEM": Status.NO_SFTP,
    "BAD_CONFIG": Status.SSH_CONFIG,
    "PROXY": Status.PROXY,
    "NOT_FOUND": Status.NO_TRANSPORT,
    "PROTOCOL": Status.CONNECTION_LOST,
    "DIED": Status.CONNECTION_LOST,
}
"""Name of a psshfs `Cause` -> status."""

_HOST: Final = {
    "NO_MOUNT_POINT": Status.MOUNT_POINT_MISSING,
    "NOT_A_DIRECTORY": Status.MOUNT_POINT_NOT_DIRECTORY,
    "BUSY": Status.MOUNT_POINT_BUSY,
    "PERMISSION": Status.FUSE_PERMISSION,
    "NO_FUSE": Status.FUSE_MISSING,
    "OTHER": Status.FAILURE,
}
"""Name of a `HostMountFailure` -> status."""

_COMFD: Final = {
    ENOENT: Status.MOUNT_POINT_MISSING,
    ENOTDIR: Status.MOUNT_POINT_NOT_DIRECTORY,
    EBUSY: Status.MOUNT_POINT_BUSY,
    EPERM: Status.FUSE_PERMISSION,
    ENODEV: Status.FUSE_MISSING,
    EINVAL: Status.WRAPPED_PROTOCOL,
}
"""Error number in the answer to a mount request -> status; what is missing is a FAILURE."""


def errno_of(error: CommandError) -> int:
    """Return the error number that tells the other end of PUFFS_COMFD of `error`."""
    return next((errno for errno, status in _COMFD.items() if status == error.status), EIO)


def refused(errno: int, text: str) -> CommandError:
    """Return the error that an answer to a mount request means."""
    return CommandError(_COMFD.get(errno, Status.FAILURE), text or "the mount was refused")


def explain(exc: BaseException) -> CommandError | None:
    """Return the end that `exc` means for a command, or None for what nobody foresaw."""
    found = list(leaves(exc))
    for leaf in found:
        if isinstance(leaf, CommandError):
            return leaf
    for leaf in found:
        known = _translated(leaf)
        if known is not None:
            return known
    return None


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield `exc`, or what is in it when it is a group."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


def _translated(exc: BaseException) -> CommandError | None:
    # The classes live in modules that cost time to import; what was never imported was not raised.
    if _is(exc, "layers.psshfs.ssh.failure", "ConnectError"):
        failure: Any = exc
        return CommandError(_CONNECT.get(failure.kind.name, Status.FAILURE), str(exc))
    if _is(exc, "layers.psshfs.ssh.target", "TargetError"):
        return CommandError(Status.USAGE, str(exc))
    if isinstance(exc, VfsError):
        # Out of an unmount: nothing else lets one escape.
        return CommandError(
            Status.UNSAVED, f"the file system ended with {exc}; what was written last may be lost"
        )
    if isinstance(exc, KeyboardInterrupt):
        return CommandError(Status.SIGNAL + SIGINT, "")
    if _is(exc, "gateway.host.hostmount", "HostMountError"):
        host: Any = exc
        return CommandError(_HOST.get(host.failure.name, Status.FAILURE), str(exc))
    return None


def _is(exc: BaseException, module: str, name: str) -> bool:
    loaded = sys.modules.get(f"{__name__.partition('.')[0]}.{module}")
    return loaded is not None and isinstance(exc, getattr(loaded, name))
