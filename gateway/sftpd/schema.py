"""What may stand in a configuration: one class a table, one field a key.

pydantic goes through the whole document and finds all that is wrong with it at once. What a value
means is a matter of values.py; what all of it comes to, of configuration.py. Relative file names
are relative to the configuration, whose directory is the validation's context.
"""

from __future__ import annotations

import difflib
import grp
import pwd
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ...layers.guard.settings import EVERYTHING, NOTHING, GuardSettings, Verb, check_path
from ..assembly import served_ground
from ..audit.settings import EventKind
from ..sshd.keyline import BadLine, parse_line
from ..sshd.passwords import explain_hash
from ..sshd.settings import CIPHERS, KEY_EXCHANGES, MACS, METHODS, Startups
from ..stack import parse_served
from ..status import CommandError
from .settings import KEEP_SECONDS, SESSIONS_MAX, STOP_SECONDS
from .values import Network, address, mode, network, seconds, served_path, shown, size

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
_IDENTITY_MAX: Final = 2**32 - 1
_VERBS: Final = tuple((verb.name or "").lower() for verb in Verb)
_KINDS: Final = tuple(kind.value for kind in EventKind)


def _file(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{shown(value)} is no file name")
    assert isinstance(info.context, Path)
    return info.context / value


def _account_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is no name of a user: letters, digits and _.@+-, 64 at most, not a "
            "sign first"
        )
    return value


def _known(kind: str, names: Sequence[str]) -> Callable[[str], str]:
    """Return a check that a value is one of `names`."""

    def check(value: str) -> str:
        if value not in names:
            near = difflib.get_close_matches(value, names, n=1, cutoff=0.0)
            raise ValueError(f"there is no {kind} {shown(value)}; did you mean '{near[0]}'?")
        return value

    return check


def _password_hash(value: str) -> str:
    trouble = explain_hash(value)
    if trouble:
        raise ValueError(f"this {trouble}")
    return value


def _key_line(value: str) -> str:
    try:
        if "\n" in value or parse_line(value) is None:
            raise BadLine("it is not one line with a key")
    except BadLine as exc:
        raise ValueError(f"{shown(value)}: {exc}") from None
    return value


def _startups(value: object) -> Startups:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Startups(value, 100, value)
    found = re.fullmatch(r"(\d+):(\d+):(\d+)", value) if isinstance(value, str) else None
    if found is not None:
        start, rate, full = map(int, found.groups())
        if 0 < start <= full and rate <= 100:
            return Startups(start, rate, full)
    raise ValueError(
        f"{shown(value)} is no bound, such as 10 or '10:30:100': from 10 on, 30 percent, all at 100"
    )


def _keep(value: object) -> float | None:
    return None if value == "forever" else seconds(value)


def _none_or_seconds(value: object) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else seconds(value)


def _user_number(value: object) -> int:
    if isinstance(value, str):
        try:
            return pwd.getpwnam(value).pw_uid
        except KeyError:
            raise ValueError(f"there is no user {shown(value)} on this machine") from None
    return _number(value)


def _group_number(value: object) -> int:
    if isinstance(value, str):
        try:
            return grp.getgrnam(value).gr_gid
        except KeyError:
            raise ValueError(f"there is no group {shown(value)} on this machine") from None
    return _number(value)


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _IDENTITY_MAX:
        return value
    raise ValueError(f"{shown(value)} is no name and no number of a user or group")


def _verbs(value: object) -> Verb:
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} is no array of verbs, such as ['list', 'read']")
    verbs = NOTHING
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"{shown(name)} is no verb")
        verbs |= Verb[_known("verb", _VERBS)(name).upper()]
    return verbs


