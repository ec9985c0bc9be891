"""Processes: credentials, masks, directories, forks, mounts, handles."""

from __future__ import annotations

import os
import stat
from errno import (
    EACCES,
    EBADF,
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    EMFILE,
    ENOENT,
    ENOTDIR,
    ENXIO,
    EPERM,
    EROFS,
    ESTALE,
    EXDEV,
)

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.syscalls import UTIME_NOW, UTIME_OMIT, Process
from syspuffs.native.constants import MNT_FORCE
from syspuffs.native.records import Cred

from ..caller import ANN, BOB, ROOT, fails, now
from .harness import booted, check_idle, mount, read_file, tmpfs, write_file

RW = os.O_RDWR | os.O_CREAT


def test_umask() -> None:
    p = booted(umask=0o027)
    now(p.mkdir(b"d", 0o777))
    now(p.mknod(b"n", 0o666))
    write_file(p, b"f", mode=0o6777)
    modes = [stat.S_IMODE(now(p.stat(name)).st_mode) for name in (b"d", b"n", b"f")]
    assert modes == [0o750, 0o640, 0o6750]
    assert p.umask(0o1777) == 0o027
    assert p.umask(0) == 0o777
    now(p.mkdir(b"e", 0o7777))
    assert stat.S_IMODE(now(p.stat(b"e")).st_mode) == 0o1777  # set-id bits are not for mkdir


def test_credentials() -> None:
    p = booted(tmpfs(mode=0o777))
    p.setgroups([5, 6])
    p.setgid(7)
    p.setuid(1001)
    assert p.cred == Cred(1001, 7, (5, 6), p.pid)
    write_file(p, b"mine")
    got = now(p.stat(b"mine"))
    assert (got.st_uid, got.st_gid) == (1001, 7)
    p.setuid(1001)
    p.setgid(7)
    with fails(EPERM):
        p.setuid(0)
    with fails(EPERM):
        p.setgid(0)
    with fails(EPERM):
        p.setgroups([])
    for coro in (p.chroot(b"."), p.mount(tmpfs(), b"."), p.unmount(b"/"), p.getfh(b"/")):
        with fails(EPERM):
            now(coro)
    with fails(EPERM):
        now(p.mknod(b"device", stat.S_IFCHR | 0o600, 5))


def test_processes_have_numbers_of_their_own() -> None:
    p = booted()
    child = p.fork()
    assert len({p.pid, child.pid, booted().pid}) == 3
    assert (p.cred.pid, child.cred.pid) == (p.pid, child.pid)


def test_working_directory() -> None:
    p = booted()
    now(p.mkdir(b"a"))
    now(p.mkdir(b"a/b"))
    now(p.chdir(b"a"))
    write_file(p, b"b/f", b"here")
    now(p.chdir(b"b"))
    assert read_file(p, b"f") == b"here"
    assert read_file(p, b"/a/b/f") == b"here"
    now(p.rename(b"/a", b"/moved"))  # it goes along
    assert read_file(p, b"../b/f") == b"here"
    fd = now(p.open(b"..", os.O_RDONLY))
    now(p.fchdir(fd))
    assert read_file(p, b"b/f") == b"here"
    assert now(p.stat(b"f", dirfd=now(p.open(b"b", os.O_RDONLY)))).st_size == 4
    with fails(ENOTDIR):
        now(p.chdir(b"b/f"))
    with fails(ENOTDIR):
        now(p.fchdir(now(p.open(b"b/f", os.O_RDONLY))))
    with fails(EBADF):
        now(p.fchdir(77))
    now(p.unlink(b"b/f"))
    now(p.chdir(b"b"))
    now(p.rmdir(b"/moved/b"))
    with fails(ENOENT):
        write_file(p, b"new")
    now(p.chdir(b"/"))
    for fd in list(p.files):
        now(p.close(fd))
    check_idle(p)


