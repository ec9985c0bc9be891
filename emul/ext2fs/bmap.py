"""Bmap: where the blocks of a file are.

An inode names the first 12 itself. The 13th number is a table of further ones, the 14th a table
of such tables, the 15th a table of those. 0 is a hole. Numbers from the medium are compared
with what may belong to files before anything is read or written where they say.
"""

from __future__ import annotations

import struct
from errno import ENOSPC
from operator import eq
from typing import Final, NamedTuple

from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import Cred
from ..bio import B_INVAL, Buf, bdwrite, brelse
from .alloc import Allocator, Reservation
from .deps import Order
from .inode import N_BLOCKS, NDIR_BLOCKS
from .node import Node
from .volume import Volume

_SECTORS_MAX: Final = (1 << 32) - 1
_POINTER: Final = struct.Struct("<I")


class _Taken(NamedTuple):
    """Blocks `first` to before `end`, entered in `table` (0: the inode) from `slot` on."""

    table: int
    slot: int
    first: int
    end: int


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

    # Taking.

    async def allocate(self, node: Node, lbn: int, end: int, cred: Cred) -> None:
        """Take blocks for all holes from block `lbn` to before `end`.

        All or nothing, but for tables, of which empty ones may stay. Waits for a sync if that is
        what it takes to find room. Not cancellable.
        Errors: ENOSPC; EIO; EUCLEAN.
        """
        parts: list[tuple[int, int]] = []
        tables: set[tuple[int, ...]] = set()
        need = 0
        at = lbn
        while at < end:
            path = self._path(at)
            holes, stop = await self._survey(node, at, end, path, tables)
            if holes:
                parts.append((at, stop))
                need += holes
            at = stop
        if not parts:
            return
        need += len(tables)
        promise = await self.reserve(need, cred)
        taken: list[_Taken] = []
        try:
            for start, stop in parts:
                await self._fill(node, start, stop, promise, taken)
        except BaseException:
            await self._undo(node, taken)
            raise
        finally:
            self.alloc.unreserve(promise)

    async def _survey(
        self, node: Node, at: int, end: int, path: tuple[int, ...], tables: set[tuple[int, ...]]
    ) -> tuple[int, int]:
        """Count the holes in the table that has block `at`; return them and where it ends.

        The tables that are missing are added to `tables`, as the steps that lead to them.
        """
        if len(path) == 1:
            stop = min(end, NDIR_BLOCKS)
            return node.block[at:stop].count(0), stop
        index = path[-1]
        stop = min(end, at - index + self._per_table)
        table, missing = await self._descend(node, path)
        if not table:
            tables.update(path[:step] for step in range(missing, len(path)))
            return stop - at, stop
        bp = await self._read_table(node, table)
        pointers = self._table.unpack_from(bp.data)
        brelse(bp)
        return pointers[index : index + stop - at].count(0), stop

    async def reserve(self, count: int, cred: Cred) -> Reservation:
        """Have `count` blocks promised, after a sync if that helps. Errors: ENOSPC; EIO."""
        promise = self.alloc.reserve(count, cred)
        if promise is None and self.order.has_freed:
            await self.order.sync()
            promise = self.alloc.reserve(count, cred)
        if promise is None:
            raise VfsError(ENOSPC)
        return promise

    async def _fill(
        self, node: Node, at: int, stop: int, promise: Reservation, taken: list[_Taken]
    ) -> None:
        """Take blocks for the holes from `at` to `stop`, which one table has."""
        path = self._path(at)
        if len(path) == 1:
            await self._fill_holes(node, 0, node.block, at, stop, promise, taken)
        else:
            table = await self._make_path(node, path, promise)
            bp = await self._read_table(node, table)
            pointers = list(self._table.unpack_from(bp.data))
            index = path[-1]
            begin = len(taken)
            try:
                await self._fill_holes(
                    node, table, pointers, index, index + stop - at, promise, taken
                )
            except BaseException:
                # They stand nowhere yet.
                for run in taken[begin:]:
                    self.order.free(node, run.first, run.end - run.first)
                    node.sectors -= (run.end - run.first) * self._sectors
                del taken[begin:]
                brelse(bp)
                raise
            self._table.pack_into(bp.data, 0, *pointers)
            bdwrite(bp)
            self.order.wrote(node, table)
        self.order.changed(node, data=True)

    async def _fill_holes(
        self,
        node: Node,
        table: int,
        pointers: list[int],
        at: int,
        stop: int,
        promise: Reservation,
        taken: list[_Taken],
    ) -> None:
        """Take blocks for what is 0 in `pointers` from `at` to `stop`, and enter them there."""
        while at < stop:
            if pointers[at]:
                at += 1
                continue
            end = stop
            if any(pointers[at:stop]):
                end = at + 1
                while end < stop and not pointers[end]:
                    end += 1
            before = pointers[at - 1] if at else 0
            goal = before + 1 if before else node.goal or self.alloc.goal(node)
            first, count = await self.alloc.take(goal, end - at, promise)
            pointers[at : at + count] = range(first, first + count)
            taken.append(_Taken(table, at, first, first + count))
            node.sectors += count * self._sectors
            node.goal = first + count
            at += count

    async def _make_path(self, node: Node, path: tuple[int, ...], promise: Reservation) -> int:
        """Return the last table of `path`; what is missing of it is made."""
        table = node.block[path[0]]
        if not table:
            table = node.block[path[0]] = await self._new_table(node, None, promise)
        for index in path[1:-1]:
            child = await self._child(node, table, index)
            table = child or await self._new_table(node, (table, index), promise)
        return table

    async def _new_table(
        self, node: Node, link: tuple[int, int] | None, promise: Reservation
    ) -> int:
        block, _ = await self.alloc.take(node.goal or self.alloc.goal(node), 1, promise)
        bdwrite(await self.volume.new_buf(block, bytes(self.volume.block_size)))
        node.sectors += self._sectors
        node.goal = block + 1
        self.order.fresh(node, block, link)
        self.order.changed(node, data=True)
        return block

    async def _undo(self, node: Node, taken: list[_Taken]) -> None:
        """Make holes again of what was taken."""
        for table, slot, first, end in taken:
            count = end - first
            if not table:
                node.block[slot : slot + count] = [0] * count
            else:
                try:
                    bp = await self._read_table(node, table)
                except VfsError as exc:
                    self.volume.note_error(f"inode {node.ino}: blocks from {first} on stay: {exc}")
                    continue
                bp.data[slot * 4 : (slot + count) * 4] = bytes(count * 4)
                bdwrite(bp)
                self.order.wrote(node, table)
            node.sectors -= count * self._sectors
            self.order.free(node, first, count)
        self.order.changed(node, data=True)

    async def append(self, node: Node, lbn: int, data: bytes, cred: Cred) -> int:
        """Take block `lbn`, where a hole is, for metadata: a directory's, or a link's target.

        Its contents are `data`, in its buffer; that is dirty, and on the device before anything
        there points to it. Returns its number. Errors: as `allocate`.
        """
        path = self._path(lbn)
        tables: set[tuple[int, ...]] = set()
        holes, _ = await self._survey(node, lbn, lbn + 1, path, tables)
        if not holes:
            raise self.volume.corrupt(f"inode {node.ino}: a block behind its end")
        promise = await self.reserve(1 + len(tables), cred)
        try:
            link = None
            if len(path) > 1:
                link = await self._make_path(node, path, promise), path[-1]
            block, _ = await self.alloc.take(node.goal or self.alloc.goal(node), 1, promise)
        finally:
            self.alloc.unreserve(promise)
        bdwrite(await self.volume.new_buf(block, data))
        if link is None:
            node.block[lbn] = block
        node.sectors += self._sectors
        node.goal = block + 1
        self.order.fresh(node, block, link)
        self.order.changed(node, data=True)
        return block

    # Giving back.

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
