"""What puffs_sftpd is told: plain records, without I/O, from a command line or a file alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ...layers.guard.settings import GuardSettings
    from ..audit.settings import AuditSettings, EventSettings, MetricsSettings
    from ..sshd.settings import Credentials, SshSettings

SESSIONS_MAX: Final = 20
"""Sessions of one account at once: rclone's 8 and some windows beside it."""
KEEP_SECONDS: Final = 60.0
"""How long the trees of an account are kept after its last session."""
STOP_SECONDS: Final = 10.0
"""What sessions get to end by themselves when the daemon stops."""


@dataclass(frozen=True)
class TreeSettings:
    """One stack of an account. `path` is where clients see it: b"/", or b"/pub", canonical.

    `stack`, `special` and `words` are what a command line has behind -t, alone, and behind -o.
    """

    path: bytes
    stack: str
    special: str
    words: tuple[str, ...] = ()
    readonly: bool = False


@dataclass(frozen=True)
class Account:
    """Somebody who may log in, and what they find.

    `start` is the directory in which relative paths begin; empty: the root. `uid` and `gid` are
    who asks the trees; None: who runs the gateway. Times are seconds, None is for any time:
    `idle_seconds` without a request, `session_seconds` for a session in all.
    """

    name: str
    credentials: Credentials
    trees: tuple[TreeSettings, ...]
    guard: GuardSettings
    start: bytes = b""
    umask: int = 0o022
    uid: int | None = None
    gid: int | None = None
    sessions_max: int = SESSIONS_MAX
    idle_seconds: float | None = None
    session_seconds: float | None = None


@dataclass(frozen=True)
class LogSettings:
    """Where messages go: "stderr", "syslog" or a file. `level` is one of logging's."""

    to: str = "stderr"
    level: str = "INFO"


@dataclass(frozen=True)
class Settings:
    """All that a daemon is told.

    `state` is the directory for what must outlive it: host keys that it made, ledgers of quotas.
    `run_as` is the user that root becomes once it listens. `keep_seconds` is how long trees stay
    after the last session of an account, None for as long as the daemon runs. `stop_seconds` is
    what sessions get to end by themselves at a stop.
    """

    ssh: SshSettings
    accounts: Mapping[str, Account]
    state: Path
    run_as: str | None = None
    keep_seconds: float | None = KEEP_SECONDS
    stop_seconds: float = STOP_SECONDS
    audit: AuditSettings | None = None
    events: EventSettings | None = None
    metrics: MetricsSettings | None = None
    log: LogSettings = field(default_factory=LogSettings)
