"""The file system as a whole: mounting and its end, counts, numbers and handles."""

from __future__ import annotations

import logging
import struct
from errno import EINVAL, ESTALE, EUCLEAN
from time import time_ns
from typing import TYPE_CHECKING, Final

from ...native.constants import DEV_BSHIFT, MNT_FORCE, MNT_WAIT, NAME_MAX, Vtype
from ...native.errors import VfsError
from ...native.records import FSCRED, Cred, Statvfs
from ..bio import bread, brelse
from ..sched import Kthread, kthread_create
from ..specfs import spec_mount, spec_setblksize, spec_unmount
from ..vnode import Vnode, vrele
from ..vnops import vn_read
from .alloc import Allocator
from .blocks import Blocks
from .commit import Order
from .directory import Directories
from .features import write_hindrances
from .group import Groups
from .inodeops import InodeOps
from .node import Node
from .super import (
    ERROR_FS,
    GOOD_OLD_REV,
    GROUP_DESC_SIZE,
    ROOT_INO,
    SUPER_OFFSET,
    SUPER_SIZE,
    VALID_FS,
    Superblock,
)
from .volume import Volume
from .writeback import Writeback

if TYPE_CHECKING:
    from ..rumpuser import Disk

_log = logging.getLogger(__name__)

_HANDLE: Final = struct.Struct("<II")


