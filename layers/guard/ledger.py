"""How much of a quota is used, and the file that remembers it while nobody counts.

The file is marked as not clean while a guard runs. Where it is found so, the guard has died, or
something happened whose outcome it could not learn: then everything is counted anew. A ledger that
was closed clean is believed.
"""

from __future__ import annotations

import json
import os
from errno import EDQUOT
from pathlib import Path
from typing import Final, NamedTuple

from ...native.errors import VfsError

_VERSION: Final = 1
_LENGTH_MAX: Final = 4096
"""Octets of a ledger's file; a longer one is none of ours."""


class LedgerError(Exception):
    """A quota cannot be kept; the text says why, for people."""


class Usage(NamedTuple):
    """What is used: the sum of the sizes of files, octets, and the number of nodes."""

    octets: int = 0
    files: int = 0


class Ledger:
    """What is used of a quota. No method waits; bounds of None are none."""

    def __init__(self, octets_max: int | None, files_max: int | None) -> None:
        self.octets_max = octets_max
        self.files_max = files_max
        self.octets = 0
        self.files = 0
        self.is_unsure = False
        """Something may have happened that is not in the figures. They are never too small."""

    @property
    def usage(self) -> Usage:
        """What is used now."""
        return Usage(self.octets, self.files)

    def reserve(self, octets: int = 0, files: int = 0) -> None:
        """Count what is going to be used. Errors: EDQUOT, and then nothing was counted."""
        if octets and self.octets_max is not None and self.octets + octets > self.octets_max:
            raise VfsError(EDQUOT)
        if files and self.files_max is not None and self.files + files > self.files_max:
            raise VfsError(EDQUOT)
        self.octets += octets
        self.files += files

    def give(self, octets: int = 0, files: int = 0) -> None:
        """Count what is not used any more."""
        self.octets = max(self.octets - octets, 0)
        self.files = max(self.files - files, 0)

    def correct(self, octets: int = 0, files: int = 0) -> None:
        """Count what turned out to be used, or not to be, whatever the bounds are."""
        self.octets = max(self.octets + octets, 0)
        self.files = max(self.files + files, 0)


def read_usage(path: Path) -> Usage | None:
    """Return what a ledger's file says, None where it is missing, not clean, or none."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_LENGTH_MAX))
        if said["version"] != _VERSION or said["clean"] is not True:
            return None
        octets, files = said["octets"], said["files"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if type(octets) is not int or type(files) is not int or octets < 0 or files < 0:
        return None
    return Usage(octets, files)


def write_usage(path: Path, usage: Usage, *, clean: bool) -> None:
    """Write a ledger's file, as a whole or not at all. Errors: LedgerError."""
    said = {"version": _VERSION, "clean": clean, "octets": usage.octets, "files": usage.files}
    new = path.with_name(path.name + ".new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(json.dumps(said).encode() + b"\n")
            file.flush()
            os.fsync(fd)
        new.replace(path)
    except OSError as exc:
        raise LedgerError(f"{path}: {exc.strerror}") from exc
