"""puffs_sftpd from the command line: ad hoc, --check, what it says when something is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syspuffs.bin.puffs_sftpd import main

from ..support.leaks import UMOUNT
from ..support.mounts import mounted_type, python_command, run, wait_until
from ..support.sftpd import PATIENCE, Daemon, user
from ..support.sshd import find_program, find_sftp_server, make_key

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

ETC = Path(__file__).resolve().parents[2] / "bin" / "etc"


@contextmanager
def ad_hoc(place: Path, *words: str) -> Iterator[tuple[int, list[str]]]:
    """Serve ad hoc to "me"; give the port, and the lines on standard output."""
    process = subprocess.Popen(
        [*python_command("puffs_sftpd"), "--listen", "127.0.0.1:0", "--user", "me", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(place / "state")},
    )
    with process:
        assert process.stdout is not None
        said: list[str] = []
        while not said or not said[-1].startswith("listening on"):
            said.append(process.stdout.readline().rstrip("\n"))
            assert said[-1], "it has ended"
        yield int(said[-1].rpartition(":")[2]), said
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def sftp(place: Path, port: int, known: str, *commands: str) -> str:
    (place / "known").write_text(f"[127.0.0.1]:{port} {known}\n")
    options = [f"UserKnownHostsFile={place}/known", "IdentitiesOnly=yes", "IdentityAgent=none"]
    done = subprocess.run(
        [find_program("sftp"), "-F", "none", "-P", str(port), "-i", str(place / "id")]
        + [word for option in options for word in ("-o", option)]
        + ["-b", "-", "me@127.0.0.1"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ad_hoc_with_a_host_key_that_is_kept(tmp_path: Path) -> None:
    make_key(tmp_path / "id")
    (tmp_path / "pub").mkdir()
    words = ["--key", str(tmp_path / "id.pub"), "--run-as", "root", "-t", "psshfs"]
    words += ["-o", f"sftp_server={find_sftp_server()}", f":{tmp_path}/pub"]
    keys = set()
    for name in ("one", "two"):
        with ad_hoc(tmp_path, *words) as (port, said):
            key = tmp_path / "state/puffs_sftpd/ssh_host_ed25519_key"
            assert key.stat().st_mode & 0o777 == 0o600
            public = subprocess.run(
                [find_program("ssh-keygen"), "-y", "-f", key], capture_output=True, check=True
            )
            shown = subprocess.run(
                [find_program("ssh-keygen"), "-l", "-f", key], capture_output=True, check=True
            )
            kind, fingerprint = said[0].split()[-2:]
            assert (kind, fingerprint) == ("ssh-ed25519", shown.stdout.decode().split()[1])
            keys.add(public.stdout)
            sftp(tmp_path, port, public.stdout.decode().strip(), f"mkdir {name}")
    assert len(keys) == 1
    assert sorted(os.listdir(tmp_path / "pub")) == ["one", "two"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-t", "psshfs", ":/no/such"], 21, "there is no such directory on the server"),
        (["-t", "p2k|ext2fs", "/no/such"], 24, "/no/such"),
        (["-t", "p2k", "none"], 3, "the nearest stack that works is"),
        (["-t", "psshfs", "-o", "prot=1", ":/"], 2, "did you mean 'port'?"),
        (["-t", "psshfs"], 2, "a stack (-t) and what it is to serve are needed"),
        (["--listen", "localhost", "-t", "psshfs", ":/"], 2, "is no address with a port"),
        (["--listen", "192.0.2.1:0", "-t", "p2k|tmpfs", "none"], 1, "192.0.2.1"),
        (["--config", "g.toml", "-t", "psshfs", ":/"], 2, "--config has everything in its file"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    make_key(tmp_path / "id")
    if "psshfs" in words and words[-1].startswith(":"):
        words = [*words[:-1], "-o", f"sftp_server={find_sftp_server()}", words[-1]]
    done = subprocess.run(
        [*python_command("puffs_sftpd"), "--key", str(tmp_path / "id.pub"), *words]
        + ([] if "--config" in words else ["--run-as", "root"]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == status, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("puffs_sftpd: ")
    assert said in last


def test_nobody_must_be_able_to_log_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-t", "p2k|tmpfs", "none"]) == 2
    assert "nobody could log in; give --key or --password-hash" in capsys.readouterr().err


def test_the_example_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(ETC / "gateway.toml"), "--check"]) == 0
    out = capsys.readouterr().out
    assert "  /pub  psshfs reader@files.example.org:/pub, read-only\n" in out
    assert "user bob: passwords: 1\n" in out


def test_check_names_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.toml").write_text("state = 1\nstat = 2\n")
    assert main(["--config", str(tmp_path / "g.toml"), "--check"]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path}/g.toml:1: state: 1 is no file name\n" in err
    assert f"{tmp_path}/g.toml:2: stat: there is no such key; did you mean 'state'?\n" in err


@pytest.mark.programs(**{"systemd-analyze": "systemd"})
def test_the_unit_is_right(tmp_path: Path) -> None:
    text = (ETC / "puffs_sftpd.service").read_text()
    # What it starts and the pages that it names are not installed here.
    text = text.replace("/usr/bin/puffs_sftpd", "/bin/true")
    unit = tmp_path / "puffs_sftpd.service"
    unit.write_text("\n".join(x for x in text.splitlines() if not x.startswith("Documentation=")))
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None
    done = subprocess.run(
        [analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=15", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.fuse
def test_our_own_client_on_our_own_server(tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    with Daemon(tmp_path / "d", user(Daemon.user)) as daemon:
        words = [word for option in daemon.options for word in ("-o", option)]
        stack = ["-t", "puffs|p2k|puffs|psshfs", "-o", "ssh_config=none", *words]
        run([*python_command("mount_puffs"), *stack, f"{daemon.host}:/", str(point)])
        try:
            assert mounted_type(point) == "fuse.puffs|p2k|puffs|psshfs"
            (point / "d").mkdir()
            (point / "d/f").write_bytes(bytes(3_000_000))
            os.link(point / "d/f", point / "g")
            os.rename(point / "d/f", point / "h")
            assert (point / "g").read_bytes() == bytes(3_000_000)
            assert os.listdir(point / "d") == []
            assert os.statvfs(point).f_blocks > 0
        finally:
            subprocess.run([*UMOUNT, str(point)], check=True, timeout=30)
            assert wait_until(lambda: mounted_type(point) is None)
