"""Renaming, and what it has in common with making and removing names."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, ESTALE
from time import time_ns

from ...native.constants import NAME_MAX, VEXEC, Vtype
from ...native.errors import VfsError
from ...native.records import Componentname
from ..bio import brelse, bwillwrite
from ..namecache import cache_enter, cache_purge, cache_purge_name
from ..unixnode import check_node, check_rename
from ..vnode import Vnode, vput, vrele
from .directory import Slot
from .fileops import LINK_MAX, FileOps, check_mutable
from .node import Node
from .super import ROOT_INO


def directory(vp: Vnode) -> Node:
    """Return the node of a directory. Errors: ENOTDIR."""
    node: Node = vp.data
    if node.vtype == Vtype.VDIR:
        return node
    raise VfsError(ENOTDIR)


class RenameOps(FileOps):
    """The operation that has to do with two directories."""

    async def _child(self, dir: Node, name: bytes, ino: int) -> Vnode:
        """Return the vnode that an entry names, with a reference. Errors: EIO, EUCLEAN."""
        if ino == dir.ino and not (name == b".." and ino == ROOT_INO):
            raise self._volume.corrupt(f"directory {dir.ino}: {name!r} is the directory itself")
        try:
            return await self._vget(ino)
        except VfsError as exc:
            if exc.errno != ESTALE:
                raise
            raise self._volume.corrupt(
                f"directory {dir.ino}: {name!r} is inode {ino}, which is not in use"
            ) from None

    def _touch(self, dir: Node, now: int) -> None:
        """Note that a directory has changed."""
        dir.mtime = dir.ctime = dir.rounded(now)
        self._order.changed(dir)

    def _unnamed(self, node: Node, now: int) -> None:
        """Count a name off, or the two of a directory."""
        node.nlink = 0 if node.vtype == Vtype.VDIR else max(node.nlink - 1, 0)
        node.ctime = node.rounded(now)
        self._order.changed(node)

    async def _clear(self, node: Node) -> None:
        """See to it that an empty directory, soon to be removed, is empty on the device, too."""
        if node.dep is not None and node.dep.ghosts:
            await self._order.sync()

    def _leave(self, dir: Node) -> None:
        """Count off the ".." of a subdirectory."""
        dir.nlink = max(dir.nlink - 1, 2)

    async def rename(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
    ) -> None:
        """Move a name.

        What has the new name is replaced also when the caller did not know of it (`tvp` None: it
        came after his lookup). Nothing happens when both names are of one node.

        Errors, first match wins:
            ENOTDIR       a parent is no directory
            ENAMETOOLONG  the new name
            EACCES        search of a parent
            ENOENT        the old name is not there, or `tvp` has not the new one
            EBUSY         `tvp` is None, and what has the new name is locked
            EINVAL        a directory into itself or below
            ENOTEMPTY     onto a directory that the old name is below of
            other         see `check_rename`
            EPERM         something is immutable or append-only
            ENOSPC EIO EUCLEAN
        """
        fdir, tdir = directory(fdvp), directory(tdvp)
        node: Node = fvp.data
        if len(tcn.name) > NAME_MAX:
            raise VfsError(ENAMETOOLONG)
        check_node(fdir, fcn.cred, VEXEC)
        check_node(tdir, tcn.cred, VEXEC)
        victim_ino = await self._dirs.find(tdir, tcn.name)
        if await self._dirs.find(fdir, fcn.name) != node.ino or (
            tvp is not None and tvp.data.ino != victim_ino
        ):
            raise VfsError(ENOENT)
        if victim_ino == node.ino:
            return
        if tvp is not None or not victim_ino:
            await self._rename(fdvp, fvp, fcn, tdvp, tvp, tcn)
            return
        tvp = await self._child(tdir, tcn.name, victim_ino)
        if not tvp.lock.try_exclusive():
            await vrele(tvp)
            raise VfsError(EBUSY, "somebody works on what is to be replaced")
        try:
            await self._rename(fdvp, fvp, fcn, tdvp, tvp, tcn)
        finally:
            await vput(tvp)

    async def _rename(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
    ) -> None:
        fdir, tdir, node = fdvp.data, tdvp.data, fvp.data
        victim: Node | None = None if tvp is None else tvp.data
        is_dir = node.vtype == Vtype.VDIR
        moves_dir = is_dir and fdir is not tdir
        if is_dir and await self._is_below(tdir, node):
            raise VfsError(EINVAL)
        is_empty = True
        if victim is not None and victim.vtype == Vtype.VDIR:
            if await self._is_below(fdir, victim):
                raise VfsError(ENOTEMPTY)
            is_empty = (await self._dirs.load(victim)).is_empty
        check_rename(
            fdir, node, fcn, tdir, victim, tcn, victim_is_empty=is_empty, link_max=LINK_MAX
        )
        check_mutable(fdir)
        check_mutable(tdir, append=victim is None)
        for there in (node, victim):
            if there is not None:
                check_mutable(there)
        await bwillwrite(self.devvp)
        if victim is not None and is_dir:
            await self._clear(victim)
        if moves_dir:
            await self._dirs.load(node)  # for `hold`, which would read the block that we hold
        ghost = self._dirs.ghost_named(tdir, tcn.name) if victim is None else None
        slot: Slot | None = None
        if ghost is None or ghost.node is not node:
            ghost = None
            if victim is None:
                slot = await self._dirs.make_room(tdir, tcn.name, tcn.cred)
            else:
                slot = await self._dirs.hold(tdir, tcn.name)
        dotdot: Slot | None = None
        if moves_dir:
            try:
                dotdot = await self._dirs.hold(node, b"..", slot)
            except VfsError:
                if slot is not None:
                    brelse(slot.bp)
                raise
        # No await until everything but the old name in its block is as it shall be.
        now = time_ns()
        if ghost is not None:
            self._dirs.revive(tdir, ghost)
        elif victim is None:
            assert slot is not None
            self._dirs.enter(tdir, slot, node)
        else:
            assert slot is not None
            self._dirs.change(tdir, slot, node)
            self._order.replaced(victim, tdir)
            self._unnamed(victim, now)
            if is_dir:
                self._leave(tdir)
        if dotdot is not None:
            self._dirs.set_parent(node, dotdot, tdir)
            self._leave(fdir)
            tdir.nlink += 1
        node.ctime = node.rounded(now)
        self._order.changed(node)
        self._touch(fdir, now)
        self._touch(tdir, now)
        cache_purge_name(fdvp, fcn.name)
        if is_dir:
            cache_purge(fvp)
            if tvp is not None:
                cache_purge(tvp)
        cache_enter(tdvp, fvp, tcn.name)
        await self._drop_old(fdir, fcn.name, node, tdir)

    async def _drop_old(self, dir: Node, name: bytes, node: Node, target: Node) -> None:
        """Remove the old name of a node: at once, or when the device has the new one. Cannot fail.

        At once if the device need not have the old one either.
        """
        if self._order.is_new_name(dir, name):
            try:
                self._dirs.take_away(dir, await self._dirs.hold(dir, name))
                return
            except VfsError:
                pass
        self._dirs.leave_ghost(dir, name, node, target)

    async def _is_below(self, dir: Node, other: Node) -> bool:
        """Whether `dir` is `other` or lies somewhere in it. Errors: EIO, EUCLEAN."""
        seen: set[int] = set()
        while dir.ino != other.ino:
            if dir.ino == ROOT_INO:
                return False
            if dir.ino in seen:
                raise self._volume.corrupt(f"directory {dir.ino} lies in itself")
            seen.add(dir.ino)
            parent = dir.parent or await self._dirs.find(dir, b"..")
            if not parent:
                raise self._volume.corrupt(f"directory {dir.ino}: no '..'")
            dir = await self._peek(parent)
            if dir.vtype != Vtype.VDIR:
                raise self._volume.corrupt(f"inode {parent} is '..', and no directory")
        return True

    async def _peek(self, ino: int) -> Node:
        """Return a node to look at, without a vnode of it. Errors: EIO, EUCLEAN."""
        node = self._nodes.get(ino) or self._order.active.get(ino)
        if node is not None:
            return node
        try:
            return await self._read_inode(ino)
        except VfsError as exc:
            if exc.errno != ESTALE:
                raise
            raise self._volume.corrupt(f"'..' is inode {ino}, which is not in use") from None
