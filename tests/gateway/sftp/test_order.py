"""Requests that are sent without waiting for answers: the answers are as if each had waited.

The file server below is slow, so that requests overlap; what is compared is what a session over a
fast one answers, which does one at a time.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp.nodes import Node
from syspuffs.gateway.sftp.order import (
    ALL,
    ALTER,
    LOOK,
    SYNC,
    TOUCH,
    At,
    Name,
    Part,
    Traffic,
    do_clash,
)
from syspuffs.gateway.sftp.turns import Opened
from syspuffs.native import sftp
from syspuffs.native.constants import Vtype
from syspuffs.native.records import Cookie

from .harness import BOTH, MAKE, Served, Wire, code_of, decoded, served


class Slow:
    """Makes operations take a random number of turns of the scheduler."""

    def __init__(self, seed: int, most: int = 12) -> None:
        self._random = random.Random(seed)
        self._most = most

    async def __call__(self, op: str, args: tuple[Any, ...]) -> None:
        for _ in range(self._random.randrange(self._most)):
            await trio.lowlevel.checkpoint()


class Gate:
    """Holds operations of some names until it is opened."""

    def __init__(self, *ops: str) -> None:
        self.ops = ops
        self.held: list[str] = []
        self._opened = trio.Event()

    async def __call__(self, op: str, args: tuple[Any, ...]) -> None:
        if op in self.ops:
            self.held.append(op)
            await self._opened.wait()

    def open(self) -> None:
        self._opened.set()


async def overlap(wire: Wire, *packets: bytes) -> list[tuple[int, bytes]]:
    """Send packets all at once, with ids from 0 on; return their answers in that order."""
    await wire.send(*packets)
    replies = await wire.replies(len(packets))
    return [replies[number] for number in range(len(packets))]


async def test_write_write_close_and_stat(tree: Served) -> None:
    """What a client may send in one go after it has opened a file."""
    async with tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        tree.counting.before = Slow(1)
        answers = await overlap(
            wire,
            sftp.write(0, handle, 0, 4) + b"abcd",
            sftp.write(1, handle, 2, 4) + b"efgh",
            sftp.close(2, handle),
            sftp.stat(3, b"/f"),
            sftp.lstat(4, b"/f"),
            sftp.read(5, handle, 0, 10),
        )
        assert [code_of(*answer) for answer in answers[:3]] == [0, 0, 0]
        assert decoded(*answers[3]).size == decoded(*answers[4]).size == 6
        assert code_of(*answers[5]) == sftp.FX_FAILURE  # the handle is closed
        tree.counting.before = None
        assert await wire.get(b"/f") == b"abefgh"


async def test_open_then_remove_then_make_anew(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.put(b"/f", b"old")
        tree.counting.before = Slow(2)
        answers = await overlap(
            wire,
            sftp.open_(0, b"/f", sftp.FXF_READ),
            sftp.remove(1, b"/f"),
            sftp.stat(2, b"/f"),
            sftp.open_(3, b"/f", MAKE),
            sftp.stat(4, b"/f"),
            sftp.rename(5, b"/f", b"/g"),
            sftp.lstat(6, b"/f"),
            sftp.lstat(7, b"/g"),
        )
        assert [code_of(*a) for a in answers] == [0, 0, 2, 0, 0, 0, 2, 0]
        old, new = decoded(*answers[0]), decoded(*answers[3])
        assert await wire.read(old, 0, 10) == b"old"
        assert await wire.code(sftp.fstat, new) == 0
        for handle in (old, new):
            await wire.ask(sftp.close, handle)


async def test_a_directory_that_is_renamed_under_what_follows(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        await wire.put(b"/d/f", b"")
        for seed in range(10):
            tree.counting.before = Slow(seed)
            answers = await overlap(
                wire,
                sftp.posix_rename(0, b"/d", b"/e"),
                sftp.lstat(1, b"/d/f"),
                sftp.mkdir(2, b"/d"),
                sftp.mkdir(3, b"/d/x"),
                sftp.lstat(4, b"/e/f"),
                sftp.rmdir(5, b"/d/x"),
                sftp.rmdir(6, b"/d"),
                sftp.mkdir(7, b"/d/y"),
                sftp.posix_rename(8, b"/e", b"/d"),
                sftp.lstat(9, b"/d/f"),
            )
            assert [code_of(*a) for a in answers] == [0, 2, 0, 0, 0, 0, 0, 2, 0, 0]


async def test_reads_overlap_and_come_as_they_are_done(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.put(b"/f", bytes(1000))
        handle = await wire.open(b"/f")
        gate = tree.counting.before = Gate("read")
        await wire.send(*(sftp.read(number, handle, number, 10) for number in range(20)))
        await wire.send(sftp.lstat(99, b"/f"))
        assert (await wire.reply())[1] == 99
        assert len(gate.held) == 20
        gate.open()
        assert set(await wire.replies(20)) == set(range(20))
        await wire.ask(sftp.close, handle)


async def test_writes_that_do_not_overlap_run_side_by_side(tree: Served) -> None:
    async with tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        gate = tree.counting.before = Gate("write")
        packets = [sftp.write(n, handle, n * 10, 10) + b"%d" % n * 10 for n in range(8)]
        await wire.send(*packets, sftp.write(8, handle, 35, 10) + b"x" * 10)
        await wire.send(sftp.read(9, handle, 0, 10), sftp.read(10, handle, 75, 10))
        await wait_all_tasks_blocked()
        assert gate.held == ["write"] * 8  # the ninth overlaps two of them
        gate.open()
        replies = await wire.replies(11)
        assert decoded(*replies[9]) == b"0" * 10
        assert await wire.read(handle, 30, 20) == b"3" * 5 + b"x" * 10 + b"4" * 5
        await wire.ask(sftp.close, handle)


async def test_appended_data_keep_their_order(tree: Served) -> None:
    async with tree.client() as wire:
        handle = await wire.open(b"/f", MAKE | sftp.FXF_APPEND)
        tree.counting.before = Slow(5)
        await overlap(wire, *(sftp.write(n, handle, 0, 1) + b"%x" % n for n in range(16)))
        tree.counting.before = None
        await wire.ask(sftp.close, handle)
        assert await wire.get(b"/f") == b"0123456789abcdef"


async def test_files_are_made_side_by_side(tree: Served) -> None:
    """What our own psshfs sends for each file: OPEN to make it, and LSTAT behind that."""
    async with tree.client() as wire:
        await wire.ask(sftp.mkdir, b"/d")
        await wire.put(b"/d/x", b"")
        gate = tree.counting.before = Gate("create", "mkdir", "remove")
        packets = []
        for number in range(10):
            path = b"/d/%d" % number
            flags = BOTH | sftp.FXF_EXCL
            packets += [sftp.open_(2 * number, path, flags), sftp.lstat(2 * number + 1, path)]
        await wire.send(*packets, sftp.mkdir(20, b"/d/sub"), sftp.remove(21, b"/d/x"))
        await wait_all_tasks_blocked()
        assert sorted(gate.held) == ["create"] * 10 + ["mkdir", "remove"]
        # A name in the directory is one thing, the directory and all of it another.
        await wire.send(sftp.lstat(22, b"/d"), sftp.rmdir(23, b"/d"), sftp.lstat(24, b"/d/none"))
        await wait_all_tasks_blocked()
        assert len(gate.held) == 12
        gate.open()
        replies = await wire.replies(25)
        assert [code_of(*replies[n]) for n in range(25)] == [0] * 23 + [4, 2]
        for number in range(10):
            await wire.ask(sftp.close, decoded(*replies[2 * number]))


async def test_uploads_run_side_by_side(tree: Served) -> None:
    """OPEN of one file does not wait for the data of another, once it is known which it is."""
    async with tree.client() as wire:
        handle = await wire.open(b"/a", BOTH)
        gate = tree.counting.before = Gate("write", "create")
        await wire.send(
            sftp.write(0, handle, 0, 1) + b"x",
            sftp.open_(1, b"/b", MAKE | sftp.FXF_EXCL),
            sftp.open_(2, b"/c", MAKE | sftp.FXF_EXCL),
        )
        await wait_all_tasks_blocked()
        assert sorted(gate.held) == ["create", "create", "write"]
        gate.open()
        replies = await wire.replies(3)
        for opened in (handle, decoded(*replies[1]), decoded(*replies[2])):
            await wire.ask(sftp.close, opened)


async def test_a_sync_waits_for_what_was_written_before_and_holds_nothing_up(
    tree: Served,
) -> None:
    async with tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        gate = tree.counting.before = Gate("write")
        await wire.send(sftp.write(0, handle, 0, 1) + b"x", sftp.fsync(1, handle))
        await wait_all_tasks_blocked()
        assert "fsync" not in tree.counting.calls
        gate.open()
        await wire.replies(2)
        gate = tree.counting.before = Gate("fsync")
        await wire.send(sftp.fsync(2, handle), sftp.write(3, handle, 0, 1) + b"y")
        assert (await wire.reply())[1] == 3
        gate.open()
        await wire.replies(1)
        await wire.ask(sftp.close, handle)


async def test_a_link_in_the_last_place_is_waited_for(tree: Served) -> None:
    """A path that goes on by a link meets what its name does not show."""
    async with tree.client() as wire:
        await wire.put(b"/target", b"")
        await wire.ask(sftp.symlink, b"target", b"/link")
        gate = tree.counting.before = Gate("remove")
        await wire.send(sftp.remove(0, b"/target"), sftp.stat(1, b"/link"), sftp.lstat(2, b"/link"))
        assert (await wire.reply())[1] == 2  # shows the link itself
        await wait_all_tasks_blocked()
        gate.open()
        replies = await wire.replies(2)
        assert code_of(*replies[1]) == sftp.FX_NO_SUCH_FILE


@pytest.mark.parametrize("seed", range(8))
async def test_answers_through_one_handle_leave_in_order(tree: Served, seed: int) -> None:
    """OpenSSH's scp cuts off what was answered out of order, and reports success."""
    async with tree.client() as wire:
        one, other = await wire.open(b"/f", BOTH), await wire.open(b"/g", BOTH)
        tree.counting.before = Slow(seed)
        count = 20
        packets = []
        for number in range(count):
            handle = other if number % 5 == 4 else one
            if number % 3 == 2:
                packets.append(sftp.read(number, handle, number * 4, 4))
            else:
                packets.append(sftp.write(number, handle, number * 4, 4) + b"data")
        await wire.send(*packets)
        order = list(await wire.replies(count))
        for rest in ({4, 9, 14, 19}, set(range(count)) - {4, 9, 14, 19}):
            mine = [number for number in order if number in rest]
            assert mine == sorted(mine)
        tree.counting.before = None


