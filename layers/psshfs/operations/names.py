"""The operations that make and remove names."""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import Callable
from typing import Any, Final

from ....native import sftp
from ....native.constants import FREAD, FWRITE, Setback, Vtype
from ....native.errors import VfsError
from ....native.records import Componentname, Cookie, Newinfo, Vattr
from ..data.writeback import Birth
from ..mount.attrcache import AttrCache
from ..tree.attributes import initial_attrs
from ..tree.listing import Listing
from ..tree.node import TARGET_MAX, DirectoryNode, Node
from ..wire.errmap import StatusError
from ..wire.slot import ATTRS, HANDLE, STATUS

_log = logging.getLogger(__name__)

_CREATE: Final = sftp.FXF_READ | sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_EXCL


class NameOperations(AttrCache):
    """The part of the server that changes names."""

    # Making.

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make a file, and keep its handle for the open that follows: one round trip for both."""
        if self.writeback.is_on:
            await self.writeback.room()
            node = await self._create_later(opc, cn.name, va)
            if node is not None:
                return self.newinfo(node, self.clock())
        node, handle = await self._create(opc, cn.name, va)
        file = self.open_file(node)
        file.adopt(handle, FREAD | FWRITE)
        file.is_kept = True
        return self.newinfo(node, self.clock())

    async def _create_later(self, opc: Cookie, name: bytes, va: Vattr) -> Node | None:
        """Send the OPEN that makes a file and wait for nothing, where the name is known not to be
        there; else return None."""
        directory, path = await self._place(opc, name)
        now = self.clock()
        listing = directory.listing
        if name in (directory.children or {}) or not (
            (directory.missing is not None and now < directory.missing.get(name, 0))
            or (
                listing is not None
                and now < max(listing.expiry, listing.own_until)
                and name not in listing.entries
            )
        ):
            return None
        connection = self.connection
        mode = 0o666 if va.mode is None else va.mode
        wall = self.wall() // 10**9
        attrs = sftp.Attrs(size=0, mode=stat.S_IFREG | mode, atime=wall, mtime=wall)
        node = self._born(directory, name, attrs)
        # Whose it is the server will say; most likely who owns the directory.
        node.va = node.va._replace(uid=directory.va.uid, gid=directory.va.gid)
        node.expiry = 0
        node.is_modified = True
        file = self.open_file(node)
        birth = Birth(self.writeback, connection, node, file, FREAD | FWRITE, va.mode)
        birth.shut.enter_context(self.gate.closed((directory, name)))
        file.birth = birth
        file.is_kept = True
        self.writeback.add(node, file)
        try:
            connection.submit_slot(birth, sftp.open_, path, _CREATE, initial_attrs(va, 0o666))
        except VfsError:
            birth.fail(errno.ENOTCONN)
            raise
        return node

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make a regular file. Errors: EOPNOTSUPP for other types, which SFTP has no request for
        (Linux has EPERM for a file system without them; this says why)."""
        if va.vtype != Vtype.VREG:
            await self._place(opc, cn.name)
            raise VfsError(errno.EOPNOTSUPP, "SFTP cannot make devices, fifos and sockets")
        node, handle = await self._create(opc, cn.name, va)
        self.connection.close_handle(handle)
        return self.newinfo(node, self.clock())

    async def _create(self, opc: Cookie, name: bytes, va: Vattr) -> tuple[Node, bytes]:
        connection = self.connection
        directory, path = await self._place(opc, name)
        try:
            with self.changing((directory, name)):
                with connection.batch:
                    opened = connection.submit(
                        HANDLE, sftp.open_, path, _CREATE, initial_attrs(va, 0o666)
                    )
                    looked = connection.submit(ATTRS, sftp.lstat, path)
                handle = await opened.after(looked)
        except StatusError as exc:
            self.doubt(directory)
            raise await self.refiner.made(exc, self.table.path(directory), path) from None
        try:
            try:
                attrs = await looked
            except StatusError:
                # A server that works on several requests at once looked too early.
                attrs = await connection.submit(ATTRS, sftp.fstat, handle)
            attrs = await self._give_mode(va, attrs, path)
        except BaseException:
            connection.close_handle(handle)
            raise
        return self._born(directory, name, attrs), handle

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make a directory: one round trip."""
        directory, path = await self._place(opc, cn.name)
        attrs = await self._make(
            directory, cn.name, path, sftp.mkdir, path, initial_attrs(va, 0o777)
        )
        attrs = await self._give_mode(va, attrs, path)
        if directory.nlink > 1:
            directory.add_links(1)
        node = self._born(directory, cn.name, attrs)
        if self.timeouts.directory and isinstance(node, DirectoryNode):
            # Who fills it need not ask for each name first; see `_born`.
            listing = node.listing = node.listing or Listing(node)
            listing.made_until = self.clock() + self.timeouts.directory
        return self.newinfo(node, self.clock())

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """Make a symbolic link: one round trip."""
        directory, path = await self._place(opc, cn.name)
        if len(target) > TARGET_MAX:
            raise VfsError(errno.ENAMETOOLONG)
        if not target:
            raise VfsError(errno.ENOENT)
        attrs = await self._make(directory, cn.name, path, sftp.symlink, target, path)
        node = self._born(directory, cn.name, attrs)
        node.target = target, self.clock() + self.timeouts.link
        return self.newinfo(node, self.clock())

    async def _place(self, opc: Cookie, name: bytes) -> tuple[DirectoryNode, bytes]:
        """Return the directory in which a name is to be changed, and the name's path, when a
        request may be made."""
        directory = self.table.directory(opc)
        self.require_writable()
        await self.ready(directory, name)
        return directory, self.table.path_of(directory, name)

    async def both_ready(
        self, one: Node, one_name: bytes | None, other: Node, other_name: bytes
    ) -> None:
        """Wait until a request by two paths may be made."""
        await self.ready(one, one_name)
        gate = self.gate
        while gate.is_closed(one, one_name) or gate.is_closed(other, other_name):
            await gate.wait(one, one_name)
            await gate.wait(other, other_name)

    async def _make(
        self,
        directory: DirectoryNode,
        name: bytes,
        path: bytes,
        encode: Callable[..., bytes],
        *args: Any,
    ) -> sftp.Attrs:
        """Send a request that makes `path`, and with it the question for its attributes."""
        connection = self.connection
        try:
            with self.changing((directory, name)):
                with connection.batch:
                    made = connection.submit(STATUS, encode, *args)
                    looked = connection.submit(ATTRS, sftp.lstat, path)
                await made.after(looked)
        except StatusError as exc:
            self.doubt(directory)
            raise await self.refiner.made(exc, self.table.path(directory), path) from None
        try:
            return await looked
        except StatusError:
            return await connection.submit(ATTRS, sftp.lstat, path)

    async def _give_mode(self, va: Vattr, attrs: sftp.Attrs, path: bytes) -> sftp.Attrs:
        """Give a new node the permissions that were asked for where the server's umask took some.

        The host has applied the caller's umask already; another one would be a surprise.
        Wire: nothing when the mode is right, else SETSTAT and LSTAT in one round trip.
        """
        wanted = va.mode
        if wanted is None or attrs.mode is None or not wanted & 0o777 & ~attrs.mode:
            return attrs
        mode = (wanted | attrs.mode) & 0o7777
        connection = self.connection
        with connection.batch:
            changed = connection.submit(STATUS, sftp.setstat, path, sftp.Attrs(mode=mode))
            looked = connection.submit(ATTRS, sftp.lstat, path)
        try:
            await changed.after(looked)
            return await looked
        except StatusError as exc:
            _log.info("the server keeps its umask: %s", exc)
            return attrs

    def _born(self, directory: DirectoryNode, name: bytes, attrs: sftp.Attrs) -> Node:
        """Take in a node that we have made."""
        table = self.table
        now = self.clock()
        stale = table.child(directory, name)
        if stale is not None and stale.file is not None:
            # Open, and removed by others before we made the name anew: not the same file.
            table.drop_name(directory, name)
        node = self.learn(directory, name, attrs, table.changes, now)
        node.va = self.translator.vattr(attrs, node.fileid, 1)
        node.known_data = None
        self.touched(directory)
        table.changed(node)
        listing = directory.listing
        if listing is not None:
            listing.add(name, node.fileid)
            table.listings.count(directory, listing, now)
            listing.lacking_until = max(listing.lacking_until, now + self.timeouts.missing)
            if now < listing.made_until:
                # Believed from the first name on that we make there, and no longer than any
                # missing name: what another host makes in a new directory is seen at once.
                listing.own_until = min(listing.made_until, now + self.timeouts.missing)
        return node

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """Make a hard link by hardlink@openssh.com. Errors: EPERM without it, as link(2) has it
        for file systems without hard links, and for directories."""
        connection = self.connection
        table = self.table
        node = table.node(targ)
        directory = table.directory(opc)
        self.require_writable()
        if not self.options.hard_links:
            raise VfsError(errno.ENOSYS)
        if node.vtype == Vtype.VDIR or not self.session.hardlink:
            raise VfsError(errno.EPERM)
        await self.both_ready(node, None, directory, cn.name)
        source, path = table.path(node), table.path_of(directory, cn.name)
        try:
            with self.changing((directory, cn.name)):
                with connection.batch:
                    made = connection.submit(STATUS, sftp.hardlink, source, path)
                    stamp = table.changes
                    looked = connection.submit(ATTRS, sftp.lstat, path)
                await made.after(looked)
        except StatusError as exc:
            raise await self.refiner.linked(exc, source, table.path(directory), path) from None
        self.forget_name(directory, cn.name)
        table.add_name(node, directory, cn.name)
        self.touched(directory)
        if directory.listing is not None:
            directory.listing.add(cn.name, node.fileid)
        node.add_links(1)
        is_news = node.changed_at <= stamp
        table.changed(node)  # a listing that is under way may still count one link less
        stamp = table.changes
        attrs = await looked
        if is_news:
            self.take_attrs(node, attrs, stamp)
        return node.va, self.attr_ttl(node)

    # Removing and moving.

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Remove a name; open SFTP handles of the node stay good on POSIX servers."""
        node = self.table.node(targ)
        if node.file is not None:
            await self.keep_readable(node)
        directory, path = await self._place(opc, cn.name)
        if node.vtype == Vtype.VDIR:
            raise VfsError(errno.EISDIR)
        try:
            with self.changing((directory, cn.name)):
                await self.connection.submit(STATUS, sftp.remove, path)
        except StatusError as exc:
            if exc.errno == errno.ENOENT:
                self.forget_name(directory, cn.name)
            raise await self.refiner.removed(exc, self.table.path(directory), path) from None
        self.unlinked(node)
        self.touched(directory)
        self.forget_name(directory, cn.name)
        return Setback.NOREF_N2 if node.is_gone else 0

    def unlinked(self, node: Node) -> None:
        """Note that a node has lost a name."""
        if node.nlink > 0:
            node.add_links(-1)
        self.table.changed(node)
        node.expiry = 0

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Remove an empty directory."""
        node = self.table.node(targ)
        directory, path = await self._place(opc, cn.name)
        if node.vtype != Vtype.VDIR:
            raise VfsError(errno.ENOTDIR)
        try:
            with self.changing((directory, cn.name)):
                await self.connection.submit(STATUS, sftp.rmdir, path)
        except StatusError as exc:
            error = await self.refiner.rmdired(exc, self.table.path(directory), path)
            if error.errno == errno.ENOENT:
                self.forget_name(directory, cn.name)
            raise error from None
        if directory.nlink > 2:
            directory.add_links(-1)
        node.va = node.va._replace(nlink=0)
        self.touched(directory)
        self.forget_name(directory, cn.name)
        return Setback.NOREF_N2
