"""In which order what was changed reaches the device.

There is no journal. After a power cut e2fsck makes a file system out of whatever the device has,
which may be any mixture of old and new blocks; it must find in there all that fsync has
promised. It does if, at each moment,

1. nothing on the device points to a table, a directory block or a long link's block that has not
   been written yet: what lay there before would be taken for pointers and names;
2. a name that moved is gone from its old place only when it is in its new one;
3. an inode whose name a rename gave to another file is freed only when the device has that name;
4. a block or an inode is used again only when nothing on the device points to it any more.

Counts and bitmaps need no order: e2fsck counts for itself.

The means: an inode is copied into its block (`_pack`) by a commit only, when what it points to is
there; a pointer in a table to a fresh block is kept aside (`links`) until then; a moved name
stays where it was, hidden (`Ghost`); what was freed is marked free after a commit (`freed`).
All other buffers may be written at any time, by anybody.

A change is tagged with the epoch in which it is made. A commit ends the epoch and writes
what it is asked for up to then:

    fresh blocks | flush | pointers to them, inodes, all other blocks | flush | freeing

(the first half only if there are fresh ones). Who wants fsync of a node commits the node, the
directories that have its new names, theirs up to one that the device knows, and the inodes
that a directory's new entries name. One commit runs at a time; who comes meanwhile shares the
next one.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import ParkingLot

from ...native.constants import Vtype
from ...native.errors import VfsError
from ..bio import bdwrite, brelse
from ..sched import Mutex
from .alloc import Allocator
from .dirblock import remove
from .inode import encode_inode
from .node import Ghost, Inodedep, Node
from .volume import Volume

if TYPE_CHECKING:
    from ..vnode import Vnode

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


class Order:
    """What of a mounted file system waits to be written, and the commits that write it.

    `active` are the nodes with something to be written, by number. `free_node` frees all blocks of
    an orphan; the file system sets it. Nothing here is called with a buffer in hand.
    """

    def __init__(self, volume: Volume, alloc: Allocator) -> None:
        self.volume = volume
        self.alloc = alloc
        self.active: dict[int, Node] = {}
        self.root: Vnode | None = None
        """The root's vnode, which is modified while anything is active: so the kernel knows it."""
        self.epoch = 1
        self.commits = 0
        self.free_node: Callable[[Node], Awaitable[None]]
        self._ghosts: dict[Ghost, None] = {}
        self._orphans: dict[Node, None] = {}
        self._mutex = Mutex("ext2fs commit")
        self._wishes: list[_Wish] = []
        self._wakeup = ParkingLot()

    # Noting changes. None of this waits.

    def dep(self, node: Node) -> Inodedep:
        """Return what orders the writing of `node`, new if there was nothing to be written."""
        dep = node.dep
        if dep is None:
            dep = node.dep = Inodedep()
            self.active[node.ino] = node
            if len(self.active) == 1:
                if self.root is not None:
                    self.root.is_modified = True
                self._wakeup.unpark_all()
        return dep

    def changed(self, node: Node, *, data: bool = False) -> None:
        """Note that the inode has changed; `data`: so that fdatasync must write it."""
        dep = node.dep or self.dep(node)
        dep.changed = self.epoch
        if data:
            dep.changed_data = self.epoch

    def wrote(self, node: Node, block: int) -> None:
        """Note that a table or directory block of `node` has changed in its buffer."""
        (node.dep or self.dep(node)).blocks[block] = self.epoch

    def fresh(self, node: Node, block: int, link: tuple[int, int] | None) -> None:
        """Note a new table or directory block of `node`, whose contents are in its buffer.

        `link` is the table and the index there that shall point to it; None: the inode does.
        """
        dep = self.dep(node)
        dep.blocks[block] = self.epoch
        dep.fresh.add(block)
        if link is not None:
            dep.links[link] = block

    def named(self, node: Node, dir: Node) -> None:
        """Note that an entry of `dir` has got `node` as its inode, or has lost it to another."""
        self.dep(node).names[dir] = self.epoch
        self.dep(dir).entries[node] = self.epoch

    def entered(self, node: Node, dir: Node, name: bytes) -> None:
        """Note that `node` has got a name in `dir` where there was none."""
        self.named(node, dir)
        self.dep(dir).new_names[name] = self.epoch

    def replaced(self, node: Node, dir: Node) -> None:
        """Note that a name of `node` in `dir` is another node's now, by a rename."""
        self.named(node, dir)
        self.dep(node).was_replaced = True

    def is_new_name(self, dir: Node, name: bytes) -> bool:
        """Whether the device need not have the name yet: nothing was promised of it."""
        return dir.dep is not None and name in dir.dep.new_names

    def free(self, node: Node, first: int, count: int) -> None:
        """Note that `node` points to `count` blocks from `first` on no more."""
        self.dep(node).freed.append((self.epoch, first, count))
        self.alloc.pending += count

    def haunt(self, dir: Node, block: int, pos: int, name: bytes, node: Node, target: Node) -> None:
        """Leave the name that `node` had in `dir`, at `pos` of `block`, until `target` is safe."""
        ghost = Ghost(dir, block, pos, name, node, target, self.epoch)
        self.dep(dir).ghosts[name] = ghost
        self._ghosts[ghost] = None

    def exorcise(self, ghost: Ghost) -> None:
        """Forget a ghost; what stands there is true again, or was taken away."""
        del self._ghosts[ghost]
        dep = self.dep(ghost.dir)
        del dep.ghosts[ghost.name]

    def orphaned(self, node: Node) -> None:
        """Hear that a node without names has lost its vnode: nobody will see it again."""
        dep = self.dep(node)
        dep.is_orphan = True
        self._orphans[node] = None
        self.alloc.pending_inodes += 1
        self.alloc.pending += self._blocks_of(node)

    def _blocks_of(self, node: Node) -> int:
        return node.sectors * 512 // self.volume.block_size

    @property
    def has_freed(self) -> bool:
        """Whether a sync would make blocks or inodes free."""
        return self.alloc.pending > 0 or self.alloc.pending_inodes > 0

    def wake(self) -> None:
        """Let `wait_active` return although nothing is active: the super block has changed."""
        self._wakeup.unpark_all()

    async def wait_active(self) -> None:
        """Return when there is something to be written."""
        if not self.active:
            await self._wakeup.park()

    # Commits.

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

    def _retire(self, node: Node) -> None:
        """Take a node from the active ones if nothing of it waits any more."""
        if node.dep is not None and node.dep.is_empty:
            node.dep = None
            del self.active[node.ino]
            if self.root is not None:
                self.root.is_modified = bool(self.active)

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
