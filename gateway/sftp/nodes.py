"""The nodes that the sessions of one export use, with the lookups that they owe the file server.

A file server counts each cookie that it hands out; here every one is given back. A node is *pinned*
while somebody works with it: a request under way, an open handle, a remembered directory, the
place of a node below it. What nobody pins is kept for a while, as a kernel keeps inodes: a file
server's own caches live and die with its nodes, and clients ask for the same ones again and again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from ...layers.ops import FileServer
from ...native.records import Cookie, Newinfo

KEPT_MAX: Final = 1024
"""How many nodes are kept that nobody uses."""


class Node:
    """One node. `place` is where a directory hangs, (parent, name), as far as that is known."""

    __slots__ = (
        "cookie",
        "held",
        "is_gone",
        "is_root",
        "opens",
        "pins",
        "place",
        "vtype",
        "wants_inactive",
    )

    def __init__(self, cookie: Cookie, vtype: int) -> None:
        self.cookie = cookie
        self.vtype = vtype
        self.held = 0
        """Lookups that the file server counts; 0 when they were given back and the node is dead."""
        self.pins = 0
        self.opens = 0
        self.wants_inactive = False
        self.is_gone = False
        """Its last name was removed, as far as we know: not to be kept."""
        self.is_root = False
        """No name leads to it: it is the export's root."""
        self.place: tuple[Node, bytes] | None = None

    def __repr__(self) -> str:
        return f"<node {self.cookie:#x} held {self.held} pins {self.pins} opens {self.opens}>"


class NodeTable:
    """All nodes of one export. No method waits."""

    def __init__(self, server: FileServer, root: Newinfo, kept_max: int = KEPT_MAX) -> None:
        self._server = server
        self._kept_max = kept_max
        self._kept: OrderedDict[Node, None] = OrderedDict()
        self.root = Node(root.cookie, root.vtype)
        self.root.pins = 1
        self.root.is_root = True
        self._nodes: dict[int, Node] = {root.cookie: self.root}

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def in_use(self) -> list[Node]:
        """The nodes that are pinned by more than the places of others: for tests, for people."""
        above = Counter(node.place[0] for node in self._nodes.values() if node.place is not None)
        above[self.root] += 1
        return [node for node in self._nodes.values() if node.pins > above[node]]

    def by_cookie(self, cookie: int) -> Node | None:
        """Return the node behind a cookie, if it is known."""
        return self._nodes.get(cookie)

    def absorb(self, info: Newinfo) -> Node:
        """Note one lookup that the server handed out; return its node, pinned."""
        node = self._nodes.get(info.cookie)
        if node is None:
            node = self._nodes[info.cookie] = Node(info.cookie, info.vtype)
        elif not node.pins:
            del self._kept[node]
        node.held += 1
        node.pins += 1
        node.is_gone = False  # it was found by a name
        return node

    def give_back(self, info: Newinfo) -> None:
        """Note one lookup of a node that nobody will use, and give it back unless it is known."""
        node = self._nodes.get(info.cookie)
        if node is None:
            self._server.reclaim(info.cookie, 1)
        else:
            node.held += 1

    def pin(self, node: Node) -> Node:
        """Pin a node that is pinned already, or kept; return it."""
        if not node.pins:
            del self._kept[node]
        node.pins += 1
        return node

    def unpin(self, node: Node) -> None:
        """Drop a pin; with the last one the node is kept for a while, or goes when it is gone."""
        node.pins -= 1
        if node.pins:
            return
        if node.is_gone:
            self._drop(node)
            return
        kept = self._kept
        kept[node] = None
        if len(kept) > self._kept_max:
            oldest, _ = kept.popitem(last=False)
            self._drop(oldest)

    def put(self, node: Node, parent: Node, name: bytes) -> None:
        """Note where a directory hangs; its parent is pinned for as long as it is known."""
        self.displace(node)
        self.pin(parent)
        node.place = parent, name

    def displace(self, node: Node) -> None:
        """Forget where a directory hangs."""
        if node.place is not None:
            parent, _ = node.place
            node.place = None
            self.unpin(parent)

    def gone(self, node: Node) -> None:
        """Note that a name of `node` was removed: its space is free when nobody uses it."""
        node.is_gone = True
        if not node.pins:
            del self._kept[node]
            self._drop(node)

    def close(self) -> None:
        """Give everything back: the export ends and nobody uses a node any more."""
        self._kept.clear()
        for node in list(self._nodes.values()):
            if node is not self.root:
                node.place = None
                self._server.reclaim(node.cookie, node.held)
        self._nodes = {self.root.cookie: self.root}

    def _drop(self, node: Node) -> None:
        del self._nodes[node.cookie]
        held, node.held = node.held, 0
        self._server.reclaim(node.cookie, held)
        self.displace(node)
