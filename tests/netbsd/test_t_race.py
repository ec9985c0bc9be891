"""NetBSD's t_renamerace and t_rmdirrace: names that come and go under each other's hands."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Awaitable, Callable

import pytest
import trio

from ..support.expect import error_name
from ..support.target import Target

ROUNDS = 15
"""How often each task does what it does: a bound on time, not on what may go wrong."""
SEEDS = (1, 2)

GONE = (errno.ENOENT,)
RACES = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


async def attempt(call: Awaitable[object], *allowed: int) -> bool:
    """Return whether `call` succeeded; it may fail with the errnos in `allowed` only."""
    try:
        await call
    except OSError as error:
        if error.errno not in allowed:
            raise AssertionError(f"{error_name(error.errno)} in a race") from error
        return False
    return True


async def together(*works: Callable[[random.Random], Awaitable[None]], seed: int) -> None:
    """Run tasks side by side, each with its own numbers."""
    async with trio.open_nursery() as nursery:
        for number, work in enumerate(works):
            nursery.start_soon(work, random.Random(seed * 100 + number))


async def pause(draw: random.Random) -> None:
    for _ in range(draw.randrange(3)):
        await trio.lowlevel.checkpoint()


async def count_names(fs: Target, path: bytes = b"", depth: int = 0) -> int:
    """Return how many names there are below `path`; each can be looked up."""
    assert depth < 20, "the tree has a loop"
    count = 0
    for name in await fs.listdir(path):
        below = path + b"/" + name if path else name
        count += 1
        if (await fs.lstat(below)).kind == stat.S_IFDIR:
            count += await count_names(fs, below, depth + 1)
    return count


@pytest.mark.parametrize("seed", SEEDS)
async def test_renamerace(fs: Target, seed: int) -> None:
    """Two make a file and rename it, each in the other's way, while a third takes names away."""
    one, two = b"rename.test1", b"rename.test2"

    async def back_and_forth(draw: random.Random) -> None:
        for _ in range(ROUNDS):
            old, new = (one, two) if draw.random() < 0.5 else (two, one)
            await attempt(fs.write_file(old, b"x"))
            await pause(draw)
            await attempt(fs.rename(old, new), *GONE)

    async def take_away(draw: random.Random) -> None:
        for _ in range(ROUNDS):
            await attempt(fs.unlink(draw.choice([one, two])), *GONE)
            await pause(draw)

    async def look(draw: random.Random) -> None:
        for _ in range(ROUNDS):
            await attempt(fs.stat(draw.choice([one, two])), *GONE)
            assert set(await fs.listdir()) <= {one, two}
            await pause(draw)

    await together(back_and_forth, back_and_forth, take_away, look, seed=seed)
    for name in await fs.listdir():
        got = await fs.stat(name)
        assert (got.kind, got.nlink) == (stat.S_IFREG, 1)
        await fs.unlink(name)
    assert await fs.listdir() == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_renamerace_dirs(fs: Target, seed: int) -> None:
    """The same with directories, which move into and out of each other besides."""
    names = [b"one", b"two", b"three"]
    for name in names:
        await fs.mkdir(name)

    async def move(draw: random.Random) -> None:
        for _ in range(ROUNDS):
            old = b"/".join(draw.sample(names, draw.randrange(1, 3)))
            new = b"/".join(draw.sample(names, draw.randrange(1, 4)))
            await attempt(fs.rename(old, new), *RACES)
            await pause(draw)

    async def make(draw: random.Random) -> None:
        for _ in range(ROUNDS):
            path = b"/".join(draw.sample(names, draw.randrange(1, 3)))
            if await attempt(fs.mkdir(path), *RACES):
                await pause(draw)
                await attempt(fs.rmdir(path), *RACES)

    await together(move, move, move, make, seed=seed)
    assert await count_names(fs) >= 1
    # Whatever is where, all of it can be taken down again.
    for _ in range(10):
        for path in await paths(fs):
            await attempt(fs.rmdir(path), errno.ENOTEMPTY)
    assert await fs.listdir() == []
    assert (await fs.stat(b"")).kind == stat.S_IFDIR


async def paths(fs: Target, path: bytes = b"") -> list[bytes]:
    """Return all directories below `path`, deepest first."""
    found = []
    for name in await fs.listdir(path):
        below = path + b"/" + name if path else name
        found += [*await paths(fs, below), below]
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_race(fs: Target, seed: int) -> None:
    """t_rmdirrace: one makes and removes a directory, others use it as if it were there."""

    async def come_and_go(draw: random.Random) -> None:
        for _ in range(ROUNDS):
            await attempt(fs.mkdir(b"d"), errno.EEXIST)
            await pause(draw)
            await attempt(fs.rmdir(b"d"), errno.ENOENT, errno.ENOTEMPTY)

    async def rename_in(draw: random.Random) -> None:
        for number in range(ROUNDS):
            await fs.mkdir(b"x%d" % number)
            inside = b"d/x%d" % number
            if await attempt(fs.rename(b"x%d" % number, inside), errno.ENOENT):
                await pause(draw)
                await fs.rmdir(inside)
            else:
                await fs.rmdir(b"x%d" % number)

    async def make_in(draw: random.Random) -> None:
        for _ in range(ROUNDS):
            flags = os.O_CREAT | os.O_WRONLY
            try:
                file = await fs.open(b"d/f", flags)
            except FileNotFoundError:
                continue
            await pause(draw)
            await file.close()
            await fs.unlink(b"d/f")

    await together(come_and_go, come_and_go, rename_in, make_in, seed=seed)
    await attempt(fs.rmdir(b"d"), errno.ENOENT)
    assert await fs.listdir() == []
