"""What puffs_sftpd tells others: the audit, events, figures."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ..support.mounts import wait_until
from ..support.sftpd import PATIENCE, Daemon, user

pytestmark = [pytest.mark.sshd, pytest.mark.slow]


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects in a file of lines."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_audit_says_who_did_what(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    with Daemon(tmp_path / "d", user("alice"), top="audit = {to = '../audit'}") as daemon:
        daemon.sftp("alice", "put keys a", "rename a b", "get b", "rm b", "-rm /nowhere")
        daemon.sftp("mallory", "pwd", status=255)
        assert wait_until(lambda: len(lines(audit)) >= 10, PATIENCE)
        audit.rename(tmp_path / "moved")
        daemon.signal(signal.SIGHUP)
        daemon.wait_said("INFO: reloaded")
        daemon.sftp("alice", "mkdir later")
    said = lines(tmp_path / "moved")
    accepted, *_ = [one for one in said if one["operation"] == "login"]
    assert accepted["result"] == "accepted"
    assert accepted["account"] == "alice"
    assert accepted["fingerprint"].startswith("SHA256:")
    assert any(one["operation"] == "login" and one["result"] == "failed" for one in said)
    session = [one for one in said if "session" in one]
    assert len({one["session"] for one in session}) == 1
    assert {one["account"] for one in session} == {"alice"}
    assert all(one["source"].startswith("127.0.0.1:") for one in session)
    size = (daemon.directory / "keys").stat().st_size
    done = {(one["operation"], one.get("path"), one.get("result")) for one in session}
    assert ("remove", "/nowhere", "no-such-file") in done
    closed = [one for one in session if one["operation"] == "close"]
    assert [(one["path"], one["octets_written"], one["octets_read"]) for one in closed] == [
        ("/a", size, 0),
        ("/b", 0, size),
    ]
    assert [one["path"] for one in lines(audit) if one["operation"] == "mkdir"] == ["/later"]


def test_events_and_figures(tmp_path: Path) -> None:
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\nread -r line\necho "$line" >>{told}\n')
    hook.chmod(0o755)
    top = f"""
        metrics = {{listen = "127.0.0.1:0"}}
        events = [{{command = ["{hook}"], on = ["upload", "delete"], parallel = 1}}]
    """
    with Daemon(tmp_path / "d", user("alice", "quota.bytes = '1M'"), top=top) as daemon:
        daemon.sftp("alice", "put keys a", "get a", "rm a", "put keys b")
        assert wait_until(lambda: len(lines(told)) == 3, PATIENCE)
        size = (daemon.directory / "keys").stat().st_size
        found = [(one["event"], one["path"], one.get("octets")) for one in lines(told)]
        assert found == [("upload", "/a", size), ("delete", "/a", None), ("upload", "/b", size)]
        said = daemon.said()
        url = said[said.index("http://127.0.0.1:") :].split()[0]
        with urllib.request.urlopen(url, timeout=PATIENCE) as page:
            figures = page.read().decode()
        assert 'syspuffs_sessions_begun_total{account="alice"} 1.0' in figures
        assert f'syspuffs_quota_octets{{account="alice"}} {float(size)}' in figures
        assert 'syspuffs_requests_total{request="remove"} 1.0' in figures
        assert 'syspuffs_logins_total{result="accepted"} 1.0' in figures