def test_directories_by_descriptor() -> None:
    p = booted()
    now(p.mkdir(b"a"))
    now(p.mkdir(b"b"))
    a, b = now(p.open(b"a", os.O_RDONLY)), now(p.open(b"b", os.O_PATH))
    now(p.mkdir(b"d", dirfd=a))
    now(p.mknod(b"n", 0o600, dirfd=a))
    now(p.symlink(b"n", b"s", dirfd=a))
    now(p.link(b"n", b"m", olddirfd=a, newdirfd=b))
    now(p.rename(b"d", b"e", olddirfd=a, newdirfd=b))
    assert now(p.readlink(b"s", dirfd=a)) == b"n"
    fd = now(p.open(b"s", os.O_RDWR, dirfd=a))
    now(p.write(fd, b"x"))
    now(p.close(fd))
    assert now(p.stat(b"m", dirfd=b)).st_size == 1
    assert now(p.stat(b"/a/n", dirfd=99)).st_nlink == 2
    assert now(p.lstat(b"s", dirfd=a)).st_size == 1
    now(p.access(b"m", os.W_OK, dirfd=b))
    now(p.chmod(b"s", 0o640, dirfd=a))
    now(p.chown(b"m", 3, 4, dirfd=b))
    now(p.lchown(b"s", 5, 6, dirfd=a))
    now(p.utimensat(b"s", 7, 8, dirfd=a))
    now(p.truncate(b"s", 9, dirfd=a))
    got = now(p.stat(b"b/m"))
    assert (stat.S_IMODE(got.st_mode), got.st_uid, got.st_gid) == (0o640, 3, 4)
    assert (got.st_atime, got.st_size) == (7, 9)
    assert now(p.lstat(b"a/s")).st_uid == 5
    now(p.unlink(b"m", dirfd=b))
    now(p.rmdir(b"e", dirfd=b))
    for call in (p.stat(b"m", dirfd=99), p.mkdir(b"x", dirfd=99)):
        with fails(EBADF):
            now(call)
    with fails(ENOENT):
        now(p.stat(b"", dirfd=99))
    file = now(p.open(b"a/n", os.O_RDONLY))
    with fails(ENOTDIR):
        now(p.stat(b"x", dirfd=file))
    for fd in (a, b, file):
        now(p.close(fd))
    check_idle(p)


def test_root_of_its_own() -> None:
    p = booted()
    now(p.mkdir(b"jail"))
    write_file(p, b"secret")
    now(p.symlink(b"/secret", b"jail/out"))
    now(p.symlink(b"../../secret", b"jail/up"))
    q = p.fork()
    now(q.chroot(b"jail"))
    assert now(q.stat(b"secret")).st_size == 0  # the working directory stays outside
    now(q.chdir(b"/"))
    for path in (b"/secret", b"../secret", b"out", b"up", b"/../secret"):
        with fails(ENOENT):
            now(q.stat(path))
    write_file(q, b"/secret", b"inside")
    assert read_file(q, b"out") == read_file(q, b"up") == b"inside"
    assert read_file(p, b"jail/secret") == b"inside"
    with fails(ENOTDIR):
        now(q.chroot(b"secret"))
    check_idle(p, q)


async def test_fork_and_exit() -> None:
    p = booted()
    write_file(p, b"f", b"0123456789")
    now(p.mkdir(b"d"))
    now(p.chdir(b"d"))
    fd = now(p.open(b"../f", os.O_RDONLY))
    child = p.fork()
    assert child.cred._replace(pid=0) == p.cred._replace(pid=0)
    assert now(child.read(fd, 3)) == b"012"
    assert now(p.read(fd, 3)) == b"345"  # one open file, one position
    now(child.chdir(b"/"))
    assert now(p.lstat(b"../d")).st_nlink == 2
    now(child.close(fd))
    assert now(p.read(fd, 3)) == b"678"
    now(child.open(b"f", os.O_RDONLY))
    now(child.mkdir(b"left"))
    now(child.chdir(b"left"))
    await child.exit()
    await child.exit()
    assert len(child.files) == 0
    assert now(p.read(fd, 3)) == b"9"
    now(p.close(fd))
    check_idle(p)
    async with p.fork() as grandchild:
        now(grandchild.open(b"/f", os.O_RDONLY))
    check_idle(p)


def test_number_that_is_reserved_is_not_inherited() -> None:
    p = booted()
    fd = p.files.reserve()
    kept = now(p.open(b"f", RW))
    child = p.fork()
    assert list(child.files) == [kept]
    assert now(child.open(b"f", RW)) == fd
    with fails(EBUSY):
        now(p.dup2(kept, fd))
    with fails(EBADF):
        now(p.close(fd))
    p.files.cancel(fd)


# Attributes.


