"""What the SSH front hands over: a client that has logged in and asked for SFTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Source = tuple[str, int]
"""Address and port of a client. The address has no scope, and no IPv4 in the clothes of IPv6."""


@dataclass(frozen=True, slots=True)
class LoginFacts:
    """How a client logged in, for logs.

    `method`: as `settings.METHODS`. `fingerprint`: of the public key ("SHA256:..."), or empty.
    `authority`: of the key that signed the certificate with that key, or empty. `key_id`: what
    that certificate calls itself. `version`: what the client calls itself. Text that comes from
    the client has printable ASCII characters only.
    """

    method: str
    fingerprint: str = ""
    authority: str = ""
    key_id: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What the key, or the certificate, takes away from what its account may do.

    `start`: directory in which relative paths begin, None for the account's own. `is_read_only`:
    nothing may be changed.
    """

    is_read_only: bool = False
    start: bytes | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """One session: a byte stream with an SFTP client at its far end.

    `fd`: a connected stream socket, non-blocking; whoever takes the arrival owns and closes
    it. `account`: where it was found at login; it may be gone by now. `user`: the name that the
    client gave. `connection`: number of the SSH connection, which may have several sessions;
    `session`: number of the session, unique while the daemon runs.
    """

    account: str
    user: str
    source: Source
    login: LoginFacts
    restrictions: Restrictions
    connection: int
    session: int
    fd: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to log in. `account` is empty where it has failed."""

    is_successful: bool
    user: str
    account: str
    source: Source
    method: str
    fingerprint: str = ""


class FrontStatistics(NamedTuple):
    """Counters since the start, and what there is now.

    Counted: `accepted` connections, `refused` ones by reason, `logins` by method, `failures` of
    attempts by method, `sessions_begun`, `deaths` of SSH processes. Now: `connections`, of which
    `startups` have not logged in, `sessions`, `penalised` sources, `workers`.
    """

    accepted: int
    refused: dict[str, int]
    logins: dict[str, int]
    failures: dict[str, int]
    sessions_begun: int
    deaths: int
    connections: int
    startups: int
    sessions: int
    penalised: int
    workers: int
