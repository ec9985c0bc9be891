"""Names that change while a call is on its way, and calls that are given up half way."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Coroutine
from errno import EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY
from typing import Any, Final

import pytest
import trio

from syspuffs.emul.kernel import Kernel
from syspuffs.emul.syscalls import Process
from syspuffs.emul.tmpfs import TmpFs
from syspuffs.emul.vfs import Lookup
from syspuffs.emul.vnode import Vnode
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Componentname, Cred, Vattr

from ..caller import ROOT
from .harness import check_idle


class Waiting(TmpFs):
    """Has to wait in each operation, before it does what tmpfs does.

    `scope` is cancelled by the wait number `fuse`, counted down.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(uid=0, gid=0, mode=0o755)
        self.draw = random.Random(seed)
        self.fuse = -1
        self.scope: trio.CancelScope | None = None

    async def pause(self) -> None:
        self.fuse -= 1
        if self.fuse == 0 and self.scope is not None:
            self.scope.cancel()
        for _ in range(self.draw.randrange(3)):
            await trio.lowlevel.checkpoint()

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        await self.pause()
        return await super().lookup(dvp, cn)

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        await self.pause()
        return await super().create(dvp, cn, va)

    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        await self.pause()
        return await super().mkdir(dvp, cn, va)

    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        await self.pause()
        await super().remove(dvp, vp, cn)

    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        await self.pause()
        await super().rmdir(dvp, vp, cn)

    async def rename(self, *args: Any) -> None:
        await self.pause()
        await super().rename(*args)

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        await self.pause()
        return await super().open(vp, mode, cred)

    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        await self.pause()
        return await super().readlink(vp, cred)

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        await self.pause()
        await super().access(vp, mode, cred)

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        await self.pause()
        return await super().getattr(vp, cred)

    async def inactive(self, vp: Vnode) -> bool:
        await self.pause()
        return await super().inactive(vp)


async def attempt(call: Awaitable[object], *allowed: int) -> bool:
    try:
        await call
    except VfsError as error:
        if error.errno not in allowed:
            raise AssertionError(f"{error} in a race") from error
        return False
    return True


NAMES: Final = [b"a", b"b", b"c"]


async def settled(p: Process) -> None:
    """Let the kernel's tasks give back what was left to them, and check."""
    await trio.testing.wait_all_tasks_blocked()
    check_idle(p)


async def count_tree(p: Process, path: bytes, depth: int = 0) -> int:
    assert depth < 10, "the tree has a loop"
    fd = await p.open(path, os.O_RDONLY | os.O_DIRECTORY)
    count = 0
    for entry in await p.getdents(fd, 1 << 16):
        if entry.name not in (b".", b".."):
            count += 1
            await p.lstat(path + b"/" + entry.name)
            if entry.vtype == 2:
                count += await count_tree(p, path + b"/" + entry.name, depth + 1)
    await p.close(fd)
    return count


@pytest.mark.parametrize("seed", range(6))
async def test_directories_into_and_over_each_other(seed: int) -> None:
    """Whatever wins, the tree stays a tree, and each directory is somewhere or was replaced."""
    async with Kernel() as kernel:
        await kernel.mount(Waiting(seed))
        async with Process(kernel, ROOT) as p:
            for name in NAMES:
                await p.mkdir(name)

            async def work(task: int) -> None:
                draw = random.Random(seed * 100 + task)
                for _ in range(12):
                    one = b"/".join(draw.sample(NAMES, draw.randrange(1, 3)))
                    two = b"/".join(draw.sample(NAMES, draw.randrange(1, 4)))
                    await attempt(p.rename(one, two), ENOENT, EINVAL, ENOTEMPTY, ENOTDIR)

            async with trio.open_nursery() as nursery:
                for task in range(5):
                    nursery.start_soon(work, task)
            assert 1 <= await count_tree(p, b".") <= len(NAMES)
            await settled(p)


