"""Operations on names: looked up, made, removed, moved and listed."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EIO, ENOENT, ENOTDIR, EOPNOTSUPP
from os import O_CREAT, O_EXCL
from typing import Any, Final

from ...native import fuse_replies, fuse_requests
from ...native.constants import (
    FREAD,
    FWRITE,
    ISDOTDOT,
    PATH_MAX,
    READDIR_PLUS,
    Setback,
    Vtype,
)
from ...native.errors import VfsError
from ...native.fuse_protocol import RENAME_EXCHANGE, Entry, FuseDirent, Opened
from ...native.fuse_replies import READDIR_MAX
from ...native.records import (
    VTYPE_TO_IFMT,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Newinfo,
    Vattr,
)
from .asking import Asking, open_flags
from .connection import Encode
from .nodes import Handle, Node

_DIRENT_HEAD: Final = 24
_READDIR_MIN: Final = 4096
"""What Linux asks for at least; a server may rely on it."""
_MISSING: Final = Newinfo(Cookie(0), 0)
_DOTS: Final = (b".", b"..")
_RENAME2_MINOR: Final = 23
"""Since when there is RENAME2."""


def _with_info(item: Dirent, info: Newinfo) -> Dirent:
    return Dirent(item.fileid, info.vtype, item.name, item.offset, info)


class NameOperations(Asking):
    """See the module."""

    def _undo_entry(self, entry: Entry) -> None:
        """Give back a lookup that nobody waits for."""
        if entry.nodeid:
            self.nodes.forget(entry.nodeid)

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """See FileServer. ".." is known without asking, as in Linux."""
        parent = self.node(opc)
        if parent.vtype != Vtype.VDIR:
            raise VfsError(ENOTDIR)
        if cn.flags & ISDOTDOT:
            return await self._lookup_parent(parent, cn.cred)
        try:
            entry: Entry = await self.ask(
                fuse_requests.lookup,
                *(parent, cn.cred, cn.name),
                decode=fuse_replies.entry,
                undo=self._undo_entry,
            )
        except VfsError as exc:
            if exc.errno != ENOENT:
                raise
            return _MISSING
        if not entry.nodeid:
            return _MISSING._replace(cn_ttl=entry.entry_ttl)
        return self.nodes.learn(parent, entry)[1]

    async def _lookup_parent(self, node: Node, cred: Cred) -> Newinfo:
        above = node.parent or self.nodes.root
        if above is not self.nodes.root:
            above.given += 1  # before the wait: it must not go meanwhile
        try:
            va, ttl = await self.attributes(above, cred)
        except BaseException:
            if above is not self.nodes.root:
                self.nodes.reclaim(above, 1)
            raise
        return Newinfo(above.cookie, above.vtype, va.size or 0, 0, va, ttl, 0)

    async def attributes(self, node: Node, cred: Cred) -> tuple[Vattr, int]:
        """Ask for attributes; of a removed file through an open one, if there is any."""
        raise NotImplementedError

    # Making.

    async def _make(
        self, encode: Encode, opc: Cookie, cn: Componentname, vtype: int, *args: Any
    ) -> Newinfo:
        parent = self.node(opc)
        entry: Entry = await self.ask(
            encode,
            *(parent, cn.cred, cn.name, *args),
            decode=fuse_replies.entry,
            undo=self._undo_entry,
        )
        self._check_made(entry, vtype)
        return self.nodes.learn(parent, entry)[1]

    def _check_made(self, entry: Entry, vtype: int) -> None:
        if not entry.nodeid or entry.va.vtype != vtype:
            self._undo_entry(entry)
            raise VfsError(EIO, "the FUSE server made something else than it was asked for")

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer. CREATE opens the file as well; the first who opens it gets that."""
        parent = self.node(opc)
        mode = VTYPE_TO_IFMT[Vtype.VREG] | (va.mode or 0)
        flags = open_flags(FREAD | FWRITE)

        def undo(made: tuple[Entry, Opened]) -> None:
            entry, opened = made
            post = self.connection.post
            post(fuse_requests.release, entry.nodeid, opened.fh, flags)
            self._undo_entry(entry)

        try:
            made: tuple[Entry, Opened] = await self.ask(
                fuse_requests.create,
                *(parent, cn.cred, cn.name, flags | O_CREAT | O_EXCL, mode, 0),
                decode=fuse_replies.created,
                undo=undo,
            )
        except VfsError as exc:
            if exc.errno != EOPNOTSUPP:
                raise
            return await self.mknod(opc, cn, va._replace(vtype=Vtype.VREG))
        entry, opened = made
        try:
            self._check_made(entry, Vtype.VREG)
            node, info = self.nodes.learn(parent, entry)
        except VfsError:
            self.connection.post(fuse_requests.release, entry.nodeid, opened.fh, flags)
            raise
        node.loans.append(Handle(opened.fh, FREAD | FWRITE, flags))
        return info

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        vtype = va.vtype or Vtype.VREG
        mode = VTYPE_TO_IFMT[Vtype(vtype)] | (va.mode or 0)
        return await self._make(fuse_requests.mknod, opc, cn, vtype, mode, va.rdev or 0, 0)

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        return await self._make(fuse_requests.mkdir, opc, cn, Vtype.VDIR, va.mode or 0, 0)

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """See FileServer."""
        return await self._make(fuse_requests.symlink, opc, cn, Vtype.VLNK, target)

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """See FileServer. Errors: EIO for a target that none can be."""
        target: bytes = await self.ask(
            fuse_requests.readlink, self.node(opc), cred, decode=fuse_replies.octets
        )
        if not target or b"\0" in target or len(target) >= PATH_MAX:
            raise VfsError(EIO, "the FUSE server told a link's target that none can be")
        return target

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """See FileServer. A server may give the new name a node of its own: it is given back.

        To whom files are what their paths say, the node of the one name is nothing without that
        name: then the answer holds for no time at all, so that the other one is looked up.
        """
        parent, node = self.node(opc), self.node(targ)
        entry: Entry = await self.ask(
            fuse_requests.link,
            *(parent, cn.cred, node.nodeid, cn.name),
            decode=fuse_replies.entry,
            undo=self._undo_entry,
        )
        self._undo_entry(entry)
        if entry.va.vtype != node.vtype:
            raise VfsError(EIO, "the FUSE server linked something else than it was asked for")
        return entry.va, entry.attr_ttl if entry.nodeid == node.nodeid else 0

    # Removing and moving.

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer. Whether it was the last name is asked when nobody uses the file."""
        node = self.node(targ)
        await self.close_unused(node)
        await self.ask(fuse_requests.unlink, self.node(opc), cn.cred, cn.name)
        node.is_removed = True
        return Setback.INACT_N2

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer."""
        node = self.node(targ)
        await self.ask(fuse_requests.rmdir, self.node(opc), cn.cred, cn.name)
        node.is_removed = True
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
        """See FileServer."""
        await self._rename(opc, src, cn_src, targ_dir, targ, cn_targ, None)

    async def rename_with(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
        flags: int,
    ) -> None:
        """See FileServer. Errors: EOPNOTSUPP for a program before 7.23."""
        if self.session.minor < _RENAME2_MINOR:
            raise VfsError(EOPNOTSUPP)
        if not flags & RENAME_EXCHANGE:
            await self._rename(opc, src, cn_src, targ_dir, targ, cn_targ, flags)
            return
        if targ is None:
            raise VfsError(ENOENT)
        old_dir, new_dir = self.node(opc), self.node(targ_dir)
        await self.ask(
            fuse_requests.rename2,
            *(old_dir, cn_src.cred, cn_src.name, new_dir.nodeid, cn_targ.name, flags),
        )
        for cookie, place in ((src, new_dir), (targ, old_dir)):
            node = self.nodes.known(cookie)
            if node is not None:
                self.nodes.found_in(node, place)

    async def _rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
        flags: int | None,
    ) -> None:
        node, new_dir = self.node(src), self.node(targ_dir)
        victim = None if targ is None else self.node(targ)
        if victim is not None and victim is not node:
            await self.close_unused(victim)
        old_dir, cred, names = self.node(opc), cn_src.cred, (cn_src.name, new_dir.nodeid)
        if flags is None:
            await self.ask(fuse_requests.rename, old_dir, cred, *names, cn_targ.name)
        else:
            await self.ask(fuse_requests.rename2, old_dir, cred, *names, cn_targ.name, flags)
        if victim is not None and victim is not node:
            victim.is_removed = True
        if self.nodes.known(node.cookie) is node:
            self.nodes.found_in(node, new_dir)

    # Listing.

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """See FileServer. That it was all is known when READDIR brings nothing.

        With READDIR_PLUS, where the server does not have it, the entries are looked up.

        A server may keep a list for each open, whose places mean nothing in another one's: who
        goes on is given the handle that has told his place.
        """
        node = self.node(opc)
        every = [*node.handles, *node.loans]
        handle = next((handle for handle in every if offset and handle.told == offset), None)
        if handle is None:
            handle = await self.handle_for(node, FREAD, cred)
        wants_nodes = bool(flags & READDIR_PLUS)
        plus = wants_nodes and self.session.readdirplus
        size = min(max(resid, _READDIR_MIN), READDIR_MAX)
        with handle:
            found: list[FuseDirent] = await self.ask(
                fuse_requests.readdirplus if plus else fuse_requests.readdir,
                *(node, cred, handle.fh, offset, size, handle.flags),
                decode=fuse_replies.dirents_plus if plus else fuse_replies.dirents,
                undo=self._undo_dirents,
            )
        entries = self._entries(node, found, resid)
        if entries:
            handle.told = entries[-1].offset
        if wants_nodes and not plus:
            entries = await self._looked_up(node, entries, cred)
        return entries, not found

    async def _looked_up(self, parent: Node, entries: list[Dirent], cred: Cred) -> list[Dirent]:
        """Return the entries with their nodes; without one if it cannot be told.

        Each answer is looked at when it comes, while the server is busy with the next ones.
        Cancelled, all nodes are given back.
        """
        learn = self.nodes.learn

        def found(body: memoryview) -> Newinfo | None:
            entry = fuse_replies.entry(body)
            try:
                return learn(parent, entry)[1] if entry.nodeid else None
            except VfsError:
                return None  # nonsense about one node; it has a name all the same

        infos: list[Newinfo | None] = await self.connection.ask_each(
            *(fuse_requests.lookup, parent.nodeid, cred),
            [(item.name,) for item in entries if item.name not in _DOTS],
            decode=found,
            undo=self._undo_found,
        )
        rest = iter(infos)
        return [
            item if item.name in _DOTS or (info := next(rest)) is None else _with_info(item, info)
            for item in entries
        ]

    def _undo_found(self, info: Newinfo | None) -> None:
        node = info and self.nodes.known(info.cookie)
        if node:
            self.nodes.reclaim(node, 1)

    def _with_node(self, parent: Node, item: Dirent, entry: Entry | None) -> Dirent:
        if entry is None or not entry.nodeid:
            return item
        try:
            info = self.nodes.learn(parent, entry)[1]
        except VfsError:
            return item  # nonsense about one node; it has a name all the same
        return _with_info(item, info)

    def _undo_dirents(self, found: Sequence[FuseDirent]) -> None:
        for item in found:
            if item.entry is not None and item.name not in _DOTS:
                self._undo_entry(item.entry)

    def _entries(self, parent: Node, found: list[FuseDirent], resid: int) -> list[Dirent]:
        """Return as many entries as fit, the first in any case; the nodes of the others go back."""
        entries: list[Dirent] = []
        for index, item in enumerate(found):
            resid -= _DIRENT_HEAD + len(item.name)
            if resid < 0 and entries:
                self._undo_dirents(found[index:])
                break
            bare = Dirent(item.fileid, item.vtype, item.name, item.offset)
            is_dot = item.name in _DOTS
            entries.append(bare if is_dot else self._with_node(parent, bare, item.entry))
        return entries
