"""Inodes and vnodes: how the one gets the other, and what becomes of an inode without names."""

from __future__ import annotations

import struct
from errno import ESTALE
from time import time_ns
from typing import Final

from ...native.constants import TTL_FOREVER, Vtype
from ...native.errors import VfsError
from ...native.records import Vattr
from ..bio import B_INVAL, bdwrite, brelse
from ..mount import Loaded
from ..uvm import FOLIO, UvmObject, uvm_vnp_setsize, uvm_vnp_terminate
from ..vfs import FileSystem, Lookup
from ..vnode import Vnode
from .alloc import Allocator
from .blocks import Blocks
from .commit import Order
from .directory import Directories
from .inode import decode_inode
from .node import Node
from .super import ROOT_INO
from .volume import Volume

_WITH_BLOCKS: Final = frozenset((Vtype.VREG, Vtype.VDIR, Vtype.VLNK))
_ATTRIBUTES: Final = struct.Struct("<2I")
_ATTRIBUTES_MAGIC: Final = 0xEA02_0000


class InodeOps(FileSystem):
    """Finding inodes, and letting them go.

    A vnode has the number of the inode as key and its node as `data`. A node outlives its vnode
    while something of it is to be written (`Order.active`), and is found again there.
    """

    devvp: Vnode
    _volume: Volume
    _alloc: Allocator
    _order: Order
    _blocks: Blocks
    _dirs: Directories
    _nodes: dict[int, Node]
    """The nodes that have a vnode, by number."""

    async def _load(self, ino: int) -> Loaded:
        """Return what `Mount.insert` wants to know of an inode. Errors: ESTALE, EIO, EUCLEAN."""
        node = self._order.active.get(ino) or await self._read_inode(ino)
        if not node.nlink:
            raise VfsError(ESTALE, f"inode {ino} has no name any more")
        return Loaded(node.vtype, node, node.size, node.rdev)

    async def _read_inode(self, ino: int) -> Node:
        """Return an inode as the buffers have it. Errors: ESTALE (not in use), EIO, EUCLEAN."""
        sb = self._volume.sb
        if ino != ROOT_INO and not sb.first_ino <= ino <= sb.inodes_count:
            raise VfsError(ESTALE, f"inode {ino} is nobody's")
        block, offset = self._volume.groups.inode_place(ino)
        bp = await self._volume.bread(block)
        try:
            node = decode_inode(Node, bp.data, offset, sb.inode_size)
        except VfsError as exc:
            raise self._volume.corrupt(f"inode {ino}: {exc.detail}") from None
        finally:
            brelse(bp)
        if node is None:
            raise VfsError(ESTALE, f"inode {ino} is not in use")
        if node.size > self._blocks.blocks_max * sb.block_size:
            raise self._volume.corrupt(f"inode {ino}: {node.size} octets")
        node.attach(ino)
        return node

    async def _vget(self, ino: int) -> Vnode:
        """Return the vnode of an inode with a new reference. Errors: ESTALE, EIO, EUCLEAN."""
        vp = await self.mount.vget_load(ino, self._load)
        node: Node = vp.data
        if node.vp is not vp:
            self._dress(vp, node)
        return vp

    def _insert(self, node: Node) -> Vnode:
        """Return the vnode of a new node with a reference. Errors: ENXIO."""
        vp = self.mount.insert(node.ino, node.vtype, node, size=node.size, rdev=node.rdev)
        self._dress(vp, node)
        return vp

    def _dress(self, vp: Vnode, node: Node) -> None:
        node.vp = vp
        self._nodes[node.ino] = node
        if node.vtype == Vtype.VREG:
            vp.uobj = UvmObject(vp, self._volume.block_size)

    def _found(self, vp: Vnode) -> Lookup:
        """Return the answer of a successful lookup, which has the caller's reference."""
        return Lookup(vp, TTL_FOREVER, self._vattr(vp), TTL_FOREVER)

    def _vattr(self, vp: Vnode) -> Vattr:
        node: Node = vp.data
        return Vattr(
            node.vtype,
            node.mode,
            node.nlink,
            node.uid,
            node.gid,
            self.mount.serial,
            node.ino,
            vp.size if node.vtype == Vtype.VREG else node.size,
            FOLIO,
            node.atime,
            node.mtime,
            node.ctime,
            node.birthtime,
            node.generation,
            0,
            node.rdev,
            node.sectors * 512,
        )

    async def inactive(self, vp: Vnode) -> bool:
        """Recycle what has no name any more, and drop its pages; nobody has it open."""
        node: Node = vp.data
        if node.nlink:
            return False
        if vp.uobj is not None and vp.usecount == 1:
            await uvm_vnp_setsize(vp, 0)
        return True

    def reclaim(self, vp: Vnode) -> None:
        """Let go of the node; without a name it is left to be freed."""
        node: Node = vp.data
        uvm_vnp_terminate(vp)
        del self._nodes[node.ino]
        node.vp = None
        node.dirhash = None
        node.creator = None
        if not node.nlink and not self._volume.is_rdonly:
            self._order.orphaned(node)

    # What has no name and no vnode any more.

    async def _free_node(self, node: Node) -> None:
        """Free the blocks of an orphan; the order frees its number afterwards."""
        if node.vtype in _WITH_BLOCKS and not self._is_fast_link(node):
            await self._blocks.free(node, 0)
        if node.file_acl:
            await self._free_attributes(node)
        node.size = node.sectors = 0
        node.dtime = max(time_ns() // 10**9, 1)

    def _is_fast_link(self, node: Node) -> bool:
        """Whether the target of a link stands in place of its blocks."""
        attributes = self._volume.block_size // 512 if node.file_acl else 0
        return node.vtype == Vtype.VLNK and node.sectors <= attributes

    async def _free_attributes(self, node: Node) -> None:
        """Let go of the block with extended attributes, which several inodes may have."""
        volume = self._volume
        block, node.file_acl = node.file_acl, 0
        if not volume.groups.is_data(block):
            volume.note_error(f"inode {node.ino}: attributes in block {block}")
            return
        try:
            bp = await volume.bread(block)
        except VfsError as exc:
            volume.note_error(f"inode {node.ino}: its attributes stay: {exc}")
            return
        magic, users = _ATTRIBUTES.unpack_from(bp.data)
        if magic != _ATTRIBUTES_MAGIC:
            brelse(bp)
            volume.note_error(f"inode {node.ino}: block {block} has no attributes")
        elif users > 1:
            _ATTRIBUTES.pack_into(bp.data, 0, magic, users - 1)
            bdwrite(bp)
        else:
            brelse(bp, B_INVAL)
            self._order.free(node, block, 1)
