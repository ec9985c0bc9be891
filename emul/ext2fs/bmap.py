"""Bmap: where the blocks of a file are.

An inode names the first 12 itself. The 13th number is a table of further ones, the 14th a table
of such tables, the 15th a table of those. 0 is a hole. Numbers from the medium are compared
with what may belong to files before anything is read or written where they say.
"""

from __future__ import annotations

import struct
from operator import eq
from typing import Final

from ..bio import Buf, brelse
from .alloc import Allocator
from .commit import Order
from .inode import NDIR_BLOCKS
from .node import Node
from .volume import Volume

_SECTORS_MAX: Final = (1 << 32) - 1
_POINTER: Final = struct.Struct("<I")


class Bmap:
    """The blocks of the files of a volume.

    Entry of all methods that change something: the node's vnode exclusive, or none left.
    """

    def __init__(self, volume: Volume, alloc: Allocator, order: Order) -> None:
        self.volume = volume
        self.alloc = alloc
        self.order = order
        size = volume.block_size
        self._per_table = size // 4
        self._shift = self._per_table.bit_length() - 1
        self._table = struct.Struct(f"<{self._per_table}I")
        self._sectors = size // 512
        per = self._per_table
        self.blocks_max = NDIR_BLOCKS + per + per**2 + per**3
        """How many blocks the numbers in an inode can lead to."""
        # As Linux: what a file occupies, tables included, must be countable in 32 bits of sectors.
        countable = _SECTORS_MAX // self._sectors
        countable -= countable // per + countable // per**2 + 3
        self.size_max = min(self.blocks_max, countable) * size
        """Largest size of a file, octets."""

    def _path(self, lbn: int) -> tuple[int, ...]:
        """Return the number in the inode, and the indices in tables, that lead to a block."""
        if lbn < NDIR_BLOCKS:
            return (lbn,)
        lbn -= NDIR_BLOCKS
        shift, mask = self._shift, self._per_table - 1
        if lbn < self._per_table:
            return (NDIR_BLOCKS, lbn)
        lbn -= self._per_table
        if lbn < 1 << 2 * shift:
            return (NDIR_BLOCKS + 1, lbn >> shift, lbn & mask)
        lbn -= 1 << 2 * shift
        return (NDIR_BLOCKS + 2, lbn >> 2 * shift, lbn >> shift & mask, lbn & mask)

    async def _read_table(self, node: Node, table: int) -> Buf:
        """Return the buffer of a table. Errors: EIO, EUCLEAN."""
        if not self.volume.groups.is_data(table):
            raise self.volume.corrupt(f"inode {node.ino}: table in block {table}")
        return await self.volume.bread(table)

    async def _descend(self, node: Node, path: tuple[int, ...]) -> tuple[int, int]:
        """Follow `path` to its last table.

        Returns (table, 0), or (0, n) if there is none because the n-th table is missing.
        """
        table = node.block[path[0]]
        for step, index in enumerate(path[1:-1], 1):
            if not table:
                return 0, step
            table = await self._child(node, table, index)
        return table, len(path) - 1

    async def _child(self, node: Node, table: int, index: int) -> int:
        """Return the table that `table` names at `index`, 0 for none."""
        bp = await self._read_table(node, table)
        (child,) = _POINTER.unpack_from(bp.data, index * 4)
        brelse(bp)
        if not child and node.dep is not None:
            return node.dep.links.get((table, index), 0)
        return int(child)

    async def map(self, node: Node, lbn: int, limit: int) -> tuple[int, int]:
        """Return where block `lbn` of a file is, and how many blocks follow each other from there.

        (0, run) for a hole; `run` is `limit` at most, and at least one, but does not always reach
        as far as it might. Errors: EIO, EUCLEAN.
        """
        path = self._path(lbn)
        table = 0
        pointers: tuple[int, ...] | list[int]
        if len(path) == 1:
            pointers = node.block
            index, end = lbn, min(lbn + limit, NDIR_BLOCKS)
        else:
            table, missing = await self._descend(node, path)
            if not table:
                # All that the missing table would lead to is one hole.
                span = 1 << self._shift * (len(path) - missing)
                behind = 0
                for index in path[missing:]:
                    behind = behind << self._shift | index
                return 0, min(limit, span - behind)
            bp = await self._read_table(node, table)
            pointers = self._table.unpack_from(bp.data)
            brelse(bp)
            index = path[-1]
            end = min(index + limit, self._per_table)
        first = pointers[index]
        if not first and node.dep is not None and len(path) > 1:
            first = node.dep.links.get((table, index), 0)
        run = 1
        if first:
            whole = end - index
            if pointers[end - 1] == first + whole - 1 and all(
                map(eq, pointers[index:end], range(first, first + whole))
            ):
                run = whole
            else:
                while index + run < end and pointers[index + run] == first + run:
                    run += 1
            if not self.volume.groups.is_data(first, run):
                raise self.volume.corrupt(f"inode {node.ino}: block {lbn} is {first}")
        else:
            while index + run < end and not pointers[index + run]:
                run += 1
        return first, run