@pytest.mark.parametrize("seed", range(6))
async def test_everything_at_once(seed: int) -> None:
    """Calls fail with what is true at some moment while they run, and with nothing else."""
    allowed = (ENOENT, EEXIST, ENOTDIR, ENOTEMPTY, EINVAL, EISDIR)
    async with Kernel() as kernel:
        await kernel.mount(Waiting(seed))
        async with Process(kernel, ROOT) as p:
            made: list[bytes] = []
            removed: list[bytes] = []

            async def work(task: int) -> None:
                draw = random.Random(seed * 100 + task)
                for _ in range(15):
                    path = b"/".join(draw.choices(NAMES, k=draw.randrange(1, 3)))
                    other = b"/".join(draw.choices(NAMES, k=draw.randrange(1, 3)))
                    match draw.randrange(6):
                        case 0:
                            if await attempt(p.mkdir(path), *allowed):
                                made.append(path)
                        case 1:
                            if await attempt(p.rmdir(path), *allowed):
                                removed.append(path)
                        case 2:
                            if await attempt(p.unlink(path), *allowed):
                                removed.append(path)
                        case 3:
                            if await attempt(p.mknod(path, 0o600), *allowed):
                                made.append(path)
                        case 4:
                            await attempt(p.rename(path, other), *allowed)
                        case 5:
                            await attempt(p.stat(path + b"/.."), *allowed)

            async with trio.open_nursery() as nursery:
                for task in range(6):
                    nursery.start_soon(work, task)
            # Renames may have replaced some; what was removed was removed by one caller only.
            assert await count_tree(p, b".") <= len(made) - len(removed)
            await settled(p)


async def test_one_winner() -> None:
    async with Kernel() as kernel:
        await kernel.mount(Waiting(1))
        async with Process(kernel, ROOT) as p:
            outcomes: list[bool] = []

            async def work(call: Callable[[], Awaitable[object]], *allowed: int) -> None:
                outcomes.append(await attempt(call(), *allowed))

            exclusive = os.O_CREAT | os.O_EXCL
            for call, allowed in (
                (lambda: p.mkdir(b"d"), EEXIST),
                (lambda: p.open(b"f", exclusive), EEXIST),
                (lambda: p.rename(b"f", b"g"), ENOENT),
                (lambda: p.rmdir(b"d"), ENOENT),
                (lambda: p.unlink(b"g"), ENOENT),
            ):
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(work, call, allowed)
                assert sorted(outcomes) == [False, False, False, True]
                outcomes.clear()


async def test_creation_without_exclusive_opens_what_the_other_has_made() -> None:
    async with Kernel() as kernel:
        await kernel.mount(Waiting(2))
        async with Process(kernel, ROOT) as p:
            numbers = set()

            async def work() -> None:
                fd = await p.open(b"f", os.O_RDWR | os.O_CREAT)
                numbers.add((await p.fstat(fd)).st_ino)
                await p.close(fd)

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(work)
            assert len(numbers) == 1
            await settled(p)


Calls = Callable[[Process], Coroutine[Any, Any, Any]]

GIVEN_UP: Final[dict[str, Calls]] = {
    "stat": lambda p: p.stat(b"d/link/f"),
    "stat dotdot": lambda p: p.stat(b"d/e/../../d/m/../e"),
    "mount": lambda p: p.stat(b"d/m/x"),
    "create": lambda p: p.open(b"d/new", os.O_RDWR | os.O_CREAT),
    "create through a link": lambda p: p.open(b"d/dangling", os.O_RDWR | os.O_CREAT),
    "open": lambda p: p.open(b"d/f", os.O_RDWR | os.O_TRUNC),
    "mkdir": lambda p: p.mkdir(b"d/new"),
    "unlink": lambda p: p.unlink(b"d/f"),
    "rmdir": lambda p: p.rmdir(b"d/e"),
    "link": lambda p: p.link(b"d/f", b"d/e/f"),
    "rename": lambda p: p.rename(b"d/f", b"d/e/f"),
    "rename over": lambda p: p.rename(b"d/f", b"f"),
    "chdir": lambda p: p.chdir(b"d/e"),
}


@pytest.mark.parametrize("name", GIVEN_UP)
async def test_given_up_anywhere(name: str) -> None:
    """Nothing stays locked or referenced wherever a call is cancelled, and it can be made again."""
    given_up = 0
    for fuse in range(1, 14):
        async with Kernel() as kernel:
            fs = Waiting(fuse)
            await kernel.mount(fs)
            async with Process(kernel, ROOT) as p:
                for path in (b"d", b"d/e", b"d/m"):
                    await p.mkdir(path)
                for path in (b"d/f", b"f"):
                    await p.close(await p.open(path, os.O_RDWR | os.O_CREAT))
                await p.symlink(b"../d", b"d/link")
                await p.symlink(b"e/new", b"d/dangling")
                inner = Waiting(fuse)
                await p.mount(inner, b"d/m")
                await p.mkdir(b"d/m/x")
                await settled(p)
                with trio.CancelScope() as scope:
                    fs.scope, fs.fuse = scope, fuse
                    await GIVEN_UP[name](p)
                fs.scope = None
                given_up += scope.cancelled_caught
                if scope.cancelled_caught:
                    await p.chdir(b"/")
                    assert len(p.files) == 0
                    await settled(p)
                    await attempt(GIVEN_UP[name](p), EEXIST, ENOENT)
                await p.chdir(b"/")
                await p.unmount(b"d/m")
    assert given_up >= 2
