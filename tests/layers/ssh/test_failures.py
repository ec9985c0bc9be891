"""Failures told apart: each its own cause and one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from syspuffs.layers.psshfs.ssh.stream import Cause, SshOptions

from ...support.sshd import Sshd
from .harness import fail_stream, other_server, plain, words

pytestmark = pytest.mark.sshd

COMMANDS = (None, "ssh")


@pytest.mark.parametrize("command", COMMANDS)
async def test_unknown_host(command: str | None) -> None:
    options = SshOptions(config_file="none", ssh_command=command, options=("BatchMode=yes",))
    error = await fail_stream("nonexistent.invalid:", options)
    assert error.kind is Cause.UNKNOWN_HOST
    assert "nonexistent.invalid" in error.message


@pytest.mark.parametrize("command", COMMANDS)
async def test_refused(command: str | None) -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    await listener[0].aclose()
    options = SshOptions(config_file="none", ssh_command=command, port=port)
    error = await fail_stream("127.0.0.1:", options)
    assert error.kind is Cause.REFUSED
    assert f"port {port}" in error.message


@pytest.mark.parametrize("command", COMMANDS)
async def test_no_answer(command: str | None, tmp_path: Path) -> None:
    with other_server("mute", tmp_path) as options:
        error = await fail_stream(
            "127.0.0.1:", plain(("ConnectTimeout=1", *options), ssh_command=command)
        )
    assert error.kind is Cause.UNREACHABLE


async def test_no_ssh_server(tmp_path: Path) -> None:
    with other_server("babble", tmp_path) as options:
        error = await fail_stream("127.0.0.1:", plain(("ConnectTimeout=5", *options)))
    assert error.kind is Cause.PROTOCOL


async def test_no_common_algorithm(sshd: Sshd) -> None:
    only = "Ciphers=3des-cbc"
    error = await fail_stream(f"{sshd.host}:", plain(words(sshd, only)))
    assert error.kind is Cause.PROTOCOL
    error = await fail_stream(f"{sshd.host}:", plain(words(sshd, only), ssh_command="ssh"))
    assert error.kind is Cause.PROTOCOL


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("subsystem", [None, "/nonexistent/sftp-server"])
async def test_no_subsystem(command: str | None, subsystem: str | None, tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", subsystem=subsystem) as sshd:
        error = await fail_stream(f"{sshd.host}:", plain(sshd.options, ssh_command=command))
    assert error.kind is Cause.NO_SUBSYSTEM
    assert "sftp subsystem" in error.message


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["Compresion=yes", "BatchMode=perhaps", "Port=99999"])
async def test_bad_option(command: str | None, option: str, sshd: Sshd) -> None:
    error = await fail_stream(f"{sshd.host}:", plain(words(sshd, option), ssh_command=command))
    assert error.kind is Cause.BAD_CONFIG
    assert any(word in error.message.lower() for word in option.lower().split("="))


@pytest.mark.parametrize("command", COMMANDS)
async def test_bad_file(command: str | None, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    error = await fail_stream("x:", SshOptions(config_file=str(missing), ssh_command=command))
    assert error.kind is Cause.BAD_CONFIG
    assert str(missing) in error.message
