"""What a user may say about an SFTP mount, apart from how the server is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from ...native.constants import TTL_FOREVER

MIB: Final = 1024 * 1024
MISSING_NS: Final = 10**9
"""For so long a name that was asked for and is not there stays so, unless the user says otherwise:
mv(1) asks four times for the name that it is about to make."""


class Timeouts(NamedTuple):
    """For how many ns what was heard of each kind may be believed; 0: not at all."""

    attr: int
    name: int
    link: int
    directory: int
    missing: int
    """A name of which the server said that it is not there."""
    unlisted: int
    """A name that a listing lacks, while the listing itself is believed."""
    open: int
    """Age up to which attributes do for the check at an open."""


class Symlinks(Enum):
    """What symbolic links of the server look like here."""

    CONTAIN = "contain"
    """As they are; absolute ones and those with ".." are refused with EPERM."""
    REWRITE = "rewrite"
    """Those inside the mounted tree work, absolute ones rewritten; the others give EPERM."""
    FOLLOW = "follow"
    """As what they lead to at the server; those that lead nowhere as with REWRITE."""
    RAW = "raw"
    """As they are, wherever they lead on this machine."""


class Idmap(Enum):
    """How user and group ids of the server become those of this machine, both ways."""

    NONE = "none"
    """They are the same."""
    USER = "user"
    """Those of the login directory's owner are the mounting process's own."""
    FILE = "file"
    """By the tables `uids` and `gids`."""
    NAME = "name"
    """By the names that both sides have for them (users-groups-by-id@openssh.com)."""


@dataclass(frozen=True, slots=True)
class PsshfsOptions:
    """Options of one mount; all have the defaults of `mount_psshfs`."""

    cache_timeout_ns: int = 30 * 10**9
    """How long what the server said is believed (-t): ns, 0 not at all, -1 for ever. So are the
    other time-outs, which are this one where they are None."""
    attr_timeout_ns: int | None = None
    """Attributes."""
    name_timeout_ns: int | None = None
    """What a name leads to."""
    link_timeout_ns: int | None = None
    """Targets of symbolic links."""
    dir_timeout_ns: int | None = None
    """What a directory holds, and with it that there is nothing else."""
    negative_timeout_ns: int | None = None
    """Names that are not there. None: a second (or `cache_timeout_ns`, if that is less) where a
    name was asked for, as long as the directory where its listing lacks the name."""
    open_timeout_ns: int = 0
    """Attributes of this age do for the check that an open makes; 0: each open asks."""
    names_max: int = 1_000_000
    """Names that are kept in listings, all directories together; the listings of directories that
    nobody has read for a minute give way, oldest first."""
    uid: int | None = None
    """This user id at the server is the mounting process's own here, both ways (-u)."""
    gid: int | None = None
    """The same for a group id (-g)."""
    ro: bool = False
    """Refuse all changes with EROFS."""
    max_read: int = 1 * MIB
    """Longest single READ, octets; the server's own limit counts as well."""
    max_write: int = 1 * MIB
    """Longest single WRITE, octets; the server's own limit counts as well."""
    max_conns: int = 4
    """SFTP sessions that the data of one file may go over, where one shows to be too few."""
    read_ahead: int = 16 * MIB
    """Octets read ahead for one sequential reader at most; 0 for none."""
    read_ahead_total: int = 64 * MIB
    """Octets read ahead, all files together."""
    prefetch: int = 16 * MIB
    """Octets of small files read before they are opened, all together; 0 for none, and no
    directories listed before they are read."""
    write_behind: int = 16 * MIB
    """Octets of one file sent and not yet acknowledged; 0 waits for each write."""
    symlinks: Symlinks = Symlinks.REWRITE
    transform_symlinks: bool = False
    """With RAW: absolute targets as seen from the link's directory at the server."""
    hard_links: bool = True
    """False: link fails with ENOSYS."""
    idmap: Idmap = Idmap.NONE
    uids: Mapping[int, int] = field(default_factory=dict)
    """For FILE: the server's user id -> ours."""
    gids: Mapping[int, int] = field(default_factory=dict)
    """For FILE: the server's group id -> ours."""
    nomap_ignore: bool = False
    """With FILE and NAME: an id that nobody has a counterpart for passes as it is. Else it is shown
    as nobody's (65534), and cannot be given to a file (EPERM)."""
    writeback: bool = False
    """create() and close() return before the server has the file; see `writeback.py`."""
    request_timeout: float = 120.0
    """Seconds without an octet from a server that owes answers, after which it counts as dead."""

    patience: float = 120.0
    """Seconds that requests wait for a lost connection to come back: 0 not at all (EIO), inf for
    ever, else ETIMEDOUT follows."""

    @property
    def timeouts(self) -> Timeouts:
        """How long each kind of knowledge is believed."""
        general = _ns(self.cache_timeout_ns)

        def of(own: int | None) -> int:
            return general if own is None else _ns(own)

        negative = self.negative_timeout_ns
        return Timeouts(
            attr=of(self.attr_timeout_ns),
            name=of(self.name_timeout_ns),
            link=of(self.link_timeout_ns),
            directory=of(self.dir_timeout_ns),
            missing=min(MISSING_NS, general) if negative is None else _ns(negative),
            unlisted=TTL_FOREVER if negative is None else _ns(negative),
            open=_ns(self.open_timeout_ns),
        )


def _ns(timeout: int) -> int:
    return TTL_FOREVER if timeout < 0 else timeout