def test_times() -> None:
    root = booted(tmpfs(mode=0o777))
    ann, bob = Process(root.kernel, ANN), Process(root.kernel, BOB)
    write_file(ann, b"f", mode=0o644)
    now(ann.utimensat(b"f", 11, 22))
    now(ann.utimensat(b"f", UTIME_OMIT, 33))
    got = now(ann.stat(b"f"))
    assert (got.st_atime, got.st_mtime) == (11, 33)
    with fails(EACCES):
        now(bob.utimensat(b"f", UTIME_NOW, UTIME_NOW))
    for atime, mtime in ((1, 2), (UTIME_NOW, UTIME_OMIT), (UTIME_OMIT, 5)):
        with fails(EPERM):
            now(bob.utimensat(b"f", atime, mtime))
    now(ann.chmod(b"f", 0o666))
    now(bob.utimensat(b"f", UTIME_NOW, UTIME_NOW))  # who may write may say that he has
    assert now(ann.stat(b"f")).st_mtime > 10**18
    with fails(EPERM):
        now(bob.utimensat(b"f", UTIME_NOW, 5))
    now(bob.utimensat(b"missing", UTIME_OMIT, UTIME_OMIT))
    fd = now(ann.open(b"f", os.O_RDONLY))
    now(ann.futimens(fd, 44, 55))
    now(ann.futimens(fd, UTIME_OMIT, UTIME_OMIT))
    assert now(ann.fstat(fd)).st_mtime == 55
    now(ann.fchmod(fd, 0o600))
    now(ann.fchown(fd, -1, 2009))
    got = now(ann.fstat(fd))
    assert (stat.S_IMODE(got.st_mode), got.st_uid, got.st_gid) == (0o600, 1001, 2009)
    with fails(EPERM):
        now(ann.fchown(fd, 0, -1))
    now(ann.close(fd))


def test_what_stat_tells_of_two_mounts() -> None:
    p = booted()
    now(p.mkdir(b"m"))
    inner = mount(p, b"m")
    here, there = now(p.stat(b"/")), now(p.stat(b"m"))
    assert here.st_dev != there.st_dev == inner.serial
    assert stat.S_ISDIR(there.st_mode)
    assert there.st_blksize > 0
    write_file(p, b"f", b"x" * 5000)
    assert now(p.stat(b"f")).st_blocks * 512 >= 5000


# Mounts.


def test_between_mounts() -> None:
    p = booted()
    now(p.mkdir(b"m"))
    now(p.mkdir(b"d"))
    write_file(p, b"f")
    mount(p, b"m")
    write_file(p, b"m/g")
    for call in (p.rename(b"f", b"m/f"), p.rename(b"m/g", b"g"), p.link(b"f", b"m/f")):
        with fails(EXDEV):
            now(call)
    for call in (p.rmdir(b"m"), p.rename(b"m", b"n"), p.rename(b"d", b"m")):
        with fails(EBUSY):
            now(call)
    with fails(EBUSY):
        now(p.rmdir(b"/"))
    now(p.rename(b"m/g", b"m/h"))
    check_idle(p)


def test_read_only() -> None:
    """Errors about names come before it where they do on Linux, and after it where they do."""
    p = booted()
    now(p.mkdir(b"m"))
    fs = tmpfs()
    mounted = now(p.mount(fs, b"m"))
    write_file(p, b"m/f", b"data")
    now(p.mkdir(b"m/d"))
    fd = now(p.open(b"m/f", os.O_RDWR))
    mounted.is_rdonly = True
    for call in (
        p.mkdir(b"m/new"),
        p.mknod(b"m/new", 0o600),
        p.symlink(b"x", b"m/new"),
        p.link(b"m/f", b"m/new"),
        p.unlink(b"m/f"),
        p.unlink(b"m/missing"),
        p.rmdir(b"m/d"),
        p.rename(b"m/f", b"m/g"),
        p.rename(b"m/missing", b"m/g"),
        p.chmod(b"m/f", 0),
        p.chown(b"m/f", 0, 0),
        p.utimensat(b"m/f", 0, 0),
        p.truncate(b"m/f", 0),
        p.open(b"m/f", os.O_WRONLY),
        p.open(b"m/f", os.O_RDONLY | os.O_TRUNC),
        p.open(b"m/new", os.O_RDONLY | os.O_CREAT),
        p.access(b"m/f", os.W_OK),
        p.write(fd, b"x"),
        p.ftruncate(fd, 0),
        p.fallocate(fd, 0, 0, 1),
    ):
        with fails(EROFS):
            now(call)
    with fails(EEXIST):
        now(p.mkdir(b"m/d"))
    with fails(ENOENT):
        now(p.mknod(b"m/new/", 0o600))
    with fails(EXDEV):
        now(p.rename(b"m/f", b"f"))
    with fails(EISDIR):
        now(p.unlink(b"m/d/.."))
    assert now(p.statvfs(b"m/f")).flag & os.ST_RDONLY
    assert now(p.fstatvfs(fd)).flag & os.ST_RDONLY
    assert not now(p.statvfs(b"/")).flag & os.ST_RDONLY
    now(p.close(fd))
    fd = now(p.open(b"m/f", os.O_RDONLY | os.O_CREAT))
    now(p.close(fd))
    check_idle(p)


