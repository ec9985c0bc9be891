"""What the host kernel knows: one record a node, found by FUSE number or by cookie.

The host counts lookups of each node and gives them back with FORGET; the file
server counts the cookies that it handed out. The two differ (an entry that did
not fit into a READDIRPLUS reply was counted below and never reached the host),
so each node carries both counts, and a node whose host count is zero is given
back below with all lookups that were taken there.

The names by which the host reached a node are kept as well, in the directory's
record: unlink, rmdir and rename name their victims, puffs wants the cookies, and
asking again would cost a lookup each.
"""

from __future__ import annotations

from ...layers.ops import FileServer
from ...native.records import Cookie, Newinfo

ROOT_INO = 1
"""The host's number of the root, fixed by FUSE."""

_FIRST_OWN_INO = 1 << 62
"""Numbers from here on are ours, for nodes whose own number is taken, 0 or the root's. Beyond the
60 bits of psshfs."""

_DEPTH_MAX = 2048
"""No path has more components than half of PATH_MAX; what seems to is a loop."""


class Node:
    """One node that the host knows, or that waits in an open directory to be told to it."""

    __slots__ = (
        "children",
        "cookie",
        "held",
        "ino",
        "name",
        "nlookup",
        "opens",
        "parent",
        "pins",
        "vtype",
        "wants_inactive",
    )

    def __init__(self, cookie: Cookie, ino: int, vtype: int) -> None:
        self.cookie = cookie
        self.ino = ino
        self.vtype = vtype
        self.nlookup = 0
        """Lookups that the host counts."""
        self.held = 0
        """Lookups that the file server counts."""
        self.pins = 0
        """Uses of ours that must not lose the node to a FORGET: waits, entries not yet told."""
        self.opens = 0
        self.wants_inactive = False
        self.parent: Node | None = None
        self.name = b""
        self.children: dict[bytes, Node] | None = None


class NodeTable:
    """All nodes of one mount. Not thread safe; no method waits."""

    def __init__(self, server: FileServer, root: Newinfo) -> None:
        self.server = server
        self.root = Node(root.cookie, ROOT_INO, root.vtype)
        self.root.nlookup = 1
        self._by_ino: dict[int, Node] = {ROOT_INO: self.root}
        self._renumbered: dict[int, Node] = {}
        """The nodes whose number is not their cookie, by cookie."""
        if root.cookie != ROOT_INO:
            self._renumbered[root.cookie] = self.root
        self._next_ino = _FIRST_OWN_INO

    def __len__(self) -> int:
        return len(self._by_ino)

    def by_ino(self, ino: int) -> Node:
        """Return the node with the host's number `ino`. KeyError: the host made that number up."""
        return self._by_ino[ino]

    def known(self, ino: int) -> Node | None:
        """Return the node with the host's number `ino`, if there is one."""
        return self._by_ino.get(ino)

    def by_cookie(self, cookie: int) -> Node | None:
        """Return the node behind `cookie`, if the host (or an open directory) knows it."""
        node = self._by_ino.get(cookie)
        if node is not None and node.cookie == cookie:
            return node
        return self._renumbered.get(cookie)

    def absorb(self, info: Newinfo) -> Node:
        """Note one lookup that the server handed out; return its node, old or new, pinned.

        `settle` must follow, after `tell` or without it.
        """
        node = self.by_cookie(info.cookie)
        if node is None:
            fileid = 0 if info.va is None or info.va.fileid is None else info.va.fileid
            if fileid <= ROOT_INO or fileid in self._by_ino:
                fileid = self._next_ino
                self._next_ino += 1
            node = Node(info.cookie, fileid, info.vtype)
            self._by_ino[fileid] = node
            if fileid != info.cookie:
                self._renumbered[info.cookie] = node
        node.held += 1
        node.pins += 1
        return node

    def settle(self, node: Node) -> None:
        """Drop a pin; a node that the host does not know goes back to the server."""
        node.pins -= 1
        self._drop_unknown(node)

    def tell(self, parent: Node, name: bytes, node: Node) -> None:
        """Note that the host is told `node` as `name` in `parent`: one more lookup there."""
        node.nlookup += 1
        self.name(parent, name, node)

    def name(self, parent: Node, name: bytes, node: Node) -> None:
        """Note that the host knows `node` as `name` in `parent`, without a lookup."""
        if parent.children is None:
            parent.children = {}
        parent.children[name] = node
        node.parent = parent
        node.name = name

    def child(self, parent: Node, name: bytes) -> Node | None:
        """Return what the host last saw as `name` in `parent`."""
        return None if parent.children is None else parent.children.get(name)

    def unname(self, parent: Node, name: bytes) -> None:
        """Note that the host removed `name` from `parent`."""
        if parent.children is not None:
            node = parent.children.pop(name, None)
            if node is not None and node.parent is parent and node.name == name:
                node.parent = None

    def forget(self, ino: int, nlookup: int) -> None:
        """Take back lookups of the host; with the last one the node goes, below as well."""
        node = self._by_ino.get(ino)
        if node is not None and node is not self.root:
            node.nlookup -= nlookup
            self._drop_unknown(node)

    def _drop_unknown(self, node: Node) -> None:
        if node.nlookup > 0 or node.pins or node is self.root:
            return
        if self._by_ino.get(node.ino) is not node:
            return  # gone already
        del self._by_ino[node.ino]
        if node.ino != node.cookie:
            del self._renumbered[node.cookie]
        parent = node.parent
        if parent is not None and parent.children is not None:
            if parent.children.get(node.name) is node:
                del parent.children[node.name]
        self.server.reclaim(node.cookie, node.held)

    def path(self, node: Node) -> bytes | None:
        """Return the path by which the host last found `node`; None if it has lost it."""
        parts: list[bytes] = []
        while node is not self.root:
            if node.parent is None or len(parts) > _DEPTH_MAX:
                return None
            parts.append(node.name)
            node = node.parent
        return b"/" + b"/".join(reversed(parts))

    def below(self, path: bytes) -> list[Node]:
        """Return the node at `path` ("/" is the root) and all known below it, upper ones first."""
        at = self.root
        for name in filter(None, path.split(b"/")):
            child = self.child(at, name)
            if child is None:
                return []
            at = child
        # A node with several names is found once, and a loop that a change left behind ends.
        found = {id(at): at}
        todo = [at]
        while todo:
            for child in (todo.pop().children or {}).values():
                if id(child) not in found:
                    found[id(child)] = child
                    todo.append(child)
        return list(found.values())

    def named(self) -> list[tuple[Node, bytes]]:
        """Return (directory, name) of every name that the host may hold."""
        return [
            (parent, name)
            for parent in self._by_ino.values()
            if parent.children
            for name in parent.children
        ]
