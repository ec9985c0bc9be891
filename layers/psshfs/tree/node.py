"""Nodes: what the cookies that we give out stand for.

A node is one file or directory of the server, known by a name in a directory
(SFTP has no other way to speak of a file) and kept while the kernel above has
lookups on it, or, for a directory, while nodes below it live: their paths go
through it. A hard link made through us gives a node one more name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ....native.constants import Vtype
from ....native.records import Cookie, Vattr

if TYPE_CHECKING:
    from ..data.openfile import OpenFile
    from .listing import Listing

TARGET_MAX: Final = 4095
"""Longest target of a symbolic link, octets."""
CHECKED_NEVER: Final = 1 << 62
MISSING_MAX: Final = 256
"""Names that are remembered as missing in one directory."""


class Node:
    """One node.

    `va` is what was last learnt of it, with own changes applied, and holds until `expiry`
    (monotonic ns). `changed_at` is the table's change count after our last change to it: an
    answer to a question asked before that is no news. `parent` is None for the root and for a
    node whose last name is gone (`is_gone`).

    A file of which nothing was asked yet has none, only an entry in a listing. What only
    directories have is in `DirectoryNode`, and None here.
    """

    __slots__ = (
        "changed_at",
        "checked_at",
        "cookie",
        "expiry",
        "file",
        "is_modified",
        "known_data",
        "name",
        "name_expiry",
        "nlookup",
        "parent",
        "target",
        "va",
        "vtype",
    )

    children: dict[bytes, Node] | None = None
    told = 0
    listing: Listing | None = None
    missing: dict[bytes, int] | None = None
    prefix = b""
    prefix_age = -1

    def __init__(
        self, cookie: Cookie, parent: DirectoryNode | None, name: bytes, va: Vattr
    ) -> None:
        self.cookie = cookie
        self.parent = parent
        self.name = name
        self.va = va
        self.vtype: int = Vtype.VNON if va.vtype is None else va.vtype
        self.expiry = 0
        self.name_expiry = 0
        """Until when the name is believed to lead here, monotonic ns."""
        self.changed_at = 0
        self.checked_at = -CHECKED_NEVER
        """When the server last told its attributes, monotonic ns."""
        self.nlookup = 0
        self.is_modified = False
        """We changed its data since `va` was learnt, so that a new mtime is no surprise."""
        self.file: OpenFile | None = None
        self.target: tuple[bytes, int] | None = None
        """What a symbolic link holds, and until when that is believed, monotonic ns."""
        self.known_data: tuple[int, int, int] | None = None
        """Size, mtime and wall-clock ns at which the host's pages of the node were right."""

    @property
    def fileid(self) -> int:
        """Its number, the same for good."""
        return self.va.fileid or 0

    @property
    def nlink(self) -> int:
        """Its links as far as is known, 0 when the last one was removed."""
        return self.va.nlink or 0

    @property
    def is_gone(self) -> bool:
        """Whether its last name is gone. The root alone has an empty name, and stays."""
        return self.parent is None and self.name != b""

    def add_links(self, by: int) -> None:
        """Note that it has `by` more links."""
        self.va = self.va._replace(nlink=self.nlink + by)

    def __repr__(self) -> str:
        return f"<Node {self.cookie} {self.name!r}{' gone' if self.is_gone else ''}>"


class DirectoryNode(Node):
    """The node of a directory. `told` counts the entries of its listing on which the kernel above
    has lookups, and which have no nodes (`children`) yet. `missing` has names that it does not
    have, and until when that is believed (monotonic ns). `prefix` is the path as the table has
    made it, which holds while no directory has moved since `prefix_age`.
    """

    __slots__ = ("children", "listing", "missing", "prefix", "prefix_age", "told")

    def __init__(
        self, cookie: Cookie, parent: DirectoryNode | None, name: bytes, va: Vattr
    ) -> None:
        super().__init__(cookie, parent, name, va)
        self.children = {}
        self.told = 0
        self.listing = None
        self.missing = None
        self.prefix = b""
        self.prefix_age = -1

    def note_missing(self, name: bytes, expiry: int) -> None:
        """Note that there is no such name."""
        if self.missing is None or len(self.missing) >= MISSING_MAX:
            self.missing = {}
        self.missing[name] = expiry
