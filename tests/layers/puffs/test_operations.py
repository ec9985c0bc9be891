"""Every operation there and back, in one process and across a socket, and how many frames."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio

from syspuffs.emul.vfs import Entry
from syspuffs.emul.vnode import vrele
from syspuffs.layers.puffs.touser import DirectTouser
from syspuffs.native.constants import (
    FREAD,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    MNT_WAIT,
    READDIR_PLUS,
    VEXEC,
    VREAD,
    VWRITE,
    KFlag,
    OpClass,
    OpenFlag,
    VnOp,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.frames import encode_reply
from syspuffs.native.records import Cookie, Dirent, Flock, Newinfo, Vattr, lookup_cn

from ...support.logs import LogWatch
from .harness import CRED, DEATH, FILE, Asked, mounted, played, vnode_of
from .memserver import ALL_OPS, SECOND, MemServer

both = pytest.mark.parametrize("way", ["direct", "socket"])


@both
async def test_typename_and_source_are_those_of_the_server(way: str) -> None:
    async with mounted(way, MemServer(typename="p2k|me\nm\xff")) as m:
        assert m.fs.typename == "puffs|p2k|me.m."
        assert m.fs.mntfromname == b"memory"
        assert m.fs.ops == ALL_OPS


@both
async def test_names(way: str) -> None:
    async with mounted(way) as m:
        fs, root = m.fs, m.root
        a = await m.create(b"a")
        assert a.vtype == Vtype.VREG
        found = await fs.lookup(root, lookup_cn(b"a", CRED))
        assert found.vp is a
        assert found.va is not None
        assert (found.va.mode, found.va_ttl, found.cn_ttl) == (0o644, 3 * SECOND, 2 * SECOND)
        missing = await fs.lookup(root, lookup_cn(b"b", CRED))
        assert missing.vp is None
        assert missing.cn_ttl == SECOND

        d = await m.mkdir(b"d")
        up = vnode_of(await fs.lookup(d, lookup_cn(b"..", CRED)))
        assert up is root
        fifo = vnode_of(
            await fs.mknod(root, lookup_cn(b"p", CRED), Vattr(vtype=Vtype.VFIFO, mode=0o600))
        )
        disk = Vattr(vtype=Vtype.VBLK, mode=0o600, rdev=0x801)
        block = vnode_of(await fs.mknod(root, lookup_cn(b"sda", CRED), disk))
        assert (fifo.vtype, block.vtype, block.rdev) == (Vtype.VFIFO, Vtype.VBLK, 0x801)
        s = vnode_of(
            await fs.symlink(
                root, lookup_cn(b"s", CRED), Vattr(vtype=Vtype.VLNK, mode=0o777), b"d/x"
            )
        )
        assert await fs.readlink(s, CRED) == b"d/x"
        va, ttl = await fs.link(d, a, lookup_cn(b"hard", CRED))
        assert (va.nlink, ttl) == (2, SECOND)
        await fs.rename(root, a, lookup_cn(b"a", CRED), d, None, lookup_cn(b"b", CRED))
        assert (await fs.lookup(root, lookup_cn(b"a", CRED))).vp is None
        b = vnode_of(await fs.lookup(d, lookup_cn(b"b", CRED)))
        assert b is a
        await fs.rename(d, b, lookup_cn(b"b", CRED), root, fifo, lookup_cn(b"p", CRED))
        await fs.remove(d, a, lookup_cn(b"hard", CRED))
        await fs.rmdir(root, d, lookup_cn(b"d", CRED))
        fs.abortop(root, lookup_cn(b"x", CRED))
        await m.settle()
        assert m.server.calls[-1] == "abortop"
        await m.give_up(a, a, b, d, up, fifo, block, s)
        m.server.check_given_back()


@both
async def test_errors_come_back_as_they_are(way: str) -> None:
    async with mounted(way) as m:
        a = await m.create(b"a")
        with pytest.raises(VfsError) as caught:
            await m.create(b"a")
        assert caught.value.errno == errno.EEXIST
        with pytest.raises(VfsError) as caught:
            await m.fs.lookup(a, lookup_cn(b"x", CRED))
        assert caught.value.errno == errno.ENOTDIR
        await m.give_up(a)


@both
async def test_files(way: str) -> None:
    async with mounted(way) as m:
        fs = m.fs
        vp = await m.create(b"a")
        assert await fs.open(vp, FREAD | FWRITE, CRED) == 0
        await fs.write(vp, 3, b"hello", 0, CRED)
        assert vp.size == 8
        await fs.write(vp, 0, bytearray(b"! "), IO_APPEND, CRED)
        assert vp.size == 10
        assert bytes(await fs.read(vp, 0, 100, 0, CRED)) == b"\0\0\0hello! "
        assert bytes(await fs.read(vp, 4, 3, 0, CRED)) == b"ell"
        assert bytes(await fs.read(vp, 10, 3, 0, CRED)) == b""
        va, ttl = await fs.setattr(vp, Vattr(size=5, mode=0o600), CRED)
        assert (va.size, va.mode, ttl, vp.size) == (5, 0o600, SECOND, 5)
        va, ttl = await fs.getattr(vp, CRED)
        assert (va.size, va.uid, va.birthtime) == (5, 0, None)
        await fs.fsync(vp, FSYNC_WAIT, 0, 0, CRED)
        await fs.access(vp, VREAD | VWRITE | VEXEC, CRED)
        await fs.seek(vp, 0, 100, CRED)
        await fs.mmap(vp, 1, CRED)
        assert await fs.poll(vp, 5) == 1
        await fs.fallocate(vp, 0, 20)
        await fs.fdiscard(vp, 0, 4)
        assert await fs.pathconf(vp, 3) == 255
        assert b"node " in await fs.print(vp)
        lock = Flock(1, 0, 0, 42)
        assert await fs.advlock(vp, 2**63 + 1, 6, lock, 0) == lock._replace(pid=7)
        await fs.setextattr(vp, 1, b"user.x", b"\0value", 0, CRED)
        assert await fs.getextattr(vp, 1, b"user.x", CRED) == b"\0value"
        assert await fs.listextattr(vp, 1, CRED) == b"user.x\0"
        await fs.deleteextattr(vp, 1, b"user.x", CRED)
        with pytest.raises(VfsError) as caught:
            await fs.getextattr(vp, 1, b"user.x", CRED)
        assert caught.value.errno == errno.ENODATA
        fs.close(vp, FREAD | FWRITE, CRED)
        await m.settle()
        m.server.check_opens()
        assert m.server.pids == {CRED.pid}
        await m.give_up(vp)


@both
async def test_the_whole_file_system(way: str) -> None:
    async with mounted(way) as m:
        assert (await m.fs.statvfs()).blocks == 1000
        await m.fs.sync(MNT_WAIT, CRED)
        vp = await m.create(b"a")
        handle = await m.fs.vptofh(vp)
        again = await m.fs.fhtovp(handle)
        assert again is vp
        await m.fs.extattrctl(1, None, 2, b"x")
        with pytest.raises(VfsError) as caught:
            await m.fs.fhtovp(b"no handle")
        assert caught.value.errno == errno.EINVAL
        await m.give_up(vp, again)
        m.server.check_given_back()
        await m.kernel.unmount(m.mount)
        assert m.server.unmounted == [0]
        with pytest.raises(VfsError) as caught:
            await m.fs.statvfs()
        assert caught.value.errno == errno.ENXIO


@both
async def test_a_veto_keeps_the_mount(way: str) -> None:
    async with mounted(way) as m:
        m.server.veto = VfsError(errno.EBUSY)
        with pytest.raises(VfsError) as caught:
            await m.kernel.unmount(m.mount)
        assert caught.value.errno == errno.EBUSY
        m.server.veto = None
        assert (await m.fs.statvfs()).blocks == 1000


@both
async def test_readdir_plus_gives_vnodes(way: str) -> None:
    async with mounted(way) as m:
        vnodes = [await m.create(b"%03d" % i) for i in range(300)]
        await m.give_up(*vnodes)
        seen: dict[bytes, Entry] = {}
        offset, eof, rounds = 0, False, 0
        while not eof:
            entries, eof = await m.fs.readdir(m.root, offset, 4096, READDIR_PLUS, CRED)
            offset = entries[-1].offset
            seen.update({entry.name: entry for entry in entries})
            rounds += 1
        assert rounds == 2
        assert len(seen) == 302
        assert seen[b"."].found is None
        found = seen[b"007"].found
        assert found is not None
        assert found.va is not None
        assert found.vp is await m.lookup(b"007")
        held = [entry.found.vp for entry in seen.values() if entry.found and entry.found.vp]
        await m.give_up(*held, vnode_of(found))
        m.server.check_given_back()


@pytest.mark.logs(DEATH)
async def test_a_listing_always_fits_in_a_frame() -> None:
    """With its newinfo an entry is much longer in the frame than in the count of octets."""
    every = Vattr(*range(1, 18))._replace(vtype=Vtype.VREG)
    async with played() as (m, peer), trio.open_nursery() as nursery:
        longest = m.fs.kargs.maxmsglen
        for flags in (0, READDIR_PLUS):
            asked = Asked(nursery, lambda f=flags: m.fs.readdir(m.root, 0, 1 << 30, f, CRED))  # type: ignore[misc]
            header, (_, resid, _, _) = await peer.request(VnOp.READDIR)
            info = Newinfo(Cookie(5), Vtype.VREG, 0, 0, every) if flags else None
            entries = [Dirent(1, Vtype.VREG, b"x", i, info) for i in range(resid // 25)]
            frame = encode_reply(OpClass.VN, VnOp.READDIR, header.id, 1, (entries, True))
            assert longest // 2 < len(frame) <= longest
            await peer.send(frame)
            listed, _ = await asked.wait()
            assert len(listed) == len(entries)
            for entry in listed:
                if entry.found is not None:
                    await vrele(entry.found.vp)


async def test_a_value_that_does_not_fit_is_e2big() -> None:
    async with mounted("direct", MemServer(maxmsglen=8192)) as m:
        with pytest.raises(VfsError) as caught:
            await m.fs.setextattr(m.root, 1, b"user.x", bytes(5000), 0, CRED)
        assert caught.value.errno == errno.E2BIG


@both
async def test_long_transfers_go_in_pieces(way: str) -> None:
    server = MemServer(maxmsglen=8192)  # 4096 octets of data in a frame
    async with mounted(way, server) as m:
        vp = await m.create(b"a")
        data = bytes(range(256)) * 80  # five pieces
        await m.fs.write(vp, 0, data, 0, CRED)
        assert bytes(await m.fs.read(vp, 0, 20480, 0, CRED)) == data
        assert bytes(await m.fs.read(vp, 1, 1 << 20, 0, CRED)) == data[1:]
        assert m.server.counts()["write"] == 5
        await m.fs.write(vp, 0, data, IO_APPEND, CRED)
        assert bytes(server.node(vp.data.cookie).data) == data + data
        assert vp.size == 2 * len(data)
        await m.give_up(vp)


@both
async def test_a_piece_that_fails_fails_the_read(way: str) -> None:
    async with mounted(way, MemServer(maxmsglen=8192)) as m:
        vp = await m.create(b"a")
        await m.fs.write(vp, 0, bytes(20480), 0, CRED)
        m.server.fail_read_at = 8192
        with pytest.raises(VfsError) as caught:
            await m.fs.read(vp, 0, 20480, 0, CRED)
        assert caught.value.errno == errno.EIO
        assert len(await m.fs.read(vp, 12288, 8192, 0, CRED)) == 8192
        await m.give_up(vp)


@both
async def test_how_many_requests_things_take(way: str) -> None:
    async with mounted(way) as m:
        vp = await m.create(b"a")
        await m.fs.open(vp, FWRITE, CRED)
        await m.fs.write(vp, 0, bytes(1 << 20), 0, CRED)
        await m.fs.read(vp, 0, 1 << 20, 0, CRED)
        await m.fs.getattr(vp, CRED)
        await m.fs.lookup(m.root, lookup_cn(b"a", CRED))
        m.fs.close(vp, FWRITE, CRED)
        await m.give_up(vp, vp)
        expected = ["create", "open", "write", "read", "getattr", "lookup", "close", "reclaim"]
        assert m.server.calls == expected
        requests = m.fs.statistics().requests
        assert requests == dict.fromkeys(expected, 1)


ABSENT: list[tuple[str, Any, Any]] = [
    ("ACCESS", lambda m, vp: m.fs.access(vp, VREAD, CRED), None),
    ("SEEK", lambda m, vp: m.fs.seek(vp, 0, 1, CRED), None),
    ("OPEN", lambda m, vp: m.fs.open(vp, FREAD, CRED), 0),
    ("MMAP", lambda m, vp: m.fs.mmap(vp, 1, CRED), None),
    ("FSYNC", lambda m, vp: m.fs.fsync(vp, 1, 0, 0, CRED), None),
    ("POLL", lambda m, vp: m.fs.poll(vp, 5), 5),
    ("INACTIVE", lambda m, vp: m.fs.inactive(vp), False),
    ("GETATTR", lambda m, vp: m.fs.getattr(vp, CRED), errno.EOPNOTSUPP),
    ("READ", lambda m, vp: m.fs.read(vp, 0, 1, 0, CRED), errno.EOPNOTSUPP),
    ("ADVLOCK", lambda m, vp: m.fs.advlock(vp, 1, 6, Flock(1, 0, 0, 1), 0), errno.EOPNOTSUPP),
    ("LINK", lambda m, vp: m.fs.link(m.root, vp, lookup_cn(b"l", CRED)), errno.EOPNOTSUPP),
    ("PATHCONF", lambda m, vp: m.fs.pathconf(vp, 1), errno.EOPNOTSUPP),
]


@pytest.mark.parametrize(("op", "call", "expected"), ABSENT)
async def test_absent_operations_are_not_sent(op: str, call: Any, expected: Any) -> None:
    async with mounted("direct", MemServer(ops=ALL_OPS - {VnOp[op]}, kflags=0)) as m:
        vp = await m.create(b"a")
        sent = len(m.server.calls)
        if expected == errno.EOPNOTSUPP:
            with pytest.raises(VfsError) as caught:
                await call(m, vp)
            assert caught.value.errno == expected
        else:
            assert await call(m, vp) == expected
        assert len(m.server.calls) == sent
        await m.give_up(vp)


async def test_allops_sends_what_is_not_in_the_mask() -> None:
    server = MemServer(ops=frozenset({VnOp.LOOKUP}), kflags=KFlag.ALLOPS)
    async with mounted("direct", server) as m:
        vp = await m.create(b"a")
        await m.fs.access(vp, VREAD, CRED)
        assert m.server.calls == ["create", "access"]
        await m.give_up(vp)


async def test_without_write_a_regular_file_is_read_only() -> None:
    async with mounted("direct", MemServer(ops=ALL_OPS - {VnOp.WRITE})) as m:
        vp = await m.create(b"a")
        for call in (m.fs.open(vp, FREAD | FWRITE, CRED), m.fs.access(vp, VWRITE, CRED)):
            with pytest.raises(VfsError) as caught:
                await call
            assert caught.value.errno == errno.EROFS
        await m.fs.open(vp, FREAD, CRED)
        m.fs.close(vp, FREAD, CRED)
        await m.fs.access(m.root, VWRITE, CRED)
        await m.give_up(vp)


async def test_nocache_flags_take_the_time_outs_away() -> None:
    flags = KFlag.NOCACHE_NAME | KFlag.NOCACHE_ATTR | KFlag.NOCACHE_PAGE
    async with mounted("direct", MemServer(kflags=flags)) as m:
        vp = await m.create(b"a")
        found = await m.fs.lookup(m.root, lookup_cn(b"a", CRED))
        assert (found.cn_ttl, found.va_ttl) == (0, 0)
        assert (await m.fs.lookup(m.root, lookup_cn(b"b", CRED))).cn_ttl == 0
        assert (await m.fs.getattr(vp, CRED))[1] == 0
        assert await m.fs.open(vp, FREAD, CRED) == OpenFlag.IO_DIRECT
        with pytest.raises(VfsError) as caught:
            await m.fs.mmap(vp, 1, CRED)
        assert caught.value.errno == errno.EOPNOTSUPP
        m.fs.close(vp, FREAD, CRED)
        await m.give_up(vp, vp)


@both
async def test_a_bug_of_the_server_is_eio_and_logged_once(way: str, log_watch: LogWatch) -> None:
    log_watch.expect("failed by a bug")
    async with mounted(way) as m:
        m.server.nodes[m.root.data.cookie].names = None  # type: ignore[assignment]
        for _ in range(2):
            with pytest.raises(VfsError) as caught:
                await m.fs.create(m.root, lookup_cn(b"a", CRED), FILE)
            assert caught.value.errno == errno.EIO
        m.server.nodes[m.root.data.cookie].names = {}
        vp = await m.create(b"a")
        await m.give_up(vp)
    assert len(log_watch.lines) == 1


async def test_an_operation_that_need_not_wait_does_not_yield() -> None:
    async with mounted("direct") as m:
        vp = await m.create(b"a")

        def run(call: Any) -> Any:
            try:
                call.send(None)
            except StopIteration as exc:
                return exc.value
            raise AssertionError("it yielded")

        run(m.fs.getattr(vp, CRED))
        run(m.fs.write(vp, 0, b"x", 0, CRED))
        assert bytes(run(m.fs.read(vp, 0, 9, 0, CRED))) == b"x"
        other = vnode_of(run(m.fs.lookup(m.root, lookup_cn(b"a", CRED))))
        await m.give_up(vp, other)


async def test_data_travel_by_reference_in_one_process() -> None:
    async with mounted("direct") as m:
        vp = await m.create(b"a")
        seen: list[Any] = []
        data = bytearray(b"data")

        async def write(opc: Any, offset: int, data: Any, ioflag: int, cred: Any) -> None:
            seen.append(data)

        async def read(*args: object) -> Any:
            return data

        assert isinstance(m.fs.touser, DirectTouser)
        half = m.fs.touser._half
        half._vnode_ops[VnOp.WRITE] = write
        half._vnode_ops[VnOp.READ] = read
        await m.fs.write(vp, 0, data, 0, CRED)
        assert seen[0] is data
        assert await m.fs.read(vp, 0, 4, 0, CRED) is data
        await m.give_up(vp)
