"""Nodes: what the cookies stand for that are given out."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EINVAL, EISDIR, ENOTDIR, ESTALE
from typing import TYPE_CHECKING, NewType

from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import Cookie

if TYPE_CHECKING:
    from .openfile import OpenFile

Key = NewType("Key", tuple[int, int])
"""Device and inode: which file of the host a node is."""


def key_of(st: os.stat_result) -> Key:
    """Return which file it is."""
    return Key((st.st_dev, st.st_ino))


class Node:
    """One node. It lives while it has lookups, or nodes whose place is in it.

    `parent` and `name` are its place; without a parent it has none that is known: it is the root,
    or we removed its name (`is_removed`), or others have taken it elsewhere. `fd` is a path
    descriptor, -1 for none; it belongs to `Places`.
    """

    __slots__ = (
        "below",
        "checked",
        "cookie",
        "fd",
        "file",
        "is_removed",
        "key",
        "name",
        "nlookup",
        "parent",
        "vtype",
    )

    def __init__(self, cookie: Cookie, key: Key, vtype: int) -> None:
        self.cookie = cookie
        self.key = key
        self.vtype = vtype
        self.nlookup = 0
        self.below = 0
        """How many nodes have their place in it."""
        self.parent: Node | None = None
        self.name = b""
        self.is_removed = False
        self.fd = -1
        self.checked = 0
        """When a directory was last seen at its place, monotonic ns."""
        self.file: OpenFile | None = None

    def __repr__(self) -> str:
        return f"<Node {self.cookie} {self.name!r} {self.key}>"


class NodeTable:
    """All nodes of a tree. No method waits. `drop` is told of each node that has gone."""

    def __init__(self, root: Key, drop: Callable[[Node], None]) -> None:
        self._serial = 1
        self._drop = drop
        self.root = Node(Cookie(1), root, Vtype.VDIR)
        self.nodes: dict[int, Node] = {1: self.root}
        self._by_key: dict[Key, Node] = {root: self.root}

    def node(self, cookie: int) -> Node:
        """Return the node of a cookie. Errors: ESTALE for one that was never given or is dead."""
        try:
            return self.nodes[cookie]
        except KeyError:
            raise VfsError(ESTALE, f"no node has the cookie {cookie}") from None

    def directory(self, cookie: int) -> Node:
        """Return the directory of a cookie. Errors: ESTALE; ENOTDIR."""
        node = self.node(cookie)
        if node.vtype != Vtype.VDIR:
            raise VfsError(ENOTDIR)
        return node

    def regular(self, cookie: int) -> Node:
        """Return the file of a cookie. Errors: ESTALE; EISDIR; EINVAL for other types."""
        node = self.node(cookie)
        if node.vtype != Vtype.VREG:
            raise VfsError(EISDIR if node.vtype == Vtype.VDIR else EINVAL)
        return node

    def found(
        self, parent: Node, name: bytes, key: Key, vtype: int, *, is_new: bool = False
    ) -> Node:
        """Return the node of a file that was seen at a place, old or new, with one more lookup.

        `is_new` says that it was made just now.
        """
        node = self._by_key.get(key)
        if node is None or is_new or node.vtype != vtype:
            # New, or of another type: the inode was freed behind our back before this.
            self._serial += 1
            node = Node(Cookie(self._serial), key, vtype)
            self.nodes[self._serial] = self._by_key[key] = node
        node.nlookup += 1
        if node is not self.root:
            self.put(node, parent, name)
        return node

    def put(self, node: Node, parent: Node, name: bytes) -> None:
        """Note where a node that has lookups is."""
        if node.parent is parent:
            node.name = name
            return
        if node.vtype == Vtype.VDIR:
            # Others move directories, and we hear of it one by one: what is known of the way up
            # may lead through the node itself. That piece of it is old news.
            at = parent
            while at.parent is not None:
                if at is node or at.parent is node:
                    self.displace(at)
                    break
                at = at.parent
        parent.below += 1
        self.displace(node)
        node.parent, node.name = parent, name
        node.is_removed = False

    def displace(self, node: Node) -> None:
        """Note that the place of a node is not known."""
        parent = node.parent
        if parent is not None:
            node.parent, node.name = None, b""
            parent.below -= 1
            self._sweep(parent)

    def gone(self, node: Node) -> None:
        """Note that a file has no name left: its inode may become another's."""
        if self._by_key.get(node.key) is node:
            del self._by_key[node.key]

    def forget(self, node: Node, nlookup: int) -> None:
        """Take lookups back."""
        node.nlookup = max(0, node.nlookup - nlookup)
        self._sweep(node)

    def _sweep(self, node: Node) -> None:
        """Remove a node that nothing needs any more; its parent may be the next."""
        at: Node | None = node
        while at is not None and not at.nlookup and not at.below and at is not self.root:
            parent, at.parent = at.parent, None
            self.gone(at)
            if self.nodes.pop(at.cookie, None) is not None:
                self._drop(at)
            if parent is not None:
                parent.below -= 1
            at = parent
