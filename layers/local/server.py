"""Local: a directory of this machine as a FileServer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from resource import RLIMIT_NOFILE, getrlimit
from typing import Final, NamedTuple

from ...native.constants import MAXMSGLEN_DEFAULT, MNT_WAIT, KFlag, VnOp, Vtype
from ...native.records import Cookie, Cred, Kargs, Newinfo, Statvfs
from . import libc
from .attributes import failure
from .listing import ListOperations
from .pace import Pace
from .places import FDS_MAX, Places, open_root, proc

OPS: Final = frozenset(
    {
        VnOp.LOOKUP,
        VnOp.CREATE,
        VnOp.MKNOD,
        VnOp.OPEN,
        VnOp.CLOSE,
        VnOp.ACCESS,
        VnOp.GETATTR,
        VnOp.SETATTR,
        VnOp.READ,
        VnOp.WRITE,
        VnOp.FSYNC,
        VnOp.REMOVE,
        VnOp.LINK,
        VnOp.RENAME,
        VnOp.MKDIR,
        VnOp.RMDIR,
        VnOp.SYMLINK,
        VnOp.READDIR,
        VnOp.READLINK,
        VnOp.RECLAIM,
        VnOp.PRINT,
        VnOp.PATHCONF,
        VnOp.GETEXTATTR,
        VnOp.SETEXTATTR,
        VnOp.LISTEXTATTR,
        VnOp.DELETEEXTATTR,
        VnOp.FALLOCATE,
        VnOp.FDISCARD,
    }
)
"""What a local tree has; the kernel above answers for the others."""

_LARGEST: Final = (1 << 63) - 1


class LocalStatistics(NamedTuple):
    """What the server holds, and how often a thread had to wait for the host."""

    nodes: int
    path_descriptors: int
    open_files: int
    watches: int
    waits: int


class Local(ListOperations):
    """The file server. Made by `local_tree`, at whose end all descriptors are closed."""

    def __init__(
        self, places: Places, mntfromname: bytes, *, ro: bool, clock: Callable[[], int]
    ) -> None:
        super().__init__(places, Pace(clock), ro=ro)
        root = self.table.root
        self._kargs = Kargs(
            typename="local",
            mntfromname=mntfromname,
            root=Newinfo(root.cookie, Vtype.VDIR),
            kflags=KFlag.IAONDEMAND | KFlag.CACHE_FS_TTL,
            ops=OPS,
            maxmsglen=MAXMSGLEN_DEFAULT,
        )

    @property
    def kargs(self) -> Kargs:
        """See FileServer."""
        return self._kargs

    # The whole file system.

    async def statvfs(self) -> Statvfs:
        """See FileServer. The file system of the root's directory."""
        return await self.statvfs_at(self.table.root.cookie)

    async def statvfs_at(self, opc: Cookie) -> Statvfs:
        """See FileServer. Others may be mounted below the root."""
        try:
            with self.places.held(self.table.node(opc)) as fd:
                state = os.fstatvfs(fd)
        except OSError as exc:
            raise failure(exc) from None
        return Statvfs(
            state.f_bsize,
            state.f_frsize,
            state.f_blocks,
            state.f_bfree,
            state.f_bavail,
            state.f_files,
            state.f_ffree,
            state.f_favail,
            state.f_fsid & _LARGEST,
            state.f_flag,
            state.f_namemax,
        )

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """With MNT_WAIT, have the host write out the file system of the root's directory.

        Else there is nothing to start: the host has everything, and writes in its own time.
        """
        if waitfor != MNT_WAIT:
            return
        try:
            fd = os.open(proc(self.table.root.fd), os.O_RDONLY | os.O_CLOEXEC)
            try:
                await self.pace.wait(libc.syncfs, fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise failure(exc) from None

    async def unmount(self, flags: int) -> None:
        """Close everything. What was written the host has; nothing is held back here."""
        self.dispose()

    def dispose(self) -> None:
        """Close all descriptors; may be called twice."""
        self._kept.clear()
        for node in self.table.nodes.values():
            if node.file is not None:
                node.file.dispose()
                node.file = None
        self.places.close()

    def names_hold(self) -> bool:
        """See FileServer. Until it is asked for the first time nothing may be remembered."""
        return self.places.watches.hold()

    # The rest of the nodes' operations.

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """See FileServer. With the last lookup the descriptors go, and removed data with them."""
        node = self.table.nodes.get(opc)
        if node is None:
            return
        if node.nlookup <= nlookup:
            self._kept.pop(node, None)
        self.table.forget(node, nlookup)

    async def print(self, opc: Cookie) -> bytes:
        """Return the number and the inode of a node, and its name."""
        node = self.table.node(opc)
        return b"local node %d, inode %d on device %d, %b" % (
            node.cookie,
            node.key[1],
            node.key[0],
            node.name or b"(no name)",
        )

    async def pathconf(self, opc: Cookie, name: int) -> int:
        """See FileServer: the host's answer."""
        try:
            with self.places.held(self.table.node(opc)) as fd:
                return os.pathconf(proc(fd), name)
        except OSError as exc:
            raise failure(exc) from None

    def statistics(self) -> LocalStatistics:
        """Return counters and sizes."""
        nodes = self.table.nodes.values()
        return LocalStatistics(
            len(nodes),
            len(self.places),
            sum(node.file is not None for node in nodes),
            len(self.places.watches),
            self.pace.waits,
        )


@contextmanager
def local_tree(
    path: bytes,
    *,
    ro: bool = False,
    mntfromname: bytes | None = None,
    fds_max: int | None = None,
    clock: Callable[[], int] = time.monotonic_ns,
) -> Iterator[Local]:
    """Serve the directory at `path`; links in the path itself are followed, now and never again.

    `fds_max` path descriptors are kept (FDS_MAX, but no more than a quarter of what the process
    may have). Errors: VfsError when the directory cannot be opened.
    """
    if fds_max is None:
        fds_max = min(FDS_MAX, max(8, getrlimit(RLIMIT_NOFILE)[0] // 4))
    places = Places(open_root(path), clock, fds_max)
    server = Local(places, path if mntfromname is None else mntfromname, ro=ro, clock=clock)
    try:
        yield server
    finally:
        server.dispose()
