"""Mounts that cannot be made: one line that names the cause, a status of its own, nothing left.

That no process and no mount is left is checked after every test by the conftest above.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from syspuffs.gateway.status import Status

from ..support.mounts import Mounts, mounted, mounted_type, python_command, run, words
from ..support.sshd import Sshd, make_key
from ..support.stacks import TMPFS
from .conftest import Refusal, psshfs_argv

pytestmark = [pytest.mark.fuse, pytest.mark.sshd]

WAYS = {"asyncssh": [], "ssh": ["ssh_command=ssh"]}
each_way = pytest.mark.parametrize("way", WAYS)


def replaced(sshd: Sshd, *options: str) -> list[str]:
    """Return the server's options with some of them given anew."""
    keys = {option.partition("=")[0].lower() for option in options}
    kept = [option for option in sshd.options if option.partition("=")[0].lower() not in keys]
    return ["ssh_config=none", *kept, *options]


def expect(
    status: Status, special: str, point: Path, options: list[str], *, says: str = ""
) -> None:
    """Check that mounting is refused with `status`."""
    refusal = Refusal(psshfs_argv(special, point, options), point, says=says)
    assert refusal.status == status, refusal.message
    assert refusal.message.startswith("mount_psshfs: ")


@each_way
def test_unknown_host(sshd: Sshd, point: Path, way: str) -> None:
    host = "no-such-host.invalid"
    options = ["ssh_config=none", *WAYS[way]]
    expect(Status.UNKNOWN_HOST, f"{host}:/", point, options, says=host)


