"""A local tree, asked by paths, with a clock of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syspuffs.layers.local import Local, local_tree
from syspuffs.native.constants import READDIR_PLUS, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Dirent, Newinfo, Vattr, lookup_cn

SECOND = 10**9
US = Cred(os.geteuid(), os.getegid())
FILE = Vattr(Vtype.VREG, 0o644)
DIRECTORY = Vattr(Vtype.VDIR, 0o755)


class Clock:
    """Monotonic ns that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@contextmanager
def raises(*numbers: int) -> Iterator[None]:
    with pytest.raises(VfsError) as caught:
        yield
    assert caught.value.errno in numbers, str(caught.value)


class Tree:
    """A server over `place`, and short words for what tests do with it.

    Lookups are kept until `forget_all`, as by a kernel that remembers everything.
    """

    def __init__(self, server: Local, place: Path, clock: Clock) -> None:
        self.server = server
        self.place = place
        self.clock = clock
        self.root = server.kargs.root.cookie
        self.held: dict[Cookie, int] = {}

    def took(self, info: Newinfo) -> Cookie:
        if info.cookie and info.cookie != self.root:
            self.held[info.cookie] = self.held.get(info.cookie, 0) + 1
        return info.cookie

    def forget_all(self) -> None:
        for cookie, count in self.held.items():
            self.server.reclaim(cookie, count)
        self.held = {}

    async def walk(self, path: str) -> Cookie:
        """Return the cookie at a path; 0 when the last name is missing."""
        cookie = self.root
        for name in path.split("/"):
            if name:
                assert cookie, path
                info = await self.server.lookup(cookie, lookup_cn(os.fsencode(name), US))
                cookie = self.took(info)
        return cookie

    async def create(self, directory: Cookie, name: str, va: Vattr = FILE) -> Cookie:
        cn = lookup_cn(os.fsencode(name), US)
        make = self.server.mkdir if va.vtype == Vtype.VDIR else self.server.create
        return self.took(await make(directory, cn, va))

    async def read(self, cookie: Cookie, length: int = 1 << 20, offset: int = 0) -> bytes:
        return bytes(await self.server.read(cookie, offset, length, 0, US))

    async def attributes(self, cookie: Cookie) -> Vattr:
        va, ttl = await self.server.getattr(cookie, US)
        assert ttl == 0
        return va

    async def entries(
        self, cookie: Cookie, resid: int = 1024, flags: int = READDIR_PLUS
    ) -> list[Dirent]:
        found: list[Dirent] = []
        offset, is_end = 0, False
        while not is_end:
            some, is_end = await self.server.readdir(cookie, offset, resid, flags, US)
            assert some or is_end
            for entry in some:
                offset = entry.offset
                found.append(entry)
                if entry.newinfo is not None:
                    self.took(entry.newinfo)
        return found

    async def names(self, cookie: Cookie) -> list[bytes]:
        return sorted(entry.name for entry in await self.entries(cookie))


@contextmanager
def served(place: Path, *, ro: bool = False, fds_max: int | None = None) -> Iterator[Tree]:
    """Serve a directory; at the end nothing may be known of it but the root."""
    clock = Clock()
    with local_tree(bytes(place), ro=ro, fds_max=fds_max, clock=clock) as server:
        tree = Tree(server, place, clock)
        yield tree
        tree.forget_all()
        assert server.statistics()[:3] == (1, 0, 0), server.table.nodes
        assert server.statistics().watches <= 1  # the root's
