"""Disk images: made by mke2fs, checked by e2fsck, mounted by the host's own driver."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

KIB: Final = 1024
MIB: Final = 1024 * KIB

needs_loop = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
    reason="the host's own ext4 driver mounts images for root alone, by loop devices",
)


def make_image(path: Path, size: int, *words: str, block: int = 4096) -> Path:
    """Make an empty ext2 file system of `size` octets with mke2fs."""
    with path.open("wb") as file:
        file.truncate(size)
    _run("mke2fs", "-q", "-F", "-t", "ext2", "-b", str(block), *words, str(path))
    return path


def check_clean(path: Path) -> None:
    """Fail unless e2fsck finds nothing at all to complain about."""
    done = _e2fsck("-fn", path)
    if done.returncode:
        pytest.fail(f"e2fsck -fn ends with {done.returncode}:\n{done.stdout}", pytrace=False)


def repair(path: Path) -> str:
    """Let e2fsck repair an image; return what it said. Fail if it could not."""
    done = _e2fsck("-fy", path)
    if done.returncode & ~3:
        pytest.fail(f"e2fsck -fy ends with {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout


def _e2fsck(how: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["e2fsck", how, str(path)], capture_output=True, text=True, timeout=60)


@contextmanager
def host_mounted(image: Path, point: Path, *, rdonly: bool = False) -> Iterator[Path]:
    """Mount an image by the host's ext4 driver for as long as the block lasts."""
    point.mkdir(exist_ok=True)
    options = "loop,ro" if rdonly else "loop"
    _run("mount", "-t", "ext4", "-o", options, str(image), str(point))
    try:
        yield point
    finally:
        _run("umount", str(point))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.fail(f"{argv[0]} ends with {done.returncode}: {done.stderr}", pytrace=False)
