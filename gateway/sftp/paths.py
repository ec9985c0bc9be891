"""Paths, walked from a session's root over cookies.

The walk is ours alone: a file server is asked for one name in one directory at a time, never for
"..", so that no answer of it leads out of the root. Where ".." goes is known from the walk
itself; links are read and followed inside the root, an absolute target begins there.

A walk gives back each lookup that it took (nodes.py), whatever ends it.
"""

from __future__ import annotations

from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from typing import Any, Final

from ...native.constants import ISLASTCN, NAME_MAX, PATH_MAX, NameiOp, Vtype
from ...native.errors import VfsError
from ...native.records import Componentname, Cred, Newinfo
from .export import Export
from .nodes import Node
from .remembered import FOREVER
from .turns import Turn

LINKS_MAX: Final = 40
"""Links that one path may lead through."""

# What is done at the last name of a path.
FOLLOW: Final = 0
"""Look it up, and follow it if it is a link."""
STAY: Final = 1
"""Look it up; follow it only where a slash comes behind it."""
NAME: Final = 2
"""Look it up and never follow it: the name itself is going to change."""
BARE: Final = 3
"""As NAME, but do not look it up: something new gets the name."""

_VDIR: Final = int(Vtype.VDIR)
_VLNK: Final = int(Vtype.VLNK)
_LOOKUP: Final = int(NameiOp.LOOKUP)
_SPECIAL: Final = frozenset((b"", b".", b".."))
_new: Any = tuple.__new__


class Found:
    """Where a path leads. Used in a `with`, at whose end the nodes are given back.

    `parent` and `name` are the last component; `parent` is None where the path ends in the root,
    in "." or in "..", `name` then says in which. `node` is None where there is no such name, or it
    was not looked up. `head` is the canonical path of `parent`, or of `node` if that is None.
    """

    __slots__ = ("_nodes", "_pins", "head", "info", "name", "node", "parent", "slash")

    def __init__(self, export: Export) -> None:
        self._nodes = export.nodes
        self._pins: list[Node] = []
        self.parent: Node | None = None
        self.name = b""
        self.head = b""
        self.node: Node | None = None
        self.info: Newinfo | None = None
        """What the last lookup said, where there was one."""
        self.slash = False
        """Whether the path ended in a slash, so that only a directory will do."""

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *exc: object) -> None:
        nodes = self._nodes
        for node in self._pins:
            if node.pins > 1:
                node.pins -= 1
            else:
                nodes.unpin(node)

    def pin(self, node: Node) -> Node:
        """Hold on to a node until the end of the `with`."""
        self._pins.append(self._nodes.pin(node))
        return node

    def absorb(self, info: Newinfo) -> Node:
        """Take in a lookup; its node is held on to until the end of the `with`."""
        node = self._nodes.absorb(info)
        self._pins.append(node)
        return node

    @property
    def path(self) -> bytes:
        """The canonical path; the root is a slash."""
        return self.head or b"/" if self.parent is None else self.head + b"/" + self.name

    def there(self) -> Node:
        """Return the node. Errors: ENOENT; ENOTDIR where a slash asks for a directory."""
        node = self.node
        if node is None:
            raise VfsError(ENOENT)
        if self.slash and node.vtype != _VDIR:
            raise VfsError(ENOTDIR)
        return node


