"""Several tasks at once on one directory or file."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Awaitable, Callable

import pytest
import trio

from ..support.expect import error_name, pattern
from ..support.target import Target

TASKS = 6


async def together(work: Callable[[int], Awaitable[None]], count: int = TASKS) -> None:
    """Run `work` in `count` tasks, numbered from 0."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(work, number)


async def attempt(call: Awaitable[object], *allowed: int) -> bool:
    """Return whether `call` succeeded; it may fail with the errnos in `allowed` only."""
    try:
        await call
    except OSError as error:
        if error.errno not in allowed:
            raise AssertionError(f"{error_name(error.errno)} in a race") from error
        return False
    return True


async def check_tree(fs: Target, path: bytes = b"", depth: int = 0) -> int:
    """Check that all names below `path` can be used; return how many there are."""
    assert depth < 20, "the tree has a loop"
    count = 0
    for name in await fs.listdir(path):
        below = path + b"/" + name if path else name
        count += 1
        if (await fs.lstat(below)).kind == stat.S_IFDIR:
            count += await check_tree(fs, below, depth + 1)
    return count


async def test_creating_in_one_directory(fs: Target) -> None:
    async def work(task: int) -> None:
        for number in range(15):
            await fs.write_file(b"%d-%d" % (task, number), b"%d" % task)

    await together(work)
    names = sorted(b"%d-%d" % (task, number) for task in range(TASKS) for number in range(15))
    assert await fs.listdir() == names
    assert await fs.read_file(b"3-7") == b"3"


@pytest.mark.parametrize("kind", ["open", "mkdir", "symlink", "link"])
async def test_one_winner(fs: Target, kind: str) -> None:
    """Of several that make the same name exactly one succeeds, the others hear EEXIST."""
    await fs.write_file(b"f", b"")
    winners: list[int] = []

    async def work(task: int) -> None:
        if kind == "open":
            try:
                file = await fs.open(b"n", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                return
            await file.close()
        else:
            call = {
                "mkdir": lambda: fs.mkdir(b"n"),
                "symlink": lambda: fs.symlink(b"%d" % task, b"n"),
                "link": lambda: fs.link(b"f", b"n"),
            }[kind]()
            if not await attempt(call, errno.EEXIST):
                return
        winners.append(task)

    for _ in range(4):
        await together(work)
        assert len(winners) == 1
        if kind == "symlink":
            assert await fs.readlink(b"n") == b"%d" % winners[0]
        await (fs.rmdir if kind == "mkdir" else fs.unlink)(b"n")
        winners.clear()


@pytest.mark.parametrize("kind", ["unlink", "rmdir", "rename"])
async def test_one_remover(fs: Target, kind: str) -> None:
    winners: list[int] = []

    async def work(task: int) -> None:
        call = {
            "unlink": lambda: fs.unlink(b"n"),
            "rmdir": lambda: fs.rmdir(b"n"),
            "rename": lambda: fs.rename(b"n", b"to-%d" % task),
        }[kind]()
        if await attempt(call, errno.ENOENT):
            winners.append(task)

    for _ in range(4):
        await (fs.mkdir(b"n") if kind == "rmdir" else fs.write_file(b"n", b"x"))
        await together(work)
        assert len(winners) == 1
        if kind == "rename":
            assert await fs.listdir() == [b"to-%d" % winners[0]]
            await fs.unlink(b"to-%d" % winners[0])
        winners.clear()
    assert await fs.listdir() == []


async def test_open_without_exclusive(fs: Target) -> None:
    """All get the same file."""

    async def work(task: int) -> None:
        async with await fs.open(b"f", os.O_CREAT | os.O_RDWR) as file:
            await file.pwrite(b"%d" % task, task)

    for _ in range(3):
        await together(work)
        assert await fs.read_file(b"f") == b"012345"
        await fs.unlink(b"f")


async def test_writing_to_one_file(fs: Target) -> None:
    """Each task its own stripes; none is lost and none lands elsewhere."""
    stripe = 5_003
    rounds = 8

    async def work(task: int) -> None:
        async with await fs.open(b"f", os.O_RDWR) as file:
            for round_ in range(rounds):
                number = round_ * TASKS + task
                await file.pwrite(pattern(stripe, number), number * stripe)

    await fs.write_file(b"f", b"")
    await together(work)
    want = b"".join(pattern(stripe, number) for number in range(rounds * TASKS))
    assert await fs.read_file(b"f") == want


async def test_appending_to_one_file(fs: Target) -> None:
    async def work(task: int) -> None:
        async with await fs.open(b"log", os.O_WRONLY | os.O_APPEND) as file:
            for number in range(15):
                await file.pwrite(b"%d:%03d\n" % (task, number), 0)

    await fs.write_file(b"log", b"")
    await together(work)
    lines = (await fs.read_file(b"log")).split()
    assert sorted(lines) == sorted(
        b"%d:%03d" % (task, number) for task in range(TASKS) for number in range(15)
    )
    assert [line for line in lines if line.startswith(b"2:")] == [
        b"2:%03d" % number for number in range(15)
    ]


async def test_reading_one_file(fs: Target) -> None:
    data = pattern(400_000, 3)
    await fs.write_file(b"f", data)

    async def work(task: int) -> None:
        async with await fs.open(b"f", os.O_RDONLY) as file:
            for offset in range(task * 1_000, len(data), 90_000):
                assert await file.pread(70_000, offset) == data[offset : offset + 70_000]

    await together(work)


async def test_replacing_while_reading(fs: Target) -> None:
    """A reader sees one version or the other, whole, and never that there is none."""
    versions = [bytes([65 + number]) * (1_000 + 500 * number) for number in range(10)]
    await fs.write_file(b"f", versions[0])
    done = False

    async def writer() -> None:
        nonlocal done
        for version in versions:
            await fs.write_file(b"tmp", version)
            await fs.rename(b"tmp", b"f")
        done = True

    async def reader() -> None:
        while not done:
            try:
                got = await fs.read_file(b"f")
            except OSError as error:
                assert error.errno in fs.race_errors, error_name(error.errno)  # noqa: PT017
            else:
                assert got in versions
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer)
        nursery.start_soon(reader)
        nursery.start_soon(reader)


