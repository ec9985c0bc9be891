"""What is recorded of sessions, and who is told. No I/O; values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final


class Target(Enum):
    """Where the lines of the audit go."""

    FILE = "file"
    SYSLOG = "syslog"
    STDERR = "stderr"


class EventKind(Enum):
    """What a hook can be told of. Their values are those of a configuration."""

    UPLOAD = "upload"
    """A handle that was written to was closed."""
    DOWNLOAD = "download"
    """A handle that was read from, and not written to, was closed."""
    DELETE = "delete"
    """A file, link or directory was removed."""
    RENAME = "rename"
    """Something got another name in place of the one it had."""


EVERY_KIND: Final = frozenset(EventKind)


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The audit: JSON lines.

    `file` is for FILE only. `looks` adds what only looks (stat, readdir, ...), `data` each read
    and each write. `queue_max` is how many lines may wait for the writer; more are dropped, and
    a line says how many.
    """

    target: Target = Target.STDERR
    file: Path | None = None
    looks: bool = False
    data: bool = False
    queue_max: int = 10_000

    def __post_init__(self) -> None:
        if (self.target is Target.FILE) != (self.file is not None):
            raise ValueError("an audit to a file, and no other, has the file's path")
        if self.queue_max < 1:
            raise ValueError("at least one line has to have room")


@dataclass(frozen=True, slots=True)
class CommandHook:
    """A command that is run for each event: JSON on its standard input, SYSPUFFS_* around it.

    `argv[0]` is an absolute path; no shell is asked. At most `parallel` run at once, each for
    `timeout_seconds`, then it is killed. `queue_max` events wait; more are dead letters.
    """

    argv: tuple[str, ...]
    kinds: frozenset[EventKind] = EVERY_KIND
    timeout_seconds: float = 30.0
    parallel: int = 4
    queue_max: int = 1000

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0].startswith("/"):
            raise ValueError("a command begins with an absolute path")
        _check_bounds(self.timeout_seconds, self.parallel, self.queue_max)


@dataclass(frozen=True, slots=True)
class HttpHook:
    """An address to which each event is posted as JSON.

    An answer 2xx takes it; 408, 429, 5xx and a failed connection are tried again, up to `tries`
    times in all with a growing wait; anything else makes a dead letter. No redirect is followed.
    """

    url: str
    kinds: frozenset[EventKind] = EVERY_KIND
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 10.0
    tries: int = 5
    parallel: int = 4
    queue_max: int = 1000

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("an address begins with http:// or https://")
        if self.tries < 1:
            raise ValueError("an event has to be tried at least once")
        _check_bounds(self.timeout_seconds, self.parallel, self.queue_max)


@dataclass(frozen=True, slots=True)
class EventSettings:
    """Who is told of events."""

    hooks: tuple[CommandHook | HttpHook, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics are served to Prometheus; `port` None: nowhere, 0: wherever there is room."""

    host: str = "127.0.0.1"
    port: int | None = None

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port < 65536:
            raise ValueError("a port is a number below 65536")


def _check_bounds(timeout_seconds: float, parallel: int, queue_max: int) -> None:
    if timeout_seconds <= 0:
        raise ValueError("a time limit is more than nothing")
    if parallel < 1 or queue_max < 1:
        raise ValueError("at least one event has to have room")
