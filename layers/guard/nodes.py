"""Nodes that the kernel above knows, and the names by which they are reached.

The file server below says what cookie a name has; from that the table knows of each node under
which names, in which directories, it was found: its *places*. A directory has one, a file one for
each hard link that was met. What may be done with a node is what all of its places allow: to find
another name for it never gives a right that was not there before.

A node whose last name was removed keeps its last place: an open file is judged by where it was.

References: the kernel above holds `above` lookups of a node, the file server below counts `held`.
They go back together, once, when the kernel has given all of its own back and nothing known is
below the node: as long as something is, its path has to be known and follows each rename above.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from ...native.constants import Vtype
from ...native.records import Cookie, Newinfo
from ..ops import FileServer
from .policy import ALL, Policy, State

_VDIR: Final = int(Vtype.VDIR)
_MOVED_MAX: Final = 1024
"""Renames that are remembered for the sake of answers that are older. More than these while one
answer is on its way, and it is not believed."""


class Node:
    """One node. `states` is what holds at its places, good while `epoch` is that of the table."""

    __slots__ = (
        "above",
        "born",
        "children",
        "cookie",
        "entries",
        "epoch",
        "fresh_mode",
        "given_at",
        "held",
        "in_flight",
        "is_nameless",
        "is_orphan",
        "is_unsettled",
        "is_unsure",
        "opens",
        "places",
        "rights",
        "size",
        "states",
        "version",
        "vtype",
    )

    def __init__(self, cookie: Cookie, vtype: int) -> None:
        self.cookie = cookie
        self.vtype = vtype
        self.above = 0
        self.held = 0
        self.places: list[tuple[Node, bytes]] = []
        self.children = 0
        """How many places of other nodes are in this directory."""
        self.entries: dict[bytes, Node] = {}
        """The names of this directory that lead to known nodes."""
        self.is_nameless = False
        """No name leads to it any more; `places` is where it was."""
        self.is_unsure = False
        """It is unknown which of its places are right: the next lookup tells."""
        self.epoch = -1
        self.states: tuple[State, ...] = ()
        self.rights = 0
        self.opens = 0
        self.born: float | None = None
        """When it was made, as long as nobody has opened it for writing."""
        self.fresh_mode = 0
        """The mode of the open that whoever made it writes through."""
        # Of the quota; see there.
        self.size: int | None = None
        self.in_flight = 0
        self.version = 0
        self.is_unsettled = False
        self.is_orphan = False
        self.given_at = 0
        """Which of the removals took it off the ledger; 0: none."""

    def __repr__(self) -> str:
        names = [name for _, name in self.places]
        return f"<node {self.cookie:#x} above {self.above} held {self.held} as {names}>"


class NodeTable:
    """All nodes that are known. No method waits.

    `epoch` counts changes of what is above some node. `moves` counts renames: an answer to
    what was asked before one may be older than it.
    """

    def __init__(self, server: FileServer, root: Newinfo, policy: Policy) -> None:
        self._server = server
        self._policy = policy
        self.root = Node(root.cookie, root.vtype)
        self.root.states = (policy.root,)
        self._nodes: dict[int, Node] = {root.cookie: self.root}
        self.epoch = 0
        self.moves = 0
        self._moving: Counter[int] = Counter()
        """Cookies of what is being renamed."""
        self._moved: OrderedDict[int, int] = OrderedDict()
        """Cookies of what was renamed of late, and which of the moves that was."""
        self._forgotten = 0
        """The last move that is not remembered any more."""

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, cookie: int) -> Node | None:
        """Return the node behind a cookie, if it is known."""
        return self._nodes.get(cookie)

    # States.

    def states(self, node: Node) -> tuple[State, ...]:
        """Return what holds at the places of a node, each state once."""
        if node.epoch != self.epoch:
            self._refresh(node)
        return node.states

    def rights(self, node: Node) -> int:
        """Return what all places of a node allow."""
        if node.epoch != self.epoch:
            self._refresh(node)
        return node.rights

    def states_at(self, directory: Node, name: bytes) -> list[State]:
        """Return what holds at a name in a directory."""
        return [self._policy.step(state, name) for state in self.states(directory)]

    def _refresh(self, node: Node) -> None:
        """Work out the states of a node and of those above it whose states are out of date.

        Without recursion: a path has up to 2000 names.
        """
        pending = [node]
        while pending:
            at = pending[-1]
            if at.epoch == self.epoch:
                pending.pop()
                continue
            stale = [parent for parent, _ in at.places if parent.epoch != self.epoch]
            if stale and at is not self.root:
                pending += stale
                continue
            pending.pop()
            if at is not self.root:
                step = self._policy.step
                found = {step(s, name) for parent, name in at.places for s in parent.states}
                at.states = tuple(found)
            at.rights = ALL if at.states else 0
            for state in at.states:
                at.rights &= state.rights
            at.epoch = self.epoch

    # Taking in and giving back.

    def absorb(self, info: Newinfo) -> Node:
        """Note one lookup that the file server has handed out and that goes on to the kernel."""
        node = self._nodes.get(info.cookie)
        if node is None:
            node = self._nodes[info.cookie] = Node(info.cookie, info.vtype)
        node.held += 1
        node.above += 1
        return node

    def reclaim(self, node: Node, count: int) -> None:
        """Note that the kernel has given lookups back."""
        node.above -= count
        self._drop(node)

    def _drop(self, node: Node) -> None:
        """Let a node go that nobody needs, and those above it that were kept for its sake."""
        pending = [node]
        while pending:
            node = pending.pop()
            if node.above > 0 or node.children or node is self.root:
                continue
            if self._nodes.pop(node.cookie, None) is None:
                continue
            places, node.places = node.places, []
            for parent, name in places:
                if parent.entries.get(name) is node:
                    del parent.entries[name]
                parent.children -= 1
                pending.append(parent)
            self._server.reclaim(node.cookie, node.held)

    # Names.

    def is_above(self, node: Node, directory: Node) -> bool:
        """Return whether `node` is `directory` or, as far as is known, above it."""
        at, seen = [directory], {directory}
        while at:
            found = at.pop()
            if found is node:
                return True
            for parent, _ in found.places:
                if parent not in seen:
                    seen.add(parent)
                    at.append(parent)
        return False

    def begin_move(self, node: Node) -> None:
        """Note that a rename of `node` is under way; `end_move` follows."""
        self._moving[node.cookie] += 1

    def end_move(self, node: Node) -> None:
        """Note that a rename has ended, in whatever way."""
        cookie = node.cookie
        self._moving[cookie] -= 1
        if not self._moving[cookie]:
            del self._moving[cookie]
        self.moves += 1
        self._moved[cookie] = self.moves
        self._moved.move_to_end(cookie)
        if len(self._moved) > _MOVED_MAX:
            _, self._forgotten = self._moved.popitem(last=False)

    def is_current(self, cookie: int, moves: int) -> bool:
        """Return whether a node is where it was found by who asked when `moves` was this."""
        return cookie not in self._moving and self._moved.get(cookie, self._forgotten) <= moves

    def learn(self, directory: Node, name: bytes, node: Node, moves: int) -> bool:
        """Note that `name` leads to `node`, as was asked when `moves` was this; False if it cannot.

        It cannot where the node is the directory or above it: somebody has moved things behind our
        back, or the file server below lies. Nor can it where the answer may be older than a rename
        of the node and nothing else is known about where that is.
        """
        if directory.entries.get(name) is node and not node.is_unsure:
            return True
        if node is self.root or (node.vtype == _VDIR and self.is_above(node, directory)):
            return False
        is_current = self.is_current(node.cookie, moves)
        if not is_current and not node.places:
            return False
        if is_current:
            if node.is_unsure or node.is_nameless or node.vtype == _VDIR:
                self._displace(node)
            node.is_unsure = node.is_nameless = False
        else:
            node.is_unsure = True  # both places count
        if is_current or name not in directory.entries:
            self.forget(directory, name)
            directory.entries[name] = node
        self._put(node, directory, name)
        return True

    def forget(self, directory: Node, name: bytes) -> None:
        """Note that a name leads nowhere, or to another node than before."""
        node = directory.entries.pop(name, None)
        if node is not None:
            self._unname(node, directory, name)

    def unname(self, node: Node, directory: Node, name: bytes) -> None:
        """Note that a node has lost a name."""
        if directory.entries.get(name) is node:
            del directory.entries[name]
        self._unname(node, directory, name)

    def move(self, node: Node, old: Node, old_name: bytes, new: Node, new_name: bytes) -> None:
        """Note that a node was renamed; what had the new name has lost it."""
        self.unname(node, old, old_name)
        self.forget(new, new_name)
        if node.vtype == _VDIR or node.is_nameless:
            self._displace(node)
        node.is_nameless = node.is_unsure = False
        new.entries[new_name] = node
        self._put(node, new, new_name)

    def doubt(self, node: Node, directory: Node, name: bytes) -> None:
        """Note that a node may have been renamed, or not: until it is found, both places count."""
        node.is_unsure = True
        if not self.is_above(node, directory):
            self._put(node, directory, name)

    def _unname(self, node: Node, directory: Node, name: bytes) -> None:
        place = (directory, name)
        if place not in node.places:
            return
        if len(node.places) == 1:
            node.is_nameless = True  # judged by where it was
            return
        node.places.remove(place)
        directory.children -= 1
        self._changed(node)
        self._drop(directory)

    def _put(self, node: Node, directory: Node, name: bytes) -> None:
        place = (directory, name)
        if place not in node.places:
            node.places.append(place)
            directory.children += 1
            self._changed(node)

    def _displace(self, node: Node) -> None:
        """Forget all places of a node; another one follows at once."""
        places, node.places = node.places, []
        for directory, name in places:
            if directory.entries.get(name) is node:
                del directory.entries[name]
            directory.children -= 1
            self._drop(directory)
        self._changed(node)

    def _changed(self, node: Node) -> None:
        if node.children:
            self.epoch += 1
        else:
            node.epoch = -1
