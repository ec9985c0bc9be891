"""Attributes, rights, listings and the whole of a local tree."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syspuffs.layers.local import local_tree
from syspuffs.native.constants import (
    FREAD,
    FWRITE,
    MNT_NOWAIT,
    MNT_WAIT,
    VEXEC,
    VREAD,
    VWRITE,
    Vtype,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Vattr, lookup_cn

from .harness import DIRECTORY, FILE, SECOND, US, raises, served

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def nobody() -> Iterator[None]:
    """Be somebody whom nobody has given anything."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


# The root.


def test_roots_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, number in (("nothing", errno.ENOENT), ("file", errno.ENOTDIR)):
        with pytest.raises(VfsError) as caught, local_tree(bytes(tmp_path / name)):
            pass
        assert caught.value.errno == number


async def test_a_root_by_a_link_stays_what_it_was(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    (tmp_path / "link").symlink_to("one")
    with served(tmp_path / "link") as tree:
        os.unlink(tmp_path / "link")
        (tmp_path / "link").symlink_to("two")
        os.rename(tmp_path / "one", tmp_path / "moved")
        tree.clock.advance(10)
        assert await tree.names(tree.root) == [b".", b"..", b"one"]


async def test_what_is_said_at_mount(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        kargs = tree.server.kargs
        assert (kargs.typename, kargs.mntfromname) == ("local", bytes(tmp_path))
        assert (await tree.server.print(tree.root)).startswith(b"local node 1")
        await tree.server.unmount(0)


async def test_the_whole_file_system(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        state, host = await tree.server.statvfs(), os.statvfs(tmp_path)
        assert (state.blocks, state.frsize, state.namemax) == (host.f_blocks, host.f_frsize, 255)
        assert await tree.server.pathconf(tree.root, os.pathconf_names["PC_NAME_MAX"]) == 255
        with raises(errno.EINVAL):
            await tree.server.pathconf(tree.root, 9999)
        await tree.server.sync(MNT_NOWAIT, US)
        await tree.server.sync(MNT_WAIT, US)


async def test_what_is_mounted_below() -> None:
    """Another file system is part of the tree, with a state of its own."""
    with local_tree(b"/") as server:
        root = server.kargs.root.cookie
        dev = await server.lookup(root, lookup_cn(b"dev", US))
        shm = await server.lookup(dev.cookie, lookup_cn(b"shm", US))
        assert shm.va is not None
        assert shm.va.fsid == os.stat("/dev/shm").st_dev
        state = await server.statvfs_at(shm.cookie)
        assert state.blocks == os.statvfs("/dev/shm").f_blocks
        null = await server.lookup(dev.cookie, lookup_cn(b"null", US))
        assert (null.vtype, null.rdev) == (Vtype.VCHR, os.stat("/dev/null").st_rdev)
        assert await server.open(null.cookie, FREAD, US) == (0, 0)
        with raises(errno.EINVAL):
            await server.read(null.cookie, 0, 10, 0, US)


# Attributes.


async def test_attributes(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        f = await tree.create(tree.root, "f")
        before = await tree.attributes(f)
        times = Vattr(atime=5 * SECOND + 7, mtime=-3 * SECOND + 1)
        after, _ = await tree.server.setattr(f, times, US)
        assert (after.atime, after.mtime) == (times.atime, times.mtime)
        after, _ = await tree.server.setattr(f, Vattr(mtime=9), US)
        assert (after.atime, after.mtime) == (times.atime, 9)
        assert after.ctime is not None
        assert before.ctime is not None
        assert after.ctime >= before.ctime
        after, _ = await tree.server.setattr(f, Vattr(mode=0o4711), US)
        assert after.mode == 0o4711
        for absurd in (1 << 100, -(1 << 100)):
            with raises(errno.EOVERFLOW):
                await tree.server.setattr(f, Vattr(mtime=absurd), US)
        with raises(errno.EOPNOTSUPP):
            await tree.server.setattr(f, Vattr(flags=1), US)
        with raises(errno.EISDIR):
            await tree.server.setattr(tree.root, Vattr(size=0), US)
        st = (tmp_path / "f").stat()
        assert (after.fileid, after.fsid) == (st.st_ino, st.st_dev)


async def test_the_mask_of_the_process_takes_nothing(tmp_path: Path) -> None:
    """What was asked for has been masked already, by whoever knows whose it is."""
    with served(tmp_path) as tree, umask(0o077):
        await tree.create(tree.root, "f", FILE._replace(mode=0o664))
        await tree.create(tree.root, "d", DIRECTORY._replace(mode=0o1775))
        fifo = await tree.server.mknod(
            tree.root, lookup_cn(b"p", US), Vattr(Vtype.VFIFO, mode=0o622)
        )
        tree.took(fifo)
        assert os.umask(0o077) == 0o077
        modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "fdp"}
        assert modes == {"f": 0o664, "d": 0o1775, "p": 0o622}


async def test_what_a_default_acl_takes_stays_away(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    entries = ((0x01, 7), (0x04, 5), (0x20, 0))  # user::rwx group::r-x other::---
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, 0xFFFFFFFF) for tag, perm in entries
    )
    os.setxattr(tmp_path / "d", "system.posix_acl_default", acl)
    with served(tmp_path) as tree, umask(0o077):
        await tree.create(await tree.walk("d"), "f", FILE._replace(mode=0o666))
    assert stat.S_IMODE((tmp_path / "d" / "f").stat().st_mode) == 0o640


async def test_extended_attributes(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        f = await tree.create(tree.root, "f")
        server = tree.server
        await server.setextattr(f, 0, b"user.a", b"value", 0, US)
        assert os.getxattr(tmp_path / "f", "user.a") == b"value"
        assert await server.getextattr(f, 0, b"user.a", US) == b"value"
        if os.geteuid() == 0:
            os.setxattr(tmp_path / "f", "trusted.x", b"hidden")
        assert await server.listextattr(f, 0, US) == b"user.a\0"
        with raises(errno.EEXIST):
            await server.setextattr(f, 0, b"user.a", b"", os.XATTR_CREATE, US)
        await server.deleteextattr(f, 0, b"user.a", US)
        with raises(errno.ENODATA):
            await server.getextattr(f, 0, b"user.a", US)
        for name in (b"trusted.x", b"security.capability", b"system.posix_acl_access"):
            with raises(errno.EOPNOTSUPP):
                await server.getextattr(f, 0, name, US)
            with raises(errno.EOPNOTSUPP):
                await server.setextattr(f, 0, name, b"x", 0, US)
            with raises(errno.EOPNOTSUPP):
                await server.deleteextattr(f, 0, name, US)


# Rights.


@as_root
async def test_the_rights_are_the_process_s(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "open").touch(0o644)
    (tmp_path / "closed").mkdir(0o700)
    with served(tmp_path) as tree:
        secret, readable, closed = [await tree.walk(n) for n in ("secret", "open", "closed")]
        with nobody():
            server = tree.server
            await server.access(readable, VREAD, US)
            for cookie, mode in ((readable, VWRITE), (readable, VEXEC), (secret, VREAD)):
                with raises(errno.EACCES):
                    await server.access(cookie, mode, US)
            await server.open(readable, FREAD, US)
            for cookie, mode in ((secret, FREAD), (readable, FWRITE)):
                with raises(errno.EACCES):
                    await server.open(cookie, mode, US)
            with raises(errno.EACCES):
                await server.read(secret, 0, 1, 0, US)
            with raises(errno.EACCES):
                await tree.entries(closed)
            with raises(errno.EACCES):
                await server.lookup(closed, lookup_cn(b"x", US))
            for va in (FILE, DIRECTORY):
                with raises(errno.EACCES):
                    await tree.create(tree.root, "new", va)
            with raises(errno.EACCES):
                await server.remove(tree.root, readable, lookup_cn(b"open", US))
            with raises(errno.EPERM):
                await server.setattr(readable, Vattr(mode=0o666), US)
            with raises(errno.EPERM):
                await server.setattr(readable, Vattr(uid=NOBODY), US)
            server.close(readable, FREAD, US)
        os.chmod(tmp_path, 0o777)
        with nobody():
            f = await tree.create(tree.root, "mine", FILE._replace(mode=0o400))
            await server.open(f, FREAD | FWRITE, US)
            await server.write(f, 0, b"x", 0, US)
            server.close(f, FREAD | FWRITE, US)
            with raises(errno.EPERM):
                await server.mknod(
                    tree.root, lookup_cn(b"dev", US), Vattr(Vtype.VCHR, 0o666, rdev=259)
                )
    assert (tmp_path / "mine").stat().st_uid == NOBODY


async def test_read_only(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("data")
    os.mkfifo(tmp_path / "p")
    with served(tmp_path, ro=True) as tree:
        f, p, root, server = await tree.walk("f"), await tree.walk("p"), tree.root, tree.server
        cn, new = lookup_cn(b"f", US), lookup_cn(b"new", US)
        for operation in (
            lambda: server.create(root, new, FILE),
            lambda: server.mkdir(root, new, DIRECTORY),
            lambda: server.mknod(root, new, Vattr(Vtype.VFIFO, 0o600)),
            lambda: server.symlink(root, new, Vattr(), b"x"),
            lambda: server.link(root, f, new),
            lambda: server.remove(root, f, cn),
            lambda: server.rmdir(root, f, cn),
            lambda: server.rename(root, f, cn, root, None, new),
            lambda: server.setattr(f, Vattr(mode=0), US),
            lambda: server.open(f, FWRITE, US),
            lambda: server.write(f, 0, b"x", 0, US),
            lambda: server.fallocate(f, 0, 10),
            lambda: server.fdiscard(f, 0, 10),
            lambda: server.setextattr(f, 0, b"user.a", b"", 0, US),
            lambda: server.deleteextattr(f, 0, b"user.a", US),
            lambda: server.access(f, VWRITE, US),
        ):
            with raises(errno.EROFS):
                await operation()
        await server.access(p, VWRITE, US)
        assert await tree.read(f) == b"data"


@as_root
async def test_a_read_only_file_system_of_the_host() -> None:
    with served(Path("/proc/sys")) as tree:
        kernel = await tree.walk("kernel")
        assert await tree.names(kernel)


async def test_kinds_that_cannot_be_made(tmp_path: Path) -> None:
    with served(tmp_path) as tree:
        for vtype, number in ((Vtype.VNON, errno.EINVAL), (Vtype.VDIR, errno.EPERM)):
            with raises(number):
                await tree.server.mknod(tree.root, lookup_cn(b"n", US), Vattr(vtype, 0o600))
        for target, number in ((b"", errno.ENOENT), (b"t" * 4096, errno.ENAMETOOLONG)):
            with raises(number):
                await tree.server.symlink(tree.root, lookup_cn(b"l", US), Vattr(), target)
        with raises(errno.EEXIST):
            await tree.create(tree.root, "f")
            await tree.create(tree.root, "f")
        with raises(errno.ENOTDIR):
            await tree.server.lookup(await tree.walk("f"), lookup_cn(b"x", US))
        with raises(errno.EISDIR):
            await tree.server.open(tree.root, FWRITE, US)
        with raises(errno.ESTALE):
            await tree.server.getattr(tree.server.kargs.root.cookie + 99, US)  # type: ignore[arg-type]


# Listings.


@pytest.mark.parametrize("resid", [1, 300, 32 * 1024])
@pytest.mark.parametrize("flags", [0, 1])
async def test_listing(tmp_path: Path, resid: int, flags: int) -> None:
    names = {b"%03d" % number + b"n" * (number % 250) for number in range(300)}
    for name in names:
        os.close(os.open(bytes(tmp_path) + b"/" + name, os.O_CREAT))
    (tmp_path / "\udcff").mkdir()  # no UTF-8
    with served(tmp_path) as tree:
        entries = await tree.entries(tree.root, resid, flags)
        assert {entry.name for entry in entries} == names | {b".", b"..", b"\xff"}
        assert len(entries) == 303
        for entry in entries:
            assert (entry.newinfo is not None) is (flags == 1 and entry.name not in (b".", b".."))
            if entry.name not in (b".", b".."):
                st = os.lstat(bytes(tmp_path) + b"/" + entry.name)
                assert entry.fileid == st.st_ino
                assert entry.vtype == (Vtype.VDIR if entry.name == b"\xff" else Vtype.VREG)
        with raises(errno.EINVAL, errno.EOVERFLOW):
            await tree.server.readdir(tree.root, -1, 1024, 0, US)
        with raises(errno.EOVERFLOW):
            await tree.server.readdir(tree.root, 1 << 63, 1024, 0, US)
        with raises(errno.ENOTDIR):
            await tree.server.readdir(await tree.walk("000"), 0, 1024, 0, US)


async def test_listing_of_proc() -> None:
    """A file system whose entries come and go by themselves."""
    with served(Path("/proc/self")) as tree:
        assert b"status" in await tree.names(tree.root)
