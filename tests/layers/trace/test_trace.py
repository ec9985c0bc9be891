"""trace: what it writes down, what it costs in accuracy when things go wrong, and hostile files."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.operations import BY_NAME, OPERATIONS
from syspuffs.layers.ops import FileServer
from syspuffs.layers.outcomes import digest
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.passing import Passing
from syspuffs.layers.puffs import puffs_over
from syspuffs.layers.trace import (
    CANCELLED,
    UNFINISHED,
    DataKept,
    Event,
    TraceError,
    TraceReader,
    events,
    traced,
)
from syspuffs.native.constants import FREAD, FWRITE, MNT_WAIT, READDIR_PLUS, NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.packed import Files, Page, pack
from syspuffs.native.records import Cookie, Cred, Dirent, Vattr, lookup_cn
from syspuffs.native.sftp_protocol import Attrs

from ..puffs.memserver import MemServer

CRED = Cred(1000, 100, (4, 5), 77)
FILE = Vattr(Vtype.VREG, 0o644)


@asynccontextmanager
async def tree() -> AsyncIterator[FileServer]:
    async with p2k_over(TmpFs(mntfromname=b"none", mode=0o777)) as server:
        yield server
        await server.unmount(0)


async def work(server: FileServer) -> None:
    root = server.kargs.root.cookie
    made = await server.create(root, lookup_cn(b"f", CRED, NameiOp.CREATE), FILE)
    await server.open(made.cookie, FREAD | FWRITE, CRED)
    await server.write(made.cookie, 10, b"some data", 0, CRED)
    assert bytes(await server.read(made.cookie, 0, 100, 0, CRED)) == bytes(10) + b"some data"
    server.close(made.cookie, FREAD | FWRITE, CRED)
    with pytest.raises(VfsError):
        await server.rmdir(root, made.cookie, lookup_cn(b"f", CRED, NameiOp.DELETE))
    await server.readdir(root, 0, 1000, 0, CRED)
    await server.sync(MNT_WAIT, CRED)
    server.reclaim(made.cookie, 1)


NAMES = "create open write read close rmdir readdir sync reclaim".split()


def test_the_table_of_operations_is_whole() -> None:
    declared = {
        name
        for name, value in vars(FileServer).items()
        if callable(value) and not name.startswith("_")
    }
    assert declared - {"attach", "error_note", "names_hold"} == set(BY_NAME)
    passed_on = vars(Passing).keys() & vars(FileServer).keys()
    assert declared <= passed_on, "what Passing does not hand on ends there"
    told = {operation.name for operation in OPERATIONS if not operation.waits}
    assert told == {"close", "abortop", "reclaim"}


@pytest.mark.parametrize("keep", DataKept)
async def test_writes_down_what_happens(tmp_path: Path, keep: DataKept) -> None:
    file = tmp_path / "t"
    async with tree() as below, traced(below, file, keep) as server:
        assert server.kargs.typename == "trace|p2k|tmpfs"
        await work(server)
    found = list(events(file))
    assert [event.name for event in found] == NAMES
    by_name = {event.name: event for event in found}
    assert {event.path for event in found} == {b"/f", b"/", b""}
    assert by_name["sync"].path == b""
    assert by_name["rmdir"].outcome == errno.ENOTDIR
    data = bytes(10) + b"some data"
    expected = {
        DataKept.LENGTH: (9, 19),
        DataKept.DIGEST: ((9, digest(b"some data")), (19, digest(data))),
        DataKept.FULL: (b"some data", data),
    }[keep]
    assert (by_name["write"].args[2], by_name["read"].result) == expected
    assert (by_name["write"].octets, by_name["read"].octets) == (9, 19)
    assert by_name["write"].args[4] == CRED
    starts = [event.start for event in found]
    assert starts == sorted(starts)
    assert all(event.duration > 0 for event in found)


@pytest.mark.parametrize("keep", DataKept)
async def test_long_data_are_those_of_the_moment(tmp_path: Path, keep: DataKept) -> None:
    """Of reads and writes, some of them long and none like another, in a buffer used again."""
    file = tmp_path / "t"
    rng = random.Random(7)
    sizes = [1, 200_000, 70_000, 1_000_000, 131_072, 131_071, 300_000, 2]
    buffer = bytearray(max(sizes))
    moved = []
    async with tree() as below, traced(below, file, keep) as server:
        made = await server.create(
            server.kargs.root.cookie, lookup_cn(b"f", CRED, NameiOp.CREATE), FILE
        )
        for size in sizes:
            buffer[:size] = data = rng.randbytes(size)
            await server.write(made.cookie, 0, memoryview(buffer)[:size], 0, CRED)
            buffer[:size] = bytes(size)
            assert await server.read(made.cookie, 0, size, 0, CRED) == data
            moved += [data, data]
    found = [event for event in events(file) if event.name in ("read", "write")]
    kept = [event.args[2] if event.name == "write" else event.result for event in found]
    as_kept: dict[DataKept, Callable[[bytes], object]] = {
        DataKept.LENGTH: len,
        DataKept.DIGEST: lambda data: (len(data), digest(data)),
        DataKept.FULL: bytes,
    }
    assert kept == [as_kept[keep](data) for data in moved]
    assert [event.args[4] for event in found] == [CRED] * len(moved)


class Paging(Passing):
    """Lists by columns, as psshfs does."""

    name = "paging"

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        attrs = [pack(Attrs(size=size, mode=stat.S_IFREG | 0o644), 1) for size in (5, 6)]
        return Page((), Files([b"a", b"b"], [7, 8], [1, 2], attrs), 10, 20), True


async def test_a_listing_by_columns(tmp_path: Path) -> None:
    file = tmp_path / "t"
    async with tree() as below, traced(Paging(below), file) as server:
        listed = await server.readdir(server.kargs.root.cookie, 0, 1000, READDIR_PLUS, CRED)
    (event,) = events(file)
    entries, is_end = event.result
    assert (list(entries), is_end) == (list(listed[0]), True)
    assert [entry.newinfo.size for entry in entries] == [5, 6]


async def test_what_cannot_be_encoded_is_lost_and_the_operation_is_not(
    tmp_path: Path, log_watch: object
) -> None:
    log_watch.expect("a trace cannot be written")  # type: ignore[attr-defined]
    file = tmp_path / "t"

    class Odd(Passing):
        name = "odd"

        async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
            return object()  # type: ignore[return-value]

    async with tree() as below, traced(Odd(below), file) as server:
        root = server.kargs.root.cookie
        assert type(await server.readlink(root, CRED)) is object
        await server.getattr(root, CRED)
    assert [event.name for event in events(file)] == ["getattr"]
    assert server.recorder.lost == 1


async def test_follows_a_request_through_the_layers(tmp_path: Path) -> None:
    """Above and below `p2k|puffs` it is the same request."""
    file = tmp_path / "t"
    async with (
        tree() as bottom,
        traced(bottom, file) as lower,
        puffs_over(lower) as fs,
        p2k_over(fs) as kernel,
        traced(kernel, file) as upper,
    ):
        await work(upper)
        await upper.unmount(0)
    found = list(events(file))
    below, above = ([e for e in found if e.layer == n] for n in (0, 1))
    ids = {event.id: event for event in above}
    assert {event.info.typename for event in above} == {"trace|p2k|puffs|trace|p2k|tmpfs"}
    for name in ("create", "write", "rmdir", "readdir"):
        made_for = [ids[e.parent].name for e in below if e.name == name and e.parent]
        outcomes = {e.outcome for e in found if e.name == name}
        if name != "rmdir":  # refused by the emulated kernel, which knows it is no directory
            assert name in made_for or name == "write", (name, made_for)
            assert outcomes == {0}
    assert all(event.parent == 0 for event in above)


async def test_what_did_not_end(tmp_path: Path) -> None:
    """Cancelled operations, and some that still wait when the trace ends."""
    file = tmp_path / "t"
    data = bytes(200_000)
    below = MemServer()
    gates = [below.gate(name) for name in ("getattr", "write")]
    root = below.kargs.root.cookie
    async with trio.open_nursery() as nursery:
        async with traced(below, file, DataKept.FULL) as server:
            with trio.move_on_after(0) as scope:
                await server.getattr(root, CRED)
            assert scope.cancelled_caught
            with trio.move_on_after(0) as scope:
                await server.write(root, 0, data, 0, CRED)
            assert scope.cancelled_caught
            nursery.start_soon(server.getattr, root, CRED)
            await trio.testing.wait_all_tasks_blocked()
            scope = trio.CancelScope()
            nursery.start_soon(_write_within, scope, server, root, data)
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        for gate in gates:
            gate.set()
    found = list(events(file))
    assert [event.outcome for event in found] == [CANCELLED, CANCELLED, UNFINISHED, UNFINISHED]
    assert [event.args[2] for event in found if event.name == "write"] == [data, data]


async def _write_within(
    scope: trio.CancelScope, server: FileServer, cookie: Cookie, data: bytes
) -> None:
    with scope:
        await server.write(cookie, 0, data, 0, CRED)


async def test_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "t"

    async def until(names: list[str]) -> None:
        with trio.fail_after(5):
            while [event.name for event in events(file)] != names:
                await trio.sleep(0.01)

    async with tree() as below, traced(below, file) as server:
        await work(server)
        await until(NAMES)
        await server.statvfs()
        assert len(list(events(file))) == len(NAMES)
        await until([*NAMES, "statvfs"])


async def test_a_slow_disk_makes_operations_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be written is limited, the loop goes on meanwhile, and nothing is lost."""
    monkeypatch.setattr("syspuffs.layers.trace.recorder.QUEUE_OCTETS", 8 << 20)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    done = 0
    data = bytes(256 * 1024)

    async def write(server: FileServer, cookie: Cookie) -> None:
        nonlocal done
        for _ in range(100):
            await server.write(cookie, 0, data, 0, CRED)
            done += 1

    taken = bytearray()

    def read_all() -> None:
        with open(reading, "rb") as stream:
            while octets := stream.read(1 << 20):
                taken.extend(octets)

    async with trio.open_nursery() as nursery:
        async with tree() as below, traced(below, pipe, DataKept.FULL) as server:
            made = await below.create(
                below.kargs.root.cookie, lookup_cn(b"f", CRED, NameiOp.CREATE), FILE
            )
            async with trio.open_nursery() as writers:
                writers.start_soon(write, server, made.cookie)
                while not server.recorder.is_full:
                    await trio.lowlevel.checkpoint()
                for _ in range(100):
                    await trio.lowlevel.checkpoint()
                assert 32 <= done <= 40  # 8 MiB of 256 KiB
                nursery.start_soon(trio.to_thread.run_sync, read_all)
    assert done == 100
    assert server.recorder.lost == 0
    found = read(bytes(taken))
    assert [event.args[2] == data for event in found if event.name == "write"] == [True] * 100


