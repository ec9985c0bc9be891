"""Blocks and inodes: taken until none is left, given back, used again; holes of all depths."""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL, ENOSPC
from pathlib import Path

import pytest

from syspuffs.native.errors import VfsError
from syspuffs.native.records import Buffer, Cred

from ...support.expect import pattern, raises
from .volumes import MIB, Tree, make_image, mounted

ROOT = Cred(0, 0)


async def write(tree: Tree, name: bytes, data: Buffer, offset: int, cred: Cred = ROOT) -> None:
    """Write in one piece."""
    vp = await tree.node_lookup(tree.root, name)
    assert vp is not None
    try:
        async with tree._exclusive(vp):
            await tree.fs.write(vp, offset, data, 0, cred)
    finally:
        await tree.put(vp)


async def fill(tree: Tree, name: bytes, step: int) -> int:
    """Write to a file until nothing is left; return how much there was room for."""
    length = 0
    await tree.write_file(name, b"")
    for piece in (step, 1024):
        data = pattern(piece, 1)
        is_full = False
        while not is_full:
            is_full = not await fits(tree, name, data, length)
            length += 0 if is_full else piece
            assert (await tree.stat(name)).size == length
    return length


async def fits(tree: Tree, name: bytes, data: Buffer, offset: int, cred: Cred = ROOT) -> bool:
    """Write in one piece; return whether there was room."""
    try:
        await write(tree, name, data, offset, cred)
    except VfsError as exc:
        if exc.errno != ENOSPC:
            raise
        return False
    return True


@pytest.mark.parametrize(("block", "step"), [(1024, 70_000), (4096, 1_000_000)])
async def test_full_and_usable_again(block: int, step: int, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 5 * MIB, "-m", "0", block=block)
    async with mounted(image) as tree:
        await tree.write_file(b"other", pattern(10_000, 2))
        length = await fill(tree, b"big", step)
        assert (await tree.statvfs()).bfree < 2
        assert not await fits(tree, b"other", pattern(60_000, 3), 0)
        with raises(ENOSPC):
            await tree.symlink(b"t" * 500, b"link")
        with raises(ENOSPC):
            await tree.mkdir(b"dir")
        await tree.write_file(b"other", b"")
        await tree.unlink(b"big")
        # What was freed is there at once, for the file system syncs before it gives up.
        assert await fill(tree, b"again", step) >= length
        await tree.write_file(b"again", b"")
        await tree.mkdir(b"dir")
        await tree.write_file(b"dir/file", pattern(10_000, 4))
        assert await tree.read_file(b"dir/file") == pattern(10_000, 4)
        assert await tree.listdir() == [b"again", b"dir", b"lost+found", b"other"]


async def test_the_last_blocks_are_roots(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 2 * MIB, "-m", "20", block=1024)
    user = Cred(1000, 1000)
    async with mounted(image) as tree:
        await tree.write_file(b"file", b"")
        await tree.chown(b"file", user.uid, user.gid)
        length = 0
        while await fits(tree, b"file", bytes(8192), length, user):
            length += 8192
        assert (await tree.fs.statvfs()).bavail < 9
        await write(tree, b"file", bytes(100_000), length)


async def test_inodes_run_out(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 2 * MIB, "-N", "64", block=1024)
    async with mounted(image) as tree:
        free = (await tree.fs.statvfs()).ffree
        for number in range(free):
            await tree.symlink(b"x", b"%d" % number)
        assert (await tree.fs.statvfs()).ffree == 0
        for make in (tree.symlink(b"x", b"y"), tree.mkdir(b"y"), tree.write_file(b"y", b"")):
            with raises(ENOSPC):
                await make
        await tree.unlink(b"0")
        await tree.mkdir(b"y")
        assert (await tree.fs.statvfs()).ffree == 0


@pytest.mark.parametrize("block", [1024, 2048, 4096])
async def test_every_depth(block: int, tmp_path: Path) -> None:
    """A few octets at each edge of the tables; then cut off at each of them, from behind."""
    image = make_image(tmp_path / "image", 8 * MIB, block=block)
    per = block // 4
    edges = [0, 11, 12, 12 + per - 1, 12 + per, 12 + per + per**2 - 1, 12 + per + per**2]
    edges += [12 + 2 * per + per**2, 12 + per + per**2 + per**3 - 1]
    async with mounted(image) as tree:
        limit = tree.ext2._blocks.size_max
        places = [edge * block for edge in edges if (edge + 1) * block <= limit]
        assert len(places) >= 8
        async with await tree.open(b"file", os.O_RDWR | os.O_CREAT) as file:
            with raises(EFBIG):
                await file.pwrite(b"x", limit)
            with raises(EFBIG):
                await file.ftruncate(limit + 1)
            for place in places:
                await file.pwrite(pattern(block, place), place)
            blocks = (await file.fstat()).blocks
            await file.fsync()
    async with mounted(image) as tree:
        free = (await tree.statvfs()).bfree
        async with await tree.open(b"file", os.O_RDWR) as file:
            assert (await file.fstat()).blocks == blocks
            for place in reversed(places):
                assert await file.pread(block, place) == pattern(block, place)
                if place:
                    assert not any(await file.pread(block - 1, place + block) or b"")
                await file.ftruncate(place)
            assert (await file.fstat()).blocks == 0
        assert (await tree.statvfs()).bfree == free + blocks * 512 // block


