"""What the server tells of its own accord, passed up to the caches of whoever is above.

A flush may have to wait for the host, which may wait for an answer of this very server: so the
connection only notes what is to be flushed, and a task does it. What is noted twice is done once,
so there are never more notes than nodes, and NAMES_MAX names; beyond that all names are dropped.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from ...native import fuse_replies, fuse_requests
from ...native.constants import FlushOp, Vtype
from ...native.errors import RemoteProtocolError, VfsError
from ...native.fuse_protocol import InvalEntry, InvalInode, Retrieve, Store
from ..ops import Upcalls
from .connection import Connection
from .nodes import Node, NodeTable

_log = logging.getLogger(__name__)

NAMES_MAX: Final = 1024


class Notices:
    """Notes of what is to be flushed above. Made with the server, which runs `serve`."""

    def __init__(self) -> None:
        self.nodes: NodeTable
        self.connection: Connection
        self.upcalls: Upcalls | None = None
        self._names: dict[tuple[Node, bytes], None] = {}
        self._all_names = False
        self._pages: dict[Node, tuple[int, int]] = {}
        self._attrs: dict[Node, None] = {}
        self._wake = trio.Event()

    def notified(self, code: int, body: memoryview) -> None:
        """Take a notification; what makes no sense, or concerns nobody, is passed over."""
        try:
            notice = fuse_replies.notification(body, code)
        except RemoteProtocolError as exc:
            self.connection.complain("notified nonsense: %s", exc)
            return
        if isinstance(notice, Retrieve):
            # Our pages are above, each kept by who can ask for it again: there are none to give.
            self.connection.tell(
                fuse_requests.notify_reply,
                *(notice.nodeid, notice.offset, 0),
                unique=notice.unique,
            )
            return
        if notice is None:
            return
        if isinstance(notice, InvalEntry):
            self._note_name(self.nodes.by_nodeid(notice.parent), notice.name)
        elif isinstance(notice, InvalInode) and notice.offset < 0:
            self._note_attrs(self.nodes.by_nodeid(notice.nodeid))
        elif isinstance(notice, (InvalInode, Store)):
            end = notice.offset + notice.length if notice.length > 0 else 0
            self._note_pages(self.nodes.by_nodeid(notice.nodeid), notice.offset, end)
        self._wake.set()

    def _note_name(self, parent: Node | None, name: bytes) -> None:
        if parent is None or parent.vtype != Vtype.VDIR:
            return
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
            self._all_names = True
        self._names[parent, name] = None

    def _note_attrs(self, node: Node | None) -> None:
        if node is not None:
            self._attrs[node] = None

    def _note_pages(self, node: Node | None, start: int, end: int) -> None:
        """Note pages and attributes of a file; of what has no pages, its attributes."""
        if node is None:
            return
        self._attrs[node] = None
        if node.vtype != Vtype.VREG:
            return
        if node in self._pages:
            was_start, was_end = self._pages[node]
            start, end = min(start, was_start), max(end, was_end) if end and was_end else 0
        self._pages[node] = (start, end)

    async def serve(self) -> None:
        """Pass notes on, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.lowlevel.checkpoint()  # a reply before it may not have been taken in yet
            if self._all_names:
                self._all_names = False
                await self._flush(FlushOp.INVAL_NAMECACHE_ALL, self.nodes.root)
            names, self._names = self._names, {}
            for parent, name in names:
                await self._flush(FlushOp.INVAL_NAMECACHE_NAME, parent, name=name)
            pages, self._pages = self._pages, {}
            for node, (start, end) in pages.items():
                await self._flush(FlushOp.INVAL_PAGECACHE_NODE_RANGE, node, start, end)
            attrs, self._attrs = self._attrs, {}
            for node in attrs:
                await self._flush(FlushOp.INVAL_ATTR_NODE, node)

    async def _flush(
        self, op: FlushOp, node: Node, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        if self.upcalls is None or self.nodes.known(node.cookie) is not node:
            return
        try:
            await self.upcalls.flush(op, node.cookie, start, end, name)
        except VfsError as exc:
            _log.warning("a notification of the FUSE server was not passed on: %s", exc)
