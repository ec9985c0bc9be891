"""Elements between file servers, in stacks by their string and on the host."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ..support.mounts import Ground, MountCommand, mounted, python_command, run

pytestmark = pytest.mark.fuse


def failing(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == number)


def ground(tmp_path: Path, *options: str) -> Ground:
    return Ground(tmp_path / "origin", tmp_path / "mnt", tmp_path / "log", None, options)


def command(stack: str) -> MountCommand:
    def argv(ground: Ground) -> list[str]:
        options = [word for option in ground.options for word in ("-o", option)]
        return [*python_command("mount_puffs"), "-t", stack, *options, "none", str(ground.point)]

    return MountCommand(stack, argv, remote=False)


def test_faults_at_two_places(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text(
        '[[rule]]\nop = "mkdir"\npath = "/upper"\nerrno = "EIO"\n'
        '[[rule]]\nplace = "frames"\nop = "rmdir"\nerrno = "EBUSY"\n'
    )
    here = ground(tmp_path, f"faults={rules}")
    with mounted(command("puffs|fault|p2k|puffs|p2k|tmpfs"), here) as mount:
        with failing(errno.EIO):
            (mount.point / "upper").mkdir()
        (mount.point / "lower").mkdir()
        with failing(errno.EBUSY):
            (mount.point / "lower").rmdir()


def test_readonly_and_null(tmp_path: Path) -> None:
    here = ground(tmp_path, "throttle_ops=100000")
    with mounted(command("puffs|null|throttle|readonly|p2k|tmpfs"), here) as mount:
        with failing(errno.EROFS):
            (mount.point / "d").mkdir()
        assert os.statvfs(mount.point).f_blocks


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("[[rule]]\n", "rule 1: it says no fault"), (None, "No such file or directory")],
)
def test_rules_that_make_no_sense(tmp_path: Path, text: str | None, complaint: str) -> None:
    rules = tmp_path / "rules"
    if text is not None:
        rules.write_text(text)
    argv = [*python_command("mount_puffs"), "-t", "puffs|fault|p2k|tmpfs", "-o", f"faults={rules}"]
    got = run([*argv, "none", str(tmp_path)])
    assert (got.status, got.stderr.count("\n")) == (2, 1)
    assert complaint in got.stderr
