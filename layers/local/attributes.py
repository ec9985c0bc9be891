"""From the host's attributes and errors to ours."""

from __future__ import annotations

import os
from errno import EOVERFLOW
from stat import S_IFMT, S_IMODE
from typing import Any, Final

from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import IFMT_TO_VTYPE, Vattr

_new: Any = tuple.__new__
_VTYPE: Final = {ifmt: int(vtype) for ifmt, vtype in IFMT_TO_VTYPE.items()}

DT_TO_VTYPE: Final = {ifmt >> 12: vtype for ifmt, vtype in _VTYPE.items()}
"""Type in a directory entry -> type of a vnode; 0 (unknown to the file system) is missing."""


def vtype_of(st: os.stat_result) -> int:
    """Return the type of a node."""
    return _VTYPE.get(S_IFMT(st.st_mode), int(Vtype.VNON))


def vattr_of(st: os.stat_result) -> Vattr:
    """Return all that the host tells."""
    mode = st.st_mode
    return _new(  # type: ignore[no-any-return]
        Vattr,
        (
            _VTYPE.get(S_IFMT(mode), 0),
            S_IMODE(mode),
            st.st_nlink,
            st.st_uid,
            st.st_gid,
            st.st_dev,
            st.st_ino,
            st.st_size,
            st.st_blksize,
            st.st_atime_ns,
            st.st_mtime_ns,
            st.st_ctime_ns,
            None,
            None,
            None,
            st.st_rdev,
            st.st_blocks * 512,
        ),
    )


def failure(exc: OSError | OverflowError) -> VfsError:
    """Return our form of what a system call raised: its errno; EOVERFLOW for absurd numbers."""
    if isinstance(exc, OSError) and exc.errno is not None:
        return VfsError(exc.errno)
    return VfsError(EOVERFLOW)
