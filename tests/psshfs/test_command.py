"""`alias sshfs=psshfs`: the habits of sshfs, with a real sshd and real mounts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ..support.leaks import command_line, descendants, mounts, reap
from ..support.mounts import mounted_type, python_command, unmount, wait_until
from ..support.sshd import Sshd, find_sftp_server
from .conftest import Mount, listening

pytestmark = [pytest.mark.fuse, pytest.mark.sshd]


def test_options_stand_anywhere(psshfs: Mount, point: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("there")
    got = psshfs(
        "-C", f"127.0.0.1:{tmp_path}/tree", "-o", "ro", str(point), "-s", "-ofsname=x:y,rw"
    )
    assert (got.status, got.stderr, got.stdout) == (0, "", "")
    assert (point / "file").read_text() == "there"
    (line,) = [line for line in mounts() if line.mount_point == str(point)]
    assert (line.source, line.fstype) == ("x:y", "fuse.puffs|psshfs")
    assert "rw" in line.options.split(",")


def test_no_directory_is_the_home(psshfs: Mount, point: Path) -> None:
    assert psshfs("127.0.0.1:", str(point)).status == 0
    assert sorted(os.listdir(point)) == sorted(os.listdir(Path.home()))


@pytest.mark.parametrize("name", ["-Ä\\,b:c d"])
def test_names_that_could_be_taken_for_more(
    psshfs: Mount, point: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "it").touch()
    assert psshfs(f"127.0.0.1:{tmp_path}/{name}", str(point)).status == 0
    assert os.listdir(point) == ["it"]


def test_an_address_in_brackets(psshfs: Mount, sshd: Sshd, point: Path, tmp_path: Path) -> None:
    """Nobody listens there, which is what is said."""
    got = psshfs(f"[::1]:{tmp_path}", str(point))
    assert got.status == 11
    assert "::1" in got.stderr


@pytest.mark.parametrize(
    ("ssh", "server"), [("asyncssh", find_sftp_server()), ("openssh", find_sftp_server())]
)
def test_the_server_by_name_or_path(
    psshfs: Mount, point: Path, tmp_path: Path, ssh: str, server: str
) -> None:
    words = ["-o", f"sftp_server={server}"]
    if ssh == "openssh":
        words += ["-o", "ssh_command=ssh"]
    got = psshfs(f"127.0.0.1:{tmp_path}", str(point), *words)
    assert (got.status, got.stderr) == (0, "")
    assert "mnt" in os.listdir(point)


def test_a_server_that_is_not_there(psshfs: Mount, point: Path) -> None:
    got = psshfs("127.0.0.1:", str(point), "-o", "sftp_server=/no/such/server")
    assert got.status == 16, got.stderr
    assert len(got.stderr.splitlines()) == 1


def test_words_without_effect_say_so_and_the_mount_comes(
    psshfs: Mount, point: Path, tmp_path: Path
) -> None:
    got = psshfs(
        f"127.0.0.1:{tmp_path}", str(point), "-1", "-o", "kernel_cache,dcache_clean_interval=9"
    )
    assert got.status == 0
    lines = got.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("psshfs: option '") for line in lines)
    assert mounted_type(point) == "fuse.puffs|psshfs"


def test_without_ssh_by_a_port(point: Path, tmp_path: Path, psshfs: Mount) -> None:
    server, port = listening([find_sftp_server()])
    with server:
        got = psshfs(f"localhost:{tmp_path}", str(point), "-o", f"directport={port}", port=False)
        assert (got.status, got.stderr) == (0, "")
        (point / "made").write_text("so")
        assert (tmp_path / "made").read_text() == "so"
        unmount(point)
        assert server.wait(10) == 0


def test_a_port_that_speaks_no_sftp(point: Path, psshfs: Mount) -> None:
    server, port = listening(["/bin/true"])
    with server:
        got = psshfs("localhost:/", str(point), "-o", f"directport={port}", port=False)
    assert got.status == 17
    assert "is it an SFTP server" in got.stderr
    got = psshfs("localhost:/", str(point), "-o", f"directport={port}", port=False)
    assert got.status == 11


def test_a_vsock_that_is_not_there(point: Path, psshfs: Mount) -> None:
    got = psshfs(":/", str(point), "-o", "vsock=77:7", port=False)
    assert got.status in (11, 12)
    assert got.stderr.startswith("psshfs: vsock 77:7: ")


@pytest.mark.parametrize(("kind", "word"), [("socket", "passive"), ("pipes", "slave")])
def test_over_standard_input_and_output(point: Path, tmp_path: Path, kind: str, word: str) -> None:
    if kind == "socket":
        near, far = (end.detach() for end in socket.socketpair())
        ends = (near, near, far, far)
    else:
        down, up = os.pipe(), os.pipe()
        ends = (down[0], up[1], up[0], down[1])
    command = [*python_command("psshfs"), "-o", word, f":{tmp_path}", str(point)]
    with (
        subprocess.Popen([find_sftp_server()], stdin=ends[2], stdout=ends[3]) as server,
        subprocess.Popen(command, stdin=ends[0], stdout=ends[1], stderr=subprocess.PIPE) as client,
    ):
        for descriptor in set(ends):
            os.close(descriptor)
        assert wait_until(lambda: mounted_type(point) is not None)
        (point / "data").write_bytes(bytes(range(256)) * 4096)
        assert (tmp_path / "data").read_bytes() == bytes(range(256)) * 4096
        assert client.poll() is None, "it stays in the foreground"
        unmount(point)
        assert client.wait(10) == 0
        assert server.wait(10) == 0


def test_permissions_owner_and_group_as_shown(psshfs: Mount, point: Path, tmp_path: Path) -> None:
    """umask sets what is shown, as libfuse has it; fmask is for files, dmask for directories."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").touch(0o600)
    shown = "umask=022,fmask=0133,uid=12,gid=34"
    assert psshfs(f"127.0.0.1:{tree}", str(point), "-o", shown).status == 0
    file, directory = (point / "file").stat(), (point / "sub").stat()
    assert (file.st_mode & 0o7777, directory.st_mode & 0o7777) == (0o644, 0o755)
    assert (file.st_uid, file.st_gid) == (12, 34)
    assert (tree / "file").stat().st_mode & 0o777 == 0o600


