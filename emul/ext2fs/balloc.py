"""Balloc: blocks taken for files, and the tables that lead to them."""

from __future__ import annotations

from errno import ENOSPC
from typing import NamedTuple

from ...native.errors import VfsError
from ...native.records import Cred
from ..bio import bdwrite, brelse
from .alloc import Reservation
from .bmap import Bmap
from .inode import NDIR_BLOCKS
from .node import Node


class _Taken(NamedTuple):
    """Blocks `first` to before `end`, entered in `table` (0: the inode) from `slot` on."""

    table: int
    slot: int
    first: int
    end: int


class Balloc(Bmap):
    """The blocks of the files of a volume, and how they get more."""

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
