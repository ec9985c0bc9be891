"""Psshfs: a directory of an SFTP server as a FileServer."""

from __future__ import annotations

import errno
import logging
import os
import socket as _socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

import trio

from ...native import sftp
from ...native.constants import (
    MAXMSGLEN_DEFAULT,
    MNT_FORCE,
    MNT_WAIT,
    NAME_MAX,
    VEXEC,
    VWRITE,
    KFlag,
    VnOp,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Cookie, Cred, Kargs, Newinfo, Statvfs
from ..background import background
from .mount.counts import CacheStatistics
from .mount.saving import STALL_MAX, Tell, Unsaved, save
from .mount.session import Session, open_session
from .operations.attrops import AttrOperations
from .operations.files import FileOperations
from .operations.forgetting import Forgetting
from .operations.renaming import RenameOperations
from .operations.symlinks import SymlinkOperations
from .options import Idmap, PsshfsOptions
from .recovery.link import Link
from .recovery.recovery import restore
from .tree.nodetable import PATH_LEN_MAX
from .wire.channels import Opener
from .wire.connection import Connection, ConnectionStatistics, open_connection
from .wire.slot import STATUS

_log = logging.getLogger(__name__)

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
        VnOp.INACTIVE,
        VnOp.RECLAIM,
        VnOp.PRINT,
        VnOp.PATHCONF,
    }
)
"""What psshfs has; the kernel above answers for the others."""

PATHCONF: Final = {
    os.pathconf_names["PC_LINK_MAX"]: 127,
    os.pathconf_names["PC_NAME_MAX"]: NAME_MAX,
    os.pathconf_names["PC_PATH_MAX"]: PATH_LEN_MAX + 1,
    os.pathconf_names["PC_PIPE_BUF"]: 4096,
    os.pathconf_names["PC_CHOWN_RESTRICTED"]: 1,
    os.pathconf_names["PC_NO_TRUNC"]: 1,
    os.pathconf_names["PC_FILESIZEBITS"]: 64,
}


NAMED_MAX: Final = 20
"""Files that are named in an error."""


def _tell_nobody(_: Unsaved) -> None:
    pass


class PsshfsStatistics(NamedTuple):
    """What the server holds, what its caches did, and the counters of its connection.

    `channels` is how many SFTP sessions there are, `round_trip` the shortest time of late in which
    the server has answered, seconds.
    """

    nodes: int
    open_files: int
    octets_read_ahead: int
    octets_unacknowledged: int
    channels: int
    round_trip: float
    caches: CacheStatistics
    connection: ConnectionStatistics


