"""Whom the daemon runs as: root gives its rights up once it has what it needs them for."""

from __future__ import annotations

import ctypes
import os
import pwd
from pathlib import Path
from typing import Final

from ..status import CommandError, Status
from .privileges import PrivilegeError, drop_privileges

DEFAULT_USER: Final = "nobody"
"""Who root becomes, unless told otherwise."""

_PR_SET_DUMPABLE: Final = 4


def user_entry(run_as: str | None) -> pwd.struct_passwd | None:
    """Return the user to become; None: the one that we are.

    Errors: CommandError for a user that does not exist, and for one that only root can become.
    """
    is_root = os.geteuid() == 0
    if run_as is None and not is_root:
        return None
    name = run_as or DEFAULT_USER
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise CommandError(
            Status.USAGE, f"there is no user '{name}' to run as; make one, or name another"
        ) from None
    if entry.pw_uid == os.geteuid():
        return None
    if not is_root:
        raise CommandError(Status.USAGE, f"only root can become '{name}'; start as root, or as it")
    return entry


def make_state(state: Path, user: pwd.struct_passwd | None) -> None:
    """Make the directory for what outlives the daemon, if it is not there; give it to `user`.

    Errors: CommandError.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if user is not None:
            os.chown(state, user.pw_uid, user.pw_gid)
    except OSError as exc:
        raise CommandError(
            Status.FAILURE, f"state directory {state}: {exc.strerror}; name one that can be made"
        ) from None


def become(user: pwd.struct_passwd | None) -> None:
    """Become `user` for good, with its home; never again get rights from a program.

    Errors: CommandError, and nothing must go on after it.
    """
    try:
        drop_privileges(None if user is None else user.pw_name)
    except PrivilegeError as exc:
        raise CommandError(Status.FAILURE, str(exc)) from exc
    if user is not None:
        os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
        # Whoever has changed their identity cannot open what /proc/self/fd names, which is how
        # `local` opens files.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