async def test_a_full_disk_fails_no_operation(
    tmp_path: Path, log_watch: object, caplog: pytest.LogCaptureFixture
) -> None:
    log_watch.expect("a trace cannot be written")  # type: ignore[attr-defined]
    async with tree() as below, traced(below, Path("/dev/full")) as server:
        await work(server)
        recorder = server.recorder
    assert recorder.lost == len(NAMES) + 1
    assert caplog.text.count("a trace cannot be written") == 1


async def recorded(file: Path) -> bytes:
    async with tree() as below, traced(below, file, DataKept.FULL) as server:
        await work(server)
    return file.read_bytes()


def read(octets: bytes) -> list[Event]:
    return list(TraceReader().feed(octets))


async def test_every_beginning_of_a_file_is_a_trace(tmp_path: Path) -> None:
    octets = await recorded(tmp_path / "t")
    whole = read(octets)
    for end in range(len(octets)):
        assert read(octets[:end]) == []
    one_by_one = TraceReader()
    found = [event for octet in octets for event in one_by_one.feed(bytes([octet]))]
    assert found == whole
    assert one_by_one.pending == 0


async def test_damage_is_noticed(tmp_path: Path) -> None:
    octets = await recorded(tmp_path / "t")
    whole = read(octets)
    rng = random.Random(5)
    for _ in range(1500):
        damaged = bytearray(octets)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            found = read(bytes(damaged))
        except TraceError:
            continue
        assert found in ([], whole)  # a longer length: not whole yet; reserved bits: no harm


