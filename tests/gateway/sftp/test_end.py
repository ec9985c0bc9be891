"""How sessions end: whatever is under way then, everything is closed and given back.

The fixture `tree` checks that at the end of each test (`Counting.settled`).
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from syspuffs.gateway.sftp import Session, View
from syspuffs.native import sftp
from syspuffs.native.constants import FSYNC_CLOSE
from syspuffs.native.errors import VfsError

from ...support.sftp_end import SELF
from .fuzz import Fuzzer
from .harness import BOTH, MAKE, Served, Wire, code_of, served

OPS = (
    *("lookup", "create", "mkdir", "symlink", "open", "getattr", "setattr", "read", "write"),
    *("fsync", "remove", "link", "rename", "rmdir", "readdir", "readlink", "inactive"),
)


async def _prepared(wire: Wire) -> list[bytes]:
    """Make some files; return requests that lead to every operation."""
    await wire.ask(sftp.mkdir, b"/d")
    await wire.put(b"/f", b"f")
    await wire.put(b"/g", b"g")
    await wire.ask(sftp.symlink, b"f", b"/l")
    file, directory = await wire.open(b"/f", BOTH), await wire.ask(sftp.opendir, b"/d")
    other = await wire.open(b"/f", BOTH)
    requests: list[Callable[[int], bytes]] = [
        lambda id: sftp.write(id, file, 0, 4) + b"data",
        lambda id: sftp.read(id, file, 0, 10),
        lambda id: sftp.fstat(id, file),
        lambda id: sftp.fsync(id, file),
        lambda id: sftp.stat(id, b"/l"),
        lambda id: sftp.readlink(id, b"/l"),
        lambda id: sftp.readdir(id, directory),
        lambda id: sftp.setstat(id, b"/f", sftp.Attrs(mode=0o600, atime=1, mtime=1)),
        lambda id: sftp.open_(id, b"/new", MAKE),
        lambda id: sftp.open_(id, b"/f", MAKE),
        lambda id: sftp.opendir(id, b"/"),
        lambda id: sftp.mkdir(id, b"/e"),
        lambda id: sftp.symlink(id, b"x", b"/m"),
        lambda id: sftp.hardlink(id, b"/f", b"/h"),
        lambda id: sftp.rename(id, b"/f", b"/i"),
        lambda id: sftp.posix_rename(id, b"/g", b"/j"),
        lambda id: sftp.remove(id, b"/j"),
        lambda id: sftp.rmdir(id, b"/d"),
        lambda id: sftp.copy_data(id, file, 0, 0, other, 0),
        lambda id: sftp.close(id, file),
        lambda id: sftp.close(id, directory),
    ]
    return [make(1000 + number) for number, make in enumerate(requests)]


@pytest.mark.parametrize("op", OPS)
async def test_the_client_vanishes_in_the_middle_of(tree: Served, op: str) -> None:
    released = trio.Event()
    held: list[str] = []

    async def hold(name: str, args: Any) -> None:
        if name == op:
            held.append(name)
            await released.wait()

    async with tree.raw() as (wire, session):
        await wire.greet()
        prepared = await _prepared(wire)
        tree.counting.before = hold
        await wire.send(*prepared)
        await wait_all_tasks_blocked()
        assert held
        await wire.stream.aclose()
        await wait_all_tasks_blocked()
        released.set()
    assert session.failures == 0


@pytest.mark.parametrize("seed", range(30))
async def test_a_session_is_cancelled_at_any_moment(seed: int) -> None:
    rng = random.Random(seed)

    async def slow(op: str, args: Any) -> None:
        for _ in range(rng.randrange(5)):
            await trio.lowlevel.checkpoint()

    async with served() as tree:
        async with tree.raw() as (wire, session):
            await wire.greet()
            tree.counting.before = tree.counting.after = slow
            with trio.move_on_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_swallow, Fuzzer(seed, wire).run, 50)
                    for _ in range(rng.randrange(20, 600)):
                        await trio.lowlevel.checkpoint()
                    session._end("the test wants it")
                    nursery.cancel_scope.cancel()
        tree.counting.before = tree.counting.after = None


async def _swallow(function: Any, *args: Any) -> None:
    try:
        await function(*args)
    except (EOFError, trio.BrokenResourceError):
        pass


async def test_whoever_serves_is_cancelled(tree: Served) -> None:
    async with tree.client() as other:
        with trio.CancelScope() as scope:
            async with tree.raw() as (wire, session):
                await wire.greet()
                await wire.open(b"/f", BOTH)
                await wire.ask(sftp.opendir, b"/")
                scope.cancel()
        assert session.statistics().handles == 0
        await other.ask(sftp.stat, b"/f")


async def test_what_was_asked_before_the_end_is_answered(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.put(b"/f", bytes(100_000))
        handle = await wire.open(b"/f")
        released = trio.Event()

        async def hold(op: str, args: Any) -> None:
            if op == "read":
                await released.wait()

        tree.counting.before = hold
        await wire.send(*(sftp.read(number, handle, 0, 100_000) for number in range(30)))
        await wire.stream.send_eof()
        await wait_all_tasks_blocked()
        released.set()
        replies = await wire.replies(30)
        assert all(kind == sftp.FXP_DATA for kind, _ in replies.values())
        with pytest.raises(EOFError):
            await wire.reply()


async def test_a_close_that_waits_when_the_client_vanishes(autojump_clock: MockClock) -> None:
    async with _patiently() as tree, tree.raw() as (wire, _):
        await wire.greet()
        handle = await wire.open(b"/f", BOTH)
        released = trio.Event()

        async def hold(op: str, args: Any) -> None:
            if op == "write":
                await released.wait()

        tree.counting.before = hold
        await wire.send(sftp.write(1, handle, 0, 1) + b"x", sftp.close(2, handle))
        await wait_all_tasks_blocked()
        await wire.stream.aclose()


@pytest.mark.logs("closing b'/f' for a client that left")
async def test_data_of_a_client_that_left_are_flushed_and_errors_are_logged(tree: Served) -> None:
    asked: list[Any] = []

    async def fail(op: str, args: Any) -> None:
        if op == "fsync":
            asked.append(args[1])
            raise VfsError(errno.ENOSPC)

    tree.counting.before = fail
    async with tree.raw() as (wire, _):
        await wire.greet()
        handle = await wire.open(b"/f", BOTH)
        await wire.write(handle, 0, b"data")
        await wire.stream.aclose()
    assert asked == [FSYNC_CLOSE]


async def test_close_tells_of_what_was_written_behind(tree: Served) -> None:
    async def fail(op: str, args: Any) -> None:
        if op == "fsync":
            raise VfsError(errno.EDQUOT)

    async with tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        await wire.write(handle, 0, b"data")
        tree.counting.before = fail
        assert await wire.code(sftp.close, handle) == sftp.FX_FAILURE
        assert await wire.code(sftp.close, handle) == sftp.FX_NO_SUCH_FILE
        handle = await wire.open(b"/f", BOTH)
        await wire.ask(sftp.close, handle)  # a clean one asks nobody


async def test_a_file_server_that_died(tree: Served) -> None:
    async def dead(op: str, args: Any) -> None:
        if op != "inactive":
            raise VfsError(errno.ENOTCONN)

    async with tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        directory = await wire.ask(sftp.opendir, b"/")
        tree.counting.before = dead
        for ask, args in (
            (sftp.stat, (b"/f",)),
            (sftp.read, (handle, 0, 1)),
            (sftp.write, (handle, 0, 0)),
            (sftp.readdir, (directory,)),
            (sftp.mkdir, (b"/d",)),
            (sftp.open_, (b"/g", MAKE)),
        ):
            assert await wire.code(ask, *args) == sftp.FX_FAILURE
        assert await wire.code(sftp.close, handle) == sftp.FX_FAILURE
        await wire.ask(sftp.close, directory)


@pytest.mark.logs("Stat failed in a way that it must not")
async def test_a_file_server_with_a_fault(tree: Served) -> None:
    async def broken(op: str, args: Any) -> None:
        if op == "lookup":
            raise ZeroDivisionError("nobody foresaw that")

    async with tree.raw() as (wire, session):
        await wire.greet()
        tree.counting.before = broken
        assert await wire.code(sftp.stat, b"/f") == sftp.FX_FAILURE
        tree.counting.before = None
        assert await wire.code(sftp.stat, b"/f") == sftp.FX_NO_SUCH_FILE
        await wire.stream.aclose()
    assert session.failures == 1


class Hung:
    """Holds operations of some names for ever."""

    def __init__(self, *ops: str) -> None:
        self.ops = ops

    async def __call__(self, op: str, args: Any) -> None:
        if op in self.ops:
            await trio.sleep_forever()


@pytest.mark.logs("took longer than 300 s")
async def test_a_file_server_that_hangs(autojump_clock: MockClock) -> None:
    async with _patiently() as tree, tree.client() as other:
        async with tree.raw(timeout=300.0) as (wire, session):
            await wire.greet()
            await wire.put(b"/f", b"data")
            handle = await wire.open(b"/f", BOTH)
            tree.counting.before = Hung("read")
            before = trio.current_time()
            await wire.send(
                sftp.read(1, handle, 0, 10),
                sftp.lstat(2, b"/f"),
                sftp.write(3, handle, 0, 1) + b"D",
                sftp.close(4, handle),
                sftp.lstat(5, b"/none"),
            )
            replies = await wire.replies(5)
            assert 299 < trio.current_time() - before < 301
            codes = [code_of(*replies[number]) for number in range(1, 6)]
            assert codes == [sftp.FX_FAILURE, 0, 0, 0, sftp.FX_NO_SUCH_FILE]
            assert sftp.decode_status(replies[1][1])[1] == b"Connection timed out"
            assert await other.code(sftp.lstat, b"/f") == sftp.FX_OK
            # Again, and one after the other: the same workers serve.
            tree.counting.before = Hung("getattr")
            for _ in range(3):
                assert await wire.code(sftp.lstat, b"/f") == sftp.FX_FAILURE
            tree.counting.before = None
            assert await wire.code(sftp.lstat, b"/f") == sftp.FX_OK
            await wire.stream.aclose()
        assert session.failures == 0


async def test_a_session_ends_although_the_file_server_hangs(autojump_clock: MockClock) -> None:
    async with _patiently() as tree:
        before = trio.current_time()
        async with tree.raw() as (wire, _):
            await wire.greet()
            handle = await wire.open(b"/f", BOTH)
            await wire.write(handle, 0, b"data")
            await wire.ask(sftp.opendir, b"/")
            tree.counting.before = Hung("read", "fsync", "inactive")
            await wire.send(sftp.read(1, handle, 0, 10))
            await wait_all_tasks_blocked()
            await wire.stream.aclose()
        assert trio.current_time() - before < 40


async def test_a_long_copy_is_not_hung(autojump_clock: MockClock) -> None:
    async with _patiently() as tree, tree.client(timeout=10.0) as wire:
        await wire.put(b"/f", bytes(2_000_000))
        source, target = await wire.open(b"/f"), await wire.open(b"/g", BOTH)

        async def slow(op: str, args: Any) -> None:
            if op == "read":
                await trio.sleep(8)

        tree.counting.before = slow
        await wire.ask(sftp.copy_data, source, 0, 0, target, 0)
        tree.counting.before = None
        for handle in (source, target):
            await wire.ask(sftp.close, handle)


def _patiently() -> Any:
    return served(seconds=1e6)


async def test_descriptors_that_fail(tree: Served) -> None:
    session = Session(View(tree.export, SELF), 10_000, 10_000)
    await session.serve()
    assert session.cause == "receiving from the client: Bad file descriptor"
