"""Why there is no SFTP stream, or none any more: one error with a cause that programs can read.

Shared by the mounting process and by the pump process; knows neither trio nor asyncssh.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

DEAD_AFTER: Final = 30.0
"""Seconds after which a network that carries nothing counts as dead."""


class Cause(Enum):
    """What kept a stream from opening or ended it; commands derive exit statuses from it."""

    UNKNOWN_HOST = "unknown-host"
    """The name of the host does not resolve."""
    REFUSED = "refused"
    """The host is there, the port is not."""
    UNREACHABLE = "unreachable"
    """No route, or no answer in time."""
    UNKNOWN_HOST_KEY = "unknown-host-key"
    """Nobody vouches for the key of the host, and the user did not either."""
    CHANGED_HOST_KEY = "changed-host-key"
    """The key of the host is another than the known one, or a revoked one."""
    AUTHENTICATION = "authentication"
    """The server knows the user by none of the ways that were tried."""
    NO_SUBSYSTEM = "no-subsystem"
    """Logged in, but the server does not serve SFTP."""
    BAD_CONFIG = "bad-config"
    """An option, a configuration file or a key file cannot be used."""
    PROXY = "proxy"
    """The jump host or the proxy command failed."""
    NOT_FOUND = "not-found"
    """The program that should be run (ssh_command, sftp_server, the pump) cannot be run."""
    PROTOCOL = "protocol"
    """The peer does not speak SSH, or no dialect of it that we speak."""
    DIED = "died"
    """The connection or the process that carried it ended."""


class ConnectError(Exception):
    """There is no stream to the server; `kind` says which way it failed.

    The text is one line for people: the cause, then what to do next.
    """

    def __init__(self, kind: Cause, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.kind = kind

    @property
    def message(self) -> str:
        """Give the text without the kind; one line."""
        return str(self.args[0])

    def __str__(self) -> str:
        return self.message
