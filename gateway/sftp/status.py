"""errno -> SFTP status: the one table of the SFTP end.

The codes are those of OpenSSH's sftp-server, which clients have learnt to read, with three
exceptions: what the tree cannot do at all is OP_UNSUPPORTED (OpenSSH says so of ENOSYS only), and
a read-only tree refuses with PERMISSION_DENIED, as OpenSSH's own -R does. Version 3 has nine
codes for all of errno, so the text is what strerror(3) says, word by word: people can read it,
and our own psshfs gets the errno back from it.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ...native import sftp_server as sftp

_CODES: Final = {
    errno.ENOENT: sftp.FX_NO_SUCH_FILE,
    errno.ENOTDIR: sftp.FX_NO_SUCH_FILE,
    errno.EBADF: sftp.FX_NO_SUCH_FILE,
    errno.ELOOP: sftp.FX_NO_SUCH_FILE,
    errno.ESTALE: sftp.FX_NO_SUCH_FILE,
    errno.EPERM: sftp.FX_PERMISSION_DENIED,
    errno.EACCES: sftp.FX_PERMISSION_DENIED,
    errno.EFAULT: sftp.FX_PERMISSION_DENIED,
    errno.EROFS: sftp.FX_PERMISSION_DENIED,
    errno.ENAMETOOLONG: sftp.FX_BAD_MESSAGE,
    errno.EINVAL: sftp.FX_BAD_MESSAGE,
    errno.ENOSYS: sftp.FX_OP_UNSUPPORTED,
    errno.EOPNOTSUPP: sftp.FX_OP_UNSUPPORTED,
}
"""What is missing here is a FAILURE."""

STATUSES: Final = {
    number: (_CODES.get(number, sftp.FX_FAILURE), os.strerror(number).encode())
    for number in errno.errorcode
}
"""errno -> status code and text."""

_UNKNOWN: Final = (sftp.FX_FAILURE, b"Failure")


def status_of(number: int) -> tuple[int, bytes]:
    """Return the status code (FX_*) and the text for an errno."""
    return STATUSES.get(number, _UNKNOWN)


class Refusal(Exception):
    """A request ends with a status that no errno stands for; `text` is for people."""

    def __init__(self, code: int, text: bytes) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


def no_handle(code: int = sftp.FX_FAILURE) -> Refusal:
    """Return the answer to a handle that the session does not have, or not of that kind.

    Version 3 has no code for it, and OpenSSH answers with two, by request.
    """
    return Refusal(code, b"Invalid handle")
