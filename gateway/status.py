"""Exit statuses of all commands, and the one error that ends a command.

One table: the commands return these numbers, `--help` prints them, README.md shows
them. A wrapped command's own status is passed on as it is (`syspuffs CMD`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class Status(IntEnum):
    """What a command's exit status says."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    STACK = 3
    UNKNOWN_HOST = 10
    REFUSED = 11
    UNREACHABLE = 12
    HOST_KEY_UNKNOWN = 13
    HOST_KEY_CHANGED = 14
    AUTHENTICATION = 15
    NO_SFTP = 16
    CONNECTION_LOST = 17
    NO_TRANSPORT = 18
    PROXY = 19
    SSH_CONFIG = 20
    REMOTE_MISSING = 21
    REMOTE_NOT_DIRECTORY = 22
    REMOTE_PERMISSION = 23
    DEVICE = 24
    DEVICE_BUSY = 25
    NO_FILE_SYSTEM = 26
    MOUNT_POINT_MISSING = 30
    MOUNT_POINT_NOT_DIRECTORY = 31
    MOUNT_POINT_BUSY = 32
    FUSE_PERMISSION = 33
    FUSE_MISSING = 34
    UNSAVED = 35
    NOTHING_MOUNTED = 40
    WRAPPED_PROTOCOL = 41
    CANNOT_EXECUTE = 126
    NOT_FOUND = 127
    SIGNAL = 128


MEANINGS: Final[dict[Status, str]] = {
    Status.OK: "mounted; with -f: mounted, served and unmounted",
    Status.FAILURE: "any other failure; the message says which",
    Status.USAGE: "wrong command line, an option that does not exist among it",
    Status.STACK: "a stack with an element that does not exist or does not fit",
    Status.UNKNOWN_HOST: "the name of the host cannot be resolved",
    Status.REFUSED: "the host refuses connections on that port",
    Status.UNREACHABLE: "the host cannot be reached, or does not answer in time",
    Status.HOST_KEY_UNKNOWN: "the host key is not in known_hosts and was not accepted",
    Status.HOST_KEY_CHANGED: "the host key differs from known_hosts, or is revoked",
    Status.AUTHENTICATION: "the server accepted no key and no password",
    Status.NO_SFTP: "logged in, but the server offers no sftp subsystem",
    Status.CONNECTION_LOST: "the connection ended, or spoke no SFTP, before the mount was up",
    Status.NO_TRANSPORT: "the program that carries the SFTP stream cannot be run",
    Status.PROXY: "the jump host or the proxy command failed",
    Status.SSH_CONFIG: "an ssh option, configuration file or key file cannot be used",
    Status.REMOTE_MISSING: "the remote directory does not exist",
    Status.REMOTE_NOT_DIRECTORY: "the remote path is no directory",
    Status.REMOTE_PERMISSION: "no permission on the remote directory",
    Status.DEVICE: "the disk image or device cannot be opened",
    Status.DEVICE_BUSY: "the disk image or device is in use already",
    Status.NO_FILE_SYSTEM: "no file system there that can be mounted; the message says why",
    Status.MOUNT_POINT_MISSING: "the mount point does not exist",
    Status.MOUNT_POINT_NOT_DIRECTORY: "the mount point is no directory",
    Status.MOUNT_POINT_BUSY: "something is mounted there already",
    Status.FUSE_PERMISSION: "no permission to mount (/dev/fuse, fusermount3, fuse.conf)",
    Status.FUSE_MISSING: "FUSE is not there (/dev/fuse or fusermount3)",
    Status.UNSAVED: "with -f: unmounted, and not everything that was written was saved",
    Status.NOTHING_MOUNTED: "syspuffs: the command ended well but mounted nothing",
    Status.WRAPPED_PROTOCOL: "syspuffs: the command sent a mount request that makes no sense",
    Status.CANNOT_EXECUTE: "syspuffs: the command cannot be executed",
    Status.NOT_FOUND: "syspuffs: the command was not found",
    Status.SIGNAL: "128+n: ended by signal n before the mount was up",
}
"""What each status means, for `--help` and README.md."""


class CommandError(Exception):
    """A command ends: exit with `status` after one line on standard error.

    `message` names the cause and the next step, without the program's name and without a
    full stop at its end. An empty message says that somebody else has told the user already.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return self.message


_OF_MOUNTS: Final = frozenset(
    {
        Status.MOUNT_POINT_MISSING,
        Status.MOUNT_POINT_NOT_DIRECTORY,
        Status.MOUNT_POINT_BUSY,
        Status.FUSE_PERMISSION,
        Status.FUSE_MISSING,
        Status.SIGNAL,
    }
)


def served_status_lines() -> list[str]:
    """Return the table for the `--help` of what serves a stack and mounts nothing."""
    return _without_mounts(
        {
            Status.OK: "the client has left",
            Status.CONNECTION_LOST: _LOST_EARLY,
            Status.SIGNAL: "128+n: ended by signal n",
        }
    )


def daemon_status_lines() -> list[str]:
    """Return the table for the `--help` of what serves stacks until it is told to stop."""
    return _without_mounts(
        {
            Status.OK: "stopped by SIGTERM or SIGINT; with --check: nothing is wrong",
            Status.USAGE: "wrong command line or configuration; the message says where",
            Status.CONNECTION_LOST: _LOST_EARLY,
        }
    )


_LOST_EARLY: Final = "the connection ended, or spoke no SFTP, before the stack was up"


def _without_mounts(own: Mapping[Status, str]) -> list[str]:
    return [
        f"  {status.value:>3}  {own.get(status, text)}"
        for status, text in MEANINGS.items()
        if status in own or not (status in _OF_MOUNTS or text.startswith("syspuffs: "))
    ]


def status_lines(wrapper: bool = False) -> list[str]:
    """Return the table for `--help`, those of syspuffs alone only with `wrapper`."""
    only_wrapper = {
        Status.NOTHING_MOUNTED,
        Status.WRAPPED_PROTOCOL,
        Status.CANNOT_EXECUTE,
        Status.NOT_FOUND,
    }
    return [
        f"  {status.value:>3}  {text.removeprefix('syspuffs: ')}"
        for status, text in MEANINGS.items()
        if wrapper or status not in only_wrapper
    ]