async def test_damage_beside_long_data(tmp_path: Path) -> None:
    """All is checked but the long data themselves, whatever is said of where they are."""
    file = tmp_path / "t"
    data = bytes(200_000)
    async with tree() as below, traced(below, file, DataKept.FULL) as server:
        await work(server)
        made = await server.create(
            server.kargs.root.cookie, lookup_cn(b"g", CRED, NameiOp.CREATE), FILE
        )
        await server.write(made.cookie, 0, data, 0, CRED)
        await server.read(made.cookie, 0, len(data), 0, CRED)
    octets = file.read_bytes()
    whole = read(octets)
    assert [event.octets for event in whole].count(len(data)) == 2
    first = octets.index(data)
    second = octets.index(data, first + len(data))
    around = [*range(first), *range(first + len(data), second)]
    around += range(second + len(data), len(octets))
    rng = random.Random(8)
    for _ in range(300):
        damaged = bytearray(octets)
        for place in rng.sample(around, rng.choice((1, 1, 4))):
            damaged[place] ^= 1 << rng.randrange(8)
        try:
            found = read(bytes(damaged))
        except TraceError:
            continue
        assert found == []  # a longer length: not whole yet
    damaged = bytearray(octets)
    damaged[first + 5] = 1
    found = read(bytes(damaged))
    assert len(found) == len(whole)
    assert sum(one != other for one, other in zip(found, whole, strict=True)) == 1


