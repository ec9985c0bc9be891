"""Forgetting on demand: SIGHUP and puffsctl, and a connection that has ended for good."""

from __future__ import annotations

from ....native.constants import FlushOp, Vtype
from ....native.records import Cookie
from ..mount.attrcache import AttrCache
from ..tree.node import CHECKED_NEVER, DirectoryNode, Node


class Forgetting(AttrCache):
    """The part of the server that drops what is remembered."""

    async def forget(self, path: bytes = b"") -> None:
        """Drop what is remembered of `path` (from the root of the mount, empty: of all) and of what
        lies below, and have the kernel above do the same (SIGHUP, puffsctl).

        Nodes, file ids, open files and unacknowledged writes stay. Must not be called from
        inside an operation.
        """
        table = self.table
        top: Node = table.root
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        for at, name in enumerate(names):
            child = table.child(top, name) if isinstance(top, DirectoryNode) else None
            if at == len(names) - 1 or child is None:
                if isinstance(top, DirectoryNode):
                    self.doubt(top)
                if child is None:
                    # Nothing is known of it but, perhaps, that it is not there.
                    await self.flusher.flush_name(top.cookie, name)
                    return
                await self.flusher.flush_name(top.cookie, name)
            top = child
        self.prefetch.drop()
        self.opening.drop()
        flushes: list[tuple[FlushOp, Cookie]] = []
        for node in [top] if top.vtype != Vtype.VDIR else list(table.nodes.values()):
            if top is table.root or table.is_ancestor(top, node):
                self._forget_node(node)
                if names and node.vtype == Vtype.VDIR:
                    flushes.append((FlushOp.INVAL_NAMECACHE_DIR, node.cookie))
                kind = (
                    FlushOp.INVAL_PAGECACHE_NODE_RANGE
                    if node.vtype == Vtype.VREG
                    else FlushOp.INVAL_ATTR_NODE
                )
                flushes.append((kind, node.cookie))
        for entry in table.told.values():
            if top is table.root or table.is_ancestor(top, entry.directory):
                kind = (
                    FlushOp.INVAL_PAGECACHE_NODE_RANGE
                    if entry.vtype == Vtype.VREG
                    else FlushOp.INVAL_ATTR_NODE
                )
                flushes.append((kind, Cookie(entry.fileid)))
        if not names:
            flushes.insert(0, (FlushOp.INVAL_NAMECACHE_ALL, table.root.cookie))
        await self.flusher.flush_all(flushes)

    def _forget_node(self, node: Node) -> None:
        node.expiry = node.name_expiry = 0
        node.target = None
        node.checked_at = -CHECKED_NEVER
        node.known_data = None
        if isinstance(node, DirectoryNode):
            self.doubt(node)
            if node.listing is not None:
                node.listing.heard, node.listing.attr_expiry = -CHECKED_NEVER, 0
        if node.file is not None:
            node.file.drop_blocks()
