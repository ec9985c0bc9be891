"""compare: what is the same is the same, what differs is found, and nothing is owed in the end."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.compare import Compare, Mismatch
from syspuffs.layers.fault import Faulty, Rule, Rules
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.passing import Passing
from syspuffs.native.constants import FREAD, FWRITE, READDIR_PLUS, NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Buffer, Componentname, Cookie, Cred, Newinfo, Vattr, lookup_cn

from ...support.wander import CRED, FILE, wander


class Owed(Passing):
    """Keeps books about what it has given."""

    name = "owed"

    def __init__(self, below: FileServer) -> None:
        super().__init__(below)
        self.lookups: Counter[int] = Counter()
        self.opens = 0

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        return self._given(await self.below.lookup(opc, cn))

    async def create(self, opc: Cookie, cn: Componentname, va: Any) -> Newinfo:
        return self._given(await self.below.create(opc, cn, va))

    async def symlink(self, opc: Cookie, cn: Componentname, va: Any, target: bytes) -> Newinfo:
        return self._given(await self.below.symlink(opc, cn, va, target))

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Any) -> Newinfo:
        return self._given(await self.below.mkdir(opc, cn, va))

    def _given(self, info: Newinfo) -> Newinfo:
        self.lookups[info.cookie] += bool(info.cookie)
        return info

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        self.lookups[opc] -= nlookup
        self.below.reclaim(opc, nlookup)

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        found = await self.below.open(opc, mode, cred)
        self.opens += 1
        return found

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        self.opens -= 1
        self.below.close(opc, fflag, cred)


class Pair:
    """A Compare over two trees in memory, the second with rules."""

    def __init__(self, first: FileServer, second: FileServer, *, strict: bool) -> None:
        self.told: list[Mismatch] = []
        self.rules = Rules()
        self.owed = Owed(Faulty(second, self.rules))
        self.server = Compare(first, self.owed, self.told.append, strict=strict)
        self.root = self.server.kargs.root.cookie

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(found.operation.name, found.kind) for found in self.told]

    async def make(self, name: bytes = b"f") -> Cookie:
        cn = lookup_cn(name, CRED, NameiOp.CREATE)
        return (await self.server.create(self.root, cn, FILE)).cookie


@asynccontextmanager
async def pair(*, strict: bool = False, wrap: Any = None) -> AsyncIterator[Pair]:
    async with (
        p2k_over(TmpFs(mntfromname=b"none")) as first,
        p2k_over(TmpFs(mntfromname=b"none")) as second,
    ):
        made = Pair(first, second if wrap is None else wrap(second), strict=strict)
        yield made
        await made.server.unmount(0)


async def test_no_difference_and_no_debt() -> None:
    async with pair() as p:
        assert p.server.kargs.typename == "compare|p2k|tmpfs"
        await wander(p.server, 4000, 7)
        assert p.told == []
        assert p.server.compared > 1500
        assert (p.server.left_out, p.server.undecided, p.server.differed) == (0, 0, 0)
        assert not +p.owed.lookups
        assert p.owed.opens == 0


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        (Rule(op="read", flip=1), [("read", "data")]),
        (Rule(op="read", errno="EIO"), [("read", "errno")]),
        (Rule(op="write", torn=3), [("getattr", "attributes"), ("read", "data")]),
        (Rule(op="remove", lost=True), [("readdir", "names"), ("lookup", "type")]),
        (Rule(op="create", errno="ENOSPC"), [("create", "errno"), ("readdir", "names")]),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
async def test_differences(rule: Rule, kinds: list[tuple[str, str]], strict: bool) -> None:
    """Each is reported; the first one's answer is given, or with `strict` EIO."""
    async with pair(strict=strict) as p:
        p.rules.add(rule)
        failed = []

        async def tried(name: str, *args: Any) -> Any:
            try:
                return await getattr(p.server, name)(*args)
            except VfsError as exc:
                failed.append((name, exc.errno))
                return None

        cn = lookup_cn(b"f", CRED, NameiOp.CREATE)
        made = await tried("create", p.root, cn, FILE)
        if made is not None:
            await tried("open", made.cookie, FREAD | FWRITE, CRED)
            await tried("write", made.cookie, 0, b"contents", 0, CRED)
            await tried("getattr", made.cookie, CRED)
            data = await tried("read", made.cookie, 0, 100, 0, CRED)
            assert data is None or bytes(data) == b"contents"
            p.server.close(made.cookie, FREAD | FWRITE, CRED)
            if rule.op == "remove":
                cn = lookup_cn(b"f", CRED, NameiOp.DELETE)
                await tried("remove", p.root, made.cookie, cn)
            p.server.reclaim(made.cookie, 1)
        await tried("readdir", p.root, 0, 1000, 0, CRED)
        if rule.op == "remove":
            assert not (await p.server.lookup(p.root, lookup_cn(b"g", CRED))).cookie
            await tried("lookup", p.root, lookup_cn(b"f", CRED))
        assert p.kinds == kinds
        assert failed == ([(name, errno.EIO) for name, _ in kinds] if strict else [])
        p.rules.clear()
        assert not +p.owed.lookups
        assert p.owed.opens == 0


