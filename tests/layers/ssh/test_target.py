"""`[user@]host:[path]` and what is none."""

from __future__ import annotations

import pytest

from syspuffs.layers.psshfs.ssh.target import Target, TargetError, parse_target


@pytest.mark.parametrize(
    ("text", "user", "host", "path"),
    [
        ("host:", None, "host", b""),
        ("host", None, "host", b""),
        ("host:/pub", None, "host", b"/pub"),
        ("user@host:", "user", "host", b""),
        ("user@host", "user", "host", b""),
        ("user@host:dir/sub", "user", "host", b"dir/sub"),
        ("host:/a,b:c@d", None, "host", b"/a,b:c@d"),
        ("user@mail.org@host:/x", "user@mail.org", "host", b"/x"),
        ("DOMAIN\\user@host:", "DOMAIN\\user", "host", b""),
        ("[::1]:/x", None, "::1", b"/x"),
        ("user@[fe80::1%eth0]:x:y", "user", "fe80::1%eth0", b"x:y"),
        ("[::1]", None, "::1", b""),
        ("host:[x]", None, "host", b"[x]"),
        ("host:a\nb", None, "host", b"a\nb"),
        ("host:\udcff", None, "host", b"\xff"),
    ],
)
def test_remote(text: str, user: str | None, host: str, path: bytes) -> None:
    target = parse_target(text)
    assert target == Target(user, host, path)
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no host"),
        (":/pub", "no host"),
        ("/pub", "no host"),
        ("@host:", "no user"),
        ("user@:", "no host"),
        ("-oProxyCommand=x:/", "begins with '-'"),
        ("-l@host:", "begins with '-'"),
        ("ho st:/", "character"),
        ("$(id):/", "character"),
        ("us;er@host:/", "character"),
        ("host\n:/", "character"),
        ("[::1:/x", "without ']'"),
        ("[::1]x:/", "':' expected"),
        ("[]:/x", "needs an address"),
        ("host:/a\0b", "NUL"),
        ("::1:/pub", "in brackets"),
        ("sftp://me@host/pub", "use [user@]host:[path]"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(TargetError, match="bad target") as caught:
        parse_target(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("/pub", "", b"/pub"),
        ("./pub:x", "", b"./pub:x"),
        ("../pub", "", b"../pub"),
        ("/a:b", "", b"/a:b"),
        ("pub", "", b"pub"),
        (":/pub", "", b"/pub"),
        (":", "", b""),
        ("localhost:/pub", "localhost", b"/pub"),
        ("", "", b""),
    ],
)
def test_local(text: str, host: str, path: bytes) -> None:
    target = parse_target(text, local=True)
    assert target == Target(None, host, path)
    assert target.is_local


def test_login_is_what_ssh_takes() -> None:
    assert parse_target("user@[::1]:/x").login == "user@::1"
    assert parse_target("host:").login == "host"
