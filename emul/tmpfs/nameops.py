"""TmpFs, with the operations on names.

Every operation of tmpfs runs from beginning to end without a yield and is atomic by that
alone; the vnode locks that callers hold protect nothing more here.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import (
    EINVAL,
    EISDIR,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
)
from time import time_ns
from typing import Final

from ...native.constants import (
    NAME_MAX,
    PATH_MAX,
    READDIR_PLUS,
    TTL_FOREVER,
    VEXEC,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import Componentname, Cred, Vattr
from ..cred import creation, is_kernel
from ..unixnode import (
    check_link,
    check_new,
    check_node,
    check_removal,
    check_rename,
    check_search,
)
from ..vfs import Entry, Lookup
from ..vnode import Vnode
from .fileops import LINK_MAX, FileOps
from .node import DOT, DOTDOT, Directory, Node, RegularFile, SymbolicLink

_DIRENT_OVERHEAD: Final = 24
_SPECIAL: Final = frozenset((Vtype.VREG, Vtype.VBLK, Vtype.VCHR, Vtype.VSOCK, Vtype.VFIFO))


def directory(vp: Vnode) -> Directory:
    """Return the directory of `vp`. Errors: ENOTDIR."""
    node = vp.data
    if type(node) is Directory:
        return node
    raise VfsError(ENOTDIR)


class TmpFs(FileOps):
    """A file system in memory.

    `size_limit` bounds the space of all files (octets), `nodes_limit` their number; both are half
    of the machine's memory, in octets and in pages, unless given. The root directory gets `uid`,
    `gid` (the process's own unless given) and `mode`. Times of access are kept as Linux' relatime:
    brought up to date when older than the last change, or than a day.
    """

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        """Find a name; the answer holds until somebody changes it here."""
        parent = directory(dvp)
        name = cn.name
        check_search(parent, cn)
        if parent.nlink == 0:
            raise VfsError(ENOENT)
        node = parent.parent if name == b".." else parent.get(name)
        return Lookup(None) if node is None else self._found(node)

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a regular file, which its creator may then open once in any mode."""
        node = self._make(dvp, cn, va, Vtype.VREG)
        assert isinstance(node, RegularFile)
        node.creator = cn.cred.uid
        return self._found(node)

    async def mknod(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a node that is no directory or link. Errors: EINVAL, EPERM (device, not root)."""
        vtype = va.vtype
        if vtype not in _SPECIAL:
            raise VfsError(EINVAL)
        if vtype in (Vtype.VBLK, Vtype.VCHR) and cn.cred.uid and not is_kernel(cn.cred):
            raise VfsError(EPERM)
        return self._found(self._make(dvp, cn, va, vtype))

    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a directory."""
        parent = directory(dvp)
        check_new(parent, cn, exists=parent.get(cn.name) is not None)
        if parent.nlink >= LINK_MAX:
            raise VfsError(EMLINK)
        mode = (va.mode or 0) & 0o7777
        gid, mode = creation(cn.cred, Vtype.VDIR, mode, parent.mode, parent.gid)
        number, now = self._new_number(), time_ns()
        node = Directory(number, mode, cn.cred.uid, gid, now, parent)
        parent.nlink += 1
        return self._found(self._enter(parent, cn.name, node, now))

    async def symlink(self, dvp: Vnode, cn: Componentname, va: Vattr, target: bytes) -> Lookup:
        """Make a symbolic link. Errors: ENAMETOOLONG (the target, too)."""
        if len(target) >= PATH_MAX:
            raise VfsError(ENAMETOOLONG)
        parent = directory(dvp)
        check_new(parent, cn, exists=parent.get(cn.name) is not None)
        gid, _ = creation(cn.cred, Vtype.VLNK, 0o777, parent.mode, parent.gid)
        number, now = self._new_number(), time_ns()
        node = SymbolicLink(number, cn.cred.uid, gid, now, target)
        return self._found(self._enter(parent, cn.name, node, now))

    def _make(self, dvp: Vnode, cn: Componentname, va: Vattr, vtype: int) -> Node:
        """Make a node that is neither directory nor link, and its name."""
        parent = directory(dvp)
        check_new(parent, cn, exists=parent.get(cn.name) is not None)
        mode = (va.mode or 0) & 0o7777
        gid, mode = creation(cn.cred, vtype, mode, parent.mode, parent.gid)
        number, now = self._new_number(), time_ns()
        kind = RegularFile if vtype == Vtype.VREG else Node
        is_device = vtype in (Vtype.VBLK, Vtype.VCHR)
        rdev = va.rdev or 0 if is_device else 0
        return self._enter(
            parent, cn.name, kind(number, vtype, mode, cn.cred.uid, gid, now, rdev), now
        )

    def _enter(self, parent: Directory, name: bytes, node: Node, now: int) -> Node:
        """Give a new node its name and number."""
        self._nodes[node.number] = node
        parent.add(name, node)
        parent.mtime = parent.ctime = now
        return node

    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove a name of what is no directory (EISDIR); data stay while the vnode is used."""
        parent = directory(dvp)
        node: Node = vp.data
        check_removal(parent, node, cn, is_there=parent.get(cn.name) is node)
        if node.vtype == Vtype.VDIR:
            raise VfsError(EISDIR)
        parent.discard(cn.name)
        node.nlink -= 1
        parent.mtime = parent.ctime = node.ctime = time_ns()

    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove an empty directory. Errors: ENOTDIR, ENOTEMPTY."""
        parent = directory(dvp)
        node: Node = vp.data
        check_removal(parent, node, cn, is_there=parent.get(cn.name) is node)
        if not isinstance(node, Directory):
            raise VfsError(ENOTDIR)
        if len(node):
            raise VfsError(ENOTEMPTY)
        parent.discard(cn.name)
        node.nlink = 0
        parent.nlink -= 1
        parent.mtime = parent.ctime = node.ctime = time_ns()

    async def link(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> tuple[Vattr, int]:
        """Add a name."""
        parent = directory(dvp)
        node: Node = vp.data
        check_new(parent, cn, exists=parent.get(cn.name) is not None)
        check_link(node, LINK_MAX)
        parent.add(cn.name, node)
        node.nlink += 1
        parent.mtime = parent.ctime = node.ctime = time_ns()
        return self._vattr(node), TTL_FOREVER

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
            EINVAL        a directory into itself or below
            ENOTEMPTY     onto a directory that the old name is below of
            other         see `check_rename`
        """
        source, target = directory(fdvp), directory(tdvp)
        node: Node = fvp.data
        if len(tcn.name) > NAME_MAX:
            raise VfsError(ENAMETOOLONG)
        check_node(source, fcn.cred, VEXEC)
        check_node(target, tcn.cred, VEXEC)
        victim = target.get(tcn.name)
        if source.get(fcn.name) is not node or (tvp is not None and tvp.data is not victim):
            raise VfsError(ENOENT)
        if isinstance(node, Directory) and target.is_below(node):
            raise VfsError(EINVAL)
        if isinstance(victim, Directory) and source.is_below(victim):
            raise VfsError(ENOTEMPTY)
        if victim is node:
            return
        check_rename(
            source,
            node,
            fcn,
            target,
            victim,
            tcn,
            victim_is_empty=not isinstance(victim, Directory) or not len(victim),
            link_max=LINK_MAX,
        )
        moves_dir = isinstance(node, Directory) and source is not target

        now = time_ns()
        if victim is not None:
            target.discard(tcn.name)
            victim.ctime = now
            if isinstance(victim, Directory):
                victim.nlink = 0
                target.nlink -= 1
            else:
                victim.nlink -= 1
        source.discard(fcn.name)
        target.add(tcn.name, node)
        if isinstance(node, Directory) and moves_dir:
            node.parent = target
            source.nlink -= 1
            target.nlink += 1
        source.mtime = source.ctime = target.mtime = target.ctime = node.ctime = now
        if victim is not None and victim.nlink == 0 and tvp is None:
            self._nameless(victim)

    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        """Return entries, oldest first. Errors: ENOTDIR, EINVAL (offset), ENOENT (removed)."""
        node = directory(vp)
        if offset < 0:
            raise VfsError(EINVAL)
        if node.nlink == 0:
            raise VfsError(ENOENT)
        self._accessed(node)
        entries: list[Entry] = []
        if offset < DOT:
            resid -= _DIRENT_OVERHEAD + 1
            entries.append(Entry(node.number, Vtype.VDIR, b".", DOT))
        if offset < DOTDOT:
            resid -= _DIRENT_OVERHEAD + 2
            if resid < 0 and entries:
                return entries, False
            entries.append(Entry(node.parent.number, Vtype.VDIR, b"..", DOTDOT))
        for entry in node.names_after(offset):
            resid -= _DIRENT_OVERHEAD + len(entry.name)
            if resid < 0 and entries:
                return entries, False
            child = entry.node
            assert child is not None  # names_after leaves out removed ones
            found = self._found(child) if flags & READDIR_PLUS else None
            entries.append(Entry(child.number, child.vtype, entry.name, entry.serial, found))
        return entries, True
