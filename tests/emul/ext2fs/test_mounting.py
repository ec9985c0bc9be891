"""Mounting: what is refused, what is read only, and what the super block says afterwards."""

from __future__ import annotations

import os
import struct
import subprocess
from errno import EBUSY, EINVAL, EROFS, EUCLEAN
from pathlib import Path

import pytest

from syspuffs.emul.ext2fs import Ext2Fs
from syspuffs.emul.kernel import Kernel
from syspuffs.emul.rumpuser import open_disk
from syspuffs.native.constants import MNT_FORCE, MNT_NOWAIT, MNT_WAIT
from syspuffs.native.errors import VfsError
from syspuffs.native.records import FSCRED

from ...disk.images import repair
from ...support.expect import pattern, raises
from ...support.logs import LogWatch
from .volumes import MIB, Tree, check_clean, debugfs, in_memory, make_image, mounted

SIZE = 4 * MIB
STATE = 1024 + 58
ERRORS = 1024 + 60


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image", SIZE, block=1024)


def state(image: Path | bytes | bytearray) -> int:
    octets = image.read_bytes() if isinstance(image, Path) else image
    return int(struct.unpack_from("<H", octets, STATE)[0])


def patch(image: Path, offset: int, octets: bytes) -> None:
    with image.open("r+b") as file:
        os.pwrite(file.fileno(), octets, offset)


