"""The command line of ssh, and what its last words mean."""

from __future__ import annotations

import pytest

from syspuffs.layers.psshfs.ssh.command import StderrReader, build_ssh_argv, split_command
from syspuffs.layers.psshfs.ssh.failure import Cause, ConnectError
from syspuffs.layers.psshfs.ssh.target import parse_target


def build(target: str, **kwargs: object) -> str:
    argv = build_ssh_argv(parse_target(target), ["ssh", "-v"], **kwargs)  # type: ignore[arg-type]
    return " ".join(argv[argv.index("ssh") :])


def test_command_line() -> None:
    line = build("me@[::1]:/x", port=7, config_file="f", options=["A=b", "C d"], compression=True)
    assert line.startswith("ssh -v -l me -p7 -F f -C -o A=b -o C d -oClearAllForwardings=yes ")
    assert line.endswith(" -a -x -s -- ::1 sftp")
    assert "-oConnectTimeout=30 -oServerAliveInterval=7 -oServerAliveCountMax=3" in line
    assert "Ciphers" not in line
    assert "-oCiphers=a,b" in build("host:", ciphers="a,b")
    assert "Ciphers" not in build(
        "host:", ciphers="a,b", is_set=lambda keyword: keyword == "Ciphers"
    )
    assert "Alive" not in build("host:", is_set=lambda keyword: keyword == "ServerAliveInterval")


@pytest.mark.parametrize("text", ["", "  ", "ssh 'x"])
def test_command_that_is_none(text: str) -> None:
    with pytest.raises(ConnectError, match="ssh_command") as caught:
        split_command("ssh_command", text)
    assert caught.value.kind is Cause.BAD_CONFIG


@pytest.mark.parametrize(
    ("words", "status", "cause"),
    [
        ("ssh: Could not resolve hostname x: Name or service not known", 255, Cause.UNKNOWN_HOST),
        ("ssh: connect to host x port 22: Connection refused", 255, Cause.REFUSED),
        ("ssh: connect to host x port 22: No route to host", 255, Cause.UNREACHABLE),
        ("ssh: connect to host x port 22: Connection timed out", 255, Cause.UNREACHABLE),
        (
            "No ED25519 host key is known for x\nHost key verification failed.",
            255,
            Cause.UNKNOWN_HOST_KEY,
        ),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending RSA key in f:1\n"
            "Host key verification failed.",
            255,
            Cause.CHANGED_HOST_KEY,
        ),
        ("me@x: Permission denied (publickey,password).", 255, Cause.AUTHENTICATION),
        ("subsystem request failed on channel 0", 255, Cause.NO_SUBSYSTEM),
        ("command-line: line 0: Bad configuration option: foo", 255, Cause.BAD_CONFIG),
        (
            "ssh: connect to host hop port 22: Connection refused\n"
            "kex_exchange_identification: Connection closed by remote host\n"
            "Connection closed by UNKNOWN port 65535",
            255,
            Cause.PROXY,
        ),
        ("banner exchange: Connection to UNKNOWN port 65535: Broken pipe", 255, Cause.PROXY),
        ("banner exchange: Connection to UNKNOWN port 65535: invalid format", 255, Cause.PROTOCOL),
        ("banner exchange: Connection to 10.0.0.1 port 22: Broken pipe", 255, Cause.PROTOCOL),
        ("kex_exchange_identification: Connection closed by remote host", 255, Cause.PROTOCOL),
        ("Unable to negotiate with x: no matching cipher found.", 255, Cause.PROTOCOL),
        ("sh: 1: exec: nossh: not found", 127, Cause.NOT_FOUND),
        ("", 127, Cause.NO_SUBSYSTEM),
        ("", 255, Cause.DIED),
        ("", -9, Cause.DIED),
    ],
)
def test_last_words(words: str, status: int, cause: Cause) -> None:
    reader = StderrReader()
    reader.feed(words.encode())
    reader.finish()
    error = reader.explain("ssh", "x", status, started=False)
    assert error.kind is cause
    assert "\n" not in error.message
    assert reader.explain("ssh", "x", 255, started=True).kind is Cause.DIED


def test_what_is_shown() -> None:
    """Warnings are shown as they come; what ends in our own message is not shown twice."""
    reader = StderrReader()
    assert reader.feed(b"Warning: some") == b""
    assert reader.feed(b"thing\nPermission denied, please try again.\n") == (
        b"Warning: something\nPermission denied, please try again.\n"
    )
    assert reader.feed(b"me@x: Permission denied (password).\r\n") == b""
    assert reader.feed(b"bye") == b""
    assert reader.finish() == b"bye\n"
