"""puffsctl on real mounts: what it finds, what it says, and that nobody else may ask."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.leaks import fuse_mounts
from ..support.mounts import python_command, run, unmount, wait_until
from ..support.sshd import find_sftp_server

pytestmark = pytest.mark.fuse

PUFFSCTL = python_command("puffsctl")
SYSPUFFS = python_command("syspuffs")
MOUNT_PUFFS = python_command("mount_puffs")


@pytest.fixture(autouse=True)
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own: mounts of other tests are none of its business."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime / "syspuffs"


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if str(path) in fuse_mounts():
        unmount(path)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    path = tmp_path / "origin"
    path.mkdir()
    return path


def mount(point: Path, stack: str, special: str, *words: str, wrapper: bool = False) -> None:
    options = [part for word in (*words, f"log={point.parent}/log") for part in ("-o", word)]
    prefix = SYSPUFFS if wrapper else []
    got = run([*prefix, *MOUNT_PUFFS, "-t", stack, *options, special, str(point)])
    assert (got.status, got.stderr) == (0, "")


def mount_psshfs(point: Path, origin: Path, stack: str, **kwargs: bool) -> None:
    mount(point, stack, f":{origin}", f"sftp_server={find_sftp_server()}", **kwargs)


def ask(*arguments: str) -> Any:
    """Return what puffsctl says for programs."""
    got = run([*PUFFSCTL, *arguments, "--json"])
    assert (got.status, got.stderr) == (0, "")
    return json.loads(got.stdout)


def ours(found: list[dict[str, Any]], point: Path) -> list[dict[str, Any]]:
    return [one for one in found if one.get("mountpoint") == str(point)]


def test_list_and_status_say_what_is_mounted(point: Path, origin: Path, sockets: Path) -> None:
    mount_psshfs(point, origin, "puffs|p2k|puffs|psshfs")
    (one,) = ours(ask("list"), point)
    assert one["type"] == "puffs|p2k|puffs|psshfs"
    assert one["special"] == f":{origin}"
    assert one["uid"] == os.geteuid()
    (socket,) = sockets.iterdir()
    assert socket.name == str(one["pid"])
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700

    (point / "file").write_text("x")
    (status,) = ask("status", str(point))
    assert [layer["name"] for layer in status["layers"]] == ["puffs", "p2k", "puffs", "psshfs"]
    host, _, frames, psshfs = status["layers"]
    assert host["statistics"]["nodes"] == 2
    assert frames["statistics"]["requests"]["create"] == 1
    assert psshfs["options"]["request_timeout"] == 120.0
    assert psshfs["statistics"]["connection"]["requests"] > 3

    unmount(point)
    assert wait_until(lambda: not list(sockets.iterdir()))


def test_the_current_directory_and_paths_name_the_mount(point: Path) -> None:
    mount(point, "puffs|p2k|tmpfs", "none")
    (point / "a/b").mkdir(parents=True)
    for arguments, cwd in (((), point / "a/b"), ((str(point / "a"),), point.parent)):
        got = run([*PUFFSCTL, "status", *arguments], cwd=cwd)
        assert (got.status, got.stderr) == (0, "")
        assert got.stdout.startswith(f"none on {point} type puffs|p2k|tmpfs\n")
    linked = point.parent / "link"
    linked.symlink_to(point.parent)
    assert len(ask("status", str(linked / "mnt"))) == 1


def test_each_process_of_a_stack_says_its_part(point: Path, origin: Path) -> None:
    mount_psshfs(point, origin, "puffs|psshfs", wrapper=True)
    top, below = ask("status", str(point))
    assert (top["type"], below["type"]) == ("puffs|p2k|puffs|psshfs", "psshfs")
    assert (top["part"], below["part"]) == (False, True)
    assert [layer["name"] for layer in below["layers"]] == ["frames", "psshfs"]


def test_no_mount_there(point: Path) -> None:
    got = run([*PUFFSCTL, "status", str(point)])
    assert (got.status, got.stdout) == (40, "")
    assert got.stderr.startswith(f"puffsctl: {point}: no mount of ours is there")


def test_list_removes_the_sockets_of_the_dead(point: Path, sockets: Path) -> None:
    mount(point, "puffs|p2k|tmpfs", "none")
    (one,) = ours(ask("list"), point)
    os.kill(one["pid"], 9)
    subprocess.run(["umount", "-l", point], check=True)
    assert wait_until(lambda: not Path(f"/proc/{one['pid']}/exe").exists())
    wait_until(lambda: _reaped(one["pid"]))
    assert [path.name for path in sockets.iterdir()] == [str(one["pid"])]
    assert ours(ask("list"), point) == []
    assert list(sockets.iterdir()) == []


def _reaped(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False