async def test_records_that_make_no_sense(tmp_path: Path) -> None:
    """With right check sums: the values themselves are looked at."""
    from syspuffs.layers.trace.format import encode, encode_records, take_chunks

    octets = await recorded(tmp_path / "t")
    chunks = list(take_chunks(bytearray(octets)))
    head = octets[: 24 + len(chunks[0].body)]
    writer = chunks[0].writer

    def chunk(writer: int, record: tuple[object, ...]) -> bytes:
        return b"".join(encode_records(writer, 1, [encode(record)]))

    good = (15, 1, 0, 5, 5, errno.EIO, (1, CRED), None)
    assert len(read(head + chunk(writer, good))) == 1
    bad: list[tuple[object, ...]] = [
        (99, *good[1:]),
        (-1, *good[1:]),
        (*good[:6], (1,), None),
        (*good[:6], (0, CRED), None),
        (*good[:6], (1 << 63, CRED), None),
        (*good[:6], ("x", CRED), None),
        (*good[:5], 0, (1, CRED), None),
        good[:7],
    ]
    for record in bad:
        with pytest.raises(TraceError):
            read(head + chunk(writer, record))
    with pytest.raises(TraceError):
        read(chunk(writer + 1, good))
    rng = random.Random(6)
    for _ in range(300):
        with pytest.raises(TraceError):
            read(rng.randbytes(rng.randrange(24, 200)))


def test_is_private(tmp_path: Path) -> None:
    async def main() -> None:
        await recorded(tmp_path / "t")

    trio.run(main)
    assert os.stat(tmp_path / "t").st_mode & 0o777 == 0o600
