"""STACKS: everything the battery runs over, cheapest first.

A stack is either built inside the test process for each test (`build`), or a mount
by the real commands that the tests of a session share (`command`).
"""

from __future__ import annotations

import errno
import shlex
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
import trio

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp import exported
from syspuffs.layers.guard import EVERYTHING, GuardSettings, Rule, guarded
from syspuffs.layers.joined import joined
from syspuffs.layers.local import local_tree
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.psshfs import Psshfs, PsshfsOptions, mount_psshfs
from syspuffs.layers.psshfs.options import Symlinks
from syspuffs.layers.puffs import puffs_over, puffs_over_socket, serve
from syspuffs.native.constants import Vtype
from syspuffs.native.records import Cookie, lookup_cn

from . import between, syscalls
from .capabilities import SFTP_LACKS, USER_LACKS
from .disks import check_image, ext2fs_build, over_frames, over_p2k, prepare_image
from .host import OsTarget
from .kernel import VfsTarget
from .mounts import Ground, MountCommand, python_command, words
from .nodes import OURSELVES
from .server import ServerNode, ServerTarget
from .sftp_end import sftp_client_of
from .sshd import find_sftp_server
from .target import Target

EVERYTHING_GUARDED: Final = GuardSettings(
    rules=(Rule(b"/", EVERYTHING), Rule(b"/*/*", EVERYTHING), Rule(b"/a/b/c", EVERYTHING)),
    hidden=(b".nobody-has-this-name",),
)
"""A policy that allows everything, and has to be asked for it."""

Fill = Callable[[Target], Awaitable[None]]
"""Puts something into a tree before it is made read-only."""
Build = Callable[[Path, Fill | None], AbstractAsyncContextManager[Target]]
"""Builds a stack in an empty directory; with a fill, read-only afterwards."""


@dataclass(frozen=True)
class Stack:
    """One stack under test. Exactly one of `build` and `command` is there.

    A `brief` one differs from another only in how it is put together, and is spared the tests
    that cannot tell the two apart.
    """

    name: str
    lacks: frozenset[str] = frozenset()
    build: Build | None = None
    command: MountCommand | None = None
    race_errors: frozenset[int] = frozenset()
    marks: tuple[pytest.MarkDecorator, ...] = ()
    brief: bool = False