async def test_mount_and_unmount() -> None:
    async with Kernel() as kernel:
        await kernel.mount(tmpfs())
        async with Process(kernel, ROOT) as p:
            await p.mkdir(b"m")
            await p.close(await p.open(b"m/hidden", RW))
            await p.close(await p.open(b"f", RW))
            with fails(ENOTDIR):
                await p.mount(tmpfs(), b"f")
            with fails(ENOENT):
                await p.mount(tmpfs(), b"missing")
            with fails(EINVAL):
                await p.unmount(b"m")
            mounted = await p.mount(tmpfs(), b"m")
            with fails(ENOENT):
                await p.stat(b"m/hidden")
            with fails(EBUSY):
                await p.unmount(b"/")
            fd = await p.open(b"m/f", RW)
            await p.write(fd, b"x")
            with fails(EBUSY):
                await p.unmount(b"m")
            await p.close(fd)
            await p.chdir(b"m")
            with fails(EBUSY):
                await p.unmount(b"/m")
            await p.mkdir(b"inner")
            await p.mount(tmpfs(), b"inner")
            await p.chdir(b"/")
            with fails(EBUSY):
                await p.unmount(b"m")
            await p.unmount(b"m/inner")
            await p.unmount(b"m")
            assert not mounted.is_alive
            await p.stat(b"m/hidden")
            await p.sync()


async def test_unmount_by_force_under_a_process() -> None:
    """What it has there is dead; it can go elsewhere, and close."""
    async with Kernel() as kernel:
        await kernel.mount(tmpfs())
        async with Process(kernel, ROOT) as p:
            await p.mkdir(b"m")
            await p.mount(tmpfs(), b"m")
            await p.chdir(b"m")
            fd = await p.open(b"f", RW)
            reader = await p.open(b".", os.O_RDONLY)
            await p.unmount(b"/m", MNT_FORCE)
            for call in (p.stat(b"f"), p.stat(b"."), p.stat(b".."), p.fstat(fd), p.read(fd, 1)):
                with fails(ENXIO):
                    await call
            with fails(ENXIO):
                await p.fstatvfs(fd)
            with fails(ENXIO):
                await p.syncfs(fd)
            with fails(ENXIO):
                await p.close(fd)
            await p.close(reader)
            await p.chdir(b"/")
            assert await p.stat(b"m")


# File handles.


def test_handles() -> None:
    p = booted()
    now(p.mkdir(b"m"))
    mount(p, b"m")
    write_file(p, b"m/f", b"data")
    now(p.symlink(b"f", b"m/l"))
    handle = now(p.getfh(b"m/f"))
    assert handle != now(p.getfh(b"m/l"))
    now(p.rename(b"m/f", b"m/g"))
    fd = now(p.fhopen(handle, os.O_RDWR))
    assert now(p.read(fd, 9)) == b"data"
    now(p.close(fd))
    with fails(EINVAL):
        now(p.fhopen(handle, os.O_RDWR | os.O_CREAT))
    with fails(EINVAL):
        now(p.fhopen(handle[:5], os.O_RDWR))
    with fails(ESTALE):
        now(p.fhopen(b"\xff" * len(handle), os.O_RDWR))
    now(p.unlink(b"m/g"))
    with fails(ESTALE):
        now(p.fhopen(handle, os.O_RDWR))
    directory = now(p.getfh(b"m"))
    with fails(EISDIR):
        now(p.fhopen(directory, os.O_RDWR))
    fd = now(p.fhopen(directory, os.O_RDONLY))
    assert {entry.name for entry in now(p.getdents(fd, 999))} == {b".", b"..", b"l"}
    now(p.close(fd))
    p.files.limit = 0
    with fails(EMFILE):
        now(p.fhopen(directory, os.O_RDONLY))
    check_idle(p)
