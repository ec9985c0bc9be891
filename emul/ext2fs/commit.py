"""Commits: writing what has changed, in order.

A commit ends the epoch and writes what it is asked for up to then (the rules are in `deps`):

    fresh blocks | flush | pointers to them, inodes, all other blocks | flush | freeing

(the first half only if there are fresh ones). Who wants fsync of a node commits the node, the
directories that have its new names, theirs up to one that the device knows, and the inodes
that a directory's new entries name. One commit runs at a time; who comes meanwhile shares the
next one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import trio

from ...native.constants import Vtype
from ...native.errors import VfsError
from ..bio import bdwrite, brelse
from ..sched import mutex_init
from .alloc import Allocator
from .deps import Deps
from .dirblock import remove
from .inode import encode_inode
from .node import Inodedep, Node
from .volume import Volume

_POINTER: Final = struct.Struct("<I")
_ROUNDS: Final = 3
"""Commits that a sync needs at most: what moved arrives, its old name goes, and what that
freed is marked so."""


class _Wish:
    """What one caller wants committed: `node`, or everything."""

    __slots__ = ("error", "is_done", "node")

    def __init__(self, node: Node | None) -> None:
        self.node = node
        self.is_done = False
        self.error: VfsError | None = None


class Order(Deps):
    """Brings what has changed to the device.

    One commit runs at a time. Nothing that waits here is called with a buffer in hand.
    """

    def __init__(self, volume: Volume, alloc: Allocator) -> None:
        super().__init__(volume, alloc)
        self.commits = 0
        self._mutex = mutex_init(volume.devvp.mount.kernel, "ext2fs commit")
        self._wishes: list[_Wish] = []

    async def commit(self, node: Node) -> None:
        """Return when the device has all that was changed of `node`, and its names. Errors: EIO."""
        is_haunted = node.dep is not None and bool(node.dep.ghosts)
        await self._ask(node)
        if is_haunted:  # no more, but the device has to hear of it
            await self._ask(node)

    async def commit_all(self) -> None:
        """Return when the device has what can be written now. Errors: EIO."""
        await self._ask(None)

    async def sync(self) -> None:
        """Return when the device has everything that was changed so far, counts included.

        Nothing is pending afterwards but what was changed meanwhile. Errors: EIO.
        """
        with trio.CancelScope(shield=True):
            for _ in range(_ROUNDS):
                if not self.active:
                    break
                await self._ask(None)
            await self.volume.write_counts()
            await self.volume.write_all()
            await self.volume.flush()

    async def _ask(self, node: Node | None) -> None:
        """Have a commit, shared with others who ask at the same time. Not cancellable."""
        wish = _Wish(node)
        self._wishes.append(wish)
        with trio.CancelScope(shield=True):
            async with self._mutex:
                if not wish.is_done:
                    wishes, self._wishes = self._wishes, []
                    await self._serve(wishes)
        if wish.error is not None:
            raise wish.error

    async def _serve(self, wishes: list[_Wish]) -> None:
        try:
            error = await self._try([wish.node for wish in wishes])
            for wish in wishes:
                # One that failed for all has failed for whom it concerns; they find out alone.
                wish.error = error if error is None or len(wishes) == 1 else None
                if error is not None and len(wishes) > 1:
                    wish.error = await self._try([wish.node])
        finally:
            for wish in wishes:
                wish.is_done = True

    async def _try(self, nodes: list[Node | None]) -> VfsError | None:
        try:
            if None in nodes:
                await self._free_orphans()
                wanted = list(self.active.values())
            else:
                wanted = self._closure(node for node in nodes if node is not None)
            await self._commit(wanted)
        except VfsError as exc:
            return exc
        return None

    def _closure(self, nodes: Iterable[Node]) -> list[Node]:
        """Return the nodes that must be written so that `nodes` are found after a power cut."""
        found: set[Node] = set()
        wanted: set[Node] = set()
        todo = []
        for node in nodes:
            todo.append(node)
            if node.dep is not None:
                for ghost in node.dep.ghosts.values():
                    todo += [ghost.target, ghost.node]
        while todo:
            node = todo.pop()
            if node not in found and node.dep is not None:
                found.add(node)
                todo += node.dep.names
                # Of a directory's entries only the inodes count, and what these point to.
                wanted.update(node.dep.entries)
        wanted |= found
        return [node for node in wanted if node.dep is not None]

    async def _commit(self, nodes: list[Node]) -> None:
        """Write `nodes`, in order. Errors: EIO; everything is still to be done then."""
        epoch = self.epoch
        self.epoch += 1
        self.commits += 1
        volume = self.volume
        # Fresh blocks of a node that was freed meanwhile are in no set any more.
        fresh = [(node, set(node.dep.fresh)) for node in nodes if node.dep and node.dep.fresh]
        if fresh:
            await volume.write(block for _, blocks in fresh for block in blocks)
            await volume.flush()
            for node, blocks in fresh:
                await self._link(node, blocks)
        todo: set[int] = set()
        for node in nodes:
            dep = node.dep
            if dep is None:
                continue
            todo.update(dep.blocks)
            if dep.changed:
                todo.add(await self._pack(node, dep))
        await volume.write(todo)
        await volume.flush()
        for node in nodes:
            await self._settle(node, epoch)
        await self._lay_ghosts(set(nodes), epoch)

    async def _link(self, node: Node, blocks: set[int]) -> None:
        """Set the pointers to blocks of `node` that the device has by now."""
        dep = node.dep
        if dep is None:
            return
        for link, block in list(dep.links.items()):
            if block not in blocks:
                continue
            table, index = link
            bp = await self.volume.bread(table)
            if dep.links.get(link) == block:  # was not freed while we waited
                _POINTER.pack_into(bp.data, index * 4, block)
                bdwrite(bp)
                del dep.links[link]
                dep.blocks.setdefault(table, self.epoch - 1)
            else:
                brelse(bp)
        dep.fresh -= blocks

    async def _pack(self, node: Node, dep: Inodedep) -> int:
        """Copy an inode into its buffer; return the number of the block. Errors: EIO.

        Pointers to blocks that the device has not are left out, and the last name is not taken from
        an inode while a name on the device may still lead to it (rules 1 and 3).
        """
        block, offset = self.volume.groups.inode_place(node.ino)
        bp = await self.volume.bread(block)
        pointers, nlink = node.block, node.nlink
        is_partial = False
        if not dep.fresh.isdisjoint(pointers):
            node.block = [0 if there in dep.fresh else there for there in pointers]
            is_partial = True
        if not nlink and dep.was_replaced and dep.names and not dep.is_gone:
            node.nlink = 1
            is_partial = True
        encode_inode(node, bp.data, offset, fresh=self.volume.sb.inode_size if dep.is_new else 0)
        node.block, node.nlink = pointers, nlink
        dep.is_new = False
        bdwrite(bp)
        if is_partial:
            dep.changed = self.epoch  # the rest is the next commit's
        return block

    async def _settle(self, node: Node, epoch: int) -> None:
        """Forget what the device has of `node`, and mark free what it points to no more."""
        dep = node.dep
        if dep is None:
            return
        if dep.changed <= epoch:
            dep.changed = 0
        if dep.changed_data <= epoch and not dep.changed:
            dep.changed_data = 0
        dep.blocks = {block: tag for block, tag in dep.blocks.items() if tag > epoch}
        if dep.new_names:
            dep.new_names = {name: tag for name, tag in dep.new_names.items() if tag > epoch}
        for entry, tag in list(dep.entries.items()):
            if tag <= epoch:
                del dep.entries[entry]
                other = entry.dep
                if other is not None and other.names.get(node) == tag:
                    del other.names[node]
                    self._retire(entry)
        if dep.freed and dep.freed[0][0] <= epoch:
            freed = [(first, count) for tag, first, count in dep.freed if tag <= epoch]
            dep.freed = [run for run in dep.freed if run[0] > epoch]
            await self.alloc.release(freed)
            self.alloc.pending -= sum(count for _, count in freed)
        if dep.is_gone and not dep.changed and not dep.freed:
            dep.is_gone = dep.is_orphan = False
            for dir in dep.names:
                if dir.dep is not None:
                    dir.dep.entries.pop(node, None)
            dep.names.clear()
            await self.alloc.release_inode(node.ino, is_dir=node.vtype == Vtype.VDIR)
            self.alloc.pending_inodes -= 1
        self._retire(node)

    # What waits for a commit of something else.

    async def _lay_ghosts(self, written: set[Node], epoch: int) -> None:
        """Take away the old names of nodes whose new names the device has. Errors: EIO."""
        for ghost in list(self._ghosts):
            if ghost.target not in written or ghost.epoch > epoch or ghost not in self._ghosts:
                continue
            volume = self.volume
            bp = await volume.bread(ghost.block)
            if ghost not in self._ghosts:
                brelse(bp)
                continue
            try:
                remove(bp.data, ghost.pos)
            except VfsError as exc:
                brelse(bp)
                raise volume.corrupt(f"directory {ghost.dir.ino}: {exc.detail}") from None
            bdwrite(bp)
            self.wrote(ghost.dir, ghost.block)
            self.exorcise(ghost)
            if ghost.dir.dirhash is not None:
                ghost.dir.dirhash.widened(ghost.block)

    async def _free_orphans(self) -> None:
        """Free the blocks of orphans that nothing on the device is owed any more."""
        for node in list(self._orphans):
            dep = node.dep
            assert dep is not None
            if dep.was_replaced and dep.names:
                continue
            del self._orphans[node]
            self.alloc.pending -= self._blocks_of(node)
            await self.free_node(node)
            dep.is_gone = True
            self.changed(node)
