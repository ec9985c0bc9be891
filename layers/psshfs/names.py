"""The operations on names: looking them up, listing, making, moving and removing them."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from ...native import sftp
from ...native.constants import FREAD, FWRITE, READDIR_PLUS, Setback, Vtype
from ...native.errors import VfsError
from ...native.records import Componentname, Cookie, Cred, Dirent, Newinfo, Vattr
from .attrcache import AttrCache
from .attributes import initial_attrs
from .connection import ATTRS, HANDLE, ONE_NAME, STATUS, Slot
from .directory import DOT_OFFSET, DOTDOT_OFFSET, Entry, Listing
from .errmap import StatusError
from .node import Node
from .refine import Refiner

_log = logging.getLogger(__name__)

DIRENT_OVERHEAD: Final = 24
"""What an entry counts for in `resid` of readdir besides its name, octets."""
TARGET_MAX: Final = 4095
"""Longest target of a symbolic link, octets."""
_CREATE: Final = sftp.FXF_READ | sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_EXCL


class NameOperations(AttrCache):
    """The half of the server that works on names."""

    refiner: Refiner

    def require_writable(self) -> None:
        """Errors: EROFS on a read-only mount."""
        if self.options.ro:
            raise VfsError(errno.EROFS)

    # Looking.

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """Answer from the node's or the directory's cache, else ask by LSTAT: one round trip."""
        directory = self.table.directory(opc)
        name = cn.name
        now = self.clock()
        if name == b"..":
            return self.newinfo(directory.parent or directory, now)
        children = directory.children
        assert children is not None
        child = children.get(name)
        if child is not None and now < child.name_expiry:
            return self.newinfo(child, now)
        listing = directory.listing
        if listing is not None and now < listing.expiry:
            entry = listing.entries.get(name)
            if entry is None:
                return Newinfo(Cookie(0), Vtype.VNON, cn_ttl=listing.expiry - now)
            if entry.attrs is not None:
                child = self.learn(
                    directory, name, entry.attrs, listing.stamp, listing.expiry, entry
                )
                return self.newinfo(child, now)
        child = await self._look(directory, name)
        if child is None:
            return Newinfo(Cookie(0), Vtype.VNON)
        return self.newinfo(child, self.clock())

    async def _look(self, directory: Node, name: bytes) -> Node | None:
        """Ask the server for a name; return its node, None when there is no such name."""
        connection = self.connection
        if connection.is_congested:
            await connection.room()
        children = directory.children
        assert children is not None
        while True:
            stamp = self.table.changes
            path = self.table.path_of(directory, name)
            try:
                attrs = await connection.submit(ATTRS, sftp.lstat, path)
            except StatusError as exc:
                if exc.errno != errno.ENOENT:
                    raise
                child = children.get(name)
                if child is not None:
                    if child.changed_at > stamp:
                        return child  # made by us while the question was under way
                    self.forget_name(directory, name)
                return None
            if directory.changed_at > stamp and name not in children:
                continue  # perhaps removed by us while the question was under way
            return self.learn(directory, name, attrs, stamp, self.clock() + self.ttl)

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """Answer from the directory's listing, which is fetched when a reader begins and it is
        old; a reader under way goes on in the one that is there."""
        directory = self.table.directory(opc)
        listing = directory.listing
        if (
            listing is None
            or not listing.is_loaded
            or (offset == 0 and self.clock() >= listing.expiry)
        ):
            listing = await self.load(directory)
        result: list[Dirent] = []
        room = resid
        if offset < DOT_OFFSET:
            result.append(Dirent(directory.fileid, Vtype.VDIR, b".", DOT_OFFSET))
            room -= DIRENT_OVERHEAD + 1
        if offset < DOTDOT_OFFSET:
            if result and room < DIRENT_OVERHEAD + 2:
                return result, False
            parent = directory.parent or directory
            result.append(Dirent(parent.fileid, Vtype.VDIR, b"..", DOTDOT_OFFSET))
            room -= DIRENT_OVERHEAD + 2
        chosen: list[Entry] = []
        is_end = True
        for entry in listing.after(offset):
            room -= DIRENT_OVERHEAD + len(entry.name)
            if room < 0 and (chosen or result):
                is_end = False
                break
            chosen.append(entry)
            offset = entry.serial
        if flags & READDIR_PLUS:
            missing = [entry for entry in chosen if self._is_unknown(directory, entry)]
            gone = await self._look_at_entries(directory, missing) if missing else ()
            now = self.clock()
            for entry in chosen:
                if entry in gone:
                    continue
                child = self._entry_node(directory, listing, entry)
                if child is None:
                    continue
                info = self.newinfo(child, now)
                result.append(
                    Dirent(child.fileid, info.vtype, entry.name, entry.serial, info)
                )
        else:
            for entry in chosen:
                vtype = entry.vtype
                if vtype is None:
                    child = (directory.children or {}).get(entry.name)
                    vtype = Vtype.VNON if child is None else child.va.vtype
                result.append(Dirent(entry.fileid, vtype or 0, entry.name, entry.serial))
        if not result and not is_end:
            # All that was chosen has vanished meanwhile, and an empty answer would be the end.
            return await self.readdir(opc, offset, resid, flags, cred)
        return result, is_end

    def _is_unknown(self, directory: Node, entry: Entry) -> bool:
        """Tell whether the server must be asked before an entry's node can be given out."""
        if entry.attrs is not None:
            return False
        child = (directory.children or {}).get(entry.name)
        return child is None

    async def _look_at_entries(self, directory: Node, entries: list[Entry]) -> set[Entry]:
        """Ask for the attributes that the listing left out, all at once; return vanished ones."""
        connection = self.connection
        asked: list[tuple[Entry, Slot[sftp.Attrs]]] = []
        gone: set[Entry] = set()
        stamp = self.table.changes
        for entry in entries:
            if connection.is_congested:
                await connection.room()
            path = self.table.path_of(directory, entry.name)
            asked.append((entry, connection.submit(ATTRS, sftp.lstat, path)))
        for entry, slot in asked:
            try:
                attrs = await slot
            except StatusError:
                gone.add(entry)
                continue
            if directory.changed_at <= stamp:
                # A server that tells no type even now has a regular file there.
                if attrs.mode is None:
                    attrs = attrs._replace(mode=stat.S_IFREG | 0o600)
                entry.attrs = attrs
            elif (directory.children or {}).get(entry.name) is None:
                gone.add(entry)
        return gone

    def _entry_node(self, directory: Node, listing: Listing, entry: Entry) -> Node | None:
        children = directory.children
        assert children is not None
        child = children.get(entry.name)
        if child is not None and (
            entry.attrs is None
            or child.changed_at > listing.stamp
            or child.expiry >= listing.expiry
        ):
            return child
        if entry.attrs is None:
            return None
        return self.learn(
            directory, entry.name, entry.attrs, listing.stamp, listing.expiry, entry
        )

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """Answer from the cache, else by READLINK: one round trip."""
        node = self.table.node(opc)
        if node.vtype != Vtype.VLNK:
            raise VfsError(errno.EINVAL)
        if node.target is not None and self.clock() < node.target_expiry:
            return node.target
        if self.connection.is_congested:
            await self.connection.room()
        try:
            target = await self.connection.submit(ONE_NAME, sftp.readlink, self.table.path(node))
        except StatusError as exc:
            if exc.code == sftp.FX_BAD_MESSAGE:
                raise VfsError(errno.EINVAL, exc.detail) from None
            raise
        if not target or b"\0" in target or len(target) > TARGET_MAX:
            # No link can say that; the host would not take it either.
            raise VfsError(errno.EIO, "the server's link target is none")
        node.target = target
        node.target_expiry = self.clock() + self.ttl
        return target

    # Making.

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make a file, and keep its handle for the open that follows: one round trip for both."""
        node, handle = await self._create(opc, cn.name, va)
        file = self.open_file(node)
        file.adopt(handle, FREAD | FWRITE)
        file.is_kept = True
        return self.newinfo(node, self.clock())

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make a regular file. Errors: EOPNOTSUPP for other types, which SFTP has no request for
        (Linux has EPERM for a file system without them; this says why)."""
        if va.vtype != Vtype.VREG:
            self.table.directory(opc)
            raise VfsError(errno.EOPNOTSUPP, "SFTP cannot make devices, fifos and sockets")
        node, handle = await self._create(opc, cn.name, va)
        self.connection.close_handle(handle)
        return self.newinfo(node, self.clock())

    async def _create(self, opc: Cookie, name: bytes, va: Vattr) -> tuple[Node, bytes]:
        connection = self.connection
        directory, path = self._place(opc, name)
        if connection.is_congested:
            await connection.room()
        with connection.batch:
            opened = connection.submit(
                HANDLE, sftp.open_, path, _CREATE, initial_attrs(va, 0o666)
            )
            looked = connection.submit(ATTRS, sftp.lstat, path)
        try:
            handle = await opened
        except StatusError as exc:
            looked.abandon()
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
        directory, path = self._place(opc, cn.name)
        attrs = await self._make(
            directory, path, sftp.mkdir, path, initial_attrs(va, 0o777)
        )
        attrs = await self._give_mode(va, attrs, path)
        if directory.nlink > 1:
            directory.nlink += 1
        return self.newinfo(self._born(directory, cn.name, attrs), self.clock())

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """Make a symbolic link: one round trip."""
        directory, path = self._place(opc, cn.name)
        if len(target) > TARGET_MAX:
            raise VfsError(errno.ENAMETOOLONG)
        if not target:
            raise VfsError(errno.ENOENT)
        attrs = await self._make(directory, path, sftp.symlink, target, path)
        node = self._born(directory, cn.name, attrs)
        node.target = target
        node.target_expiry = self.clock() + self.ttl
        return self.newinfo(node, self.clock())

    def _place(self, opc: Cookie, name: bytes) -> tuple[Node, bytes]:
        """Return the directory in which a name is to be made, and the name's path."""
        directory = self.table.directory(opc)
        self.require_writable()
        return directory, self.table.path_of(directory, name)

    async def _make(
        self, directory: Node, path: bytes, encode: Callable[..., bytes], *args: Any
    ) -> sftp.Attrs:
        """Send a request that makes `path`, and with it the question for its attributes."""
        connection = self.connection
        if connection.is_congested:
            await connection.room()
        with connection.batch:
            made = connection.submit(STATUS, encode, *args)
            looked = connection.submit(ATTRS, sftp.lstat, path)
        try:
            await made
        except StatusError as exc:
            looked.abandon()
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
            await changed
            return await looked
        except StatusError as exc:
            _log.info("the server keeps its umask: %s", exc)
            return attrs

    def _born(self, directory: Node, name: bytes, attrs: sftp.Attrs) -> Node:
        """Take in a node that we have made."""
        table = self.table
        now = self.clock()
        stale = (directory.children or {}).get(name)
        if stale is not None and stale.file is not None:
            # Open, and removed by others before we made the name anew: not the same file.
            table.drop_name(directory, name)
        node = self.learn(directory, name, attrs, table.changes, now + self.ttl)
        node.va = self.translator.vattr(attrs, node.fileid, 1)
        node.nlink = 1
        node.known_data = None
        self.touched(directory)
        table.changed(node)
        if directory.listing is not None:
            directory.listing.add(name, node.fileid)
        return node

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """Make a hard link by hardlink@openssh.com. Errors: EPERM without it, as link(2) has it
        for file systems without hard links, and for directories."""
        connection = self.connection
        table = self.table
        node = table.node(targ)
        directory, path = self._place(opc, cn.name)
        if node.vtype == Vtype.VDIR or not self.session.hardlink:
            raise VfsError(errno.EPERM)
        source = table.path(node)
        if connection.is_congested:
            await connection.room()
        with connection.batch:
            made = connection.submit(STATUS, sftp.hardlink, source, path)
            stamp = table.changes
            looked = connection.submit(ATTRS, sftp.lstat, path)
        try:
            await made
        except StatusError as exc:
            looked.abandon()
            raise await self.refiner.linked(exc, source, table.path(directory), path) from None
        self.forget_name(directory, cn.name)
        table.add_name(node, directory, cn.name)
        self.touched(directory)
        if directory.listing is not None:
            directory.listing.add(cn.name, node.fileid)
        node.nlink += 1
        node.va = node.va._replace(nlink=node.nlink)
        attrs = await looked
        if node.changed_at <= stamp:
            self.take_attrs(node, attrs, stamp)
        return node.va, self.attr_ttl(node)

    # Removing and moving.

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Remove a name; open SFTP handles of the node stay good on POSIX servers."""
        node = self.table.node(targ)
        directory, path = self._place(opc, cn.name)
        if node.vtype == Vtype.VDIR:
            raise VfsError(errno.EISDIR)
        if self.connection.is_congested:
            await self.connection.room()
        try:
            await self.connection.submit(STATUS, sftp.remove, path)
        except StatusError as exc:
            if exc.errno == errno.ENOENT:
                self.forget_name(directory, cn.name)
            raise await self.refiner.removed(exc, self.table.path(directory), path) from None
        self._unlinked(node)
        self.touched(directory)
        self.forget_name(directory, cn.name)
        return Setback.NOREF_N2 if node.is_gone else 0

    def _unlinked(self, node: Node) -> None:
        if node.nlink > 0:
            node.nlink -= 1
            node.va = node.va._replace(nlink=node.nlink)
        self.table.changed(node)
        node.expiry = 0

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Remove an empty directory."""
        node = self.table.node(targ)
        directory, path = self._place(opc, cn.name)
        if node.vtype != Vtype.VDIR:
            raise VfsError(errno.ENOTDIR)
        if self.connection.is_congested:
            await self.connection.room()
        try:
            await self.connection.submit(STATUS, sftp.rmdir, path)
        except StatusError as exc:
            error = await self.refiner.rmdired(exc, self.table.path(directory), path)
            if error.errno == errno.ENOENT:
                self.forget_name(directory, cn.name)
            raise error from None
        if directory.nlink > 2:
            directory.nlink -= 1
        node.va = node.va._replace(nlink=0)
        self.touched(directory)
        self.forget_name(directory, cn.name)
        return Setback.NOREF_N2

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
        source, old = self._place(opc, cn_src.name)
        target, new = self._place(targ_dir, cn_targ.name)
        victim = None if targ is None else table.node(targ)
        if node.vtype == Vtype.VDIR and table.is_ancestor(node, target):
            raise VfsError(errno.EINVAL)
        if victim is node:
            return  # two names of one file: POSIX has nothing happen
        if victim is not None:
            if victim.vtype == Vtype.VDIR and node.vtype != Vtype.VDIR:
                raise VfsError(errno.EISDIR)
            if victim.vtype != Vtype.VDIR and node.vtype == Vtype.VDIR:
                raise VfsError(errno.ENOTDIR)
        if self.connection.is_congested:
            await self.connection.room()
        try:
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
        source: Node,
        source_name: bytes,
        target: Node,
        target_name: bytes,
        victim: Node | None,
    ) -> None:
        """Take in a rename that the server has made."""
        if victim is not None:
            self._unlinked(victim)
        self.touched(source)
        self.touched(target)
        self.table.move(source, source_name, target, target_name)
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
                    source.nlink -= 1
                if target.nlink > 1 and victim is None:
                    target.nlink += 1
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
