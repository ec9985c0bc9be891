"""What a policy says: verbs, rules, hidden names, quota, bandwidth. No I/O; values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from ...native.constants import NAME_MAX, PATH_MAX


class Verb(IntFlag):
    """What may be done at a path. Their names in lower case are those of a configuration."""

    LIST = 0x001
    """List a directory. Whoever knows a name may look at its attributes without it, as on Unix."""
    READ = 0x002
    """Read a file's data, a link's target and extended attributes."""
    CREATE = 0x004
    """Make a file and write to it until it is closed for the first time."""
    OVERWRITE = 0x008
    """Write anywhere in a file that is there, cut it, or lengthen it."""
    APPEND = 0x010
    """Write at the end of a file that is there, through an open that can do nothing else."""
    DELETE = 0x020
    """Remove a file or a directory, also by renaming something over it."""
    RENAME = 0x040
    """Move a name from here, and to here."""
    MKDIR = 0x080
    """Make a directory."""
    LINK = 0x100
    """Make a symbolic link here; make a hard link of what is here, and to here."""
    CHMOD = 0x200
    """Change permission bits and extended attributes, access lists among them."""
    CHOWN = 0x400
    """Change owner and group."""
    TIMES = 0x800
    """Change times."""


NOTHING: Final = Verb(0)
EVERYTHING: Final = Verb(0xFFF)

SCAN_MAX: Final = 1_000_000
"""Nodes that are counted at most to fill a quota's ledger, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed and denied at `path` and everywhere below it.

    `path` is absolute, from the root of what is guarded: names between single slashes, without "."
    and "..", "/" is the root itself. In a name `*` stands for any octets, `?` for one and `[...]`
    for one of a set; none of them for a slash. A verb in neither `allow` nor `deny` is left to
    rules that are less specific (policy.py says which those are).
    """

    path: bytes
    allow: Verb = NOTHING
    deny: Verb = NOTHING

    def __post_init__(self) -> None:
        check_path(self.path)
        if self.allow & self.deny:
            raise ValueError("a rule cannot allow and deny the same verb")
        if not self.allow | self.deny:
            raise ValueError("a rule has to allow or to deny something")


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """A whole policy.

    `allow` is what is allowed where no rule says anything. `hidden` are patterns: one without a
    slash hides each name that it matches, at any depth; one with a slash is a path as those of
    rules. `quota_octets` and `quota_files` bound the sum of the sizes of all files and the number
    of nodes without the root. `upload_rate` and `download_rate` are octets a second, for all
    sessions together; None: no bound. What waits for its turn has asked already: below some 64 KiB
    a second a client that asks for much at once runs into the time limit of a request.
    """

    rules: tuple[Rule, ...] = ()
    allow: Verb = EVERYTHING
    readonly: bool = False
    hidden: tuple[bytes, ...] = ()
    quota_octets: int | None = None
    quota_files: int | None = None
    upload_rate: int | None = None
    download_rate: int | None = None
    scan_max: int = SCAN_MAX

    def __post_init__(self) -> None:
        for pattern in self.hidden:
            if b"/" in pattern:
                check_path(pattern)
                if pattern == b"/":
                    raise ValueError("the root cannot be hidden")
            elif pattern in (b"", b".", b"..") or b"\0" in pattern or len(pattern) > NAME_MAX:
                raise ValueError("a hidden name is a name, or a path that begins with a slash")
        for quota in (self.quota_octets, self.quota_files):
            if quota is not None and quota < 0:
                raise ValueError("a quota is not negative")
        for rate in (self.upload_rate, self.download_rate):
            if rate is not None and rate < 1:
                raise ValueError("a rate is at least one octet a second")
        if self.scan_max < 1:
            raise ValueError("at least one node has to be counted")

    @property
    def has_quota(self) -> bool:
        """Whether there is a ledger to be kept."""
        return self.quota_octets is not None or self.quota_files is not None


def check_path(path: bytes) -> None:
    """Return if `path` can be the path of a rule. Errors: ValueError, with what is wrong."""
    if not path.startswith(b"/"):
        raise ValueError("a path begins with a slash")
    if b"\0" in path:
        raise ValueError("a path has no NUL in it")
    if len(path) >= PATH_MAX:
        raise ValueError(f"a path has less than {PATH_MAX} octets")
    if path == b"/":
        return
    for name in path[1:].split(b"/"):
        if name in (b"", b".", b".."):
            raise ValueError("a path has no empty name, no '.' and no '..' in it")
