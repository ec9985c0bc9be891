"""Names: what the battery cannot see of directories, links and numbers on this medium."""

from __future__ import annotations

import os
from errno import EBUSY, EINVAL, EMLINK, ENAMETOOLONG, ENOTEMPTY, EPERM, ESTALE
from pathlib import Path

import pytest

from syspuffs.native.constants import (
    FAPPEND,
    FREAD,
    FWRITE,
    READDIR_PLUS,
    VWRITE,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred, Vattr, lookup_cn

from ...support.expect import pattern, raises
from .volumes import MIB, debugfs, make_image, mounted

ROOT = Cred(0, 0)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image", 4 * MIB, block=1024)


async def test_offsets_stay_while_entries_come_and_go(image: Path) -> None:
    """Whoever reads on at any offset misses and repeats nothing that was there all the time."""
    async with mounted(image) as tree:
        names = [b"%03d" % number + b"n" * (number % 40) for number in range(120)]
        for name in names:
            await tree.symlink(b"x", name)
        tree.resid = 100
        seen: list[bytes] = []
        offset, eof, step = 0, False, 0
        while not eof:
            entries, eof = await tree.node_readdir(tree.root, offset)
            seen += [entry.entry.name for entry in entries]
            offset = entries[-1].offset if entries else offset
            step += 1
            victim = names[(step * 37) % 120]
            if victim[:1] == b"0" and await tree.exists(victim):
                await tree.unlink(victim)  # merges entries before and behind the reader
            elif step % 5 == 0:
                await tree.symlink(b"y", b"new%d" % step)
        stable = {name for name in names if name[:1] == b"1"} | {b".", b"..", b"lost+found"}
        assert stable <= set(seen)
        assert len(seen) == len(set(seen))


async def test_readdir_plus(image: Path) -> None:
    async with mounted(image) as tree:
        await tree.mkdir(b"dir")
        await tree.write_file(b"file", b"12345")
        async with tree._shared(tree.root):
            entries, eof = await tree.fs.readdir(tree.root, 0, 1 << 20, READDIR_PLUS, ROOT)
        assert eof
        found = {entry.name: entry for entry in entries}
        assert found[b"."].found is None
        assert found[b".."].found is None
        for name, vtype in ((b"dir", Vtype.VDIR), (b"file", Vtype.VREG), (b"lost+found", 2)):
            entry = found[name]
            assert entry.found is not None
            assert entry.found.va is not None
            assert entry.vtype == entry.found.va.vtype == vtype
            assert entry.fileid == entry.found.va.fileid
            assert entry.found.vp is not None
            await tree.put(entry.found.vp)
        async with tree._shared(tree.root):
            for offset in (entries[-1].offset, 1 << 40):
                assert await tree.fs.readdir(tree.root, offset, 100, 0, ROOT) == ([], True)
            with pytest.raises(VfsError) as caught:
                await tree.fs.readdir(tree.root, -1, 100, 0, ROOT)
        assert caught.value.errno == EINVAL


async def test_handles(image: Path) -> None:
    async with mounted(image) as tree:
        await tree.write_file(b"file", b"x")
        vp = await tree.node_lookup(tree.root, b"file")
        assert vp is not None
        handle = await tree.fs.vptofh(vp)
        number = vp.data.ino
        await tree.put(vp)
        for wrong in (b"", handle + b"\0", handle[:7]):
            with pytest.raises(VfsError) as caught:
                await tree.fs.fhtovp(wrong)
            assert caught.value.errno == EINVAL
    async with mounted(image) as tree:
        vp = await tree.fs.fhtovp(handle)
        assert vp.data.ino == number
        again = await tree.fs.vget(number)
        assert again is vp
        await tree.put(again)
        await tree.unlink(b"file")
        with pytest.raises(VfsError) as caught:
            await tree.fs.fhtovp(handle)
        assert caught.value.errno == ESTALE
        await tree.put(vp)
        await tree.sync()
        await tree.write_file(b"other", b"y")
        vp = await tree.fs.vget(number)  # the same inode, and another file
        with pytest.raises(VfsError) as caught:
            await tree.fs.fhtovp(handle)
        assert caught.value.errno == ESTALE
        await tree.put(vp)
        for strange in (0, 1, 3, 8, number + 1, 1 << 31):
            with pytest.raises(VfsError) as caught:
                await tree.fs.vget(strange)
            assert caught.value.errno == ESTALE


async def test_link_limits(image: Path) -> None:
    """32,000 names, or subdirectories; the counts are put there, the rest is e2fsck's."""
    async with mounted(image) as tree:
        await tree.write_file(b"file", b"")
        await tree.mkdir(b"dir")
        await tree.mkdir(b"other")
    debugfs(image, "sif file links_count 31999", "sif dir links_count 31999")
    async with mounted(image, check=False) as tree:
        await tree.link(b"file", b"last")
        with raises(EMLINK):
            await tree.link(b"file", b"too many")
        await tree.mkdir(b"dir/last")
        with raises(EMLINK):
            await tree.mkdir(b"dir/too many")
        with raises(EMLINK):
            await tree.rename(b"other", b"dir/too many")
        await tree.rename(b"other", b"dir/last")  # takes the place of one
        assert (await tree.stat(b"dir")).nlink == 32_000
        assert (await tree.stat(b"file")).nlink == 32_000


@pytest.mark.parametrize(("block", "limit"), [(1024, 1023), (4096, 4095)])
async def test_long_links(block: int, limit: int, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 4 * MIB, block=block)
    async with mounted(image) as tree:
        for length in (1, 59, 60, 61, limit):
            target = pattern(length, length).replace(b"\0", b"0")
            await tree.symlink(target, b"%d" % length)
            st = await tree.lstat(b"%d" % length)
            assert st.size == length
            assert st.blocks * 512 == (block if length > 59 else 0)
            assert await tree.readlink(b"%d" % length) == target
        with raises(ENAMETOOLONG):
            await tree.symlink(b"t" * (limit + 1), b"too long")
        name = os.pathconf_names["PC_SYMLINK_MAX"]
        assert await tree.fs.pathconf(tree.root, name) == limit
        assert await tree.fs.pathconf(tree.root, os.pathconf_names["PC_LINK_MAX"]) == 32_000
        with pytest.raises(VfsError):
            await tree.fs.pathconf(tree.root, 12_345)
    async with mounted(image) as tree:
        for length in (1, 59, 60, 61, limit):
            assert len(await tree.readlink(b"%d" % length)) == length
            await tree.unlink(b"%d" % length)


async def test_immutable_and_append_only(image: Path) -> None:
    async with mounted(image) as tree:
        for name in (b"fixed", b"log", b"free"):
            await tree.write_file(name, b"x")
        for name in (b"fixed dir", b"log dir"):
            await tree.mkdir(name)
            await tree.write_file(name + b"/file", b"x")
    debugfs(
        image,
        "sif fixed flags 0x10",
        "sif log flags 0x20",
        'sif "fixed dir" flags 0x10',
        'sif "log dir" flags 0x20',
    )
    async with mounted(image, check=False) as tree:
        for name in (b"fixed", b"log"):
            for attempt in (
                tree.unlink(name),
                tree.rename(name, b"new"),
                tree.rename(b"free", name),
                tree.link(name, b"new"),
                tree.chmod(name, 0o600),
                tree.truncate(name, 0),
                tree.write_file(name, b"y"),
            ):
                with raises(EPERM):
                    await attempt
        with raises(EPERM):
            await tree.open(b"fixed", os.O_WRONLY | os.O_APPEND)
        vp = await tree.node_lookup(tree.root, b"log")
        assert vp is not None
        async with tree._exclusive(vp):
            await tree.fs.open(vp, FREAD, ROOT)
            await tree.fs.open(vp, FREAD | FWRITE | FAPPEND, ROOT)
            with pytest.raises(VfsError):
                await tree.fs.open(vp, FWRITE, ROOT)
            await tree.fs.access(vp, VWRITE, ROOT)
        await tree.put(vp)
        with raises(EPERM):
            await tree.write_file(b"fixed dir/new", b"")
        await tree.write_file(b"log dir/new", b"")
        for name in (b"fixed dir", b"log dir"):
            with raises(EPERM):
                await tree.unlink(name + b"/file")
            with raises(EPERM):
                await tree.rename(name + b"/file", b"new")
        assert await tree.listdir(b"log dir") == [b"file", b"new"]
    debugfs(image, *(f'sif "{name}" flags 0' for name in ("fixed", "log", "fixed dir", "log dir")))
    async with mounted(image):
        pass


async def test_flags_are_inherited(image: Path) -> None:
    async with mounted(image) as tree:
        await tree.mkdir(b"dir")
    debugfs(image, "sif dir flags 0x100C8")
    async with mounted(image) as tree:
        await tree.mkdir(b"dir/sub")
        await tree.write_file(b"dir/file", b"x")
        await tree.symlink(b"x", b"dir/link")
        for name, flags in ((b"sub", 0x100C8), (b"file", 0xC8), (b"link", 0xC0)):
            dvp = await tree.node_lookup(tree.root, b"dir")
            assert dvp is not None
            vp = await tree.node_lookup(dvp, name)
            assert vp is not None
            assert vp.data.flags == flags
            await tree.put(vp)
            await tree.put(dvp)
        before = (await tree.stat(b"dir/file")).atime
        await tree.utimens(b"dir/file", 0, 0)
        await tree.read_file(b"dir/file")
        assert (await tree.stat(b"dir/file")).atime == 0 != before  # noatime


async def test_the_root_stays(image: Path) -> None:
    async with mounted(image) as tree:
        await tree.mkdir(b"dir")
        vp = await tree.node_lookup(tree.root, b"dir")
        assert vp is not None
        async with tree._exclusive(tree.root, vp):
            with pytest.raises(VfsError) as caught:
                await tree.fs.rmdir(vp, tree.root, lookup_cn(b"..", ROOT))
            assert caught.value.errno == EBUSY
            with pytest.raises(VfsError) as caught:
                await tree.fs.rmdir(vp, vp, lookup_cn(b".", ROOT))
            assert caught.value.errno == ENOTEMPTY
        for dvp in (vp, tree.root):
            assert await tree.node_lookup(dvp, b"..") is tree.root
            await tree.put(tree.root)
        await tree.put(vp)


async def test_unlinked_file_lives_until_it_is_let_go(image: Path) -> None:
    async with mounted(image) as tree:
        free = (await tree.statvfs()).bfree
        async with await tree.open(b"file", os.O_RDWR | os.O_CREAT) as file:
            await file.pwrite(pattern(300_000), 0)
            await tree.unlink(b"file")
            await tree.sync()
            assert (await tree.statvfs()).bfree < free - 290
            await file.pwrite(pattern(300_000), 300_000)
            await file.fsync()
            assert await file.pread(600_000, 0) == pattern(300_000) * 2
            assert (await file.fstat()).nlink == 0
        assert (await tree.statvfs()).bfree == free
        await tree.sync()
        assert (await tree.statvfs()).bfree == free
        assert tree.ext2._alloc.pending == tree.ext2._alloc.reserved == 0
        assert not tree.ext2._order.active


async def test_victim_that_the_caller_did_not_know(image: Path) -> None:
    """A rename replaces what came to the new name after the caller's lookup."""
    async with mounted(image) as tree:
        await tree.write_file(b"a", b"new")
        await tree.write_file(b"b", pattern(100_000))
        vp = await tree.node_lookup(tree.root, b"a")
        assert vp is not None
        async with tree._exclusive(tree.root, vp):
            cn = lookup_cn(b"a", ROOT), lookup_cn(b"b", ROOT)
            await tree.fs.rename(tree.root, vp, cn[0], tree.root, None, cn[1])
        await tree.put(vp)
        assert await tree.listdir() == [b"b", b"lost+found"]
        assert await tree.read_file(b"b") == b"new"


async def test_attributes_that_there_is_no_room_for(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 4 * MIB, "-I", "128")
    async with mounted(image) as tree:
        await tree.write_file(b"file", b"")
        await tree.utimens(b"file", 1_500_000_000_999_999_999, 5_000_000_000 * 10**9)
        st = await tree.stat(b"file")
        assert (st.atime, st.mtime) == (1_500_000_000 * 10**9, ((1 << 31) - 1) * 10**9)
        vp = await tree.node_lookup(tree.root, b"file")
        assert vp is not None
        async with tree._exclusive(vp):
            va, _ = await tree.fs.setattr(vp, Vattr(birthtime=5), ROOT)
        assert va.birthtime is None
        await tree.put(vp)


async def test_setattr_is_all_or_nothing(image: Path) -> None:
    async with mounted(image) as tree:
        await tree.write_file(b"file", pattern(5000))
        vp = await tree.node_lookup(tree.root, b"file")
        assert vp is not None
        async with tree._exclusive(vp):
            before, _ = await tree.fs.getattr(vp, ROOT)
            for size in (-1, 1 << 62):
                with pytest.raises(VfsError):
                    await tree.fs.setattr(vp, Vattr(size=size, mode=0o777, uid=5), ROOT)
            assert (await tree.fs.getattr(vp, ROOT))[0] == before
        await tree.put(vp)
