"""Moving a name over another, with posix-rename@openssh.com and without."""

from __future__ import annotations

import errno
import logging
import os
import stat

import trio

from ....native import sftp
from ....native.constants import Vtype
from ....native.errors import VfsError
from ....native.records import Componentname, Cookie
from ..tree.node import DirectoryNode, Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, STATUS
from .names import NameOperations

_log = logging.getLogger(__name__)


class RenameOperations(NameOperations):
    """The part of the server that moves names."""

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        """Move a name, atomically where the server has posix-rename@openssh.com.

        Without it see `_rename_safely`.
        """
        table = self.table
        node = table.node(src)
        source, target = table.directory(opc), table.directory(targ_dir)
        self.require_writable()
        victim = None if targ is None else table.node(targ)
        if victim is not None and victim.file is not None:
            await self.keep_readable(victim)
        await self.both_ready(source, cn_src.name, target, cn_targ.name)
        old, new = table.path_of(source, cn_src.name), table.path_of(target, cn_targ.name)
        if node.vtype == Vtype.VDIR and table.is_ancestor(node, target):
            raise VfsError(errno.EINVAL)
        if victim is node or (source is target and cn_src.name == cn_targ.name):
            return  # two names of one file: POSIX has nothing happen
        if victim is not None:
            if victim.vtype == Vtype.VDIR and node.vtype != Vtype.VDIR:
                raise VfsError(errno.EISDIR)
            if victim.vtype != Vtype.VDIR and node.vtype == Vtype.VDIR:
                raise VfsError(errno.ENOTDIR)
        try:
            with self.changing((source, cn_src.name), (target, cn_targ.name)):
                if self.session.posix_rename:
                    await self.connection.submit(STATUS, sftp.posix_rename, old, new)
                else:
                    await self._rename_safely(old, new, victim)
        except StatusError as exc:
            raise await self.refiner.renamed(
                exc, old, new, table.path(source), table.path(target)
            ) from None
        self._moved(node, source, cn_src.name, target, cn_targ.name, victim)

    async def _rename_safely(self, old: bytes, new: bytes, victim: Node | None) -> None:
        """Rename with what version 3 has: a RENAME that refuses an existing target.

        First as it is. When it fails and there is a target, that is moved aside, the rename
        made, and the old target removed; when the rename fails now, the target is moved back.
        At no time is there a moment without a copy of either file on the server.
        """
        connection = self.connection
        try:
            await connection.submit(STATUS, sftp.rename, old, new)
            return
        except StatusError as exc:
            # Version 3 has no code for an existing target: FAILURE mostly.
            if exc.code not in (sftp.FX_FAILURE, 11):
                raise
            try:
                attrs = await connection.submit(ATTRS, sftp.lstat, new)
            except StatusError:
                raise exc from None
        is_directory = attrs.mode is not None and stat.S_ISDIR(attrs.mode)
        if is_directory and await self.refiner.has_entries(new):
            raise VfsError(errno.ENOTEMPTY)
        aside = b"%b/.psshfs-%b" % (new.rpartition(b"/")[0], os.urandom(8).hex().encode())
        # From here to the end or back: a cancelled caller must not leave the target aside.
        with trio.CancelScope(shield=True):
            await connection.submit(STATUS, sftp.rename, new, aside)
            try:
                await connection.submit(STATUS, sftp.rename, old, new)
            except StatusError:
                await connection.submit(STATUS, sftp.rename, aside, new)
                raise
            remove = sftp.rmdir if is_directory else sftp.remove
            try:
                await connection.submit(STATUS, remove, aside)
            except StatusError as exc:
                _log.warning("a replaced file stays as %r: %s", aside, exc)

    def _moved(
        self,
        node: Node,
        source: DirectoryNode,
        source_name: bytes,
        target: DirectoryNode,
        target_name: bytes,
        victim: Node | None,
    ) -> None:
        """Take in a rename that the server has made."""
        if victim is not None:
            self.unlinked(victim)
        self.touched(source)
        self.touched(target)
        self.table.move(node, source, source_name, target, target_name)
        if source is target:
            if source.listing is not None:
                source.listing.rename(source_name, target_name, node.fileid)
        else:
            if source.listing is not None:
                source.listing.discard(source_name)
            if target.listing is not None:
                target.listing.discard(target_name)
                target.listing.add(target_name, node.fileid)
            if node.vtype == Vtype.VDIR:
                if source.nlink > 2:
                    source.add_links(-1)
                if target.nlink > 1 and victim is None:
                    target.add_links(1)
        if victim is not None and (victim.va.size, victim.va.mtime) == (
            node.va.size,
            node.va.mtime,
        ):
            # They may have been two names of one file, unknown to us: then nothing has happened,
            # and the old name is still there.
            node.name_expiry = 0
            for directory in (source, target):
                if directory.listing is not None:
                    directory.listing.expiry = 0