class Paths:
    """The paths of one session: who walks, below which root, and where relative ones begin.

    `root` is pinned by whoever owns this. `start` is canonical; the root's is empty.
    """

    def __init__(self, export: Export, cred: Cred, root: Node, start: bytes = b"") -> None:
        self._export = export
        self._server = export.server
        self._nodes = export.nodes
        self._cred = cred
        self._root = root
        self._remembered = export.remembered(cred, root)
        self.start = start

    def place(self, path: bytes) -> tuple[Node, bytes] | None:
        """Return the directory and the name in it of a path, if that is known without a walk."""
        if path[:1] != b"/":
            path = self.start + b"/" + path
        head, _, name = path.rpartition(b"/")
        if name in _SPECIAL:
            return None
        known = self._remembered.directory(head)
        return None if known is None else (known[0], name)

    async def find(self, path: bytes, turn: Turn | None, how: int) -> Found:
        """Walk to the end of `path`; `turn` hears how the walk gets on.

        Errors, first match wins:
            ENOENT        the path is empty, or a directory in it does not exist
            ENAMETOOLONG  the path has PATH_MAX octets or more, or a name in it more than NAME_MAX
            ENOTDIR       what should be a directory is none
            ELOOP         more than LINKS_MAX links
            other         what the file server says, EACCES above all
        """
        if not path:
            raise VfsError(ENOENT)
        if path[:1] != b"/":
            path = self.start + b"/" + path
        if len(path) >= PATH_MAX:
            raise VfsError(ENAMETOOLONG)
        if not self._server.names_hold():
            self._export.names_changed()
        found = Found(self._export)
        try:
            head, _, name = path.rpartition(b"/")
            known = None if name in _SPECIAL else self._remembered.directory(head)
            if known is None:
                if turn is not None:
                    await turn.widen()
                await _Walk(self, found, turn, how).begin(path)
                return found
            # The fast path: one lookup in a directory that is known, which pins it.
            if len(name) > NAME_MAX:
                raise VfsError(ENAMETOOLONG)
            parent = found.parent = known[0]
            parent.pins += 1
            found._pins.append(parent)
            found.head, found.name = head, name
            if turn is not None and turn.placed(parent, name):
                await turn.replaced(parent, name)
            if how == BARE:
                return found
            node = self._remembered.name(parent, name)
            if node is not None:
                found.pin(node)
            else:
                changes = self._export.changes
                cn = _new(Componentname, (_LOOKUP, name, self._cred, ISLASTCN))
                info = await self._server.lookup(parent.cookie, cn)
                if info.cookie:
                    node = self._nodes.absorb(info)
                    found._pins.append(node)
                    found.info = info
                    if info.cn_ttl and changes == self._export.changes:
                        self._remembered.put_name(parent, name, node, info.cn_ttl)
            if how == FOLLOW and node is not None and node.vtype == _VLNK:
                found.info = None
                if turn is not None:
                    await turn.widen()
                await _Walk(self, found, turn, how).go_on(head, known, node)
                return found
            found.node = node
            if turn is not None:
                turn.found(node)
        except BaseException:
            found.__exit__()
            raise
        return found

    def componentname(self, name: bytes, nameiop: int = _LOOKUP) -> Componentname:
        """Return what a file server is asked to find or to change."""
        return _new(Componentname, (nameiop, name, self._cred, ISLASTCN))  # type: ignore[no-any-return]


