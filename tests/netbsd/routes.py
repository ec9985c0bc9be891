"""Two file systems, and four routes to each: the columns of the table."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import pytest

from syspuffs.emul.tmpfs import TmpFs

from ..support import syscalls
from ..support.disks import (
    IMAGE_SIZE,
    Over,
    ext2fs_build,
    make_empty_image,
    over_frames,
    over_p2k,
)
from ..support.host import OsTarget
from ..support.hostcalls import remount_rdonly
from ..support.mounts import Ground, MountCommand, Mounts, mounted
from ..support.stacks import EXT2FS, TMPFS, Fill
from ..support.target import Target

SMALL: Final = 2 << 20
"""Space of a file system that is to be filled, octets."""


@dataclass(frozen=True)
class Wish:
    """What a case wants: put there by `fill` and then made read-only; or a little space only."""

    fill: Fill | None = None
    small: bool = False


class Build(Protocol):
    """Builds a tree for one test, as wished, in an empty directory."""

    def __call__(
        self, wish: Wish, place: Path, mounts: Mounts
    ) -> AbstractAsyncContextManager[Target]: ...


@dataclass(frozen=True)
class Route:
    """One column of the table."""

    fs: str
    way: str
    build: Build
    marks: tuple[pytest.MarkDecorator, ...] = ()

    @property
    def name(self) -> str:
        """The stack, as `--stack` names it."""
        return _NAMES[self.way].format(self.fs)


_NAMES: Final = {
    "syscalls": "syscalls:{}",
    "p2k": "p2k|{}",
    "frames": "p2k|puffs|p2k|{}",
    "mounted": "mount:puffs|p2k|{}",
}

WAYS: Final = tuple(_NAMES)
FILE_SYSTEMS: Final = ("tmpfs", "ext2fs")


def _tmpfs(over: Over) -> Build:
    @asynccontextmanager
    async def build(wish: Wish, place: Path, mounts: Mounts) -> AsyncIterator[Target]:
        fs = TmpFs(b"none", size_limit=SMALL if wish.small else None)
        async with over(fs) as target:
            if wish.fill is not None:
                await wish.fill(target)
                fs.mount.is_rdonly = True
            yield target

    return build


def _ext2fs(over: Over) -> Build:
    @asynccontextmanager
    async def build(wish: Wish, place: Path, mounts: Mounts) -> AsyncIterator[Target]:
        stack = ext2fs_build(over, SMALL if wish.small else IMAGE_SIZE)
        async with stack(place, wish.fill) as target:
            yield target

    return build


def _shared(command: MountCommand) -> MountCommand:
    """Return a mount command that lets other users in.

    Cases that need two users are root's alone. With more than one, the host must check permissions
    itself: it asks the server about no name that it has cached.
    """
    extra = ("allow_other", "default_permissions") if os.geteuid() == 0 else ()

    def argv(ground: Ground) -> list[str]:
        return command.argv(replace(ground, extra=(*ground.extra, *extra)))

    return replace(command, argv=argv)


_TMPFS: Final = _shared(TMPFS)
_EXT2FS: Final = _shared(EXT2FS)


@asynccontextmanager
async def _mounted_tmpfs(wish: Wish, place: Path, mounts: Mounts) -> AsyncIterator[Target]:
    """A directory of a mount that all cases share, unless it is to be filled or read-only."""
    if wish == Wish():
        with mounts.use("netbsd:tmpfs", _TMPFS) as (directory, _):
            yield OsTarget(bytes(directory))
        return
    options = [f"size={SMALL}"] if wish.small else []
    with mounted(_TMPFS, mounts.ground(*options, remote=False)) as made:
        target = OsTarget(bytes(made.point))
        if wish.fill is not None:
            await wish.fill(target)
            remount_rdonly(bytes(made.point))  # by root alone
        yield target


@asynccontextmanager
async def _mounted_ext2fs(wish: Wish, place: Path, mounts: Mounts) -> AsyncIterator[Target]:
    """A mount for each case, so that e2fsck sees what it has left."""
    ground = mounts.ground(*([] if wish.fill is None else ["ro"]), remote=False)
    if wish.fill is not None:
        async with ext2fs_build(over_p2k)(ground.image.parent, None) as target:
            await wish.fill(target)
    elif wish.small:
        make_empty_image(ground.image, SMALL)
    with mounted(_EXT2FS, ground) as made:
        yield OsTarget(bytes(made.point))


_FUSE: Final = (pytest.mark.fuse,)

ROUTES: Final = (
    Route("tmpfs", "syscalls", _tmpfs(syscalls.mounted)),
    Route("tmpfs", "p2k", _tmpfs(over_p2k)),
    Route("tmpfs", "frames", _tmpfs(over_frames)),
    Route("tmpfs", "mounted", _mounted_tmpfs, _FUSE),
    Route("ext2fs", "syscalls", _ext2fs(syscalls.mounted)),
    Route("ext2fs", "p2k", _ext2fs(over_p2k)),
    Route("ext2fs", "frames", _ext2fs(over_frames)),
    Route("ext2fs", "mounted", _mounted_ext2fs, _FUSE),
)
