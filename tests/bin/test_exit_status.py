"""Bad input and bad weather before the mount is up: each cause has its line and its status.

All with the real commands, in processes of their own. The fixture of all tests checks that
nothing stays behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from syspuffs.gateway.status import Status

from ..support.leaks import ALLOWED, fuse_mounts, mounts
from ..support.mounts import python_command, words
from ..support.sshd import Sshd, find_sftp_server, make_key

pytestmark = [pytest.mark.fuse, pytest.mark.sshd]

SSH = ["asyncssh", "openssh"]


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    lines: list[str]
    """What it said on standard error."""


def run(*argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Outcome:
    """Run a command without a terminal."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        check=False,
    )
    assert not done.stdout
    return Outcome(done.returncode, done.stderr.splitlines())


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        ALLOWED.add_process(server.pid)
        yield server


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    assert str(path) not in fuse_mounts()


def psshfs(
    point: Path, target: str, options: Sequence[str], ssh: str = "asyncssh", *before: str
) -> Outcome:
    """Run mount_psshfs on `target`; nothing of the user's own ssh files is looked at."""
    own = ["ssh_config=none", *(["ssh_command=ssh"] if ssh == "openssh" else [])]
    return run(
        *before, *python_command("mount_psshfs"), *words([*own, *options]), target, str(point)
    )


def check(outcome: Outcome, status: int, pattern: str, program: str = "mount_psshfs") -> None:
    """Check that there is one line, from `program`, and that it says what and what next."""
    assert len(outcome.lines) == 1, outcome.lines
    line = outcome.lines[0]
    assert line.startswith(f"{program}: "), line
    assert re.search(pattern, line), line
    assert re.search(r"[;(,:?] ?\w", line.removeprefix(f"{program}: ")), "no next step: " + line
    assert outcome.status == status, line


def last_line(outcome: Outcome, ssh: str) -> Outcome:
    """Leave out what OpenSSH says by itself before our line."""
    return Outcome(outcome.status, outcome.lines[-1:]) if ssh == "openssh" else outcome


# The server


@pytest.mark.parametrize("ssh", SSH)
def test_unknown_host(point: Path, ssh: str) -> None:
    check(
        psshfs(point, "no-such-host.invalid:", [], ssh), Status.UNKNOWN_HOST, "no-such-host.invalid"
    )


