"""Allocator: which blocks and inodes are free, and which of them somebody gets.

Policy. A new directory in the root goes to a group with few directories and much room, so that
trees spread out; any other directory stays near its parent while that group is not too full. A
file goes to the group of its directory, a block behind the block before it, or into a run of
free ones.

Every change is made without an await between looking at a bitmap and writing it, so the
bitmaps need no lock. Before an operation takes its first block it reserves all that it will
need: then running out of space is known before anything has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from errno import ENOSPC
from typing import Final

from ...native.errors import VfsError
from ...native.records import Cred
from ..bio import Buf, bdwrite, brelse
from ..cred import in_group, is_kernel
from .bitmap import (
    clear_bits,
    count_free,
    find_free,
    find_free_octet,
    free_run,
    is_set,
    set_bits,
)
from .group import Group
from .node import Node
from .super import ROOT_INO
from .volume import Volume

_NEAR: Final = 64
"""How far behind its goal a single block may lie before a run of free ones is better."""
_OCTET: Final = 8


class Reservation:
    """A promise of blocks, of which `left` have not been taken yet."""

    __slots__ = ("left",)

    def __init__(self, count: int) -> None:
        self.left = count


class Allocator:
    """The free blocks and inodes of a volume.

    `reserved` blocks and `reserved_inodes` are promised to operations under way. `pending` blocks
    and `pending_inodes` were freed and can be had again after a sync (`deps`).
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.reserved = 0
        self.reserved_inodes = 0
        self.pending = 0
        self.pending_inodes = 0
        self._groups = volume.groups
        self._sb = volume.sb
        self._sb.free_blocks = sum(group.free_blocks for group in self._all())
        self._sb.free_inodes = sum(group.free_inodes for group in self._all())
        # Bitmaps that were found to make sense; groups whose bitmaps do not.
        self._block_maps: set[int] = set()
        self._inode_maps: set[int] = set()
        self._broken: set[int] = set()
        self._turn = 0

    def _all(self) -> Iterator[Group]:
        return (self._groups[number] for number in range(len(self._groups)))

    # Blocks.

    def reserve(self, count: int, cred: Cred) -> Reservation | None:
        """Promise `count` blocks to the caller if there are as many, else return None.

        The last blocks are for root and for whom the super block names.
        """
        free = self._sb.free_blocks - self.reserved
        if not self._may_have_last(cred):
            free -= self._sb.reserved_blocks
        if count > free:
            return None
        self.reserved += count
        return Reservation(count)

    def unreserve(self, promise: Reservation) -> None:
        """Give back what was promised and not taken."""
        self.reserved -= promise.left
        promise.left = 0

    def _may_have_last(self, cred: Cred) -> bool:
        sb = self._sb
        return (
            cred.uid in (0, sb.def_resuid)
            or is_kernel(cred)
            or (sb.def_resgid != 0 and in_group(cred, sb.def_resgid))
        )

    def goal(self, node: Node) -> int:
        """Return where the first block of a file should be: in the group of its inode."""
        return self._groups.of_inode(node.ino).first

    async def take(self, goal: int, count: int, promise: Reservation) -> tuple[int, int]:
        """Take up to `count` blocks that follow each other, of those promised.

        Returns the first one and how many, at least one: from `goal` on if that is free, else as
        near as there are some. Errors: EIO, EUCLEAN (what is free is known to be, and is not).
        """
        groups = self._groups
        is_there = self._sb.first_data_block <= goal < self._sb.blocks_count
        origin = groups.of_block(goal).number if is_there else 0
        failure: VfsError | None = None
        for step in range(len(groups)):
            group = groups[(origin + step) % len(groups)]
            if not group.free_blocks or group.number in self._broken:
                continue
            try:
                bp = await self._block_bitmap(group)
            except VfsError as exc:
                failure = exc
                continue
            first = _pick(bp.data, max(goal - group.first, 0) if not step else 0, group, count)
            if first < 0:
                brelse(bp)
                continue
            end = free_run(bp.data, first, min(first + count, group.blocks))
            set_bits(bp.data, first, end)
            bdwrite(bp)
            taken = end - first
            self._count(group, -taken)
            self.reserved -= taken
            promise.left -= taken
            return group.first + first, taken
        raise failure or VfsError(ENOSPC, "less is free than the groups say")

    async def release(self, runs: Iterable[tuple[int, int]]) -> None:
        """Make blocks, (first, count) each, free for others.

        What cannot be freed because the device fails is lost until e2fsck finds it; the volume is
        marked. Blocks that are free already, or cannot be anybody's, are left alone.
        """
        for first, count in runs:
            end = first + count
            while first < end:
                group = self._groups.of_block(first)
                last = min(end, group.first + group.blocks)
                try:
                    bp = await self._block_bitmap(group)
                except VfsError as exc:
                    self.volume.note_error(f"blocks of group {group.number} stay in use: {exc}")
                else:
                    cleared = clear_bits(bp.data, first - group.first, last - group.first)
                    bdwrite(bp)
                    self._count(group, cleared)
                    if cleared != last - first:
                        self.volume.note_error(f"blocks {first} to {last - 1} were free already")
                first = last

    def _count(self, group: Group, change: int) -> None:
        """Count blocks that became free, or were taken."""
        group.free_blocks += change
        self._sb.free_blocks += change
        self.volume.changed_groups.add(group)

    async def _block_bitmap(self, group: Group) -> Buf:
        """Return the bitmap, busy. Errors: EIO; EUCLEAN, it calls metadata free."""
        bp = await self.volume.bread(group.block_bitmap)
        if group.number in self._block_maps:
            return bp
        first = group.first
        if not all(
            is_set(bp.data, start - first, end - first) for start, end in self._groups.zones(group)
        ):
            brelse(bp)
            self._broken.add(group.number)
            raise self.volume.corrupt(f"group {group.number}: metadata are marked as free blocks")
        self._block_maps.add(group.number)
        free = count_free(bp.data, group.blocks)
        if free != group.free_blocks:
            self.volume.note_error(
                f"group {group.number}: {free} blocks are free, not {group.free_blocks}"
            )
            self._count(group, free - group.free_blocks)
        return bp

    # Inodes.

    def reserve_inode(self) -> bool:
        """Promise an inode to the caller if there is one; return whether that is so."""
        if self._sb.free_inodes <= self.reserved_inodes:
            return False
        self.reserved_inodes += 1
        return True

    def unreserve_inode(self) -> None:
        """Give back the promise, which `take_inode` was not asked to keep, or could not."""
        self.reserved_inodes -= 1

    async def take_inode(self, parent: Node, *, is_dir: bool) -> int:
        """Take the inode that was reserved, for a child of `parent`.

        Errors: EIO, EUCLEAN; the promise is as before then.
        """
        failure: VfsError | None = None
        first_ino = self._sb.first_ino
        for group in self._dir_groups(parent) if is_dir else self._file_groups(parent):
            if not group.free_inodes:
                continue
            try:
                bp = await self._inode_bitmap(group)
            except VfsError as exc:
                failure = exc
                continue
            start = first_ino - 1 if group.number == 0 else 0
            bit = find_free(bp.data, start, self._sb.inodes_per_group)
            if bit < 0:
                brelse(bp)
                continue
            set_bits(bp.data, bit, bit + 1)
            bdwrite(bp)
            self._count_inode(group, -1, is_dir=is_dir)
            self.reserved_inodes -= 1
            return group.number * self._sb.inodes_per_group + bit + 1
        raise failure or VfsError(ENOSPC, "fewer inodes are free than the groups say")

    async def release_inode(self, ino: int, *, is_dir: bool) -> None:
        """Make an inode free for others; as `release` otherwise."""
        group = self._groups.of_inode(ino)
        try:
            bp = await self._inode_bitmap(group)
        except VfsError as exc:
            self.volume.note_error(f"inode {ino} stays in use: {exc}")
            return
        bit = (ino - 1) % self._sb.inodes_per_group
        cleared = clear_bits(bp.data, bit, bit + 1)
        bdwrite(bp)
        if cleared:
            self._count_inode(group, 1, is_dir=is_dir)
        else:
            self.volume.note_error(f"inode {ino} was free already")

    def _count_inode(self, group: Group, change: int, *, is_dir: bool) -> None:
        group.free_inodes += change
        self._sb.free_inodes += change
        if is_dir:
            group.used_dirs = max(group.used_dirs - change, 0)
        self.volume.changed_groups.add(group)

    async def _inode_bitmap(self, group: Group) -> Buf:
        """Return the bitmap, busy. Errors: EIO."""
        bp = await self.volume.bread(group.inode_bitmap)
        if group.number not in self._inode_maps:
            self._inode_maps.add(group.number)
            free = count_free(bp.data, self._sb.inodes_per_group)
            if free != group.free_inodes:
                self.volume.note_error(
                    f"group {group.number}: {free} inodes are free, not {group.free_inodes}"
                )
                self._sb.free_inodes += free - group.free_inodes
                group.free_inodes = free
                self.volume.changed_groups.add(group)
        return bp

    def _file_groups(self, parent: Node) -> Iterator[Group]:
        """Return groups for a file: that of its directory, then near ones, then all."""
        groups = self._groups
        count = len(groups)
        origin = groups.of_inode(parent.ino).number
        if groups[origin].free_blocks:
            yield groups[origin]
        # Files of different directories of a full group go different ways.
        at, step = (origin + parent.ino) % count, 1
        while step < count:
            at = (at + step) % count
            if groups[at].free_blocks:
                yield groups[at]
            step *= 2
        for step in range(count):
            yield groups[(origin + step) % count]

    def _dir_groups(self, parent: Node) -> Iterator[Group]:
        """Return groups for a directory, the best ones first."""
        groups, sb = self._groups, self._sb
        count = len(groups)
        avg_inodes = sb.free_inodes // count
        avg_blocks = sb.free_blocks // count
        if parent.ino == ROOT_INO:
            self._turn += 1
            rooms = [
                group
                for group in self._all()
                if group.free_inodes >= max(avg_inodes, 1) and group.free_blocks >= avg_blocks
            ]
            if rooms:
                # Of those with the fewest directories not always the same one.
                rooms.sort(key=lambda group: (group.used_dirs, (group.number - self._turn) % count))
                yield rooms[0]
            origin = self._turn % count
        else:
            origin = groups.of_inode(parent.ino).number
        min_inodes = max(avg_inodes - sb.inodes_per_group // 4, 1)
        min_blocks = avg_blocks - sb.blocks_per_group // 4
        max_dirs = sum(group.used_dirs for group in self._all()) // count
        max_dirs += sb.inodes_per_group // 16
        around = [groups[(origin + step) % count] for step in range(count)]
        for group in around:
            if (
                group.used_dirs < max_dirs
                and group.free_inodes >= min_inodes
                and group.free_blocks >= min_blocks
            ):
                yield group
        yield from around


def _pick(bits: bytearray, goal: int, group: Group, count: int) -> int:
    """Return the first bit of a run to take, -1 if none is free."""
    end = group.blocks
    goal = goal if goal < end else 0
    near = find_free(bits, goal, min(goal + (_NEAR if count < _OCTET else 1), end))
    if near >= 0:
        return near
    for start in (goal, 0):
        for find in (find_free_octet, find_free):
            first = find(bits, start, end)
            if first >= 0:
                return first
    return -1
