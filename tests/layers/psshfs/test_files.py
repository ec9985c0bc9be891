"""Operations on data and attributes against a real sftp-server."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from syspuffs.layers.psshfs import PsshfsOptions, mount_psshfs
from syspuffs.native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
    MNT_WAIT,
    VEXEC,
    VREAD,
    VWRITE,
    OpenFlag,
)
from syspuffs.native.records import Cookie, Vattr, lookup_cn

from .harness import (
    CRED,
    NOCACHE,
    SECOND,
    SFTP_SERVER,
    Clock,
    look,
    make,
    mounted,
    read_file,
    root_of,
)
from .test_names import ROOT_ONLY, errno_of

SIZES = [0, 1, 4095, 4096, 32768, 261119, 261120, 261121, 522240, 1048576, 3_000_017]


@pytest.mark.parametrize("options", [PsshfsOptions(), NOCACHE, PsshfsOptions(read_ahead=0)])
@pytest.mark.parametrize("step", [4096, 131072, 1048576])
async def test_read_all_sizes(tmp_path: Path, options: PsshfsOptions, step: int) -> None:
    rng = random.Random(1)
    for size in SIZES:
        (tmp_path / f"f{size}").write_bytes(rng.randbytes(size))
    async with mounted(tmp_path, options=options) as server:
        for size in SIZES:
            if size // step > 300:
                continue
            info = await look(server, b"f%d" % size)
            assert (
                await read_file(server, info.cookie, step) == (tmp_path / f"f{size}").read_bytes()
            )
        assert server.statistics().octets_read_ahead == 0
        assert server.statistics().open_files == 0


@pytest.mark.parametrize("options", [PsshfsOptions(), NOCACHE, PsshfsOptions(write_behind=0)])
@pytest.mark.parametrize("step", [1000, 131072, 1048576])
async def test_write_all_sizes(tmp_path: Path, options: PsshfsOptions, step: int) -> None:
    rng = random.Random(2)
    async with mounted(tmp_path, options=options) as server:
        for size in SIZES:
            if size // step > 300:
                continue
            data = rng.randbytes(size)
            info = await make(server, b"f%d" % size)
            await server.open(info.cookie, FWRITE, CRED)
            scratch = bytearray(step)
            for at in range(0, size, step):
                piece = data[at : at + step]
                scratch[: len(piece)] = piece
                await server.write(info.cookie, at, memoryview(scratch)[: len(piece)], 0, CRED)
                scratch[:] = bytes(step)  # the memory is ours again
            va, _ = await server.getattr(info.cookie, CRED)
            assert va.size == size
            await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
            assert (tmp_path / f"f{size}").read_bytes() == data
            server.close(info.cookie, FWRITE, CRED)


async def test_random_reads_and_writes_agree_with_a_model(tmp_path: Path) -> None:
    rng = random.Random(3)
    model = bytearray()
    async with mounted(tmp_path) as server:
        info = await make(server, b"f")
        await server.open(info.cookie, FREAD | FWRITE, CRED)
        for turn in range(600):
            what = rng.random()
            offset = rng.randrange(600_000)
            length = rng.choice([1, 100, 4096, 70_000, 300_000])
            if what < 0.4:
                data = rng.randbytes(length)
                if offset > len(model):
                    model.extend(bytes(offset - len(model)))
                model[offset : offset + length] = data
                await server.write(info.cookie, offset, data, 0, CRED)
            elif what < 0.9:
                got = await server.read(info.cookie, offset, length, 0, CRED)
                assert bytes(got) == model[offset : offset + length], turn
            elif what < 0.95:
                size = rng.randrange(700_000)
                model = model[:size] + bytes(max(0, size - len(model)))
                va, _ = await server.setattr(info.cookie, Vattr(size=size), CRED)
                assert va.size == size
            else:
                va, _ = await server.getattr(info.cookie, CRED)
                assert va.size == len(model)
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "f").read_bytes() == model


async def test_random_readers_are_not_read_ahead_for(tmp_path: Path) -> None:
    data = os.urandom(4 << 20)
    (tmp_path / "f").write_bytes(data)
    async with mounted(tmp_path) as server:
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        rng = random.Random(4)
        before = server.statistics().connection.octets_received
        for _ in range(100):
            at = rng.randrange(4096, len(data) - 4096)
            assert (
                bytes(await server.read(info.cookie, at, 4096, 0, CRED)) == (data[at : at + 4096])
            )
        assert server.statistics().connection.octets_received - before < 100 * 4200
        server.close(info.cookie, FREAD, CRED)


async def test_sequential_readers_out_of_order_and_together(tmp_path: Path) -> None:
    data = os.urandom(6 << 20)
    (tmp_path / "f").write_bytes(data)
    step = 131072
    async with mounted(tmp_path) as server:
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        before = server.statistics().connection.octets_received
        starts = [0, 2 << 20, 4 << 20]
        for at in range(0, 2 << 20, 2 * step):
            for base in starts:
                for offset in (base + at + step, base + at):
                    got = await server.read(info.cookie, offset, step, 0, CRED)
                    assert bytes(got) == data[offset : offset + step]
        received = server.statistics().connection.octets_received - before
        assert received < 1.6 * len(data)
        server.close(info.cookie, FREAD, CRED)
        assert server.statistics().octets_read_ahead == 0


async def test_the_read_ahead_of_all_files_is_bounded(tmp_path: Path) -> None:
    options = PsshfsOptions(read_ahead=1 << 20, read_ahead_total=2 << 20)
    content = bytes(4 << 20)
    for n in range(6):
        (tmp_path / f"f{n}").write_bytes(content)
    async with mounted(tmp_path, options=options) as server:
        cookies = []
        for n in range(6):
            info = await look(server, b"f%d" % n)
            await server.open(info.cookie, FREAD, CRED)
            cookies.append(info.cookie)
        for at in range(0, 4 << 20, 131072):
            for cookie in cookies:
                got = await server.read(cookie, at, 131072, 0, CRED)
                assert len(got) == 131072
                # Each file may have what its reader waits for besides.
                assert server.statistics().octets_read_ahead <= (2 << 20) + 261120
        for cookie in cookies:
            server.close(cookie, FREAD, CRED)
        assert server.statistics().octets_read_ahead == 0


async def test_append(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"log", b"one\n")
        await server.open(info.cookie, FWRITE, CRED)
        with open(tmp_path / "log", "ab") as other:
            other.write(b"two\n")
        await server.write(info.cookie, 0, b"three\n", IO_APPEND, CRED)
        await server.write(info.cookie, 0, b"four\n", IO_APPEND | IO_SYNC, CRED)
        assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\nfour\n"


async def test_setattr(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f", b"0123456789")
        path = tmp_path / "f"
        va, _ = await server.setattr(info.cookie, Vattr(mode=0o640), CRED)
        assert va.mode == 0o640 == stat.S_IMODE(path.stat().st_mode)
        va, _ = await server.setattr(info.cookie, Vattr(mtime=1234 * SECOND + 999), CRED)
        assert va.mtime == 1234 * SECOND
        assert path.stat().st_mtime == 1234
        va, _ = await server.setattr(info.cookie, Vattr(atime=99 * SECOND), CRED)
        assert (path.stat().st_atime, path.stat().st_mtime) == (99, 1234)
        va, _ = await server.setattr(info.cookie, Vattr(size=4), CRED)
        assert path.read_bytes() == b"0123"
        assert va.mtime is not None
        assert va.mtime > 1234 * SECOND
        va, _ = await server.setattr(info.cookie, Vattr(size=8), CRED)
        assert path.read_bytes() == b"0123\0\0\0\0"
        for time in (-1, (1 << 32) * SECOND):
            late = server.setattr(info.cookie, Vattr(mtime=time), CRED)
            assert await errno_of(late) == errno.EINVAL
        before, _ = await server.getattr(info.cookie, CRED)
        assert (await server.setattr(info.cookie, Vattr(), CRED))[0] == before
        assert (await server.getattr(info.cookie, CRED))[0] == before
        directory = server.setattr(root_of(server), Vattr(size=0), CRED)
        assert await errno_of(directory) == errno.EISDIR


@ROOT_ONLY
async def test_owner_and_its_translation(tmp_path: Path) -> None:
    async with mounted(tmp_path, options=PsshfsOptions(uid=4711, gid=4712)) as server:
        info = await make(server, b"f")
        path = tmp_path / "f"
        os.chown(path, 4711, 4712)
        await server.forget()
        va, _ = await server.getattr(info.cookie, CRED)
        assert (va.uid, va.gid) == (os.geteuid(), os.getegid())
        os.chown(path, 1000, 1001)
        await server.forget()
        va, _ = await server.setattr(info.cookie, Vattr(uid=os.geteuid()), CRED)
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 1001)
        assert (va.uid, va.gid) == (os.geteuid(), 1001)
        va, _ = await server.setattr(info.cookie, Vattr(gid=77), CRED)
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 77)


@ROOT_ONLY
async def test_attributes_of_links(tmp_path: Path) -> None:
    (tmp_path / "t").touch()
    (tmp_path / "l").symlink_to("t")
    async with mounted(tmp_path) as server:
        info = await look(server, b"l")
        va, _ = await server.setattr(info.cookie, Vattr(uid=5, gid=6), CRED)
        assert (va.uid, va.gid) == (5, 6)
        assert (tmp_path / "l").lstat().st_uid == 5
        assert (tmp_path / "t").stat().st_uid == os.geteuid()
        va, _ = await server.setattr(info.cookie, Vattr(mtime=77 * SECOND), CRED)
        assert (tmp_path / "l").lstat().st_mtime == 77
        mode = server.setattr(info.cookie, Vattr(mode=0o600), CRED)
        assert await errno_of(mode) == errno.EOPNOTSUPP


async def test_late_writes_do_not_move_a_time_that_was_set(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        for n in range(50):
            await server.write(info.cookie, n * 100_000, bytes(100_000), 0, CRED)
        await server.setattr(info.cookie, Vattr(atime=5 * SECOND, mtime=6 * SECOND), CRED)
        server.close(info.cookie, FWRITE, CRED)
        await server.unmount(0)
        assert (tmp_path / "f").stat().st_mtime == 6
        assert (tmp_path / "f").stat().st_size == 5_000_000


async def test_open_keeps_pages_only_when_nothing_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"aaaa")
    os.utime(path, (1000, 1000))
    async with mounted(tmp_path) as server:
        info = await look(server, b"f")

        async def keep() -> bool:
            flags, _ = await server.open(info.cookie, FREAD, CRED)
            await server.read(info.cookie, 0, 10, 0, CRED)
            server.close(info.cookie, FREAD, CRED)
            return bool(flags & OpenFlag.IO_KEEP)

        assert not await keep()  # nothing was known
        assert await keep()
        path.write_bytes(b"bbbb")  # changed, same size
        assert not await keep()
        # Changed within the last seconds: it may change again and look the same.
        assert not await keep()
        path.write_bytes(b"cccc")
        assert not await keep()
        os.utime(path, (2000, 2000))
        assert not await keep()
        assert await keep()


async def test_open_sees_what_others_wrote(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f", b"old")
        assert await read_file(server, info.cookie) == b"old"
        (tmp_path / "f").write_bytes(b"new and longer")
        assert await read_file(server, info.cookie) == b"new and longer"
        (tmp_path / "f").write_bytes(b"short")
        assert await read_file(server, info.cookie) == b"short"


async def test_attributes_after_close_are_the_servers(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f")
        os.utime(tmp_path / "f", (1000, 1000))
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, b"x" * 1000, 0, CRED)
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        server.close(info.cookie, FWRITE, CRED)
        va, _ = await server.getattr(info.cookie, CRED)
        there = (tmp_path / "f").stat()
        assert (va.size, va.mtime) == (1000, int(there.st_mtime) * SECOND)


async def test_sync_and_unmount(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, bytes(500_000), 0, CRED)
        await server.sync(MNT_WAIT, CRED)
        assert (tmp_path / "f").stat().st_size == 500_000
        assert server.statistics().octets_unacknowledged == 0
        await server.fsync(root_of(server), FSYNC_WAIT, 0, 0, CRED)
        await server.write(info.cookie, 500_000, bytes(500_000), 0, CRED)
        await server.unmount(0)
        assert (tmp_path / "f").stat().st_size == 1_000_000
        assert server.statistics().open_files == 0


async def test_handles_are_made_when_pages_come_after_the_close(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f", b"12345")
        assert bytes(await server.read(info.cookie, 1, 3, 0, CRED)) == b"234"
        await server.write(info.cookie, 5, b"678", 0, CRED)
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "f").read_bytes() == b"12345678"
        await server.inactive(info.cookie)
        server.reclaim(info.cookie, 1)
        assert server.statistics().nodes == 1


@ROOT_ONLY
async def test_refusals_of_the_server(tmp_path: Path) -> None:
    async with mounted(tmp_path, "-R") as server:
        made = server.create(root_of(server), lookup_cn(b"f", CRED), Vattr(vtype=1, mode=0o644))
        assert await errno_of(made) == errno.EACCES
        (tmp_path / "f").touch()
        info = await look(server, b"f")
        assert await errno_of(server.open(info.cookie, FWRITE, CRED)) == errno.EACCES
        mode = server.setattr(info.cookie, Vattr(mode=0o600), CRED)
        assert await errno_of(mode) == errno.EPERM
        size = server.setattr(info.cookie, Vattr(size=0), CRED)
        assert await errno_of(size) == errno.EACCES
        remove = server.remove(root_of(server), info.cookie, lookup_cn(b"f", CRED))
        assert await errno_of(remove) == errno.EACCES
        assert server.statistics().open_files == 0


async def test_time_outs(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "f"
    path.write_bytes(b"1")
    async with mounted(tmp_path, clock=clock) as server:
        info = await look(server, b"f")
        path.write_bytes(b"22")
        clock.advance(29)
        va, ttl = await server.getattr(info.cookie, CRED)
        assert (va.size, ttl) == (1, SECOND)
        assert (await look(server, b"f")).size == 1
        clock.advance(2)
        va, ttl = await server.getattr(info.cookie, CRED)
        assert (va.size, ttl) == (2, 30 * SECOND)


async def test_access(tmp_path: Path) -> None:
    (tmp_path / "plain").touch(mode=0o644)
    (tmp_path / "program").touch(mode=0o755)
    for ro in (False, True):
        async with mounted(tmp_path, options=PsshfsOptions(ro=ro)) as server:
            plain, program = await look(server, b"plain"), await look(server, b"program")
            await server.access(plain.cookie, VREAD, CRED)
            await server.access(program.cookie, VEXEC | VREAD, CRED)
            assert await errno_of(server.access(plain.cookie, VEXEC, CRED)) == errno.EACCES
            if ro:
                assert await errno_of(server.access(plain.cookie, VWRITE, CRED)) == errno.EROFS
            else:
                await server.access(plain.cookie, VWRITE, CRED)


async def test_fsync_of_what_is_not_open(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        info = await make(server, b"f", b"1")
        before = server.statistics().connection.requests
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        # OPEN, FSYNC, CLOSE: whoever wrote it, it is on the disk now.
        assert server.statistics().connection.requests - before == 3
        await server.open(info.cookie, FREAD, CRED)
        before = server.statistics().connection.requests
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert server.statistics().connection.requests - before == 1


async def test_what_create_left_open_is_for_the_first_open_alone(tmp_path: Path) -> None:
    async with mounted(tmp_path) as server:
        root = root_of(server)
        info = await server.create(root, lookup_cn(b"f", CRED), Vattr(vtype=1, mode=0o444))
        before = server.statistics().connection.requests
        await server.open(info.cookie, FREAD, CRED)
        assert server.statistics().connection.requests == before
        await server.open(info.cookie, FWRITE, CRED)
        # OPEN and LSTAT, and FSTAT of the handle that is there: is it the same file?
        assert server.statistics().connection.requests == before + 3
        server.close(info.cookie, FREAD, CRED)
        await server.write(info.cookie, 0, b"x", 0, CRED)
        server.close(info.cookie, FWRITE, CRED)
        await server.unmount(0)
        assert (tmp_path / "f").read_bytes() == b"x"


async def test_a_reader_that_pauses_gets_no_old_data(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "f"
    path.write_bytes(b"a" * 1_000_000)
    async with mounted(tmp_path, clock=clock, options=NOCACHE) as server:
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        assert bytes(await server.read(info.cookie, 0, 100_000, 0, CRED)) == b"a" * 100_000
        path.write_bytes(b"b" * 1_000_000)
        clock.advance(5)
        got = await server.read(info.cookie, 100_000, 100_000, 0, CRED)
        assert bytes(got) == b"b" * 100_000


async def test_a_change_of_mode_does_not_hide_a_change_of_data(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"aaaa")
    os.utime(path, (1000, 1000))
    async with mounted(tmp_path) as server:
        info = await look(server, b"f")
        for expected in (0, OpenFlag.IO_KEEP):
            flags, _ = await server.open(info.cookie, FREAD, CRED)
            assert flags == expected
            server.close(info.cookie, FREAD, CRED)
        path.write_bytes(b"bbbb")
        os.utime(path, (2000, 2000))
        await server.setattr(info.cookie, Vattr(mode=0o600), CRED)
        flags, _ = await server.open(info.cookie, FREAD, CRED)
        assert flags == 0


async def test_too_many_open_files(tmp_path: Path) -> None:
    shell = ["/bin/sh", "-c", f"ulimit -n 40; exec {SFTP_SERVER}"]
    near, far = socket.socketpair()
    with subprocess.Popen(shell, stdin=far.fileno(), stdout=far.fileno()) as process:
        far.close()
        async with mount_psshfs(near, os.fsencode(tmp_path)) as server:
            assert 0 < server.session.max_handles <= 40
            cookies: list[Cookie] = []

            async def open_all() -> None:
                for n in range(50):
                    info = await server.mknod(
                        root_of(server), lookup_cn(b"f%d" % n, CRED), Vattr(vtype=1, mode=0o644)
                    )
                    await server.open(info.cookie, FREAD, CRED)
                    cookies.append(info.cookie)

            assert await errno_of(open_all()) == errno.ENFILE
            for cookie in cookies:
                server.close(cookie, FREAD, CRED)
            assert not server.connection.handles
            assert await read_file(server, cookies[0]) == b""
        near.close()
        process.wait(timeout=5)


@pytest.mark.parametrize("mode", [FREAD, FWRITE])
async def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path, mode: int) -> None:
    """As a log is that is rotated under `tail -f`: who has the old one open reads on in it."""
    old, new = b"o" * 200_000, b"n" * 200_005
    (tmp_path / "f").write_bytes(old)
    os.utime(tmp_path / "f", (1000, 1000))
    async with mounted(tmp_path) as server:
        before = await look(server, b"f")
        await server.open(before.cookie, FREAD, CRED)
        assert bytes(await server.read(before.cookie, 0, 10, 0, CRED)) == old[:10]
        (tmp_path / "g").write_bytes(new)
        (tmp_path / "g").rename(tmp_path / "f")
        assert await errno_of(server.open(before.cookie, mode, CRED)) == errno.ESTALE
        after = await look(server, b"f")
        assert after.cookie != before.cookie
        await server.open(after.cookie, FREAD, CRED)
        assert bytes(await server.read(after.cookie, 0, 300_000, 0, CRED)) == new
        assert bytes(await server.read(before.cookie, 100_000, 100_000, 0, CRED)) == old[100_000:]
        va, _ = await server.getattr(before.cookie, CRED)
        assert va.size == len(old)


async def test_a_file_that_grows_is_the_same(tmp_path: Path) -> None:
    """By others, and by writes of ours that are under way."""
    (tmp_path / "f").write_bytes(b"1")
    async with mounted(tmp_path) as server:
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD | FWRITE, CRED)
        with (tmp_path / "f").open("ab") as file:
            file.write(b"2")
        await server.open(info.cookie, FREAD, CRED)
        await server.write(info.cookie, 2, bytes(300_000), 0, CRED)
        await server.open(info.cookie, FREAD, CRED)
        assert bytes(await server.read(info.cookie, 0, 3, 0, CRED)) == b"12\0"
