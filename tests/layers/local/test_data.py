"""What files hold: in place or by threads, open or not, and for how long data stay."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from syspuffs.layers.local.files import KEPT_MAX
from syspuffs.layers.local.pace import QUICK, SLOW_FOR, Pace
from syspuffs.native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FSYNC_DATAONLY,
    FSYNC_WAIT,
    FWRITE,
    IO_APPEND,
    IO_SYNC,
)
from syspuffs.native.records import Vattr, lookup_cn

from ...support.expect import pattern
from .harness import DIRECTORY, FILE, SECOND, US, Clock, raises, served

RDWR = FREAD | FWRITE


def open_fds(path: Path) -> int:
    """Return how many descriptors of the process are below `path`."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith(str(path))
        except FileNotFoundError:
            pass
    return found


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk, and one whose file system cannot say what is in memory."""
    if request.param == "disk":
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


async def test_read_and_write(place: Path) -> None:
    data = pattern(300_000)
    with served(place) as tree:
        f = await tree.create(tree.root, "f")
        await tree.server.open(f, RDWR, US)
        await tree.server.write(f, 1000, memoryview(data), 0, US)
        assert (place / "f").read_bytes() == bytes(1000) + data
        assert await tree.read(f) == bytes(1000) + data
        assert await tree.read(f, 10, 300_995) == data[-5:]
        assert await tree.read(f, 10, 301_000) == b""
        assert await tree.read(f, 10, 1 << 62) == b""
        assert await tree.read(f, 10, 1 << 63) == b""
        assert await tree.read(f, 0) == b""
        await tree.server.write(f, 5, b"", 0, US)
        await tree.server.setattr(f, Vattr(size=10), US)
        assert await tree.read(f) == bytes(10)
        await tree.server.write(f, 0, b"end", IO_APPEND, US)
        await tree.server.write(f, 0, b"synced", IO_APPEND | IO_SYNC, US)
        assert await tree.read(f) == bytes(10) + b"endsynced"
        with raises(errno.EFBIG):
            await tree.server.write(f, (1 << 63) - 2, b"xx", 0, US)
        with raises(errno.EFBIG):
            await tree.server.setattr(f, Vattr(size=1 << 63), US)
        for flags in (0, FSYNC_CLOSE, FSYNC_WAIT, FSYNC_WAIT | FSYNC_DATAONLY):
            await tree.server.fsync(f, flags, 0, 0, US)
            await tree.server.fsync(tree.root, flags, 0, 0, US)
        tree.server.close(f, RDWR, US)


async def test_not_open(place: Path) -> None:
    """A kernel above may read pages, and write them back, at any time."""
    with served(place) as tree:
        (place / "f").write_text("data")
        f = await tree.walk("f")
        assert await tree.read(f) == b"data"
        await tree.server.write(f, 4, b" and more", 0, US)
        await tree.server.fsync(f, FSYNC_WAIT, 0, 0, US)
        await tree.server.setattr(f, Vattr(size=8), US)
        assert (place / "f").read_text() == "data and"
        assert open_fds(place / "f") == 0


async def test_space(place: Path) -> None:
    with served(place) as tree:
        f = await tree.create(tree.root, "f")
        await tree.server.write(f, 0, b"x" * 65536, 0, US)
        await tree.server.fdiscard(f, 4096, 8192)
        assert (await tree.read(f))[4095:12289] == b"x" + bytes(8192) + b"x"
        await tree.server.fallocate(f, 0, 100_000)
        va = await tree.attributes(f)
        assert va.size == 100_000
        assert va.bytes is not None
        assert va.bytes >= 98_304
        with raises(errno.EFBIG):
            await tree.server.fallocate(f, (1 << 63) - 1, 1)
        with raises(errno.EISDIR):
            await tree.server.fdiscard(tree.root, 0, 1)


# In place, or by a thread.


async def test_what_is_not_in_memory_waits_in_a_thread(tmp_path: Path) -> None:
    data = pattern(1 << 20)
    (tmp_path / "f").write_bytes(data)
    with served(tmp_path) as tree:
        f = await tree.walk("f")
        await tree.server.open(f, FREAD, US)
        assert await tree.read(f) == data
        assert tree.server.statistics().waits == 0
        with open(tmp_path / "f", "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert await tree.read(f) == data
        assert tree.server.statistics().waits > 0
        for _ in range(100):  # the host may have given pages to others meanwhile
            waits = tree.server.statistics().waits
            assert await tree.read(f) == data
            if tree.server.statistics().waits == waits:
                break
        else:
            raise AssertionError("it is never read in place")
        tree.server.close(f, FREAD, US)


async def test_a_disk_that_is_slow_is_waited_for_in_threads() -> None:
    clock = Clock()
    pace = Pace(clock)
    threads: list[bool] = []

    def call(took: float) -> None:
        clock.advance(took)
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            threads.append(True)
        else:
            threads.append(False)

    slow = 2 * QUICK / SECOND
    for took in (0.0, slow, 0.0, 0.0):
        await pace.quickly(call, took)
    clock.advance(SLOW_FOR / SECOND - 0.1)
    await pace.quickly(call, slow)  # slow still, for another while
    clock.advance(SLOW_FOR / SECOND - 0.1)
    await pace.quickly(call, 0.0)
    clock.advance(0.2)
    await pace.quickly(call, 0.0)
    assert threads == [False, False, True, True, True, True, False]
    assert pace.waits == 4


async def test_a_descriptor_outlives_its_close(tmp_path: Path) -> None:
    """Somebody closes a file while a thread writes to it: not the next file's descriptor, then."""
    with served(tmp_path) as tree:
        f = await tree.create(tree.root, "f")
        await tree.server.open(f, RDWR, US)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.server.write, f, 0, b"x" * 100_000, IO_SYNC, US)
            await trio.lowlevel.checkpoint()
            tree.server.close(f, RDWR, US)
            (tmp_path / "other").touch()
            with open(tmp_path / "other", "r+b"):
                pass
        assert (tmp_path / "f").read_bytes() == b"x" * 100_000
        assert open_fds(tmp_path / "f") == 0


