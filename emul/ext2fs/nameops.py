"""Ext2Fs, with the operations on names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from errno import (
    EBUSY,
    EINVAL,
    EISDIR,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTEMPTY,
    EPERM,
)
from time import time_ns
from typing import Final

from ...native.constants import (
    PATH_MAX,
    READDIR_PLUS,
    TTL_FOREVER,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Componentname, Cred, Vattr
from ..bio import bwillwrite
from ..cred import creation, is_kernel
from ..namecache import cache_enter, cache_lookup, cache_purge, cache_purge_name
from ..unixnode import (
    check_link,
    check_new,
    check_removal,
    check_search,
)
from ..vfs import Entry, Lookup
from ..vnode import Vnode
from .directory import Slot
from .fileops import LINK_MAX, check_mutable
from .inode import FAST_SYMLINK_MAX
from .node import Node
from .renameops import RenameOps, directory
from .super import ROOT_INO

_DIRENT_OVERHEAD: Final = 24
_SPECIAL: Final = frozenset((Vtype.VREG, Vtype.VBLK, Vtype.VCHR, Vtype.VSOCK, Vtype.VFIFO))
_DOTS: Final = (b".", b"..")


class Ext2Fs(RenameOps):
    """ext2 on a disk, revision 1 read and written, revision 0 read.

    `disk` belongs to the mount from `start` on, which closes it at the end. With `rdonly` nothing
    is written to it, whatever the kernel mounts it as. `mntfromname` is what `mount` shows, the
    name of the disk unless given. Times of access are kept as Linux' relatime.

    Names that were removed while the file was in use are not noted on the medium (the list in the
    super block belongs to journals): after a crash e2fsck finds their inodes without a name.

    Locks: a directory and its dirhash are protected by its vnode's lock, an inode by its own; the
    bitmaps, counts and what is active change between two awaits and need none. Of buffers, those of
    directories come before those of tables, these before bitmaps and inode tables; nobody
    waits for a commit with a buffer in hand.
    """

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        """Find a name; the answer holds until somebody changes it here. Errors: EIO, EUCLEAN."""
        dir = directory(dvp)
        check_search(dir, cn)
        if dir.nlink == 0:
            raise VfsError(ENOENT)
        is_known, vp = cache_lookup(dvp, cn)
        if not is_known:
            ino = await self._dirs.find(dir, cn.name)
            if ino:
                vp = await self._child(dir, cn.name, ino)
            cache_enter(dvp, vp, cn.name)
        return Lookup(None) if vp is None else self._found(vp)

    # Making.

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a regular file, which its creator may then open once in any mode."""
        made = await self._make(dvp, cn, va, Vtype.VREG)
        assert made.vp is not None
        node: Node = made.vp.data
        node.creator = cn.cred.uid
        return made

    async def mknod(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a node that is no directory or link. Errors: EINVAL, EPERM (device, not root)."""
        vtype = va.vtype
        if vtype not in _SPECIAL:
            raise VfsError(EINVAL)
        if vtype in (Vtype.VBLK, Vtype.VCHR) and cn.cred.uid and not is_kernel(cn.cred):
            raise VfsError(EPERM)
        return await self._make(dvp, cn, va, vtype)

    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a directory."""
        return await self._make(dvp, cn, va, Vtype.VDIR)

    async def symlink(self, dvp: Vnode, cn: Componentname, va: Vattr, target: bytes) -> Lookup:
        """Make a symbolic link. Errors: ENAMETOOLONG (a target that fills a block, too)."""
        if len(target) >= min(PATH_MAX, self._volume.block_size):
            raise VfsError(ENAMETOOLONG)
        return await self._make(dvp, cn, va._replace(mode=0o777), Vtype.VLNK, target)

    async def _make(
        self, dvp: Vnode, cn: Componentname, va: Vattr, vtype: int, target: bytes = b""
    ) -> Lookup:
        """Make a node and its name.

        Errors, first match wins: see `check_new`; EPERM (immutable directory); EMLINK; ENOSPC, EIO,
        EUCLEAN: nothing is to be seen of it then.
        """
        dir = directory(dvp)
        cred = cn.cred
        check_search(dir, cn)
        exists = bool(await self._dirs.find(dir, cn.name))
        check_new(dir, cn, exists=exists)
        check_mutable(dir, append=True)
        is_dir = vtype == Vtype.VDIR
        if is_dir and dir.nlink >= LINK_MAX:
            raise VfsError(EMLINK)
        gid, mode = creation(cred, vtype, (va.mode or 0) & 0o7777, dir.mode, dir.gid)
        await bwillwrite(self.devvp)
        ino = await self._take_inode(dir, is_dir=is_dir)
        now = time_ns()
        node = Node(ino, vtype, mode, cred.uid, gid, now, self._volume.sb.inode_size)
        node.nlink = 0  # until it has a name: a commit may come by
        node.generation = random.getrandbits(32)
        node.inherit(dir.flags)
        self._order.dep(node).is_new = True
        try:
            slot = await self._prepare(dir, cn.name, node, target, cred)
        except BaseException:
            self._order.orphaned(node)
            raise
        # No await below: the name, the node and the counts belong together.
        if vtype in (Vtype.VBLK, Vtype.VCHR):
            node.rdev = va.rdev or 0
        node.nlink = 2 if is_dir else 1
        self._order.changed(node, data=True)
        self._dirs.enter(dir, slot, node)
        if is_dir:
            dir.nlink += 1
        self._touch(dir, now)
        vp = self._insert(node)
        cache_enter(dvp, vp, cn.name)
        return self._found(vp)

    async def _prepare(self, dir: Node, name: bytes, node: Node, target: bytes, cred: Cred) -> Slot:
        """Give a new node the block that it begins with, and find room for its name."""
        if node.vtype == Vtype.VDIR:
            await self._dirs.make_first(node, dir, cred)
        elif target:
            node.size = len(target)
            if len(target) <= FAST_SYMLINK_MAX:
                node.fast_target = target
            else:
                data = target.ljust(self._volume.block_size, b"\0")
                await self._blocks.append(node, 0, data, cred)
        return await self._dirs.make_room(dir, name, cred)

    async def _take_inode(self, dir: Node, *, is_dir: bool) -> int:
        """Return a free inode for a child of `dir`, after a sync if that helps."""
        alloc = self._alloc
        if not alloc.reserve_inode():
            if not self._order.has_freed:
                raise VfsError(ENOSPC, "no inode is free")
            await self._order.sync()
            if not alloc.reserve_inode():
                raise VfsError(ENOSPC, "no inode is free")
        try:
            ino = await alloc.take_inode(dir, is_dir=is_dir)
        except BaseException:
            alloc.unreserve_inode()
            raise
        if ino in self._nodes or ino in self._order.active:
            raise self._volume.corrupt(f"inode {ino} is in use, and marked as free")
        return ino

    async def link(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> tuple[Vattr, int]:
        """Add a name. Errors: see `check_new`, `check_link`; EPERM (immutable); ENOSPC, EIO."""
        dir = directory(dvp)
        node: Node = vp.data
        check_search(dir, cn)
        exists = bool(await self._dirs.find(dir, cn.name))
        check_new(dir, cn, exists=exists)
        check_link(node, LINK_MAX)
        check_mutable(dir, append=True)
        check_mutable(node)
        await bwillwrite(self.devvp)
        slot = await self._dirs.make_room(dir, cn.name, cn.cred)
        now = time_ns()
        self._dirs.enter(dir, slot, node)
        node.nlink += 1
        node.ctime = node.rounded(now)
        self._order.changed(node, data=True)
        self._touch(dir, now)
        cache_enter(dvp, vp, cn.name)
        return self._vattr(vp), TTL_FOREVER

    # Removing.

    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove a name of what is no directory (EISDIR); data stay while the vnode is used."""
        dir = directory(dvp)
        node: Node = vp.data
        is_there = await self._dirs.find(dir, cn.name) == node.ino
        check_removal(dir, node, cn, is_there=is_there)
        if node.vtype == Vtype.VDIR:
            raise VfsError(EISDIR)
        check_mutable(dir)
        check_mutable(node)
        await bwillwrite(self.devvp)
        slot = await self._dirs.hold(dir, cn.name)
        now = time_ns()
        self._dirs.take_away(dir, slot)
        self._unnamed(node, now)
        self._touch(dir, now)
        cache_purge_name(dvp, cn.name)

    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove an empty directory. Errors: ENOTDIR, EBUSY (the root), ENOTEMPTY."""
        dir = directory(dvp)
        node: Node = vp.data
        is_there = await self._dirs.find(dir, cn.name) == node.ino
        check_removal(dir, node, cn, is_there=is_there)
        directory(vp)
        if node.ino == ROOT_INO:
            raise VfsError(EBUSY)
        if cn.name in _DOTS or not (await self._dirs.load(node)).is_empty:
            raise VfsError(ENOTEMPTY)
        check_mutable(dir)
        check_mutable(node)
        await bwillwrite(self.devvp)
        await self._clear(node)
        slot = await self._dirs.hold(dir, cn.name)
        now = time_ns()
        self._dirs.take_away(dir, slot)
        self._unnamed(node, now)
        self._leave(dir)
        self._touch(dir, now)
        cache_purge_name(dvp, cn.name)
        cache_purge(vp)

    # Reading.

    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        """Return entries as they stand; an offset is where the next one begins, octets.

        Errors: ENOTDIR, EINVAL (offset), ENOENT (removed), EIO, EUCLEAN. With READDIR_PLUS a node
        that cannot be read is named all the same, and not found.
        """
        dir = directory(vp)
        if offset < 0:
            raise VfsError(EINVAL)
        if dir.nlink == 0:
            raise VfsError(ENOENT)
        self._accessed(dir)
        entries: list[Entry] = []
        while offset < dir.size:
            here, next_block = await self._dirs.entries(dir, offset)
            for after, entry in here:
                resid -= _DIRENT_OVERHEAD + len(entry.name)
                if resid < 0 and entries:
                    return entries, False
                found: Lookup | None = None
                vtype = self._dirs.vtype_of(entry)
                if flags & READDIR_PLUS and entry.name not in _DOTS:
                    found = await self._found_plus(dir, entry.name, entry.ino)
                    if found is not None:
                        assert found.vp is not None
                        vtype = found.vp.vtype
                entries.append(Entry(entry.ino, vtype, entry.name, after, found))
            offset = next_block
        return entries, True

    async def _found_plus(self, dir: Node, name: bytes, ino: int) -> Lookup | None:
        try:
            return self._found(await self._child(dir, name, ino))
        except VfsError:
            return None