class _Walk:
    """One walk, name by name. `_dirs[i]` is the directory at the first i of `_names`.

    A directory that was found by its path is known without those above it: None stands for them
    until ".." asks for one.
    """

    def __init__(self, paths: Paths, found: Found, turn: Turn | None, how: int) -> None:
        self._paths = paths
        self._server = paths._server
        self._root = paths._root
        self._remembered = paths._remembered
        self._changes = paths._export.changes
        self._found = found
        self._turn = turn
        self._how = how
        self._names: list[bytes] = []
        self._dirs: list[Node | None] = [self._root]
        self._pending: list[bytes] = []
        """Names that are still to be walked, the next one last."""
        self._expiry = FOREVER
        self._links = 0

    async def begin(self, path: bytes) -> None:
        """Walk an absolute path."""
        names = [name for name in path.split(b"/") if name]
        self._found.slash = path.endswith(b"/") and bool(names)
        if b".." not in names and b"." not in names:
            for length in range(len(names) - 1, 0, -1):
                known = self._remembered.directory(b"/" + b"/".join(names[:length]))
                if known is not None:
                    self._stand(names[:length], known)
                    names = names[length:]
                    break
        self._pending = names[::-1]
        await self._run()

    async def go_on(self, head: bytes, known: tuple[Node, int], link: Node) -> None:
        """Follow a link that was found in the directory at `head`."""
        self._found.parent = None
        self._stand(head.split(b"/")[1:], known)
        await self._follow(link)
        await self._run()

    def _stand(self, names: list[bytes], known: tuple[Node, int]) -> None:
        """Be in a directory that is known by its path."""
        node, self._expiry = known
        self._names = names
        if names:
            self._dirs = [self._root, *[None] * (len(names) - 1), self._found.pin(node)]

    def _restart(self) -> None:
        """Be in the root, with the names that led here still to be walked."""
        self._pending += reversed(self._names)
        self._names, self._dirs, self._expiry = [], [self._root], FOREVER

    async def _run(self) -> None:
        found, pending, server = self._found, self._pending, self._server
        last = b"/"
        while pending:
            name = pending.pop()
            if name == b".":
                last = name
                continue
            if name == b"..":
                last = name
                if self._names:
                    self._names.pop()
                    self._dirs.pop()
                continue
            if len(name) > NAME_MAX:
                raise VfsError(ENAMETOOLONG)
            parent = self._dirs[-1]
            if parent is None:
                pending.append(name)
                self._restart()
                continue
            if not pending:
                if await self._last(parent, name):
                    return
                continue
            info = await server.lookup(parent.cookie, self._paths.componentname(name))
            if not info.cookie:
                raise VfsError(ENOENT)
            node = found.absorb(info)
            if node.vtype == _VLNK:
                await self._follow(node)
            elif node.vtype != _VDIR:
                raise VfsError(ENOTDIR)
            else:
                self._enter(node, parent, name, info.cn_ttl)
        if self._dirs[-1] is None:
            self._restart()
            # All that is left are names; where they end in a link now, somebody moves things.
            await self._run()
            return
        found.name, found.head = last, self._head()
        found.node = self._dirs[-1]
        if self._turn is not None:
            self._turn.found(found.node)

    async def _last(self, parent: Node, name: bytes) -> bool:
        """Deal with the last name; return whether the walk is over."""
        found, turn = self._found, self._turn
        if turn is not None and turn.placed(parent, name):
            await turn.replaced(parent, name)
        node = info = None
        if self._how != BARE:
            info = await self._server.lookup(parent.cookie, self._paths.componentname(name))
            if info.cookie:
                node = found.absorb(info)
                is_followed = self._how == FOLLOW or (self._how == STAY and found.slash)
                if node.vtype == _VLNK and is_followed:
                    await self._follow(node)
                    return False
        found.parent, found.name, found.head = parent, name, self._head()
        found.node, found.info = node, info
        if turn is not None:
            turn.found(node)
        return True

    async def _follow(self, link: Node) -> None:
        self._links += 1
        if self._links > LINKS_MAX:
            raise VfsError(ELOOP)
        if self._turn is not None:
            await self._turn.widen()
        target = await self._server.readlink(link.cookie, self._paths._cred)
        if not target or b"\0" in target:
            raise VfsError(ENOENT)
        if len(target) >= PATH_MAX:
            raise VfsError(ENAMETOOLONG)
        if not self._pending and target.endswith(b"/"):
            self._found.slash = True
        self._pending += [name for name in reversed(target.split(b"/")) if name]
        if target.startswith(b"/"):
            self._names, self._dirs, self._expiry = [], [self._root], FOREVER

    def _enter(self, node: Node, parent: Node, name: bytes, ttl: int) -> None:
        self._names.append(name)
        self._dirs.append(node)
        remembered = self._remembered
        self._expiry = min(self._expiry, remembered.clock() + ttl)
        if self._changes == self._paths._export.changes:
            remembered.put_directory(self._head(), node, parent, name, self._expiry)

    def _head(self) -> bytes:
        return b"".join([b"/" + name for name in self._names])