def test_hard_links_can_be_switched_off(psshfs: Mount, point: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert psshfs(f"127.0.0.1:{tmp_path}", str(point), "-o", "disable_hardlink").status == 0
    with pytest.raises(OSError, match=r"not (permitted|implemented)"):
        os.link(point / "file", point / "other")


def test_no_link_leads_out(psshfs: Mount, point: Path, tmp_path: Path) -> None:
    """As the host's kernel follows them: CVE-2026-47187 of sshfs."""
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "file").write_text("in")
    (tmp_path / "secret").write_text("out")
    inside = {"abs": f"{tree}/file", "up": "../../file", "a/up": "../file"}
    outside = {"passwd": "/etc/passwd", "out": "../secret", "a/b/out": "../../../secret"}
    outside |= {"there": f"{tmp_path}/secret", "new": "../made-by-the-mount"}
    (tree / "a" / "b" / "up").symlink_to(inside.pop("up"))
    for name, target in {**inside, **outside}.items():
        (tree / name).symlink_to(target)
    assert psshfs(f"127.0.0.1:{tree}", str(point)).status == 0
    for name in ("abs", "a/b/up", "a/up"):
        assert (point / name).read_text() == "in"
    for name in outside:
        with pytest.raises(PermissionError):
            (point / name).read_text()
        with pytest.raises(PermissionError):
            (point / name).write_text("led astray")
    assert not (tmp_path / "made-by-the-mount").exists()
    assert sorted(os.listdir(point)) == sorted(os.listdir(tree))


def test_users_by_a_file(psshfs: Mount, point: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").touch()
    uids, gids = tmp_path / "uids", tmp_path / "gids"
    uids.write_text(f"54321:{os.geteuid()}\n")
    gids.write_text(f"54322:{os.getegid()}\n")
    words = f"idmap=file,uidfile={uids},gidfile={gids},nomap=error"
    assert psshfs(f"127.0.0.1:{tree}", str(point), "-o", words).status == 0
    state = (point / "file").stat()
    assert (state.st_uid, state.st_gid) == (54321, 54322)
    with pytest.raises(PermissionError):
        os.chown(point / "file", 54329, 54322)
    os.chown(point / "file", 54321, 54322)
    assert (tree / "file").stat().st_uid == os.geteuid()


def test_a_directory_below(psshfs: Mount, point: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    words = "modules=subdir,subdir=a/b"
    assert psshfs(f"127.0.0.1:{tmp_path}", str(point), "-o", words).status == 0
    assert os.listdir(point) == ["c"]


def test_somebody_waits_to_unmount_what_is_killed(
    psshfs: Mount, point: Path, tmp_path: Path
) -> None:
    """fusermount3 stays, and ends with the process of the mount, which it unmounts.

    That it does is not tested: when our descriptors close in the wrong order, as those of sshfs
    may, it finds a mount that is not dead yet, and leaves it (libfuse 3.14).
    """
    before = set(descendants(os.getpid()))
    assert psshfs(f"127.0.0.1:{tmp_path}", str(point), "-o", "auto_unmount").status == 0
    started = {pid: command_line(pid) for pid in set(descendants(os.getpid())) - before}
    (helper,) = [pid for pid, said in started.items() if said.startswith("fusermount3 -o")]
    assert "auto_unmount" in started[helper]
    (daemon,) = [pid for pid, said in started.items() if "syspuffs.bin.psshfs" in said]
    os.kill(daemon, signal.SIGKILL)

    def ended() -> bool:
        reap([daemon, helper])
        return not command_line(helper)

    assert wait_until(ended)


def test_foreground_ends_at_a_signal(psshfs: Mount, sshd: Sshd, point: Path) -> None:
    words = [a for o in ("ssh_config=none", *sshd.options) for a in ("-o", o)]
    command = [*python_command("psshfs"), *words, "-f", "127.0.0.1:", str(point)]
    with subprocess.Popen(command) as process:
        assert wait_until(lambda: mounted_type(point) is not None)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert mounted_type(point) is None


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-h"], 0),
        (["--help"], 0),
        (["-V"], 0),
        (["--version"], 0),
        ([], 2),
        (["host:"], 2),
        (["-o", "frobnicate", "host:", "/"], 2),
        (["-x", "host:", "/"], 2),
        (["-p", "0", "host:", "/"], 2),
        (["-o", "idmap=file", "host:", "{point}"], 2),
        (["no-such-host.invalid:", "{point}"], 10),
        (["host:", "/no/such/directory"], 30),
    ],
)
def test_exit_status(arguments: list[str], status: int, point: Path) -> None:
    argv = [argument.format(point=point) for argument in arguments]
    start = time.monotonic()
    done = subprocess.run(
        [*python_command("psshfs"), "-ossh_config=none", *argv],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == (0 if status == 0 else 1)
    assert time.monotonic() - start < 20
    with suppress(IndexError):
        assert done.stdout.split()[0] in ("usage:", "psshfs")