async def test_what_the_second_does_not_have_is_left_out() -> None:
    async with pair() as p:
        p.rules.add(Rule(op="create", errno="ENOSPC", nth=1))
        cookie = await p.make()
        await p.server.write(cookie, 0, b"data", 0, CRED)
        assert bytes(await p.server.read(cookie, 0, 10, 0, CRED)) == b"data"
        assert p.kinds == [("create", "errno")]
        assert p.server.left_out == 2
        p.server.reclaim(cookie, 1)


async def test_what_one_cannot_do_at_all_is_said_once() -> None:
    async with pair(strict=True) as p:
        cookie = await p.make()
        p.rules.add(Rule(op="setattr", errno="EOPNOTSUPP"))
        for _ in range(3):
            await p.server.setattr(cookie, Vattr(mode=0o600), CRED)
        assert p.kinds == [("setattr", "unsupported")]
        assert p.server.differed == 0
        p.server.reclaim(cookie, 1)


async def test_directories_in_pieces() -> None:
    async with pair() as p:
        for number in range(50):
            p.server.reclaim(await p.make(b"%d" % number), 1)

        async def list_all() -> int:
            offset, is_end, pieces = 0, False, 0
            while not is_end:
                entries, is_end = await p.server.readdir(p.root, offset, 300, READDIR_PLUS, CRED)
                offset = entries[-1].offset
                pieces += 1
                for entry in entries:
                    if entry.newinfo is not None and entry.newinfo.cookie != p.root:
                        p.server.reclaim(entry.newinfo.cookie, 1)
            return pieces

        assert await list_all() > 3
        assert p.told == []
        second = p.owed.below
        await second.create(second.kargs.root.cookie, lookup_cn(b"x", CRED, NameiOp.CREATE), FILE)
        await list_all()
        assert p.kinds == [("readdir", "names")]  # at the end, when all was seen
        assert p.told[0].second.value.names - p.told[0].first.value.names == {b"x"}
        p.owed.lookups.clear()


class Late(Passing):
    """Lets others go first, so that it sees another order than its sibling."""

    name = "late"

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        await self.below.write(opc, offset, data, ioflag, cred)


async def test_changes_at_the_same_time_are_no_differences() -> None:
    async with pair(wrap=Late) as p:
        cookie = await p.make()
        rounds = 30

        async def write() -> None:
            for number in range(rounds):
                await p.server.write(cookie, number * 10, b"0123456789", 0, CRED)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for _ in range(rounds * 3):
                await p.server.getattr(cookie, CRED)
                await p.server.lookup(p.root, lookup_cn(b"f", CRED))
                p.server.reclaim(cookie, 1)
                await trio.lowlevel.checkpoint()
        assert p.told == []
        assert p.server.undecided > 0
        await p.server.getattr(cookie, CRED)
        p.server.reclaim(cookie, 1)
        assert not +p.owed.lookups


async def test_who_gives_up_owes_nothing() -> None:
    async with pair() as p:
        cookie = await p.make()
        p.rules.add(Rule(op=["lookup", "open"], hang=True))
        for name, args in (
            ("lookup", (p.root, lookup_cn(b"f", CRED))),
            ("open", (cookie, FREAD, CRED)),
        ):
            with trio.move_on_after(0) as scope:
                await getattr(p.server, name)(*args)
            assert scope.cancelled_caught
        p.rules.clear()
        p.server.reclaim(cookie, 1)
        assert not +p.owed.lookups
        found = await p.server.lookup(p.root, lookup_cn(b"f", CRED))
        assert found.vtype == Vtype.VREG
        p.server.reclaim(found.cookie, 1)


async def test_an_unmount_that_the_second_vetoes() -> None:
    async with pair() as p:
        p.rules.add(Rule(op="unmount", errno="EBUSY", nth=1))
    assert p.kinds == [("unmount", "errno")]
