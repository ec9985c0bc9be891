"""Numbers and records of SFTP version 3 (draft-ietf-secsh-filexfer-02) and of its extensions."""

from __future__ import annotations

from typing import Final, NamedTuple

VERSION: Final = 3

FXP_INIT: Final = 1
FXP_VERSION: Final = 2
FXP_OPEN: Final = 3
FXP_CLOSE: Final = 4
FXP_READ: Final = 5
FXP_WRITE: Final = 6
FXP_LSTAT: Final = 7
FXP_FSTAT: Final = 8
FXP_SETSTAT: Final = 9
FXP_FSETSTAT: Final = 10
FXP_OPENDIR: Final = 11
FXP_READDIR: Final = 12
FXP_REMOVE: Final = 13
FXP_MKDIR: Final = 14
FXP_RMDIR: Final = 15
FXP_REALPATH: Final = 16
FXP_STAT: Final = 17
FXP_RENAME: Final = 18
FXP_READLINK: Final = 19
FXP_SYMLINK: Final = 20
FXP_STATUS: Final = 101
FXP_HANDLE: Final = 102
FXP_DATA: Final = 103
FXP_NAME: Final = 104
FXP_ATTRS: Final = 105
FXP_EXTENDED: Final = 200
FXP_EXTENDED_REPLY: Final = 201

FX_OK: Final = 0
FX_EOF: Final = 1
FX_NO_SUCH_FILE: Final = 2
FX_PERMISSION_DENIED: Final = 3
FX_FAILURE: Final = 4
FX_BAD_MESSAGE: Final = 5
FX_NO_CONNECTION: Final = 6
FX_CONNECTION_LOST: Final = 7
FX_OP_UNSUPPORTED: Final = 8

FXF_READ: Final = 0x01
FXF_WRITE: Final = 0x02
FXF_APPEND: Final = 0x04
FXF_CREAT: Final = 0x08
FXF_TRUNC: Final = 0x10
FXF_EXCL: Final = 0x20

HANDLE_MAX: Final = 256
"""Longest handle that a server may give, octets."""

EXT_POSIX_RENAME: Final = b"posix-rename@openssh.com"
EXT_HARDLINK: Final = b"hardlink@openssh.com"
EXT_STATVFS: Final = b"statvfs@openssh.com"
EXT_FSTATVFS: Final = b"fstatvfs@openssh.com"
EXT_FSYNC: Final = b"fsync@openssh.com"
EXT_LSETSTAT: Final = b"lsetstat@openssh.com"
EXT_LIMITS: Final = b"limits@openssh.com"
EXT_EXPAND_PATH: Final = b"expand-path@openssh.com"
EXT_COPY_DATA: Final = b"copy-data"
EXT_HOME_DIRECTORY: Final = b"home-directory"
EXT_USERS_GROUPS: Final = b"users-groups-by-id@openssh.com"


MAX_PACKET: Final = 256 * 1024
"""Longest packet that OpenSSH's server takes and its client expects, octets without the length."""


class Attrs(NamedTuple):
    """Attributes of a file; `mode` has the type bits, times are seconds (0 to 2**32 - 1)."""

    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    atime: int | None = None
    mtime: int | None = None


NO_ATTRS: Final = Attrs()


class Name(NamedTuple):
    """One entry of a NAME reply; `longname` is a line as `ls -l` prints it."""

    name: bytes
    longname: bytes
    attrs: Attrs


class Limits(NamedTuple):
    """What a server takes, octets and number of handles; 0 says that it does not tell."""

    max_packet: int
    max_read: int
    max_write: int
    max_handles: int


# Bits of the mask that says which attributes are there.
ATTR_SIZE: Final = 1
ATTR_UIDGID: Final = 2
ATTR_PERMISSIONS: Final = 4
ATTR_ACMODTIME: Final = 8
ATTR_ALL: Final = 15
