"""The operations on names: they stay within one tree, and leave the names of places alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from errno import EBUSY, EEXIST, EOVERFLOW, EXDEV
from typing import Final

import trio

from ...native.constants import READDIR_PLUS, TTL_FOREVER, Setback, Vtype
from ...native.errors import VfsError
from ...native.records import Componentname, Cookie, Cred, Dirent, Newinfo, Vattr
from .nodeops import NodeOperations
from .nodes import Node
from .places import Place

PATIENCE: Final = 1.0
"""How long a listing waits for the attributes of the trees in it, seconds: one that hangs is shown
as it was last seen."""

_DIRENT_HEAD: Final = 24
_OFFSET_MAX: Final = (1 << 63) - 1
_UNSEEN: Final = Vattr(
    vtype=Vtype.VDIR,
    mode=0o755,
    nlink=2,
    uid=0,
    gid=0,
    size=0,
    atime=0,
    mtime=0,
    ctime=0,
    bytes=0,
)
"""What is shown of a tree that has never answered."""


class Naming(NodeOperations):
    """The part of the server that works on names. `node_of` says which node a place has."""

    def __init__(self) -> None:
        super().__init__()
        self.node_of: dict[Place, Node] = {}

    def info_of(self, place: Place) -> Newinfo:
        """Return what a lookup of a place answers: it is there for ever."""
        return Newinfo(self.node_of[place].outer, Vtype.VDIR, cn_ttl=TTL_FOREVER)

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """See FileServer. Above the root of a tree is the place above it."""
        node = self.nodes.node(opc)
        place = node.place
        if place is not None:
            if cn.name == b"..":
                return self.info_of(place.parent or place)
            child = place.children.get(cn.name)
            if child is not None:
                return self.info_of(child)
        return self.nodes.absorb(node.tree, await node.server.lookup(node.cookie, cn))

    def _place_for(self, opc: Cookie, cn: Componentname) -> Node:
        """Return the directory in which something new is to get a name. Errors: EEXIST."""
        node = self.nodes.node(opc)
        if node.place is not None and cn.name in node.place.children:
            raise VfsError(EEXIST)
        return node

    def _place_of(self, opc: Cookie, cn: Componentname) -> Node:
        """Return the directory in which a name is to go. Errors: EBUSY for a place's."""
        node = self.nodes.node(opc)
        if node.place is not None and cn.name in node.place.children:
            raise VfsError(EBUSY, "a tree hangs there, or below")
        return node

    def _in_tree_of(self, directory: Node, opc: Cookie, errno: int) -> Node:
        """Return a node that must be of the directory's tree."""
        node = self.nodes.node(opc)
        if node.tree is not directory.tree:
            raise VfsError(errno)
        return node

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer. Errors before others: EEXIST for the name of a place, as for all new."""
        node = self._place_for(opc, cn)
        return self.nodes.absorb(node.tree, await node.server.create(node.cookie, cn, va))

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        node = self._place_for(opc, cn)
        return self.nodes.absorb(node.tree, await node.server.mknod(node.cookie, cn, va))

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """See FileServer."""
        node = self._place_for(opc, cn)
        return self.nodes.absorb(node.tree, await node.server.mkdir(node.cookie, cn, va))

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """See FileServer."""
        node = self._place_for(opc, cn)
        made = await node.server.symlink(node.cookie, cn, va, target)
        return self.nodes.absorb(node.tree, made)

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """See FileServer. Errors before others: EEXIST, EXDEV for a node of another tree."""
        node = self._place_for(opc, cn)
        linked = self._in_tree_of(node, targ, EXDEV)
        return await node.server.link(node.cookie, linked.cookie, cn)

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer. Errors before others: EBUSY for the name of a place."""
        node = self._place_of(opc, cn)
        victim = self._in_tree_of(node, targ, EBUSY)
        setback = await node.server.remove(node.cookie, victim.cookie, cn)
        return _noted(setback, node, victim)

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """See FileServer. Errors before others: EBUSY for the name of a place."""
        node = self._place_of(opc, cn)
        victim = self._in_tree_of(node, targ, EBUSY)
        setback = await node.server.rmdir(node.cookie, victim.cookie, cn)
        return _noted(setback, node, victim)

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        """See FileServer.

        Errors before others: EXDEV from one tree to another; EBUSY for the name of a place.
        """
        source, target = self.nodes.node(opc), self.nodes.node(targ_dir)
        if source.tree is not target.tree:
            raise VfsError(EXDEV)
        self._place_of(opc, cn_src)
        self._place_of(targ_dir, cn_targ)
        moved = self._in_tree_of(source, src, EBUSY)
        replaced = None if targ is None else self._in_tree_of(source, targ, EBUSY)
        await source.server.rename(
            source.cookie,
            moved.cookie,
            cn_src,
            target.cookie,
            None if replaced is None else replaced.cookie,
            cn_targ,
        )

    # Listing.

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """See FileServer. At a place the places below come first, then what the tree has.

        With n places, offsets 0 to n - 1 are these, and n more than its own those of the tree, but
        for the largest there is, with which ext4 marks its end: that one stays as it is.
        Errors: EOVERFLOW for others that are too large for that.
        """
        node = self.nodes.node(opc)
        children = {} if node.place is None else node.place.children
        if offset < len(children):
            entries = self._places(sorted(children.items()), offset, resid)
            if flags & READDIR_PLUS:
                return await self._shown(entries, cred), False
            return [entry._replace(newinfo=None) for entry in entries], False
        start, is_end = offset, False
        if offset != _OFFSET_MAX:
            start -= len(children)
        shown: list[Dirent] = []
        while not shown and not is_end:
            found, is_end = await node.server.readdir(node.cookie, start, resid, flags, cred)
            if found:
                start = found[-1].offset
                shown = self._translated(node, found, children)
        if shown and children:
            self._check_offsets(shown)
        return shown, is_end

    def _places(
        self, children: Sequence[tuple[bytes, Place]], offset: int, resid: int
    ) -> list[Dirent]:
        """Return the entries of places from the one at `offset` on, as many as `resid` allows."""
        entries: list[Dirent] = []
        for after, (name, place) in enumerate(children[offset:], offset + 1):
            resid -= _DIRENT_HEAD + len(name)
            if entries and resid < 0:
                break
            info = self.info_of(place)
            entries.append(Dirent(info.cookie, Vtype.VDIR, name, after, info))
        return entries

    def _translated(
        self, node: Node, found: Sequence[Dirent], children: Mapping[bytes, Place]
    ) -> list[Dirent]:
        """Return a tree's entries with our cookies and offsets, without those that are covered."""
        shown = []
        for entry in found:
            info = entry.newinfo
            if entry.name in children:
                if info is not None:
                    node.server.reclaim(info.cookie, 1)
                continue
            after = entry.offset
            if after != _OFFSET_MAX:
                after += len(children)
            if info is not None:
                info = self.nodes.absorb(node.tree, info)
            shown.append(entry._replace(offset=after, newinfo=info))
        return shown

    def _check_offsets(self, shown: Sequence[Dirent]) -> None:
        """Refuse entries, and give their nodes back, when an offset has become too large."""
        if max(entry.offset for entry in shown) <= _OFFSET_MAX:
            return
        for entry in shown:
            if entry.newinfo is not None:
                self.nodes.reclaim(entry.newinfo.cookie, 1)
        raise VfsError(EOVERFLOW)

    async def _shown(self, entries: list[Dirent], cred: Cred) -> list[Dirent]:
        """Return entries of places with attributes: those of now, where the tree is in time."""

        async def look(node: Node) -> None:
            try:
                node.va, _ = await node.server.getattr(node.cookie, cred)
            except VfsError:
                pass  # shown as it was last seen; who goes there hears of it

        nodes = [self.nodes.known(e.newinfo.cookie) for e in entries if e.newinfo is not None]
        with trio.move_on_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    if node is not None:
                        nursery.start_soon(look, node)
        shown = []
        for entry, node in zip(entries, nodes, strict=True):
            va = _UNSEEN if node is None or node.va is None else node.va
            assert entry.newinfo is not None
            fileid = va.fileid or entry.fileid
            shown.append(entry._replace(fileid=fileid, newinfo=entry.newinfo._replace(va=va)))
        return shown


def _noted(setback: int, node: Node, victim: Node) -> int:
    """Note who is to be told when it becomes unused; return the setback."""
    if setback & Setback.INACT_N1:
        node.wants_inactive = True
    if setback & Setback.INACT_N2:
        victim.wants_inactive = True
    return setback
