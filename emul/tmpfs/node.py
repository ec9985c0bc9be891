"""The nodes of a tmpfs: what is kept while no vnode is in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Final

from ...native.constants import Vtype
from ..uvm import UvmAobj

DOT: Final = 1
"""Directory offset after "."."""
DOTDOT: Final = 2
"""Directory offset after ".."; those of entries are larger."""


class Node:
    """A node of any type; this class itself serves devices, fifos and sockets.

    `mode` is the permission part. Times are ns. `nlink` 0: no name is left, and the node goes
    when its vnode is reclaimed.
    """

    __slots__ = (
        "atime",
        "birthtime",
        "ctime",
        "gid",
        "mode",
        "mtime",
        "nlink",
        "number",
        "rdev",
        "uid",
        "vtype",
    )

    def __init__(
        self, number: int, vtype: int, mode: int, uid: int, gid: int, now: int, rdev: int = 0
    ) -> None:
        self.number = number
        self.vtype = vtype
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.nlink = 1
        self.atime = self.mtime = self.ctime = self.birthtime = now

    @property
    def size(self) -> int:
        """Size, octets."""
        return 0

    @property
    def allocated(self) -> int:
        """Space taken, octets."""
        return 0


class RegularFile(Node):
    """A regular file.

    `creator` may open it once, whatever the mode says: `open(O_CREAT | O_RDWR, 0444)` arrives as
    create and open. `writers` counts who has it open for writing. `uobj` has the data; a vnode of
    the file points to it.
    """

    __slots__ = ("creator", "length", "uobj", "writers")

    def __init__(
        self, number: int, vtype: int, mode: int, uid: int, gid: int, now: int, rdev: int = 0
    ) -> None:
        super().__init__(number, vtype, mode, uid, gid, now)
        self.uobj = UvmAobj()
        self.length = 0
        self.creator: int | None = None
        self.writers = 0

    @property
    def size(self) -> int:
        """Size, octets."""
        return self.length

    @property
    def allocated(self) -> int:
        """Space taken, octets."""
        return self.uobj.allocated


class SymbolicLink(Node):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, number: int, uid: int, gid: int, now: int, target: bytes) -> None:
        super().__init__(number, Vtype.VLNK, 0o777, uid, gid, now)
        self.target = target

    @property
    def size(self) -> int:
        """Length of the target, octets."""
        return len(self.target)


class Name:
    """One entry of a directory: `node` is None once it was removed.

    `serial` grows with each entry that the directory ever got and is its readdir offset.
    """

    __slots__ = ("name", "node", "serial")

    def __init__(self, name: bytes, node: Node, serial: int) -> None:
        self.name = name
        self.node: Node | None = node
        self.serial = serial


class Directory(Node):
    """A directory. `parent` is itself for the root; `nlink` 0 says that it was removed."""

    __slots__ = ("_names", "_order", "_serial", "parent")

    def __init__(
        self,
        number: int,
        mode: int,
        uid: int,
        gid: int,
        now: int,
        parent: Directory | None,
    ) -> None:
        super().__init__(number, Vtype.VDIR, mode, uid, gid, now)
        self.nlink = 2
        self.parent = parent if parent is not None else self
        self._names: dict[bytes, Name] = {}
        # All entries by serial, removed ones among them until they are too many: where a
        # reader goes on is found by bisection, and never moves under him.
        self._order: list[Name] = []
        self._serial = DOTDOT

    def __len__(self) -> int:
        return len(self._names)

    @property
    def size(self) -> int:
        """A size for people, octets: as Linux' tmpfs shows it, 20 for each entry."""
        return 20 * (2 + len(self._names))

    def get(self, name: bytes) -> Node | None:
        """Return the node called `name`, or None."""
        entry = self._names.get(name)
        return entry.node if entry is not None else None

    def add(self, name: bytes, node: Node) -> None:
        """Enter `name`, which is not there."""
        self._serial += 1
        entry = self._names[name] = Name(name, node, self._serial)
        self._order.append(entry)

    def discard(self, name: bytes) -> None:
        """Remove `name`, which is there."""
        self._names.pop(name).node = None
        if len(self._order) > 2 * len(self._names) + 32:
            self._order = [entry for entry in self._order if entry.node is not None]

    def names_after(self, offset: int) -> Iterator[Name]:
        """Return the entries behind `offset`, oldest first."""
        order = self._order
        start = bisect_right(order, offset, key=_serial_of) if offset > DOTDOT else 0
        return (entry for entry in islice(order, start, None) if entry.node is not None)

    def is_below(self, other: Directory) -> bool:
        """Whether this is `other` or lies somewhere in it."""
        here = self
        while here is not other:
            if here.parent is here:
                return False
            here = here.parent
        return True


def _serial_of(entry: Name) -> int:
    return entry.serial