class Psshfs(SymlinkOperations, RenameOperations, FileOperations, AttrOperations, Forgetting):
    """The file server. Made by `mount_psshfs`, which also owns its tasks and its connection."""

    def __init__(
        self,
        connection: Connection,
        session: Session,
        mntfromname: bytes,
        options: PsshfsOptions,
        nursery: trio.Nursery,
        *,
        channel_opener: Opener | None = None,
        tell_unsaved: Tell = _tell_nobody,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(
            connection, session, options, nursery, opener=channel_opener, clock=clock, wall=wall
        )
        root = self.table.root
        self._tell_unsaved = tell_unsaved
        self._kargs = Kargs(
            typename="psshfs",
            mntfromname=mntfromname,
            root=Newinfo(root.cookie, root.va.vtype or 0),
            kflags=KFlag.WTCACHE | KFlag.IAONDEMAND | KFlag.CACHE_FS_TTL,
            ops=OPS,
            maxmsglen=MAXMSGLEN_DEFAULT,
        )

    @property
    def kargs(self) -> Kargs:
        """What to tell the kernel above at mount."""
        return self._kargs

    async def wait_broken(self) -> str:
        """Wait until the connection has ended; return why, for people.

        From then on operations fail with ENOTCONN: nothing that was remembered is believed any
        more. A connection that is only lost, and will be brought back, has not ended.
        """
        await self.connection.broken.wait()
        return self.connection.cause

    async def forget_at_the_end(self) -> None:
        """Forget all once the connection has ended: who lists a directory then is to hear that,
        and not what was in it half a minute ago."""
        await self.connection.broken.wait()
        await self.forget()

    # The whole file system.

    async def statvfs(self) -> Statvfs:
        """Ask by statvfs@openssh.com about the mounted directory; zeros without it.

        Wire: one round trip, most often none for who has just begun to read a directory.
        """
        return await self.space.look() if self.session.statvfs else Statvfs(namemax=NAME_MAX)

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """With MNT_WAIT, wait until the server and its disk have everything; nothing is ever
        held back, so there is nothing to start otherwise. Errors stay with the files."""
        if waitfor != MNT_WAIT:
            return
        await self.writeback.drain()
        if (error := self.writeback.take_error()) is not None:
            raise error
        files = [node.file for node in self.table.nodes.values() if node.file is not None]
        slots = []
        answered = 0
        try:
            for file in files:
                await file.writes.drain()
                await self.connection.room()
                if file.is_unsynced and self.session.fsync and file.handle is not None:
                    file.is_unsynced = False  # unless more is written while this is on its way
                    slots.append((file, self.connection.submit(STATUS, sftp.fsync, file.handle)))
            for _, slot in slots:
                await slot
                answered += 1
        except BaseException:
            # Nobody knows of the others, so the next one asks again.
            for file, _ in slots[answered:]:
                file.is_unsynced = True
            raise

    async def unmount(self, flags: int) -> None:
        """Wait for all writes while there is progress; what was not saved is named in the log.

        Errors: that of a write nobody was told of, with the names; not with MNT_FORCE.
        Cancelled, it waits no longer, and the log has the names all the same.
        """
        try:
            if not await save(self, self._tell_unsaved):
                self._give_up(f"writes were not answered for {STALL_MAX:g} s at the unmount")
        except BaseException:
            self._give_up("nobody waits for the end of the unmount any more")
            self._take_unsaved()
            raise
        first, names = self._take_unsaved()
        if first is not None and not flags & MNT_FORCE:
            if not names:
                raise first
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            raise VfsError(first.errno, f"not saved: {', '.join(names[:NAMED_MAX])}{more}")
        for node in list(self.table.nodes.values()):
            if node.file is not None:
                node.file.dispose()
                node.file = None

    def _give_up(self, why: str) -> None:
        self.connection.drop(why)
        self.connection.give_up(errno.ETIMEDOUT)

    def _take_unsaved(self) -> tuple[VfsError | None, list[str]]:
        """Return the first error that nobody was told of, and name what was not saved in the log
        and in the list."""
        first = self.writeback.take_error()  # its names are in the log already
        names = []
        for node in list(self.table.nodes.values()):
            error = None if node.file is None else node.file.writes.take_error()
            if error is not None:
                first = first or error
                names.append("a removed file" if node.is_gone else repr(self.table.path(node)))
                _log.error("not saved: %s: %s", names[-1], error)
        return first, names

    # The rest of the nodes' operations.

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """Refuse only what is certain: changes on a read-only mount (EROFS), and to execute a file
        that nobody may execute (EACCES), for which even root is refused.

        All else the server decides when it opens and changes: we do not know who we are there.
        """
        node = self.table.node(opc)
        if mode & VWRITE and node.vtype in (Vtype.VREG, Vtype.VDIR, Vtype.VLNK):
            self.require_writable()
        if mode & VEXEC and node.vtype == Vtype.VREG:
            va = await self.present_va(node)
            if not (va.mode or 0) & 0o111:
                raise VfsError(errno.EACCES)

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """Take back lookups; with the last one the node goes, and its handles are closed."""
        self.table.forget(opc, nlookup)

    async def print(self, opc: Cookie) -> bytes:
        """Return type, path and state of a node."""
        node = self.table.node(opc)
        path = b"(gone)" if node.is_gone else self.table.path(node)
        return b"psshfs node %d, fileid %d, %b" % (node.cookie, node.fileid, path)

    async def pathconf(self, opc: Cookie, name: int) -> int:
        """Return what Linux' file systems answer. Errors: EINVAL for other questions."""
        self.table.node(opc)
        try:
            return PATHCONF[name]
        except KeyError:
            raise VfsError(errno.EINVAL) from None

    def statistics(self) -> PsshfsStatistics:
        """Return counters and sizes."""
        files = [node.file for node in self.table.nodes.values() if node.file is not None]
        return PsshfsStatistics(
            len(self.table.nodes) + len(self.table.told),
            sum(file.is_open for file in files),
            self.readahead.octets,
            sum(file.writes.octets for file in files),
            self.channels.count,
            self.connection.round_trip.seconds,
            self.counts.statistics(self.prefetch.hits, self.prefetch.wasted),
            self.connection.statistics(),
        )


@asynccontextmanager
async def mount_psshfs(
    socket: _socket.socket,
    path: bytes = b"",
    options: PsshfsOptions | None = None,
    *,
    mntfromname: bytes = b"psshfs",
    channel_opener: Opener | None = None,
    tell_unsaved: Tell = _tell_nobody,
    clock: Callable[[], int] = time.monotonic_ns,
    wall: Callable[[], int] = time.time_ns,
    opener: Opener | None = None,
) -> AsyncIterator[Psshfs]:
    """Open an SFTP session on `socket` and serve the directory `path` of it.

    `socket` carries the SFTP subsystem's octets; it stays the caller's, but is shut down at the
    end. `path` empty means the login directory. The caller calls `unmount` before the end of the
    context; what is unacknowledged at its end is lost. `channel_opener` gives further streams to
    the same server, over which data of long files go as well when one channel is too few.
    `tell_unsaved` hears what is left while an unmount waits for the server. When the
    connection is lost, `opener` gives another one to the same server; without it, all operations
    end with ENOTCONN from then on.
    Errors at the beginning: see `open_session`.
    """
    options = PsshfsOptions() if options is None else options
    kind = Psshfs
    if options.idmap is Idmap.NAME:
        from .byname import PsshfsByName

        kind = PsshfsByName
    async with open_connection(socket, timeout=options.request_timeout) as connection:
        session = await open_session(connection, path, options)
        async with background() as nursery:
            server = kind(
                connection,
                session,
                mntfromname,
                options,
                nursery,
                channel_opener=channel_opener,
                tell_unsaved=tell_unsaved,
                clock=clock,
                wall=wall,
            )
            if opener is None:
                nursery.start_soon(server.forget_at_the_end)
            else:
                connection.retains = True
                link = Link(
                    connection,
                    opener,
                    partial(restore, server),
                    patience=options.patience,
                )
                nursery.start_soon(link.run)
            server.walk.begun(server.table.root)
            yield server
