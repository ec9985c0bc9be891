"""Several file servers under one root: what the battery over one of them cannot see."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.joined import Joined, joined
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.native.constants import (
    FREAD,
    MNT_FORCE,
    MNT_WAIT,
    READDIR_PLUS,
    FlushOp,
    KFlag,
    Setback,
    VnOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Dirent, Newinfo, Statvfs, Vattr, lookup_cn

from ...support.server import ServerTarget
from ..puffs.memserver import ALL_OPS, MemServer

ROOT = Cred(0, 0)
FILE = Vattr(Vtype.VREG, 0o644)


class Above:
    """Whoever is above: remembers what it is asked."""

    def __init__(self) -> None:
        self.flushes: list[tuple[FlushOp, int, bytes]] = []
        self.unmounts = 0

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        self.flushes.append((op, cookie, name))

    def unmount(self) -> None:
        self.unmounts += 1


async def walk(server: FileServer, path: bytes) -> Newinfo:
    info = server.kargs.root
    for name in path.split(b"/"):
        if name:
            info = await server.lookup(info.cookie, lookup_cn(name, ROOT))
            assert info.cookie, (path, name)
    return info


async def names(server: FileServer, path: bytes, resid: int = 1024) -> list[bytes]:
    cookie = (await walk(server, path)).cookie
    found: list[bytes] = []
    offset, is_end = 0, False
    while not is_end:
        entries, is_end = await server.readdir(cookie, offset, resid, READDIR_PLUS, ROOT)
        for entry in entries:
            offset = entry.offset
            found.append(entry.name)
            if entry.newinfo is not None:
                server.reclaim(entry.newinfo.cookie, 1)
    return found


async def make(server: FileServer, path: bytes, va: Vattr = FILE) -> Newinfo:
    head, _, name = path.rpartition(b"/")
    make = server.mkdir if va.vtype == Vtype.VDIR else server.create
    return await make((await walk(server, head)).cookie, lookup_cn(name, ROOT), va)


@contextmanager
def raises(number: int) -> Iterator[None]:
    with pytest.raises(VfsError) as caught:
        yield
    assert caught.value.errno == number, caught.value


# What is where.


def test_one_tree_at_the_root_is_returned_as_it_is() -> None:
    server = MemServer()
    assert joined({b"/": server}) is server
    with pytest.raises(ValueError, match="nothing"):
        joined({})


@pytest.mark.parametrize(
    "path",
    [b"", b"pub", b"//", b"/pub/", b"/a//b", b"/.", b"/a/..", b"/" + b"n" * 256, b"/a\0b"],
)
def test_paths_that_are_none(path: bytes) -> None:
    with pytest.raises(ValueError, match="tree"):
        joined({path: MemServer()})


def test_a_server_at_two_places() -> None:
    server = MemServer()
    with pytest.raises(ValueError, match="another place"):
        joined({b"/a": server, b"/b": server})


async def test_directories_that_lead_to_trees() -> None:
    one, two = MemServer(), MemServer()
    server = joined({b"/in/one": one, b"/in/two": two, b"/pub": MemServer()})
    assert await names(server, b"/") == [b"in", b"pub", b".", b".."]
    assert await names(server, b"/in") == [b"one", b"two", b".", b".."]
    assert await names(server, b"/in", resid=1) == [b"one", b"two", b".", b".."]
    for path, nlink in ((b"/", 4), (b"/in", 4)):
        va, _ = await server.getattr((await walk(server, path)).cookie, ROOT)
        assert (va.vtype, va.mode, va.nlink) == (Vtype.VDIR, 0o755, nlink)
    missing = await server.lookup(server.kargs.root.cookie, lookup_cn(b"nothing", ROOT))
    assert missing.cookie == 0
    made = await make(server, b"/in/one/f")
    assert (await walk(two, b"/")).cookie == two.root.cookie
    assert list(one.root.names) == [b"f"]
    assert two.root.names == {}
    server.reclaim(made.cookie, 1)
    one.check_given_back()


async def test_above_a_tree_is_the_place_above_it() -> None:
    one = MemServer()
    server = joined({b"/in/one": one, b"/pub": MemServer()})
    root, inner = server.kargs.root, await walk(server, b"/in")
    assert (await walk(server, b"/in/one/..")).cookie == inner.cookie
    assert (await walk(server, b"/in/..")).cookie == root.cookie
    assert (await walk(server, b"/..")).cookie == root.cookie
    made = await make(server, b"/in/one/d", Vattr(Vtype.VDIR, 0o755))
    up = await server.lookup(made.cookie, lookup_cn(b"..", ROOT))
    assert up.cookie == (await walk(server, b"/in/one")).cookie


async def test_nobody_changes_what_leads_to_trees() -> None:
    one = MemServer()
    server = joined({b"/in/one": one, b"/pub": MemServer()})
    inner = (await walk(server, b"/in")).cookie
    hangs = (await walk(server, b"/in/one")).cookie
    new, taken = lookup_cn(b"new", ROOT), lookup_cn(b"one", ROOT)
    for make_it in (server.create, server.mknod, server.mkdir):
        with raises(errno.EROFS):
            await make_it(inner, new, FILE)
        with raises(errno.EEXIST):
            await make_it(inner, taken, FILE)
    with raises(errno.EROFS):
        await server.symlink(inner, new, FILE, b"x")
    with raises(errno.EROFS):
        await server.setattr(inner, Vattr(mode=0o700), ROOT)
    with raises(errno.EBUSY):
        await server.rmdir(inner, hangs, taken)
    with raises(errno.EBUSY):
        await server.remove(inner, hangs, taken)
    with raises(errno.EBUSY):
        await server.rename(inner, hangs, taken, inner, None, new)
    with raises(errno.EOPNOTSUPP):
        await server.nodetofh(inner)
    assert one.calls == []


async def test_a_tree_at_the_root_below_others() -> None:
    home, pub, inbox = MemServer(), MemServer(), MemServer()
    for path in (b"/own", b"/pub", b"/in"):
        await make(home, path, Vattr(Vtype.VDIR, 0o755))
    server = joined({b"/": home, b"/pub": pub, b"/in/alice": inbox})
    for resid in (1, 60, 1024):
        assert await names(server, b"/", resid) == [b"in", b"pub", b".", b"..", b"own"]
    await make(server, b"/pub/f")
    assert list(pub.root.names) == [b"f"]
    root = server.kargs.root.cookie
    own, hangs = await walk(server, b"/own"), await walk(server, b"/pub")
    with raises(errno.EBUSY):
        await server.rename(
            root, own.cookie, lookup_cn(b"own", ROOT), root, None, lookup_cn(b"pub", ROOT)
        )
    with raises(errno.EBUSY):
        await server.rmdir(root, hangs.cookie, lookup_cn(b"pub", ROOT))
    with raises(errno.EBUSY):  # by a name that it has not: never asked of the tree
        await server.rmdir(root, hangs.cookie, lookup_cn(b"own", ROOT))
    with raises(errno.EEXIST):
        await server.mkdir(root, lookup_cn(b"in", ROOT), Vattr(Vtype.VDIR, 0o755))
    await server.rename(
        root, own.cookie, lookup_cn(b"own", ROOT), root, None, lookup_cn(b"mine", ROOT)
    )
    assert await names(server, b"/") == [b"in", b"pub", b".", b"..", b"mine"]
    # The covered ones came with lookups, which went back; three were taken when they were made.
    assert {n.nlookup for n in home.nodes.values() if n is not home.root} == {1, 2}


@pytest.mark.parametrize("largest", [(1 << 63) - 1, (1 << 63) - 2])
async def test_a_tree_whose_offsets_are_large(largest: int) -> None:
    """ext4 ends with the largest there is; others near it cannot be told from it."""

    class Large(MemServer):
        async def readdir(
            self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
        ) -> tuple[list[Dirent], bool]:
            if offset == largest:
                return [], True
            entries, is_end = await super().readdir(opc, offset, resid, flags, cred)
            return [
                entry._replace(offset=largest) if entry.name == b"last" else entry
                for entry in entries
            ], is_end

    large = Large()
    for name in (b"first", b"last"):
        large.reclaim((await make(large, b"/" + name)).cookie, 1)
    server = joined({b"/": large, b"/a": MemServer(), b"/b": MemServer()})
    wanted = [b".", b"..", b"first", b"last"]
    for resid in (1, 1024):
        if largest == (1 << 63) - 1:
            assert await names(server, b"/", resid) == [b"a", b"b", *wanted]
        else:
            with raises(errno.EOVERFLOW):
                await names(server, b"/", resid)
    large.check_given_back()
    assert await names(joined({b"/pub": MemServer(), b"/x": large}), b"/x") == wanted


# From one tree to another.


async def test_nothing_moves_from_tree_to_tree() -> None:
    one, two = MemServer(), MemServer()
    server = joined({b"/one": one, b"/two": two})
    file = (await make(server, b"/one/f")).cookie
    there, here = (await walk(server, b"/two")).cookie, (await walk(server, b"/one")).cookie
    name = lookup_cn(b"f", ROOT)
    with raises(errno.EXDEV):
        await server.rename(here, file, name, there, None, name)
    with raises(errno.EXDEV):
        await server.link(there, file, name)
    assert await names(server, b"/two") == [b".", b".."]


async def test_cookies_of_trees_do_not_meet() -> None:
    """Two trees give the same numbers; one is told of its nodes alone, and gets all back."""
    one, two = MemServer(), MemServer()
    server = joined({b"/one": one, b"/two": two})
    first, second = await make(server, b"/one/f"), await make(server, b"/two/f")
    assert list(one.nodes) == list(two.nodes)
    assert first.cookie != second.cookie
    await server.write(first.cookie, 0, b"first", 0, ROOT)
    await server.write(second.cookie, 0, b"second", 0, ROOT)
    assert await server.read(first.cookie, 0, 10, 0, ROOT) == b"first"
    again = await walk(server, b"/one/f")
    assert again.cookie == first.cookie
    handle = await server.nodetofh(second.cookie)
    server.reclaim(first.cookie, 2)
    one.check_given_back()
    with raises(errno.ESTALE):
        await server.getattr(first.cookie, ROOT)
    server.reclaim(second.cookie, 1)
    two.check_given_back()
    found = await server.fhtonode(handle)
    assert await server.read(found.cookie, 0, 10, 0, ROOT) == b"second"
    for wrong in (b"", b"\0", b"\0\x07x"):
        with raises(errno.ESTALE):
            await server.fhtonode(wrong)
    with raises(errno.EINVAL):
        await server.fhtonode(b"\0\0wrong")


async def test_every_operation_reaches_its_tree() -> None:
    tree = MemServer()
    server = joined({b"/one": tree, b"/two": MemServer()})
    opc = (await make(server, b"/one/f")).cookie
    await server.open(opc, FREAD, ROOT)
    await server.access(opc, 4, ROOT)
    await server.setattr(opc, Vattr(size=3), ROOT)
    await server.fsync(opc, 1, 0, 0, ROOT)
    await server.seek(opc, 0, 1, ROOT)
    await server.mmap(opc, 1, ROOT)
    assert await server.poll(opc, 3) == 1
    server.abortop(opc, lookup_cn(b"x", ROOT))
    assert await server.pathconf(opc, 4) == 255
    assert (await server.print(opc)).startswith(b"node ")
    await server.setextattr(opc, 0, b"user.x", b"1", 0, ROOT)
    assert await server.getextattr(opc, 0, b"user.x", ROOT) == b"1"
    assert await server.listextattr(opc, 0, ROOT) == b"user.x\0"
    await server.deleteextattr(opc, 0, b"user.x", ROOT)
    await server.fallocate(opc, 0, 10)
    await server.fdiscard(opc, 0, 5)
    await server.extattrctl(1, opc, 0, b"")
    with raises(errno.EOPNOTSUPP):
        await server.extattrctl(1, 0, 0, b"")
    server.close(opc, FREAD, ROOT)
    here = (await walk(server, b"/one")).cookie
    await server.link(here, opc, lookup_cn(b"g", ROOT))
    await server.remove(here, opc, lookup_cn(b"f", ROOT))
    link = await server.symlink(here, lookup_cn(b"l", ROOT), Vattr(Vtype.VLNK), b"/t")
    assert await server.readlink(link.cookie, ROOT) == b"/t"
    server.error_note(1, 2, "text", opc)
    assert tree.notes == [(1, 2, "text", tree.root.names[b"g"].cookie)]
    tree.check_opens()


# Who wants to hear that a node is unused.


@pytest.mark.parametrize("on_demand", [True, False])
async def test_inactive_on_demand(on_demand: bool) -> None:
    asked = MemServer(kflags=KFlag.IAONDEMAND)
    other = MemServer(kflags=KFlag.IAONDEMAND if on_demand else 0)
    server = joined({b"/asked": asked, b"/other": other})
    assert bool(server.kargs.kflags & KFlag.IAONDEMAND) is on_demand
    for tree, path in ((asked, b"/asked/f"), (other, b"/other/f")):
        opc = (await make(server, path)).cookie
        tree.setbacks["open"] = 0
        await server.open(opc, FREAD, ROOT)
        await server.inactive(opc)
        assert tree.counts()["inactive"] == (tree is other and not on_demand)
        tree.setbacks["open"] = Setback.INACT_N1
        await server.open(opc, FREAD, ROOT)
        await server.inactive(opc)
        await server.inactive(opc)
    assert asked.counts()["inactive"] == 1
    tree = asked
    here, opc = (await walk(server, b"/asked")).cookie, (await walk(server, b"/asked/f")).cookie
    tree.setbacks["remove"] = Setback.INACT_N2
    assert await server.remove(here, opc, lookup_cn(b"f", ROOT)) == Setback.INACT_N2
    await server.inactive(opc)
    assert asked.counts()["inactive"] == 2


def test_what_is_said_at_mount() -> None:
    one = MemServer(
        kflags=KFlag.WTCACHE | KFlag.CACHE_FS_TTL,
        ops=ALL_OPS - {VnOp.RECLAIM, VnOp.POLL},
        maxmsglen=9000,
    )
    two = MemServer(kflags=KFlag.NOCACHE_NAME, ops=ALL_OPS - {VnOp.RECLAIM, VnOp.MMAP})
    kargs = joined({b"/one": one, b"/two": two}).kargs
    assert kargs.typename == "joined(mem+mem)"
    assert kargs.kflags == KFlag.WTCACHE | KFlag.NOCACHE_NAME
    assert kargs.ops == ALL_OPS
    assert kargs.maxmsglen == 9000
    assert kargs.root.vtype == Vtype.VDIR


# What trees say of their own accord.


async def test_flushes_go_up_with_our_cookies() -> None:
    one, two, above = MemServer(), MemServer(), Above()
    server = joined({b"/one": one, b"/two": two})
    server.attach(above)
    opc = (await make(server, b"/two/f")).cookie
    inner = two.root.names[b"f"].cookie
    assert one.upcalls is not None
    assert two.upcalls is not None
    await two.upcalls.flush(FlushOp.INVAL_NAMECACHE_NAME, inner, name=b"x")
    await one.upcalls.flush(FlushOp.INVAL_NAMECACHE_NAME, inner)  # not known of this tree
    await one.upcalls.flush(FlushOp.INVAL_NAMECACHE_ALL, Cookie(0))
    assert above.flushes == [
        (FlushOp.INVAL_NAMECACHE_NAME, opc, b"x"),
        (FlushOp.INVAL_NAMECACHE_ALL, 0, b""),
    ]
    one.upcalls.unmount()
    assert above.unmounts == 0
    two.upcalls.unmount()
    assert above.unmounts == 1


async def test_flush_with_nobody_above() -> None:
    one = MemServer()
    server = Joined({b"/one": one})
    tree = server.node_of[next(iter(server.node_of))].tree
    await server.flush(tree, FlushOp.INVAL_NAMECACHE_ALL, Cookie(0), 0, 0, b"")
    server.request_unmount(tree)


# All of them.


async def test_statvfs_of_each_and_of_all() -> None:
    class Sized(MemServer):
        state = Statvfs()

        async def statvfs(self) -> Statvfs:
            await self._enter("statvfs")
            return self.state

    one, two, three = Sized(), Sized(), Sized()
    one.state = Statvfs(frsize=1024, blocks=400, bavail=40, files=5, fsid=7, flag=1, namemax=100)
    two.state = one.state
    three.state = Statvfs(frsize=4096, blocks=100, bavail=10, files=5, flag=3)
    server = joined({b"/one": one, b"/two": two, b"/three": three})
    assert await server.statvfs_at((await walk(server, b"/three")).cookie) == three.state
    assert await server.statvfs_at((await walk(server, b"/one")).cookie) == one.state
    total = await server.statvfs_at(server.kargs.root.cookie)
    assert total == await server.statvfs()
    assert (total.blocks, total.bavail, total.files) == (200, 20, 10)
    assert (total.flag, total.namemax) == (1, 100)


@pytest.mark.parametrize("state", ["hangs", "fails"])
async def test_a_tree_that_is_dead_is_shown_as_last_seen(
    state: str, autojump_clock: MockClock
) -> None:
    class Dead(MemServer):
        async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
            if not self.is_alive:
                if state == "fails":
                    raise VfsError(errno.ENOTCONN)
                await trio.sleep_forever()
            return await super().getattr(opc, cred)

        async def statvfs(self) -> Statvfs:
            if state == "fails":
                raise VfsError(errno.ENOTCONN)
            await trio.sleep_forever()
            raise AssertionError

        is_alive = True

    seen, unseen, alive = Dead(), Dead(), MemServer()
    server = joined({b"/alive": alive, b"/seen": seen, b"/unseen": unseen})
    seen.root.va = seen.root.va._replace(mode=0o711)
    await server.getattr((await walk(server, b"/seen")).cookie, ROOT)
    seen.is_alive = unseen.is_alive = False
    with trio.fail_after(1.5):
        entries, _ = await server.readdir(server.kargs.root.cookie, 0, 1024, READDIR_PLUS, ROOT)
        infos = {entry.name: entry.newinfo for entry in entries}
    modes = {name: info.va.mode for name, info in infos.items() if info and info.va}
    assert modes == {b"alive": 0o755, b"seen": 0o711, b"unseen": 0o755}
    with trio.fail_after(1.5):
        assert (await server.statvfs()).blocks == 1000
    if state == "fails":
        with raises(errno.ENOTCONN):
            await joined({b"/a": unseen}).statvfs()
    else:
        assert await joined({b"/a": unseen}).statvfs() == Statvfs()


async def test_sync_of_all_although_one_fails() -> None:
    class Failing(MemServer):
        async def sync(self, waitfor: int, cred: Cred) -> None:
            raise VfsError(errno.EIO)

    one, two = Failing(), MemServer()
    with raises(errno.EIO):
        await joined({b"/one": one, b"/two": two}).sync(MNT_WAIT, ROOT)
    assert two.calls == ["sync"]


async def test_unmount_of_all_although_one_hangs() -> None:
    one, two = MemServer(), MemServer()
    gate = one.gate("unmount")
    server = joined({b"/one": one, b"/two": two})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.unmount, 0)
        await wait_all_tasks_blocked()
        assert two.unmounted == [0]
        assert one.unmounted == []
        gate.set()
    assert one.unmounted == [0]


async def test_a_veto() -> None:
    """The tree that has it stays; the others have ended, and are never called again."""
    one, two = MemServer(), MemServer()
    server = joined({b"/one": one, b"/two": two})
    kept, lost = (await make(server, b"/one/f")).cookie, (await make(server, b"/two/f")).cookie
    handle = await server.nodetofh(lost)
    one.veto = VfsError(errno.EBUSY)
    with raises(errno.EBUSY):
        await server.unmount(0)
    await server.getattr(kept, ROOT)
    for cookie in (lost, (await walk(server, b"/two")).cookie):
        with raises(errno.ESTALE):
            await server.getattr(cookie, ROOT)
    with raises(errno.ESTALE):
        await server.fhtonode(handle)
    server.reclaim(lost, 1)
    server.close(lost, FREAD, ROOT)
    server.abortop(lost, lookup_cn(b"x", ROOT))
    assert await server.inactive(lost) == 0
    await server.sync(MNT_WAIT, ROOT)
    await server.unmount(MNT_FORCE)  # vetoed again, and nobody asks
    one.veto = None
    await server.unmount(0)
    assert (one.unmounted, two.unmounted) == ([0], [0])


# With somebody above who keeps the books.


@asynccontextmanager
async def two_trees() -> AsyncIterator[ServerTarget]:
    async with (
        p2k_over(TmpFs(mntfromname=b"none")) as one,
        p2k_over(TmpFs(mntfromname=b"none")) as two,
    ):
        target = ServerTarget(joined({b"/": one, b"/pub/two": two}))
        yield target
        await target.verify()
        await target.server.unmount(0)


async def test_work_in_two_trees() -> None:
    async with two_trees() as fs:
        await fs.write_file(b"f", b"top")
        await fs.write_file(b"pub/two/f", b"below")
        assert await fs.read_file(b"f") == b"top"
        assert await fs.read_file(b"pub/two/../../f") == b"top"
        assert await fs.read_file(b"pub/two/f") == b"below"
        assert await fs.listdir() == [b"f", b"pub"]
        assert await fs.listdir(b"pub") == [b"two"]
        with pytest.raises(OSError, match="cross-device"):
            await fs.rename(b"f", b"pub/two/g")
        with pytest.raises(OSError, match="cross-device"):
            await fs.link(b"f", b"pub/two/g")
        with pytest.raises(OSError, match="busy"):
            await fs.rmdir(b"pub")
        await fs.unlink(b"f")
        await fs.unlink(b"pub/two/f")
        assert await fs.listdir() == [b"pub"]
