"""What all operations of perfuse stand on: nodes, handles, and requests that a server may lack."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from errno import EIO, ENOSYS, EOPNOTSUPP, EROFS
from typing import Any, Final

import trio

from ...native import fuse_replies, fuse_requests
from ...native.constants import FREAD, FWRITE, Vtype
from ...native.errors import VfsError
from ...native.fuse_protocol import FopenFlag, Opened
from ...native.records import FSCRED, Buffer, Cookie, Cred
from ..ops import FileServer
from .connection import Connection, Decode, Encode
from .nodes import Handle, Node, NodeTable
from .session import Session

_O_LARGEFILE: Final = 0o100000
"""What Linux says in each open; the C library's constant is 0 where all files may be large."""


def open_flags(mode: int) -> int:
    """Return open(2)'s flags for FREAD and/or FWRITE. O_APPEND never: we know where the end is."""
    access = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR)[mode & (FREAD | FWRITE)]
    return access | _O_LARGEFILE


_CHANGING: Final[frozenset[Encode]] = frozenset(
    {
        *(fuse_requests.create, fuse_requests.mknod, fuse_requests.mkdir, fuse_requests.symlink),
        *(fuse_requests.unlink, fuse_requests.rmdir, fuse_requests.link, fuse_requests.setattr),
        *(fuse_requests.rename, fuse_requests.rename2, fuse_requests.write),
        *(fuse_requests.setxattr, fuse_requests.removexattr, fuse_requests.fallocate),
        fuse_requests.copy_file_range,
    }
)


class Asking(FileServer):
    """The part of the server that asks, opens and remembers what the server does not have."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.nodes = NodeTable(connection)
        self.agreed: Session | None = None
        self.begun = trio.Event()
        self.is_rdonly = False
        """Whether the program has asked for a mount that cannot be written to."""
        self._unasked: dict[Encode, int] = {}
        """What it is not asked for, and the errno that it is answered with."""

    def forbid_writing(self) -> None:
        """Refuse what would change anything, as Linux does for a program that says `ro`."""
        self.is_rdonly = True
        self._unasked |= dict.fromkeys(_CHANGING, EROFS)

    @property
    def session(self) -> Session:
        """What was agreed on; nothing is asked before."""
        assert self.agreed is not None
        return self.agreed

    def node(self, cookie: Cookie) -> Node:
        """Return a node. Errors: ESTALE."""
        return self.nodes.node(cookie)

    async def ask(
        self,
        encode: Encode,
        node: Node,
        cred: Cred,
        *args: Any,
        payload: Buffer | None = None,
        decode: Decode = fuse_replies.nothing,
        undo: Callable[[Any], None] | None = None,
        is_long: bool = False,
    ) -> Any:
        """Ask the server about `node`.

        Errors: EOPNOTSUPP for what it has said (ENOSYS) that it does not have; it is not asked
        for that again. EROFS after `forbid_writing`. Others as it says, EIO for nonsense, ENOTCONN
        when it has ended.
        """
        if encode in self._unasked:
            raise VfsError(self._unasked[encode])
        if not self.begun.is_set():
            await self.begun.wait()
        try:
            return await self.connection.ask(
                *(encode, node.nodeid, cred, *args),
                payload=payload,
                decode=decode,
                undo=undo,
                is_long=is_long,
            )
        except VfsError as exc:
            if exc.errno != ENOSYS:
                raise
            self._unasked[encode] = EOPNOTSUPP
            raise VfsError(EOPNOTSUPP) from None

    async def ask_if_there(self, encode: Encode, node: Node, cred: Cred, *args: Any) -> None:
        """Ask for what succeeds where a server does not have it."""
        try:
            await self.ask(encode, node, cred, *args)
        except VfsError as exc:
            if exc.errno != EOPNOTSUPP or encode not in self._unasked:
                raise

    # Handles.

    async def open_at_server(self, node: Node, mode: int, cred: Cred) -> tuple[Handle, int]:
        """Open `node`; return the handle and FopenFlag. Without OPEN there all are number 0.

        Errors: EROFS to write after `forbid_writing`; others as `ask`.
        """
        is_dir = node.vtype == Vtype.VDIR
        if self.is_rdonly and mode & FWRITE:
            raise VfsError(EROFS)
        encode = fuse_requests.opendir if is_dir else fuse_requests.open_
        flags = os.O_DIRECTORY | _O_LARGEFILE if is_dir else open_flags(mode)

        def undo(opened: Opened) -> None:
            self.nodes.release(node, Handle(opened.fh, mode, flags))

        try:
            opened: Opened = await self.ask(
                encode, node, cred, flags, decode=fuse_replies.opened, undo=undo
            )
        except VfsError as exc:
            if exc.errno != EOPNOTSUPP or encode not in self._unasked:
                raise
            return Handle(0, mode, flags), FopenFlag.KEEP_CACHE
        return Handle(opened.fh, mode & (FREAD | FWRITE), flags), opened.flags

    async def handle_for(self, node: Node, need: int, cred: Cred) -> Handle:
        """Return a handle with mode `need`; if nobody above has one, open it for ourselves.

        What the caches above write back, they write when the file is closed, on nobody's behalf.
        """
        for handle in node.handles:
            if handle.mode & need:
                return handle
        for handle in node.loans:
            if handle.mode & need:
                return handle
        handle, _ = await self.open_at_server(node, need, cred)
        if self.nodes.known(node.cookie) is not node:
            self.nodes.release(node, handle)
            raise VfsError(EIO, "a node was given back while in use")
        node.loans.append(handle)
        return handle

    def return_loans(self, node: Node) -> None:
        """Give back what was opened for ourselves."""
        loans, node.loans = node.loans, []
        for handle in loans:
            self.nodes.release(node, handle)

    async def close_unused(self, node: Node) -> None:
        """Wait until the server has closed what nobody above has open any more.

        A server may keep a file that loses its name while it is open under another name: libfuse
        does, and would not remove it then.
        """
        if not node.handles:
            self.return_loans(node)
        while node.closing:
            with suppress(VfsError):
                await node.closing.pop().wait()

    async def flush_handle(self, node: Node, handle: Handle, cred: Cred) -> None:
        """Do what close(2) does first: hear of errors of write-behind."""
        handle.is_dirty = False
        with handle:
            await self.ask_if_there(fuse_requests.flush, node, cred, handle.fh, 0)

    async def sync_node(self, node: Node, flags: int, cred: Cred = FSCRED) -> None:
        """Make a node stable through each handle that has written, else through any there is."""
        is_dir = node.vtype == Vtype.VDIR
        encode = fuse_requests.fsyncdir if is_dir else fuse_requests.fsync
        every = [*node.handles, *node.loans]
        wrote = [handle for handle in every if handle.is_unsynced]
        for handle in wrote or every[:1]:
            handle.is_unsynced = False
            try:
                with handle:
                    await self.ask_if_there(encode, node, cred, handle.fh, flags)
            except VfsError:
                handle.is_unsynced = True
                raise
