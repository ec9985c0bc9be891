"""The rights that a daemon gives up once it has what it needs them for."""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from pathlib import Path
from typing import Final

from ..status import CommandError, Status

DEFAULT_USER: Final = "nobody"
"""Who root becomes, unless told otherwise."""

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
# From linux/prctl.h.


def user_entry(run_as: str | None) -> pwd.struct_passwd | None:
    """Return the user that root is to become; None: we are not root, or are to stay it.

    Errors: CommandError for a user that does not exist.
    """
    if os.geteuid() != 0:
        return None
    name = run_as or DEFAULT_USER
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise CommandError(
            Status.USAGE, f"there is no user '{name}' to run as; make one, or name another"
        ) from None
    return entry if entry.pw_uid else None


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
    """Become `user` for good, groups and home with it; never again get rights from a program.

    Errors: CommandError, and nothing must go on after it; also when the user cannot read the
    program that we are: more of it is to be loaded, and SSH processes are started from it.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if user is not None:
        try:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        except OSError as exc:
            raise CommandError(Status.FAILURE, f"becoming {user.pw_name}: {exc.strerror}") from None
        os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
        # Whoever has changed their identity cannot open what /proc/self/fd names, which is how
        # `local` opens files.
        prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise CommandError(Status.FAILURE, f"no_new_privs: {os.strerror(ctypes.get_errno())}")
    for place in (sys.executable, os.path.dirname(__file__)):
        if user is not None and not os.access(place, os.R_OK | os.X_OK):
            raise CommandError(
                Status.FAILURE,
                f"'{user.pw_name}', as whom we run, cannot read {place}; install this where "
                "everybody can, or name another user to run as",
            )
