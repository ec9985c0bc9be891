"""The units and a line of fstab under a systemd of our own, the first process of a name space.

It sees this machine's files, and what it writes goes into a tmpfs that ends with it. None of the
machine's own services, mounts and timers is started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.mounts import run, wait_until
from ..support.sshd import Sshd, list_descendants

SYSTEMD = "/lib/systemd/systemd"
UNITS = Path(__file__).resolve().parents[2] / "bin" / "etc"

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.sshd,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make name spaces for systemd"),
    pytest.mark.skipif(not os.access(SYSTEMD, os.X_OK), reason="systemd is not installed"),
]

SCRIPT = r"""
set -e
mount -t tmpfs none {work}
cd {work}
mkdir up work root
mount -t overlay none -o lowerdir=/,upperdir=up,workdir=work root
cd root
mount -t proc proc proc
mount --bind /dev dev
mount --bind /sys sys
mount --bind {tmp} .{tmp}
mount -t tmpfs none run
mount -t cgroup2 none sys/fs/cgroup
mkdir -p run/lock old srv/remote srv/fstab
for unit in lib/systemd/system/*.service lib/systemd/system/*mount lib/systemd/system/*.timer; do
    case $unit in
    *dbus*|*journald.service) ;;
    *) ln -sf /dev/null etc/systemd/system/${{unit##*/}} ;;
    esac
done
cp {tmp}/units/* etc/systemd/system
cp {tmp}/fstab etc/fstab
printf '#!/bin/sh\nexec {python} -m syspuffs.bin.mount_helper "$@"\n' > usr/sbin/mount.psshfs
chmod +x usr/sbin/mount.psshfs
pivot_root . old
umount -l /old
exec env -i container=other {systemd} --system --unit=ours.target
"""

TARGET = """
[Unit]
Description=Nothing but what a test starts
DefaultDependencies=no
AllowIsolate=yes
"""

Within = Callable[[str], str]


@pytest.fixture
def within(tmp_path: Path, sshd: Sshd) -> Iterator[Within]:
    """Run a command where that systemd is, and return what it says."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    what = f"127.0.0.1:{tmp_path}/tree"
    words = ",".join(("ssh_config=none", *sshd.options))
    (tmp_path / "fstab").write_text(
        f"{what} /srv/fstab psshfs noauto,x-systemd.automount,_netdev,nofail,{words} 0 0\n"
    )
    units = tmp_path / "units"
    units.mkdir()
    (units / "ours.target").write_text(TARGET)
    for path in UNITS.glob("srv-remote.*"):
        rows = [
            f"What={what}"
            if row.startswith("What=")
            else f"Options=_netdev,{words},idmap=user"
            if row.startswith("Options=")
            else row.replace("IdleSec=600", "IdleSec=1")
            for row in path.read_text().splitlines()
        ]
        (units / path.name).write_text("\n".join(rows) + "\n")
    (tmp_path / "work").mkdir()
    script = SCRIPT.format(
        work=tmp_path / "work", tmp=tmp_path, python=sys.executable, systemd=SYSTEMD
    )
    spaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--propagation", "private"]
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["unshare", *spaces, "--fork", "--kill-child", "/bin/sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )

    def command(text: str) -> str:
        (first, *_) = list_descendants(process.pid)
        where = ["nsenter", "-t", str(first), "-m", "-p", "-u", "-i", "-C"]
        got = run([*where, "/bin/sh", "-c", text])
        return got.stdout + got.stderr

    try:
        assert wait_until(
            lambda: (
                process.poll() is not None
                or (
                    bool(list_descendants(process.pid))
                    and "running" in command("systemctl is-system-running")
                )
            ),
            20.0,
        )
        if process.poll() is not None:
            pytest.skip(f"systemd does not run here: {log.read_text()[-500:]}")
        yield command
    finally:
        process.kill()
        process.wait()


def test_units(within: Within, tmp_path: Path) -> None:
    within("systemctl start srv-remote.automount")
    assert "psshfs" not in within("cat /proc/self/mountinfo"), "nobody has looked yet"
    assert within("cat /srv/remote/file") == "content"
    assert "fuse.puffs|psshfs" in within("grep /srv/remote /proc/self/mountinfo")
    within("echo made > /srv/remote/made")
    assert (tmp_path / "tree" / "made").read_text() == "made\n"
    assert wait_until(lambda: within("systemctl is-active srv-remote.mount") == "inactive\n")
    assert within("systemctl show -P Result srv-remote.mount") == "success\n"
    assert within("cat /srv/remote/file") == "content", "it comes back"


def test_a_line_of_fstab(within: Within) -> None:
    within("systemctl start srv-fstab.automount")
    assert within("cat /srv/fstab/file") == "content"
    within("systemctl stop srv-fstab.automount srv-fstab.mount")
    assert within("systemctl show -P Result srv-fstab.mount") == "success\n"


def test_a_server_that_is_away(within: Within, sshd: Sshd) -> None:
    within(f"sed -i s/Port={sshd.port}/Port=1/ /etc/fstab; systemctl daemon-reload")
    assert "failed" in within("systemctl start srv-fstab.mount")
    assert within("systemctl show -P Result srv-fstab.mount") == "exit-code\n"
    assert "mount.psshfs: 127.0.0.1 port 1: connection refused" in within("mount /srv/fstab")