async def test_readdirs_of_one_handle_keep_their_order(tree: Served) -> None:
    async with tree.client() as wire:
        for number in range(900):
            await wire.put(b"/%03d" % number, b"")
        handle = await wire.ask(sftp.opendir, b"/")
        tree.counting.before = Slow(3)
        answers = await overlap(wire, *(sftp.readdir(n, handle) for n in range(8)))
        kinds = [kind for kind, _ in answers]
        assert kinds == sorted(kinds, reverse=True)  # names, then the end
        names = [
            e.name for kind, body in answers if kind == sftp.FXP_NAME for e in decoded(kind, body)
        ]
        assert len(names) == len(set(names)) == 902
        tree.counting.before = None
        await wire.ask(sftp.close, handle)


# As if one at a time, with requests at random.

_NAMES = (b"/a", b"/b", b"/d", b"/d/a", b"/d/b", b"/e", b"/e/a", b"/l", b"/l/a", b"/m", b"/d/../a")


class Script:
    """Requests at random on few names and handles, so that they meet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def requests(self, handles: list[bytes], count: int) -> list[bytes]:
        return [self._one(number, handles) for number in range(count)]

    def _one(self, id: int, handles: list[bytes]) -> bytes:
        rng = self.random
        path, other = rng.choice(_NAMES), rng.choice(_NAMES)
        handle, offset = rng.choice(handles), rng.randrange(8)
        data = bytes(rng.choices(b"abcdefgh", k=rng.randrange(1, 6)))
        return rng.choice(
            (
                lambda: sftp.stat(id, path),
                lambda: sftp.lstat(id, path),
                lambda: sftp.lstat(id, other),
                lambda: sftp.mkdir(id, path),
                lambda: sftp.rmdir(id, path),
                lambda: sftp.remove(id, path),
                lambda: sftp.rename(id, path, other),
                lambda: sftp.posix_rename(id, path, other),
                lambda: sftp.hardlink(id, path, other),
                lambda: sftp.symlink(id, rng.choice((b"d", b"a", b"/e", b"../d")), path),
                lambda: sftp.readlink(id, path),
                lambda: sftp.realpath(id, path),
                lambda: sftp.setstat(id, path, sftp.Attrs(size=offset)),
                lambda: sftp.setstat(id, path, sftp.Attrs(mode=0o700 | offset)),
                lambda: sftp.write(id, handle, offset, len(data)) + data,
                lambda: sftp.write(id, handle, offset, len(data)) + data,
                lambda: sftp.read(id, handle, offset, 6),
                lambda: sftp.read(id, handle, 0, 20),
                lambda: sftp.fstat(id, handle),
                lambda: sftp.fsetstat(id, handle, sftp.Attrs(size=offset)),
                lambda: sftp.fsync(id, handle),
                lambda: sftp.copy_data(id, handles[0], 0, 0, handles[1], offset),
            )
        )()


async def _answers(seed: int, slow: bool) -> list[Any]:
    """Return what a session answers to the script of a seed, and what the tree then looks like."""
    async with served(TmpFs(mode=0o755)) as tree, tree.client() as wire:
        for path in (b"/d", b"/e"):
            await wire.ask(sftp.mkdir, path)
        for path in (b"/a", b"/b", b"/d/a"):
            await wire.put(path, path * 2)
        await wire.ask(sftp.symlink, b"d", b"/l")
        handles = [await wire.open(path, BOTH) for path in (b"/a", b"/b", b"/d/a")]
        handles.append(await wire.open(b"/b", BOTH | sftp.FXF_APPEND))
        if slow:
            tree.counting.before = Slow(seed)
            tree.counting.after = Slow(seed + 1, 4)
        packets = Script(seed).requests(handles, 60)
        answers = await overlap(wire, *packets)
        tree.counting.before = tree.counting.after = None
        if slow:
            assert tree.counting.in_flight_max > 1
        seen: list[Any] = [_shown(kind, body) for kind, body in answers]
        for handle in handles:
            await wire.ask(sftp.close, handle)
        todo = [b"/"]
        while todo:
            path = todo.pop()
            for entry in sorted(await wire.entries(path)):
                below = path.rstrip(b"/") + b"/" + entry.name
                seen.append((below, entry.attrs.mode, entry.attrs.size))
                if entry.name in (b".", b".."):
                    continue
                kind = (entry.attrs.mode or 0) & 0o170000
                if kind == 0o040000:
                    todo.append(below)
                elif kind == 0o100000:
                    seen.append(await wire.get(below))
        return seen


def _shown(kind: int, body: bytes) -> Any:
    """Return what an answer says, without the times, and without zeros at the end of data.

    A READ and a WRITE that do not overlap may change places, as the draft says; where the WRITE
    lies beyond the end of the file, the READ then shows zeros before it or does not.
    """
    if kind == sftp.FXP_ATTRS:
        return decoded(kind, body)._replace(atime=0, mtime=0)
    if kind == sftp.FXP_DATA:
        return bytes(decoded(kind, body)).rstrip(b"\0")
    if kind == sftp.FXP_STATUS and sftp.decode_status(body)[0] == sftp.FX_EOF:
        return b""
    if kind == sftp.FXP_STATUS:
        return sftp.decode_status(body)
    return decoded(kind, body)


@pytest.mark.parametrize("seed", range(25))
async def test_answers_are_those_of_one_at_a_time(seed: int) -> None:
    assert await _answers(seed, slow=True) == await _answers(seed, slow=False)


# The parts, without any session.


def test_which_parts_clash() -> None:
    top, sub, file = (
        Node(Cookie(1), Vtype.VDIR),
        Node(Cookie(2), Vtype.VDIR),
        Node(Cookie(3), Vtype.VREG),
    )
    sub.place = top, b"sub"
    handle = Opened(file)
    clashing = (
        (Part(ALL, LOOK), Part(file, ALTER)),
        (Part(ALL, ALTER), Part(Name(top, b"x"), LOOK)),
        (Part(file, LOOK, 0, 10), Part(file, ALTER, 9, 11)),
        (Part(file, ALTER), Part(file, SYNC)),
        (Part(top, TOUCH), Part(top, LOOK)),
        (Part(Name(top, b"x"), ALTER), Part(Name(top, b"x"), ALTER)),
        (Part(At(top, b"x"), LOOK), Part(file, ALTER)),  # any name may lead to a file
        (Part(At(top, b"sub"), LOOK), Part(sub, TOUCH)),
        (Part(handle, ALTER), Part(handle, LOOK)),
    )
    free = (
        (Part(ALL, LOOK), Part(ALL, LOOK)),
        (Part(ALL, ALTER), Part(handle, LOOK)),
        (Part(file, LOOK, 0, 10), Part(file, ALTER, 10, 11)),
        (Part(file, SYNC), Part(file, ALTER)),
        (Part(top, TOUCH), Part(top, TOUCH)),
        (Part(top, TOUCH), Part(sub, LOOK)),
        (Part(Name(top, b"x"), ALTER), Part(Name(top, b"y"), ALTER)),
        (Part(Name(top, b"x"), ALTER), Part(Name(sub, b"x"), ALTER)),
        (Part(Name(top, b"x"), ALTER), Part(file, ALTER)),
        (Part(Name(top, b"x"), LOOK), Part(At(top, b"x"), ALTER)),
        (Part(At(top, b"x"), LOOK), Part(sub, TOUCH)),
        (Part(At(sub, b"sub"), LOOK), Part(sub, TOUCH)),
    )
    for one, other in clashing:
        assert do_clash([one], [other]), (one, other)
    for one, other in free:
        assert not do_clash([one], [other]), (one, other)


async def test_claims_wait_for_earlier_ones_only() -> None:
    node = Node(Cookie(1), Vtype.VREG)
    looks, alters = (Part(node, LOOK),), (Part(node, ALTER),)
    traffic = Traffic()
    first = traffic.enter(alters, alters, alters)
    second = traffic.enter(looks, looks, looks)
    third = traffic.enter(alters, alters, alters)
    assert (first.is_free, second.is_free, third.is_free) == (True, False, False)
    first.hold(looks)
    assert second.is_free
    assert not third.is_free
    traffic.leave(second)
    assert not third.is_free
    traffic.leave(first)
    assert third.is_free
    with trio.fail_after(1):
        await third.wait()
    traffic.leave(third)
    assert not len(traffic)
