"""Images that others have made are read; images that we have written are read by others."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from ...disk.images import host_mounted, needs_loop
from ...support.expect import pattern
from ...support.host import OsTarget
from ...support.target import Target
from .volumes import MIB, debugfs, make_image, mounted

SIZE = 12 * MIB


class Seen(NamedTuple):
    """What two views of one tree must agree about."""

    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime: int
    contents: bytes | None


async def survey(tree: Target, seconds: bool) -> dict[bytes, Seen]:
    """Return everything in a tree by path; times in whole seconds if these are all there is."""
    found: dict[bytes, Seen] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        st = await tree.lstat(path)
        contents: bytes | None = None
        if st.kind == stat.S_IFREG:
            contents = await tree.read_file(path)
        elif st.kind == stat.S_IFLNK:
            contents = await tree.readlink(path)
        elif st.kind == stat.S_IFDIR:
            names = await tree.listdir(path)
            contents = b"/".join(names)
            todo += [path + b"/" + name if path else name for name in names]
        mtime = st.mtime // 10**9 * 10**9 if seconds else st.mtime
        size = 0 if st.kind == stat.S_IFDIR else st.size
        found[path] = Seen(st.mode, st.nlink, st.uid, st.gid, st.rdev, size, mtime, contents)
    return found


async def populate(tree: Target) -> None:
    """Make one of everything."""
    await tree.mkdir(b"many")
    for number in range(150):
        await tree.write_file(b"many/%03d" % number + b"n" * (number % 90), b"%d" % number)
    for number in range(0, 150, 3):
        await tree.unlink(b"many/%03d" % number + b"n" * (number % 90))
    await tree.mkdir(b"deep", 0o2750)
    await tree.mkdir(b"deep/er")
    await tree.write_file(b"deep/er/file", pattern(100_000, 1), 0o4711)
    await tree.link(b"deep/er/file", b"deep/second")
    async with await tree.open(b"sparse", os.O_RDWR | os.O_CREAT) as file:
        for offset in (0, 13_000, 300_000, 900_000, 70_000_000, 5_000_000_000):
            await file.pwrite(pattern(5_000, offset), offset)
        await file.ftruncate(5_000_003_000)
        await file.ftruncate(902_000)  # or reading it takes all day
    async with await tree.open(b"cut", os.O_RDWR | os.O_CREAT) as file:
        await file.pwrite(pattern(600_000, 2), 0)
        await file.ftruncate(333_333)
        await file.ftruncate(400_000)
    for length in (1, 59, 60, 500):
        await tree.symlink(b"t" * length, b"link%d" % length)
    await tree.mknod(b"fifo", stat.S_IFIFO | 0o600)
    await tree.mknod(b"old", stat.S_IFCHR | 0o600, os.makedev(4, 64))
    await tree.mknod(b"new", stat.S_IFBLK | 0o600, os.makedev(300, 70_000))
    await tree.mknod(b"socket", stat.S_IFSOCK | 0o600)
    await tree.chown(b"cut", 70_000, 80_000)
    await tree.utimens(b"cut", 1_000_000_001_000_000_003, 1_234_567_890_123_456_789)
    await tree.write_file(b"a" * 255, b"")
    await tree.rename(b"many/001n", b"deep/moved")


COMBINATIONS = [
    (1024, ["-I", "128"]),
    (1024, ["-I", "256", "-g", "1024"]),
    (2048, ["-O", "^resize_inode,^dir_index"]),
    (4096, []),
    (4096, ["-O", "^sparse_super,^resize_inode,^filetype,^ext_attr"]),
    (4096, ["-O", "extra_isize,^large_file", "-m", "20"]),
    (1024, ["-O", "has_journal", "-J", "size=1"]),
    (1024, ["-O", "sparse_super2", "-N", "2048"]),
]


@needs_loop
@pytest.mark.parametrize(
    ("block", "words"), COMBINATIONS, ids=[f"{block} {' '.join(w)}" for block, w in COMBINATIONS]
)
async def test_exchange_with_the_host(block: int, words: list[str], tmp_path: Path) -> None:
    """What we write the host reads, and what the host writes we read, byte for byte."""
    image = make_image(tmp_path / "image", SIZE, *words, block=block)
    async with mounted(image) as tree:
        await populate(tree)
        has_ns = (await tree.lstat(b"cut")).mtime % 10**9 != 0
        ours = await survey(tree, not has_ns)
        statvfs = await tree.statvfs()
    async with mounted(image, rdonly=True) as tree:
        assert await survey(tree, not has_ns) == ours
    with host_mounted(image, tmp_path / "point", rdonly=True) as point:
        host = OsTarget(bytes(point))
        assert await survey(host, not has_ns) == ours
        there = await host.statvfs()
        assert there.bfree == statvfs.bfree
        assert there.bavail == statvfs.bavail
    with host_mounted(image, tmp_path / "point") as point:
        (point / "by the host").mkdir()
        await populate(OsTarget(bytes(point / "by the host")))
        os.setxattr(point / "cut", "user.kept", b"value")
        os.setxattr(point / "fifo", "trusted.kept", b"v" * 900)
    with host_mounted(image, tmp_path / "point", rdonly=True) as point:
        theirs = await survey(OsTarget(bytes(point)), not has_ns)
    async with mounted(image) as tree:
        assert await survey(tree, not has_ns) == theirs
        await tree.chmod(b"cut", 0o640)
        await tree.rename(b"by the host/deep", b"deep two")
    with host_mounted(image, tmp_path / "point", rdonly=True) as point:
        assert os.getxattr(point / "cut", "user.kept") == b"value"
        assert os.getxattr(point / "fifo", "trusted.kept") == b"v" * 900
    async with mounted(image) as tree:
        # Away with it all: attribute blocks that are shared, tables of every depth.
        for path in sorted(await survey(tree, True), reverse=True):
            if path and path != b"lost+found":
                st = await tree.lstat(path)
                await (tree.rmdir if st.kind == stat.S_IFDIR else tree.unlink)(path)
        assert await tree.listdir() == [b"lost+found"]
    async with mounted(image) as tree:
        after = await tree.statvfs()
    pristine = make_image(tmp_path / "pristine", SIZE, *words, block=block)
    async with mounted(pristine) as tree:
        before = await tree.statvfs()
    assert 0 <= before.bfree - after.bfree <= 3  # the root directory has grown


def _hashed(image: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(900):
        (source / f"name {number:04}").touch()
    make_image(image, SIZE, "-d", str(source), "-O", "dir_index", block=1024)
    # mke2fs writes it linear; e2fsck -D makes the index.
    os.system(f"e2fsck -fyD {image} >/dev/null 2>&1")
    assert "0x1000" in debugfs(image, "stat /")


async def test_hashed_directory(tmp_path: Path) -> None:
    """Read as the linear directory that it also is, which it stays when it is changed."""
    image = tmp_path / "image"
    _hashed(image, tmp_path)
    names = {b"name %04d" % number for number in range(900)} | {b"lost+found"}
    async with mounted(image) as tree:
        assert set(await tree.listdir()) == names
        assert (await tree.stat(b"name 0555")).size == 0
    assert "0x1000" in debugfs(image, "stat /")
    async with mounted(image) as tree:
        await tree.unlink(b"name 0500")
        await tree.write_file(b"another", b"x")
    assert "0x1000" not in debugfs(image, "stat /")
    async with mounted(image) as tree:
        assert set(await tree.listdir()) == names - {b"name 0500"} | {b"another"}


@pytest.mark.parametrize("inode_size", [128, 256])
async def test_made_from_a_directory(inode_size: int, tmp_path: Path) -> None:
    """What `mke2fs -d` has put into an image is read, without a host that mounts it."""
    source = tmp_path / "source"
    source.mkdir()
    tree = OsTarget(bytes(source))
    await tree.mkdir(b"d", 0o700)
    await tree.write_file(b"d/file", pattern(2_000_000, 3), 0o600)
    await tree.symlink(b"x" * 200, b"link")
    os.truncate(source / "d/file", 40_000_000)
    expected = await survey(tree, True)
    image = make_image(
        tmp_path / "image", SIZE, "-I", str(inode_size), "-d", str(source), block=1024
    )
    async with mounted(image, rdonly=True) as made:
        found = await survey(made, True)
    del found[b"lost+found"]
    assert found.keys() == expected.keys()
    for path, seen in expected.items():
        if path:
            assert found[path] == seen


FAR = (0, 70_000_000, 2_147_480_000, 5_000_000_000, 17_000_000_000)


@needs_loop
@pytest.mark.parametrize("block", [1024, 4096])
async def test_large_files(block: int, tmp_path: Path) -> None:
    """Tables of tables of tables, and more octets than 32 bits count."""
    image = make_image(tmp_path / "image", SIZE, "-O", "^large_file", block=block)
    async with mounted(image) as tree:
        async with await tree.open(b"ours", os.O_RDWR | os.O_CREAT) as file:
            for offset in FAR:
                await file.pwrite(pattern(7_000, offset), offset)
                assert await file.pread(7_000, offset) == pattern(7_000, offset)
    assert "large_file" in debugfs(image, "features")
    with host_mounted(image, tmp_path / "point") as point:
        for name in ("ours", "theirs"):
            with (point / name).open("r+b" if name == "ours" else "w+b") as there:
                for offset in FAR:
                    if name == "theirs":
                        os.pwrite(there.fileno(), pattern(7_000, offset), offset)
                    assert os.pread(there.fileno(), 7_000, offset) == pattern(7_000, offset)
                os.fsync(there.fileno())  # the host takes blocks when it writes
        assert os.stat(point / "ours").st_blocks == os.stat(point / "theirs").st_blocks
    async with mounted(image) as tree:
        async with await tree.open(b"theirs", os.O_RDWR) as file:
            for offset in reversed(FAR):
                assert await file.pread(7_000, offset) == pattern(7_000, offset)
                assert await file.pread(100, offset + 100_000) in (b"", bytes(100))
                await file.ftruncate(offset + 3_000)
                assert await file.pread(8_000, offset) == pattern(7_000, offset)[:3_000]
        assert (await tree.stat(b"theirs")).blocks * 512 == -(-3_000 // block) * block
