"""Groups: where each one's bitmaps and inodes lie, and how much of it is free."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from errno import EUCLEAN
from itertools import pairwise
from typing import Final

from ...native.errors import VfsError
from .super import GROUP_DESC_SIZE, Superblock

_DESC: Final = struct.Struct("<3I4H12x")
_COUNTS: Final = struct.Struct("<3H")
_COUNTS_AT: Final = 12
assert _DESC.size == GROUP_DESC_SIZE


class Group:
    """One group. Its place, and the counts that the allocator keeps.

    `first` is its first block and `blocks` how many it has, the last group perhaps fewer. Block
    numbers count from the beginning of the device.
    """

    __slots__ = (
        "block_bitmap",
        "blocks",
        "first",
        "free_blocks",
        "free_inodes",
        "inode_bitmap",
        "inode_table",
        "number",
        "used_dirs",
    )

    def __init__(self, number: int, first: int, blocks: int, raw: bytes) -> None:
        self.number = number
        self.first = first
        self.blocks = blocks
        (
            self.block_bitmap,
            self.inode_bitmap,
            self.inode_table,
            self.free_blocks,
            self.free_inodes,
            self.used_dirs,
            _flags,
        ) = _DESC.unpack(raw)

    def encode_into(self, raw: bytearray, offset: int) -> None:
        """Put the counts into the descriptor that begins at `offset`."""
        _COUNTS.pack_into(
            raw, offset + _COUNTS_AT, self.free_blocks, self.free_inodes, self.used_dirs
        )


class Groups:
    """All groups, and the zones of the device that are nobody's to write file data to.

    Those zones are the super block and descriptors with their copies, bitmaps and inode tables.
    A number from the medium is compared with them before anything is written where it says.
    """

    def __init__(self, sb: Superblock, table: bytes) -> None:
        """Take `table`, the blocks of group descriptors. Errors: EUCLEAN."""
        self.sb = sb
        self._all: list[Group] = []
        zones: list[tuple[int, int]] = [(0, sb.first_data_block)] if sb.first_data_block else []
        for number in range(sb.groups_count):
            first = sb.first_data_block + number * sb.blocks_per_group
            blocks = min(sb.blocks_per_group, sb.blocks_count - first)
            at = number * GROUP_DESC_SIZE
            group = Group(number, first, blocks, table[at : at + GROUP_DESC_SIZE])
            zones += self._check(group)
            self._all.append(group)
        # Ascending and apart, each from a first block to before an end.
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in zones:
            if self._ends and self._ends[-1] == start:
                self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)

    def _check(self, group: Group) -> list[tuple[int, int]]:
        """Return the zones of a group, in order. Errors: EUCLEAN."""
        sb = self.sb
        zones = [
            (group.block_bitmap, group.block_bitmap + 1),
            (group.inode_bitmap, group.inode_bitmap + 1),
            (group.inode_table, group.inode_table + sb.inode_table_blocks),
        ]
        if sb.has_backup(group.number):
            zones.append((group.first, group.first + 1 + sb.desc_blocks))
        zones.sort()
        if (
            zones[0][0] < group.first
            or zones[-1][1] > group.first + group.blocks
            or any(end > start for (_, end), (start, _) in pairwise(zones))
        ):
            raise VfsError(EUCLEAN, f"group {group.number}: its metadata lie in impossible places")
        if group.free_blocks > group.blocks or group.free_inodes > sb.inodes_per_group:
            raise VfsError(EUCLEAN, f"group {group.number}: more free than there is")
        return zones

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Group:
        return self._all[number]

    def of_block(self, block: int) -> Group:
        """Return the group of a block, which is a data block."""
        return self._all[(block - self.sb.first_data_block) // self.sb.blocks_per_group]

    def of_inode(self, ino: int) -> Group:
        """Return the group of an inode, which there is."""
        return self._all[(ino - 1) // self.sb.inodes_per_group]

    def is_data(self, block: int, count: int = 1) -> bool:
        """Whether `count` blocks from `block` on are there, and may belong to files."""
        if block <= 0 or block + count > self.sb.blocks_count:
            return False
        at = bisect_right(self._starts, block)
        return (at == 0 or self._ends[at - 1] <= block) and (
            at == len(self._starts) or block + count <= self._starts[at]
        )

    def zones(self, group: Group) -> list[tuple[int, int]]:
        """Return the zones within a group, as pairs of a first block and an end, in order."""
        at = bisect_left(self._ends, group.first + 1)
        found = []
        end = group.first + group.blocks
        while at < len(self._starts) and self._starts[at] < end:
            found.append((max(self._starts[at], group.first), min(self._ends[at], end)))
            at += 1
        return found

    def inode_place(self, ino: int) -> tuple[int, int]:
        """Return the block of the inode table that has an inode, and the octet where it begins."""
        sb = self.sb
        index = (ino - 1) % sb.inodes_per_group
        block, offset = divmod(index * sb.inode_size, sb.block_size)
        return self.of_inode(ino).inode_table + block, offset

    @property
    def overhead(self) -> int:
        """Blocks that files can never have."""
        return sum(end - start for start, end in zip(self._starts, self._ends, strict=True))
