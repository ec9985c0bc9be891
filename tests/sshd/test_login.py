"""Who gets in and who does not: keys, options, certificates, passwords, the command."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import argon2
import bcrypt
import trio

from syspuffs.gateway.sftpd.arrivals import Restrictions
from syspuffs.gateway.sshd.settings import Credentials

from ..support.logs import LogWatch
from ..support.sshd import find_program, make_key
from .harness import LIMIT, Running, public, running, wait_until

ARGON2 = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")
BCRYPT = bcrypt.hashpw(b"another", bcrypt.gensalt(4)).decode()


async def asyncssh_says(served: Running, user: str, **words: object) -> str:
    """Return what the asyncssh client gets."""
    with trio.fail_after(LIMIT):
        done = await trio.run_process(
            [
                *(sys.executable, str(Path(__file__).with_name("with_asyncssh.py"))),
                *(str(served.port), user, json.dumps(words)),
            ],
            capture_stdout=True,
        )
    return done.stdout.decode().strip()


def sign(ca: Path, identity: Path, *options: str) -> Path:
    """Sign a copy of a key, and return the copy: its certificate is beside it."""
    made = ca.parent / f"signed{abs(hash(options))}-{identity.name}"
    made.write_bytes(identity.read_bytes())
    made.chmod(0o600)
    Path(f"{made}.pub").write_text(public(identity))
    subprocess.run(
        [find_program("ssh-keygen"), "-q", "-s", str(ca), *options, f"{made}.pub"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return made


# Keys.


async def test_keys(tmp_path: Path, keys: Path, alice: Path) -> None:
    file = tmp_path / "authorized_keys"
    file.write_text(f"# keys\n\n{public(alice)}\n")
    accounts = {
        "alice": Credentials(key_files=(tmp_path / "none", file), keys=(public(keys / "rsa"),)),
        "bob": Credentials(keys=(public(keys / "bob"),)),
    }
    async with running(tmp_path, accounts) as served:
        assert await served.is_let_in(identity=alice)
        assert await served.is_let_in(identity=keys / "rsa")
        assert await served.is_let_in(user="bob", identity=keys / "bob")
        assert not await served.is_let_in(user="bob", identity=alice)
        assert not await served.is_let_in(user="alice", identity=keys / "bob")
        assert not await served.is_let_in(user="carol", identity=alice)
        assert not await served.is_let_in()
        assert [arrival.account for arrival in served.arrivals] == ["alice", "alice", "bob"]
        login = served.arrivals[0].login
        shown = subprocess.run(
            [find_program("ssh-keygen"), "-l", "-f", str(alice)], check=True, capture_output=True
        ).stdout.decode()
        assert login.fingerprint == shown.split()[1]
        assert (login.method, login.authority, login.key_id) == ("publickey", "", "")
        assert login.version.startswith("SSH-2.0-OpenSSH")
        assert served.arrivals[0].restrictions == Restrictions()
        file.write_text(public(keys / "bob"))  # read at each login
        assert not await served.is_let_in(identity=alice)
        assert await served.is_let_in(identity=keys / "bob")
        file.unlink()
        assert not await served.is_let_in(identity=keys / "bob")
        assert (
            await asyncssh_says(served, "alice", client_keys=[str(keys / "rsa")], agent_path=None)
            == "hello"
        )
        assert (
            await asyncssh_says(served, "alice", client_keys=[str(alice)], agent_path=None)
            == "PermissionDenied"
        )


async def test_rsa_signatures_with_sha1_do_not_count(tmp_path: Path, keys: Path) -> None:
    accounts = {"alice": Credentials(keys=(public(keys / "rsa"),))}
    async with running(tmp_path, accounts) as served:
        for algorithm, expected in (("rsa-sha2-256", "hello"), ("ssh-rsa", "PermissionDenied")):
            said = await asyncssh_says(
                served,
                "alice",
                client_keys=[str(keys / "rsa")],
                agent_path=None,
                signature_algs=[algorithm],
                kex_algs=["curve25519-sha256"],
                server_host_key_algs=["ssh-ed25519"],
            )
            assert said == expected


async def test_a_file_that_others_can_write(
    tmp_path: Path, alice: Path, log_watch: LogWatch
) -> None:
    log_watch.expect("written by others")
    file = tmp_path / "authorized_keys"
    file.write_text(public(alice))
    file.chmod(0o666)
    async with running(tmp_path, {"alice": Credentials(key_files=(file,))}) as served:
        assert not await served.is_let_in(identity=alice)
        file.chmod(0o600)
        assert await served.is_let_in(identity=alice)


async def test_options_of_keys(tmp_path: Path, alice: Path, log_watch: LogWatch) -> None:
    log_watch.expect("keys:1: the key does not count")
    nothing, both = Restrictions(), Restrictions(True, b"/in")
    expected: dict[str, Restrictions | None] = {
        "restrict": nothing,
        'from="127.0.0.0/8"': nothing,
        'from="10.0.0.0/8"': None,
        'from="127.0.0.0/8,!127.0.0.1"': None,
        'expiry-time="20990101Z"': nothing,
        'expiry-time="20200101Z"': None,
        'command="internal-sftp"': nothing,
        'command="internal-sftp -R -d /in"': both,
        "cert-authority": None,
        # What cannot be obeyed.
        "frobnicate": None,
        "verify-required": None,
        'command="/bin/sh"': None,
        'command="internal-sftp -P x"': None,
    }
    key = public(alice)
    accounts = {
        f"u{number}": Credentials(keys=(f"{options} {key}",))
        for number, options in enumerate(expected)
    }
    async with running(tmp_path, accounts) as served:
        for user, (options, restrictions) in zip(accounts, expected.items(), strict=True):
            is_in = await served.is_let_in(user=user, identity=alice)
            assert is_in == (restrictions is not None), options
            if is_in:
                assert served.arrivals[-1].restrictions == restrictions, options


async def test_the_first_line_that_counts(tmp_path: Path, alice: Path) -> None:
    lines = (
        f'expiry-time="20200101Z" {public(alice)}',
        f'from="10.0.0.0/8",command="internal-sftp -d /other" {public(alice)}',
        f'command="internal-sftp -R" {public(alice)}',
        public(alice),
    )
    async with running(tmp_path, {"alice": Credentials(keys=lines)}) as served:
        assert await served.is_let_in(identity=alice)
        assert served.arrivals[0].restrictions == Restrictions(True)


# Certificates.


async def test_certificates(tmp_path: Path, keys: Path, alice: Path) -> None:
    nothing, both = Restrictions(), Restrictions(True, b"/in")
    cases: list[tuple[tuple[str, ...], Restrictions | None]] = [
        (("-n", "alice"), nothing),
        (("-n", "bob,alice"), nothing),
        (("-n", "bob"), None),
        ((), None),
        (("-h", "-n", "alice"), None),
        (("-n", "alice", "-V", "20200101:20200102"), None),
        (("-n", "alice", "-V", "20990101:20990102"), None),
        (("-n", "alice", "-O", "source-address=127.0.0.0/8"), nothing),
        (("-n", "alice", "-O", "source-address=10.0.0.0/8"), None),
        (("-n", "alice", "-O", "force-command=/bin/sh"), None),
        (("-n", "alice", "-O", "force-command=internal-sftp -R -d /in"), both),
        (("-n", "alice", "-O", "verify-required"), None),
        (("-n", "alice", "-O", "critical:odd@example.org=x"), None),
        (("-n", "alice", "-O", "extension:odd@example.org=x"), nothing),
    ]
    accounts = {"alice": Credentials(ca_keys=(public(keys / "ca"),))}
    async with running(tmp_path, accounts) as served:
        for options, restrictions in cases:
            signed = sign(keys / "ca", alice, "-I", "id", *options)
            is_in = await served.is_let_in(identity=signed)
            assert is_in == (restrictions is not None), options
            if is_in:
                arrival = served.arrivals[-1]
                assert arrival.restrictions == restrictions, options
                assert arrival.login.key_id == "id"
                assert arrival.login.authority.startswith("SHA256:")
                assert arrival.login.authority != arrival.login.fingerprint


async def test_principals_and_authorities(tmp_path: Path, keys: Path, alice: Path) -> None:
    ca, ca_line = keys / "ca", public(keys / "ca")
    admin = sign(ca, alice, "-I", "admin", "-n", "admin")
    rsa = sign(keys / "rsa", alice, "-I", "rsa", "-n", "admin", "-t", "rsa-sha2-512")
    weak = sign(keys / "rsa", alice, "-I", "weak", "-n", "admin", "-t", "ssh-rsa")
    foreign = sign(keys / "bob", alice, "-I", "foreign", "-n", "admin")
    accounts = {
        "line": Credentials(keys=(f'cert-authority,principals="admin",from="127.*" {ca_line}',)),
        "far": Credentials(keys=(f'cert-authority,principals="admin",from="10.*" {ca_line}',)),
        "plain": Credentials(keys=(ca_line,)),
        "set": Credentials(
            ca_keys=(
                ca_line,
                f'command="internal-sftp -R" {public(keys / "rsa")}',
            ),
            principals=("admin",),
        ),
        "name": Credentials(ca_keys=(ca_line,)),
        "none": Credentials(keys=(public(alice),), methods=("password",)),
    }
    async with running(tmp_path, accounts) as served:
        assert await served.is_let_in(user="line", identity=admin)
        assert not await served.is_let_in(user="far", identity=admin)
        assert not await served.is_let_in(user="plain", identity=admin)
        assert await served.is_let_in(user="set", identity=admin)
        assert not await served.is_let_in(user="name", identity=admin)
        assert not await served.is_let_in(user="none", identity=admin)
        assert await served.is_let_in(user="set", identity=rsa)
        assert served.arrivals[-1].restrictions == Restrictions(True)
        assert not await served.is_let_in(
            "CASignatureAlgorithms=+ssh-rsa", user="set", identity=weak
        )
        assert not await served.is_let_in(user="set", identity=foreign)


# Passwords.


async def test_passwords(tmp_path: Path, alice: Path) -> None:
    accounts = {
        "alice": Credentials(password_hashes=(ARGON2, BCRYPT)),
        "bob": Credentials(keys=(public(alice),)),
        "carol": Credentials(password_hashes=(ARGON2,), methods=("publickey",)),
    }
    async with running(tmp_path, accounts) as served:
        assert await served.is_let_in_by("secret")
        assert await served.is_let_in_by("another")
        assert not await served.is_let_in_by("wrong")
        assert not await served.is_let_in_by("")
        assert not await served.is_let_in_by("secret", user="bob")
        assert not await served.is_let_in_by("secret", user="carol")
        assert not await served.is_let_in_by("secret", user="nobody")
        assert [arrival.login.method for arrival in served.arrivals] == ["password"] * 2
        assert await asyncssh_says(served, "alice", password="secret", client_keys=None) == "hello"
        assert await asyncssh_says(served, "alice", password="x", client_keys=None) != "hello"
        figures = served.front.statistics()
        assert figures.logins == {"password": 3}
        assert figures.failures["password"] >= 5


async def test_methods_tell_nothing_about_users(tmp_path: Path, alice: Path) -> None:
    accounts = {
        "alice": Credentials(password_hashes=(ARGON2,), keys=(public(alice),)),
        "bob": Credentials(keys=(public(alice),), methods=("publickey",)),
        "carol": Credentials(password_hashes=(ARGON2,), methods=("password",)),
    }
    async with running(tmp_path, accounts) as served:
        seen = set()
        for user in ("alice", "bob", "carol", "nobody", "root"):
            done = await served.call("PreferredAuthentications=none", user=user)
            seen.add(done.stderr.splitlines()[-1].partition(b"Permission denied")[2])
        assert seen == {b" (publickey,password)."}
    async with running(tmp_path, {"bob": accounts["bob"]}) as served:
        for user in ("bob", "nobody"):
            done = await served.call("PreferredAuthentications=none", user=user)
            assert done.stderr.endswith(b"Permission denied (publickey).\r\n")


async def test_networks(tmp_path: Path, alice: Path) -> None:
    here, there = ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")
    both = {"keys": (public(alice),), "password_hashes": (ARGON2,)}
    accounts = {
        "here": Credentials(**both, networks=(there, here)),  # type: ignore[arg-type]
        "there": Credentials(**both, networks=(there,)),  # type: ignore[arg-type]
    }
    async with running(tmp_path, accounts) as served:
        assert await served.is_let_in(user="here", identity=alice)
        assert await served.is_let_in_by("secret", user="here")
        assert not await served.is_let_in(user="there", identity=alice)
        assert not await served.is_let_in_by("secret", user="there")


# The command.

HOOK = """
import json, os, sys, time
question = json.load(sys.stdin)
with open(sys.argv[1], "a") as file:
    print(json.dumps(question), file=file)
