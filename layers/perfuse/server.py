"""Perfuse: the FileServer over a program that believes to serve Linux."""

from __future__ import annotations

import socket as _socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from errno import ENOTCONN
from typing import Final

import trio

from ...native import fuse_replies, fuse_requests
from ...native.constants import MAXMSGLEN_DEFAULT, MNT_WAIT, KFlag, VnOp, Vtype
from ...native.errors import VfsError
from ...native.records import FSCRED, Cookie, Cred, Kargs, Newinfo, Statvfs
from ..background import background
from ..ops import Upcalls
from .connection import Connection, open_connection
from .files import FileOperations
from .notices import Notices
from .session import open_session

OPS: Final = frozenset(VnOp) - frozenset(
    {
        *(VnOp.BMAP, VnOp.STRATEGY, VnOp.GETPAGES, VnOp.PUTPAGES, VnOp.IOCTL, VnOp.FCNTL),
        *(VnOp.KQFILTER, VnOp.REVOKE, VnOp.LOCK, VnOp.UNLOCK, VnOp.ISLOCKED, VnOp.LEASE),
        *(VnOp.WHITEOUT, VnOp.OPENEXTATTR, VnOp.CLOSEEXTATTR, VnOp.POLL, VnOp.SEEK, VnOp.MMAP),
        *(VnOp.ABORTOP, VnOp.PATHCONF),
    }
)
"""What may be asked for; what the program itself lacks is found out by asking."""

_BATCH_MINOR: Final = 16
_SYNCFS_MINOR: Final = 34
"""Since when there are BATCH_FORGET and SYNCFS: go-fuse complains of what it does not know."""
_LAST_SECONDS: Final = 10.0
"""How long a program may take to answer what is in flight at the end, and then DESTROY: some
write everything only then."""


class Perfuse(FileOperations):
    """The file server. Made by `perfuse_on`, which also owns its tasks and its connection."""

    def __init__(
        self,
        connection: Connection,
        program: str,
        mntfromname: bytes,
        notices: Notices,
        peer_pid: Callable[[], int] | None,
    ) -> None:
        super().__init__(connection)
        self._peer_pid = peer_pid
        self.host_words: frozenset[str] = frozenset()
        """What the host mount above has to say, too, for the program has said so to its own."""
        self._notices = notices
        notices.nodes, notices.connection = self.nodes, connection
        self._kargs = Kargs(
            typename=f"perfuse|{program}" if program else "perfuse",
            mntfromname=mntfromname,
            root=Newinfo(self.nodes.root.cookie, Vtype.VDIR),
            kflags=KFlag.WTCACHE | KFlag.IAONDEMAND | KFlag.CACHE_FS_TTL,
            ops=OPS,
            maxmsglen=MAXMSGLEN_DEFAULT,
        )

    @property
    def kargs(self) -> Kargs:
        """What to tell the kernel above at mount."""
        return self._kargs

    async def begin(self) -> None:
        """Begin the session (INIT); operations wait until this was called. Errors: `open_session`.

        As in Linux, the mount may be there before; who reads `kargs` then believes that there are
        locks, and hears EOPNOTSUPP.
        """
        self.agreed = await open_session(self.connection)
        self.nodes.batches = self.agreed.minor >= _BATCH_MINOR
        if not self.agreed.locks:
            self._kargs = self._kargs._replace(ops=OPS - {VnOp.ADVLOCK})
        elif not self.agreed.flocks:
            self._kargs = self._kargs._replace(kflags=self._kargs.kflags | KFlag.LOCAL_FLOCK)
        self.begun.set()

    @property
    def peer_pid(self) -> int:
        """The process that serves, 0 before it has answered."""
        return self.connection.peer_pid if self._peer_pid is None else self._peer_pid()

    async def wait_broken(self) -> str:
        """Wait until the program has ended; return what happened, for people."""
        await self.connection.broken.wait()
        return "the FUSE program has ended"

    def attach(self, upcalls: Upcalls) -> None:
        """See FileServer."""
        self._notices.upcalls = upcalls

    def request_unmount(self) -> None:
        """Ask for an unmount from above; nothing before there is a mount."""
        if self._notices.upcalls is not None:
            self._notices.upcalls.unmount()

    def hang_up(self) -> None:
        """End what the program takes for /dev/fuse, as it ends in Linux after the unmount.

        It is no error of read(2) there, as Linux has it, but an end of file, of which some complain
        and others never hear who have let go of it before.
        """
        self.connection.hang_up()

    async def statvfs(self) -> Statvfs:
        """See FileServer."""
        state: Statvfs = await self.ask(
            fuse_requests.statfs, self.nodes.root, FSCRED, decode=fuse_replies.statfs
        )
        return state

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """See FileServer. With MNT_WAIT what was written through open files is made stable."""
        if self.agreed is None:
            return  # nothing can have been written
        if self.agreed.minor >= _SYNCFS_MINOR:
            await self.ask_if_there(fuse_requests.syncfs, self.nodes.root, cred)
        if waitfor == MNT_WAIT:
            for node in self.nodes.every():
                if any(handle.is_unsynced for handle in (*node.handles, *node.loans)):
                    await self.sync_node(node, 0, cred)

    async def unmount(self, flags: int) -> None:
        """See FileServer. All that is open is closed, and the program has answered DESTROY.

        One that does not answer in time is not waited for. Errors: ENOTCONN when it has ended
        before it was told to.
        """
        if not self.begun.is_set():
            return
        if self.connection.broken.is_set():
            raise VfsError(ENOTCONN)
        with trio.move_on_after(_LAST_SECONDS):
            for node in self.nodes.every():
                for handle in (*node.handles, *node.loans):
                    self.nodes.release(node, handle)
                node.handles, node.loans = [], []
            await self.connection.drain()
            self.nodes.flush_forgets()
            try:
                await self.ask_if_there(fuse_requests.destroy, self.nodes.root, FSCRED)
            except VfsError:
                pass  # it has ended, or sees nothing in the word: the end comes all the same

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """See FileServer."""
        node = self.nodes.known(opc)
        if node is not None:
            self.nodes.reclaim(node, nlookup)

    async def print(self, opc: Cookie) -> bytes:
        """Return the numbers and counts of a node."""
        node = self.node(opc)
        return b"perfuse node %d.%d, %d lookups, %d opens" % (
            *(node.nodeid, node.generation, node.held, len(node.handles)),
        )


@asynccontextmanager
async def perfuse_on(
    socket: _socket.socket,
    program: str = "",
    mntfromname: bytes = b"perfuse",
    peer_pid: Callable[[], int] | None = None,
) -> AsyncIterator[Perfuse]:
    """Serve what the FUSE program at the other end of `socket` serves; see `fuse_pair`.

    Owns `socket`. The caller calls `begin`, and `unmount` before the end of the context; what is
    in flight at its end fails with ENOTCONN. `program` is what the mount shows behind "perfuse".
    `peer_pid` knows who serves where the socket is not the program's own.
    """
    notices = Notices()
    async with open_connection(socket, notices.notified) as connection:
        server = Perfuse(connection, program, mntfromname, notices, peer_pid)
        async with background(notices.serve, server.nodes.send_forgets):
            yield server
