"""What one session has of an export: who asks, what is its root, and how new things are made."""

from __future__ import annotations

from errno import ENOTDIR

from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import Cred, Vattr
from .attributes import Longnames
from .export import Export
from .handles import HANDLES_MAX, Handles
from .identities import Identities
from .nodes import Node
from .paths import FOLLOW, Found, Paths


class View:
    """The tree as one session sees it, and its open handles.

    `root` is pinned by whoever made this. `start` is the directory in which relative paths
    begin, canonical in the root; it need not exist. `user` is who logged in, for "~" and for
    home-directory: the start is their home.
    """

    def __init__(
        self,
        export: Export,
        cred: Cred,
        *,
        root: Node | None = None,
        start: bytes = b"",
        umask: int = 0o022,
        user: bytes = b"",
        handles_max: int = HANDLES_MAX,
        identities: Identities | None = None,
    ) -> None:
        self.export = export
        self.server = export.server
        self.nodes = export.nodes
        self.cred = cred
        self.root = export.nodes.root if root is None else root
        self.umask = umask
        self.user = user
        self.paths = Paths(export, cred, self.root, start)
        self.handles = Handles(handles_max)
        self.identities = Identities() if identities is None else identities
        self.longnames = Longnames(self.identities)

    async def start_in(self, path: bytes) -> None:
        """Let relative paths begin in a directory. Errors: those of the walk; ENOTDIR."""
        with await self.paths.find(path, None, FOLLOW) as found:
            if found.there().vtype != Vtype.VDIR:
                raise VfsError(ENOTDIR)
            self.paths.start = b"" if found.path == b"/" else found.path

    async def attributes(self, found: Found) -> Vattr:
        """Return the attributes of what was found. Errors: as `Found.there`, and getattr's."""
        node = found.there()
        info = found.info
        if info is not None and info.va is not None:
            return info.va
        va, _ = await self.server.getattr(node.cookie, self.cred)
        return va

    async def node_attributes(self, node: Node) -> Vattr:
        """Return the attributes of a pinned node."""
        va, _ = await self.server.getattr(node.cookie, self.cred)
        return va