@each_way
def test_refused_port(sshd: Sshd, origin: Path, point: Path, way: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        options = [*replaced(sshd, f"Port={port}"), *WAYS[way]]
        expect(Status.REFUSED, f"127.0.0.1:{origin}", point, options, says="refuse")


@each_way
def test_unknown_host_key(sshd: Sshd, origin: Path, point: Path, tmp_path: Path, way: str) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("")
    options = [*replaced(sshd, f"UserKnownHostsFile={known}"), *WAYS[way]]
    expect(
        Status.HOST_KEY_UNKNOWN,
        f"127.0.0.1:{origin}",
        point,
        options,
        says="not known" if way == "asyncssh" else "No ED25519",
    )
    assert known.read_text() == ""


@pytest.mark.parametrize("checking", ["yes", "accept-new"])
@each_way
def test_changed_host_key(
    sshd: Sshd, origin: Path, point: Path, tmp_path: Path, way: str, checking: str
) -> None:
    """accept-new is for hosts that are new, not for those that have changed."""
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {other}")
    new = (f"UserKnownHostsFile={known}", f"StrictHostKeyChecking={checking}")
    options = [*replaced(sshd, *new), *WAYS[way]]
    argv = psshfs_argv(f"127.0.0.1:{origin}", point, options)
    # OpenSSH's own warning fills a screen, and nobody should keep it from the user.
    refusal = Refusal(argv, point, says="ssh-keygen -R", alone=way == "asyncssh")
    assert refusal.status == Status.HOST_KEY_CHANGED
    assert refusal.message.startswith("mount_psshfs: ")


@each_way
def test_failed_authentication(
    sshd: Sshd, origin: Path, point: Path, tmp_path: Path, way: str
) -> None:
    key = make_key(tmp_path / "stranger")
    options = [*replaced(sshd, f"IdentityFile={key}"), *WAYS[way]]
    expect(Status.AUTHENTICATION, f"127.0.0.1:{origin}", point, options, says="127.0.0.1")


@each_way
def test_no_sftp(origin: Path, point: Path, tmp_path: Path, way: str) -> None:
    with Sshd(tmp_path / "sshd", subsystem=None) as bare:
        options = ["ssh_config=none", *bare.options, *WAYS[way]]
        expect(Status.NO_SFTP, f"127.0.0.1:{origin}", point, options, says="sftp")


@each_way
def test_missing_remote_directory(sshd: Sshd, origin: Path, point: Path, way: str) -> None:
    options = [*replaced(sshd), *WAYS[way]]
    missing = f"127.0.0.1:{origin}/nothing"
    expect(Status.REMOTE_MISSING, missing, point, options, says=f"{origin}/nothing")


@each_way
def test_remote_file(sshd: Sshd, origin: Path, point: Path, way: str) -> None:
    options = [*replaced(sshd), *WAYS[way]]
    expect(Status.REMOTE_NOT_DIRECTORY, f"127.0.0.1:{origin}/f", point, options, says="/f")


def test_no_transport(point: Path) -> None:
    options = ["ssh_config=none", "ssh_command=/nonexistent/ssh"]
    expect(Status.NO_TRANSPORT, "127.0.0.1:/", point, options, says="/nonexistent/ssh")


@pytest.mark.parametrize("program", ["false", "true", "cat /etc/passwd", "echo hello"])
def test_no_sftp_spoken(origin: Path, point: Path, program: str) -> None:
    options = [f"sftp_server={program}"]
    expect(Status.CONNECTION_LOST, f":{origin}", point, options)


def test_no_answer_in_time(origin: Path, point: Path) -> None:
    """Somebody listens and says nothing."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        options = ["ssh_config=none", f"Port={mute.getsockname()[1]}", "ConnectTimeout=2"]
        expect(Status.UNREACHABLE, f"127.0.0.1:{origin}", point, options)


def test_mount_point_missing(sshd: Sshd, origin: Path, point: Path) -> None:
    missing = point / "nothing"
    refusal = Refusal(
        psshfs_argv(f"127.0.0.1:{origin}", missing, replaced(sshd)), missing, says=str(missing)
    )
    assert refusal.status == Status.MOUNT_POINT_MISSING


def test_mount_point_is_a_file(sshd: Sshd, origin: Path, point: Path) -> None:
    file = point / "file"
    file.write_text("")
    refusal = Refusal(
        psshfs_argv(f"127.0.0.1:{origin}", file, replaced(sshd)), file, says=str(file)
    )
    assert refusal.status == Status.MOUNT_POINT_NOT_DIRECTORY


def test_mount_point_busy(mounts: Mounts) -> None:
    ground = mounts.ground(remote=False)
    with mounted(TMPFS, ground) as made:
        got = run(TMPFS.argv(ground))
        assert got.status == Status.MOUNT_POINT_BUSY
        assert len(got.stderr.splitlines()) == 1
        assert str(ground.point) in got.stderr
        assert made.alive()
        assert mounted_type(ground.point) == "fuse." + TMPFS.typename


@pytest.mark.parametrize(
    ("stack", "says"),
    [
        ("puffs|nfs", "nfs"),
        ("puffs|p2k|tmpsf", "tmpfs"),
        ("puffs|tmpfs", "puffs|p2k|tmpfs"),
        ("puffs|p2k|psshfs", "puffs|p2k|puffs|psshfs"),
        ("puffs|p2k", "p2k"),
        ("p2k|tmpfs", "puffs|p2k|tmpfs"),
        ("psshfs|puffs", "puffs|psshfs"),
        ("puffs|psshfs|tmpfs", "psshfs"),
        ("puffs||psshfs", "puffs|psshfs"),
        ("", "puffs"),
        ("|", "puffs"),
    ],
)
def test_misfit_stack(point: Path, stack: str, says: str) -> None:
    argv = [*python_command("mount_puffs"), "-t", stack, "none", str(point)]
    refusal = Refusal(argv, point, says=says)
    assert refusal.status == Status.STACK


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("nonsense", "nonsense"),
        ("allow_othr", "allow_other"),
        ("port=abc", "abc"),
        ("port", "port"),
        ("cache_timeout=-5", "cache_timeout"),
        ("max_read=17", "max_read"),
    ],
)
def test_bad_option(point: Path, option: str, says: str) -> None:
    refusal = Refusal(psshfs_argv("127.0.0.1:/", point, [option]), point, says=says)
    assert refusal.status == Status.USAGE


@pytest.mark.parametrize("name", ["mount_psshfs", "mount_puffs", "syspuffs"])
@pytest.mark.parametrize("arguments", [[], ["--nonsense"]])
def test_bad_command_line(point: Path, name: str, arguments: list[str]) -> None:
    got = run([*python_command(name), *arguments])
    assert got.status == Status.USAGE
    assert got.stdout == ""
    assert got.stderr.splitlines()[-1].startswith(name)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["/nonexistent/command"], Status.NOT_FOUND),
        (["no-such-command-anywhere"], Status.NOT_FOUND),
        (["/etc/passwd"], Status.CANNOT_EXECUTE),
        (["true"], Status.NOTHING_MOUNTED),
    ],
)
def test_wrapped_command_does_not_mount(point: Path, command: list[str], status: Status) -> None:
    refusal = Refusal([*python_command("syspuffs"), "--", *command], point)
    assert refusal.status == status, refusal.message
    assert refusal.message.startswith("syspuffs: ")


@pytest.mark.parametrize("depth", [1, 2])
def test_wrapped_mount_command_fails(sshd: Sshd, origin: Path, point: Path, depth: int) -> None:
    """Message and status are those of the mount command, through any number of syspuffs."""
    argv = psshfs_argv(f"127.0.0.1:{origin}/nothing", point, replaced(sshd))
    refusal = Refusal([*python_command("syspuffs"), "--"] * depth + argv, point)
    assert refusal.status == Status.REMOTE_MISSING
    assert refusal.message.startswith("mount_psshfs: ")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("exit 1", 1), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_wrapped_command_fails(script: str, status: int) -> None:
    """Its status and what it says are passed on as they are."""
    text = "its own words\n"
    argv = [*python_command("syspuffs"), "--", "sh", "-c", f"echo its own words >&2; {script}"]
    got = run(argv)
    assert got.status == status
    assert got.stderr.startswith(text)
    assert got.stdout == ""


def test_wrapped_command_keeps_its_standard_streams() -> None:
    argv = [*python_command("syspuffs"), "--", "sh", "-c", "cat; exit 3"]
    got = run(argv, stdin="from standard input\n")
    assert got.status == 3
    assert got.stdout == "from standard input\n"


# /dev/fuse, in a mount namespace of the test's own: others go on mounting.

_AS_USER = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups "
    "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)
"""Nobody, but for the right to read: the interpreter may be below /root."""


def _in_namespace(script: str, argv: list[str]) -> list[str]:
    return ["unshare", "-m", "sh", "-eu", "-c", script + ' exec $0 "$@"', *argv]


def _dev(nodes: str) -> str:
    return f"mount -t tmpfs -o mode=755 none /dev; {nodes} " + "".join(
        f"mknod -m 666 /dev/{name} c {numbers}; "
        for name, numbers in (("null", "1 3"), ("zero", "1 5"), ("urandom", "1 9"))
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount namespace: run as root")


@needs_root
def test_fuse_missing(point: Path) -> None:
    argv = [*python_command("mount_puffs"), "-t", "puffs|p2k|tmpfs", "none", str(point)]
    refusal = Refusal(_in_namespace(_dev(""), argv), point, says="/dev/fuse")
    assert refusal.status == Status.FUSE_MISSING


@pytest.fixture
def users_point(tmp_path: Path) -> Iterator[Path]:
    """A mount point of nobody's that nobody can reach (pytest's own directories are root's)."""
    top = Path(tempfile.mkdtemp(prefix="weather-"))
    top.chmod(0o755)
    place = top / "mnt"
    place.mkdir()
    os.chown(place, 65534, 65534)
    yield place
    shutil.rmtree(top)


def _tmpfs_argv(point: Path, *options: str) -> list[str]:
    argv = [*python_command("mount_puffs"), "-t", "puffs|p2k|tmpfs", *words(options)]
    return [*argv, "none", str(point)]


@needs_root
def test_no_permission_on_fuse(users_point: Path) -> None:
    script = _dev("mknod -m 600 /dev/fuse c 10 229;")
    argv = _in_namespace(script, [*_AS_USER.split(), *_tmpfs_argv(users_point)])
    refusal = Refusal(argv, users_point, says="/dev/fuse")
    assert refusal.status == Status.FUSE_PERMISSION


@needs_root
def test_no_permission_on_mount_point(users_point: Path) -> None:
    """A user may mount only where he may write."""
    os.chown(users_point, 0, 0)
    argv = [*_AS_USER.split(), *_tmpfs_argv(users_point)]
    refusal = Refusal(argv, users_point, says=str(users_point))
    assert refusal.status == Status.FUSE_PERMISSION


@needs_root
def test_allow_other_for_a_user(users_point: Path) -> None:
    """Only where /etc/fuse.conf lets users say so."""
    conf = Path("/etc/fuse.conf")
    if conf.exists() and "\nuser_allow_other" in "\n" + conf.read_text():
        pytest.skip("/etc/fuse.conf of this machine lets users do so")
    argv = [*_AS_USER.split(), *_tmpfs_argv(users_point, "allow_other")]
    refusal = Refusal(argv, users_point, says="user_allow_other", alone=False)  # fusermount3's own
    assert refusal.status == Status.FUSE_PERMISSION


@needs_root
def test_a_user_can_mount(users_point: Path) -> None:
    """What the refusals above are held against."""
    assert run([*_AS_USER.split(), *_tmpfs_argv(users_point)]).status == 0
    assert mounted_type(users_point) == "fuse.puffs|p2k|tmpfs"
    script = "echo hello > $0/f && cat $0/f"
    got = run([*_AS_USER.split(), "sh", "-c", script, str(users_point)])
    assert (got.status, got.stdout) == (0, "hello\n")
    assert run([*_AS_USER.split(), "fusermount3", "-u", str(users_point)]).status == 0
    assert mounted_type(users_point) is None