user = question["user"]
if user == "slow":
    if os.fork() == 0:
        time.sleep(3600)
    time.sleep(3600)
if user == "status":
    print('{"allow": true}', flush=True)
    sys.exit(1)
print({
    "alice": '{"allow": true}',
    "ext": '{"allow": true, "account": "alice"}',
    "gone": '{"allow": true, "account": "nobody"}',
    "bob": '{"allow": true}',
    "no": '{"allow": false, "account": "alice"}',
    "text": 'yes',
    "number": '{"allow": 1, "account": "alice"}',
    "list": '["alice"]',
    "long": '{"allow": true, "account": "alice"}' + " " * 100000,
    "quiet": '',
}[user])
"""


async def test_auth_command(tmp_path: Path, keys: Path, alice: Path, log_watch: LogWatch) -> None:
    for text in ("no answer in time", "too long", "not what it must be", "no account 'nobody'"):
        log_watch.expect(text)
    asked = tmp_path / "asked"
    program = tmp_path / "hook.py"
    program.write_text(HOOK)
    accounts = {
        "alice": Credentials(keys=(public(keys / "bob"),)),
        "bob": Credentials(methods=("password",)),
    }
    command = (sys.executable, "-S", str(program), str(asked))
    async with running(
        tmp_path, accounts, auth_command=command, auth_command_seconds=1.5
    ) as served:
        assert await served.is_let_in(identity=keys / "bob")
        assert not asked.exists()
        assert await served.is_let_in(identity=alice)
        offered, signed = map(json.loads, asked.read_text().splitlines())
        assert offered == {
            "user": "alice",
            "source": "127.0.0.1",
            "port": served.arrivals[-1].source[1],
            "method": "publickey",
            "key": " ".join(public(alice).split()[:2]),
            "fingerprint": served.arrivals[-1].login.fingerprint,
            "signed": False,
        }
        assert signed == {**offered, "signed": True}
        asked.unlink()
        assert await served.is_let_in_by("any", user="ext")
        (question,) = map(json.loads, asked.read_text().splitlines())
        assert (question["method"], question["password"]) == ("password", "any")
        assert (served.arrivals[-1].account, served.arrivals[-1].user) == ("alice", "ext")
        assert await served.is_let_in_by("any", user="bob")
        assert not await served.is_let_in(identity=alice, user="bob")

        async def stays_out(user: str) -> None:
            assert not await served.is_let_in_by("any", user=user), user

        async with trio.open_nursery() as nursery:
            for user in ("gone", "no", "text", "number", "list", "long", "quiet", "status", "slow"):
                nursery.start_soon(stays_out, user)


async def test_a_command_that_is_not_there(
    tmp_path: Path, alice: Path, log_watch: LogWatch
) -> None:
    log_watch.expect("No such file")
    accounts = {"alice": Credentials(keys=(public(alice),))}
    async with running(tmp_path, accounts, auth_command=(str(tmp_path / "no"),)) as served:
        assert await served.is_let_in(identity=alice)
        assert not await served.is_let_in_by("any")


# More of a login.


async def test_banner_and_host_key(tmp_path: Path, alice: Path) -> None:
    accounts = {"alice": Credentials(keys=(public(alice),))}
    async with running(tmp_path, accounts, banner="No trespassing\n") as served:
        done = await served.call("LogLevel=INFO", identity=alice)
        assert b"No trespassing" in done.stderr
        (kind, fingerprint), *more = served.front.fingerprints
        assert (kind, more) == ("ssh-ed25519", [])
        done = await served.call("FingerprintHash=sha256", "LogLevel=DEBUG", identity=alice)
        assert fingerprint.encode() in done.stderr


async def test_the_cheapest_cipher_that_both_have(tmp_path: Path, alice: Path) -> None:
    """Of what a client would take, ours is taken; what it insists on, it gets."""
    accounts = {"alice": Credentials(keys=(public(alice),))}
    async with running(tmp_path, accounts) as served:
        for wish, cipher in (
            ("", b"aes128-gcm@openssh.com"),
            ("chacha20-poly1305@openssh.com,aes256-gcm@openssh.com", b"aes256-gcm@openssh.com"),
            ("chacha20-poly1305@openssh.com", b"chacha20-poly1305@openssh.com"),
            ("aes256-ctr", b"aes256-ctr"),
        ):
            options = [f"Ciphers={wish}"] if wish else []
            done = await served.call(*options, "LogLevel=DEBUG", identity=alice)
            assert done.returncode == 0, done.stderr
            assert done.stderr.count(b"cipher: " + cipher) == 2, done.stderr


async def test_host_keys_of_all_types(tmp_path: Path, keys: Path, alice: Path) -> None:
    ecdsa = make_key(tmp_path / "ecdsa", "ecdsa")
    files = (keys / "bob", keys / "rsa", ecdsa)
    accounts = {"alice": Credentials(keys=(public(alice),))}
    async with running(tmp_path, accounts, host_keys=files) as served:
        for algorithm in ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256", "ecdsa-sha2-nistp256"):
            served.known_hosts.unlink(missing_ok=True)
            assert await served.is_let_in(f"HostKeyAlgorithms={algorithm}", identity=alice)
        served.known_hosts.unlink()
        done = await served.call("HostKeyAlgorithms=ssh-rsa", identity=alice)
        assert b"host key" in done.stderr  # whoever of the two sees first that there is none
        await wait_until(lambda: not served.front.statistics().connections, "all are gone")
