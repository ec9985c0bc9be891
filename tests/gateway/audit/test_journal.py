"""What of a session is in the audit, and what events it makes."""

from __future__ import annotations

from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

from syspuffs.gateway.audit import AuditSettings, EventSettings, Target, recording
from syspuffs.gateway.audit.events import Event, EventQueue
from syspuffs.gateway.audit.lines import line, normal, path_fields, timestamp
from syspuffs.gateway.audit.settings import EVERY_KIND
from syspuffs.gateway.sftp import Permitted, View
from syspuffs.native import sftp
from syspuffs.native.errors import VfsError

from ...support.sftp_end import SELF
from ..sftp.conftest import tree as tree  # the fixture
from ..sftp.harness import MAKE, Served
from .harness import WHO, lines, recorded


def audit(file: Path, **options: bool) -> AuditSettings:
    return AuditSettings(Target.FILE, file, **options)


def without(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a line without what is the same in each, having looked at that."""
    assert fields.pop("session") == "s1"
    assert fields.pop("account") == "alice"
    assert fields.pop("source") == "192.0.2.1:50222"
    assert fields.pop("time") == "2001-09-09T01:46:40.500000Z"
    seconds = fields.pop("seconds", 0)
    assert 0 <= seconds < 10
    return fields


async def test_a_session_in_lines(tree: Served, tmp_path: Path) -> None:
    file = tmp_path / "audit"
    async with recording(audit(file), clock=lambda: 10**9 + 0.5) as recorder:
        async with recorded(recorder, tree.export, start=b"/home") as wire:
            await wire.ask(sftp.mkdir, b"/home")
            await wire.put(b"f", b"data")
            await wire.ask(sftp.stat, b"f")
            assert await wire.code(sftp.stat, b"/none") == sftp.FX_NO_SUCH_FILE
            assert await wire.get(b"./f") == b"data"
            await wire.ask(sftp.setstat, b"f", sftp.Attrs(mode=0o100640, mtime=1, atime=2))
            await wire.ask(sftp.rename, b"f", b"/g\xff")
            await wire.ask(sftp.symlink, b"g", b"/l")
            assert await wire.code(sftp.rmdir, b"/none") == sftp.FX_NO_SUCH_FILE
            await wire.names(b"/")
            await wire.ask(sftp.remove, b"/g\xff")
            await wire.open(b"/left", MAKE)
    found = [without(fields) for fields in lines(file.read_bytes())]
    made, good = ["write", "create", "truncate"], {"result": "ok"}
    assert found == [
        {"operation": "session", "method": "publickey", "client": "SSH-2.0-test"},
        {"operation": "mkdir", "path": "/home", **good},
        {"operation": "open", "path": "/home/f", "flags": made, **good},
        {
            "operation": "close",
            "path": "/home/f",
            "octets_read": 0,
            "octets_written": 4,
            "complete": True,
            **good,
        },
        {"operation": "open", "path": "/home/f", "flags": ["read"], **good},
        {
            "operation": "close",
            "path": "/home/f",
            "octets_read": 4,
            "octets_written": 0,
            "complete": True,
            **good,
        },
        {"operation": "setstat", "path": "/home/f", "mode": "0640", "atime": 2, "mtime": 1, **good},
        {
            "operation": "rename",
            "path": "/home/f",
            "target": "/g�",
            "target_octets": "2f67ff",
            **good,
        },
        {"operation": "symlink", "path": "/l", "target": "g", **good},
        {"operation": "rmdir", "path": "/none", "result": "no-such-file"},
        {"operation": "list", "path": "/", **good},
        {"operation": "remove", "path": "/g�", "path_octets": "2f67ff", **good},
        {"operation": "open", "path": "/left", "flags": made, **good},
        {
            "operation": "close",
            "path": "/left",
            "octets_read": 0,
            "octets_written": 0,
            "complete": False,
            "result": "left",
        },
        {
            "operation": "end",
            "cause": "the client left",
            **{key: found[-1][key] for key in ("requests", "octets_received", "octets_sent")},
        },
    ]
    assert file.stat().st_mode & 0o777 == 0o600


async def test_looks_and_data_on_request(tree: Served, tmp_path: Path) -> None:
    file = tmp_path / "audit"
    async with recording(audit(file, looks=True, data=True)) as recorder:
        async with recorded(recorder, tree.export) as wire:
            handle = await wire.open(b"/f", MAKE | sftp.FXF_READ)
            other = await wire.open(b"/g", MAKE | sftp.FXF_READ)
            await wire.write(handle, 3, b"data")
            await wire.read(handle, 1, 100)
            assert await wire.code(sftp.read, handle, 100, 1) == sftp.FX_EOF
            await wire.ask(sftp.fstat, handle)
            await wire.ask(sftp.copy_data, handle, 0, 0, other, 0)
            await wire.ask(sftp.realpath, b"x")
            await wire.ask(sftp.close, handle)
            await wire.ask(sftp.close, other)
    found = lines(file.read_bytes())
    kept = ("path", "offset", "length", "target")
    assert [[f["operation"], *(f[key] for key in kept if key in f)] for f in found] == [
        ["session"],
        ["open", "/f"],
        ["open", "/g"],
        ["write", "/f", 3, 4],
        ["read", "/f", 1, 100],
        ["read", "/f", 100, 1],
        ["fstat", "/f"],
        ["copy-data", "/f", "/g"],
        ["realpath", "/x"],
        ["close", "/f"],
        ["close", "/g"],
        ["end"],
    ]
    assert {fields.get("result", "ok") for fields in found} == {"ok"}


async def test_what_is_denied_is_always_told(tree: Served, tmp_path: Path) -> None:
    file = tmp_path / "audit"
    async with recording(audit(file)) as recorder:
        permitted = Permitted(denied=["stat"])
        async with recorded(recorder, tree.export, permitted=permitted) as wire:
            await wire.ask(sftp.lstat, b"/")
            assert await wire.code(sftp.stat, b"/") == sftp.FX_PERMISSION_DENIED
    told = [(fields["operation"], fields.get("result")) for fields in lines(file.read_bytes())]
    assert told == [("session", None), ("stat", "permission-denied"), ("end", None)]


async def test_events_of_transfers(
    tree: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []

    async def deliver(event: Event) -> None:
        told.append(event)

    queue = EventQueue("test", EVERY_KIND, deliver, parallel=1, queue_max=100)
    monkeypatch.setattr("syspuffs.gateway.audit.hooks.queue_of", lambda hook: queue)
    hooks = EventSettings((None,))  # type: ignore[arg-type]
    async with recording(None, hooks, clock=lambda: 10**9) as recorder:
        async with recorded(recorder, tree.export) as wire:
            await wire.put(b"/f", b"data")
            await wire.get(b"/f")
            handle = await wire.open(b"/f", sftp.FXF_WRITE)
            await wire.write(handle, 0, b"x")

            async def fails(op: str, args: tuple[Any, ...]) -> None:
                if op == "write":
                    raise VfsError(ENOSPC)

            tree.counting.before = fails
            assert await wire.code(sftp.write, handle, 1, 1, payload=b"y") == sftp.FX_FAILURE
            tree.counting.before = None
            await wire.ask(sftp.close, handle)
            await wire.ask(sftp.mkdir, b"/d")
            await wire.ask(sftp.posix_rename, b"/f", b"/d/../g")
            await wire.ask(sftp.remove, b"/g")
            await wire.ask(sftp.rmdir, b"/d")
            assert await wire.code(sftp.remove, b"/g") == sftp.FX_NO_SUCH_FILE
            await wire.put(b"/h", b"")
            handle = await wire.open(b"/h", MAKE)
            await wire.write(handle, 0, b"half")
    shown = [(e.kind.value, e.path, e.target, e.octets, e.is_complete) for e in told]
    assert shown == [
        ("upload", b"/f", None, 4, True),
        ("download", b"/f", None, 4, True),
        ("upload", b"/f", None, 1, False),
        ("rename", b"/f", b"/d/../g", None, None),
        ("delete", b"/g", None, None, None),
        ("delete", b"/d", None, None, None),
        ("upload", b"/h", None, 0, True),
        ("upload", b"/h", None, 4, False),
    ]
    assert queue.statistics() == (8, 0, 0)


async def test_nobody_listens(tree: Served) -> None:
    async with recording() as recorder:
        assert recorder.journal(WHO, View(tree.export, SELF)) is None
        async with recorded(recorder, tree.export) as wire:
            await wire.put(b"/f", b"data")
        recorder.login("accepted")
        recorder.reopen()


def test_paths_and_times_as_text() -> None:
    for path, start, absolute in (
        (b"f", b"", b"/f"),
        (b"f", b"/home/a", b"/home/a/f"),
        (b"/a//b/./c/", b"/x", b"/a/b/c"),
        (b"../f", b"/home", b"/home/../f"),
        (b"", b"", b"/"),
        (b".", b"/home", b"/home"),
    ):
        assert normal(path, start) == absolute
    assert path_fields("path", "ä".encode()) == {"path": "ä"}
    assert path_fields("path", b"\xe4") == {"path": "�", "path_octets": "e4"}
    assert len(path_fields("path", b"a" * 10**6)["path"]) == 4096
    assert line({"path": 'a"\n\x7fü\u2028'}) == b'{"path":"a\\"\\n\\u007f\\u00fc\\u2028"}\n'
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1e9 + 0.25) == "2001-09-09T01:46:40.250000Z"
