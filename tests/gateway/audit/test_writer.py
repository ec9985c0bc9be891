"""The writer of the audit: rotation, a full queue, a disk that is full or slow."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from syspuffs.gateway.audit import AuditSettings, Target, writer
from syspuffs.gateway.audit.writer import LineWriter

from .harness import lines, wait_for


@asynccontextmanager
async def writing(settings: AuditSettings) -> AsyncIterator[LineWriter]:
    made = LineWriter(settings, clock=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_everything_is_written_before_the_end(tmp_path: Path) -> None:
    file = tmp_path / "audit"
    file.write_bytes(b'"before"\n')
    async with writing(AuditSettings(Target.FILE, file)) as made:
        for number in range(1200):
            made.put(b"%d\n" % number)
    assert file.read_bytes() == b'"before"\n' + b"".join(b"%d\n" % n for n in range(1200))
    assert made.statistics() == (1200, 0, 0)


async def test_rotation(tmp_path: Path) -> None:
    file, old = tmp_path / "audit", tmp_path / "audit.1"
    async with writing(AuditSettings(Target.FILE, file)) as made:
        made.put(b"1\n")
        await wait_for(lambda: made.statistics().written == 1)
        file.rename(old)
        made.put(b"2\n")
        await wait_for(lambda: made.statistics().written == 2)
        made.reopen()
        await wait_for(file.exists)
        made.put(b"3\n")
    assert (old.read_bytes(), file.read_bytes()) == (b"1\n2\n", b"3\n")


async def test_a_queue_that_is_full(tmp_path: Path) -> None:
    file = tmp_path / "audit"
    async with writing(AuditSettings(Target.FILE, file, queue_max=3)) as made:
        for number in range(10):
            made.put(b"%d\n" % number)
        assert made.statistics() == (0, 7, 3)
    told = {"time": "1970-01-01T00:00:00.000000Z", "operation": "lost", "lines": 7}
    assert lines(file.read_bytes()) == [0, 1, 2, told]


@pytest.mark.logs("cannot be written to .*: No space|is written again")
async def test_a_disk_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written twice, and nothing in halves, whatever was written of it before."""
    file = tmp_path / "audit"
    monkeypatch.setattr(writer, "_RETRY_SECONDS", 0.01)
    real = os.write
    room = [4, 0]

    def write(fd: int, data: memoryview) -> int:
        if fd < 3 or not room:
            return real(fd, data)
        most = room.pop(0)
        if not most:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:most])

    monkeypatch.setattr(os, "write", write)
    async with writing(AuditSettings(Target.FILE, file)) as made:
        made.put(b'"first"\n')
        made.put(b'"second"\n')
        await wait_for(lambda: made.statistics().written == 2)
    assert file.read_bytes() == b'"first"\n"second"\n'


@pytest.mark.logs("cannot be written to .*: No such file|1 lines of the audit were not written")
async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "audit"
    async with writing(AuditSettings(Target.FILE, file)) as made:
        made.put(b"1\n")
    assert made.statistics() == (0, 0, 1)


@pytest.mark.logs("1 lines of the audit were not written")
async def test_a_disk_that_hangs_holds_nobody_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "audit"
    os.mkfifo(fifo)  # opening it for writing waits for a reader
    monkeypatch.setattr(writer, "END_SECONDS", 0.2)
    with trio.fail_after(5):
        async with writing(AuditSettings(Target.FILE, fifo)) as made:
            made.put(b"1\n")
            await trio.testing.wait_all_tasks_blocked()
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # let the thread go
    await wait_for(lambda: made._fd is not None)
    await wait_for(lambda: not made._batch)
    os.close(made._fd or -1)
    os.close(reader)
