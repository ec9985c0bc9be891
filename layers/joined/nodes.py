"""Whose node a cookie means.

A cookie of ours stands for a cookie of one tree, with as many lookups as the tree has handed out
by way of us. Roots of trees have one for ever, for no root is ever reclaimed. No method waits.
"""

from __future__ import annotations

from errno import ESTALE

from ...native.constants import KFlag
from ...native.errors import VfsError
from ...native.records import Cookie, Newinfo, Vattr
from ..ops import FileServer
from .places import Place


class Tree:
    """One of the file servers, and the nodes of it that are known above, by the tree's cookies."""

    __slots__ = ("inactive_on_demand", "index", "is_ended", "nodes", "server", "wants_unmount")

    def __init__(self, server: FileServer, index: int) -> None:
        self.server = server
        self.index = index
        self.inactive_on_demand = bool(server.kargs.kflags & KFlag.IAONDEMAND)
        self.nodes: dict[int, Node] = {}
        self.is_ended = False
        """Unmounted: nothing may be called any more."""
        self.wants_unmount = False


class Node:
    """One node: `cookie` is the tree's, `outer` ours. `place` is there where it is a place.

    `va` is what was last seen of a place's attributes.
    """

    __slots__ = ("cookie", "nlookup", "outer", "place", "server", "tree", "va", "wants_inactive")

    def __init__(self, tree: Tree, cookie: Cookie, outer: Cookie) -> None:
        self.tree = tree
        self.server = tree.server
        self.cookie = cookie
        self.outer = outer
        self.nlookup = 0
        self.place: Place | None = None
        self.va: Vattr | None = None
        self.wants_inactive = False


class NodeTable:
    """All nodes, by our cookies."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, opc: int) -> Node:
        """Return the node of a cookie. Errors: ESTALE for one that is not known."""
        try:
            return self._nodes[opc]
        except KeyError:
            raise VfsError(ESTALE, f"no node behind cookie {opc}") from None

    def known(self, opc: int) -> Node | None:
        """Return the node of a cookie, if there is one."""
        return self._nodes.get(opc)

    def root(self, tree: Tree, cookie: Cookie, place: Place) -> Node:
        """Make a node that lives as long as its tree."""
        node = self._add(tree, cookie)
        node.place = place
        return node

    def absorb(self, tree: Tree, info: Newinfo) -> Newinfo:
        """Return what a tree has answered with our cookie; it counts as one lookup here, too."""
        cookie = info.cookie
        if not cookie:
            return info
        node = tree.nodes.get(cookie)
        if node is None:
            node = self._add(tree, cookie)
        node.nlookup += 1
        return info._replace(cookie=node.outer)

    def reclaim(self, opc: int, nlookup: int) -> None:
        """Hand lookups back to the tree; with the last one the cookie is dead."""
        node = self._nodes.get(opc)
        if node is None or node.place is not None:
            return
        node.nlookup -= nlookup
        if node.nlookup <= 0:
            del self._nodes[opc]
            del node.tree.nodes[node.cookie]
        node.server.reclaim(node.cookie, nlookup)

    def end(self, tree: Tree) -> None:
        """Forget everything of a tree that was unmounted."""
        tree.is_ended = True
        for node in tree.nodes.values():
            del self._nodes[node.outer]
        tree.nodes = {}

    def _add(self, tree: Tree, cookie: Cookie) -> Node:
        node = Node(tree, cookie, Cookie(self._next))
        self._next += 1
        self._nodes[node.outer] = tree.nodes[cookie] = node
        return node
