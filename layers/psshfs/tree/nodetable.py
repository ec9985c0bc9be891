"""The table of all nodes of a mount: which cookie, name and path stand for which node.

What was told to the kernel above from a listing alone has no node yet; it is made here when
something is asked of it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ....native.constants import Vtype
from ....native.errors import VfsError
from ....native.records import Cookie, Vattr
from ....native.sftp_listing import name_numbers
from .node import DirectoryNode, Node

if TYPE_CHECKING:
    from .listing import Entry, Listings

ROOT_FILEID: Final = 1
FIRST_COOKIE: Final = 1 << 60
"""Cookies from here on are no file ids, which have 60 bits."""
PATH_LEN_MAX: Final = 4095
"""Longest path that a POSIX server takes, octets (PATH_MAX without its NUL)."""


class NodeTable:
    """All nodes of a mount: cookies, names and paths, and which change was the last one.

    Nothing here waits, so each method is atomic for the tasks that use it.
    """

    def __init__(
        self,
        root_path: bytes,
        root_va: Vattr,
        listings: Listings,
        node_of: Callable[[Entry], Node],
    ) -> None:
        """`node_of` makes the node of an entry, with what the listing knows and no lookups."""
        self.listings = listings
        self._node_of = node_of
        self._root_path = root_path
        self._cookie = FIRST_COOKIE
        self._displaced: set[int] = set()
        """File ids of living nodes that have left the name which their id was made of."""
        self._aliases: dict[Node, list[tuple[DirectoryNode, bytes]]] = {}
        """Further names of nodes that hard links of ours have given several."""
        self.moves = 0
        """Counts what may have changed the path of a node by changing that of a directory."""
        self.changes = 0
        """Counts our changes to anything; see `Node.changed_at`."""
        self.root = DirectoryNode(Cookie(1), None, b"", root_va)
        self.nodes: dict[int, Node] = {1: self.root}
        self.told: dict[int, Entry] = {}
        """The entries on which the kernel above has lookups, by cookie: their file ids."""

    # Names.

    def node(self, cookie: int) -> Node:
        """Return the node of a cookie. Errors: ESTALE for one that was never given or is dead."""
        node = self.nodes.get(cookie)
        if node is None:
            entry = self.told.get(cookie)
            if entry is None:
                raise VfsError(errno.ESTALE, f"no node has the cookie {cookie}")
            node = self.promote(entry)
        return node

    def child(self, directory: DirectoryNode, name: bytes) -> Node | None:
        """Return the node of a name in a directory, None when the kernel above knows none."""
        assert directory.children is not None
        node = directory.children.get(name)
        if node is None and directory.told and directory.listing is not None:
            entry = directory.listing.entries.get(name)
            if entry is not None and entry.nlookup:
                return self.promote(entry)
        return node

    def promote(self, entry: Entry) -> Node:
        """Return the node of an entry that the kernel above was told: it is made now."""
        directory = entry.directory
        nlookup, entry.nlookup = entry.nlookup, 0
        del self.told[entry.fileid]
        directory.told -= 1
        node = self._node_of(entry)
        node.nlookup = nlookup
        return node

    def tell(self, entry: Entry) -> bool:
        """Count a lookup on an entry that has no node; return False where it needs one: there is
        another with its number."""
        if not entry.nlookup:
            if entry.fileid in self.nodes or entry.fileid in self.told:
                return False
            self.told[entry.fileid] = entry
            entry.directory.told += 1
        entry.nlookup += 1
        return True

    def directory(self, cookie: int) -> DirectoryNode:
        """Return the directory of a cookie. Errors: ESTALE; ENOTDIR; ENOENT when it is removed."""
        node = self.nodes.get(cookie)
        if node is None and cookie not in self.told:
            raise VfsError(errno.ESTALE, f"no node has the cookie {cookie}")
        if not isinstance(node, DirectoryNode):
            raise VfsError(errno.ENOTDIR)
        if node.is_gone:
            raise VfsError(errno.ENOENT, "the directory is removed")
        return node

    def path(self, node: Node) -> bytes:
        """Return the path at the server. Errors: ENAMETOOLONG; ESTALE when no name is left."""
        path = self._prefix(node) or b"/"
        if len(path) > PATH_LEN_MAX:
            raise VfsError(errno.ENAMETOOLONG)
        return path

    def path_of(self, directory: DirectoryNode, name: bytes) -> bytes:
        """Return the path of `name` in `directory`. Errors: ENAMETOOLONG, ESTALE."""
        path = b"%b/%b" % (self._prefix(directory), name)
        if len(path) > PATH_LEN_MAX or len(name) > 255:
            raise VfsError(errno.ENAMETOOLONG)
        return path

    def _prefix(self, node: Node) -> bytes:
        if node.prefix_age == self.moves:
            return node.prefix
        parent = node.parent
        if parent is None:
            if node is not self.root:
                raise VfsError(errno.ESTALE, "the last name of the node is gone")
            path = self._root_path
        else:
            path = b"%b/%b" % (self._prefix(parent), node.name)
        if isinstance(node, DirectoryNode):
            # Directories alone keep their paths: files come and go, and are many.
            node.prefix = path
            node.prefix_age = self.moves
        return path

    def is_ancestor(self, node: Node, below: Node) -> bool:
        """Tell whether `below` is `node` or lies under it."""
        at: Node | None = below
        while at is not None:
            if at is node:
                return True
            at = at.parent
        return False

    # Making, naming and forgetting.

    def fileid_at(self, directory: DirectoryNode, name: bytes) -> int:
        """Return the file id for what is seen as `name` in `directory` for the first time.

        The same at the next mount, for it is made of the path alone: 60 bits of a hash of the
        directory's file id and the name. (Two digits of Python's integers: with a third one each
        id takes 16 octets more.) A node keeps its id when it moves; while it lives, what comes
        after it under its old name gets the next number of a series. Where two names have the
        same id by chance the host's end tells them apart all the same.
        """
        (fileid,) = name_numbers(directory.fileid, (name,))
        serial = 0
        while fileid <= ROOT_FILEID or fileid in self._displaced:
            serial += 1
            (fileid,) = name_numbers(directory.fileid, (b"%b/%d" % (name, serial),))
        return fileid

    def fileids_of(self, directory: DirectoryNode, names: Sequence[bytes]) -> Sequence[int]:
        """Return the file ids of names that a listing of a directory has brought: of those that
        have nodes theirs, of others as `fileid_at` does."""
        fileids = name_numbers(directory.fileid, names)
        children, displaced = directory.children, self._displaced
        if children or not displaced.isdisjoint(fileids) or min(fileids, default=2) < 2:
            nodes = [(children or {}).get(name) for name in names]
            fileids = [
                self.fileid_at(directory, name) if node is None else node.fileid
                for node, name in zip(nodes, names, strict=True)
            ]
        return fileids

    def is_displaced(self, fileid: int) -> bool:
        """Tell whether an id belongs to a living node that has left its first name."""
        return fileid in self._displaced

    def make(self, directory: DirectoryNode, name: bytes, va: Vattr) -> Node:
        """Make a node for `name` in `directory`, which has none yet; its fileid is `va.fileid`."""
        assert va.fileid is not None
        # The number that the name gives is a good cookie: one integer less for each file, and the
        # host's end finds the node by either. By chance it may be a living node's already.
        cookie = va.fileid
        if cookie in self.nodes or cookie in self.told:
            self._cookie += 1
            cookie = self._cookie
        kind = DirectoryNode if va.vtype == Vtype.VDIR else Node
        node = kind(Cookie(cookie), directory, name, va)
        self._enter(node, directory, name)
        self.nodes[cookie] = node
        return node

    def _enter(self, node: Node, directory: DirectoryNode, name: bytes) -> None:
        assert directory.children is not None
        directory.children[name] = node
        if directory.missing is not None:
            directory.missing.pop(name, None)

    def changed(self, node: Node) -> None:
        """Note a change of ours to `node`; answers under way are old news from here on."""
        self.changes += 1
        node.changed_at = self.changes

    def add_name(self, node: Node, directory: DirectoryNode, name: bytes) -> None:
        """Give `node` one more name."""
        self._enter(node, directory, name)
        if node.parent is None:
            node.parent, node.name = directory, name
        else:
            self._aliases.setdefault(node, []).append((directory, name))

    def drop_name(self, directory: DirectoryNode, name: bytes) -> Node | None:
        """Take a name away, here only; return the node that had it, None for no known node.

        A node without a name left is gone: only open SFTP handles reach it.
        """
        node = self.child(directory, name)
        if node is None:
            return None
        assert directory.children is not None
        del directory.children[name]
        self.moves += node.children is not None
        if node.parent is directory and node.name == name:
            self._displaced.add(node.fileid)
            aliases = self._aliases.get(node)
            if aliases:
                node.parent, node.name = aliases.pop()
            else:
                node.parent = None
                node.expiry = 0
        elif node in self._aliases:
            self._aliases[node].remove((directory, name))
        self.changed(node)
        if node.parent is None and node.nlookup == 0:
            self._release(node)
        self._let_go(directory)
        return node

    def move(
        self,
        node: Node,
        source: DirectoryNode,
        source_name: bytes,
        target: DirectoryNode,
        target_name: bytes,
    ) -> None:
        """Move a name of `node`, replacing what has the other one; paths below follow.

        A listing that came meanwhile may have taken the old name away already.
        """
        if source is target and source_name == target_name:
            return
        assert source.children is not None
        assert target.children is not None
        self.drop_name(target, target_name)
        self.moves += 1
        if source.children.get(source_name) is not node:
            self.drop_name(source, source_name)
            self.add_name(node, target, target_name)
            self.changed(node)
            return
        del source.children[source_name]
        if node.parent is source and node.name == source_name:
            self._displaced.add(node.fileid)
            node.parent, node.name = target, target_name
        elif node in self._aliases:
            self._aliases[node].remove((source, source_name))
            self._aliases[node].append((target, target_name))
        self._enter(node, target, target_name)
        self.changed(node)
        self._let_go(source)

    def forget(self, cookie: int, nlookup: int) -> None:
        """Take back lookups; with the last one the cookie is dead. None for one that is dead."""
        entry = self.told.get(cookie)
        if entry is not None:
            entry.nlookup -= nlookup
            if entry.nlookup <= 0:
                entry.nlookup = 0
                del self.told[cookie]
                entry.directory.told -= 1
                self._let_go(entry.directory)
            return
        node = self.nodes.get(cookie)
        if node is None:
            return
        node.nlookup -= nlookup
        if node.nlookup > 0 or node is self.root:
            node.nlookup = max(0, node.nlookup)
        elif not node.children and not node.told:
            self._free(node)
        # Else its children's paths need it; it goes with the last of them.

    def _free(self, node: Node) -> None:
        parent = node.parent
        for directory, name in self._aliases.get(node, ()):
            self._unname(node, directory, name)
        if parent is not None:
            self._unname(node, parent, node.name)
        self._release(node)

    def _unname(self, node: Node, directory: DirectoryNode, name: bytes) -> None:
        children = directory.children
        if children is not None and children.get(name) is node:
            del children[name]
            listing = directory.listing
            if listing is not None:
                listing.node_left(name, node)
                if node.fileid in self._displaced:
                    # Free with the node: the name must not keep what another may get.
                    listing.set_fileid(name, self.fileid_at(directory, name))
            self._let_go(directory)

    def _release(self, node: Node) -> None:
        if self.nodes.get(node.cookie) is not node:
            return  # a directory that others removed, once more with the last node below it
        del self.nodes[node.cookie]
        self._displaced.discard(node.fileid)
        self._aliases.pop(node, None)
        if isinstance(node, DirectoryNode):
            self.listings.leave(node)
        if node.file is not None:
            node.file.dispose()
            node.file = None

    def _let_go(self, directory: DirectoryNode) -> None:
        """Free a directory that stayed for its children only, when the last has gone."""
        if directory.nlookup or directory.children or directory.told or directory is self.root:
            return
        self._free(directory)
