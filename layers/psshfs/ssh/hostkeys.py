"""Is this really the host we meant? known_hosts, and StrictHostKeyChecking on top of it.

asyncssh asks us about every key; it understands the lines of known_hosts, and we look for
them one by one, because a message must be able to name file and line, and because one bad
line must not spoil the file.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import asyncssh

from .failure import Cause, ConnectError
from .sshconfig import ConfigError, HostConfig

_KRL_MAGIC = b"SSHKRL\n\0"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line of a known_hosts file that speaks of the host."""

    key: asyncssh.SSHKey
    marker: str
    """"" for a host's key, "@cert-authority" or "@revoked"."""
    file: str
    line: int


def find_keys(files: Sequence[str], names: Sequence[str]) -> list[KnownKey]:
    """Give what the files know about the first of `names` that they know at all.

    Files that are missing or cannot be read count as empty, lines without sense as absent.
    """
    lines = [line for file in files for line in _read_lines(file)]
    for name in names:
        found = [
            KnownKey(key, marker, file, number)
            for file, number, text in lines
            for marker, key in _match_line(text, name)
        ]
        if found:
            return found
    return []


def _read_lines(file: str) -> Iterator[tuple[str, int, str]]:
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            for number, line in enumerate(stream, 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield file, number, text
    except OSError:
        return


def _match_line(text: str, name: str) -> Iterator[tuple[str, asyncssh.SSHKey]]:
    marker, field = "", text.split(None, 1)[0]
    if field.startswith("@"):
        marker, _, rest = text.partition(" ")
        field = rest.split(None, 1)[0] if rest.strip() else ""
    # Taking a key apart costs more than all the rest, so lines about other hosts end here.
    if field.startswith("|1|"):
        if not _is_hash_of(field, name):
            return
    elif name in field.lower() or any(c in field for c in "*?/"):
        text = text.replace(field, field.lower(), 1)  # names have no case, for asyncssh they have
    else:
        return
    try:
        result = asyncssh.import_known_hosts(text).match(name, "", None)
    except (ValueError, UnicodeError):
        return
    for keys in result[:3]:
        for key in keys:
            assert isinstance(key, asyncssh.SSHKey)
            yield marker, key


def _is_hash_of(field: str, name: str) -> bool:
    try:
        _, _, salt, digest = field.split("|")
        made = hmac.digest(base64.b64decode(salt), name.encode(), "sha1")
        return hmac.compare_digest(made, base64.b64decode(digest))
    except ValueError:
        return False


def hash_name(name: str) -> str:
    """Give `name` as HashKnownHosts writes it."""
    salt = os.urandom(20)
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def add_key(file: str, name: str, key: asyncssh.SSHKey) -> None:
    """Append a line for `name`; makes ~/.ssh (0700) and the file (0600) where missing.

    Errors: OSError.
    """
    directory = os.path.dirname(file)
    if directory:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    algorithm, data = key.export_public_key().decode().split()[:2]
    line = f"{name} {algorithm} {data}\n"
    fd = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(fd, "r+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                line = "\n" + line
        stream.write(line.encode())


def name_type(key: asyncssh.SSHKey) -> str:
    """Give the type of a key as people know it: ED25519, ECDSA, RSA."""
    algorithm = key.get_algorithm()
    for kind in ("ed25519-sk", "ecdsa-sk", "ed25519", "ed448", "ecdsa", "rsa", "dss"):
        if kind in algorithm.removeprefix("sk-").replace("sk-ssh", "ssh"):
            return {"dss": "DSA"}.get(kind, kind.upper())
    return algorithm


class HostKeyCheck:
    """Decides about the keys that one host shows; one object per connection.

    `failure` says why a key was refused. `is_distrusted` is set when a changed key was let
    through by StrictHostKeyChecking=no: nothing secret may then be typed.
    """

    def __init__(
        self,
        config: HostConfig,
        ask: Callable[[str], str | None],
        tell: Callable[[str], None],
    ) -> None:
        self.failure: ConnectError | None = None
        self.is_distrusted = False
        self.address = ""
        """Where the name led, for the question; set it when known."""
        self._ask = ask
        self._tell = tell
        self._mode = config.word(
            "StrictHostKeyChecking",
            "ask",
            ("yes", "true", "ask", "accept-new", "no", "off", "false"),
        )
        self._mode = {"true": "yes", "off": "no", "false": "no"}.get(self._mode, self._mode)
        self._is_exempt = (
            config.flag("NoHostAuthenticationForLocalhost", False) and config.host in _LOCAL_HOSTS
        )
        self._hashed = config.flag("HashKnownHosts", False)
        self.name, names = _name_host(config)
        self._user_files = _list_files(
            config, "UserKnownHostsFile", ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
        )
        files = self._user_files + _list_files(
            config,
            "GlobalKnownHostsFile",
            ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"),
        )
        self._known = find_keys(files, names[:1])
        # A host known without its port may be right; when it is not, it says nothing.
        self._portless = [] if self._known else find_keys(files, names[1:])
        self._revoked = _read_revoked(config)

    @property
    def ca_keys(self) -> list[asyncssh.SSHKey]:
        """Give the keys of authorities that may sign certificates for the host."""
        known = self._known or self._portless
        return [entry.key for entry in known if entry.marker == "@cert-authority"]

    @property
    def revoked_keys(self) -> list[asyncssh.SSHKey]:
        """Give the keys that must not be accepted, whoever signed them."""
        lines = [e.key for e in self._known + self._portless if e.marker == "@revoked"]
        return lines + self._revoked

    def order_algorithms(self) -> list[str]:
        """Give the host key algorithms of the known keys, to be asked for first.

        Without them a server with many keys could show one that we never saw.
        """
        first: list[str] = []
        for entry in self._known or self._portless:
            name = entry.key.get_algorithm()
            if not entry.marker:
                first += ("rsa-sha2-512", "rsa-sha2-256") if name == "ssh-rsa" else (name,)
        return list(dict.fromkeys(first))

    def accept_ca(self, key: asyncssh.SSHKey) -> bool:
        """Tell whether `key` may sign for the host."""
        return _is_among(key, self.ca_keys) and not _is_among(key, self.revoked_keys)

    def accept(self, key: asyncssh.SSHKey) -> bool:
        """Tell whether the host is the one we meant; may ask, and may write known_hosts."""
        if self._is_exempt:
            return True
        if _is_among(key, self.revoked_keys):
            return self._refuse(
                Cause.CHANGED_HOST_KEY,
                f"{self.name}: the {name_type(key)} host key is marked as revoked"
                f"{self._place(key)}; do not connect before its administrator has explained",
            )
        plain = [entry for entry in self._known if not entry.marker]
        if _is_among(key, [e.key for e in plain + self._portless if not e.marker]):
            return True
        if plain:
            return self._accept_changed(key, plain)
        return self._accept_new(key)

    def _accept_changed(self, key: asyncssh.SSHKey, known: Sequence[KnownKey]) -> bool:
        same_type = [e for e in known if e.key.get_algorithm() == key.get_algorithm()]
        entry = (same_type or list(known))[0]
        text = (
            f"{self.name}: the host key has changed: {name_type(key)} {key.get_fingerprint()} "
            f"is not the key in {entry.file} line {entry.line}"
        )
        if self._mode == "no":
            self._tell(f"warning: {text}; no password will be sent")
            self.is_distrusted = True
            return True
        return self._refuse(
            Cause.CHANGED_HOST_KEY,
            f"{text}; if the change is genuine, remove the old one: ssh-keygen -R "
            f"'{self.name}' -f {entry.file}",
        )

    def _accept_new(self, key: asyncssh.SSHKey) -> bool:
        kind, fingerprint = name_type(key), key.get_fingerprint()
        unknown = f"{self.name}: the {kind} host key {fingerprint} is not known"
        if self._mode == "yes":
            return self._refuse(
                Cause.UNKNOWN_HOST_KEY,
                f"{unknown} and StrictHostKeyChecking=yes; connect once with ssh, "
                "or set StrictHostKeyChecking=accept-new",
            )
        if self._mode == "ask":
            answer = self._ask_user(kind, fingerprint)
            if answer is None:
                return self._refuse(
                    Cause.UNKNOWN_HOST_KEY,
                    f"{unknown} and nobody can be asked; connect once with ssh, "
                    "or set StrictHostKeyChecking=accept-new",
                )
            if not answer:
                return self._refuse(Cause.UNKNOWN_HOST_KEY, f"{unknown} and was not accepted")
        self._remember(key)
        return True

    def _ask_user(self, kind: str, fingerprint: str) -> bool | None:
        where = f" ({self.address})" if self.address not in ("", self.name) else ""
        prompt = (
            f"The host {self.name}{where} is not known yet.\n"
            f"Its {kind} key has the fingerprint {fingerprint}\n"
            "Connect and remember it (yes/no/[fingerprint])? "
        )
        while True:
            answer = self._ask(prompt)
            if answer is None:
                return None
            word = answer.strip()
            if word.lower() == "yes" or word == fingerprint:
                return True
            if word.lower() == "no" or not word:
                return False
            prompt = "Please type 'yes', 'no' or the fingerprint: "

    def _remember(self, key: asyncssh.SSHKey) -> None:
        if not self._user_files:
            return
        file = self._user_files[0]
        try:
            add_key(file, hash_name(self.name) if self._hashed else self.name, key)
        except OSError as exc:
            self._tell(f"warning: cannot add the host key to {file}: {exc.strerror}")
        else:
            self._tell(f"Added the {name_type(key)} key of {self.name} to {file}.")

    def _place(self, key: asyncssh.SSHKey) -> str:
        for entry in self._known + self._portless:
            if entry.marker == "@revoked" and _is_among(key, [entry.key]):
                return f" in {entry.file} line {entry.line}"
        return " by RevokedHostKeys"

    def _refuse(self, cause: Cause, text: str) -> bool:
        self.failure = ConnectError(cause, text)
        return False


def _is_among(key: asyncssh.SSHKey, keys: Sequence[asyncssh.SSHKey]) -> bool:
    return any(key.public_data == other.public_data for other in keys)


def _name_host(config: HostConfig) -> tuple[str, list[str]]:
    """Give the name that known_hosts has for the host, and the names to look for."""
    alias = config.text("HostKeyAlias")
    if alias is not None:
        return alias, [alias.lower()]
    if config.port == 22:
        return config.host, [config.host]
    return f"[{config.host}]:{config.port}", [f"[{config.host}]:{config.port}", config.host]


def _list_files(config: HostConfig, keyword: str, default: Sequence[str]) -> list[str]:
    words = config.words(keyword) if config.is_set(keyword) else default
    return [config.path(word, keyword) for word in words]


def _read_revoked(config: HostConfig) -> list[asyncssh.SSHKey]:
    """Read RevokedHostKeys; one that cannot be read means that no host is trusted, as in ssh."""
    name = config.text("RevokedHostKeys")
    if name is None:
        return []
    file = config.path(name, "RevokedHostKeys")
    try:
        with open(file, "rb") as stream:
            data = stream.read()
        if data.startswith(_KRL_MAGIC):
            raise ConfigError(
                f"RevokedHostKeys {file}: binary revocation lists are not read here; "
                "use a list of public keys, or ssh_command=ssh"
            )
        lines = [line.strip() for line in data.splitlines()]
        return [asyncssh.import_public_key(x) for x in lines if x and not x.startswith(b"#")]
    except OSError as exc:
        raise ConfigError(f"RevokedHostKeys {file}: cannot read it: {exc.strerror}") from exc
    except asyncssh.KeyImportError as exc:
        raise ConfigError(f"RevokedHostKeys {file}: {exc}") from exc