# Descriptors.


async def test_who_makes_a_file_may_write_it(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        f = await tree.create(tree.root, "f", FILE._replace(mode=0o444))
        assert open_fds(tmp_path / "f") == 1
        await tree.server.open(f, RDWR, US)
        await tree.server.write(f, 0, b"data", 0, US)
        assert open_fds(tmp_path / "f") == 1
        tree.server.close(f, RDWR, US)
        assert open_fds(tmp_path / "f") == 0
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o444


async def test_files_that_nobody_opens(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        made = [await tree.create(tree.root, f"{number}") for number in range(50)]
        assert tree.server.statistics().open_files == KEPT_MAX
        await tree.server.open(made[0], FREAD, US)
        await tree.server.open(made[-1], FREAD, US)
        assert tree.server.statistics().open_files == KEPT_MAX + 1
        for cookie in (made[0], made[-1]):
            tree.server.close(cookie, FREAD, US)
        assert tree.server.statistics().open_files == KEPT_MAX - 1
        assert open_fds(tmp_path) == KEPT_MAX - 1 + 1  # and the root's


async def test_descriptors_by_who_needs_them(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with served(tmp_path) as tree:
        f = await tree.walk("f")
        counts = []
        for mode in (FREAD, FREAD, FWRITE):
            await tree.server.open(f, mode, US)
            counts.append(open_fds(tmp_path / "f"))
        for mode in (FWRITE, FREAD, FREAD):
            tree.server.close(f, mode, US)
            counts.append(open_fds(tmp_path / "f"))
        assert counts == [1, 1, 2, 1, 1, 0]
        tree.server.close(f, FREAD, US)  # once too often


async def test_a_program_that_was_copied_can_be_run(tmp_path: Path) -> None:
    """ETXTBSY: a descriptor to write must not stay behind the close."""
    with served(tmp_path) as tree:
        f = await tree.create(tree.root, "f", FILE._replace(mode=0o755))
        await tree.server.open(f, FWRITE, US)
        await tree.server.open(f, FREAD, US)
        await tree.server.write(f, 0, Path("/bin/true").read_bytes(), 0, US)
        tree.server.close(f, FREAD, US)
        tree.server.close(f, FWRITE, US)
        done = await trio.run_process([tmp_path / "f"])
        assert done.returncode == 0


async def test_many_directories_and_few_descriptors(tmp_path: Path) -> None:
    with served(tmp_path, fds_max=8) as tree:
        cookie, deep = tree.root, []
        for _ in range(60):
            cookie = await tree.create(cookie, "d", DIRECTORY)
            deep.append(cookie)
        wide = [await tree.create(tree.root, f"{number}", DIRECTORY) for number in range(60)]
        for pair in zip(deep, wide, strict=True):
            for cookie in pair:
                await tree.create(cookie, "f")
            one, other = pair
            f = await tree.server.lookup(one, lookup_cn(b"f", US))
            tree.took(f)
            await tree.server.rename(
                one, f.cookie, lookup_cn(b"f", US), other, None, lookup_cn(b"g", US)
            )
            assert await tree.names(other) == [b".", b"..", b"f", b"g"]
            assert tree.server.statistics().path_descriptors <= 8
        assert open_fds(tmp_path) <= 8 + KEPT_MAX + 1
        tree.clock.advance(1.1)
        assert await tree.names(deep[-1]) == [b".", b".."]
        # Directories stay while something below them does.
        tree.held.pop(deep[0])
        tree.server.reclaim(deep[0], 1)
        assert await tree.names(deep[1]) == [b".", b"..", b"d"]


async def test_a_tree_deeper_than_any_stack(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        cookie, deep = tree.root, []
        for _ in range(1500):
            cookie = await tree.create(cookie, "d", DIRECTORY)
            deep.append(cookie)
        tree.clock.advance(1.1)
        f = await tree.create(cookie, "f")
        tree.clock.advance(1.1)
        assert (await tree.attributes(f)).size == 0
        directories = [tree.root, *deep]
        await tree.server.remove(cookie, f, lookup_cn(b"f", US))
        for parent, below in zip(directories[-2::-1], directories[:0:-1], strict=True):
            await tree.server.rmdir(parent, below, lookup_cn(b"d", US))
    assert os.listdir(tmp_path) == []


# Removed, and not gone.


@pytest.mark.parametrize("how", ["remove", "rename"])
async def test_data_stay_until_the_cookie_goes(tmp_path: Path, how: str) -> None:
    with served(tmp_path) as tree:
        (tmp_path / "f").write_text("data")
        (tmp_path / "new").write_text("new")
        f, new = await tree.walk("f"), await tree.walk("new")
        if how == "remove":
            await tree.server.remove(tree.root, f, lookup_cn(b"f", US))
        else:
            names = lookup_cn(b"new", US), lookup_cn(b"f", US)
            await tree.server.rename(tree.root, new, names[0], tree.root, f, names[1])
        assert (await tree.attributes(f)).nlink == 0
        await tree.server.open(f, RDWR, US)
        await tree.server.write(f, 4, b" more", 0, US)
        assert await tree.read(f) == b"data more"
        tree.server.close(f, RDWR, US)
        assert await tree.read(f) == b"data more"
        with raises(errno.ENOENT):
            await tree.server.link(tree.root, f, lookup_cn(b"back", US))
        tree.server.reclaim(f, tree.held.pop(f))
        with raises(errno.ESTALE):
            await tree.read(f)


async def test_one_of_two_names_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("data")
    os.link(tmp_path / "a", tmp_path / "b")
    with served(tmp_path) as tree:
        a, b = await tree.walk("a"), await tree.walk("b")
        assert a == b
        await tree.server.remove(tree.root, a, lookup_cn(b"b", US))
        assert (await tree.attributes(a)).nlink == 1
        assert await tree.read(a) == b"data"
        assert await tree.walk("a") == a
        await tree.server.link(tree.root, a, lookup_cn(b"c", US))
        names = lookup_cn(b"a", US), lookup_cn(b"c", US)
        await tree.server.rename(tree.root, a, names[0], tree.root, a, names[1])
        assert sorted(os.listdir(tmp_path)) == ["a", "c"]
        assert await tree.read(a) == b"data"


async def test_too_many_removed_files(tmp_path: Path) -> None:
    """Those that went first cannot be held on to: they are gone, and say so."""
    with served(tmp_path, fds_max=8) as tree:
        cookies = []
        for number in range(20):
            (tmp_path / f"{number}").write_text("data")
            cookie = await tree.walk(f"{number}")
            await tree.server.remove(tree.root, cookie, lookup_cn(b"%d" % number, US))
            cookies.append(cookie)
        for cookie in cookies[:12]:
            with raises(errno.ESTALE):
                await tree.attributes(cookie)
        for cookie in cookies[12:]:
            assert await tree.read(cookie) == b"data"


async def test_what_could_not_be_removed(tmp_path: Path) -> None:
    (tmp_path / "d" / "below").mkdir(parents=True)
    (tmp_path / "f").touch()
    with served(tmp_path) as tree:
        d, f = await tree.walk("d"), await tree.walk("f")
        with raises(errno.ENOTEMPTY):
            await tree.server.rmdir(tree.root, d, lookup_cn(b"d", US))
        with raises(errno.EISDIR):
            await tree.server.remove(tree.root, d, lookup_cn(b"d", US))
        with raises(errno.ENOTDIR):
            await tree.server.rmdir(tree.root, f, lookup_cn(b"f", US))
        cn = lookup_cn(b"f", US)
        with raises(errno.EISDIR):
            await tree.server.rename(tree.root, f, cn, tree.root, d, lookup_cn(b"d", US))
        with raises(errno.EINVAL):
            await tree.server.rename(tree.root, d, lookup_cn(b"d", US), d, None, cn)
        with raises(errno.EPERM):
            await tree.server.link(tree.root, d, lookup_cn(b"x", US))
        assert await tree.names(d) == [b".", b"..", b"below"]
        assert (await tree.attributes(f)).nlink == 1
        assert open_fds(tmp_path / "f") == 0
