"""The octets and nodes that operations take from a quota, and give back.

Octets are reserved before a write that makes a file longer; what the write did not use, because it
failed, was cancelled, or others cut the file meanwhile, is given back when nothing is under way at
the file and its size could be asked for. The ledger may so count too much for a moment, and never
too little.

What is removed while somebody has it open counts until it is closed: else files without a name
would be beyond the quota. A name's octets are given back once, whatever races there are.

With a quota no hard links are made (EPERM): SFTP servers do not say how many names a file has, so
that nobody could tell when its last one goes. Those that others have made are counted once where
link counts are told.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from ...native.constants import IO_APPEND, Vtype
from ...native.errors import VfsError
from ...native.records import FSCRED, Buffer, Cookie, Cred, Newinfo, Vattr
from ..ops import FileServer
from .ledger import Ledger
from .nodes import Node
from .outcome import is_refusal

_log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_SECONDS: Final = 5.0
"""How long the size of a file may take to be known after a write that failed or was cancelled."""


class Quota:
    """Keeps `ledger` right while operations go on at `server`."""

    def __init__(self, server: FileServer, ledger: Ledger) -> None:
        self._server = server
        self.removals = 0
        """How much was taken off the ledger."""
        self.ledger = ledger

    # Making.

    async def making(self, make: Callable[[], Awaitable[Newinfo]]) -> Newinfo:
        """Do what makes one node. Errors: EDQUOT; those of making it."""
        self.ledger.reserve(files=1)
        try:
            return await make()
        except BaseException as exc:
            if is_refusal(exc):
                self.ledger.give(files=1)
            else:
                self.ledger.is_unsure = True  # it may have been made
            raise

    # Sizes.

    async def write(self, node: Node, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Write, having reserved what makes the file longer. Errors: EDQUOT; those of write."""
        size = await self._known_size(node)
        # No await until the reservation stands in the node.
        start = size if ioflag & IO_APPEND else offset
        end = start + len(data)
        if end > size:
            self.ledger.reserve(octets=end - size)
            node.size = end
        await self._changing(
            node, lambda: self._server.write(Cookie(node.cookie), offset, data, ioflag, cred)
        )

    async def setattr(self, node: Node, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change attributes with a size among them. Errors: EDQUOT; those of setattr."""
        new = va.size
        assert new is not None
        size = await self._known_size(node)
        if new > size:
            self.ledger.reserve(octets=new - size)
            node.size = new
        if node.in_flight:
            node.is_unsettled = True

        async def change() -> tuple[Vattr, int]:
            version = node.version
            answer = await self._server.setattr(Cookie(node.cookie), va, cred)
            if node.version != version:
                node.is_unsettled = True  # which came first is not known
            elif node.size is not None and new < node.size:
                self.ledger.give(octets=node.size - new)
                node.size = new
            return answer

        return await self._changing(node, change)

    async def allocate(self, node: Node, end: int, change: Callable[[], Awaitable[None]]) -> None:
        """Do what may make a file as long as `end`, octets, or shorter."""
        size = await self._known_size(node)
        if end > size:
            self.ledger.reserve(octets=end - size)
            node.size = end
        node.is_unsettled = True
        await self._changing(node, change)

    async def _changing(self, node: Node, change: Callable[[], Awaitable[T]]) -> T:
        node.in_flight += 1
        node.version += 1
        try:
            return await change()
        except BaseException:
            node.is_unsettled = True
            raise
        finally:
            node.in_flight -= 1
            node.version += 1
            if node.is_unsettled and not node.in_flight:
                await self._settle(node)
            self._rest(node)

    async def _known_size(self, node: Node) -> int:
        """Return the size that is counted for a file; the server is asked for it first."""
        while node.size is None:
            version = node.version
            va, _ = await self._server.getattr(Cookie(node.cookie), FSCRED)
            if node.size is None and node.version == version:
                node.size = va.size or 0
                if node.is_nameless:
                    # What it had when it lost its name has been given back.
                    self.ledger.correct(octets=node.size)
                    node.is_orphan = True
        return node.size

    async def _settle(self, node: Node) -> None:
        """Correct the ledger by what a file's size really is."""
        version = node.version
        try:
            with trio.move_on_after(SETTLE_SECONDS, shield=True):
                va, _ = await self._server.getattr(Cookie(node.cookie), FSCRED)
                if node.version == version and node.size is not None:
                    size = va.size or 0
                    self.ledger.correct(octets=size - node.size)
                    node.size = size
                    node.is_unsettled = False
                return
        except VfsError as exc:
            _log.info("a file's size is not known after a write: %s", exc)
        self.ledger.is_unsure = True

    # Ends.

    async def removing(self, node: Node, remove: Callable[[], Awaitable[T]]) -> T:
        """Do what removes a name of `node`, and give back what has gone with it."""
        is_last, size = True, 0
        if node.vtype == Vtype.VREG:
            va, _ = await self._server.getattr(Cookie(node.cookie), FSCRED)
            is_last, size = va.nlink is None or va.nlink <= 1, va.size or 0
        try:
            answer = await remove()
        except BaseException as exc:
            if not is_refusal(exc):
                self.ledger.is_unsure = True  # it may have gone
            raise
        if is_last and not node.given_at:
            self.removals += 1
            node.given_at = self.removals
            node.is_orphan = True
            self.ledger.give(files=1)
            if node.size is None:
                node.size = size
            self._rest(node)
        return answer

    def closed(self, node: Node) -> None:
        """Hear that an open has ended."""
        self._rest(node)

    def found(self, node: Node, info: Newinfo) -> None:
        """Hear that a name leads to a node that was given back: that was wrong."""
        node.given_at = 0
        self.ledger.correct(files=1)
        if node.is_orphan:
            node.is_orphan = False
        elif info.vtype == Vtype.VREG:
            self.ledger.correct(octets=info.size)

    def _rest(self, node: Node) -> None:
        """Forget a file's size when nobody uses it: others may change it."""
        if node.opens or node.in_flight or node.size is None:
            return
        if node.is_orphan:
            node.is_orphan = False
            self.ledger.give(octets=node.size)
        if node.given_at or not node.is_unsettled:
            node.size = None