async def test_listing_while_changing(fs: Target) -> None:
    for number in range(40):
        await fs.symlink(b"x", b"stays-%02d" % number)
    done = False

    async def change(task: int) -> None:
        nonlocal done
        for number in range(15):
            await fs.symlink(b"x", b"comes-%d-%d" % (task, number))
            await fs.unlink(b"comes-%d-%d" % (task, number))
        done = True

    async def look() -> None:
        while not done:
            names = await fs.listdir()
            assert len(names) == len(set(names))
            assert sum(name.startswith(b"stays-") for name in names) == 40
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for task in range(3):
            nursery.start_soon(change, task)
        nursery.start_soon(look)


async def test_rename_race(fs: Target) -> None:
    """NetBSD's renamerace: files come, move over each other and go."""
    allowed = (errno.ENOENT, *fs.race_errors)

    async def work(task: int) -> None:
        draw = random.Random(task)
        for _ in range(25):
            one, two = draw.choice(NAMES), draw.choice(NAMES)
            await attempt(fs.write_file(one, b"x"), *allowed)
            await attempt(fs.rename(one, two), *allowed)
            if draw.random() < 0.3:
                await attempt(fs.unlink(two), *allowed)

    await together(work)
    assert set(await fs.listdir()) <= set(NAMES)
    await check_tree(fs)


NAMES = [b"a", b"b", b"c", b"d"]


async def test_rename_race_of_directories(fs: Target) -> None:
    """NetBSD's renamerace_dirs: directories into and over each other, never into themselves."""
    for name in NAMES:
        await fs.mkdir(name)
    allowed = (errno.ENOENT, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST, *fs.race_errors)

    async def work(task: int) -> None:
        draw = random.Random(100 + task)
        for _ in range(25):
            path = draw.choice(NAMES)
            place = b"/".join([*draw.sample(NAMES, draw.randrange(3)), path])
            await attempt(fs.rename(path, place), *allowed)
            await attempt(fs.rename(place, path), *allowed)

    await together(work)
    # Of two that race for one name the earlier may be replaced, so some may be gone.
    assert 1 <= await check_tree(fs) <= len(NAMES)


async def test_rmdir_race(fs: Target) -> None:
    """NetBSD's rmdirrace: making things in a directory that others remove."""

    async def work(task: int) -> None:
        for number in range(20):
            if task % 3 == 0:
                await attempt(fs.mkdir(b"d"), errno.EEXIST)
            elif task % 3 == 1:
                await attempt(fs.rmdir(b"d"), errno.ENOENT, errno.ENOTEMPTY)
            else:
                name = b"d/%d-%d" % (task, number)
                if await attempt(fs.write_file(name, b""), errno.ENOENT, *fs.race_errors):
                    await fs.unlink(name)

    await together(work)
    await attempt(fs.rmdir(b"d"), errno.ENOENT)
    assert await fs.listdir() == []


async def test_truncating_while_writing(fs: Target) -> None:
    """Sizes jump up and down; at the end it is the last one, and what is there was written."""
    await fs.write_file(b"f", b"")

    async def write(task: int) -> None:
        async with await fs.open(b"f", os.O_RDWR) as file:
            for number in range(15):
                await file.pwrite(bytes([65 + task]) * 1_000, number * 700)

    async def cut() -> None:
        for number in range(15):
            await fs.truncate(b"f", number * 300)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, 0)
        nursery.start_soon(write, 1)
        nursery.start_soon(cut)
    data = await fs.read_file(b"f")
    assert len(data) == (await fs.stat(b"f")).size
    assert set(data) <= {0, 65, 66}
    await fs.truncate(b"f", 100)
    assert len(await fs.read_file(b"f")) == 100


async def test_cancelled_half_way(fs: Target) -> None:
    """Cancelled work leaves nothing locked and nothing held."""

    async def work(task: int) -> None:
        for number in range(30):
            name = b"%d-%d" % (task, number)
            await fs.write_file(name, pattern(3_000, number))
            await fs.rename(name, b"common")

    async with trio.open_nursery() as nursery:
        for task in range(4):
            nursery.start_soon(work, task)
        for _ in range(25):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await fs.write_file(b"after", b"works")
    assert await fs.read_file(b"after") == b"works"
    await check_tree(fs)
