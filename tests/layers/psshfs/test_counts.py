"""Random operations, and all lookups that were given out are still known, and all names true."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.layers.psshfs.tree.node import DirectoryNode
from syspuffs.layers.psshfs.wire import pace
from syspuffs.native.constants import READDIR_PLUS, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Componentname, Cookie, Newinfo, Vattr, lookup_cn

from .harness import CRED, Clock, list_all, make, mounted, read_file, root_of

NAMES = [b"a", b"b", b"c", b"d"]
ASKING = ("list", "list", "look", "getattr", "read", "forget", "reclaim", "others", "wait")
CHANGING = ("make", "mknod", "mkdir", "symlink", "remove", "link", "rename", "chmod")
STEPS = 400


class Host:
    """A kernel above: it counts lookups, and holds a lock while it changes names."""

    def __init__(self, server: Psshfs, root: Path, clock: Clock, rng: random.Random) -> None:
        self.server = server
        self.root = root
        self.clock = clock
        self.rng = rng
        self.others = False
        self.held: Counter[Cookie] = Counter()
        self._kinds = {root_of(server): int(Vtype.VDIR)}
        self._used: Counter[Cookie] = Counter()
        self._readers = 0
        self._changed = trio.Condition()

    def note(self, info: Newinfo) -> Cookie:
        if info.cookie:
            self.held[info.cookie] += 1
            self._kinds[info.cookie] = info.vtype
        return info.cookie

    def pick(self, used: list[Cookie], *, is_directory: bool = False) -> Cookie:
        cookies = [
            cookie for cookie in self.held if not is_directory or self._kinds[cookie] == Vtype.VDIR
        ]
        cookie = self.rng.choice([*cookies, root_of(self.server)])
        self._used[cookie] += 1
        used.append(cookie)
        return cookie

    async def run(self) -> None:
        for _ in range(STEPS):
            name = self.rng.choice(ASKING + CHANGING)
            async with self._changed:
                while self._readers < 0 or (name in CHANGING and self._readers):
                    await self._changed.wait()
                self._readers = -1 if name in CHANGING else self._readers + 1
            used: list[Cookie] = []
            try:
                with suppress(VfsError):
                    await self.do(name, used)
            finally:
                self._used.subtract(used)
                async with self._changed:
                    self._readers = max(0, self._readers - 1)
                    self._changed.notify_all()

    async def do(self, what: str, used: list[Cookie]) -> None:
        server, rng = self.server, self.rng
        at = self.pick(used, is_directory=True)
        cn = lookup_cn(rng.choice(NAMES), CRED)
        if what == "list":
            resid = rng.choice([60, 200, 4096])
            for entry in await list_all(server, at, resid=resid, plus=rng.random() < 0.8):
                if entry.newinfo is not None:
                    self.note(entry.newinfo)
        elif what == "look":
            self.note(await server.lookup(at, cn))
        elif what == "getattr":
            await server.getattr(self.pick(used), CRED)
        elif what == "read":
            await read_file(server, self.pick(used))
        elif what == "forget":
            await server.forget(rng.choice([b"", b"a", b"a/b"]))
        elif what == "reclaim":
            self._reclaim()
        elif what == "others":
            if self.others:
                self._change_elsewhere()
        elif what == "wait":
            self.clock.advance(rng.choice([0.5, 2, 40, 70]))
        elif what == "make":
            self.note(await make(server, cn.name, b"x" * rng.randrange(9), directory=at))
        elif what == "mknod":
            self.note(await server.mknod(at, cn, Vattr(Vtype.VREG, 0o600)))
        elif what == "mkdir":
            self.note(await server.mkdir(at, cn, Vattr(Vtype.VDIR, 0o700)))
        elif what == "symlink":
            self.note(await server.symlink(at, cn, Vattr(Vtype.VLNK, 0o777), b"a"))
        elif what == "remove":
            await self._remove(at, cn)
        elif what == "link":
            await server.link(at, self.pick(used), cn)
        elif what == "rename":
            await self._rename(at, cn, self.pick(used, is_directory=True))
        elif what == "chmod":
            await server.setattr(self.pick(used), Vattr(mode=0o600 | rng.randrange(64)), CRED)

    async def _remove(self, at: Cookie, cn: Componentname) -> None:
        info = await self.server.lookup(at, cn)
        if self.note(info):
            remove = self.server.rmdir if info.vtype == Vtype.VDIR else self.server.remove
            await remove(at, info.cookie, cn)

    async def _rename(self, at: Cookie, cn: Componentname, to: Cookie) -> None:
        source = self.note(await self.server.lookup(at, cn))
        if source:
            new = lookup_cn(self.rng.choice(NAMES), CRED)
            target = self.note(await self.server.lookup(to, new))
            await self.server.rename(at, source, cn, to, target or None, new)

    def _reclaim(self) -> None:
        for cookie in self.rng.sample(sorted(self.held), min(len(self.held), 5)):
            if not self._used[cookie]:
                count = self.held[cookie] if self.rng.random() < 0.7 else 1
                self.held[cookie] -= count
                if not self.held[cookie]:
                    del self.held[cookie]
                self.server.reclaim(cookie, count)

    def _change_elsewhere(self) -> None:
        rng, path = self.rng, self.root
        for _ in range(rng.randrange(3)):
            below = path / os.fsdecode(rng.choice(NAMES))
            if below.is_dir() and not below.is_symlink():
                path = below
        path /= os.fsdecode(rng.choice(NAMES))
        changes: list[Callable[[], object]] = [
            lambda: path.write_bytes(b"y" * rng.randrange(99)),
            lambda: shutil.rmtree(path) if path.is_dir() else path.unlink(),
            path.mkdir,
            lambda: path.rename(path.with_name(os.fsdecode(rng.choice(NAMES)))),
        ]
        with suppress(OSError):
            rng.choice(changes)()

    def check(self) -> None:
        """All that was given out is known, as often; what is only listed is where it says."""
        table = self.server.table
        for cookie, count in self.held.items():
            if cookie != root_of(self.server):
                known = table.nodes.get(cookie) or table.told.get(cookie)
                assert known is not None
                assert known.nlookup == count
        told: Counter[DirectoryNode] = Counter()
        for entry in table.told.values():
            listing = entry.directory.listing
            assert listing is not None
            assert listing.entries[entry.name] is entry
            assert entry.packed is not None
            assert entry.name not in (entry.directory.children or {})
            told[entry.directory] += 1
        assert all(directory.told == count for directory, count in told.items())

    async def tree(self, cookie: Cookie) -> dict[bytes, object]:
        found: dict[bytes, object] = {}
        entries, _ = await self.server.readdir(cookie, 0, 4096, READDIR_PLUS, CRED)
        for entry in entries:
            if entry.newinfo is not None:
                below = entry.newinfo.cookie
                is_directory = entry.vtype == Vtype.VDIR
                size = (await self.server.getattr(below, CRED))[0].size
                found[entry.name] = await self.tree(below) if is_directory else size
        return found


def tree_of(path: Path) -> dict[bytes, object]:
    return {
        os.fsencode(at.name): (
            tree_of(at) if at.is_dir() and not at.is_symlink() else at.lstat().st_size
        )
        for at in path.iterdir()
    }


@pytest.mark.parametrize("is_far", [False, True])
@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("seed", range(12))
async def test_what_was_given_out_is_known(
    tmp_path: Path, seed: int, others: bool, is_far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    if is_far:
        monkeypatch.setattr(pace, "FAR", 0.0)
    clock = Clock()
    options = PsshfsOptions(names_max=rng.choice([4, 20, 1_000_000]))
    async with mounted(tmp_path, options=options, clock=clock) as server:
        host = Host(server, tmp_path, clock, rng)
        host.others = others
        async with trio.open_nursery() as nursery:
            for _ in range(rng.choice([1, 4])):
                nursery.start_soon(host.run)
        host.check()
        clock.advance(600)
        if not others:
            assert await host.tree(root_of(server)) == tree_of(tmp_path)
        await server.unmount(0)
