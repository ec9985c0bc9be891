"""Lines of authorized_keys files: what each option does, and that none is passed over."""

from __future__ import annotations

import base64
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syspuffs.gateway.sshd.keyline import BadLine, KeyLine, matches, parse_line

from .harness import public

HERE = ip_address("192.0.2.7")


@pytest.fixture
def key(alice: Path) -> str:
    return public(alice)


def parsed(text: str) -> KeyLine:
    line = parse_line(text)
    assert line is not None
    return line


def test_plain_line(key: str) -> None:
    line = parsed(f"  {key}\r\n")
    assert (line.type, line.comment) == ("ssh-ed25519", "alice@test")
    assert line.blob == base64.b64decode(key.split()[1])
    assert line.refusal(HERE, 0) == ""


@pytest.mark.parametrize("text", ["", "   ", "# ssh-ed25519 AAAA", "\t#"])
def test_no_line(text: str) -> None:
    assert parse_line(text) is None


@pytest.mark.parametrize(
    "options",
    [
        "restrict",
        "RESTRICT,no-pty",
        "no-port-forwarding,no-X11-forwarding,no-agent-forwarding,no-pty,no-user-rc",
        'restrict,pty,permitopen="a:1",permitopen="b:2",permitlisten="1"',
        'environment="A=b, c d",tunnel="0"',
    ],
)
def test_options_without_effect(key: str, options: str) -> None:
    assert parsed(f"{options} {key}") == parsed(key)


@pytest.mark.parametrize(
    "options",
    [
        "no-such-option",
        'no-such-option="x"',
        "verify-required",
        "from",
        "command",
        'restrict="x"',
        "permitopen",
        'from="192.0.2.0/24",from="10.0.0.0/8"',
        'command="internal-sftp",command="internal-sftp"',
        'command="/bin/sh"',
        'command=""',
        'command="internal-sftp -p read"',
        'command="internal-sftp -P write"',
        'command="internal-sftp -u 077"',
        'command="internal-sftp -d"',
        'command="internal-sftp -d %u"',
        'command="internal-sftp; rm -r /"',
        'command="internal-sftp \'"',
        'from=""',
        'from="192.0.2.0/33"',
        'from="192.0.2.1/24"',
        'from="192.0.2.7,!evil.example.org"',
        'expiry-time="tomorrow"',
        'expiry-time="20301301"',
        'principals="alice"',
        'from="192.0.2.7',
        "restrict,,no-pty",
        "restrict ,no-pty",
    ],
)
def test_refused_options(key: str, options: str) -> None:
    with pytest.raises(BadLine):
        parse_line(f"{options} {key}")


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
        "ssh-dss AAAAB3NzaC1kc3M=",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        "ssh-ed25519-cert-v01@openssh.com AAAA",
        'restrict "',
        "x" * 20000,
    ],
)
def test_no_key(text: str) -> None:
    with pytest.raises(BadLine):
        parse_line(text)


def test_small_rsa_key() -> None:
    blob = b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (b"ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 128)
    )
    with pytest.raises(BadLine, match="1024 bits"):
        parse_line(f"ssh-rsa {base64.b64encode(blob).decode()}")


def test_command(key: str) -> None:
    line = parsed(f'command="internal-sftp -R -l INFO -f AUTH -e" {key}')
    assert line.is_read_only is True
    assert line.start is None
    line = parsed(f"command=\"internal-sftp -d '/in/some where'\" {key}")
    assert (line.is_read_only, line.start) == (False, b"/in/some where")


def test_expiry(key: str) -> None:
    line = parsed(f'expiry-time="20200102030405Z" {key}')
    assert line.expires == 1577934245
    assert line.refusal(HERE, 1577934244) == ""
    assert line.refusal(HERE, 1577934245) == "it has expired"
    assert parsed(f'expiry-time="20200102Z" {key}').expires == 1577923200
    assert parsed(f'expiry-time="202001020304Z" {key}').expires == 1577934240
    local = parsed(f'expiry-time="202001020304" {key}').expires
    assert local is not None
    assert abs(local - 1577934240) <= 14 * 3600


@pytest.mark.parametrize(
    ("patterns", "address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.70", False),
        ("192.0.2.*", "192.0.2.70", True),
        ("192.0.2.?", "192.0.2.70", False),
        ("192.0.2.0/24", "192.0.2.70", True),
        ("192.0.2.0/24,!192.0.2.7", "192.0.2.7", False),
        ("!192.0.2.7,192.0.2.0/24", "192.0.2.7", False),
        ("!192.0.2.7", "192.0.2.8", False),
        ("*,!10.*", "192.0.2.8", True),
        ("*.example.org", "192.0.2.8", False),
        ("2001:DB8::/32", "2001:db8::1", True),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("192.0.2.0/24", "2001:db8::1", False),
        ("[0-9]*", "192.0.2.7", False),
    ],
)
def test_sources(patterns: str, address: str, expected: bool, key: str) -> None:
    source = ip_address(address)
    assert matches(patterns, source) is expected
    line = parsed(f'from="{patterns}" {key}')
    assert (line.refusal(source, 0) == "") is expected


def test_authority(key: str) -> None:
    line = parsed(f'cert-authority,principals="alice,,bob" {key}')
    assert (line.is_authority, line.principals) == (True, ("alice", "bob"))


@given(st.text(alphabet='abc=",\\ -#\t!/.0[]restictcommand', max_size=60))
def test_anything(text: str) -> None:
    key = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
    for line in (text, f"{text} {key}"):
        try:
            parse_line(line)
        except BadLine:
            pass
