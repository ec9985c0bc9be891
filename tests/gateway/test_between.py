"""Elements between file servers, in stacks by their string and on the host."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from syspuffs.gateway.status import Status
from syspuffs.layers.trace import events

from ..support.mounts import (
    Ground,
    MountCommand,
    mounted,
    mounted_type,
    python_command,
    run,
    unmount_by_force,
    wait_until,
)

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


def under_syspuffs(type_: str, *argv: str) -> MountCommand:
    def whole(ground: Ground) -> list[str]:
        options = [word for option in ground.options for word in ("-o", option)]
        places = {"ORIGIN": str(ground.origin), "POINT": str(ground.point)}
        return [*python_command("syspuffs"), *options, *(places.get(a, a) for a in argv)]

    return MountCommand(type_, whole, remote=False)


def test_faults_of_frames_to_another_process(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text(
        '[[rule]]\nplace = "frames"\nop = "mkdir"\nerrno = "EDQUOT"\nnth = 1\n'
        '[[rule]]\nplace = "frames"\nop = "read"\nshort = 3\nnth = 1\n'
        '[[rule]]\nplace = "frames"\nop = "remove"\ndelay = 0.3\n'
    )
    words = ["-t", "puffs|p2k|tmpfs", "none", "POINT"]
    command = under_syspuffs("puffs|p2k|puffs|p2k|tmpfs", *python_command("mount_puffs"), *words)
    with mounted(command, ground(tmp_path, f"faults={rules},nocache")) as mount:
        with failing(errno.EDQUOT):
            (mount.point / "d").mkdir()
        (mount.point / "d").mkdir()
        (mount.point / "f").write_bytes(b"0123456789")
        assert os.stat(mount.point / "f").st_size == 10
        with open(mount.point / "f", "rb", buffering=0) as file:
            assert file.read(10) == b"012"
        assert (mount.point / "f").read_bytes() == b"0123456789"
        before = time.monotonic()
        (mount.point / "f").unlink()
        assert time.monotonic() - before >= 0.3


@pytest.mark.logs("")
def test_faults_of_a_fuse_program(tmp_path: Path) -> None:
    """bindfs, its requests at fault, and in the end its death, as one of /dev/fuse."""
    rules = tmp_path / "rules"
    rules.write_text(
        '[[rule]]\nplace = "fuse"\nop = "mkdir"\nerrno = "EDQUOT"\nnth = 1\n'
        '[[rule]]\nplace = "fuse"\nop = "write"\nshort = 3\nnth = 1\n'
        '[[rule]]\nplace = "fuse"\nop = "rename"\ndeath = true\n'
    )
    here = ground(tmp_path)
    for place in (here.origin, here.point):
        place.mkdir()
    words = ["-o", f"faults={rules},nocache,log={here.log}"]
    argv = [*python_command("syspuffs"), *words, "bindfs", "-f", str(here.origin), str(here.point)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: mounted_type(here.point) is not None)
        with failing(errno.EDQUOT):
            (here.point / "d").mkdir()
        (here.point / "d").mkdir()
        with failing(errno.EIO):
            (here.point / "f").write_bytes(b"0123456789")
        assert (here.origin / "f").read_bytes() == b"012"
        with failing(errno.ENOTCONN):
            (here.point / "d").rename(here.point / "e")
        assert (here.origin / "d").is_dir()
        # As for any program that has ended, its mount goes; not everything was written, it seems.
        assert wait_until(lambda: mounted_type(here.point) is None)
        assert process.wait(20) == Status.UNSAVED
    finally:
        process.kill()
        process.wait()
        unmount_by_force(here.point)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["mount_puffs", "-t", "puffs|fault|p2k|tmpfs"], "no place 'sftp' here (there: server)"),
        (["syspuffs", "mount_puffs", "-t", "puffs|p2k|tmpfs"], "(there: frames, fuse)"),
    ],
)
def test_rules_for_places_that_are_not_there(
    tmp_path: Path, command: list[str], complaint: str
) -> None:
    rules = tmp_path / "rules"
    rules.write_text('[[rule]]\nplace = "sftp"\nerrno = "EIO"\n')
    program, *words = command
    got = run([*python_command(program), "-o", f"faults={rules}", *words, "none", str(tmp_path)])
    assert (got.status, got.stderr.count("\n")) == (2, 1)
    assert complaint in got.stderr


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


def test_a_trace_of_a_command(tmp_path: Path) -> None:
    """`syspuffs -o trace=FILE`: what the host asks, at the top of everything."""
    words = ["-t", "puffs|p2k|tmpfs", "none", "POINT"]
    stack = "puffs|trace|p2k|puffs|p2k|tmpfs"
    command = under_syspuffs(stack, *python_command("mount_puffs"), *words)
    with mounted(command, ground(tmp_path, f"trace={tmp_path / 't'}")) as mount:
        (mount.point / "d").mkdir()
    found = list(events(tmp_path / "t"))
    assert [event.path for event in found if event.name == "mkdir"] == [b"/d"]
    assert {event.info.typename for event in found} == {stack.removeprefix("puffs|")}
