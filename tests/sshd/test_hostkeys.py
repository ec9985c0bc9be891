"""Host keys: read from files, or made once and kept."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from syspuffs.gateway.sftpd.hostkeys import MADE, HostKeyError, load_host_keys

from ..support.sshd import find_program, make_key


def fingerprint(path: Path) -> str:
    shown = subprocess.run(
        [find_program("ssh-keygen"), "-l", "-f", str(path)], check=True, capture_output=True
    )
    return shown.stdout.decode().split()[1]


def test_made_once(tmp_path: Path) -> None:
    state = tmp_path / "some" / "state"
    (key,) = load_host_keys([], state)
    assert (key.type, key.path) == ("ssh-ed25519", state / MADE)
    assert key.fingerprint == fingerprint(key.path)
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert load_host_keys([], state) == [key]
    assert [path.name for path in state.iterdir()] == [MADE]
    assert "private" not in repr(key)


def test_given(tmp_path: Path, keys: Path) -> None:
    ecdsa = make_key(tmp_path / "ecdsa", "ecdsa")
    loaded = load_host_keys([keys / "alice", keys / "rsa", ecdsa], tmp_path / "state")
    assert [key.type for key in loaded] == ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"]
    assert [key.fingerprint for key in loaded] == [fingerprint(key.path) for key in loaded]
    assert not (tmp_path / "state").exists()


def test_wrong(tmp_path: Path, keys: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_bytes((keys / "alice").read_bytes())
    bare.chmod(0o640)
    text = tmp_path / "text"
    text.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nxxxx\n")
    text.chmod(0o600)
    for files, reason in (
        ([bare], r"mode 640\); chmod 600"),
        ([text], "no private key"),
        ([keys / "alice.pub"], "others can read it"),
        ([tmp_path / "none"], "No such file"),
        ([tmp_path], "directory"),
        ([make_key(tmp_path / "locked", passphrase="x")], "passphrase"),
        ([keys / "alice", keys / "bob"], "both ssh-ed25519"),
    ):
        with pytest.raises(HostKeyError, match=reason) as caught:
            load_host_keys(files, tmp_path / "state")
        assert str(files[0]) in str(caught.value)
    with pytest.raises(HostKeyError, match="cannot keep a host key"):
        load_host_keys([], bare / "state")
