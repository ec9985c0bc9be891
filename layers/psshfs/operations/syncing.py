"""fsync: what was written has reached the server, and its disk."""

from __future__ import annotations

from contextlib import suppress

from ....native import sftp
from ....native.constants import FSYNC_CLOSE, FSYNC_WAIT, Vtype
from ....native.errors import VfsError
from ....native.records import Cookie, Cred
from ..mount.attrcache import AttrCache
from ..tree.node import Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, HANDLE, STATUS, Slot


class AfterWriteSlot(Slot[sftp.Attrs]):
    """An FSTAT behind the last write before a close: nobody waits for it, the node learns."""

    __slots__ = ("_node", "_server", "_stamp")

    def __init__(self, server: SyncOperations, node: Node, stamp: int) -> None:
        super().__init__(server.connection, ATTRS, shared=True)
        self._server = server
        self._node = node
        self._stamp = stamp

    def _wake(self) -> None:
        if not self.is_failed:
            self._server.written_back(self._node, self.result(), self._stamp)
        super()._wake()


class SyncOperations(AttrCache):
    """The part of the server that makes sure of what was written."""

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Wait until the server has all writes (FSYNC_CLOSE), and its disk, too (FSYNC_WAIT).

        The latter by fsync@openssh.com; a server without it has done what it can when it has
        acknowledged. A directory is synced by a handle made for that.
        Errors: that of an earlier write, told once.
        """
        node = self.table.node(opc)
        file = node.file
        if not flags & (FSYNC_CLOSE | FSYNC_WAIT):
            return  # everything is on its way already
        if node.vtype == Vtype.VDIR:
            if flags & FSYNC_WAIT and self.session.fsync:
                await self._sync_by_path(node)
            return
        if file is not None and file.birth is not None:
            if self.writeback.is_on and not flags & FSYNC_WAIT:
                return
            await file.birth.wait()
        if file is not None:
            if file.handle is not None and self.channels.is_spread(file.handle):
                await file.writes.drain()  # what asks behind one session's writes sees no other's
            if flags & FSYNC_CLOSE and node.is_modified and file.handle is not None:
                slot = AfterWriteSlot(self, node, self.table.changes)
                with suppress(VfsError):
                    # Asked for convenience: a close does not fail when only this does.
                    self.connection.submit_slot(slot, sftp.fstat, file.handle)
            writes = file.writes
            if not writes.is_idle:
                if self.writeback.is_on and not flags & FSYNC_WAIT:
                    self.writeback.add(node, file)
                    await self.writeback.room()
                else:
                    await writes.drain()
            error = writes.take_error()
            if error is not None:
                raise await self.refiner.written(error, self.any_path(node), 1)
        if flags & FSYNC_WAIT and node.vtype == Vtype.VREG and self.session.fsync:
            await self._sync_file(node)

    async def _sync_file(self, node: Node) -> None:
        """Have the server sync a file: all of it, whoever wrote it and when."""
        file = node.file
        handle = file.handle if file is not None else None
        if file is not None and handle is not None:
            file.is_unsynced = False
            try:
                await self.connection.submit(STATUS, sftp.fsync, handle)
            except BaseException:
                file.is_unsynced = True
                raise
        else:
            await self._sync_by_path(node)

    async def _sync_by_path(self, node: Node) -> None:
        """Sync what is not open, by a handle made for it."""
        await self.ready(node)
        try:
            handle = await self.connection.submit(
                HANDLE, sftp.open_, self.table.path(node), sftp.FXF_READ
            )
        except StatusError:
            if node.vtype == Vtype.VDIR:
                return  # there are servers whose directories cannot be opened
            raise
        try:
            await self.connection.submit(STATUS, sftp.fsync, handle)
        except StatusError as exc:
            # EINVAL: file systems that know no sync of a directory.
            if exc.code != sftp.FX_BAD_MESSAGE or node.vtype != Vtype.VDIR:
                raise
        finally:
            self.connection.close_handle(handle)

    def written_back(self, node: Node, attrs: sftp.Attrs, stamp: int) -> None:
        """Take in attributes that were asked for behind the last write of a file."""
        file = node.file
        if file is not None and not file.writes.is_idle:
            return  # a server that works on several requests at once has not done them all
        if attrs.size == node.va.size:
            self.update(node, attrs, stamp, self.clock(), is_after_close=True)
