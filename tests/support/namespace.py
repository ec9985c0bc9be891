"""A mount name space for this process and all that it starts.

Each `unshare --mount`, and each FUSE program that a stack runs, takes copies of all mounts that it
sees, and a mount lives as long as one copy does. Two runs side by side, or two workers of one,
would so keep each other's mounts alive after umount, and wait in vain for their daemons to end.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from .leaks import fuse_mounts

_CLONE_NEWNS: Final = 0x20000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2


def own_mounts() -> None:
    """Let what is mounted from now on be seen by this process and those below it only.

    To be called before there are other threads that start programs. Copies of others' FUSE mounts
    are let go of, but for those that this process stands on. Does nothing where the user may not
    do it: then it is for him to run one thing at a time.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return  # root of a container which may not mount
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "mount --make-rprivate /")
    ground = [Path(place).resolve() for place in (".", sys.prefix, __file__, tempfile.gettempdir())]
    for point in fuse_mounts():
        if not any(place.is_relative_to(point) for place in ground):
            libc.umount2(os.fsencode(point), _MNT_DETACH)  # it may be gone with one above it
