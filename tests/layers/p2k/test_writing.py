"""p2k over a file system that has something to write: sync, the end, pages; and read-only ones."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import Lookup
from syspuffs.emul.vnode import Vnode
from syspuffs.layers.p2k import P2k, p2k_over
from syspuffs.native.constants import (
    FREAD,
    FSYNC_WAIT,
    FWRITE,
    MNT_FORCE,
    MNT_LAZY,
    MNT_WAIT,
    PGO_ALLPAGES,
    PGO_FREE,
    VREAD,
    VWRITE,
    NameiOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Componentname, Cookie, Cred, Vattr, lookup_cn

ROOT = Cred(0, 0)
FILE = Vattr(Vtype.VREG, 0o644)


class Written(TmpFs):
    """A tmpfs whose files are dirty until an fsync waits; writes down what it hears."""

    def __init__(self, name: bytes = b"none") -> None:
        super().__init__(name, uid=0, gid=0)
        self.heard: list[tuple[str, object]] = []
        self.unmount_error = 0

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        made = await super().create(dvp, cn, va)
        assert made.vp is not None
        made.vp.is_modified = True
        return made

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        if flags & FSYNC_WAIT:
            self.heard.append(("written", vp.serial))
            vp.is_modified = False

    async def sync(self, waitfor: int, cred: Cred) -> None:
        self.heard.append(("sync", waitfor))

    async def unmount(self, flags: int) -> None:
        self.heard.append(("unmount", flags))
        if self.unmount_error:
            raise VfsError(self.unmount_error)
        await super().unmount(flags)

    async def putpages(self, vp: Vnode, offlo: int, offhi: int, flags: int) -> None:
        self.heard.append(("putpages", flags))

    async def inactive(self, vp: Vnode) -> bool:
        self.heard.append(("inactive", vp.serial))
        return await super().inactive(vp)


async def _create(server: P2k, name: bytes) -> Cookie:
    cn = lookup_cn(name, ROOT, NameiOp.CREATE)
    return (await server.create(server.kargs.root.cookie, cn, FILE)).cookie


@asynccontextmanager
async def _fails(number: int) -> AsyncIterator[None]:
    with pytest.raises(VfsError) as caught:
        yield
    assert caught.value.errno == number


async def test_sync_is_of_this_mount_and_waits_if_it_is_told_to() -> None:
    ours, other = Written(), Written()
    async with Kernel() as kernel:
        servers = [P2k(kernel, await kernel.mount(fs)) for fs in (ours, other)]
        file, _ = [await _create(server, b"a") for server in servers]
        await servers[0].sync(MNT_LAZY, ROOT)
        assert ours.heard == [("sync", MNT_LAZY)]
        await servers[0].sync(MNT_WAIT, ROOT)
        assert ours.heard[1:] == [("written", file), ("sync", MNT_WAIT)]
        assert other.heard == []
        for server in servers:
            server.let_go()


async def test_end_without_an_unmount_loses_nothing() -> None:
    fs = Written()
    async with p2k_over(fs) as server:
        file = await _create(server, b"a")
        assert not fs.heard
    assert ("written", file) in fs.heard
    assert ("unmount", 0) in fs.heard


async def test_end_by_an_exception_loses_nothing() -> None:
    fs = Written()

    async def fail() -> None:
        async with p2k_over(fs) as server:
            await _create(server, b"a")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert [what for what, _ in fs.heard if what != "inactive"] == ["written", "sync", "unmount"]


async def test_forced_unmount_writes_what_it_can() -> None:
    fs = Written()
    async with p2k_over(fs) as server:
        file = await _create(server, b"a")
        await server.unmount(MNT_FORCE)
        assert ("written", file) in fs.heard
        assert ("unmount", MNT_FORCE) in fs.heard


async def test_vetoed_unmount_leaves_the_cookies() -> None:
    fs = Written()
    async with p2k_over(fs) as server:
        root = server.kargs.root.cookie
        kept, nameless = await _create(server, b"a"), await _create(server, b"b")
        assert (await server.lookup(root, lookup_cn(b"a", ROOT))).cookie == kept
        await server.remove(root, nameless, lookup_cn(b"b", ROOT, NameiOp.DELETE))
        fs.unmount_error = errno.EIO
        async with _fails(errno.EIO):
            await server.unmount(0)
        assert (await server.getattr(kept, ROOT))[0].nlink == 1
        assert (await server.getattr(root, ROOT))[0].vtype == Vtype.VDIR
        async with _fails(errno.ESTALE):
            await server.getattr(nameless, ROOT)
        assert fs.mount.root.usecount == 2
        server.reclaim(kept, 1)  # one of two lookups
        await server.getattr(kept, ROOT)
        server.reclaim(kept, 1)
        await wait_all_tasks_blocked()
        assert {vp.usecount for vp in fs.mount if vp.serial == kept} == {0}
        fs.unmount_error = 0
        await server.unmount(0)
        assert not fs.mount.is_alive


async def test_inactive_lets_clean_pages_go() -> None:
    fs = Written()
    async with p2k_over(fs) as server:
        root = server.kargs.root.cookie
        await server.inactive(root)
        file = await _create(server, b"b")
        await server.inactive(file)
        assert fs.heard == [
            ("inactive", root),
            ("putpages", PGO_FREE | PGO_ALLPAGES),
            ("inactive", file),
        ]


async def test_what_is_covered_stays() -> None:
    async with Kernel() as kernel:
        server = P2k(kernel, await kernel.mount(TmpFs(uid=0, gid=0)))
        root = server.kargs.root.cookie
        cn = lookup_cn(b"d", ROOT, NameiOp.CREATE)
        cookie = (await server.mkdir(root, cn, Vattr(Vtype.VDIR, 0o755))).cookie
        file = await _create(server, b"f")
        [vp] = [vp for vp in kernel.mounts[0] if vp.serial == cookie]
        covering = await kernel.mount(TmpFs(), covered=vp)
        other = lookup_cn(b"e", ROOT, NameiOp.CREATE)
        async with _fails(errno.EBUSY):
            await server.rmdir(root, cookie, cn)
        async with _fails(errno.EBUSY):
            await server.rename(root, cookie, cn, root, None, other)
        async with _fails(errno.EBUSY):
            await server.rename(root, file, lookup_cn(b"f", ROOT), root, cookie, cn)
        await kernel.unmount(covering)
        await wait_all_tasks_blocked()
        await server.rmdir(root, cookie, cn)
        server.let_go()


async def test_node_by_its_handle() -> None:
    async with p2k_over(TmpFs(uid=0, gid=0)) as server:
        file = await _create(server, b"a")
        found = await server.fhtonode(await server.nodetofh(file))
        assert found.cookie == file
        assert found.va is not None
        async with _fails(errno.EINVAL):
            await server.fhtonode(b"nonsense")


Change = Callable[[P2k, Cookie, Cookie], Awaitable[object]]
_CN = lookup_cn(b"new", ROOT, NameiOp.CREATE)
_OLD = lookup_cn(b"old", ROOT, NameiOp.DELETE)
CHANGES: dict[str, Change] = {
    "create": lambda s, d, f: s.create(d, _CN, FILE),
    "mknod": lambda s, d, f: s.mknod(d, _CN, Vattr(Vtype.VFIFO, 0o644)),
    "mkdir": lambda s, d, f: s.mkdir(d, _CN, Vattr(Vtype.VDIR, 0o755)),
    "symlink": lambda s, d, f: s.symlink(d, _CN, Vattr(Vtype.VLNK, 0o777), b"x"),
    "remove": lambda s, d, f: s.remove(d, f, _OLD),
    "rmdir": lambda s, d, f: s.rmdir(d, f, _OLD),
    "link": lambda s, d, f: s.link(d, f, _CN),
    "rename": lambda s, d, f: s.rename(d, f, _OLD, d, None, _CN),
    "setattr": lambda s, d, f: s.setattr(f, Vattr(mode=0o600), ROOT),
    "write": lambda s, d, f: s.write(f, 0, b"x", 0, ROOT),
    "open to write": lambda s, d, f: s.open(f, FWRITE, ROOT),
    "access to write": lambda s, d, f: s.access(f, VWRITE, ROOT),
    "setextattr": lambda s, d, f: s.setextattr(f, 1, b"user.x", b"y", 0, ROOT),
    "deleteextattr": lambda s, d, f: s.deleteextattr(f, 1, b"user.x", ROOT),
    "fallocate": lambda s, d, f: s.fallocate(f, 0, 10),
    "fdiscard": lambda s, d, f: s.fdiscard(f, 0, 10),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_read_only_mount_refuses(name: str) -> None:
    fs = TmpFs(uid=0, gid=0)
    async with p2k_over(fs) as server:
        root = server.kargs.root.cookie
        file = await _create(server, b"old")
        fs.mount.is_rdonly = True
        async with _fails(errno.EROFS):
            await CHANGES[name](server, root, file)


async def test_read_only_mount_lets_read() -> None:
    fs = TmpFs(uid=0, gid=0)
    async with p2k_over(fs) as server:
        root = server.kargs.root.cookie
        file = await _create(server, b"old")
        await server.write(file, 0, b"data", 0, ROOT)
        cn = lookup_cn(b"pipe", ROOT, NameiOp.CREATE)
        pipe = (await server.mknod(root, cn, Vattr(Vtype.VFIFO, 0o644))).cookie
        fs.mount.is_rdonly = True
        await server.open(file, FREAD, ROOT)
        await server.access(file, VREAD, ROOT)
        assert bytes(await server.read(file, 0, 10, 0, ROOT)) == b"data"
        await server.fsync(file, FSYNC_WAIT, 0, 0, ROOT)
        server.close(file, FREAD, ROOT)
        await server.access(pipe, VWRITE, ROOT)  # what is behind it is written elsewhere
        await server.sync(MNT_WAIT, ROOT)
        await server.unmount(0)
