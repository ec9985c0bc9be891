"""Images on which every number may be a lie: errors are told, and nothing worse happens."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Awaitable, Callable
from errno import (
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    ENOTEMPTY,
    ENXIO,
    EPERM,
    EROFS,
    EUCLEAN,
)
from pathlib import Path
from random import Random

import pytest
import trio

from syspuffs.native.constants import MNT_WAIT, READDIR_PLUS
from syspuffs.native.errors import VfsError
from syspuffs.native.records import FSCRED

from ...support.expect import pattern, raises
from .volumes import KIB, MIB, Tree, debugfs, in_memory, make_image, may_fail, mounted

SIZE = 2 * MIB
BLOCK = KIB
SEEDS = int(os.environ.get("SYSPUFFS_HOSTILE", "120"))
BATCH = 30

HONEST = {
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    ENOTEMPTY,
    ENXIO,
    EPERM,
    EROFS,
    EUCLEAN,
}
"""What operations on a lie may end with. EIO is not among them: the device is in order."""


async def populate(tree: Tree) -> None:
    """Make something of everything that has numbers in it."""
    for name in (b"a", b"a/b", b"c"):
        await tree.mkdir(name)
    for number in range(40):
        await tree.write_file(b"a/%d" % number + b"n" * 30, pattern(number * 40, number))
    await tree.write_file(b"a/b/large", pattern(400_000, 1))
    async with await tree.open(b"c/sparse", os.O_RDWR | os.O_CREAT) as file:
        for offset in (0, 300_000, 70_000_000):
            await file.pwrite(pattern(3000), offset)
    await tree.symlink(b"t" * 30, b"short")
    await tree.symlink(b"t" * 300, b"long")
    await tree.mknod(b"fifo", stat.S_IFIFO | 0o600)
    await tree.link(b"a/1" + b"n" * 30, b"c/second")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_image(tmp_path_factory.mktemp("hostile") / "image", SIZE, "-N", "128", block=BLOCK)

    async def make() -> None:
        async with mounted(path) as tree:
            await populate(tree)

    trio.run(make)
    return path


class Liar:
    """Knows where the numbers of an image are, and puts others there."""

    def __init__(self, image: Path) -> None:
        self._image = image.read_bytes()
        self._blocks: list[int] = []
        self._where: list[int] = []
        (table,) = struct.unpack_from("<I", self._image, 2 * BLOCK + 8)
        (inode_size,) = struct.unpack_from("<H", self._image, KIB + 88)
        self._where += range(2 * BLOCK, 2 * BLOCK + 18, 2)  # the descriptor of the group
        self._where += [KIB + at for at in (0, 4, 12, 16, 20, 32, 40, 84, 88, 100)]
        for ino in range(1, 129):
            at = table * BLOCK + (ino - 1) * inode_size
            if not struct.unpack_from("<H", self._image, at + 26)[0]:
                continue
            # Often where much depends on it: mode, size, links, flags, blocks, room.
            fields = [0, 2, 4, 20, 26, 28, 32, *range(40, 100, 4), 100, 104, 108, 128]
            self._where += [at + field for field in fields]
            mode = struct.unpack_from("<H", self._image, at)[0]
            blocks = struct.unpack_from("<15I", self._image, at + 40)
            if stat.S_ISDIR(mode):
                for block in blocks[:12]:
                    self._note(block, range(0, BLOCK, 4), stat.S_ISDIR(mode))
            elif stat.S_ISREG(mode):
                for block in blocks[12:]:
                    self._note(block, range(0, 200, 4), False)
                    if block:
                        for child in struct.unpack_from("<16I", self._image, block * BLOCK):
                            self._note(child, range(0, 40, 4), False)
            self._blocks += [block for block in blocks if 0 < block < SIZE // BLOCK]
        for group_map in struct.unpack_from("<2I", self._image, 2 * BLOCK):
            self._note(group_map, range(0, 200, 2), False)

    def _note(self, block: int, places: range, twice: bool) -> None:
        if 0 < block < SIZE // BLOCK:
            self._where += [block * BLOCK + place for place in places] * (1 + twice)

    def lie(self, rng: Random) -> bytearray:
        """Return the image with some numbers changed."""
        image = bytearray(self._image)
        for _ in range(rng.choice([1, 2, 5, 20])):
            at = rng.choice(self._where)
            value = rng.choice(
                [
                    0,
                    1,
                    rng.randrange(16),
                    rng.randrange(256),
                    rng.randrange(1 << 16),
                    rng.randrange(SIZE // BLOCK),
                    rng.choice(self._blocks),
                    rng.choice(self._blocks),
                    SIZE // BLOCK,
                    (1 << 31) - 1,
                    (1 << 32) - 1,
                    rng.randrange(1 << 32),
                ]
            )
            if rng.random() < 0.5:
                struct.pack_into("<H", image, at, value & 0xFFFF)
            else:
                struct.pack_into("<I", image, at, value)
        return image


class User:
    """Does everything that can be done to a tree, and bears all honest errors."""

    def __init__(self, tree: Tree, rng: Random) -> None:
        self._tree = tree
        self._rng = rng
        self.done = 0

    async def _try(self, work: Awaitable[object]) -> object:
        self.done += 1
        try:
            return await work
        except (OSError, VfsError) as exc:
            if exc.errno not in HONEST:
                raise
            return None

    async def look(self) -> list[bytes]:
        """Read everything; return the paths that were found."""
        tree = self._tree
        paths: list[bytes] = []
        todo = [(b"", 0)]
        while todo and len(paths) < 300:
            path, depth = todo.pop()
            names = await self._try(tree.listdir(path))
            if not isinstance(names, list):
                continue
            for name in names:
                child = path + b"/" + name if path else name
                paths.append(child)
                st = await self._try(tree.lstat(child))
                if st is None:
                    continue
                kind = getattr(st, "kind", 0)
                if kind == stat.S_IFDIR and depth < 5:
                    todo.append((child, depth + 1))
                elif kind == stat.S_IFLNK:
                    await self._try(tree.readlink(child))
                elif kind == stat.S_IFREG:
                    await self._try(self._read(child))
        return paths

    async def _read(self, path: bytes) -> None:
        async with await self._tree.open(path, os.O_RDONLY) as file:
            size = (await file.fstat()).size
            for offset in (0, 12 * BLOCK, 270 * BLOCK, 70_000_000, size - 5000):
                if 0 <= offset < size:
                    await self._try(file.pread(50_000, offset))

    async def _write(self, path: bytes) -> None:
        rng = self._rng
        async with await self._tree.open(path, os.O_RDWR | os.O_CREAT) as file:
            offset = rng.choice([0, 5000, 100_000, 300_000, 70_000_000])
            await self._try(file.pwrite(pattern(rng.randrange(20_000)), offset))
            await self._try(file.ftruncate(rng.choice([0, 1000, 200_000, 60_000_000])))
            await self._try(file.fsync())

    async def meddle(self, paths: list[bytes]) -> None:
        """Change everything that can be changed."""
        tree, rng = self._tree, self._rng
        some = [*paths, b"new", b"a/new", b"a/b/new", b"c/new"]
        works: list[Callable[[bytes, bytes], Awaitable[object]]] = [
            lambda one, two: self._write(one),
            lambda one, two: tree.unlink(one),
            lambda one, two: tree.rmdir(one),
            lambda one, two: tree.mkdir(one + b"x"),
            lambda one, two: tree.rename(one, two),
            lambda one, two: tree.rename(one, two + b"/moved"),
            lambda one, two: tree.link(one, two + b"y"),
            lambda one, two: tree.symlink(b"t" * rng.randrange(1, 900), one + b"z"),
            lambda one, two: tree.chmod(one, 0o777),
            lambda one, two: self._sync(),
        ]
        for _ in range(60):
            one, two = rng.choice(some), rng.choice(some)
            await self._try(rng.choice(works)(one, two))

    async def _sync(self) -> None:
        await self._tree.sync()


@pytest.mark.logs(r"ext2fs|unmounted by force|cannot be|dropped|stays in memory")
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
async def test_lies(first: int, pristine: Path) -> None:
    """Nothing but errors that say so, no end of a loop waited for, nothing beyond the device."""
    liar = Liar(pristine)
    done = mounts = 0
    for seed in range(first, first + BATCH):
        rng = Random(seed)
        image = liar.lie(rng)
        try:
            with may_fail(EINVAL, EUCLEAN):  # to mount
                async with in_memory(image) as tree:
                    mounts += 1
                    user = User(tree, rng)
                    paths = await user.look()
                    await user.meddle(paths)
                    await user.look()
                    await user._try(tree.ext2.sync(MNT_WAIT, FSCRED))
                    # Beyond the end of the device is an error of the device.
                    assert tree.ext2._disk.statistics().errors == 0
                    done += user.done
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise
    assert mounts > BATCH // 2
    assert done > mounts * 60


# What chance does not find.


@pytest.mark.logs("ext2fs")
async def test_tables_that_lead_to_themselves(tmp_path: Path) -> None:
    """A table of tables whose every number is its own: 2 ** 24 blocks, all of them one."""
    image = make_image(tmp_path / "image", SIZE, block=BLOCK)
    async with mounted(image) as tree:
        async with await tree.open(b"file", os.O_RDWR | os.O_CREAT) as file:
            await file.pwrite(b"x", 70_000_000)
        await tree.mkdir(b"dir")
    said = debugfs(image, "stat file")
    block = int(said.split("(TIND):")[1].split(",")[0])
    with image.open("r+b") as there:
        os.pwrite(there.fileno(), struct.pack("<I", block) * (BLOCK // 4), block * BLOCK)
    debugfs(image, f"sif dir block[2] {block}", "sif dir size 1073741824")
    async with mounted(image, check=False) as tree:
        async with await tree.open(b"file", os.O_RDWR) as file:
            await file.pread(1000, 0)
            await file.pread(100_000, 69_999_000)
        for attempt in (tree.listdir(b"dir"), tree.mkdir(b"dir/x"), tree.rmdir(b"dir")):
            with raises(EUCLEAN):
                await attempt
        await tree.truncate(b"file", 65_000_000)
        await tree.truncate(b"file", 0)
        await tree.unlink(b"file")
        await tree.sync()


@pytest.mark.logs("ext2fs")
async def test_directories_that_lie_in_each_other(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", SIZE, block=BLOCK)
    async with mounted(image) as tree:
        for name in (b"a", b"a/b", b"a/b/c", b"other"):
            await tree.mkdir(name)
        a = (await tree.stat(b"a")).ino
        c = (await tree.stat(b"a/b/c")).ino
    debugfs(
        image,
        "unlink a/..",
        f"link <{c}> a/..",  # above `a` is `c`, which is below `a`
        f"link <{a}> a/b/c/up",
        f"link <{a}> a/self",
    )
    async with mounted(image, check=False) as tree:
        with raises(EUCLEAN):
            await tree.stat(b"a/self")
        assert (await tree.stat(b"a/b/c/up/b/c/up/b")).kind == stat.S_IFDIR
        for name in (b"a/b/c", b"a/b"):
            with raises(EUCLEAN, EINVAL):
                await tree.rename(b"other", name + b"/new")


@pytest.mark.logs("ext2fs")
async def test_inodes_that_are_nobodys(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", SIZE, block=BLOCK)
    async with mounted(image) as tree:
        for name in (b"unused", b"reserved", b"far", b"freed"):
            await tree.write_file(name, b"x")
        ino = (await tree.stat(b"freed")).ino
    debugfs(
        image,
        "unlink unused",
        "link <200> unused",
        "unlink reserved",
        "link <7> reserved",
        "freei freed",  # in use, says its directory; free, says the bitmap
    )
    async with mounted(image, check=False) as tree:
        for name in (b"unused", b"reserved"):
            with raises(EUCLEAN):
                await tree.stat(name)
            with raises(EUCLEAN):
                await tree.write_file(name, b"")
        assert await tree.read_file(b"freed") == b"x"
        vp = await tree.node_lookup(tree.root, b"freed")
        assert vp is not None
        with raises(EUCLEAN):  # and not a second vnode of it
            await tree.write_file(b"new", b"")
        await tree.write_file(b"newer", b"")
        assert (await tree.stat(b"newer")).ino != ino
        await tree.put(vp)
        async with tree._shared(tree.root):
            entries, _ = await tree.fs.readdir(tree.root, 0, 1 << 16, READDIR_PLUS, tree.cred)
        for entry in entries:
            if entry.found is not None:
                assert entry.found.vp is not None
                await tree.put(entry.found.vp)
            else:
                assert entry.name in (b".", b"..", b"unused", b"reserved")


@pytest.mark.logs("ext2fs")
async def test_bitmaps_that_give_away_metadata(tmp_path: Path) -> None:
    """Free, says the bitmap of everything: but nobody gets the inode table."""
    image = make_image(tmp_path / "image", SIZE, block=BLOCK)
    (bitmap,) = struct.unpack_from("<I", image.read_bytes(), 2 * BLOCK)
    with image.open("r+b") as there:
        os.pwrite(there.fileno(), bytes(BLOCK), bitmap * BLOCK)
    async with mounted(image, check=False) as tree:
        with raises(EUCLEAN, ENOSPC):
            await tree.write_file(b"file", pattern(100_000))
        await tree.sync()
        assert (await tree.stat(b"lost+found")).kind == stat.S_IFDIR


@pytest.mark.logs("ext2fs")
async def test_two_directories_with_one_block(tmp_path: Path) -> None:
    """A rename that would hold the block for the one and wait for it for the other."""
    image = make_image(tmp_path / "image", SIZE, block=BLOCK)
    async with mounted(image) as tree:
        for name in (b"a", b"b", b"b/sub"):
            await tree.mkdir(name)
    block = debugfs(image, "stat a").split("(0):")[1].split()[0]
    debugfs(image, f"sif b/sub block[0] {block}")
    async with mounted(image, check=False) as tree:
        with trio.fail_after(5), raises(EUCLEAN):
            await tree.rename(b"b/sub", b"a/sub")
        assert not await tree.exists(b"sub")
