"""Disk images by the real commands: what mounts, what is refused and how, what is there after."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..disk.images import MIB, check_clean, make_image
from ..support.leaks import children, fuse_mounts, mounts, reap
from ..support.mounts import python_command, unmount, wait_until
from ..support.sshd import find_sftp_server

pytestmark = pytest.mark.fuse

EXT2 = "puffs|p2k|ext2fs"
REMOTE = "puffs|p2k|ext2fs|vnd|puffs|psshfs"


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    before = set(children(os.getpid()))
    yield path
    if str(path) in fuse_mounts():
        unmount(path)
    assert wait_until(lambda: _reaped() <= before)


def _reaped() -> set[int]:
    """Wait for daemons that have ended and return the children that have not."""
    reap(children(os.getpid()))
    return set(children(os.getpid()))


def _mount(
    special: object, point: Path, *options: str, stack: str = EXT2
) -> subprocess.CompletedProcess[str]:
    argv = [*python_command("mount_puffs"), "-t", stack, *options, str(special), str(point)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30)


def _unmount(point: Path, before: set[int]) -> None:
    """Unmount and wait until the daemon has closed the disk."""
    unmount(point)
    assert wait_until(lambda: _reaped() <= before)


def test_written_and_read_again(point: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 16 * MIB)
    before = _reaped()
    assert _mount(image, point).returncode == 0
    (line,) = [line for line in mounts() if line.mount_point == str(point)]
    assert (line.source, line.fstype) == (str(image), f"fuse.{EXT2}")
    contents = os.urandom(3 * MIB)
    (point / "file").write_bytes(contents)
    (point / "directory").mkdir()
    (point / "directory" / "link").symlink_to("../file")
    _unmount(point, before)
    check_clean(image)
    assert _mount(image, point, "-o", "ro").returncode == 0
    assert (point / "directory" / "link").read_bytes() == contents
    with pytest.raises(OSError, match="Read-only"):
        (point / "other").touch()


def test_killed_without_warning(point: Path, tmp_path: Path) -> None:
    """What fsync promised is there, and the image is not written to before e2fsck has seen it."""
    image = make_image(tmp_path / "image", 16 * MIB)
    before = _reaped()
    assert _mount(image, point).returncode == 0
    fd = os.open(point / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"promised" * 1000)
    os.fsync(fd)
    (daemon,) = _reaped() - before
    os.kill(daemon, signal.SIGKILL)
    assert wait_until(lambda: _reaped() <= before)
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    unmount(point)
    done = _mount(image, point)
    assert done.returncode == 0
    assert done.stderr == (
        f"mount_puffs: {image}: mounted read-only: it was not unmounted properly, "
        "e2fsck puts it in order\n"
    )
    assert (point / "file").read_bytes() == b"promised" * 1000
    (line,) = [line for line in mounts() if line.mount_point == str(point)]
    assert "ro" in line.options.split(",")
    _unmount(point, before)
    subprocess.run(["e2fsck", "-fy", str(image)], stdout=subprocess.DEVNULL)
    done = _mount(image, point)
    assert (done.returncode, done.stderr) == (0, "")
    assert (point / "file").read_bytes() == b"promised" * 1000


def test_mounted_again_at_once(point: Path, tmp_path: Path) -> None:
    """The next mount waits until the last one has written everything."""
    image = make_image(tmp_path / "image", 64 * MIB)
    assert _mount(image, point).returncode == 0
    (point / "file").write_bytes(bytes(range(256)) * (32 * MIB // 256))
    unmount(point)
    done = _mount(image, point)
    assert (done.returncode, done.stderr) == (0, "")
    assert (point / "file").read_bytes() == bytes(range(256)) * (32 * MIB // 256)


def test_two_mounts_of_one_image(point: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 8 * MIB)
    other = tmp_path / "other"
    other.mkdir()
    assert _mount(image, point).returncode == 0
    done = _mount(image, other)
    assert done.returncode == 25
    assert str(image) in done.stderr
    assert "unmount it there first" in done.stderr


def test_what_is_no_disk(point: Path, tmp_path: Path) -> None:
    done = _mount(tmp_path / "missing", point)
    assert (done.returncode, done.stderr) == (
        24,
        f"mount_puffs: disk {tmp_path / 'missing'}: No such file or directory\n",
    )
    assert _mount(tmp_path, point).returncode == 24
    nothing = tmp_path / "nothing"
    nothing.write_bytes(bytes(MIB))
    done = _mount(nothing, point)
    assert done.returncode == 26
    assert "ext2" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("feature", ["extent", "meta_bg", "inline_data", "flex_bg"])
def test_features_that_cannot_be_read(point: Path, tmp_path: Path, feature: str) -> None:
    image = make_image(tmp_path / "image", 16 * MIB, "-O", f"^resize_inode,{feature}")
    done = _mount(image, point)
    assert done.returncode == 26
    assert feature in done.stderr


def test_features_that_cannot_be_written(point: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 16 * MIB, "-O", "uninit_bg")
    done = _mount(image, point)
    assert done.returncode == 0
    assert "mounted read-only: features" in done.stderr
    with pytest.raises(OSError, match="Read-only"):
        (point / "file").touch()


def test_an_image_on_a_server(point: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 16 * MIB)
    before = _reaped()
    words = f"sftp_server={find_sftp_server()},image=image"
    assert _mount(f":{tmp_path}", point, "-o", words, stack=REMOTE).returncode == 0
    (line,) = [line for line in mounts() if line.mount_point == str(point)]
    assert (line.source, line.fstype) == (f":{image}", f"fuse.{REMOTE}")
    contents = os.urandom(MIB)
    with (point / "file").open("wb") as file:
        file.write(contents)
        os.fsync(file.fileno())
    _unmount(point, before)
    check_clean(image)
    assert _mount(image, point, "-o", "ro").returncode == 0
    assert (point / "file").read_bytes() == contents


def test_vnd_wants_an_image(point: Path, tmp_path: Path) -> None:
    words = f"sftp_server={find_sftp_server()}"
    done = _mount(f":{tmp_path}", point, "-o", words, stack=REMOTE)
    assert done.returncode == 2
    assert "-o image=PATH" in done.stderr
    done = _mount(f":{tmp_path}", point, "-o", f"{words},image=none", stack=REMOTE)
    assert done.returncode == 24
    assert done.stderr == "mount_puffs: disk none: No such file or directory\n"
