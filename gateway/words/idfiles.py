"""The files of idmap=file: who of this machine is who at the server.

A line is `name:remote_id`, where the name is one of this machine, or its number; empty lines and
those that begin with '#' say nothing. A file in the form of /etc/passwd or /etc/group of the server
does as well: `name:x:remote_id:...`.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Mapping

from ..status import CommandError, Status


def user_ids(path: str | None) -> Mapping[int, int]:
    """Return the server's user id -> ours, by the file `path`. Errors: CommandError (USAGE)."""
    return _read("uidfile", path, lambda name: pwd.getpwnam(name).pw_uid)


def group_ids(path: str | None) -> Mapping[int, int]:
    """Return the server's group id -> ours. Errors: as `user_ids`."""
    return _read("gidfile", path, lambda name: grp.getgrnam(name).gr_gid)


def _read(word: str, path: str | None, find: Callable[[str], int]) -> Mapping[int, int]:
    if path is None:
        return {}
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as exc:
        raise CommandError(
            Status.USAGE, f"{word}={path}: {exc.strerror}; give a file with lines name:remote_id"
        ) from None
    found: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, rest = text.partition(":")
        fields = rest.split(":")
        far = fields[1] if len(fields) > 1 else fields[0]
        if not name or not (far.isascii() and far.isdigit()) or int(far) >= 1 << 32:
            raise CommandError(
                Status.USAGE, f"{word}={path}: line {number} is no name:remote_id: '{text}'"
            )
        if name.isascii() and name.isdigit():
            near = int(name)
        else:
            try:
                near = find(name)
            except KeyError:
                continue  # of the server's many names most are none of this machine's
        found.setdefault(int(far), near)
    return found
