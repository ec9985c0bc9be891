"""What an operation that failed has done: nothing, or nobody knows."""

from __future__ import annotations

import errno
from typing import Final

from ...native.errors import VfsError

_REFUSALS: Final = frozenset(
    {
        errno.EPERM,
        errno.ENOENT,
        errno.EACCES,
        errno.EBUSY,
        errno.EEXIST,
        errno.EXDEV,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.ENOSPC,
        errno.EROFS,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.EDQUOT,
        errno.ESTALE,
    }
)


def is_refusal(exc: BaseException) -> bool:
    """Return whether an operation that ended so has changed nothing.

    A server may have done what was asked before the answer was lost (EIO, ETIMEDOUT, a
    cancellation): who has to be right about what is there takes both for possible.
    """
    return isinstance(exc, VfsError) and exc.errno in _REFUSALS