@pytest.mark.parametrize("block", [1024, 4096])
async def test_holes_are_punched(block: int, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 8 * MIB, block=block)
    model = bytearray(pattern(3_000_000, 5))
    async with mounted(image) as tree:
        await tree.write_file(b"file", model)
        vp = await tree.node_lookup(tree.root, b"file")
        assert vp is not None
        for offset, length in ((5, 10), (0, 4096), (100_000, 1_500_000), (2_990_000, 99_000)):
            async with tree._exclusive(vp):
                before = (await tree.fs.getattr(vp, ROOT))[0].bytes or 0
                await tree.fs.fdiscard(vp, offset, length)
                after = (await tree.fs.getattr(vp, ROOT))[0].bytes or 0
            end = min(offset + length, len(model))
            model[offset:end] = bytes(end - offset)
            assert before - after >= (end - offset) // block * block - 2 * block
            assert await tree.read_file(b"file") == model
        async with tree._exclusive(vp):
            with pytest.raises(VfsError) as caught:
                await tree.fs.fdiscard(vp, 0, 0)
            assert caught.value.errno == EINVAL
            await tree.fs.fallocate(vp, 50_000, 3_500_000)
            va, _ = await tree.fs.getattr(vp, ROOT)
        model += bytes(3_550_000 - len(model))
        assert va.size == len(model)
        assert await tree.read_file(b"file") == model
        await tree.put(vp)
    async with mounted(image, rdonly=True) as tree:
        assert await tree.read_file(b"file") == model


async def test_layout(tmp_path: Path) -> None:
    """Blocks follow each other; directories of the root are spread, their files are with them."""
    image = make_image(tmp_path / "image", 32 * MIB, "-g", "2048", block=1024)
    async with mounted(image) as tree:
        groups = set()
        for number in range(8):
            name = b"dir%d" % number
            await tree.mkdir(name)
            await tree.write_file(name + b"/file", pattern(200_000, number))
            node = await tree.node_lookup(tree.root, name)
            assert node is not None
            child = await tree.node_lookup(node, b"file")
            assert child is not None
            of_inode = tree.ext2._volume.groups.of_inode
            assert of_inode(node.data.ino) is of_inode(child.data.ino)
            groups.add(of_inode(node.data.ino))
            run, at, pieces = 0, 0, 0
            while at < 196:
                _, run = await tree.ext2._blocks.map(child.data, at, 196 - at)
                at += run
                pieces += 1
            assert pieces <= 3  # the table of the blocks behind the twelfth lies among them
            await tree.put(child)
            await tree.put(node)
        assert len(groups) == 8


async def test_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    """All or nothing: a write that does not fit takes no block, in the middle of a file either."""
    image = make_image(tmp_path / "image", 2 * MIB, "-m", "0", block=1024)
    async with mounted(image) as tree:
        await tree.write_file(b"file", pattern(300_000, 6))
        await tree.truncate(b"file", 1_000_000)
        free = (await tree.statvfs()).bfree
        assert not await fits(tree, b"file", bytes(3_000_000), 290_000)
        assert (await tree.statvfs()).bfree == free
        assert await tree.read_file(b"file") == pattern(300_000, 6) + bytes(700_000)


async def test_directory_grows_into_tables(tmp_path: Path) -> None:
    """So many names that the directory's own blocks are in a table, in two mounts."""
    image = make_image(tmp_path / "image", 4 * MIB, "-N", "64", block=1024)
    names = [b"%03d" % number + b"n" * 240 for number in range(130)]
    async with mounted(image) as tree:
        await tree.write_file(b"file", b"x")
        await tree.mkdir(b"dir")
        for name in names[:70]:
            await tree.link(b"file", b"dir/" + name)
        assert (await tree.stat(b"dir")).size > 13 * 1024
        assert await tree.listdir(b"dir") == names[:70]
    async with mounted(image) as tree:
        for name in names[70:]:
            await tree.link(b"file", b"dir/" + name)
        for name in names[:60]:
            await tree.unlink(b"dir/" + name)
        assert await tree.listdir(b"dir") == names[60:]
        assert (await tree.stat(b"file")).nlink == 71
    async with mounted(image) as tree:
        for name in names[60:]:
            await tree.unlink(b"dir/" + name)
        await tree.rmdir(b"dir")
        assert (await tree.stat(b"file")).nlink == 1
