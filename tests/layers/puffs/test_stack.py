"""puffs with p2k: real file systems behind frames, to some depth and across sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.ops import FileServer, Upcalls
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.puffs import PuffsFs, puffs_over, puffs_over_socket, serve
from syspuffs.native.constants import FREAD, FWRITE, READDIR_PLUS, FlushOp, NameiOp, Vtype
from syspuffs.native.records import Cookie, Cred, Vattr, lookup_cn

from .memserver import MemServer

CRED = Cred(0, 0, (), 42)


class Heard:
    """Upcalls of the uppermost server."""

    def __init__(self) -> None:
        self.flushes: list[tuple[FlushOp, int, bytes]] = []
        self.unmounts = 0

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        self.flushes.append((op, cookie, name))

    def unmount(self) -> None:
        self.unmounts += 1


@asynccontextmanager
async def stacked(below: FileServer, way: str, depth: int) -> AsyncIterator[FileServer]:
    """Put `depth` times p2k|puffs over `below`; the frames go the `way`."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        server = below
        for _ in range(depth):
            if way == "direct":
                fs: PuffsFs = await stack.enter_async_context(puffs_over(server))
            else:
                ours, theirs = socket.socketpair()
                nursery.start_soon(serve, server, theirs)
                fs = await stack.enter_async_context(puffs_over_socket(ours, server.kargs))
            server = await stack.enter_async_context(p2k_over(fs))
        await trio.testing.wait_all_tasks_blocked()
        yield server


async def _exercise(server: FileServer) -> None:
    root = server.kargs.root.cookie
    made = await server.create(
        root, lookup_cn(b"a", CRED, NameiOp.CREATE), Vattr(vtype=Vtype.VREG, mode=0o644)
    )
    await server.open(made.cookie, FREAD | FWRITE, CRED)
    data = bytes(range(256)) * 1000
    await server.write(made.cookie, 0, data, 0, CRED)
    assert bytes(await server.read(made.cookie, 1000, 1 << 20, 0, CRED)) == data[1000:]
    va, _ = await server.getattr(made.cookie, CRED)
    assert va.size == len(data)
    server.close(made.cookie, FREAD | FWRITE, CRED)
    d = await server.mkdir(
        root, lookup_cn(b"d", CRED, NameiOp.CREATE), Vattr(vtype=Vtype.VDIR, mode=0o755)
    )
    await server.rename(
        *(root, made.cookie, lookup_cn(b"a", CRED), d.cookie, None, lookup_cn(b"b", CRED))
    )
    found = await server.lookup(d.cookie, lookup_cn(b"b", CRED))
    assert found.cookie == made.cookie
    assert found.size == len(data)
    entries, eof = await server.readdir(d.cookie, 0, 8192, READDIR_PLUS, CRED)
    assert eof
    assert [entry.name for entry in entries] == [b".", b"..", b"b"]
    info = entries[2].newinfo
    assert info is not None
    assert info.cookie == made.cookie
    await server.remove(d.cookie, made.cookie, lookup_cn(b"b", CRED))
    assert bytes(await server.read(made.cookie, 0, 3, 0, CRED)) == b"\0\1\2"
    server.reclaim(made.cookie, 3)
    await server.rmdir(root, d.cookie, lookup_cn(b"d", CRED))
    server.reclaim(d.cookie, 1)
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("way", ["direct", "socket"])
@pytest.mark.parametrize("depth", [1, 3])
async def test_over_tmpfs(way: str, depth: int) -> None:
    tmpfs = TmpFs()
    async with p2k_over(tmpfs) as bottom, stacked(bottom, way, depth) as server:
        assert server.kargs.typename == "p2k|puffs|" * depth + "p2k|tmpfs"
        await _exercise(server)
        # Nothing but the root is left at the bottom: everything was given back all the way down.
        assert [vp for vp in tmpfs.mount if vp.usecount and vp is not tmpfs.mount.root] == []
        await server.unmount(0)


@pytest.mark.parametrize("way", ["direct", "socket"])
async def test_over_a_server_in_memory(way: str) -> None:
    below = MemServer()
    async with stacked(below, way, 2) as server:
        await _exercise(server)
        await server.unmount(0)
    assert below.unmounted == [0]
    below.check_given_back()
    below.check_opens()


@pytest.mark.parametrize("way", ["direct", "socket"])
async def test_flushes_go_all_the_way_up(way: str) -> None:
    below = MemServer()
    async with stacked(below, way, 2) as server:
        heard = Heard()
        server.attach(heard)
        root = server.kargs.root.cookie
        made = await server.create(
            root, lookup_cn(b"a", CRED, NameiOp.CREATE), Vattr(vtype=Vtype.VREG, mode=0o644)
        )
        upcalls: Upcalls | None = below.upcalls
        assert upcalls is not None
        below_cookie = next(c for c in below.nodes if c != below.root.cookie)
        await upcalls.flush(FlushOp.INVAL_ATTR_NODE, Cookie(below_cookie))
        await upcalls.flush(FlushOp.INVAL_NAMECACHE_NAME, below.root.cookie, name=b"a")
        upcalls.unmount()
        await trio.testing.wait_all_tasks_blocked()
        assert heard.flushes == [
            (FlushOp.INVAL_ATTR_NODE, made.cookie, b""),
            (FlushOp.INVAL_NAMECACHE_NAME, root, b"a"),
        ]
        assert heard.unmounts == 1
        server.reclaim(made.cookie, 1)
        await server.unmount(0)