@pytest.mark.parametrize("ssh", SSH)
def test_refused_port(point: Path, ssh: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        outcome = psshfs(point, "127.0.0.1:", [f"port={unheard.getsockname()[1]}"], ssh)
    check(outcome, Status.REFUSED, "refused")


@pytest.mark.parametrize("ssh", SSH)
def test_silent_host(point: Path, ssh: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = [f"port={silent.getsockname()[1]}", "ConnectTimeout=1"]
        check(psshfs(point, "127.0.0.1:", options, ssh), Status.UNREACHABLE, "tim|answer|silent")


@pytest.mark.parametrize("ssh", SSH)
def test_unknown_host_key(point: Path, sshd: Sshd, ssh: str) -> None:
    options = [*sshd.options, "UserKnownHostsFile=none"]
    check(
        psshfs(point, "127.0.0.1:", options, ssh),
        Status.HOST_KEY_UNKNOWN,
        "(?i)host key|known_hosts",
    )


@pytest.mark.parametrize("ssh", SSH)
def test_changed_host_key(point: Path, sshd: Sshd, ssh: str, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {other}")
    options = [*sshd.options, f"UserKnownHostsFile={known}"]
    outcome = psshfs(point, "127.0.0.1:", options, ssh)
    check(last_line(outcome, ssh), Status.HOST_KEY_CHANGED, "(?i)chang|differ|another")


@pytest.mark.parametrize("ssh", SSH)
def test_failed_authentication(point: Path, sshd: Sshd, ssh: str, tmp_path: Path) -> None:
    wrong = make_key(tmp_path / "wrong")
    # Not by a later IdentityFile: those add up.
    options = [o for o in sshd.options if not o.startswith("IdentityFile")]
    outcome = psshfs(point, "127.0.0.1:", [*options, f"IdentityFile={wrong}"], ssh)
    check(outcome, Status.AUTHENTICATION, "(?i)permission denied|accept|authenticat")


@pytest.mark.parametrize("ssh", SSH)
def test_no_sftp_subsystem(point: Path, ssh: str, tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", subsystem=None) as server:
        check(
            psshfs(point, "127.0.0.1:", server.options, ssh), Status.NO_SFTP, "(?i)sftp|subsystem"
        )


@pytest.mark.parametrize("ssh", SSH)
def test_subsystem_that_speaks_no_sftp(point: Path, ssh: str, tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", subsystem="/bin/echo This is no SFTP server.") as server:
        outcome = psshfs(point, "127.0.0.1:", server.options, ssh)
    check(outcome, Status.CONNECTION_LOST, "127.0.0.1")


@pytest.mark.parametrize("ssh", SSH)
def test_what_answers_is_no_ssh_server(point: Path, ssh: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        port = web.getsockname()[1]
        with subprocess.Popen(
            [sys.executable, "-c", _ANSWER_ONCE, str(web.fileno())],
            pass_fds=[web.fileno()],
            stdin=subprocess.DEVNULL,
        ) as server:
            outcome = psshfs(point, "127.0.0.1:", [f"port={port}"], ssh)
            server.kill()
    check(last_line(outcome, ssh), Status.CONNECTION_LOST, "127.0.0.1")


_ANSWER_ONCE = """
import socket, sys
peer, _ = socket.socket(fileno=int(sys.argv[1])).accept()
peer.sendall(b"HTTP/1.1 400 Bad Request" + bytes([13, 10, 13, 10]))
"""


@pytest.mark.parametrize("option", ["ssh_command=/no/such/ssh", "sftp_server=/no/such/server"])
def test_no_program_for_the_stream(point: Path, option: str) -> None:
    check(psshfs(point, "localhost:/", [option]), Status.NO_TRANSPORT, "/no/such/")


@pytest.mark.parametrize("ssh", SSH)
def test_failing_proxy_command(point: Path, sshd: Sshd, ssh: str) -> None:
    options = [*sshd.options, "ProxyCommand=false"]
    check(psshfs(point, "127.0.0.1:", options, ssh), Status.PROXY, "(?i)proxy")


@pytest.mark.parametrize("ssh", SSH)
def test_missing_configuration_file(point: Path, ssh: str) -> None:
    outcome = psshfs(point, "127.0.0.1:", ["ssh_config=/no/such/config"], ssh)
    check(outcome, Status.SSH_CONFIG, "/no/such/config")


# The remote directory


@pytest.mark.parametrize("ssh", SSH)
@pytest.mark.parametrize("wrapper", [False, True])
def test_missing_remote_directory(point: Path, sshd: Sshd, ssh: str, wrapper: bool) -> None:
    before = python_command("syspuffs") if wrapper else []
    outcome = psshfs(point, "127.0.0.1:/no/such/directory", sshd.options, ssh, *before)
    check(outcome, Status.REMOTE_MISSING, "127.0.0.1:/no/such/directory: ")


def local(point: Path, path: Path, *server: str) -> Outcome:
    """Mount `path` by an sftp-server without ssh."""
    return psshfs(point, f":{path}", ["sftp_server=" + " ".join([*server, find_sftp_server()])])


def test_remote_file(point: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check(local(point, tmp_path / "file"), Status.REMOTE_NOT_DIRECTORY, "file: ")


def test_remote_directory_without_permission(point: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "inside").mkdir(parents=True)
    closed.chmod(0)
    server = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    outcome = local(point, closed / "inside", *server)
    closed.chmod(0o700)
    check(outcome, Status.REMOTE_PERMISSION, "permission")


# The host


def tmpfs(point: Path | str, *options: str, stack: str = "puffs|p2k|tmpfs") -> list[str]:
    """Return a command that mounts without any server."""
    return [*python_command("mount_puffs"), "-t", stack, *options, "none", str(point)]


@pytest.mark.parametrize(
    "wrapper", [[], python_command("syspuffs"), python_command("syspuffs") * 2]
)
def test_missing_mount_point(tmp_path: Path, wrapper: list[str]) -> None:
    outcome = run(*wrapper, *tmpfs(tmp_path / "nowhere"))
    check(outcome, Status.MOUNT_POINT_MISSING, "mkdir -p .*/nowhere", "mount_puffs")


def test_mount_point_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = run(*tmpfs(tmp_path / "file"))
    check(outcome, Status.MOUNT_POINT_NOT_DIRECTORY, "not a directory", "mount_puffs")


@pytest.mark.parametrize("wrapper", [[], python_command("syspuffs")])
def test_busy_mount_point(point: Path, wrapper: list[str]) -> None:
    assert run(*tmpfs(point)) == Outcome(0, [])
    try:
        outcome = run(*wrapper, *tmpfs(point))
        check(outcome, Status.MOUNT_POINT_BUSY, f"umount {point}", "mount_puffs")
    finally:
        subprocess.run(["fusermount3", "-u", point], check=True)


def test_a_relative_mount_point(point: Path) -> None:
    assert run(*tmpfs("mnt"), cwd=point.parent) == Outcome(0, [])
    assert str(point) in fuse_mounts()
    subprocess.run(["fusermount3", "-u", point], check=True)


def as_nobody(*argv: str, **env: str) -> Outcome:
    """Run a command as a user who may change nothing, but read: the interpreter, wherever it is."""
    cap = "+dac_read_search"
    user = ["--reuid=65534", "--regid=65534", "--clear-groups"]
    before = ["/usr/bin/setpriv", *user, f"--inh-caps={cap}", f"--ambient-caps={cap}"]
    quiet = {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    return run(*(before if os.geteuid() == 0 else []), *argv, env={**quiet, **env})


@contextlib.contextmanager
def open_to_all() -> Iterator[Path]:
    """Give a directory that other users can reach, which pytest's own are not."""
    place = Path("/tmp") / f"syspuffs-test-{os.getpid()}"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def test_no_permission_on_the_mount_point() -> None:
    with open_to_all() as place:
        place.chmod(0o555)
        outcome = as_nobody(*tmpfs(place))
    check(outcome, Status.FUSE_PERMISSION, "no write permission", "mount_puffs")


def test_an_ordinary_user_mounts() -> None:
    with open_to_all() as place:
        place.chmod(0o777)
        outcome = as_nobody(*tmpfs(place, "-o", r"noexec,fsname=a\,b"))
        assert outcome == (Status.OK, [])
        try:
            (line,) = (line for line in mounts() if line.mount_point == str(place))
        finally:
            ended = as_nobody("fusermount3", "-u", str(place))
    assert (line.source, line.fstype) == ("a,b", "fuse.puffs|p2k|tmpfs")
    assert {"nosuid", "nodev", "noexec"} <= set(line.options.split(","))
    assert ended == (0, [])


def test_the_helpers_reason_is_told() -> None:
    """What fusermount3 says is part of the error. Who may not write there may not mount there."""
    program = (
        "import sys\n"
        "from syspuffs.gateway.host import hostmount\n"
        "from syspuffs.gateway.words import options\n"
        "try:\n"
        "    hostmount.mount(sys.argv[1], options.HostOptions(fsname=b'x', typename='y'))\n"
        "except hostmount.HostMountError as exc:\n"
        "    print(exc.failure.name, exc, file=sys.stderr)\n"
    )
    with open_to_all() as place:
        place.chmod(0o555)
        outcome = as_nobody(sys.executable, "-c", program, str(place))
    (line,) = outcome.lines
    assert line.startswith(f"PERMISSION {place}: the host refused the mount: user has no write")


def test_no_fusermount() -> None:
    with open_to_all() as place:
        place.chmod(0o777)
        outcome = as_nobody(*tmpfs(place), PATH="/nonexistent")
    check(outcome, Status.FUSE_MISSING, "apt-get install fuse3", "mount_puffs")


@pytest.mark.skipif(
    "user_allow_other" in Path("/etc/fuse.conf").read_text().split("\n"),
    reason="here everybody may use allow_other",
)
@pytest.mark.parametrize("word", ["allow_other", "allow_root"])
def test_no_permission_to_let_others_in(word: str) -> None:
    with open_to_all() as place:
        place.chmod(0o777)
        outcome = as_nobody(*tmpfs(place, "-o", word))
    check(outcome, Status.FUSE_PERMISSION, f"{word} .*/etc/fuse.conf", "mount_puffs")


def test_misfit_stack(point: Path) -> None:
    outcome = run(*tmpfs(point, stack="puffs|tmpfs"))
    check(outcome, Status.STACK, "nearest .* 'puffs.p2k.tmpfs'", "mount_puffs")


def test_unknown_option(point: Path) -> None:
    outcome = run(*tmpfs(point, "-o", "sise=1M"))
    check(outcome, Status.USAGE, "unknown option 'sise'; did you mean 'size'", "mount_puffs")


def test_letter_of_netbsd_with_a_wrong_number(point: Path) -> None:
    outcome = run(*python_command("mount_psshfs"), "-c", "0", "localhost:/", str(point))
    check(outcome, Status.USAGE, "max_conns=0': must be from 1 to 16")


def test_log_file_that_cannot_be_written(point: Path) -> None:
    outcome = run(*tmpfs(point, "-o", "log=/no/such/directory/log"))
    check(outcome, Status.USAGE, "log=/no/such/directory/log': No such file", "mount_puffs")


def test_environment_that_makes_no_sense(point: Path) -> None:
    outcome = run(*tmpfs(point), env={"PUFFS_COMFD": "99"})
    check(outcome, Status.FAILURE, "PUFFS_COMFD=99.*unset it", "mount_puffs")


# The wrapped command

_SAY_NONSENSE = """
import os, time
os.write(int(os.environ["PUFFS_COMFD"]), b"What is this, and what is it for?")
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("argv", "status", "pattern"),
    [
        (["/no/such/command"], 127, "no such file"),
        (["no-such-command-at-all"], 127, "no such command in PATH"),
        (["/etc/passwd"], 126, "Permission denied"),
        (["/"], 126, "Permission denied"),
        (["true"], Status.NOTHING_MOUNTED, "must be a mount command that knows PUFFS_COMFD"),
        ([sys.executable, "-c", _SAY_NONSENSE], Status.WRAPPED_PROTOCOL, "same version"),
        ([], Status.USAGE, "no command to run"),
    ],
)
def test_commands_that_mount_nothing(argv: list[str], status: int, pattern: str) -> None:
    check(run(*python_command("syspuffs"), *argv), status, pattern, "syspuffs")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 1", 1), ("exit 77", 77), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_a_failing_command_speaks_for_itself(script: str, status: int) -> None:
    outcome = run(*python_command("syspuffs"), "sh", "-c", f"echo 'my own words' >&2; {script}")
    assert outcome == Outcome(status, ["my own words"])


def test_options_of_the_command_are_its_own() -> None:
    script = 'echo "$0 $*" >&2; exit 9'
    outcome = run(*python_command("syspuffs"), "-o", "ro", "sh", "-c", script, "-f", "--", "-o")
    assert outcome == Outcome(9, ["-f -- -o"])


def test_the_command_sees_its_descriptor_and_nothing_else_of_ours() -> None:
    script = "test -S /dev/fd/$PUFFS_COMFD && ls /dev/fd | wc -l >&2; exit 9"
    bare = run("sh", "-c", "ls /dev/fd | wc -l >&2")
    outcome = run(*python_command("syspuffs"), "sh", "-c", script)
    assert outcome.status == 9
    assert int(outcome.lines[0]) == int(bare.lines[0]) + 1
