"""Host keys: every mode of StrictHostKeyChecking against known, unknown and changed keys."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import asyncssh
import pytest

from syspuffs.layers.psshfs.ssh.hostkeys import add_key, find_keys, hash_name
from syspuffs.layers.psshfs.ssh.stream import Cause, SshOptions

from ...support.sshd import Sshd, find_program, make_key
from .harness import Person, fail_stream, try_stream

pytestmark = pytest.mark.sshd


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "dot-ssh" / "known"


def options(sshd: Sshd, known: Path, mode: str, *more: str, batch: bool = True) -> SshOptions:
    words = (
        *more,
        f"BatchMode={'yes' if batch else 'no'}",
        f"StrictHostKeyChecking={mode}",
        f"UserKnownHostsFile={known}",
        *sshd.options,
    )
    return SshOptions(config_file="none", options=words)


def name(sshd: Sshd) -> str:
    return f"[{sshd.host}]:{sshd.port}"


def write(known: Path, text: str) -> None:
    known.parent.mkdir(mode=0o700, exist_ok=True)
    known.write_text(text)


def other_key(tmp_path: Path) -> str:
    path = make_key(tmp_path / "other")
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@pytest.mark.parametrize("mode", ["yes", "ask", "accept-new", "no"])
async def test_known(mode: str, sshd: Sshd, known: Path) -> None:
    write(known, f"{name(sshd)} {sshd.public_host_key()}\n")
    before = known.read_bytes()
    assert "ED25519 SHA256:" in await try_stream(f"{sshd.host}:", options(sshd, known, mode))
    assert known.read_bytes() == before


@pytest.mark.parametrize("mode", ["yes", "ask"])
async def test_unknown_is_refused(mode: str, sshd: Sshd, known: Path) -> None:
    error = await fail_stream(f"{sshd.host}:", options(sshd, known, mode))
    assert error.kind is Cause.UNKNOWN_HOST_KEY
    assert name(sshd) in error.message
    assert "SHA256:" in error.message
    assert "accept-new" in error.message
    assert not known.exists()


@pytest.mark.parametrize("mode", ["accept-new", "no"])
async def test_unknown_is_added(mode: str, sshd: Sshd, known: Path) -> None:
    await try_stream(f"{sshd.host}:", options(sshd, known, mode))
    assert known.read_text() == f"{name(sshd)} {sshd.public_host_key()}\n"
    assert stat.S_IMODE(known.stat().st_mode) == 0o600
    assert stat.S_IMODE(known.parent.stat().st_mode) == 0o700
    # And ssh agrees with what was written.
    check = await try_stream(
        f"{sshd.host}:",
        SshOptions(
            config_file="none",
            options=options(sshd, known, "yes").options,
            ssh_command="ssh",
        ),
    )
    assert check


@pytest.mark.parametrize("mode", ["yes", "ask", "accept-new"])
async def test_changed_is_refused(mode: str, sshd: Sshd, known: Path, tmp_path: Path) -> None:
    write(known, f"# a comment\n{name(sshd)} {other_key(tmp_path)}\n")
    error = await fail_stream(f"{sshd.host}:", options(sshd, known, mode))
    assert error.kind is Cause.CHANGED_HOST_KEY
    assert f"{known} line 2" in error.message
    assert "ssh-keygen -R" in error.message


async def test_changed_is_let_through_by_no(sshd: Sshd, known: Path, tmp_path: Path) -> None:
    line = f"{name(sshd)} {other_key(tmp_path)}\n"
    write(known, line)
    await try_stream(f"{sshd.host}:", options(sshd, known, "no"))
    assert known.read_text() == line


async def test_ssh_tells_the_same_apart(sshd: Sshd, known: Path, tmp_path: Path) -> None:
    words = options(sshd, known, "yes").options
    ssh = SshOptions(config_file="none", options=words, ssh_command="ssh")
    assert (await fail_stream(f"{sshd.host}:", ssh)).kind is Cause.UNKNOWN_HOST_KEY
    write(known, f"{name(sshd)} {other_key(tmp_path)}\n")
    assert (await fail_stream(f"{sshd.host}:", ssh)).kind is Cause.CHANGED_HOST_KEY


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_known_kind_is_asked_for(kind: str, sshd: Sshd, known: Path) -> None:
    """The server has three keys; the one that we know is as good as any."""
    write(known, f"{name(sshd)} {sshd.public_host_key(kind)}\n")
    text = await try_stream(f"{sshd.host}:", options(sshd, known, "yes"))
    assert f"host key {kind.upper()} " in text


async def test_hashed_names(sshd: Sshd, known: Path) -> None:
    await try_stream(f"{sshd.host}:", options(sshd, known, "accept-new", "HashKnownHosts=yes"))
    text = known.read_text()
    assert text.startswith("|1|")
    assert sshd.host not in text
    await try_stream(f"{sshd.host}:", options(sshd, known, "yes"))
    found = subprocess.run(
        [find_program("ssh-keygen"), "-F", name(sshd), "-f", str(known)], capture_output=True
    )
    assert found.returncode == 0


async def test_alias(sshd: Sshd, known: Path) -> None:
    write(known, f"friend {sshd.public_host_key()}\n")
    alias = options(sshd, known, "yes", "HostKeyAlias=friend")
    await try_stream(f"{sshd.host}:", alias)
    error = await fail_stream(f"{sshd.host}:", options(sshd, known, "yes", "HostKeyAlias=foe"))
    assert error.kind is Cause.UNKNOWN_HOST_KEY


async def test_name_without_port(sshd: Sshd, known: Path, tmp_path: Path) -> None:
    """Known without its port is known; another key there says nothing about this port."""
    write(known, f"{sshd.host} {sshd.public_host_key()}\n")
    await try_stream(f"{sshd.host}:", options(sshd, known, "yes"))
    write(known, f"{sshd.host} {other_key(tmp_path)}\n")
    error = await fail_stream(f"{sshd.host}:", options(sshd, known, "yes"))
    assert error.kind is Cause.UNKNOWN_HOST_KEY


async def test_revoked(sshd: Sshd, known: Path, tmp_path: Path) -> None:
    key = sshd.public_host_key()
    write(known, f"{name(sshd)} {key}\n@revoked * {key}\n")
    error = await fail_stream(f"{sshd.host}:", options(sshd, known, "no"))
    assert error.kind is Cause.CHANGED_HOST_KEY
    assert "revoked" in error.message
    assert "line 2" in error.message
    write(known, f"{name(sshd)} {key}\n")
    revoked = tmp_path / "revoked"
    revoked.write_text(f"{key} comment\n")
    by_file = options(sshd, known, "yes", f"RevokedHostKeys={revoked}")
    assert (await fail_stream(f"{sshd.host}:", by_file)).kind is Cause.CHANGED_HOST_KEY
    revoked.write_text("")
    await try_stream(f"{sshd.host}:", by_file)
    revoked.write_bytes(b"SSHKRL\n\0binary")
    assert (await fail_stream(f"{sshd.host}:", by_file)).kind is Cause.BAD_CONFIG
    revoked.unlink()
    assert (await fail_stream(f"{sshd.host}:", by_file)).kind is Cause.BAD_CONFIG


async def test_certified_host(tmp_path: Path) -> None:
    """A host that shows a certificate: trusted by its authority, else by its plain key."""
    directory = tmp_path / "sshd"
    directory.mkdir()
    authority = make_key(tmp_path / "authority")
    key = make_key(directory / "host_ed25519")
    sign = [find_program("ssh-keygen"), "-q", "-s", str(authority), "-I", "x", "-h"]
    subprocess.run([*sign, "-n", "127.0.0.1", f"{key}.pub"], check=True)
    make_key(directory / "identity")
    (directory / "authorized_keys").write_text((directory / "identity.pub").read_text())
    known = tmp_path / "known"
    with Sshd(directory, lines=(f"HostCertificate {key}-cert.pub",)) as sshd:
        line = Path(f"{authority}.pub").read_text()
        known.write_text(f"@cert-authority * {line}")
        await try_stream(f"{sshd.host}:", options(sshd, known, "yes"))
        known.write_text(f"{name(sshd)} {sshd.public_host_key()}\n")
        await try_stream(f"{sshd.host}:", options(sshd, known, "yes"))
        known.write_text(f"@cert-authority * {line}@revoked * {line}")
        error = await fail_stream(f"{sshd.host}:", options(sshd, known, "yes"))
        assert error.kind in (Cause.UNKNOWN_HOST_KEY, Cause.CHANGED_HOST_KEY)


@pytest.mark.parametrize("answer", ["yes", "fingerprint", "no"])
def test_person_is_asked(answer: str, sshd: Sshd, known: Path) -> None:
    key = asyncssh.read_public_key(sshd.host_keys["ed25519"].with_suffix(".pub"))
    words = options(sshd, known, "ask", batch=False).options
    with Person(f"{sshd.host}:", options=tuple(words)) as person:
        person.wait_for(key.get_fingerprint())
        person.wait_for("yes/no")
        person.wait_for("? ")
        assert person.echoes()
        person.type("perhaps")
        person.wait_for("Please type")
        person.wait_for(": ")
        person.type(key.get_fingerprint() if answer == "fingerprint" else answer)
        outcome = person.outcome()
    if answer in ("yes", "fingerprint"):
        assert "ok" in outcome
        assert known.read_text() == f"{name(sshd)} {sshd.public_host_key()}\n"
    else:
        assert outcome["kind"] == "UNKNOWN_HOST_KEY"
        assert not known.exists()


def test_file_is_read_line_by_line(tmp_path: Path) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(4)]
    lines = [key.export_public_key().decode().strip() for key in keys]
    file = tmp_path / "known"
    file.write_text(
        f"nonsense\nhost\n@what host {lines[0]}\nhost ssh-ed25519 AAAA\n|1|x|y {lines[0]}\n"
        f"other,HOST {lines[0]}\n*.org,!x.org {lines[1]}\n{hash_name('host')} {lines[2]}\n"
        f"@cert-authority h?st {lines[3]}\n"
    )
    found = find_keys([str(tmp_path / "missing"), str(file)], ["host"])
    assert [(entry.line, entry.marker) for entry in found] == [
        (6, ""),
        (8, ""),
        (9, "@cert-authority"),
    ]
    assert [entry.line for entry in find_keys([str(file)], ["y.org"])] == [7]
    assert find_keys([str(file)], ["x.org"]) == []


def test_added_line_stands_alone(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    file = tmp_path / "known"
    file.write_text("# no end of line")
    add_key(str(file), "host", key)
    assert len(file.read_text().splitlines()) == 2
    assert [entry.line for entry in find_keys([str(file)], ["host"])] == [2]
    os.chmod(file, 0o400)
