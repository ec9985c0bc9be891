"""Logging in: keys, agent, passwords, questions, configuration, jump hosts."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syspuffs.layers.psshfs.ssh.stream import Cause, SshOptions

from ...support.sshd import Sshd, find_program, list_descendants, make_key
from .harness import Person, fail_stream, other_server, plain, try_stream, words

pytestmark = pytest.mark.sshd


def allow(sshd: Sshd, key: Path) -> None:
    """Let the owner of `key` log in."""
    with sshd.authorized_keys.open("a") as file:
        file.write(Path(f"{key}.pub").read_text())


async def test_default_key_and_home_configuration(sshd: Sshd, home: Path) -> None:
    """~/.ssh with config, known_hosts and id_ed25519 is all that a user needs."""
    directory = home / ".ssh"
    directory.mkdir(mode=0o700)
    shutil.copy(sshd.identity, directory / "id_ed25519")
    (directory / "known_hosts").write_text(sshd.known_hosts.read_text())
    (directory / "config").write_text(
        f"Host nick\n  HostName {sshd.host}\n  Port {sshd.port}\n"
        "Host *\n  IdentityAgent none\n  BatchMode yes\n"
    )
    (directory / "config").chmod(0o600)
    text = await try_stream("nick:", SshOptions())
    assert f"{sshd.user}@{sshd.host} port {sshd.port}" in text


async def test_file_of_options(sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("".join(f"{o.replace('=', ' ', 1)}\n" for o in sshd.options))
    await try_stream(f"{sshd.host}:", SshOptions(config_file=str(file)))
    await try_stream(f"{sshd.host}:", SshOptions(config_file=str(file), ssh_command="ssh"))


async def test_user_and_port_of_target_and_options(sshd: Sshd) -> None:
    rest = words(sshd, without=("User", "Port"))
    target = f"{sshd.user}@{sshd.host}:"
    await try_stream(target, plain((*rest, "User=wrong"), port=sshd.port))
    await try_stream(target, plain((*rest, "User=wrong"), port=sshd.port, ssh_command="ssh"))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
async def test_kinds_of_keys(kind: str, sshd: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key", kind)
    allow(sshd, key)
    await try_stream(
        f"{sshd.host}:", plain(words(sshd, f"IdentityFile={key}", without=("IdentityFile",)))
    )


async def test_second_key_counts_too(sshd: Sshd, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    await try_stream(f"{sshd.host}:", plain(words(sshd, f"IdentityFile={stranger}")))


async def test_stranger(sshd: Sshd, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    options = words(sshd, f"IdentityFile={stranger}", without=("IdentityFile",))
    for command in (None, "ssh"):
        error = await fail_stream(f"{sshd.host}:", plain(options, ssh_command=command))
        assert error.kind is Cause.AUTHENTICATION
        assert sshd.host in error.message


async def test_certificate(sshd: Sshd, tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "key")
    with sshd.authorized_keys.open("a") as file:
        file.write(f"cert-authority {Path(f'{authority}.pub').read_text()}")
    sign = [find_program("ssh-keygen"), "-q", "-s", str(authority), "-I", "x", "-n", sshd.user]
    subprocess.run([*sign, f"{key}.pub"], check=True)
    options = words(sshd, f"IdentityFile={key}", without=("IdentityFile",))
    await try_stream(f"{sshd.host}:", plain(options))
    moved = tmp_path / "elsewhere"
    Path(f"{key}-cert.pub").rename(moved)
    assert (await fail_stream(f"{sshd.host}:", plain(options))).kind is Cause.AUTHENTICATION
    await try_stream(f"{sshd.host}:", plain((f"CertificateFile={moved}", *options)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [("no key at all\n", "key"), (None, "no such file"), ("open", "chmod 600")],
)
async def test_bad_key_file(text: str | None, problem: str, sshd: Sshd, tmp_path: Path) -> None:
    key = tmp_path / "key"
    if text is not None:
        key.write_text(sshd.identity.read_text() if text == "open" else text)
        key.chmod(0o644 if text == "open" else 0o600)
    error = await fail_stream(
        f"{sshd.host}:", plain(words(sshd, f"IdentityFile={key}", without=("IdentityFile",)))
    )
    assert error.kind is Cause.BAD_CONFIG
    assert problem in error.message
    assert str(key) in error.message


# Agent


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run an agent with one key and give that key's file, which is gone."""
    key = make_key(tmp_path / "agent_key")
    path = tmp_path / "agent"
    with subprocess.Popen(
        [find_program("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run([find_program("ssh-add"), "-q", str(key)], check=True)
        key.unlink()
        try:
            yield key
        finally:
            process.kill()


async def test_agent(agent: Path, sshd: Sshd) -> None:
    allow(sshd, agent)
    mine = ("IdentityAgent", "IdentityFile", "IdentitiesOnly")
    await try_stream(f"{sshd.host}:", plain(words(sshd, without=mine)))
    path = os.environ["SSH_AUTH_SOCK"]
    await try_stream(f"{sshd.host}:", plain(words(sshd, f"IdentityAgent={path}", without=mine)))
    error = await fail_stream(
        f"{sshd.host}:", plain(words(sshd, "IdentityAgent=none", without=mine))
    )
    assert error.kind is Cause.AUTHENTICATION


async def test_agent_and_identities_only(agent: Path, sshd: Sshd) -> None:
    """Of the agent's keys those count whose public halves are named."""
    allow(sshd, agent)
    mine = ("IdentityAgent", "IdentityFile")
    await try_stream(f"{sshd.host}:", plain(words(sshd, f"IdentityFile={agent}", without=mine)))
    Path(f"{agent}.pub").unlink()
    await fail_stream(f"{sshd.host}:", plain(words(sshd, f"IdentityFile={agent}", without=mine)))


# Questions


@pytest.fixture
def locked_key(sshd: Sshd, tmp_path: Path) -> Path:
    key = make_key(tmp_path / "locked", passphrase="open sesame")
    allow(sshd, key)
    return key


def locked(sshd: Sshd, key: Path) -> tuple[str, ...]:
    return words(sshd, f"IdentityFile={key}", without=("IdentityFile", "BatchMode"))


@pytest.mark.parametrize("has_public_half", [True, False])
def test_passphrase(has_public_half: bool, sshd: Sshd, locked_key: Path) -> None:
    if not has_public_half:
        Path(f"{locked_key}.pub").unlink()
    with Person(f"{sshd.host}:", options=locked(sshd, locked_key)) as person:
        for word in ("wrong", "open sesame"):
            person.wait_for(f"Passphrase for key {locked_key}: ")
            assert not person.echoes()
            person.type(word)
        assert "ok" in person.outcome()
        assert person.echoes()
        assert "sesame" not in person.seen


def test_passphrase_is_not_known(sshd: Sshd, locked_key: Path) -> None:
    with Person(f"{sshd.host}:", options=locked(sshd, locked_key)) as person:
        for _ in range(3):
            person.wait_for("Passphrase")
            person.wait_for(": ")
            person.type("wrong")
        outcome = person.outcome()
    assert outcome["kind"] == "BAD_CONFIG"
    assert "passphrase" in outcome["text"]


async def test_passphrase_and_nobody_to_ask(sshd: Sshd, locked_key: Path) -> None:
    error = await fail_stream(f"{sshd.host}:", plain(("BatchMode=yes", *locked(sshd, locked_key))))
    assert error.kind is Cause.BAD_CONFIG
    assert "passphrase" in error.message


def test_passphrase_is_not_asked_for_a_useless_key(sshd: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "stranger", passphrase="x")
    options = (f"IdentityFile={key}", *words(sshd, without=("BatchMode",)))
    with Person(f"{sshd.host}:", options=options) as person:
        assert "ok" in person.outcome()
        assert "assphrase" not in person.seen


@pytest.mark.parametrize("asks", [True, False])
async def test_askpass(
    asks: bool, sshd: Sshd, locked_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "askpass"
    program.write_text('#!/bin/sh\necho "$1" >> "$0.log"\necho "open sesame"\n')
    program.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force" if asks else "never")
    options = plain(locked(sshd, locked_key))
    if asks:
        await try_stream(f"{sshd.host}:", options)
        assert str(locked_key) in Path(f"{program}.log").read_text()
    else:
        await fail_stream(f"{sshd.host}:", options)
        assert not Path(f"{program}.log").exists()


def test_askpass_without_a_terminal(sshd: Sshd, locked_key: Path, tmp_path: Path) -> None:
    program = tmp_path / "askpass"
    program.write_text('#!/bin/sh\necho "open sesame"\n')
    program.chmod(0o700)
    with Person(
        f"{sshd.host}:",
        options=locked(sshd, locked_key),
        has_terminal=False,
        environment={"SSH_ASKPASS": str(program)},
    ) as person:
        assert "ok" in person.outcome()


def test_password(password_server: tuple[str, ...]) -> None:
    with Person("127.0.0.1:", options=password_server) as person:
        for word in ("wrong", "secret"):
            person.wait_for("Password for me@127.0.0.1")
            person.wait_for(": ")
            assert not person.echoes()
            person.type(word)
        assert "ok" in person.outcome()
    once = ("NumberOfPasswordPrompts=1", *password_server)
    with Person("127.0.0.1:", options=once) as person:
        person.wait_for(": ")
        person.type("wrong")
        outcome = person.outcome()
        assert outcome["kind"] == "AUTHENTICATION"
        assert "password" in outcome["text"]


async def test_password_given_in_advance(password_server: tuple[str, ...]) -> None:
    batch = ("BatchMode=yes", *password_server)
    assert "secret" not in repr(plain(batch, password="secret"))
    await try_stream("127.0.0.1:", plain(batch, password="secret"))
    error = await fail_stream("127.0.0.1:", plain(batch, password="wrong"))
    assert error.kind is Cause.AUTHENTICATION
    error = await fail_stream("127.0.0.1:", plain(batch))
    assert "BatchMode" in error.message


def test_password_must_be_changed(tmp_path: Path) -> None:
    with (
        other_server("change", tmp_path) as options,
        Person("127.0.0.1:", options=options) as person,
    ):
        for word in ("old", "old", "new", "new"):
            person.wait_for(": ")
            person.type(word)
        assert "ok" in person.outcome()


def test_questions_of_the_server(tmp_path: Path) -> None:
    with (
        other_server("kbdint", tmp_path) as options,
        Person("127.0.0.1:", options=options) as person,
    ):
        person.wait_for("Answer two questions")
        person.wait_for("Word: ")
        assert not person.echoes()
        person.type("secret")
        person.wait_for("Number: ")
        assert person.echoes()
        person.type("42")
        assert "ok" in person.outcome()


def test_password_is_not_sent_to_a_changed_host(
    password_server: tuple[str, ...], tmp_path: Path
) -> None:
    known = tmp_path / "changed"
    key = Path(f"{make_key(tmp_path / 'other')}.pub").read_text()
    known.write_text(f"[127.0.0.1]:{password_server[0].partition('=')[2]} {key}")
    first = (f"UserKnownHostsFile={known}", "StrictHostKeyChecking=no")
    with Person("127.0.0.1:", options=(*first, *password_server)) as person:
        outcome = person.outcome()
    assert outcome["kind"] == "AUTHENTICATION"
    assert "changed" in outcome["text"]


async def test_password_is_not_sent_to_a_jump_host(
    password_server: tuple[str, ...], sshd: Sshd, tmp_path: Path
) -> None:
    """The password given in advance is the target's, and no other host's."""
    file = tmp_path / "config"
    lines = "".join(f"  {option.replace('=', ' ', 1)}\n" for option in password_server)
    file.write_text(f"Host hop\n  HostName 127.0.0.1\n  BatchMode yes\n{lines}")
    options = SshOptions(config_file=str(file), options=("ProxyJump=hop",), password="secret")
    error = await fail_stream(f"{sshd.host}:", options)
    assert error.kind is Cause.AUTHENTICATION
    assert "jump host" in error.message


def test_interrupt_at_the_prompt(password_server: tuple[str, ...]) -> None:
    """^C ends everything and leaves a terminal that echoes."""
    with Person("127.0.0.1:", options=password_server) as person:
        person.wait_for("Password")
        person.wait_for(": ")
        os.write(person.master, b"\x03")
        assert person.process.wait(10) != 0
        assert person.echoes()


def test_death_at_the_prompt(password_server: tuple[str, ...]) -> None:
    """When nobody waits for the answer any more, the question ends and the terminal echoes."""
    with Person("127.0.0.1:", options=password_server) as person:
        person.wait_for("Password")
        person.wait_for(": ")
        (pump,) = list_descendants(person.process.pid)
        watched = os.pidfd_open(pump)
        person.process.kill()
        poll = select.poll()
        poll.register(watched)
        assert poll.poll(3000), "the pump outlives us"
        os.close(watched)
        assert person.echoes()


def test_interrupt_after_login(sshd: Sshd) -> None:
    """^C is not for the pump, nor for ssh: who mounted decides what it means."""
    for command in (None, "ssh"):
        options = words(sshd, without=("BatchMode",))
        with Person(f"{sshd.host}:", options=options, ssh_command=command, stays=True) as person:
            pid = person.outcome()["pid"]
            person.process.send_signal(19)  # STOP: so that nobody ends the program for us
            os.write(person.master, b"\x03")
            if command is None:
                # Nor does it hold the terminal, or a pipe that stands for it, open.
                held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}
                assert held == {os.devnull}
            status = Path(f"/proc/{pid}/status").read_text()
            ignored = int(status.partition("SigIgn:\t")[2].split()[0], 16)
            leader = os.getsid(pid) != os.getsid(person.process.pid)
            assert leader or ignored & (1 << 1)
            assert "(zombie)" not in status


# Through other machines


@pytest.mark.parametrize("kind", ["jump", "two jumps", "command"])
async def test_through_another_machine(kind: str, sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "config"
    common = "".join(f"  {o.replace('=', ' ', 1)}\n" for o in words(sshd))
    way = {
        "jump": f"ProxyJump {sshd.user}@hop1:{sshd.port}",
        "two jumps": "ProxyJump hop1,hop2",
        "command": "ProxyCommand exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3",
    }[kind]
    if kind == "command":
        way = f"ProxyCommand {sys.executable} {Path(__file__).with_name('netcat.py')} %h %p"
    file.write_text(
        f"Host target\n  HostName {sshd.host}\n  {way}\nHost hop*\n  HostName {sshd.host}\n"
        f"Host *\n{common}"
    )
    before = sshd.log.read_text().count("Accepted publickey")
    await try_stream("target:", SshOptions(config_file=str(file)))
    logins = sshd.log.read_text().count("Accepted publickey") - before
    assert logins == {"jump": 2, "two jumps": 3, "command": 1}[kind]


async def test_jump_host_that_fails(sshd: Sshd) -> None:
    jump = f"{sshd.user}@{sshd.host}:1"
    error = await fail_stream("target:", plain(words(sshd, f"ProxyJump={jump}")))
    assert error.kind is Cause.PROXY
    assert "jump host" in error.message
    assert "refused" in error.message


async def test_jump_host_that_cannot_go_on(sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "config"
    common = "".join(f"  {o.replace('=', ' ', 1)}\n" for o in words(sshd, without=("Port",)))
    file.write_text(
        f"Host hop\n  HostName {sshd.host}\n  Port {sshd.port}\n"
        f"Host target\n  HostName {sshd.host}\n  Port 1\n  ProxyJump hop\nHost *\n{common}"
    )
    error = await fail_stream("target:", SshOptions(config_file=str(file)))
    assert error.kind is Cause.PROXY
    assert "cannot reach" in error.message
    error = await fail_stream("target:", SshOptions(config_file=str(file), ssh_command="ssh"))
    assert error.kind is Cause.PROXY


@pytest.mark.parametrize("command", ["false", "/nonexistent/proxy", "sleep 0; echo hello"])
async def test_proxy_command_that_fails(command: str, sshd: Sshd) -> None:
    error = await fail_stream(
        f"{sshd.host}:", plain(words(sshd, f"ProxyCommand={command}", "ConnectTimeout=5"))
    )
    assert error.kind is Cause.PROXY
    assert command in error.message


def test_the_person_sees_that_something_goes_on() -> None:
    """A line on the terminal while nobody answers, and none of it left afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = (f"Port={silent.getsockname()[1]}", "ConnectTimeout=3")
        with Person("127.0.0.1:", options=options) as person:
            person.wait_for("\r\x1b[Kconnecting to 127.0.0.1, 2 s ...")
            assert person.outcome()["kind"] == "UNREACHABLE"
            if "\x1b[K" not in person.seen:
                person.wait_for("\r\x1b[K")
            assert "connecting" not in person.seen.rpartition("\r\x1b[K")[2]
