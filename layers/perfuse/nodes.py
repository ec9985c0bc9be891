"""Nodes of the FUSE server, by our cookie and by its number, and the lookups that both sides count.

The server counts a lookup with each node that it tells, and gets all of them back in one FORGET
(or BATCH_FORGET) when the kernel above has given back all that it was told. The two counts differ:
".." is found without asking, and LINK counts one that nobody above hears of. A node keeps the
directory in which it was found, as a dentry does in Linux: servers that name files by their paths
rely on it.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO, ESTALE
from typing import Any, Final

import trio

from ...native import fuse_requests
from ...native.errors import VfsError
from ...native.fuse_protocol import ROOT_ID, Entry
from ...native.records import Cookie, Newinfo
from .connection import Connection, Slot

_new: Any = tuple.__new__
_BATCH: Final = 512
"""Nodes in one BATCH_FORGET."""


class Handle:
    """One open of a file or directory at the server. `mode` is FREAD and/or FWRITE.

    What is asked through it stands in a `with` of it: the server hears of its end afterwards, as it
    does from Linux. Any of its threads may be the first one.
    """

    __slots__ = (
        "_release",
        "_users",
        "fh",
        "flags",
        "is_dirty",
        "is_unsynced",
        "mode",
        "owner",
        "told",
    )

    def __init__(self, fh: int, mode: int, flags: int) -> None:
        self.fh = fh
        self.mode = mode
        self.flags = flags
        """The flags of open(2) that it was opened with."""
        self.is_dirty = False
        """Written to since the last FLUSH."""
        self.is_unsynced = False
        """Written to since the last FSYNC."""
        self.owner: int | None = None
        """Whose locks were taken through it."""
        self.told = 0
        """A directory: the offset up to which it was read last."""
        self._users = 0
        self._release: Callable[[], None] | None = None

    def __enter__(self) -> Handle:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if self._release is not None and not self._users:
            self._release()

    def when_unused(self, release: Callable[[], None]) -> None:
        """Call `release` when nothing is asked through the handle."""
        if self._users:
            self._release = release
        else:
            release()


class Node:
    """One node while anybody above knows it, or a node below it."""

    __slots__ = (
        "appending",
        "closing",
        "cookie",
        "generation",
        "given",
        "handles",
        "held",
        "is_removed",
        "loans",
        "nodeid",
        "parent",
        "pins",
        "vtype",
    )

    def __init__(self, cookie: Cookie, nodeid: int, generation: int, vtype: int) -> None:
        self.cookie = cookie
        self.nodeid = nodeid
        self.generation = generation
        self.vtype = vtype
        self.held = 0
        """Lookups that the server counts."""
        self.given = 0
        """Lookups that the kernel above counts."""
        self.pins = 0
        """Nodes that were found in this directory."""
        self.parent: Node | None = None
        self.is_removed = False
        """A name was removed: it may have been the last."""
        self.handles: list[Handle] = []
        """One for each open above."""
        self.appending: trio.Lock | None = None
        """Held by who asks where the end is and writes there."""
        self.closing: list[Slot] = []
        """A file: what of its end at the server is on its way."""
        self.loans: list[Handle] = []
        """Opened for our own use: nobody above has it open, or not in that mode."""


class NodeTable:
    """All nodes of one server. No method waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.root = Node(Cookie(1), ROOT_ID, 0, 2)
        self._next = 2
        self._by_cookie: dict[int, Node] = {1: self.root}
        self._by_nodeid: dict[int, Node] = {ROOT_ID: self.root}
        self._forgotten: dict[int, int] = {}
        self._wake = trio.Event()
        self.batches = False
        """Whether the server takes BATCH_FORGET."""

    def __len__(self) -> int:
        return len(self._by_cookie)

    def node(self, cookie: Cookie) -> Node:
        """Return the node behind `cookie`. Errors: ESTALE."""
        try:
            return self._by_cookie[cookie]
        except KeyError:
            raise VfsError(ESTALE) from None

    def known(self, cookie: Cookie) -> Node | None:
        """Return the node behind `cookie`, if there is one."""
        return self._by_cookie.get(cookie)

    def by_nodeid(self, nodeid: int) -> Node | None:
        """Return the node that the server calls `nodeid`, if anybody knows it."""
        return self._by_nodeid.get(nodeid)

    def every(self) -> list[Node]:
        """Return all nodes."""
        return list(self._by_cookie.values())

    def learn(self, parent: Node, entry: Entry) -> tuple[Node, Newinfo]:
        """Count the lookup that came with `entry`, found in `parent`; return it for those above.

        Errors: EIO for a node that cannot be: the root below itself, or one with two types.
        """
        nodeid, generation, entry_ttl, attr_ttl, va = entry
        vtype = va.vtype or 0
        if nodeid == ROOT_ID:
            raise VfsError(EIO, "the FUSE server tells its root as an entry of a directory")
        node = self._by_nodeid.get(nodeid)
        if node is not None and node.generation != generation:
            # Another file under the number of one that is known yet. The old one is stale; it
            # shares its count with the new one, for the server has but one.
            del self._by_cookie[node.cookie]
            for handle in (*node.handles, *node.loans):
                self.release(node, handle)
            self._unpin(node)
            held, node = node.held, None
        else:
            held = 0
        if node is None:
            node = Node(Cookie(self._next), nodeid, generation, vtype)
            node.held = held
            self._next += 1
            self._by_cookie[node.cookie] = node
            self._by_nodeid[nodeid] = node
        elif node.vtype != vtype:
            self.forget(nodeid)
            raise VfsError(EIO, "the FUSE server changed the type of a node in use")
        node.held += 1
        node.given += 1
        self.found_in(node, parent)
        about = (node.cookie, vtype, va.size or 0, va.rdev or 0, va, attr_ttl, entry_ttl)
        return node, _new(Newinfo, about)

    def found_in(self, node: Node, parent: Node) -> None:
        """Note in which directory a node was seen last."""
        if node.parent is parent or node is parent:
            return
        parent.pins += 1
        self._unpin(node)
        node.parent = parent

    def _unpin(self, node: Node) -> None:
        parent, node.parent = node.parent, None
        if parent is not None:
            parent.pins -= 1
            self._drop(parent)

    def reclaim(self, node: Node, nlookup: int) -> None:
        """Take lookups back from above."""
        node.given -= nlookup
        self._drop(node)

    def _drop(self, node: Node) -> None:
        if node.given > 0 or node.pins or node is self.root:
            return
        if self._by_cookie.pop(node.cookie, None) is None:
            return
        if self._by_nodeid.get(node.nodeid) is node:
            del self._by_nodeid[node.nodeid]
        for handle in (*node.handles, *node.loans):
            self.release(node, handle)
        self.forget(node.nodeid, node.held)
        self._unpin(node)

    def release(self, node: Node, handle: Handle) -> None:
        """Give an open back, after a FLUSH if it was written to since the last one."""
        is_dir = node.vtype == self.root.vtype
        encode = fuse_requests.releasedir if is_dir else fuse_requests.release
        nodeid, post = node.nodeid, self._connection.post

        def closing(slot: Slot | None) -> None:
            if not is_dir and slot is not None:
                node.closing = [other for other in node.closing if not other.is_done]
                node.closing.append(slot)

        def release() -> None:
            closing(post(encode, nodeid, handle.fh, handle.flags))

        def end() -> None:
            if handle.is_dirty:
                closing(post(fuse_requests.flush, nodeid, handle.fh, 0, then=release))
            else:
                release()

        handle.when_unused(end)

    def forget(self, nodeid: int, nlookup: int = 1) -> None:
        """Give lookups back to the server, together with others of the same moment."""
        self._forgotten[nodeid] = self._forgotten.get(nodeid, 0) + nlookup
        self._wake.set()

    async def send_forgets(self) -> None:
        """Send what `forget` has gathered, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self.flush_forgets()

    def flush_forgets(self) -> None:
        """Send what `forget` has gathered until now."""
        forgotten, self._forgotten = list(self._forgotten.items()), {}
        tell = self._connection.tell
        if len(forgotten) == 1 or not self.batches:
            for nodeid, nlookup in forgotten:
                tell(fuse_requests.forget, nodeid, nlookup)
            return
        for start in range(0, len(forgotten), _BATCH):
            tell(fuse_requests.batch_forget, 0, forgotten[start : start + _BATCH])