async def refused(image: Path, errno: int, detail: str) -> None:
    """Check that a mount fails, and that nothing is left of it."""
    before = image.read_bytes()
    for _ in range(2):  # the disk was closed, or the second one were busy
        async with Kernel() as kernel:
            with pytest.raises(VfsError, match=detail) as caught:
                await kernel.mount(Ext2Fs(open_disk(bytes(image), rdonly=False)))
            assert caught.value.errno == errno
            assert not kernel.mounts
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ("extent", ["-O", "extents"]),
        ("64bit", ["-O", "64bit,extents"]),
        ("flex_bg", ["-O", "flex_bg"]),
        ("meta_bg", ["-O", "meta_bg,^resize_inode"]),
        ("mmp", ["-O", "mmp"]),
        ("inline_data", ["-O", "inline_data,extra_isize"]),
        ("encrypt", ["-O", "encrypt"]),
        ("casefold", ["-O", "casefold"]),
    ],
)
async def test_features_refused_by_name(feature: str, words: list[str], tmp_path: Path) -> None:
    await refused(make_image(tmp_path / "image", SIZE, *words), EINVAL, rf"\b{feature}\b")


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ("huge_file", ["-O", "huge_file"]),
        ("dir_nlink", ["-O", "dir_nlink"]),
        ("uninit_bg", ["-O", "uninit_bg"]),
        ("metadata_csum", ["-O", "metadata_csum"]),
    ],
)
async def test_features_that_can_be_read(
    feature: str, words: list[str], tmp_path: Path, log_watch: LogWatch
) -> None:
    """Mounted read-only, and the log names the reason; what is there can be read."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(pattern(60_000))
    image = make_image(tmp_path / "image", SIZE, *words, "-d", str(source))
    before = image.read_bytes()
    log_watch.expect(rf"mounted read-only: features .*\b{feature}\b")
    async with mounted(image) as tree:
        assert tree.mount.is_rdonly
        assert await tree.read_file(b"file") == pattern(60_000)
        with raises(EROFS):
            await tree.write_file(b"file", b"")
        await tree.sync()
    assert image.read_bytes() == before
    assert log_watch.lines
    log_watch.lines.clear()
    async with mounted(image, rdonly=True) as tree:  # as asked for: nothing to be said
        assert await tree.listdir() == [b"file", b"lost+found"]
    assert not log_watch.lines


@pytest.mark.logs("mounted read-only: revision 0")
async def test_revision_0(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", SIZE, "-r", "0", "-O", "none", block=1024)
    debugfs(image, "mkdir dir", "symlink link dir")
    async with mounted(image) as tree:
        assert tree.mount.is_rdonly
        assert await tree.listdir() == [b"dir", b"link", b"lost+found"]
        assert await tree.listdir(b"link") == []


async def test_journal(tmp_path: Path) -> None:
    """Left alone when it is empty; refused when it is not."""
    image = make_image(tmp_path / "image", 8 * MIB, "-O", "has_journal", "-J", "size=1", block=1024)
    async with mounted(image) as tree:
        await tree.write_file(b"file", b"x")
    debugfs(image, "feature needs_recovery")
    await refused(image, EINVAL, "needs_recovery")


async def test_not_ours(tmp_path: Path, image: Path) -> None:
    for length in (0, 512, 1024, 2047, 2048, 100_000):
        path = tmp_path / "zeros"
        path.write_bytes(bytes(length))
        if length >= 512:
            await refused(path, EINVAL, "no ext2|too small|")
    os.truncate(image, SIZE - 1024)
    await refused(image, EINVAL, "its device")


async def test_roots_that_are_none(image: Path) -> None:
    debugfs(image, "sif / mode 0x8180")
    await refused(image, EUCLEAN, "root is no directory")
    debugfs(image, "clri /")
    await refused(image, EUCLEAN, "no root directory")


async def test_one_mount_at_a_time(image: Path) -> None:
    async with mounted(image) as tree:
        with pytest.raises(VfsError) as caught:
            open_disk(bytes(image), rdonly=False)
        assert caught.value.errno == EBUSY
        assert tree.fs.typename == "ext2fs"
        assert tree.fs.mntfromname == bytes(image)


async def test_state(image: Path) -> None:
    """Not valid while it is mounted for writing, and the count grows; as it was if read-only."""
    assert state(image) == 1
    before = image.read_bytes()
    async with mounted(image, rdonly=True) as tree:
        assert state(image) == 1
        await tree.listdir()
    assert image.read_bytes() == before
    for count in (1, 2):
        async with mounted(image):
            assert state(image) == 0
        assert state(image) == 1
        assert struct.unpack_from("<H", image.read_bytes(), 1024 + 52) == (count,)


async def test_backups_and_reserved_blocks_are_left_alone(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", SIZE, "-g", "1024", block=1024)
    before = image.read_bytes()
    async with mounted(image) as tree:
        await tree.write_file(b"file", pattern(2_000_000))
    after = image.read_bytes()
    for group in (1, 3):
        start = (1 + group * 1024) * 1024
        assert after[start : start + 17 * 1024] == before[start : start + 17 * 1024]


@pytest.mark.logs("mounted read-only: it was not unmounted properly")
async def test_after_a_crash(image: Path) -> None:
    """What was not unmounted is read only, until e2fsck has seen it."""
    memory = bytearray(image.read_bytes())
    async with in_memory(memory) as tree:
        async with await tree.open(b"file", os.O_RDWR | os.O_CREAT) as file:
            await file.pwrite(b"kept", 0)
            await file.fsync()
        left = bytes(memory)
    assert state(left) == 0
    assert state(memory) == 1
    image.write_bytes(left)
    async with mounted(image, check=False) as tree:
        assert tree.mount.is_rdonly
        assert await tree.read_file(b"file") == b"kept"
    repair(image)
    async with mounted(image) as tree:
        assert not tree.mount.is_rdonly
        assert await tree.read_file(b"file") == b"kept"
        await tree.unlink(b"file")


@pytest.mark.logs("inode 13: table in block 1|mounted read-only: it has errors")
@pytest.mark.parametrize("policy", [1, 2, 3])
async def test_errors_behaviour(policy: int, image: Path) -> None:
    """Something is found to be wrong: the mark stays until e2fsck comes, and nobody writes on."""
    patch(image, ERRORS, bytes([policy, 0]))
    async with mounted(image) as tree:
        await tree.write_file(b"good", b"x")
        await tree.write_file(b"bad", pattern(100_000))
    debugfs(image, "sif bad block[IND] 1")
    async with mounted(image, check=False) as tree:
        with raises(EUCLEAN):
            await tree.read_file(b"bad")
        assert tree.mount.is_rdonly == (policy > 1)
        assert await tree.read_file(b"good") == b"x"
        await tree.ext2.sync(MNT_NOWAIT, FSCRED)
        await tree.ext2.sync(MNT_WAIT, FSCRED)
        assert state(image) == 2
    assert state(image) == 2
    async with mounted(image, check=False) as tree:
        assert tree.mount.is_rdonly


async def test_forced_unmount_with_users_inside(image: Path) -> None:
    """Everything is written, but what they were doing is for e2fsck to look at."""
    async with Kernel() as kernel:
        fs = Ext2Fs(open_disk(bytes(image), rdonly=False))
        mount = await kernel.mount(fs)
        tree = Tree(mount, fs)
        await tree.write_file(b"file", pattern(50_000))
        await tree.write_file(b"gone", pattern(70_000))
        vp = await tree.node_lookup(tree.root, b"gone")
        assert vp is not None
        await tree.unlink(b"gone")
        await kernel.unmount(mount, MNT_FORCE)
        assert vp.is_dead
        await tree.put(vp)
    assert state(image) == 0
    repair(image)
    check_clean(image)
    async with mounted(image) as tree:
        assert await tree.listdir() == [b"file", b"lost+found"]
        assert await tree.read_file(b"file") == pattern(50_000)


async def test_forced_unmount_without(image: Path) -> None:
    async with Kernel() as kernel:
        fs = Ext2Fs(open_disk(bytes(image), rdonly=False))
        mount = await kernel.mount(fs)
        await Tree(mount, fs).write_file(b"file", pattern(50_000))
        await kernel.unmount(mount, MNT_FORCE)
    assert state(image) == 1
    check_clean(image)


async def test_statvfs_is_what_the_host_says(image: Path) -> None:
    said = subprocess.run(["dumpe2fs", "-h", str(image)], capture_output=True, text=True).stdout
    counts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    async with mounted(image) as tree:
        got = await tree.fs.statvfs()
        assert got.bfree == int(counts["Free blocks"])
        assert got.ffree == int(counts["Free inodes"])
        assert got.files == int(counts["Inode count"])
        assert got.bfree - got.bavail == int(counts["Reserved block count"])
        assert got.namemax == 255