def _rule_path(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no path")
    path = value.encode()
    try:
        check_path(path)
    except ValueError as exc:
        raise ValueError(f"{shown(value)}: {exc}") from None
    return path


def _hidden(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no pattern of names")
    pattern = value.encode()
    try:
        GuardSettings(hidden=(pattern,))
    except ValueError as exc:
        raise ValueError(f"{shown(value)}: {exc}") from None
    return pattern


def _stack(value: str) -> str:
    try:
        parse_served(value)
    except CommandError as exc:
        raise ValueError(exc.message) from None
    return value


Address = Annotated[tuple[str, int], PlainValidator(address)]
File = Annotated[Path, PlainValidator(_file)]
KeyLine = Annotated[str, AfterValidator(_key_line)]
Mode = Annotated[int, PlainValidator(mode)]
Net = Annotated[Network, PlainValidator(network)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000)]
Group = Annotated[int, PlainValidator(_group_number)]
Hidden = Annotated[bytes, PlainValidator(_hidden)]
Rate = Annotated[int, PlainValidator(size), Field(ge=1)]
RulePath = Annotated[bytes, PlainValidator(_rule_path)]
Seconds = Annotated[float, PlainValidator(seconds)]
SecondsOrNone = Annotated[float, PlainValidator(_none_or_seconds)]
ServedPath = Annotated[bytes, PlainValidator(served_path)]
Size = Annotated[int, PlainValidator(size)]
Text = Annotated[str, Field(min_length=1)]
User = Annotated[int, PlainValidator(_user_number)]
Verbs = Annotated[Verb, PlainValidator(_verbs)]


class Table(BaseModel):
    """A table of the document: it takes no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)


class PenaltyTable(Table):
    """[ssh.penalties]."""

    first: SecondsOrNone = 1.0
    cap: Seconds = 600.0
    exempt: list[Net] = []


class SshTable(Table):
    """[ssh]."""

    listen: Annotated[list[Address], Field(min_length=1)] = [("0.0.0.0", 2022), ("::", 2022)]
    host_keys: list[File] = []
    banner: str = ""
    ciphers: list[Annotated[str, AfterValidator(_known("cipher", CIPHERS))]] = list(CIPHERS)
    key_exchanges: list[Annotated[str, AfterValidator(_known("key exchange", KEY_EXCHANGES))]] = (
        list(KEY_EXCHANGES)
    )
    macs: list[Annotated[str, AfterValidator(_known("MAC", MACS))]] = list(MACS)
    login_grace: Seconds = 120.0
    max_auth_tries: Count = 6
    max_connections: Count = 1000
    max_startups: Annotated[Startups, PlainValidator(_startups)] = Startups()
    connections_per_source: CountOrNone = 0
    penalties: PenaltyTable = PenaltyTable()
    keepalive: SecondsOrNone = 60.0
    keepalive_count: Count = 3
    rekey_size: Size = 1 << 30
    rekey_time: SecondsOrNone = 3600.0
    sessions_per_connection: Count = 10
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    auth_command: list[Text] = []
    auth_command_time: Seconds = 10.0


class TreeTable(Table):
    """[[users.NAME.trees]]."""

    path: ServedPath = b"/"
    stack: Annotated[str, AfterValidator(_stack)]
    special: Text
    readonly: bool = False
    options: list[str] = []

    @field_validator("options")
    @classmethod
    def _words(cls, value: list[str], info: ValidationInfo) -> list[str]:
        stack, special = info.data.get("stack"), info.data.get("special")
        if stack is not None and special is not None:
            try:
                served_ground(parse_served(stack), special, value, readonly=False)
            except CommandError as exc:
                raise ValueError(exc.message) from None
        return value


class RuleTable(Table):
    """[[users.NAME.rules]]."""

    path: RulePath
    allow: Verbs = NOTHING
    deny: Verbs = NOTHING

    @model_validator(mode="after")
    def _says_something(self) -> RuleTable:
        if self.allow & self.deny:
            raise ValueError("a verb is in 'allow' and in 'deny'; leave out one")
        if not self.allow | self.deny:
            raise ValueError("it allows nothing and denies nothing; give 'allow' or 'deny'")
        return self


class QuotaTable(Table):
    """[users.NAME.quota]."""

    bytes: Size | None = None
    files: Annotated[int, Field(ge=0)] | None = None


class BandwidthTable(Table):
    """[users.NAME.bandwidth]: octets a second."""

    upload: Rate | None = None
    download: Rate | None = None


class UserTable(Table):
    """[users.NAME]."""

    authorized_keys: list[File] = []
    keys: list[KeyLine] = []
    ca_keys: list[KeyLine] = []
    principals: list[Text] = []
    password_hashes: list[Annotated[str, AfterValidator(_password_hash)]] = []
    methods: list[Annotated[str, AfterValidator(_known("method", METHODS))]] = list(METHODS)
    networks: list[Net] = []
    owner: User | None = None
    trees: Annotated[list[TreeTable], Field(min_length=1)]
    start: ServedPath = b"/"
    umask: Mode = 0o022
    uid: User | None = None
    gid: Group | None = None
    sessions: Count = SESSIONS_MAX
    idle: Seconds | None = None
    session_time: Seconds | None = None
    readonly: bool = False
    allow: Verbs = EVERYTHING
    rules: list[RuleTable] = []
    hidden: list[Hidden] = []
    quota: QuotaTable = QuotaTable()
    bandwidth: BandwidthTable = BandwidthTable()

    @field_validator("trees")
    @classmethod
    def _distinct(cls, value: list[TreeTable]) -> list[TreeTable]:
        seen = set()
        for tree in value:
            if tree.path in seen:
                raise ValueError(
                    f"two trees are at '{tree.path.decode()}'; give each a path of its own"
                )
            seen.add(tree.path)
        return value


class AuditTable(Table):
    """[audit]."""

    to: Text = "stderr"
    looks: bool = False
    data: bool = False
    queue: Count = 10_000


class EventTable(Table):
    """[[events]]."""

    command: list[Text] | None = None
    url: Text | None = None
    headers: dict[str, str] = {}
    on: list[Annotated[str, AfterValidator(_known("event", _KINDS))]] = list(_KINDS)
    time: Seconds = 30.0
    tries: Annotated[int, Field(ge=1, le=100)] = 5
    parallel: Annotated[int, Field(ge=1, le=100)] = 4
    queue: Count = 1000

    @model_validator(mode="after")
    def _one_way(self) -> EventTable:
        if (self.command is None) == (self.url is None):
            raise ValueError("it has to have 'command' or 'url', and not both")
        if self.command is not None and not (self.command and self.command[0].startswith("/")):
            raise ValueError("'command' has to begin with an absolute path of a program")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{shown(self.url)} does not begin with http:// or https://")
        return self


class MetricsTable(Table):
    """[metrics]."""

    listen: Address


class LogTable(Table):
    """[log]."""

    to: Text = "stderr"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"


class Document(Table):
    """The whole document."""

    state: File
    run_as: Text | None = None
    keep: Annotated[float | None, PlainValidator(_keep)] = KEEP_SECONDS
    stop: Seconds = STOP_SECONDS
    ssh: SshTable = SshTable()
    log: LogTable = LogTable()
    audit: AuditTable | None = None
    events: list[EventTable] = []
    metrics: MetricsTable | None = None
    users: dict[Annotated[str, AfterValidator(_account_name)], UserTable] = {}
