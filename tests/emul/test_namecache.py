"""The name cache: what it knows, what makes it forget, and that it holds nothing in memory."""

from __future__ import annotations

import pytest

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.mount import Mount
from syspuffs.emul.namecache import (
    cache_enter,
    cache_lookup,
    cache_purge,
    cache_purge_name,
    cache_purgevfs,
    cache_revlookup,
)
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode, vrecycle, vrele
from syspuffs.native.constants import Vtype
from syspuffs.native.records import lookup_cn

from .caller import ROOT, now

DOTDOT = b".."


class Tree:
    """A mount with vnodes for the cache alone: /a (directory), /a/b (directory), /a/b/f."""

    def __init__(self, *, desiredvnodes: int = 100) -> None:
        self.kernel = Kernel(desiredvnodes=desiredvnodes)
        self.mount: Mount = now(self.kernel.mount(TmpFs(uid=0, gid=0)))
        self.cache = self.kernel.namecache
        self.root = self.mount.root
        self.a = self.make(10, Vtype.VDIR)
        self.b = self.make(11, Vtype.VDIR)
        self.f = self.make(12, Vtype.VREG)
        cache_enter(self.root, self.a, b"a")
        cache_enter(self.a, self.b, b"b")
        cache_enter(self.b, self.f, b"f")

    def make(self, key: int, vtype: int) -> Vnode:
        node = now(self.mount.fs.root()).data  # any node of tmpfs will do
        self.root.usecount -= 1
        return self.mount.insert(key, vtype, node)


@pytest.fixture
def tree() -> Tree:
    return Tree()


def look(dvp: Vnode, name: bytes) -> Vnode | str | None:
    """Return what is known, with the reference given back at once."""
    hit, vp = cache_lookup(dvp, lookup_cn(name, ROOT))
    if vp is not None:
        now(vrele(vp))
    return vp if hit else "miss"


def test_a_hit_gives_a_reference_and_revives(tree: Tree) -> None:
    vp = tree.f
    assert cache_lookup(tree.b, lookup_cn(b"f", ROOT)) == (True, vp)
    assert vp.usecount == 2
    vp.usecount = 1
    now(vrele(vp))
    assert vp.usecount == 0
    assert len(tree.kernel.free_list) == 1
    assert cache_lookup(tree.b, lookup_cn(b"f", ROOT)) == (True, vp)
    assert vp.usecount == 1
    assert len(tree.kernel.free_list) == 0
    assert tree.cache.statistics().hits == 2


def test_entries_hold_no_references(tree: Tree) -> None:
    assert (tree.a.usecount, tree.b.usecount, tree.f.usecount) == (1, 1, 1)


def test_negative_entries(tree: Tree) -> None:
    assert look(tree.a, b"no") == "miss"
    cache_enter(tree.a, None, b"no")
    assert look(tree.a, b"no") is None
    assert tree.cache.statistics()[2:4] == (1, 1)
    cache_enter(tree.a, tree.f, b"no")  # made now
    assert look(tree.a, b"no") is tree.f
    cache_enter(tree.a, None, b"no")
    assert look(tree.a, b"no") is None
    assert tree.f.ncdst is not None
    assert [entry.name for entry in tree.f.ncdst] == [b"f"]


def test_dotdot_by_the_name_of_the_directory(tree: Tree) -> None:
    assert look(tree.b, DOTDOT) is tree.a
    assert look(tree.a, DOTDOT) is tree.root
    assert look(tree.root, DOTDOT) == "miss"
    assert cache_revlookup(tree.b) == (tree.a, b"b")
    tree.a.usecount -= 1
    assert cache_revlookup(tree.root) is None
    cache_purge_name(tree.a, b"b")
    assert look(tree.b, DOTDOT) == "miss"
    cache_enter(tree.b, tree.a, DOTDOT)
    assert look(tree.b, DOTDOT) is tree.a
    assert cache_revlookup(tree.b) is None  # the name is not known by that
    assert cache_revlookup(tree.a) == (tree.root, b"a")  # and ".." in b is no name of a


def test_purge_of_a_name_and_of_a_vnode(tree: Tree) -> None:
    cache_enter(tree.a, tree.f, b"link")
    cache_purge_name(tree.b, b"f")
    cache_purge_name(tree.b, b"never there")
    assert look(tree.b, b"f") == "miss"
    assert look(tree.a, b"link") is tree.f
    cache_enter(tree.b, tree.f, b"f")
    cache_purge(tree.f)
    assert look(tree.b, b"f") == "miss"
    assert look(tree.a, b"link") == "miss"
    assert look(tree.a, b"b") is tree.b
    cache_purge(tree.a)  # it moved: neither its name nor the names in it are certain
    assert look(tree.root, b"a") == "miss"
    assert look(tree.a, b"b") == "miss"
    assert look(tree.b, DOTDOT) == "miss"
    assert len(tree.cache) == 0


def test_purge_of_a_mount(tree: Tree) -> None:
    other = now(tree.kernel.mount(TmpFs()))
    cache_enter(other.root, None, b"x")
    cache_purgevfs(tree.mount)
    assert len(tree.cache) == 1
    assert look(other.root, b"x") is None


def test_reclaim_purges(tree: Tree) -> None:
    for vp in (tree.b, tree.f):
        now(vrele(vp))
    assert vrecycle(tree.b)
    assert look(tree.a, b"b") == "miss"
    assert len(tree.cache) == 1
    assert not tree.f.ncdst
    cache_enter(tree.a, tree.b, b"b")  # a lookup that was under way when it died
    cache_enter(tree.b, None, b"x")
    assert len(tree.cache) == 1


def test_bound_drops_the_least_recently_used() -> None:
    tree = Tree()
    tree.cache.limit = 4
    cache_enter(tree.a, None, b"1")
    assert look(tree.root, b"a") is tree.a  # used: "b" is the oldest now
    cache_enter(tree.a, None, b"2")
    assert look(tree.a, b"b") == "miss"
    assert look(tree.root, b"a") is tree.a
    assert tree.cache.statistics().evicted == 1
    assert len(tree.cache) == 4
    tree.cache.limit = 0
    cache_enter(tree.a, None, b"3")
    assert look(tree.a, b"3") == "miss"


def test_names_that_are_too_long_are_not_remembered(tree: Tree) -> None:
    cache_enter(tree.a, tree.f, b"n" * 256)
    assert look(tree.a, b"n" * 256) == "miss"
    assert len(tree.cache) == 3


async def test_unmount_leaves_nothing() -> None:
    async with Kernel() as kernel:
        mount = await kernel.mount(TmpFs())
        cache_enter(mount.root, None, b"x")
        await kernel.unmount(mount)
        assert len(kernel.namecache) == 0
