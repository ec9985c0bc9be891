"""Blocks: what `bmap` finds and `balloc` takes, and how it is given back."""

from __future__ import annotations

from ...native.constants import Vtype
from ...native.errors import VfsError
from ..bio import B_INVAL, bdwrite, brelse
from .balloc import Balloc
from .inode import N_BLOCKS, NDIR_BLOCKS
from .node import Node


class Blocks(Balloc):
    """The blocks of the files of a volume.

    Entry of all that changes something: the node's vnode exclusive, or none left.
    """

    async def free(self, node: Node, first: int, end: int | None = None) -> None:
        """Make a hole of the blocks from `first` to before `end`, or of all from `first` on.

        No page of the range is on its way to the device, and none will be. Nothing is left out
        because of an error: what cannot be read is lost until e2fsck finds it, and the volume is
        marked. Not cancellable.
        """
        if end is None:
            end = self.blocks_max
        blocks: list[int] = []
        pointers = node.block
        for index in range(min(first, NDIR_BLOCKS), min(end, NDIR_BLOCKS)):
            if pointers[index]:
                blocks.append(pointers[index])
                pointers[index] = 0
        seen: set[int] = set()
        tables: list[int] = []
        base = NDIR_BLOCKS
        for depth in range(1, N_BLOCKS - NDIR_BLOCKS + 1):
            span = self._per_table**depth
            low, high = max(first - base, 0), min(end - base, span)
            slot = NDIR_BLOCKS + depth - 1
            if low < high and pointers[slot]:
                root = pointers[slot]
                if await self._free_table(node, root, depth, low, high, blocks, tables, seen):
                    pointers[slot] = 0
            base += span
        self.order.changed(node, data=True)
        dep = self.order.dep(node)
        is_file = node.vtype == Vtype.VREG
        for block in tables if is_file else tables + blocks:
            dep.blocks.pop(block, None)
            dep.fresh.discard(block)
        if not is_file:
            for block in blocks:
                if self.volume.groups.is_data(block):
                    await self.volume.forget(block)
        freed = 0
        for start, count in _runs(blocks + tables):
            if self.volume.groups.is_data(start, count):
                self.order.free(node, start, count)
            else:
                for block in range(start, start + count):
                    if self.volume.groups.is_data(block):
                        self.order.free(node, block, 1)
                    else:
                        self.volume.note_error(f"inode {node.ino}: it had block {block}")
            freed += count
        node.sectors = max(node.sectors - freed * self._sectors, 0)

    async def _free_table(
        self,
        node: Node,
        table: int,
        depth: int,
        low: int,
        high: int,
        blocks: list[int],
        tables: list[int],
        seen: set[int],
    ) -> bool:
        """Collect the blocks from `low` to before `high` that `table` leads to in `depth` steps.

        Their pointers are cleared. Returns whether the table is wanted no more; it is in `tables`
        then, unless it makes no sense. Each table is looked at once, whatever points to it.
        """
        per = self._per_table
        span = per ** (depth - 1)
        is_whole = low == 0 and high == per * span
        if table in seen or not self.volume.groups.is_data(table):
            self.volume.note_error(f"inode {node.ino}: block {table} is no table of it")
            return True
        seen.add(table)
        try:
            bp = await self.volume.bread(table)
        except VfsError as exc:
            self.volume.note_error(f"inode {node.ino}: what table {table} names stays: {exc}")
            return is_whole
        pointers = list(self._table.unpack_from(bp.data))
        links = node.dep.links if node.dep is not None else {}
        for index in range(low // span, -(-high // span)):
            there = pointers[index] or links.get((table, index), 0)
            if not there:
                continue
            if depth == 1:
                blocks.append(there)
                links.pop((table, index), None)
            else:
                begin, stop = max(low - index * span, 0), min(high - index * span, span)
                if not await self._free_table(
                    node, there, depth - 1, begin, stop, blocks, tables, seen
                ):
                    continue
                links.pop((table, index), None)
            pointers[index] = 0
        if is_whole:
            brelse(bp, B_INVAL)
            tables.append(table)
            return True
        self._table.pack_into(bp.data, 0, *pointers)
        bdwrite(bp)
        self.order.wrote(node, table)
        return False


def _runs(blocks: list[int]) -> list[tuple[int, int]]:
    """Return blocks as runs (first, count), ascending."""
    runs: list[tuple[int, int]] = []
    for block in sorted(set(blocks)):
        if runs and sum(runs[-1]) == block:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((block, 1))
    return runs
