"""Directories: entries found, entered, changed and taken away, in the buffers of the device.

What is in a directory is a dirhash and blocks that say the same, but for ghosts (`deps`): names
that stand in a block and are none. "." and ".." are entries like others.
"""

from __future__ import annotations

from errno import EUCLEAN
from typing import NamedTuple

from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import Cred
from ..bio import Buf, bdwrite, brelse
from .blocks import Blocks
from .commit import Order
from .dirblock import (
    FT_TO_VTYPE,
    VTYPE_TO_FT,
    Dirent,
    empty_block,
    find_room,
    first_block,
    insert,
    is_entry,
    parse_block,
    rec_size,
    remove,
    replace,
)
from .dirhash import Dirhash
from .inode import INDEX_FL
from .node import Ghost, Node
from .volume import Volume


class Slot(NamedTuple):
    """An entry, or room for one behind it, found and held: `bp` is busy until it was changed.

    It stands at octet `pos` of the directory's block number `place`; `name` is what was looked for.
    """

    bp: Buf
    place: int
    pos: int
    name: bytes


class Directories:
    """The directories of a volume.

    Entry of all: the directory's vnode locked, exclusive for what changes it; or it has none yet.
    """

    def __init__(self, volume: Volume, blocks: Blocks, order: Order) -> None:
        self.volume = volume
        self.blocks = blocks
        self.order = order
        self._size = volume.block_size
        self._inodes_count = volume.sb.inodes_count
        self._has_filetype = volume.sb.has_filetype

    def ftype(self, vtype: int) -> int:
        """Return the number that an entry of this file system has for a type."""
        return VTYPE_TO_FT[Vtype(vtype)] if self._has_filetype else 0

    def _parse(self, dir: Node, data: bytes | bytearray) -> list[Dirent]:
        """Return the entries of a block. Errors: EUCLEAN."""
        try:
            return parse_block(data, self._inodes_count, has_filetype=self._has_filetype)
        except VfsError as exc:
            raise self.volume.corrupt(f"directory {dir.ino}: {exc.detail}") from None

    # What is there.

    async def load(self, dir: Node) -> Dirhash:
        """Return the dirhash; read the whole directory if there is none. Errors: EIO, EUCLEAN."""
        known = dir.dirhash
        if known is not None:
            return known
        count, rest = divmod(dir.size, self._size)
        if rest or not count:
            raise self.volume.corrupt(f"directory {dir.ino}: {dir.size} octets")
        found = Dirhash()
        place = 0
        while place < count:
            block, run = await self.blocks.map(dir, place, count - place)
            if not block:
                raise self.volume.corrupt(f"directory {dir.ino}: no block {place}")
            for here in range(block, block + run):
                # A block has one place, so the reading ends, whatever the tables say.
                if found.has_block(here):
                    raise self.volume.corrupt(f"directory {dir.ino}: block {here} twice")
                bp = await self.volume.bread(here)
                try:
                    entries = self._parse(dir, bp.data)
                finally:
                    brelse(bp)
                found.add_block(here)
                for entry in entries:
                    if entry.ino and not self._is_ghost(dir, here, entry):
                        found.set(entry.name, place * self._size + entry.pos, entry.ino)
                place += 1
        if not dir.parent:
            dir.parent = found.get(b"..")
        # Another reader may have been as fast, but nobody can have changed anything.
        dir.dirhash = found
        return found

    @staticmethod
    def _is_ghost(dir: Node, block: int, entry: Dirent) -> bool:
        if dir.dep is None or not dir.dep.ghosts:
            return False
        ghost = dir.dep.ghosts.get(entry.name)
        return ghost is not None and ghost.block == block and ghost.pos == entry.pos

    async def find(self, dir: Node, name: bytes) -> int:
        """Return the inode of a name, 0 if there is none. Errors: EIO, EUCLEAN."""
        return (dir.dirhash or await self.load(dir)).get(name)

    async def entries(self, dir: Node, offset: int) -> tuple[list[tuple[int, Dirent]], int]:
        """Return what stands at and behind `offset` in the block that has it.

        That is pairs of where to go on after an entry, an offset, and the entry; and where the next
        block begins, at the end of the directory its size. Errors: EIO, EUCLEAN.
        """
        found = dir.dirhash or await self.load(dir)
        place, start = divmod(offset, self._size)
        if place >= len(found.blocks):
            return [], dir.size
        block = found.blocks[place]
        bp = await self.volume.bread(block)
        try:
            entries = self._parse(dir, bp.data)
        finally:
            brelse(bp)
        base = place * self._size
        return [
            (base + entry.pos + entry.reclen, entry)
            for entry in entries
            if entry.ino and entry.pos >= start and not self._is_ghost(dir, block, entry)
        ], base + self._size

    def vtype_of(self, entry: Dirent) -> int:
        """Return the type that an entry tells, VNON if it does not."""
        return FT_TO_VTYPE[entry.ftype]

    def ghost_named(self, dir: Node, name: bytes) -> Ghost | None:
        """Return the ghost of a name."""
        return None if dir.dep is None else dir.dep.ghosts.get(name)

    # Changes.

    async def make_room(self, dir: Node, name: bytes, cred: Cred) -> Slot:
        """Find room for a name, which is not there; the directory grows if there is none.

        Errors: ENOSPC, EIO, EUCLEAN; the directory may have grown then.
        """
        if self.ghost_named(dir, name) is not None:
            # Two entries of a name would stand there. It goes when the device has the new name.
            await self.order.sync()
            if self.ghost_named(dir, name) is not None:
                raise VfsError(EUCLEAN, "an old name cannot be removed")
        need = rec_size(name)
        found = dir.dirhash or await self.load(dir)
        while True:
            place = found.find_room(need)
            if place < 0:
                place = await self._grow(dir, found, cred)
            bp = await self.volume.bread(found.blocks[place])
            try:
                start = found.starts[place]
                pos, room = find_room(bp.data, start, need)
                if pos < 0 and start:
                    pos, room = find_room(bp.data, 0, need)
            except VfsError as exc:
                brelse(bp)
                raise self.volume.corrupt(f"directory {dir.ino}: {exc.detail}") from None
            if pos >= 0:
                return Slot(bp, place, pos, name)
            found.rooms[place] = room
            brelse(bp)

    async def _grow(self, dir: Node, found: Dirhash, cred: Cred) -> int:
        """Append an empty block; return its place."""
        place = len(found.blocks)
        block = await self.blocks.append(dir, place, empty_block(self._size), cred)
        dir.size += self._size
        found.add_block(block)
        return place

    def enter(self, dir: Node, slot: Slot, node: Node) -> None:
        """Enter the name of `node` for which room was found. Never waits."""
        found = dir.dirhash
        assert found is not None
        pos = insert(slot.bp.data, slot.pos, node.ino, self.ftype(node.vtype), slot.name)
        found.set(slot.name, slot.place * self._size + pos, node.ino)
        found.starts[slot.place] = pos
        self._written(dir, slot)
        self.order.entered(node, dir, slot.name)

    def _written(self, dir: Node, slot: Slot) -> None:
        """Release the changed buffer of a block; a hashed directory is none any more."""
        assert dir.dirhash is not None
        bdwrite(slot.bp)
        self.order.wrote(dir, dir.dirhash.blocks[slot.place])
        if dir.flags & INDEX_FL:
            dir.flags &= ~INDEX_FL
            self.order.changed(dir)

    async def hold(self, dir: Node, name: bytes, beside: Slot | None = None) -> Slot:
        """Return the block that has a name, which is there, held. Errors: EIO, EUCLEAN.

        `beside` is what the caller holds already, of another directory: a block that two of them
        have would be waited for in vain.
        """
        found = dir.dirhash or await self.load(dir)
        place, pos = divmod(found.offset(name), self._size)
        if beside is not None and beside.bp.blkno == self.volume.blkno(found.blocks[place]):
            raise self.volume.corrupt(f"directory {dir.ino}: another one has a block of it")
        bp = await self.volume.bread(found.blocks[place])
        if not is_entry(bp.data, pos, name):
            brelse(bp)
            raise self.volume.corrupt(f"directory {dir.ino}: {name!r} has gone from {pos}")
        return Slot(bp, place, pos, name)

    def take_away(self, dir: Node, slot: Slot) -> None:
        """Remove the name that `hold` has found. Never waits. Errors: EUCLEAN; it is released."""
        found = dir.dirhash
        assert found is not None
        try:
            remove(slot.bp.data, slot.pos)
        except VfsError as exc:
            brelse(slot.bp)
            raise self.volume.corrupt(f"directory {dir.ino}: {exc.detail}") from None
        found.discard(slot.name)
        found.widened(found.blocks[slot.place])
        self._written(dir, slot)

    def leave_ghost(self, dir: Node, name: bytes, node: Node, target: Node) -> None:
        """As `take_away` of a name of `node` that moved to `target`; the device keeps it."""
        found = dir.dirhash
        assert found is not None
        place, pos = divmod(found.offset(name), self._size)
        found.discard(name)
        self.order.haunt(dir, found.blocks[place], pos, name, node, target)

    def revive(self, dir: Node, ghost: Ghost) -> None:
        """Let a ghost's name be a name of the same node again. Never waits."""
        found = dir.dirhash
        assert found is not None
        place = found.blocks.index(ghost.block)
        found.set(ghost.name, place * self._size + ghost.pos, ghost.node.ino)
        self.order.exorcise(ghost)
        self.order.named(ghost.node, dir)

    def change(self, dir: Node, slot: Slot, node: Node) -> None:
        """Let the name that `hold` has found be `node`'s. Never waits."""
        found = dir.dirhash
        assert found is not None
        replace(slot.bp.data, slot.pos, node.ino, self.ftype(node.vtype))
        found.set(slot.name, found.offset(slot.name), node.ino)
        self._written(dir, slot)
        self.order.named(node, dir)

    def set_parent(self, dir: Node, slot: Slot, parent: Node) -> None:
        """Let "..", which `hold` has found, be `parent`. Never waits."""
        found = dir.dirhash
        assert found is not None
        replace(slot.bp.data, slot.pos, parent.ino, self.ftype(Vtype.VDIR))
        found.set(b"..", found.offset(b".."), parent.ino)
        dir.parent = parent.ino
        self._written(dir, slot)

    async def make_first(self, dir: Node, parent: Node, cred: Cred) -> None:
        """Give a new directory its first block. Errors: ENOSPC, EIO; it has none then."""
        data = first_block(self._size, dir.ino, parent.ino, self.ftype(Vtype.VDIR))
        await self.blocks.append(dir, 0, data, cred)
        dir.size = self._size
        dir.parent = parent.ino
