"""Images for these tests: made by mke2fs, worked on through vnode operations, judged by e2fsck."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from syspuffs.emul.ext2fs import Ext2Fs
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.rumpuser import FaultDisk, Faults, open_disk
from syspuffs.emul.rumpuser.fault import NO_FAULTS
from syspuffs.emul.syncer import vfs_sync
from syspuffs.native.constants import MNT_WAIT
from syspuffs.native.errors import VfsError

from ...disk.images import KIB, MIB, check_clean, make_image
from ...support.kernel import VfsTarget

__all__ = [
    "KIB",
    "MIB",
    "Tree",
    "check_clean",
    "debugfs",
    "in_memory",
    "make_image",
    "may_fail",
    "mounted",
]


class Tree(VfsTarget):
    """A mounted image, as programs see it."""

    def __init__(self, mount: Mount, fs: Ext2Fs) -> None:
        super().__init__(mount)
        self.ext2 = fs
        self.kernel = mount.kernel

    async def sync(self) -> None:
        """Have everything written."""
        await vfs_sync(self.mount, MNT_WAIT)


def debugfs(image: Path, *commands: str) -> str:
    """Let debugfs change an image, or look at it; return what it printed."""
    done = subprocess.run(
        ["debugfs", "-w", "-f", "-", str(image)],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        pytest.fail(done.stderr)
    return done.stdout


@contextmanager
def may_fail(*errnos: int) -> Iterator[None]:
    """Let the block end by a VfsError with one of these, and a reason, or properly."""
    try:
        yield
    except VfsError as exc:
        if exc.errno not in errnos or not exc.detail:
            raise


@asynccontextmanager
async def mounted(image: Path, *, rdonly: bool = False, check: bool = True) -> AsyncIterator[Tree]:
    """Mount an image for as long as the block lasts; with `check` e2fsck has the last word."""
    fs = Ext2Fs(open_disk(bytes(image), rdonly=rdonly))
    async with Kernel() as kernel:
        mount = await kernel.mount(fs, rdonly=rdonly)
        tree = Tree(mount, fs)
        yield tree
        await tree.verify()
        await kernel.unmount(mount)
    if check:
        check_clean(image)


@asynccontextmanager
async def in_memory(image: bytearray, faults: Faults = NO_FAULTS) -> AsyncIterator[Tree]:
    """Mount an image in memory, on a disk that fails or loses its power as it is told.

    It is unmounted properly if that is possible, else by force.
    """
    disk = FaultDisk(image, 0, faults)
    fs = Ext2Fs(disk)
    async with Kernel() as kernel:
        mount = await kernel.mount(fs)
        yield Tree(mount, fs)
