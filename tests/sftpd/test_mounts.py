"""The SFTP end mounted: by sshfs, which must lose nothing that it has on OpenSSH, and by psshfs."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..programs.shell import Shell
from ..programs.tree import make_tree
from ..support.leaks import UMOUNT
from ..support.mounts import mounted_type, python_command, run, wait_until, words
from ..support.sshd import Sshd
from .conftest import Ground, Resident, program

pytestmark = [pytest.mark.sshd, pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture
def sshfs(ground: Ground, tmp_path: Path) -> Iterator[Shell]:
    """A shell with $M, the ground mounted by sshfs without caches, and $L, a directory here."""
    point = tmp_path / "mnt"
    point.mkdir()
    options = ["-o", "dir_cache=no,no_contain_symlinks"]
    subprocess.run(
        ["sshfs", "-F", ground.server.config, *options, f"t:{ground.remote}", point],
        check=True,
        timeout=30,
    )
    try:
        yield Shell(point, ground.local, None)
    finally:
        subprocess.run([*UMOUNT, str(point)], check=True, timeout=30)


@pytest.mark.programs(sshfs="sshfs")
def test_what_sshfs_has_on_openssh(sshfs: Shell) -> None:
    mount = sshfs.mount
    # Links: two names of one file.
    (mount / "f").write_text("one")
    os.link(mount / "f", mount / "g")
    (mount / "g").write_text("both")
    assert (mount / "f").read_text() == "both"
    # An atomic rename over what is there, also while somebody reads.
    (mount / "new").write_text("new")
    with open(mount / "f") as reader:
        os.rename(mount / "new", mount / "f")
        assert reader.read() == "both"
    assert (mount / "f").read_text() == "new"
    with open(mount / "g", "r+b") as file:
        file.write(b"synced")
        file.flush()
        os.fsync(file.fileno())
    # df.
    state = os.statvfs(mount)
    assert state.f_blocks > 0
    assert state.f_bavail > 0
    assert sshfs.run("df --output=size $M | tail -1").strip() != "0"
    # Times of a link itself, and of a file.
    os.symlink("f", mount / "l")
    os.utime(mount / "f", (1000, 2000))
    assert (mount / "f").stat().st_mtime == 2000
    assert os.readlink(mount / "l") == "f"
    assert sorted(os.listdir(mount)) == ["f", "g", "l"]


@pytest.mark.programs(sshfs="sshfs")
def test_which_requests_sshfs_makes(tmp_path: Path) -> None:
    """The program's own log tells that sshfs has found what it wants, fsync above all."""
    point, log = tmp_path / "mnt", tmp_path / "log"
    point.mkdir()
    near, far = socket.socketpair()
    with near, far, open(log, "wb") as errors:
        server = subprocess.Popen(
            [*python_command("puffs_sftp_server"), *"-e -l DEBUG -t p2k|tmpfs x".split()],
            stdin=far.fileno(),
            stdout=far.fileno(),
            stderr=errors,
        )
        mounting = subprocess.Popen(
            ["sshfs", "-f", "-o", "passive", ":/", point], stdin=near.fileno(), stdout=near.fileno()
        )
    try:
        assert wait_until(lambda: mounted_type(point) is not None)
        with open(point / "f", "w") as file:
            file.write("data")
            file.flush()
            os.fsync(file.fileno())
        os.link(point / "f", point / "g")
        os.rename(point / "f", point / "g")
        os.statvfs(point)
    finally:
        subprocess.run([*UMOUNT, str(point)], check=True, timeout=30)
        assert mounting.wait(timeout=30) == 0
        assert server.wait(timeout=30) == 0
    said = log.read_text().splitlines()
    for line in (
        'open "/f" flags WRITE,CREATE,TRUNCATE mode 0100644',
        "fsync",
        'hardlink old "/f" new "/g"',
        'posix-rename old "/f" new "/g"',
        'close "/f" bytes read 0 written 4',
        'statvfs "/"',
    ):
        assert line in said, (line, said)


