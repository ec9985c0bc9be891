"""Record locks of processes. (What locks do to each other: test_lockf.)"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from errno import EAGAIN, EBADF, EDEADLK, EINVAL, EIO, EOVERFLOW
from fcntl import F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.syscalls import Process
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vnode import Vnode
from syspuffs.native.constants import MNT_FORCE
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Flock

from ..caller import ROOT, fails
from .harness import tmpfs

RW = os.O_RDWR | os.O_CREAT


def lock(kind: int, start: int = 0, length: int = 0) -> Flock:
    return Flock(kind, start, length, 0)


@pytest.fixture
async def p() -> AsyncIterator[Process]:
    async with Kernel() as kernel:
        await kernel.mount(tmpfs())
        async with Process(kernel, ROOT) as process:
            yield process
        assert len(kernel.lockf) == 0


async def test_between_processes(p: Process) -> None:
    fd = await p.open(b"f", RW)
    async with p.fork() as child:
        await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK, 10, 10))
        with fails(EAGAIN):
            await child.fcntl_lock(fd, F_SETLK, lock(F_RDLCK, 19, 1))
        await child.fcntl_lock(fd, F_SETLK, lock(F_RDLCK, 20, 1))
        got = await child.fcntl_lock(fd, F_GETLK, lock(F_RDLCK))
        assert got == Flock(F_WRLCK, 10, 10, p.pid)
        assert (await p.fcntl_lock(fd, F_GETLK, lock(F_RDLCK))).type == F_UNLCK
        got = await p.fcntl_lock(fd, F_GETLK, lock(F_WRLCK))
        assert got == Flock(F_RDLCK, 20, 1, child.pid)
        await p.fcntl_lock(fd, F_SETLK, lock(F_UNLCK))
        await child.fcntl_lock(fd, F_SETLK, lock(F_WRLCK))
        with fails(EAGAIN):
            await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK, 99, 1))
    await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK, 99, 1))  # the child has exited


async def test_where_ranges_begin(p: Process) -> None:
    fd = await p.open(b"f", RW)
    await p.write(fd, bytes(100))
    await p.lseek(fd, 30, os.SEEK_SET)
    async with p.fork() as child:
        for flock, whence, start, length in (
            (lock(F_WRLCK, 5, 10), os.SEEK_SET, 5, 10),
            (lock(F_WRLCK, -5, 10), os.SEEK_CUR, 25, 10),
            (lock(F_WRLCK, -10, 0), os.SEEK_END, 90, 0),
            (lock(F_WRLCK, 50, -20), os.SEEK_SET, 30, 20),
        ):
            await p.fcntl_lock(fd, F_SETLK, flock, whence)
            got = await child.fcntl_lock(fd, F_GETLK, lock(F_WRLCK))
            assert got == Flock(F_WRLCK, start, length, p.pid)
            await p.fcntl_lock(fd, F_SETLK, lock(F_UNLCK))
    for flock, whence, errno in (
        (lock(F_WRLCK, -1), os.SEEK_SET, EINVAL),
        (lock(F_WRLCK, -31), os.SEEK_CUR, EINVAL),
        (lock(F_WRLCK, 0), 17, EINVAL),
        (lock(99, 0), os.SEEK_SET, EINVAL),
        (lock(F_WRLCK, 2**63 - 1, 10), os.SEEK_SET, EOVERFLOW),
    ):
        with fails(errno):
            await p.fcntl_lock(fd, F_SETLK, flock, whence)
    with fails(EINVAL):
        await p.fcntl_lock(fd, 0, lock(F_WRLCK))
    with fails(EINVAL):
        await p.fcntl_lock(fd, F_GETLK, lock(F_UNLCK))


async def test_what_it_must_be_open_for(p: Process) -> None:
    await p.close(await p.open(b"f", RW))
    reader, writer = await p.open(b"f", os.O_RDONLY), await p.open(b"f", os.O_WRONLY)
    path = await p.open(b"f", os.O_PATH)
    for fd, kind in ((reader, F_WRLCK), (writer, F_RDLCK), (path, F_UNLCK), (99, F_RDLCK)):
        with fails(EBADF):
            await p.fcntl_lock(fd, F_SETLK, lock(kind))
    await p.fcntl_lock(reader, F_SETLK, lock(F_RDLCK))
    await p.fcntl_lock(writer, F_SETLK, lock(F_WRLCK))
    assert (await p.fcntl_lock(reader, F_GETLK, lock(F_WRLCK))).type == F_UNLCK


async def test_any_close_releases(p: Process) -> None:
    """POSIX has it so: also that of a descriptor by which nothing was locked."""
    one, two = await p.open(b"f", RW), await p.open(b"f", RW)
    async with p.fork() as child:
        await p.fcntl_lock(one, F_SETLK, lock(F_WRLCK))
        await child.close(one)  # others' closes release nothing of ours
        with fails(EAGAIN):
            await child.fcntl_lock(two, F_SETLK, lock(F_WRLCK))
        await p.close(two)
        await child.fcntl_lock(two, F_SETLK, lock(F_WRLCK))


async def test_waiting(p: Process) -> None:
    fd = await p.open(b"f", RW)
    order: list[str] = []
    async with p.fork() as child, trio.open_nursery() as nursery:

        async def wait() -> None:
            await child.fcntl_lock(fd, F_SETLKW, lock(F_WRLCK))
            order.append("locked")

        await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK))
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        order.append("unlock")
        await p.fcntl_lock(fd, F_SETLK, lock(F_UNLCK))
        await wait_all_tasks_blocked()
        assert order == ["unlock", "locked"]


async def test_waiting_for_each_other(p: Process) -> None:
    fd = await p.open(b"f", RW)
    async with p.fork() as child, trio.open_nursery() as nursery:

        async def wait() -> None:
            await child.fcntl_lock(fd, F_SETLKW, lock(F_WRLCK, 0, 1))

        await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK, 0, 1))
        await child.fcntl_lock(fd, F_SETLK, lock(F_WRLCK, 1, 1))
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with fails(EDEADLK):
            await p.fcntl_lock(fd, F_SETLKW, lock(F_WRLCK, 1, 1))
        await p.fcntl_lock(fd, F_SETLK, lock(F_UNLCK))


async def test_close_while_waiting(p: Process) -> None:
    """Who gets a lock by a descriptor that is closed by then does not keep it."""
    fd = await p.open(b"f", RW)
    async with p.fork() as child, trio.open_nursery() as nursery:

        async def wait() -> None:
            with fails(EBADF):
                await child.fcntl_lock(fd, F_SETLKW, lock(F_WRLCK))

        await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK))
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await child.close(fd)
        await p.fcntl_lock(fd, F_SETLK, lock(F_UNLCK))
        await wait_all_tasks_blocked()
        await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK))


async def test_cancelled_while_waiting(p: Process) -> None:
    fd = await p.open(b"f", RW)
    async with p.fork() as child:
        await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK))
        with trio.move_on_after(0):
            await child.fcntl_lock(fd, F_SETLKW, lock(F_WRLCK))
        await p.fcntl_lock(fd, F_SETLK, lock(F_UNLCK))
        await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK))


class Own(TmpFs):
    """Has a mind of its own about locks."""

    def __init__(self) -> None:
        super().__init__(uid=0, gid=0, mode=0o755)
        self.asked: list[tuple[int, int, Flock]] = []
        self.errno = 0

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        self.asked.append((owner, op, flock))
        if self.errno:
            raise VfsError(self.errno)
        return flock


async def test_file_system_is_asked() -> None:
    async with Kernel() as kernel:
        fs = Own()
        await kernel.mount(fs)
        async with Process(kernel, ROOT) as p:
            fd, other = await p.open(b"f", RW), await p.open(b"g", RW)
            await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK, 3, 4))
            await p.close(other)
            await p.close(fd)
            assert fs.asked == [
                (p.pid, F_SETLK, Flock(F_WRLCK, 3, 4, p.pid)),
                (p.pid, F_SETLK, Flock(F_UNLCK, 0, 0, p.pid)),
            ]
            fs.errno = EIO
            fd = await p.open(b"f", RW)
            with fails(EIO):
                await p.fcntl_lock(fd, F_SETLK, lock(F_WRLCK, 3, 4))


async def test_locks_die_with_their_mount(p: Process) -> None:
    await p.mkdir(b"m")
    await p.mount(tmpfs(), b"m")
    fd = await p.open(b"m/f", os.O_RDONLY | os.O_CREAT)
    await p.fcntl_lock(fd, F_SETLK, lock(F_RDLCK))
    await p.unmount(b"m", MNT_FORCE)
    await p.close(fd)
