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

A change is tagged with the epoch in which it is made; a commit (`commit`) ends the epoch and
writes what it is asked for up to then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from trio.lowlevel import ParkingLot

from .alloc import Allocator
from .node import Ghost, Inodedep, Node
from .volume import Volume

if TYPE_CHECKING:
    from ..vnode import Vnode

ACTIVE_MAX: Final = 4096
"""So many nodes that wait to be written wait no longer."""


class Deps:
    """What of a mounted file system waits to be written. Nothing here waits, but `wait_active`.

    `active` are the nodes with something to be written, by number; `on_crowd` is called when they
    become too many. `free_node` frees all blocks of an orphan. Both are for the file system to
    set.
    """

    def __init__(self, volume: Volume, alloc: Allocator) -> None:
        self.volume = volume
        self.alloc = alloc
        self.active: dict[int, Node] = {}
        self.root: Vnode | None = None
        """The root's vnode, which is modified while anything is active: so the kernel knows it."""
        self.epoch = 1
        self.free_node: Callable[[Node], Awaitable[None]]
        self.on_crowd: Callable[[], None] = lambda: None
        self._ghosts: dict[Ghost, None] = {}
        self._orphans: dict[Node, None] = {}
        self._wakeup = ParkingLot()

    def dep(self, node: Node) -> Inodedep:
        """Return what orders the writing of `node`, new if there was nothing to be written."""
        dep = node.dep
        if dep is None:
            dep = node.dep = Inodedep()
            self.active[node.ino] = node
            if len(self.active) == ACTIVE_MAX:
                self.on_crowd()
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

    @property
    def is_crowded(self) -> bool:
        """Whether too many nodes are active."""
        return len(self.active) >= ACTIVE_MAX

    def wake(self) -> None:
        """Let `wait_active` return although nothing is active: the super block has changed."""
        self._wakeup.unpark_all()

    async def wait_active(self) -> None:
        """Return when there is something to be written."""
        if not self.active:
            await self._wakeup.park()

    def _retire(self, node: Node) -> None:
        """Take a node from the active ones if nothing of it waits any more."""
        if node.dep is not None and node.dep.is_empty:
            node.dep = None
            del self.active[node.ino]
            if self.root is not None:
                self.root.is_modified = bool(self.active)