@asynccontextmanager
async def host_directory(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """A directory of the host: proves that the tests are right about Linux itself."""
    assert fill is None
    yield OsTarget(bytes(place))


@asynccontextmanager
async def tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """Vnode operations of tmpfs in an emulated kernel."""
    async with Kernel() as kernel:
        mount = await kernel.mount(TmpFs(mntfromname=b"none"))
        target = VfsTarget(mount)
        if fill is not None:
            await fill(target)
            mount.is_rdonly = True
        yield target
        await kernel.unmount(mount)


@asynccontextmanager
async def syscalls_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """System calls of an emulated kernel."""
    fs = TmpFs(mntfromname=b"none")
    async with syscalls.mounted(fs) as target:
        if fill is not None:
            await fill(target)
            fs.mount.is_rdonly = True
        yield target


@asynccontextmanager
async def p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """The same as a file server."""
    fs = TmpFs(mntfromname=b"none")
    async with p2k_over(fs) as server:
        target = ServerTarget(server)
        if fill is not None:
            await fill(target)
            fs.mount.is_rdonly = True
        yield target
        await server.unmount(0)


@asynccontextmanager
async def guard_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """The same behind a guard that allows everything and has rules all the same."""
    fs = TmpFs(mntfromname=b"none")
    async with p2k_over(fs) as server, guarded(server, EVERYTHING_GUARDED) as guard:
        target = ServerTarget(guard)
        if fill is not None:
            await fill(target)
            fs.mount.is_rdonly = True
        yield target
        await guard.unmount(0)


@asynccontextmanager
async def p2k_puffs_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """Two emulated kernels, frames between them by nested calls."""
    async with (
        p2k_over(TmpFs(mntfromname=b"none")) as inner,
        puffs_over(inner) as fs,
        p2k_over(fs) as outer,
    ):
        target = ServerTarget(outer)
        if fill is not None:
            await fill(target)
            fs.mount.is_rdonly = True
        yield target
        await outer.unmount(0)


@asynccontextmanager
async def p2k_puffs_socket_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """The same with the frames over a socket pair."""
    ours, theirs = socket.socketpair()
    async with (
        p2k_over(TmpFs(mntfromname=b"none")) as inner,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve, inner, theirs)
        async with puffs_over_socket(ours, inner.kargs) as fs, p2k_over(fs) as outer:
            target = ServerTarget(outer)
            if fill is not None:
                await fill(target)
                fs.mount.is_rdonly = True
            yield target
            await outer.unmount(0)


@asynccontextmanager
async def _psshfs_server(
    origin: Path, *, ro: bool, write_behind: int = PsshfsOptions().write_behind
) -> AsyncIterator[Psshfs]:
    """psshfs on OpenSSH's sftp-server on this machine, without SSH."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await trio.lowlevel.open_process(
                [find_sftp_server()], stdin=theirs, stdout=theirs
            )
        try:
            options = PsshfsOptions(ro=ro, write_behind=write_behind, symlinks=Symlinks.RAW)
            async with mount_psshfs(ours, bytes(origin), options) as server:
                yield server
        finally:
            ours.close()
            with trio.CancelScope(shield=True), trio.fail_after(10):
                await process.wait()


async def _new_origin(place: Path, fill: Fill | None) -> Path:
    origin = place / "origin"
    origin.mkdir()
    if fill is not None:
        await fill(OsTarget(bytes(origin)))
    return origin


@asynccontextmanager
async def psshfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """psshfs as a file server."""
    origin = await _new_origin(place, fill)
    async with _psshfs_server(origin, ro=fill is not None) as server:
        target = ServerTarget(server)
        target.origin = origin
        yield target
        await server.unmount(0)


@asynccontextmanager
async def guard_psshfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """psshfs behind a guard: names have cookies of their own there."""
    origin = await _new_origin(place, fill)
    async with (
        _psshfs_server(origin, ro=False) as server,
        guarded(server, replace(EVERYTHING_GUARDED, readonly=fill is not None)) as guard,
    ):
        target = ServerTarget(guard)
        target.origin = origin
        yield target
        await guard.unmount(0)


@asynccontextmanager
async def _psshfs_on(inner: FileServer, *, ro: bool) -> AsyncIterator[ServerTarget]:
    """psshfs on the SFTP end of our own gateway, which serves `inner`."""
    async with exported(inner) as export:
        async with sftp_client_of(export) as ours:
            async with mount_psshfs(
                ours, b"/", PsshfsOptions(ro=ro, symlinks=Symlinks.RAW)
            ) as server:
                yield ServerTarget(server)
                await server.unmount(0)
        export.names_changed()
        assert export.nodes.in_use == []


@asynccontextmanager
async def psshfs_sftp_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """psshfs, SFTP end and all, over files in memory: the file server below never waits."""
    async with p2k_over(TmpFs(mntfromname=b"none")) as inner:
        if fill is not None:
            await fill(ServerTarget(inner))
        async with _psshfs_on(inner, ro=fill is not None) as target:
            yield target
        await inner.unmount(0)


@asynccontextmanager
async def psshfs_sftp_psshfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """The same over psshfs: the file server below always waits."""
    origin = await _new_origin(place, fill)
    async with _psshfs_server(origin, ro=False, write_behind=0) as inner:
        async with _psshfs_on(inner, ro=fill is not None) as target:
            target.origin = origin
            yield target
        await inner.unmount(0)


@asynccontextmanager
async def p2k_puffs_psshfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """The full chain, without the host at the one end and SSH at the other."""
    origin = await _new_origin(place, fill)
    async with (
        _psshfs_server(origin, ro=False) as server,
        puffs_over(server) as fs,
        p2k_over(fs, rdonly=fill is not None) as outer,
    ):
        target = ServerTarget(outer)
        target.origin = origin
        yield target
        await outer.unmount(0)


@asynccontextmanager
async def local(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """A directory of this machine as a file server."""
    origin = await _new_origin(place, fill)
    with local_tree(bytes(origin), ro=fill is not None) as server:
        target = ServerTarget(server)
        target.origin = origin
        yield target
        await server.unmount(0)


@asynccontextmanager
async def p2k_puffs_local(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """The same in an emulated kernel, frames between the two."""
    origin = await _new_origin(place, fill)
    with local_tree(bytes(origin)) as server:
        async with puffs_over(server) as fs, p2k_over(fs, rdonly=fill is not None) as outer:
            target = ServerTarget(outer)
            target.origin = origin
            yield target
            await outer.unmount(0)


class _Below(ServerTarget):
    """A file server of which one directory is all that is looked at."""

    def __init__(self, server: FileServer, cookie: Cookie) -> None:
        super().__init__(server)
        self.root = ServerNode(cookie, Vtype.VDIR)


@asynccontextmanager
async def joined_p2k_tmpfs(place: Path, fill: Fill | None) -> AsyncIterator[Target]:
    """A tree in memory deep below a root that it shares with others."""
    fs, other = TmpFs(mntfromname=b"none"), TmpFs(mntfromname=b"none")
    async with p2k_over(fs) as deep, p2k_over(other) as top:
        server = joined({b"/": top, b"/in/alice": deep})
        cookie = server.kargs.root.cookie
        for name in (b"in", b"alice"):
            cookie = (await server.lookup(cookie, lookup_cn(name, OURSELVES))).cookie
        target = _Below(server, cookie)
        if fill is not None:
            await fill(target)
            fs.mount.is_rdonly = True
        yield target
        await server.unmount(0)


def _mount_psshfs(ground: Ground) -> list[str]:
    options = words(ground.options + ground.ssh_options)
    return [*python_command("mount_psshfs"), *options, ground.special, str(ground.point)]


def _mount_psshfs_by_ssh(ground: Ground) -> list[str]:
    options = words([*ground.options, *ground.ssh_options, "ssh_command=ssh"])
    return [*python_command("mount_psshfs"), *options, ground.special, str(ground.point)]


def _mount_tmpfs(ground: Ground) -> list[str]:
    argv = [*python_command("mount_puffs"), "-t", "puffs|p2k|tmpfs", *words(ground.options)]
    return [*argv, "none", str(ground.point)]


def _mount_local(ground: Ground) -> list[str]:
    argv = [*python_command("mount_puffs"), "-t", "puffs|local", *words(ground.options)]
    return [*argv, str(ground.origin), str(ground.point)]


def _overlay(ground: Ground) -> dict[str, Path]:
    return {name: ground.origin.with_name(f"overlay-{name}") for name in ("lower", "work")}


def _prepare_overlay(ground: Ground) -> None:
    for place in _overlay(ground).values():
        place.mkdir(exist_ok=True)


def _mount_overlay(ground: Ground) -> list[str]:
    """fuse-overlayfs: of packaged programs the one that goes by nodes, not by paths."""
    lower, work = _overlay(ground).values()
    options = f"lowerdir={lower},upperdir={ground.origin},workdir={work}"
    # It complains of an option of its own.
    script = f'exec fuse-overlayfs -o {shlex.quote(options)} "$0" 2>/dev/null'
    argv = [*python_command("mount_puffs"), "-t", "puffs|perfuse", *words(ground.options)]
    argv += ["-o", "default_permissions"]  # as fuse-overlayfs has it for a mount of its own
    return [*argv, shlex.join(["sh", "-c", script]), str(ground.point)]


def _mount_ext2fs(ground: Ground) -> list[str]:
    argv = [*python_command("mount_puffs"), "-t", "puffs|p2k|ext2fs", *words(ground.options)]
    return [*argv, str(ground.image), str(ground.point)]


def _mount_whole_stack(ground: Ground) -> list[str]:
    options = words(ground.options + ground.ssh_options)
    argv = [*python_command("mount_puffs"), "-t", "puffs|p2k|puffs|psshfs", *options]
    return [*argv, ground.special, str(ground.point)]


def _mount_whole_stack_nocache(ground: Ground) -> list[str]:
    return _mount_whole_stack(replace(ground, extra=(*ground.extra, "nocache")))


def _syspuffs_mount_psshfs(ground: Ground) -> list[str]:
    inner = [*python_command("mount_psshfs"), *words(ground.ssh_options)]
    argv = [*python_command("syspuffs"), *words(ground.options), "--", *inner]
    return [*argv, ground.special, str(ground.point)]


PSSHFS: Final = MountCommand("puffs|psshfs", _mount_psshfs)
PSSHFS_BY_SSH: Final = MountCommand("puffs|psshfs", _mount_psshfs_by_ssh)
TMPFS: Final = MountCommand("puffs|p2k|tmpfs", _mount_tmpfs, remote=False)
LOCAL: Final = MountCommand("puffs|local", _mount_local, remote=False, local=True)
PERFUSE: Final = MountCommand(
    "puffs|perfuse", _mount_overlay, remote=False, local=True, prepare=_prepare_overlay
)
EXT2FS: Final = MountCommand(
    "puffs|p2k|ext2fs", _mount_ext2fs, remote=False, prepare=prepare_image, finish=check_image
)
WHOLE_STACK: Final = MountCommand("puffs|p2k|puffs|psshfs", _mount_whole_stack)
WHOLE_STACK_NOCACHE: Final = MountCommand("puffs|p2k|puffs|psshfs", _mount_whole_stack_nocache)
SYSPUFFS: Final = MountCommand("puffs|p2k|puffs|psshfs", _syspuffs_mount_psshfs)

_FUSE: Final = (pytest.mark.fuse,)
_FUSE_SSHD: Final = (pytest.mark.fuse, pytest.mark.sshd)
_HOST: Final = USER_LACKS | {"exact_nlink_dir", "readonly", "origin"}
_TMPFS: Final = USER_LACKS | {"origin"}
_EXT2FS: Final = USER_LACKS | {"origin"}
_LOCAL: Final = USER_LACKS | {"exact_nlink_dir"}
# The upper directory of an overlay is not what is seen in it: what was removed is there yet.
_PERFUSE: Final = _LOCAL | {"long_names", "nlink", "origin", "readonly"}
_TMPFS_MOUNT: Final = _TMPFS | {"readonly"}
_RACES: Final = frozenset({errno.ESTALE})
"""A server that names files by their paths finds another one there. Linux makes such a call
once more, and no more: who loses twice hears of it, as on NFS."""
_SFTP: Final = USER_LACKS | SFTP_LACKS

STACKS: Final = (
    Stack("host", build=host_directory, lacks=_HOST),
    Stack("tmpfs", build=tmpfs, lacks=_TMPFS),
    Stack("syscalls:tmpfs", build=syscalls_tmpfs, lacks=_TMPFS),
    Stack("p2k|tmpfs", build=p2k_tmpfs, lacks=_TMPFS),
    Stack("guard|p2k|tmpfs", build=guard_p2k_tmpfs, lacks=_TMPFS),
    Stack("null|p2k|tmpfs", build=between.null_p2k_tmpfs, lacks=_TMPFS),
    Stack("throttle|p2k|tmpfs", build=between.throttle_p2k_tmpfs, lacks=_TMPFS, brief=True),
    Stack("trace|p2k|tmpfs", build=between.trace_p2k_tmpfs, lacks=_TMPFS),
    Stack("fault|p2k|tmpfs", build=between.fault_p2k_tmpfs, lacks=_TMPFS, brief=True),
    Stack("readonly|p2k|tmpfs", build=between.readonly_p2k_tmpfs, lacks=_TMPFS, brief=True),
    Stack("p2k|puffs|p2k|tmpfs", build=p2k_puffs_p2k_tmpfs, lacks=_TMPFS),
    Stack("p2k|puffs|socket|p2k|tmpfs", build=p2k_puffs_socket_p2k_tmpfs, lacks=_TMPFS),
    Stack("joined|p2k|tmpfs", build=joined_p2k_tmpfs, lacks=_TMPFS),
    Stack("local", build=local, lacks=_LOCAL),
    Stack("p2k|puffs|local", build=p2k_puffs_local, lacks=_LOCAL),
    Stack("syscalls:ext2fs", build=ext2fs_build(syscalls.mounted), lacks=_EXT2FS),
    Stack("p2k|ext2fs", build=ext2fs_build(over_p2k), lacks=_EXT2FS),
    Stack("p2k|puffs|p2k|ext2fs", build=ext2fs_build(over_frames), lacks=_EXT2FS, brief=True),
    Stack("psshfs", build=psshfs, lacks=_SFTP, race_errors=_RACES),
    Stack("guard|psshfs", build=guard_psshfs, lacks=_SFTP, race_errors=_RACES),
    Stack("p2k|puffs|psshfs", build=p2k_puffs_psshfs, lacks=_SFTP, race_errors=_RACES),
    Stack(
        "psshfs|sftp|p2k|tmpfs",
        build=psshfs_sftp_p2k_tmpfs,
        lacks=_SFTP | {"origin"},
        race_errors=_RACES,
    ),
    Stack(
        "psshfs|sftp|psshfs",
        build=psshfs_sftp_psshfs,
        lacks=_SFTP,
        race_errors=_RACES,
        brief=True,
    ),
    Stack("mount:puffs|p2k|tmpfs", command=TMPFS, lacks=_TMPFS_MOUNT, marks=_FUSE),
    Stack("mount:puffs|local", command=LOCAL, lacks=_LOCAL, marks=_FUSE),
    Stack("mount:puffs|perfuse", command=PERFUSE, lacks=_PERFUSE, marks=_FUSE, brief=True),
    Stack(
        "mount:puffs|p2k|ext2fs",
        command=EXT2FS,
        lacks=_EXT2FS | {"readonly"},
        marks=_FUSE,
        brief=True,
    ),
    Stack("mount:puffs|psshfs", command=PSSHFS, lacks=_SFTP, race_errors=_RACES, marks=_FUSE_SSHD),
    Stack(
        "mount:puffs|p2k|puffs|psshfs",
        command=WHOLE_STACK,
        lacks=_SFTP,
        race_errors=_RACES,
        marks=_FUSE_SSHD,
    ),
    Stack(
        "mount:puffs|psshfs:ssh",
        command=PSSHFS_BY_SSH,
        lacks=_SFTP,
        race_errors=_RACES,
        marks=_FUSE_SSHD,
        brief=True,
    ),
    Stack(
        "mount:puffs|p2k|puffs|psshfs:nocache",
        command=WHOLE_STACK_NOCACHE,
        lacks=_SFTP,
        race_errors=_RACES,
        marks=_FUSE_SSHD,
        brief=True,
    ),
    Stack(
        "mount:syspuffs",
        command=SYSPUFFS,
        lacks=_SFTP,
        race_errors=_RACES,
        marks=_FUSE_SSHD,
        brief=True,
    ),
)