class VfsOps(InodeOps):
    """The VFS operations; the arguments are `Ext2Fs`'s."""

    def __init__(
        self, disk: Disk, *, rdonly: bool = False, mntfromname: bytes | None = None
    ) -> None:
        self._disk = disk
        self._rdonly = rdonly
        self._mntfromname = disk.name.encode() if mntfromname is None else mntfromname
        self._nodes = {}
        self._writeback: Writeback | None = None
        self._kthread: Kthread | None = None

    # The whole file system.

    @property
    def typename(self) -> str:
        """Name of the type, and the trace of what its disk is made of."""
        below = self._disk.typename
        return f"ext2fs|{below}" if below else "ext2fs"

    @property
    def below(self) -> Disk:
        """The disk that it lies on."""
        return self._disk

    @property
    def mntfromname(self) -> bytes:
        """What the caller of the constructor said, or the name of the disk."""
        return self._mntfromname

    async def start(self) -> None:
        """Read the super block, and mark it as that of a mounted file system unless read-only.

        The mount becomes read-only if there is a reason not to write; the log names it.

        Errors, first match wins; the disk is closed then, unless it is another mount's:
            EBUSY    the disk is mounted
            EIO      the device fails
            EINVAL   no ext2, or one with features that are not known: they are named
            EUCLEAN  it contradicts itself
        """
        self.devvp = spec_mount(self.mount.kernel, self._disk)
        try:
            await self._start()
        except BaseException:
            await spec_unmount(self.devvp)
            raise

    async def _start(self) -> None:
        mount, devvp = self.mount, self.devvp
        raw = await vn_read(devvp, SUPER_OFFSET, SUPER_SIZE, FSCRED)
        if len(raw) < SUPER_SIZE:
            raise VfsError(EINVAL, "the device is too small for a file system")
        sb = Superblock(bytes(raw), self._disk.size)
        name = self._mntfromname.decode(errors="replace")
        await spec_setblksize(devvp, sb.block_size)
        table = await self._read_descriptors(sb)
        if self._rdonly or self._disk.is_rdonly:
            mount.is_rdonly = True
        if not mount.is_rdonly:
            reasons = _reasons(sb)
            if reasons:
                mount.is_rdonly = True
                mount.rdonly_reason = "; ".join(reasons)
                _log.warning("ext2fs: %s: mounted read-only: %s", name, mount.rdonly_reason)
        self._volume = Volume(devvp, sb, Groups(sb, table), name, rdonly=mount.is_rdonly)
        self._volume.on_error = self._on_error
        self._alloc = Allocator(self._volume)
        self._order = Order(self._volume, self._alloc)
        self._blocks = Blocks(self._volume, self._alloc, self._order)
        self._dirs = Directories(self._volume, self._blocks, self._order)
        self._order.free_node = self._free_node
        await self._check_root()
        if not mount.is_rdonly:
            sb.mnt_count += 1
            sb.mtime = time_ns() // 10**9
            await self._volume.mark(valid=False)
            self._writeback = Writeback(mount, self._order)
            self._kthread = kthread_create(
                mount.kernel, self._writeback.run, name=f"ext2fs write-back of {name}"
            )

    async def _read_descriptors(self, sb: Superblock) -> bytes:
        pieces = []
        for block in range(sb.first_data_block + 1, sb.first_data_block + 1 + sb.desc_blocks):
            if block >= sb.blocks_count:
                raise VfsError(EUCLEAN, "super block: no room for the descriptors of the groups")
            bp = await bread(self.devvp, block * (sb.block_size >> DEV_BSHIFT), sb.block_size)
            pieces.append(bytes(bp.data))
            brelse(bp)
        return b"".join(pieces)[: sb.groups_count * GROUP_DESC_SIZE]

    async def _check_root(self) -> None:
        try:
            loaded = await self._load(ROOT_INO)
        except VfsError as exc:
            if exc.errno != ESTALE:
                raise
            raise VfsError(EUCLEAN, "there is no root directory") from None
        if loaded.vtype != Vtype.VDIR:
            raise VfsError(EUCLEAN, "the root is no directory")

    def _on_error(self) -> None:
        """Hear that something was found to be wrong, for the first time."""
        if self._volume.stops_on_error:
            self.mount.is_rdonly = True
        if self._writeback is not None:
            self._order.wake()
            self._writeback.kick()

    async def root(self) -> Vnode:
        """Return the root vnode with a new reference."""
        vp = await self._vget(ROOT_INO)
        self._order.root = vp
        return vp

    async def statvfs(self) -> Statvfs:
        """Return the counts, without what the file system needs for itself, as Linux does.

        What was freed and waits for a sync counts as free.
        """
        sb, alloc = self._volume.sb, self._alloc
        free = sb.free_blocks - alloc.reserved + alloc.pending
        free_inodes = sb.free_inodes - alloc.reserved_inodes + alloc.pending_inodes
        return Statvfs(
            bsize=sb.block_size,
            frsize=sb.block_size,
            blocks=sb.blocks_count - self._volume.groups.overhead,
            bfree=free,
            bavail=max(free - sb.reserved_blocks, 0),
            files=sb.inodes_count,
            ffree=free_inodes,
            favail=free_inodes,
            fsid=self.mount.serial,
            namemax=NAME_MAX,
        )

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """Write what is not data: with MNT_WAIT return when the medium has it. Errors: EIO."""
        if self._writeback is None:
            return
        if waitfor == MNT_WAIT:
            await self._order.sync()
        else:
            self._writeback.kick()

    async def unmount(self, flags: int) -> None:
        """Write everything, mark the file system as unmounted properly, close the disk.

        With MNT_FORCE only as far as that works. It is not marked as in order then if anybody was
        using it, or an error was met: e2fsck sees to what they had begun.
        Errors: EIO (not with MNT_FORCE); it goes on as before then.
        """
        is_forced = bool(flags & MNT_FORCE)
        is_over = is_forced
        try:
            if self._writeback is not None:
                await self._finish(is_forced)
            is_over = True
        finally:
            if is_over:
                self._order.root = None
                await spec_unmount(self.devvp)

    async def _finish(self, is_forced: bool) -> None:
        """Write everything, and end the thread that does. Errors: EIO."""
        is_in_order = not self.mount.is_busy
        try:
            await self._order.sync()
            if is_in_order:
                await self._volume.mark(valid=True)
        except VfsError:
            if not is_forced:
                raise
        assert self._kthread is not None
        self._kthread.stop()
        await self._kthread.join()
        self._writeback = None

    async def vget(self, fileid: int) -> Vnode:
        """Return the vnode of an inode that has a name. Errors: ESTALE, EIO, EUCLEAN."""
        return await self._vget(fileid)

    async def fhtovp(self, handle: bytes) -> Vnode:
        """Return the vnode of a handle. Errors: EINVAL, ESTALE, EIO, EUCLEAN."""
        if len(handle) != _HANDLE.size:
            raise VfsError(EINVAL)
        ino, generation = _HANDLE.unpack(handle)
        vp = await self._vget(ino)
        node: Node = vp.data
        if node.generation != generation or not node.nlink:
            await vrele(vp)
            raise VfsError(ESTALE)
        return vp

    async def vptofh(self, vp: Vnode) -> bytes:
        """Return a handle: an inode that is used again has another generation."""
        node: Node = vp.data
        return _HANDLE.pack(node.ino, node.generation)


def _reasons(sb: Superblock) -> list[str]:
    """Return why nothing must be written to a file system that we can read."""
    reasons = []
    hindrances = write_hindrances(sb.ro_compat)
    if hindrances:
        reasons.append("features " + " ".join(hindrances))
    if sb.rev_level == GOOD_OLD_REV:
        reasons.append("revision 0")
    if sb.state & ERROR_FS:
        reasons.append("it has errors, e2fsck mends them")
    elif not sb.state & VALID_FS:
        reasons.append("it was not unmounted properly, e2fsck puts it in order")
    return reasons
