"""What can be set about SSH, and what lets an account in. Plain values; no file is read here."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

Network = IPv4Network | IPv6Network
"""Addresses: a network of either kind."""

PUBLIC_KEY: Final = "publickey"
PASSWORD: Final = "password"
METHODS: Final = (PUBLIC_KEY, PASSWORD)
"""The ways to log in, by their names on the wire."""

CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""By what they cost; the first that a client has as well is taken (connection.py)."""
KEY_EXCHANGES: Final = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
)
"""Nothing with SHA-1. What asyncssh does not have here is passed over."""
MACS: Final = (
    "umac-64-etm@openssh.com",
    "umac-128-etm@openssh.com",
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "umac-128@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
"""For the ciphers that need one."""


@dataclass(frozen=True, slots=True)
class Startups:
    """How many connections may be there that have not logged in, as sshd's MaxStartups.

    From `start` on, one is refused with a chance of `rate` percent, which grows to certainty
    at `full`. A plain bound has `start` equal to `full`.
    """

    start: int = 10
    rate: int = 30
    full: int = 100


@dataclass(frozen=True, slots=True)
class PenaltySettings:
    """How long a source is refused after its connections have failed to log in.

    The first failure costs `seconds`, each further one twice the last, up to `cap_seconds`. After
    that time again without a failure the source is as good as new. A source is an IPv4 address,
    or the 64-bit network of an IPv6 address. 0 seconds: there are no penalties.
    """

    seconds: float = 1.0
    cap_seconds: float = 600.0
    exempt: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class SshSettings:
    """Everything about SSH that is no matter of an account.

    `listen`: hosts and ports; the host "" stands for all addresses, port 0 for any free one.
    `host_keys`: files with private keys, of which no two of one type; with none, an Ed25519 key is
    made at the first start and kept in the directory `state`. `workers`: SSH processes, 0
    for as many as there are processors, 4 at most. A bound of 0 for `connections_per_source` or
    `rekey_seconds` or `keepalive_seconds` is none.

    `auth_command`: a program and its arguments that are asked whenever an account's own credentials
    (or those of nobody) do not let a client in; see hook.py.
    """

    listen: tuple[tuple[str, int], ...]
    state: Path
    host_keys: tuple[Path, ...] = ()
    banner: str = ""
    ciphers: tuple[str, ...] = CIPHERS
    key_exchanges: tuple[str, ...] = KEY_EXCHANGES
    macs: tuple[str, ...] = MACS
    login_grace_seconds: float = 120.0
    max_auth_tries: int = 6
    max_connections: int = 1000
    max_startups: Startups = field(default_factory=Startups)
    connections_per_source: int = 0
    penalties: PenaltySettings = field(default_factory=PenaltySettings)
    keepalive_seconds: float = 60.0
    keepalive_count: int = 3
    rekey_bytes: int = 1 << 30
    rekey_seconds: float = 3600.0
    sessions_per_connection: int = 10
    workers: int = 0
    auth_command: tuple[str, ...] = ()
    auth_command_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What lets a client in as one account.

    `key_files`: authorized_keys files, read at each login; one that others can write, or whose
    owner is neither root nor us nor `owner`, is not heeded, as sshd's StrictModes has it. `keys`:
    lines of such files. `ca_keys`: lines with public keys of authorities, whose user
    certificates count when they name one of `principals` (none: the account's name); the
    option `principals=` of a line stands above that. `password_hashes`: argon2 (`$argon2id$`)
    or bcrypt (`$2b$`), any one of which will do. `methods`: the ways that this account may
    use. `networks`: where its clients may be, by any method; none: anywhere.
    """

    key_files: tuple[Path, ...] = ()
    keys: tuple[str, ...] = ()
    ca_keys: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    password_hashes: tuple[str, ...] = ()
    methods: tuple[str, ...] = METHODS
    networks: tuple[Network, ...] = ()
    owner: int | None = None
