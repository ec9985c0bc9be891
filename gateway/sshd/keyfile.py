"""Reads authorized_keys files, unless others could have written them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

FILE_MAX: Final = 1 << 20
"""Largest file that is read, octets: some thousand keys."""


class BadFile(Exception):
    """A file does not count; the text says why."""


def read_key_file(path: Path, owner: int | None) -> list[str]:
    """Return the lines of a file; none when there is no such file. Errors: `BadFile`.

    As sshd's StrictModes has it: the file, and each directory on its real path, belongs to root,
    to us or to `owner`, and nobody else may write it. A directory that others may write is good
    enough when it is sticky and what is below it is not theirs: /tmp is such a one.
    """
    owners = {0, os.geteuid()} | ({owner} if owner is not None else set())
    try:
        real = path.resolve(strict=True)
        # Not to wait for a writer of a FIFO. What is looked at is what is read.
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    except (OSError, RuntimeError) as exc:
        raise BadFile(f"{path}: {getattr(exc, 'strerror', None) or exc}") from None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise BadFile(f"{path} is no regular file")
    with open(fd, "rb") as file:
        _check(real, info, owners)
        for parent in real.parents:
            _check(parent, os.stat(parent), owners)
        try:
            data = file.read(FILE_MAX + 1)
        except OSError as exc:
            raise BadFile(f"{path}: {exc.strerror}") from None
    if len(data) > FILE_MAX:
        raise BadFile(f"{path} has more than {FILE_MAX} octets")
    return data.decode("utf-8", "surrogateescape").split("\n")


def _check(path: Path, info: os.stat_result, owners: set[int]) -> None:
    if info.st_uid not in owners:
        raise BadFile(f"{path} belongs to user {info.st_uid}")
    if info.st_mode & 0o022 and not (stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX):
        raise BadFile(f"{path} can be written by others (mode {stat.S_IMODE(info.st_mode):o})")
