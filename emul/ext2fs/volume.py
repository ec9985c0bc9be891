"""Volume: the medium of one mounted file system, its super block and its groups.

All metadata pass through buffers of the device. Block numbers count from the beginning of the
device in blocks of the file system; 0 is none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from errno import EUCLEAN
from time import time_ns
from typing import TYPE_CHECKING, Final

from ...native.constants import DEV_BSHIFT
from ...native.errors import VfsError
from ..bio import B_BUSY, B_INVAL, Buf, bdwrite, bread, brelse, bufs_sync, getblk, incore, vflushbuf
from .group import Group, Groups
from .super import (
    ERROR_FS,
    ERRORS_CONTINUE,
    GROUP_DESC_SIZE,
    SUPER_OFFSET,
    SUPER_SIZE,
    VALID_FS,
    Superblock,
)

if TYPE_CHECKING:
    from ..rumpuser import Disk
    from ..vnode import Vnode

_log = logging.getLogger(__name__)

_REPORTS: Final = 20
"""How many different things found wrong are logged of one mount."""


class Volume:
    """The device with a file system on it.

    `changed_groups` are those whose counts are newer than their descriptors on the device;
    these and the super block are written by `write_counts` only. `is_rdonly`: nothing may be
    written. `on_error` is called once, when something is found to be wrong for the first time.
    """

    def __init__(
        self, devvp: Vnode, sb: Superblock, groups: Groups, name: str, *, rdonly: bool
    ) -> None:
        self.devvp = devvp
        self.sb = sb
        self.groups = groups
        self.name = name
        self.is_rdonly = rdonly
        self.block_size = sb.block_size
        self.changed_groups: set[Group] = set()
        self.on_error: Callable[[], None] = lambda: None
        self._shift = sb.block_size.bit_length() - 1 - DEV_BSHIFT
        self._reports: set[str] = set()

    @property
    def disk(self) -> Disk:
        """The disk, for its cache."""
        disk: Disk = self.devvp.data.disk
        return disk

    # Blocks.

    def blkno(self, block: int) -> int:
        """Return the address on the device, in units of DEV_BSIZE."""
        return block << self._shift

    async def bread(self, block: int) -> Buf:
        """Return the buffer of a block, busy and with its contents. Errors: EIO."""
        return await bread(self.devvp, block << self._shift, self.block_size)

    async def new_buf(self, block: int, data: bytes) -> Buf:
        """Return the buffer of a block that was just taken, busy; it holds `data`."""
        bp = await getblk(self.devvp, block << self._shift, self.block_size)
        bp.data[:] = data
        return bp

    async def forget(self, block: int) -> None:
        """Drop the buffer of a block that is nobody's metadata any more, unwritten."""
        bp = incore(self.devvp, block << self._shift)
        if bp is not None:
            if bp.flags & B_BUSY:
                bp = await getblk(self.devvp, block << self._shift, self.block_size)
                brelse(bp, B_INVAL)
            else:
                bp.flags |= B_BUSY
                brelse(bp, B_INVAL)

    async def write(self, blocks: Iterable[int]) -> None:
        """Write those of `blocks` whose buffers are dirty, and wait for just these. Errors: EIO."""
        bufs = [incore(self.devvp, block << self._shift) for block in blocks]
        await bufs_sync([bp for bp in bufs if bp is not None])

    async def write_all(self) -> None:
        """Write all buffers of the device that are dirty, and wait for them. Errors: EIO."""
        await vflushbuf(self.devvp, True)

    async def flush(self) -> None:
        """Return when everything written so far is on the medium. Errors: EIO."""
        await self.disk.flush()

    # What is wrong.

    def corrupt(self, detail: str) -> VfsError:
        """Return the error for something on the medium that cannot be; the caller raises it.

        The file system is marked as one with errors. Unless its super block says that one goes on
        then, no new changes are let in.
        """
        self.note_error(detail)
        return VfsError(EUCLEAN, detail)

    def note_error(self, detail: str) -> None:
        """Mark the file system as one that e2fsck must see, and say why in the log."""
        if detail not in self._reports and len(self._reports) < _REPORTS:
            self._reports.add(detail)
            _log.error("ext2fs: %s: %s", self.name, detail)
        if not self.sb.state & ERROR_FS:
            self.sb.state |= ERROR_FS
            self.on_error()

    @property
    def stops_on_error(self) -> bool:
        """Whether an error makes the file system read-only (a panic is more than we have)."""
        return self.sb.errors > ERRORS_CONTINUE

    # Counts.

    async def write_counts(self) -> None:
        """Bring the counts of groups and the super block into their buffers. Errors: EIO."""
        changed, self.changed_groups = self.changed_groups, set()
        try:
            per_block = self.block_size // GROUP_DESC_SIZE
            by_block: dict[int, list[Group]] = {}
            for group in changed:
                by_block.setdefault(group.number // per_block, []).append(group)
            for index, groups in by_block.items():
                bp = await self.bread(self.sb.first_data_block + 1 + index)
                for group in groups:
                    group.encode_into(bp.data, group.number % per_block * GROUP_DESC_SIZE)
                bdwrite(bp)
            await self._write_super()
        except BaseException:
            self.changed_groups |= changed
            raise

    async def _write_super(self) -> None:
        self.sb.wtime = time_ns() // 10**9
        block, offset = divmod(SUPER_OFFSET, self.block_size)
        bp = await self.bread(block)
        bp.data[offset : offset + SUPER_SIZE] = self.sb.encode()
        bdwrite(bp)

    async def mark(self, *, valid: bool) -> None:
        """Say on the medium whether the file system needs no check, and wait until it says so.

        One with errors always needs one. Errors: EIO; the mark is as before then.
        """
        before = self.sb.state
        is_valid = valid and not before & ERROR_FS
        self.sb.state = before & ~VALID_FS | (VALID_FS if is_valid else 0)
        block = SUPER_OFFSET // self.block_size
        try:
            await self._write_super()
            await self.write([block])
            await self.flush()
        except VfsError:
            self.sb.state = before
            raise
