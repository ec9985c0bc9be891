"""What a user may say about an SFTP mount, apart from how the server is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...native.constants import TTL_FOREVER

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PsshfsOptions:
    """Options of one mount; all have the defaults of `mount_psshfs`."""

    cache_timeout_ns: int = 30 * 10**9
    """How long attributes, directories and link targets are believed (-t): ns, 0 not at all,
    -1 for ever."""
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
    read_ahead: int = 8 * MIB
    """Octets read ahead for one sequential reader at most; 0 for none."""
    read_ahead_total: int = 64 * MIB
    """Octets read ahead, all files together."""
    write_behind: int = 8 * MIB
    """Octets of one file sent and not yet acknowledged; 0 waits for each write."""
    request_timeout: float = 120.0
    """Seconds without an octet from a server that owes answers, after which it counts as dead."""

    @property
    def ttl(self) -> int:
        """How long what was just learnt may be believed, ns."""
        return TTL_FOREVER if self.cache_timeout_ns < 0 else self.cache_timeout_ns
