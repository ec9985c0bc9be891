"""Joined: what concerns all trees at once, and what they say of their own accord."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from errno import EOPNOTSUPP, ESTALE
from functools import reduce
from operator import and_
from typing import Final, TypeVar

import trio

from ...native.constants import MNT_FORCE, FlushOp, KFlag, VnOp
from ...native.errors import VfsError
from ...native.records import Cookie, Cred, Kargs, Newinfo, Statvfs
from ..ops import FileServer, Upcalls
from .naming import PATIENCE, Naming
from .nodes import Tree
from .places import Place, planted
from .skeleton import Skeleton

_R = TypeVar("_R")

_UNIT: Final = 4096
_INDEX: Final = 2
"""How many octets of a file handle say whose it is."""
_ANY: Final = KFlag.NOCACHE_NAME | KFlag.NOCACHE_PAGE | KFlag.NOCACHE_ATTR | KFlag.WTCACHE


class Joined(Naming):
    """The trees at `trees`' paths under one root. Made by `joined`.

    The trees stay whose they were, but it is here that they are attached and unmounted. Each is
    asked about itself alone: one that hangs or has ended is found to by those who go there.
    """

    def __init__(self, trees: Mapping[bytes, FileServer]) -> None:
        super().__init__()
        places = list(planted(trees))
        ours = [place for place in places if place.server is None]
        skeleton = Tree(Skeleton([len(place.children) for place in ours]), 0)
        self._trees: list[Tree] = []
        for place in places:
            if place.server is None:
                tree, cookie = skeleton, Cookie(ours.index(place) + 1)
            else:
                tree, cookie = Tree(place.server, len(self._trees)), place.server.kargs.root.cookie
                self._trees.append(tree)
            self.node_of[place] = self.nodes.root(tree, cookie, place)
        self._upcalls: Upcalls | None = None
        self._kargs = self._told(places)

    def _told(self, places: list[Place]) -> Kargs:
        of_all = [place.server.kargs for place in places if place.server is not None]
        kflags = KFlag(0)
        for kargs in of_all:
            kflags |= kargs.kflags & _ANY
        for flag in (KFlag.IAONDEMAND, KFlag.CACHE_FS_TTL):
            if all(kargs.kflags & flag for kargs in of_all):
                kflags |= flag
        return Kargs(
            typename=f"joined({'+'.join(kargs.typename for kargs in of_all)})",
            mntfromname=b"joined",
            root=self.info_of(places[0])._replace(cn_ttl=0),
            kflags=kflags,
            ops=frozenset({VnOp.RECLAIM}).union(*(kargs.ops for kargs in of_all)),
            maxmsglen=min(kargs.maxmsglen for kargs in of_all),
        )

    @property
    def kargs(self) -> Kargs:
        """See FileServer. What one tree cannot stand is kept from all; it has no common name."""
        return self._kargs

    def attach(self, upcalls: Upcalls) -> None:
        """See FileServer."""
        self._upcalls = upcalls
        for tree in self._trees:
            tree.server.attach(_FromTree(self, tree))

    def error_note(self, kind: int, errno: int, text: str, cookie: Cookie) -> None:
        """See FileServer. Goes to the tree whose node it is about."""
        node = self.nodes.known(cookie)
        if node is not None:
            node.server.error_note(kind, errno, text, node.cookie)

    def names_hold(self) -> bool:
        """See FileServer. Each is asked: each tells its news once."""
        held = [tree.server.names_hold() for tree in self._trees if not tree.is_ended]
        return all(held)

    # From a tree, to whoever is above.

    async def flush(
        self, tree: Tree, op: FlushOp, cookie: Cookie, start: int, end: int, name: bytes
    ) -> None:
        """Hand a flush on. What is said of all of a tree is said of everything."""
        if self._upcalls is None:
            return
        node = tree.nodes.get(cookie)
        if node is not None:
            await self._upcalls.flush(op, node.outer, start, end, name)
        elif not cookie:
            await self._upcalls.flush(op, cookie, start, end, name)

    def request_unmount(self, tree: Tree) -> None:
        """Hand the wish to end on when every tree has it: until then the others are of use."""
        tree.wants_unmount = True
        if self._upcalls is not None and all(tree.wants_unmount for tree in self._trees):
            self._upcalls.unmount()

    # All of them.

    async def _ask_all(
        self, ask: Callable[[Tree], Awaitable[_R]], *, patience: float
    ) -> tuple[list[_R], list[VfsError]]:
        """Ask all trees at once; return what came within `patience` seconds, errors beside it."""
        answers: list[_R] = []
        errors: list[VfsError] = []

        async def one(tree: Tree) -> None:
            try:
                answers.append(await ask(tree))
            except VfsError as exc:
                errors.append(exc)

        with trio.move_on_after(patience):
            async with trio.open_nursery() as nursery:
                for tree in self._trees:
                    if not tree.is_ended:
                        nursery.start_soon(one, tree)
        return answers, errors

    async def statvfs(self) -> Statvfs:
        """Return the sum of all that answer in time; errors only where none does.

        Trees on one file system (the same `fsid`, not 0) count once.
        """
        states, errors = await self._ask_all(lambda tree: tree.server.statvfs(), patience=PATIENCE)
        if not states and errors:
            raise errors[0]
        distinct = {state.fsid or -index: state for index, state in enumerate(states, 1)}
        return _sum(list(distinct.values()))

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """See FileServer. All are synced side by side; then the first error is raised."""
        _, errors = await self._ask_all(
            lambda tree: tree.server.sync(waitfor, cred), patience=float("inf")
        )
        if errors:
            raise errors[0]

    async def unmount(self, flags: int) -> None:
        """See FileServer. All are unmounted side by side; then the first error is raised.

        After a veto the trees that had none are gone (ESTALE), and the next call asks the others.
        A tree that hangs makes this hang when the others are done: the caller has the patience.
        """

        async def end(tree: Tree) -> None:
            await tree.server.unmount(flags)
            self.nodes.end(tree)

        _, errors = await self._ask_all(end, patience=float("inf"))
        if errors and not flags & MNT_FORCE:
            raise errors[0]

    async def fhtonode(self, handle: bytes) -> Newinfo:
        """See FileServer."""
        index = int.from_bytes(handle[:_INDEX], "big")
        if len(handle) <= _INDEX or index >= len(self._trees) or self._trees[index].is_ended:
            raise VfsError(ESTALE)
        tree = self._trees[index]
        return self.nodes.absorb(tree, await tree.server.fhtonode(handle[_INDEX:]))

    async def nodetofh(self, opc: Cookie) -> bytes:
        """See FileServer. Directories of ours have none: EOPNOTSUPP."""
        node = self.nodes.node(opc)
        handle = await node.server.nodetofh(node.cookie)
        return node.tree.index.to_bytes(_INDEX, "big") + handle

    async def extattrctl(self, cmd: int, opc: int, namespace: int, name: bytes) -> None:
        """See FileServer. Errors: EOPNOTSUPP for all at once."""
        if not opc:
            raise VfsError(EOPNOTSUPP)
        node = self.nodes.node(opc)
        await node.server.extattrctl(cmd, node.cookie, namespace, name)


class _FromTree:
    """The Upcalls of one tree."""

    def __init__(self, above: Joined, tree: Tree) -> None:
        self._above = above
        self._tree = tree

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        await self._above.flush(self._tree, op, cookie, start, end, name)

    def unmount(self) -> None:
        self._above.request_unmount(self._tree)


def _sum(states: list[Statvfs]) -> Statvfs:
    """Return the states of several file systems as that of one, in units of 4 KiB."""

    def octets(field: str) -> int:
        return sum(getattr(state, field) * (state.frsize or state.bsize) for state in states)

    if not states:
        return Statvfs()
    return Statvfs(
        bsize=_UNIT,
        frsize=_UNIT,
        blocks=octets("blocks") // _UNIT,
        bfree=octets("bfree") // _UNIT,
        bavail=octets("bavail") // _UNIT,
        files=sum(state.files for state in states),
        ffree=sum(state.ffree for state in states),
        favail=sum(state.favail for state in states),
        flag=reduce(and_, (state.flag for state in states)),  # read-only where all are
        namemax=min(state.namemax for state in states),
    )


def joined(trees: Mapping[bytes, FileServer]) -> FileServer:
    """Return a file server with each of `trees` at its path; one alone at "/" as it is.

    Errors: ValueError for no tree at all, and for paths as `planted`.
    """
    if not trees:
        raise ValueError("nothing to join")
    if list(trees) == [b"/"]:
        return trees[b"/"]
    return Joined(trees)
