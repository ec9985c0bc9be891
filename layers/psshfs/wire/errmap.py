"""SFTP status -> errno: the one table, and what a message may add to it.

Version 3 has nine status codes for all of errno. OpenSSH folds them as its
`errno_to_portable` says: ENOENT, ENOTDIR, EBADF and ELOOP become
NO_SUCH_FILE; EPERM, EACCES and EFAULT become PERMISSION_DENIED; ENAMETOOLONG
and EINVAL become BAD_MESSAGE; all else becomes FAILURE. What was folded is
told apart again by looking at the tree (`refine.py`); here is only what the
reply itself says.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ....native import sftp
from ....native.errors import VfsError

STATUS_TO_ERRNO: Final = {
    # An end of file where no file was read is nonsense of the server's.
    sftp.FX_EOF: errno.EIO,
    sftp.FX_NO_SUCH_FILE: errno.ENOENT,
    # EACCES, not EPERM: with one identity at the server nearly every refusal is a permission
    # bit on the path. The operations that only an owner may do say EPERM themselves.
    sftp.FX_PERMISSION_DENIED: errno.EACCES,
    sftp.FX_FAILURE: errno.EIO,
    # Names are measured before they are sent, so EINVAL is what is left of OpenSSH's two.
    sftp.FX_BAD_MESSAGE: errno.EINVAL,
    sftp.FX_NO_CONNECTION: errno.ENOTCONN,
    sftp.FX_CONNECTION_LOST: errno.ECONNRESET,
    sftp.FX_OP_UNSUPPORTED: errno.EOPNOTSUPP,
    # Codes of later drafts, which some servers send in version 3, too.
    9: errno.EBADF,  # INVALID_HANDLE
    10: errno.ENOENT,  # NO_SUCH_PATH
    11: errno.EEXIST,  # FILE_ALREADY_EXISTS
    12: errno.EROFS,  # WRITE_PROTECT
    13: errno.ENOMEDIUM,  # NO_MEDIA
    14: errno.ENOSPC,  # NO_SPACE_ON_FILESYSTEM
    15: errno.EDQUOT,  # QUOTA_EXCEEDED
    16: errno.EINVAL,  # UNKNOWN_PRINCIPAL
    17: errno.EAGAIN,  # LOCK_CONFLICT
    18: errno.ENOTEMPTY,  # DIR_NOT_EMPTY
    19: errno.ENOTDIR,  # NOT_A_DIRECTORY
    20: errno.EINVAL,  # INVALID_FILENAME
    21: errno.ELOOP,  # LINK_LOOP
    22: errno.EBUSY,  # CANNOT_DELETE
    23: errno.EINVAL,  # INVALID_PARAMETER
    24: errno.EISDIR,  # FILE_IS_A_DIRECTORY
    25: errno.EAGAIN,  # BYTE_RANGE_LOCK_CONFLICT
    26: errno.EAGAIN,  # BYTE_RANGE_LOCK_REFUSED
    27: errno.EBUSY,  # DELETE_PENDING
    28: errno.EIO,  # FILE_CORRUPT
    29: errno.EINVAL,  # OWNER_INVALID
    30: errno.EINVAL,  # GROUP_INVALID
    31: errno.ENOLCK,  # NO_MATCHING_BYTE_RANGE_LOCK
}
"""Status code -> errno. A code that is not here is no answer: EPROTO."""

MESSAGE_TO_ERRNO: Final = {
    os.strerror(number).lower().encode(): number
    for number in (
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EXDEV,
        errno.EMLINK,
        errno.EFBIG,
        errno.EBUSY,
        errno.ETXTBSY,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EPERM,
        errno.EINVAL,
    )
}
"""What strerror(3) says -> errno. asyncssh puts exactly this text into its FAILURE, and Go's
servers end theirs with it; OpenSSH says "Failure" and is refined by looking."""


class StatusError(VfsError):
    """The server answered a request with a status that is an error.

    `code` is the SFTP status; `is_vague` tells whether `errno` is only the
    table's guess for a status that servers use for many errors.
    """

    __slots__ = ("code", "is_vague")

    def __init__(self, code: int, message: bytes = b"") -> None:
        number = STATUS_TO_ERRNO.get(code, errno.EPROTO)
        self.code = code
        self.is_vague = False
        if code in (sftp.FX_FAILURE, sftp.FX_BAD_MESSAGE):
            said = MESSAGE_TO_ERRNO.get(message.rpartition(b": ")[2].strip().lower())
            if said is None:
                self.is_vague = True
            else:
                number = said
        super().__init__(number, f"server: {message.decode('utf-8', 'backslashreplace')}")
