"""The file system as a whole: limits, numbers, handles, and the bond between nodes and vnodes."""

from __future__ import annotations

import os
import struct
from errno import EINVAL, ENOSPC, ESTALE
from itertools import count
from time import time_ns
from typing import Final

from ...native.constants import NAME_MAX, PAGE_SIZE, TTL_FOREVER
from ...native.errors import VfsError
from ...native.records import Statvfs, Vattr
from ..uvm import FOLIO, uvm_vnp_terminate
from ..vfs import FileSystem, Lookup
from ..vnode import Vnode
from .node import Directory, Node, RegularFile

_HANDLE: Final = struct.Struct("<QQ")


class VfsOps(FileSystem):
    """The VFS operations; the arguments are `TmpFs`'s.

    A node lives while it has a name or a vnode. Its vnode has the node's number as key and the
    node as `data`.
    """

    def __init__(
        self,
        mntfromname: bytes = b"none",
        *,
        size_limit: int | None = None,
        nodes_limit: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mode: int = 0o1777,
    ) -> None:
        pages = os.sysconf("SC_PHYS_PAGES") // 2
        self._mntfromname = mntfromname
        self._size_limit = pages * os.sysconf("SC_PAGE_SIZE") if size_limit is None else size_limit
        self._nodes_limit = pages if nodes_limit is None else nodes_limit
        self._used = 0
        self._numbers = count(2)
        self._born = time_ns()
        self._root = Directory(
            1,
            mode & 0o7777,
            os.geteuid() if uid is None else uid,
            os.getegid() if gid is None else gid,
            self._born,
            None,
        )
        self._nodes: dict[int, Node] = {1: self._root}

    # The whole file system.

    @property
    def typename(self) -> str:
        """Name of the type."""
        return "tmpfs"

    @property
    def mntfromname(self) -> bytes:
        """What the caller of the constructor said."""
        return self._mntfromname

    async def root(self) -> Vnode:
        """Return the root vnode with a new reference."""
        return self._vnode(self._root)

    async def statvfs(self) -> Statvfs:
        """Return limits and what is left, in blocks of 4 KiB."""
        blocks = self._size_limit // PAGE_SIZE
        bfree = max(0, blocks - self._used // PAGE_SIZE)
        ffree = max(0, self._nodes_limit - len(self._nodes))
        return Statvfs(
            bsize=PAGE_SIZE,
            frsize=PAGE_SIZE,
            blocks=blocks,
            bfree=bfree,
            bavail=bfree,
            files=self._nodes_limit,
            ffree=ffree,
            favail=ffree,
            fsid=self.mount.serial,
            namemax=NAME_MAX,
        )

    async def unmount(self, flags: int) -> None:
        """Forget everything but what vnodes still hold."""
        self._nodes.clear()
        self._used = 0

    async def vget(self, fileid: int) -> Vnode:
        """Return the vnode of a node by its number. Errors: ESTALE."""
        node = self._nodes.get(fileid)
        if node is None:
            raise VfsError(ESTALE)
        return self._vnode(node)

    async def fhtovp(self, handle: bytes) -> Vnode:
        """Return the vnode of a handle that this very file system gave. Errors: EINVAL, ESTALE."""
        if len(handle) != _HANDLE.size:
            raise VfsError(EINVAL)
        number, born = _HANDLE.unpack(handle)
        if born != self._born:
            raise VfsError(ESTALE)
        return await self.vget(number)

    async def vptofh(self, vp: Vnode) -> bytes:
        """Return a handle: numbers are never used again, so the number says it all."""
        node: Node = vp.data
        return _HANDLE.pack(node.number, self._born)

    # Nodes and vnodes.

    def _new_number(self) -> int:
        """Return a number for a node to be made. Errors: ENOSPC."""
        if len(self._nodes) >= self._nodes_limit:
            raise VfsError(ENOSPC, "as many nodes as allowed")
        return next(self._numbers)

    def _vnode(self, node: Node) -> Vnode:
        """Return the vnode of `node` with a new reference."""
        vp = self.mount.vget(node.number)
        if vp is None:
            vp = self.mount.insert(node.number, node.vtype, node, size=node.size, rdev=node.rdev)
            if type(node) is RegularFile:
                vp.uobj = node.uobj
        return vp

    def _found(self, node: Node) -> Lookup:
        """Return the answer of a successful lookup, with a reference."""
        return Lookup(self._vnode(node), TTL_FOREVER, self._vattr(node), TTL_FOREVER)

    def _vattr(self, node: Node) -> Vattr:
        return Vattr(
            node.vtype,
            node.mode,
            node.nlink,
            node.uid,
            node.gid,
            self.mount.serial,
            node.number,
            node.size,
            FOLIO,
            node.atime,
            node.mtime,
            node.ctime,
            node.birthtime,
            1,
            0,
            node.rdev,
            node.allocated,
        )

    async def inactive(self, vp: Vnode) -> bool:
        """Recycle what has no name any more."""
        node: Node = vp.data
        return node.nlink == 0

    def reclaim(self, vp: Vnode) -> None:
        """Free the node if no name leads to it."""
        uvm_vnp_terminate(vp)
        node: Node = vp.data
        if node.nlink == 0:
            self._free(node)

    def _nameless(self, node: Node) -> None:
        """Free `node`, which has lost its last name, unless somebody uses its vnode."""
        if self.mount.vrecycle(node.number):
            self._free(node)

    def _free(self, node: Node) -> None:
        if self._nodes.pop(node.number, None) is not None:
            self._used -= node.allocated
