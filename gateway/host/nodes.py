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

from collections.abc import Iterable, Mapping, Sequence

from ...layers.ops import FileServer
from ...native.records import Cookie, Newinfo

ROOT_INO = 1
"""The host's number of the root, fixed by FUSE."""

_FIRST_OWN_INO = 1 << 62
"""Numbers from here on are ours, for nodes whose own number is taken, 0 or the root's. Beyond the
60 bits of psshfs."""

_DEPTH_MAX = 2048
"""No path has more components than half of PATH_MAX; what seems to is a loop."""

_NONE: Mapping[bytes, Node] = {}


class Node:
    """One node that the host knows, or that waits in an open directory to be told to it.

    The host may know a million: 96 octets each.
    """

    __slots__ = (
        "cookie",
        "held",
        "name",
        "nlookup",
        "opens",
        "parent",
        "pins",
        "wants_inactive",
    )

    def __init__(self, cookie: Cookie) -> None:
        self.cookie = cookie
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

    @property
    def ino(self) -> int:
        """The host's number."""
        return self.cookie


class Renumbered(Node):
    """A node whose number is not its cookie."""

    __slots__ = ("_ino",)

    def __init__(self, cookie: Cookie, ino: int) -> None:
        super().__init__(cookie)
        self._ino = ino

    @property
    def ino(self) -> int:
        """The host's number."""
        return self._ino


class NodeTable:
    """All nodes of one mount. Not thread safe; no method waits."""

    def __init__(self, server: FileServer, root: Newinfo) -> None:
        self.server = server
        self._by_ino: dict[int, Node] = {}
        self._renumbered: dict[int, Renumbered] = {}
        """By cookie."""
        self._children: dict[Node, dict[bytes, Node]] = {}
        """What the host last saw in each directory."""
        self.root = self._add(root.cookie, ROOT_INO)
        self.root.nlookup = 1
        self._next_ino = _FIRST_OWN_INO

    def __len__(self) -> int:
        return len(self._by_ino)

    def _add(self, cookie: Cookie, ino: int) -> Node:
        node: Node
        if cookie == ino:
            node = Node(cookie)
        else:
            node = self._renumbered[cookie] = Renumbered(cookie, ino)
        self._by_ino[ino] = node
        return node

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
            node = self._add(info.cookie, fileid)
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

    def tell_pinned(self, parent: Node, name: bytes, node: Node) -> None:
        """Do what `tell` and `settle` do."""
        node.nlookup += 1
        node.pins -= 1
        self.name(parent, name, node)

    def name(self, parent: Node, name: bytes, node: Node) -> None:
        """Note that the host knows `node` as `name` in `parent`, without a lookup."""
        children = self._children.get(parent)
        if children is None:
            children = self._children[parent] = {}
        children[name] = node
        node.parent = parent
        node.name = name

    def tell_page(self, parent: Node, names: Sequence[bytes], cookies: Sequence[int]) -> None:
        """Note lookups that the server handed out, and that the host is told, of nodes in `parent`
        whose numbers are their cookies: `absorb`, `tell` and `settle` of each.
        """
        by_ino = self._by_ino
        children = self._children.setdefault(parent, {})
        for name, cookie in zip(names, cookies, strict=True):
            node = by_ino.get(cookie)
            if node is None:
                node = by_ino[cookie] = Node(Cookie(cookie))
            node.held += 1
            node.nlookup += 1
            children[name] = node
            node.parent = parent
            node.name = name

    @property
    def are_all_own(self) -> bool:
        """Tell whether all numbers are cookies, so that every cookie may be a number."""
        return not self._renumbered

    def give_back(self, cookies: Iterable[int]) -> None:
        """Give back below one lookup each that the server handed out and nobody was told."""
        for cookie in cookies:
            self.server.reclaim(Cookie(cookie), 1)

    def children(self, parent: Node) -> Mapping[bytes, Node]:
        """Return what the host last saw in `parent`, by name. It changes with every request."""
        return self._children.get(parent, _NONE)

    def child(self, parent: Node, name: bytes) -> Node | None:
        """Return what the host last saw as `name` in `parent`."""
        return self._children.get(parent, _NONE).get(name)

    def unname(self, parent: Node, name: bytes) -> None:
        """Note that the host removed `name` from `parent`."""
        node = self._children.get(parent, {}).pop(name, None)
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
        self._renumbered.pop(node.cookie, None)
        self._children.pop(node, None)
        siblings = None if node.parent is None else self._children.get(node.parent)
        if siblings is not None and siblings.get(node.name) is node:
            del siblings[node.name]
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
            for child in self.children(todo.pop()).values():
                if id(child) not in found:
                    found[id(child)] = child
                    todo.append(child)
        return list(found.values())

    def named(self) -> list[tuple[Node, bytes]]:
        """Return (directory, name) of every name that the host may hold."""
        return [(parent, name) for parent, children in self._children.items() for name in children]
