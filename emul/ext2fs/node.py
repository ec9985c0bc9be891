"""Node: an inode in memory, and what about it is not on the device yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .inode import Dinode

if TYPE_CHECKING:
    from ..vnode import Vnode
    from .dirhash import Dirhash


class Node(Dinode):
    """An inode. It lives while it has a vnode, or while something of it waits to be written.

    `vp` is its vnode, None while it has none. `parent` is the number that ".." of a directory
    names, 0 for not known; `dirhash` is what is known of its entries. `creator` and `writers`: see
    `OpenNode`. `goal` is the block that the next one should follow, 0 for anywhere.
    `dep` is what orders its writing (`deps`), None while the device knows all.
    """

    __slots__ = (
        "creator",
        "dep",
        "dirhash",
        "goal",
        "ino",
        "parent",
        "vp",
        "writers",
    )

    def __init__(
        self,
        ino: int,
        vtype: int,
        mode: int,
        uid: int,
        gid: int,
        now: int,
        inode_size: int,
    ) -> None:
        super().__init__(vtype, mode, uid, gid, now, inode_size)
        self.attach(ino)

    def attach(self, ino: int) -> None:
        """Begin as inode `ino` in memory."""
        self.ino = ino
        self.vp: Vnode | None = None
        self.parent = 0
        self.dirhash: Dirhash | None = None
        self.creator: int | None = None
        self.writers = 0
        self.goal = 0
        self.dep: Inodedep | None = None

    def __repr__(self) -> str:
        return f"<Node {self.ino} vtype={self.vtype} nlink={self.nlink} size={self.size}>"


class Ghost:
    """A name that was moved away but still stands in its directory on purpose; see `deps`.

    `node` has the name `name` in `dir` no more, but at octet `pos` of `block` it still says so. It
    goes when `target`, which has the new name, is on the device with all that it was told up to
    `epoch`.
    """

    __slots__ = ("block", "dir", "epoch", "name", "node", "pos", "target")

    def __init__(
        self, dir: Node, block: int, pos: int, name: bytes, node: Node, target: Node, epoch: int
    ) -> None:
        self.dir = dir
        self.block = block
        self.pos = pos
        self.name = name
        self.node = node
        self.target = target
        self.epoch = epoch


class Inodedep:
    """What of a node the device does not know. Everything is tagged with an epoch, see `deps`.

    `changed` is when the inode changed last, `changed_data` when it changed in a way that
    fdatasync cares for; 0 for not. `is_new`: its place in the inode table is somebody's old one.
    `blocks` are its tables and directory blocks, by number, that were changed.
    `fresh` are those among them of which the device has not seen any contents, and `links` what
    points to them where that is no inode: (table, index) -> block.
    `names` are directories in which names of this node were entered or replaced; `entries` are
    the nodes of which this directory is told the same, `new_names` the names that were entered.
    `was_replaced`: a rename put something else
    in its place. `ghosts` are a directory's, by their names.
    `freed` are runs of blocks that were its own: (epoch, first, count).
    `is_orphan`: nameless and without a vnode, all of it is to be freed; `is_gone`: that was done.
    """

    __slots__ = (
        "blocks",
        "changed",
        "changed_data",
        "entries",
        "freed",
        "fresh",
        "ghosts",
        "is_gone",
        "is_new",
        "is_orphan",
        "links",
        "names",
        "new_names",
        "was_replaced",
    )

    def __init__(self) -> None:
        self.changed = 0
        self.changed_data = 0
        self.is_new = False
        self.blocks: dict[int, int] = {}
        self.fresh: set[int] = set()
        self.links: dict[tuple[int, int], int] = {}
        self.names: dict[Node, int] = {}
        self.entries: dict[Node, int] = {}
        self.new_names: dict[bytes, int] = {}
        self.was_replaced = False
        self.ghosts: dict[bytes, Ghost] = {}
        self.freed: list[tuple[int, int, int]] = []
        self.is_orphan = False
        self.is_gone = False

    @property
    def is_empty(self) -> bool:
        """Whether the device knows everything."""
        return not (
            self.changed
            or self.blocks
            or self.fresh
            or self.links
            or self.names
            or self.entries
            or self.new_names
            or self.ghosts
            or self.freed
            or self.is_orphan
        )
