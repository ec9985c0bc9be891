"""Order: what is on the medium when, and what a power cut or an error in between leaves."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from errno import EIO
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from syspuffs.emul.rumpuser import FaultDisk, Faults
from syspuffs.emul.rumpuser.fault import NO_FAULTS
from syspuffs.native.constants import FSYNC_DATAONLY, FSYNC_WAIT, IO_SYNC
from syspuffs.native.errors import VfsError

from ...disk.images import repair
from ...support.expect import pattern
from .volumes import MIB, Tree, check_clean, in_memory, make_image

SIZE = 4 * MIB


@pytest.fixture(scope="module", params=[1024, 4096])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("order") / "image"
    return make_image(path, SIZE, "-m", "0", block=request.param).read_bytes()


def disk_of(tree: Tree) -> FaultDisk:
    disk = tree.ext2._disk
    assert isinstance(disk, FaultDisk)
    return disk


async def fsync(tree: Tree, path: bytes, flags: int = FSYNC_WAIT) -> None:
    """fsync(2), of a directory as well."""
    node = tree.hold(tree.root)
    for name in path.split(b"/") if path else []:
        found = await tree.node_lookup(node, name)
        assert found is not None
        await tree.put(node)
        node = found
    try:
        async with tree._shared(node):
            await tree.fs.fsync(node, flags, 0, 0, tree.cred)
    finally:
        await tree.put(node)


async def after_a_cut(
    image: bytes | bytearray, path: Path, look: Callable[[Tree], Awaitable[None]]
) -> None:
    """Repair an image and look at it."""
    path.write_bytes(image)
    repair(path)
    check_clean(path)
    async with in_memory(bytearray(path.read_bytes())) as tree:
        await look(tree)


# What is promised.


async def test_fsync_of_a_file_reaches_up_to_the_root(pristine: bytes, tmp_path: Path) -> None:
    memory = bytearray(pristine)
    async with in_memory(memory) as tree:
        await tree.mkdir(b"a")
        await tree.mkdir(b"a/b")
        await tree.write_file(b"a/other", b"x" * 5000)
        await tree.write_file(b"a/b/file", pattern(300_000))
        await fsync(tree, b"a/b/file")
        left = bytes(memory)

    async def look(tree: Tree) -> None:
        assert await tree.read_file(b"a/b/file") == pattern(300_000)
        assert await tree.listdir() == [b"a", b"lost+found"]

    await after_a_cut(left, tmp_path / "image", look)


async def test_fsync_of_a_directory(pristine: bytes, tmp_path: Path) -> None:
    """Its entries, new and old, and what they name; moved names are gone from where they were."""
    memory = bytearray(pristine)
    async with in_memory(memory) as tree:
        await tree.mkdir(b"dir")
        for number in range(60):
            await tree.write_file(b"dir/%d" % number + b"n" * 60, b"")
        await tree.mkdir(b"dir/sub")
        await tree.symlink(b"t" * 200, b"dir/link")
        await tree.sync()
        await tree.mkdir(b"other")
        await tree.rename(b"dir/1" + b"n" * 60, b"other/1")
        await tree.rename(b"dir/2" + b"n" * 60, b"dir/two")
        await tree.unlink(b"dir/3" + b"n" * 60)
        await tree.mkdir(b"dir/new")
        await fsync(tree, b"dir")
        left = bytes(memory)
        names = await tree.listdir(b"dir")

    async def look(tree: Tree) -> None:
        assert await tree.listdir(b"dir") == names
        assert await tree.listdir(b"other") == [b"1"]
        assert await tree.readlink(b"dir/link") == b"t" * 200
        assert await tree.listdir(b"dir/new") == []

    await after_a_cut(left, tmp_path / "image", look)


async def test_what_fsync_costs(pristine: bytes) -> None:
    """One flush, or two where something new must be there before what points to it."""
    async with in_memory(bytearray(pristine)) as tree:
        disk = disk_of(tree)

        async def flushes(path: bytes, flags: int = FSYNC_WAIT) -> tuple[int, int]:
            before = disk.statistics()
            await fsync(tree, path, flags)
            after = disk.statistics()
            return after.flushes - before.flushes, after.writes - before.writes

        await tree.mkdir(b"dir")
        await tree.write_file(b"dir/file", b"x")
        assert (await flushes(b"dir/file"))[0] == 2
        for number in range(20):
            await tree.write_file(b"dir/%d" % number, b"x")
        await tree.write_file(b"file", b"x")
        assert (await flushes(b"file"))[0] == 1
        assert (await flushes(b"file")) == (0, 0)
        async with await tree.open(b"file", os.O_RDWR) as file:
            await file.pwrite(b"y", 0)
        count, writes = await flushes(b"file", FSYNC_WAIT | FSYNC_DATAONLY)
        assert (count, writes) == (1, 1)  # the page; its time can wait
        assert (await flushes(b"file"))[1] == 1
        await tree.chmod(b"file", 0o600)
        assert await flushes(b"file", FSYNC_WAIT | FSYNC_DATAONLY) == (0, 0)
        assert await flushes(b"file") == (1, 1)
        await tree.write_file(b"dir/file", pattern(200_000))
        assert (await flushes(b"dir/file"))[0] == 2  # a table


async def test_io_sync(pristine: bytes, tmp_path: Path) -> None:
    """A write with IO_SYNC is on the medium when it returns."""
    memory = bytearray(pristine)
    async with in_memory(memory) as tree:
        await tree.write_file(b"file", b"")
        vp = await tree.node_lookup(tree.root, b"file")
        assert vp is not None
        async with tree._exclusive(vp):
            await tree.fs.write(vp, 5, pattern(20_000), IO_SYNC, tree.cred)
        await tree.put(vp)
        left = bytes(memory)

    async def look(tree: Tree) -> None:
        assert await tree.read_file(b"file") == bytes(5) + pattern(20_000)

    await after_a_cut(left, tmp_path / "image", look)


@pytest.mark.logs("")
async def test_nothing_is_lost_by_a_rename(pristine: bytes, tmp_path: Path) -> None:
    """A stable file has its old name or its new one, or what replaced it, at each moment."""
    path = tmp_path / "image"
    for seed in range(12):
        memory = bytearray(pristine)
        rng = Random(seed)
        async with in_memory(memory) as tree:
            disk = disk_of(tree)
            for name in (b"a", b"b"):
                await tree.mkdir(name)
                for number in range(30):
                    await tree.write_file(name + b"/%d" % number + b"n" * 20, name)
            await tree.write_file(b"a/old", b"old")
            await tree.write_file(b"a/target", b"1")
            await tree.sync()
            await tree.write_file(b"a/temporary", b"2")
            await fsync(tree, b"a/temporary")
            await tree.rename(b"a/old", b"b/new" + b"n" * rng.choice([1, 100, 250]))
            await tree.rename(b"a/temporary", b"a/target")
            for step in range(rng.randrange(6)):
                await tree.write_file(b"b/noise%d" % step, b"x" * 2000)
            if rng.random() < 0.5:
                await fsync(tree, b"b/noise0" if await tree.exists(b"b/noise0") else b"b")
            disk.faults = Faults(die_at=disk.operations + rng.randrange(30))
            with suppress(VfsError):
                await tree.sync()
            left = disk.crash(rng)

        async def look(tree: Tree) -> None:
            found = [
                top + b"/" + name
                for top in (b"a", b"b")
                for name in await tree.listdir(top)
                if name == b"old" or name.startswith(b"new")
            ]
            assert found
            for name in found:
                assert await tree.read_file(name) == b"old"
            assert await tree.read_file(b"a/target") in (b"1", b"2")
            if await tree.read_file(b"a/target") == b"1":
                assert await tree.read_file(b"a/temporary") == b"2"
            lost = await tree.listdir(b"lost+found")
            contents = [await tree.read_file(b"lost+found/" + name) for name in lost]
            assert b"old" not in contents
            assert b"2" not in contents

        await after_a_cut(left, path, look)


# Ghosts: names that have moved and still stand there.


async def test_ghosts_are_not_seen(pristine: bytes) -> None:
    async with in_memory(bytearray(pristine)) as tree:
        order = tree.ext2._order
        await tree.write_file(b"file", b"1")
        await tree.mkdir(b"dir")
        await tree.sync()
        await tree.rename(b"file", b"dir/file")
        node = tree.root.data
        assert list(node.dep.ghosts) == [b"file"]
        assert await tree.listdir() == [b"dir", b"lost+found"]
        assert not await tree.exists(b"file")
        # The way back: the name is true again.
        await tree.rename(b"dir/file", b"file")
        assert not node.dep.ghosts
        assert await tree.listdir() == [b"dir", b"file", b"lost+found"]
        # Another file takes the name: the ghost has to go before.
        await tree.sync()
        await tree.rename(b"file", b"dir/file")
        await tree.write_file(b"file", b"2")
        assert await tree.read_file(b"file") == b"2"
        assert await tree.read_file(b"dir/file") == b"1"
        await tree.unlink(b"dir/file")
        await tree.rename(b"file", b"dir/file")
        await tree.sync()
        assert not order.active
        # A directory that has nothing but a ghost can go; it takes the ghost along.
        await tree.rename(b"dir/file", b"file")
        await tree.rmdir(b"dir")
        await tree.sync()
        assert not order.active
        assert await tree.listdir() == [b"file", b"lost+found"]


async def test_new_names_leave_no_ghosts(pristine: bytes) -> None:
    """Nobody was promised anything of a name that came and went between two commits."""
    async with in_memory(bytearray(pristine)) as tree:
        await tree.write_file(b"a", b"1")
        await tree.rename(b"a", b"b")
        assert not tree.root.data.dep.ghosts
        await tree.link(b"b", b"c")
        await tree.unlink(b"b")
        await tree.rename(b"c", b"d")
        assert not tree.root.data.dep.ghosts
        assert await tree.listdir() == [b"d", b"lost+found"]


async def test_dirhash_is_made_anew_around_ghosts(pristine: bytes) -> None:
    async with in_memory(bytearray(pristine)) as tree:
        await tree.mkdir(b"dir")
        await tree.write_file(b"dir/a", b"1")
        await tree.sync()
        await tree.rename(b"dir/a", b"a")
        vp = await tree.node_lookup(tree.root, b"dir")
        assert vp is not None
        vp.data.dirhash = None
        assert await tree.listdir(b"dir") == []
        assert not await tree.exists(b"dir/a")
        vp.data.dirhash = None
        await tree.rename(b"a", b"dir/a")
        assert await tree.listdir(b"dir") == [b"a"]
        await tree.put(vp)


# Reuse.


async def test_freed_blocks_are_not_used_before_they_are_free_on_the_medium(
    pristine: bytes,
) -> None:
    async with in_memory(bytearray(pristine)) as tree:

        async def blocks(name: bytes) -> set[int]:
            vp = await tree.node_lookup(tree.root, name)
            assert vp is not None
            found = set()
            for lbn in range(20):
                block, _ = await tree.ext2._blocks.map(vp.data, lbn, 1)
                found.add(block)
            await tree.put(vp)
            return found - {0}

        size = tree.ext2._volume.block_size
        await tree.write_file(b"old", bytes(20 * size))
        await tree.sync()
        old = await blocks(b"old")
        await tree.truncate(b"old", 0)
        await tree.write_file(b"new", bytes(20 * size))
        assert not old & await blocks(b"new")
        await tree.sync()
        await tree.write_file(b"newer", bytes(20 * size))
        assert old & await blocks(b"newer")


async def test_a_freed_inode_waits_too(pristine: bytes) -> None:
    async with in_memory(bytearray(pristine)) as tree:
        await tree.write_file(b"old", b"")
        await tree.sync()
        ino = (await tree.stat(b"old")).ino
        await tree.unlink(b"old")
        await tree.write_file(b"new", b"")
        assert (await tree.stat(b"new")).ino != ino
        await tree.sync()
        await tree.write_file(b"newer", b"")
        assert (await tree.stat(b"newer")).ino == ino


# Who writes.


async def test_write_back_by_itself(
    pristine: bytes, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Some seconds after a change all of it is on the medium, and the thread sleeps again."""
    memory = bytearray(pristine)
    async with in_memory(memory) as tree:
        await tree.mkdir(b"dir")
        await tree.write_file(b"dir/file", pattern(100_000))
        await tree.write_file(b"gone", b"x")
        await tree.unlink(b"gone")
        before = bytes(memory)
        await trio.sleep(30)
        assert not tree.ext2._order.active
        left = bytes(memory)
        assert left != before
        passes = tree.ext2._writeback.passes if tree.ext2._writeback else 0
        await trio.sleep(1000)
        assert tree.ext2._writeback is not None
        assert tree.ext2._writeback.passes == passes

    async def look(tree: Tree) -> None:
        assert await tree.read_file(b"dir/file") == pattern(100_000)

    await after_a_cut(left, tmp_path / "image", look)


