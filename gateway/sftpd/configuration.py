"""From a TOML document to Settings; what is wrong with it is said by line and key, all at once.

gateway.toml:14: users.alice.quota.bytes: '10Q' is no size, such as 65536, 64K or 1M
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...layers.guard.settings import GuardSettings, Rule
from ..audit.settings import (
    AuditSettings,
    CommandHook,
    EventKind,
    EventSettings,
    HttpHook,
    MetricsSettings,
    Target,
)
from ..sshd.settings import Credentials, PenaltySettings, SshSettings
from ..status import CommandError, Status
from .lines import Place, line_of, lines_of
from .schema import AuditTable, Document, EventTable, SshTable, UserTable
from .settings import Account, LogSettings, Settings, TreeSettings
from .values import shown

_SIZE_MAX: Final = 16 * 1024 * 1024
"""Longest document, octets: some 50,000 users."""


class ConfigurationError(CommandError):
    """A document cannot be used. Each of `faults` is one line for people, in order."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(Status.USAGE, "\n  ".join(("the configuration is wrong:", *faults)))
        self.faults = faults


def read_configuration(file: Path) -> Settings:
    """Return what the document in `file` says. Errors: ConfigurationError, with every fault."""
    try:
        with open(file, "rb") as stream:
            octets = stream.read(_SIZE_MAX + 1)
        if len(octets) > _SIZE_MAX:
            raise ConfigurationError([f"{file}: longer than {_SIZE_MAX} octets"])
        text = octets.decode()
    except OSError as exc:
        raise ConfigurationError([f"{file}: {exc.strerror}"]) from None
    except UnicodeDecodeError as exc:
        line = octets.count(b"\n", 0, exc.start) + 1
        raise ConfigurationError([f"{file}:{line}: this is not UTF-8"]) from None
    return parse_configuration(text, str(file), file.absolute().parent)


