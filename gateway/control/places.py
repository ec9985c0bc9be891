"""Where control sockets are: one directory for each user, which nobody else may write to.

    $XDG_RUNTIME_DIR/syspuffs    if that is the user's own
    /run/user/UID/syspuffs       the same, for who was started without the variable (mount, cron)
    /run/syspuffs                root's
    /tmp/syspuffs-UID            where there is nothing better

A mount takes the first that it may have; who looks for mounts looks in all of them, for both may
have been started differently. A socket is named by the process id of its mount.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_ROOTS: Final = Path("/run/syspuffs")
_NAME: Final = "syspuffs"


def _candidates(uid: int) -> Iterator[tuple[Path, Path]]:
    """Yield (directory of sockets, what has to be there and be the user's before)."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and os.path.isabs(given) and uid == os.geteuid():
        yield Path(given, _NAME), Path(given)
    runtime = Path(f"/run/user/{uid}")
    yield runtime / _NAME, runtime
    if uid == 0:
        yield _ROOTS, _ROOTS.parent
    yield Path(f"/tmp/{_NAME}-{uid}"), Path("/tmp")


def own_directory() -> Path:
    """Return the directory for sockets of this user, made if need be. Errors: OSError."""
    uid = os.geteuid()
    error: OSError | None = None
    for directory, above in _candidates(uid):
        try:
            if above != Path("/tmp") and os.stat(above).st_uid != uid:
                continue
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            error = exc
            continue
        if is_safe(directory, uid):
            return directory
    raise error or PermissionError(f"no directory for control sockets is user {uid}'s own")


def is_safe(directory: Path, uid: int) -> bool:
    """Tell whether nobody but `uid` can have put something into `directory`."""
    try:
        state = os.lstat(directory)
    except OSError:
        return False
    return (
        stat.S_ISDIR(state.st_mode)
        and state.st_uid == uid
        and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def directories() -> list[Path]:
    """Return the directories in which this user's sockets may be; for root, everybody's."""
    uids = [os.geteuid()]
    if uids[0] == 0:
        uids += [int(path.name) for path in Path("/run/user").glob("[0-9]*") if path.name != "0"]
        uids += [
            int(path.name.partition("-")[2])
            for path in Path("/tmp").glob(f"{_NAME}-[0-9]*")
            if path.name.partition("-")[2].isdigit()
        ]
    found = {
        directory: None
        for uid in uids
        for directory, _ in _candidates(uid)
        if is_safe(directory, uid)
    }
    return list(found)


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """Yield a name of `path` that is short enough for a socket's address (107 octets)."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
