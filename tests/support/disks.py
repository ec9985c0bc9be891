"""ext2fs on an image that mke2fs has made, served in any way; e2fsck has the last word."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from syspuffs.emul.ext2fs import Ext2Fs
from syspuffs.emul.rumpuser import open_disk
from syspuffs.emul.vfs import FileSystem
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.puffs import puffs_over

from ..disk.images import MIB, check_clean, make_image
from .mounts import Ground
from .server import ServerTarget
from .target import Target

IMAGE_SIZE: Final = 16 * MIB


class Over(Protocol):
    """Mounts a file system for the time of a block, and gives the tree to programs."""

    def __call__(
        self, fs: FileSystem, *, rdonly: bool = False
    ) -> AbstractAsyncContextManager[Target]: ...


@asynccontextmanager
async def over_p2k(fs: FileSystem, *, rdonly: bool = False) -> AsyncIterator[Target]:
    """Served by p2k."""
    async with p2k_over(fs, rdonly=rdonly) as server:
        yield ServerTarget(server)
        await server.unmount(0)


@asynccontextmanager
async def over_frames(fs: FileSystem, *, rdonly: bool = False) -> AsyncIterator[Target]:
    """Served by p2k, carried by frames, and served by another p2k."""
    async with (
        p2k_over(fs, rdonly=rdonly) as inner,
        puffs_over(inner) as middle,
        p2k_over(middle, rdonly=rdonly) as outer,
    ):
        yield ServerTarget(outer)
        await outer.unmount(0)


@asynccontextmanager
async def ext2fs(image: Path, *, rdonly: bool = False) -> AsyncIterator[Ext2Fs]:
    """The file system on an image, to be mounted once."""
    disk = open_disk(bytes(image), rdonly=rdonly)
    try:
        yield Ext2Fs(disk, rdonly=rdonly)
    finally:
        await disk.close()


def make_empty_image(path: Path, size: int = IMAGE_SIZE, block: int = 4096) -> Path:
    """Make an image whose root has nothing in it, not even lost+found, which mke2fs makes."""
    make_image(path, size, block=block)
    command = ["debugfs", "-w", "-R", "rmdir lost+found", str(path)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    return path


def prepare_image(ground: Ground) -> None:
    """Make the image that a mount command needs, unless it is there."""
    if not ground.image.exists():
        make_empty_image(ground.image)


def check_image(ground: Ground) -> None:
    """Fail unless a mount has left a clean image."""
    check_clean(ground.image)


def ext2fs_build(
    over: Over, size: int = IMAGE_SIZE
) -> Callable[
    [Path, Callable[[Target], Awaitable[None]] | None], AbstractAsyncContextManager[Target]
]:
    """Return what builds a stack on a new image; e2fsck must find it clean at the end.

    What is filled is filled through the same stack, and then mounted anew, read-only.
    """

    @asynccontextmanager
    async def build(
        place: Path, fill: Callable[[Target], Awaitable[None]] | None
    ) -> AsyncIterator[Target]:
        image = make_empty_image(place / "disk.img", size)
        if fill is not None:
            async with ext2fs(image) as fs, over(fs) as target:
                await fill(target)
            check_clean(image)
        rdonly = fill is not None
        async with ext2fs(image, rdonly=rdonly) as fs, over(fs, rdonly=rdonly) as target:
            yield target
        check_clean(image)

    return build