def parse_configuration(text: str, name: str, base: Path) -> Settings:
    """Return what a document says. `name` is what faults call it; files are relative to `base`."""
    try:
        data = tomllib.loads(text)
        lines = lines_of(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError([_undecoded(name, str(exc))]) from None
    except RecursionError:
        raise ConfigurationError([f"{name}: arrays or tables are nested too deep"]) from None
    try:
        document = Document.model_validate(data, context=base)
    except ValidationError as exc:
        found = exc.errors(include_url=False)
    else:
        found = []
    faults = [(place, _sentence(fault, place)) for fault in found for place in [_place(fault)]]
    if not faults:
        faults += _contradictions(document)
    if faults:
        numbered = sorted((line_of(lines, place), dotted(place), said) for place, said in faults)
        raise ConfigurationError(
            [
                f"{name}:{line}: {key}: {said}" if key else f"{name}:{line}: {said}"
                for line, key, said in numbered
            ]
        )
    return _settings(document, base)


# Faults.


def _undecoded(name: str, text: str) -> str:
    """Return the fault that tomllib means, which puts the line at the end of its sentence."""
    what, _, where = text.rpartition(" (at ")
    if not what:
        return f"{name}: {text}"
    what = what[0].lower() + what[1:]
    if where.startswith("line "):
        line, _, column = where.removeprefix("line ").rstrip(")").partition(", column ")
        return f"{name}:{line}: this is no TOML: {what}, in column {column}"
    return f"{name}: this is no TOML: {what}, at its end"


def _place(fault: ErrorDetails) -> Place:
    return tuple(part for part in fault["loc"] if part != "[key]")


def dotted(place: Place) -> str:
    """Return a place as one writes it: users.alice.trees[1].stack; elements count from 1."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            key = part if part and all(c.isalnum() or c in "_-" for c in part) else f'"{part}"'
            text += f".{key}" if text else key
    return text


_KINDS: Final = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "an array",
    "model_type": "a table",
    "string_type": "text in quotes",
}


def _sentence(fault: ErrorDetails, place: Place) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "this is needed, and is not there"
    if kind == "extra_forbidden":
        known = _keys_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        step = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        return f"there is no such key; {step}"
    if kind in _KINDS:
        return f"{shown(fault['input'])} is not {_KINDS[kind]}"
    if kind in ("too_short", "string_too_short"):
        return "this is empty"
    if kind == "literal_error":
        return f"{shown(fault['input'])} is none of {context['expected']}"
    said = fault["msg"]
    return f"{shown(fault['input'])}: {said[0].lower()}{said[1:]}"


def _keys_at(place: Place) -> list[str]:
    """Return the keys that a table may have."""
    kind: Any = Document
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
            if get_origin(kind) in (Union, UnionType):
                kind = next(one for one in get_args(kind) if one is not type(None))
        else:
            kind = get_args(kind)[-1]
    return list(kind.model_fields)


def _contradictions(document: Document) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong with a document whose values are right, each by itself."""
    if not document.users:
        yield ("users",), "there are none; give a table [users.NAME] to each"
    for name, user in document.users.items():
        has_keys = user.authorized_keys or user.keys or user.ca_keys
        if not (has_keys or user.password_hashes or document.ssh.auth_command):
            yield (
                ("users", name),
                "nothing lets this user in; give authorized_keys, keys, ca_keys or "
                "password_hashes, or ssh.auth_command",
            )


# Settings.


def _settings(document: Document, base: Path) -> Settings:
    metrics = None
    if document.metrics is not None:
        metrics = MetricsSettings(*document.metrics.listen)
    log = document.log
    return Settings(
        ssh=_ssh(document.ssh, document.state),
        accounts={name: _account(name, user) for name, user in document.users.items()},
        state=document.state,
        run_as=document.run_as,
        keep_seconds=document.keep,
        stop_seconds=document.stop,
        audit=None if document.audit is None else _audit(document.audit, base),
        events=EventSettings(tuple(map(_hook, document.events))) if document.events else None,
        metrics=metrics,
        log=LogSettings(log.to if log.to in _STREAMS else str(base / log.to), log.level),
    )


_STREAMS: Final = ("stderr", "syslog")


def _ssh(table: SshTable, state: Path) -> SshSettings:
    return SshSettings(
        listen=tuple(table.listen),
        state=state,
        host_keys=tuple(table.host_keys),
        banner=table.banner,
        ciphers=tuple(table.ciphers),
        key_exchanges=tuple(table.key_exchanges),
        macs=tuple(table.macs),
        login_grace_seconds=table.login_grace,
        max_auth_tries=table.max_auth_tries,
        max_connections=table.max_connections,
        max_startups=table.max_startups,
        connections_per_source=table.connections_per_source,
        penalties=PenaltySettings(
            table.penalties.first, table.penalties.cap, tuple(table.penalties.exempt)
        ),
        keepalive_seconds=table.keepalive,
        keepalive_count=table.keepalive_count,
        rekey_bytes=table.rekey_size,
        rekey_seconds=table.rekey_time,
        sessions_per_connection=table.sessions_per_connection,
        workers=table.workers,
        auth_command=tuple(table.auth_command),
        auth_command_seconds=table.auth_command_time,
    )


def _account(name: str, user: UserTable) -> Account:
    return Account(
        name=name,
        credentials=Credentials(
            key_files=tuple(user.authorized_keys),
            keys=tuple(user.keys),
            ca_keys=tuple(user.ca_keys),
            principals=tuple(user.principals),
            password_hashes=tuple(user.password_hashes),
            methods=tuple(user.methods),
            networks=tuple(user.networks),
            owner=user.owner,
        ),
        trees=tuple(
            TreeSettings(tree.path, tree.stack, tree.special, tuple(tree.options), tree.readonly)
            for tree in user.trees
        ),
        guard=GuardSettings(
            rules=tuple(Rule(rule.path, rule.allow, rule.deny) for rule in user.rules),
            allow=user.allow,
            readonly=user.readonly,
            hidden=tuple(user.hidden),
            quota_octets=user.quota.bytes,
            quota_files=user.quota.files,
            upload_rate=user.bandwidth.upload,
            download_rate=user.bandwidth.download,
        ),
        start=b"" if user.start == b"/" else user.start,
        umask=user.umask,
        uid=user.uid,
        gid=user.gid,
        sessions_max=user.sessions,
        idle_seconds=user.idle,
        session_seconds=user.session_time,
    )


def _audit(table: AuditTable, base: Path) -> AuditSettings:
    if table.to in _STREAMS:
        return AuditSettings(Target(table.to), None, table.looks, table.data, table.queue)
    return AuditSettings(Target.FILE, base / table.to, table.looks, table.data, table.queue)


def _hook(table: EventTable) -> CommandHook | HttpHook:
    kinds = frozenset(map(EventKind, table.on))
    bounds: Mapping[str, Any] = {
        "timeout_seconds": table.time,
        "parallel": table.parallel,
        "queue_max": table.queue,
    }
    if table.command is not None:
        return CommandHook(tuple(table.command), kinds, **bounds)
    assert table.url is not None
    return HttpHook(table.url, kinds, table.headers, tries=table.tries, **bounds)