@pytest.mark.programs(sshfs="sshfs", git="git", diff="diffutils")
def test_real_work_through_sshfs(sshfs: Shell) -> None:
    make_tree(sshfs.local / "tree", special_names=False)
    # Owner and times are left: sshfs changes those of a link's target, on every server.
    copy = "cp -r --no-dereference --preserve=mode"
    sshfs.run(f"{copy} $L/tree $M/ && diff -r --no-dereference $L/tree $M/tree")
    sshfs.run("tar -C $M -cf $L/t.tar tree && tar -C $M -df $L/t.tar")
    sshfs.run(f"{copy} $M/tree $M/copy && rm -r $M/tree && mv $M/copy $M/tree")
    sshfs.run(
        """
        cd $M && git init -q -b main r && cd r && cp -r ../tree/doc . && git add -A
        git commit -q -m one && echo x >> doc/file2.txt && git commit -q -a -m two
        git fsck --strict --no-progress && test -z "$(git status --porcelain)"
        """
    )


def test_psshfs_on_the_program_itself(tmp_path: Path) -> None:
    """mount_psshfs -o sftp_server=puffs_sftp_server: our own client on our own server."""
    point, origin, log = tmp_path / "mnt", tmp_path / "origin", tmp_path / "log"
    point.mkdir()
    origin.mkdir()
    options = words([f"log={log}", f"sftp_server={program()}"])
    got = run([*python_command("mount_psshfs"), *options, f":{origin}", str(point)])
    assert got.status == 0, got.stderr
    try:
        assert mounted_type(point) == "fuse.puffs|psshfs"
        make_tree(tmp_path / "tree", special_names=False)
        subprocess.run(["cp", "-a", tmp_path / "tree", point], check=True, timeout=60)
        for other in (point, origin):
            subprocess.run(
                ["diff", "-r", "--no-dereference", tmp_path / "tree", other / "tree"],
                check=True,
                timeout=60,
            )
        os.rename(point / "tree", point / "moved")
        assert os.listdir(origin) == ["moved"]
    finally:
        subprocess.run([*UMOUNT, str(point)], check=True, timeout=30)
        assert wait_until(lambda: mounted_type(point) is None)
    assert not log.exists() or log.read_text() == ""


def test_a_session_by_force_command(tmp_path: Path, resident: Resident) -> None:
    """ForceCommand in place of Subsystem: whatever the client asks to run, it gets us."""
    lines = [f"ForceCommand {resident.command}"]
    with Sshd(tmp_path / "sshd", subsystem="/bin/false", lines=lines) as sshd:
        options = [word for option in sshd.options for word in ("-o", option)]
        done = subprocess.run(
            ["sftp", "-F", "none", "-b", "-", *options, sshd.host],
            input="pwd\ndf\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "Remote working directory: /" in done.stdout


@pytest.mark.programs(restic="restic")
@pytest.mark.parametrize("ground", ["tmpfs"], indirect=True)
def test_restic(ground: Ground) -> None:
    """A backup program on top of it, which reads back what it has written."""
    make_tree(ground.local / "tree", special_names=False)
    command = f"ssh -F {ground.server.config} t -s sftp"
    restic = ["restic", "-q", "-o", f"sftp.command={command}", "-r", f"sftp:t:{ground.remote}/r"]
    env = {**os.environ, "RESTIC_PASSWORD": "x", "HOME": str(ground.local)}
    for action in (["init"], ["backup", "tree"], ["check", "--read-data"]):
        done = subprocess.run(
            [*restic, *action],
            cwd=ground.local,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_a_client_is_killed_while_it_writes(tmp_path: Path, resident: Resident) -> None:
    """The session ends, others notice nothing, what came in is there."""
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as file:
        file.truncate(1 << 30)
    with Sshd(tmp_path / "sshd", subsystem=resident.command) as sshd:
        options = [word for option in sshd.options for word in ("-o", option)]
        client = subprocess.Popen(
            ["sftp", "-F", "none", "-b", "-", *options, sshd.host],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert client.stdin is not None
        client.stdin.write(b"put %b /vanishing\n" % bytes(sparse))
        client.stdin.close()
        assert wait_until(lambda: b"/vanishing" in _listing(sshd))
        sshd.kill_sessions()
        client.wait(timeout=10)
        assert b"/vanishing" in _listing(sshd)
        done = subprocess.run(
            ["sftp", "-F", "none", "-b", "-", *options, sshd.host],
            input=b"rm /vanishing\n",
            stdout=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0


def _listing(sshd: Sshd) -> bytes:
    options = [word for option in sshd.options for word in ("-o", option)]
    return subprocess.run(
        ["sftp", "-F", "none", "-b", "-", *options, sshd.host],
        input=b"ls -1 /\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=True,
    ).stdout
