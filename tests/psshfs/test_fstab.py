"""`mount -t psshfs`, as fstab and systemd run it: by root's mount(8), without an environment.

In a mount name space of its own, with a /sbin that has our helper: nothing of the machine changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.mounts import python_command, run
from ..support.sshd import Sshd

pytestmark = [pytest.mark.fuse, pytest.mark.sshd]

UNITS = Path(__file__).resolve().parents[2] / "bin" / "etc"
FSTAB_WORDS = "_netdev,nofail,noauto,users,x-systemd.automount,x-gvfs-name=a,comment=b,defaults"

SCRIPT = """
set -e
mount -t tmpfs none {work}/layers
mkdir {work}/layers/upper {work}/layers/work
cd {work}/layers
mount -t overlay none -o lowerdir=/usr/sbin,upperdir=upper,workdir=work /usr/sbin
cat > /usr/sbin/mount.psshfs <<end
#!/bin/sh
exec {python} -m syspuffs.bin.mount_helper "\\$@"
end
chmod +x /usr/sbin/mount.psshfs
ln -s mount.psshfs /usr/sbin/mount.fuse.psshfs
cp /usr/sbin/mount.psshfs /usr/sbin/psshfs
sed -i s/mount_helper/psshfs/ /usr/sbin/psshfs
{command}
cat {point}/file
grep " {point} " /proc/self/mountinfo
umount {point}
"""


def in_a_name_space(tmp_path: Path, command: str) -> list[str]:
    """Run `command`, which mounts on `{point}`; return what `SCRIPT` prints then."""
    if os.geteuid() != 0:
        pytest.skip("mount(8) needs root")
    (tmp_path / "layers").mkdir()
    script = SCRIPT.format(
        work=tmp_path, python=sys.executable, command=command, point=tmp_path / "mnt"
    )
    got = run(
        ["unshare", "-m", "--propagation", "private", "/bin/sh", "-c", script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert got.status == 0, got.stderr
    return got.stdout.splitlines()


@pytest.fixture
def line(tmp_path: Path, point: Path, sshd: Sshd) -> tuple[str, str, str]:
    """What to mount, where, and with which words."""
    (tmp_path / "tree, and more").mkdir()
    (tmp_path / "tree, and more" / "file").write_text("content\n")
    words = ",".join(("ssh_config=none", *sshd.options, FSTAB_WORDS))
    return f"127.0.0.1:{tmp_path}/tree, and more", str(point), words


@pytest.mark.parametrize("kind", ["psshfs", "fuse.psshfs"])
def test_by_type(tmp_path: Path, line: tuple[str, str, str], kind: str) -> None:
    """With no environment at all, as a daemon would run it."""
    what, where, words = line
    said = in_a_name_space(
        tmp_path, f"env -i /bin/mount -t {kind} -o ro,'{words}' '{what}' '{where}'"
    )
    assert said[0] == "content"
    assert "fuse.puffs|psshfs" in said[1]
    assert " ro," in said[1]


def test_by_the_helper_of_fuse(tmp_path: Path, line: tuple[str, str, str]) -> None:
    """`program#what` and the type fuse: the way that needs no link in /sbin for the type."""
    what, where, words = line
    if shutil.which("mount.fuse3") is None:
        pytest.skip("mount.fuse3 is not installed")
    said = in_a_name_space(
        tmp_path, f"env -i /sbin/mount.fuse3 'psshfs#{what}' '{where}' -o '{words}'"
    )
    assert said[0] == "content"


def test_by_fstab(tmp_path: Path, line: tuple[str, str, str]) -> None:
    what, where, words = line
    fstab = tmp_path / "fstab"
    fstab.write_text(
        f"{what} {where} psshfs {words},rw 0 0\n".replace(", and more", ",\\040and\\040more")
    )
    said = in_a_name_space(tmp_path, f"env -i /bin/mount -T {fstab} '{where}'")
    assert said[0] == "content"


def test_what_the_helper_takes() -> None:
    helper = python_command("mount_helper")
    assert run([*helper, "-f", "host:", "/mnt", "-o", "nonsense"]).status == 0
    got = run([*helper, "host:", "/no/such/place", "-o", "nonsense"])
    assert (got.status, got.stderr.count("\n")) == (2, 1)
    got = run([*helper, "host:", "/no/such/place", "-sn", "-o", "nonsense,rw", "-t", "psshfs"])
    assert got.status == 30
    assert got.stderr.startswith("mount.psshfs: /no/such/place: mount point does not exist")


@pytest.mark.parametrize("unit", ["srv-remote.mount", "srv-remote.automount"])
def test_units(tmp_path: Path, unit: str) -> None:
    """systemd takes them as they are, and our command takes their words."""
    for path in UNITS.glob("srv-remote.*"):
        shutil.copy(path, tmp_path)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in checked.stderr.splitlines() if "srv-remote" in line]
    assert checked.returncode == 0, checked.stderr
    assert ours == []


def test_the_words_of_the_unit(tmp_path: Path) -> None:
    text = (UNITS / "srv-remote.mount").read_text()
    (words,) = [row.partition("=")[2] for row in text.splitlines() if row.startswith("Options=")]
    got = run([*python_command("mount_helper"), "host:", f"{tmp_path}/none", "-o", words])
    assert got.status == 30, got.stderr