async def test_fsyncs_share_commits(
    pristine: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with in_memory(bytearray(pristine)) as tree:
        for number in range(30):
            await tree.write_file(b"%d" % number, b"x")
        disk_of(tree).faults = Faults(delay=0.01)
        before = tree.ext2._order.commits
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(fsync, tree, b"%d" % number)
        assert tree.ext2._order.commits - before <= 3


async def test_changes_during_a_commit(
    pristine: bytes, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Tasks go on making and removing while others commit, on a slow disk."""
    memory = bytearray(pristine)
    async with in_memory(memory, Faults(delay=0.02)) as tree:

        async def work(top: bytes) -> None:
            await tree.mkdir(top)
            for number in range(12):
                name = top + b"/%d" % number
                await tree.write_file(name, pattern(number * 3000, number))
                if number % 3 == 0:
                    await fsync(tree, name)
                if number % 4 == 3:
                    await tree.rename(name, top + b"/moved%d" % number)
                    await tree.unlink(top + b"/%d" % (number - 1))
                if number % 5 == 0:
                    await tree.sync()

        async with trio.open_nursery() as nursery:
            for top in (b"a", b"b", b"c", b"d"):
                nursery.start_soon(work, top)
        names = await tree.listdir(b"a")
    path = tmp_path / "image"
    path.write_bytes(memory)
    check_clean(path)
    async with in_memory(memory) as tree:
        for top in (b"a", b"b", b"c", b"d"):
            assert await tree.listdir(top) == names
            for name in names:
                number = int(name.removeprefix(b"moved"))
                assert await tree.read_file(top + b"/" + name) == pattern(number * 3000, number)


# Errors.


@pytest.mark.logs("delayed writes fail")
async def test_fsync_tells_the_truth_of_now(pristine: bytes, tmp_path: Path) -> None:
    memory = bytearray(pristine)
    async with in_memory(memory) as tree:
        disk = disk_of(tree)
        await tree.mkdir(b"dir")
        await tree.write_file(b"dir/file", pattern(50_000))
        for faults in (Faults(write=1.0), Faults(flush=1.0)):
            disk.faults = faults
            for _ in range(2):
                for path in (b"dir/file", b"dir", b""):
                    with pytest.raises(VfsError) as caught:
                        await fsync(tree, path)
                    assert caught.value.errno == EIO
            with pytest.raises(VfsError):
                await tree.sync()
        disk.faults = NO_FAULTS
        await fsync(tree, b"dir/file")
        left = bytes(memory)

    async def look(tree: Tree) -> None:
        assert await tree.read_file(b"dir/file") == pattern(50_000)

    await after_a_cut(left, tmp_path / "image", look)


@pytest.mark.logs("delayed writes fail|stays|stay in use|a name in its|EIO")
@pytest.mark.parametrize("seed", range(6))
async def test_errors_at_random(pristine: bytes, tmp_path: Path, seed: int) -> None:
    """Operations fail with EIO or are done; e2fsck finds nothing worse than leaks."""
    memory = bytearray(pristine)
    rng = Random(seed)
    async with in_memory(memory) as tree:
        disk = disk_of(tree)
        model: dict[bytes, bytes] = {}
        unsure: set[bytes] = set()
        for step in range(150):
            disk.faults = Faults(read=0.02, write=0.02, flush=0.02) if step % 3 else NO_FAULTS
            name = b"%d" % rng.randrange(12)
            data = pattern(rng.choice([10, 5000, 60_000]), step)
            what = rng.randrange(4)
            tree.kernel.bufs.limit = 0 if step % 10 == 0 else 1 << 20  # read anew, now and then
            try:
                if what == 0 and await tree.exists(name):
                    await tree.unlink(name)
                    model.pop(name, None)
                    unsure.discard(name)
                elif what == 1 and await tree.exists(name):
                    new = b"%d" % rng.randrange(12)
                    await tree.rename(name, new)
                    if new != name:
                        model[new] = model.pop(name)
                        unsure.discard(new)
                        if name in unsure:
                            unsure.remove(name)
                            unsure.add(new)
                elif what == 2:
                    await tree.sync()
                else:
                    unsure.add(name)
                    model[name] = data
                    await tree.write_file(name, data)
                    unsure.discard(name)
            except (OSError, VfsError) as exc:
                if exc.errno != EIO:
                    raise
        disk.faults = NO_FAULTS
        names = await tree.listdir()
        assert set(names) - {b"lost+found"} | unsure == model.keys() | unsure
        for name in model.keys() - unsure:
            assert await tree.read_file(name) == model[name]
    path = tmp_path / "image"
    path.write_bytes(memory)
    said = repair(path)
    for harm in ("multiply", "Inode", "illegal", "Unattached", "Entry", "Directory"):
        assert harm not in said, said
