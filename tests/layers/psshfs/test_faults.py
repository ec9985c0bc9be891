"""Data and errors through peers that answer short, late, wrongly, or not in order."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.psshfs import PsshfsOptions, StatusError
from syspuffs.layers.psshfs.wire.errmap import STATUS_TO_ERRNO
from syspuffs.native import sftp
from syspuffs.native.constants import (
    FREAD,
    FSYNC_CLOSE,
    FSYNC_WAIT,
    FWRITE,
    MNT_FORCE,
    MNT_WAIT,
    READDIR_PLUS,
)
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Vattr

from .harness import (
    CRED,
    VERSION,
    attrs,
    look,
    names,
    packet,
    read_file,
    scripted,
    status,
    string,
)
from .test_names import errno_of


class File:
    """A peer with one file; `answer` may replace the answer to a READ or WRITE."""

    def __init__(
        self,
        content: bytes,
        answer: Callable[[int, int, int, int], bytes | None] | None = None,
        *,
        size: int | None = None,
    ) -> None:
        self.content = bytearray(content)
        self.size = size
        self.answer = answer
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.held: list[bytes] = []
        self.is_holding = False

    def __call__(self, kind: int, number: int, body: bytes) -> bytes | None:
        said = self._say(kind, number, body)
        if self.is_holding and said is not None:
            self.held.append(said)
            return None
        return said

    def _say(self, kind: int, number: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_OPEN:
            return packet(sftp.FXP_HANDLE, number, string(b"h"))
        if kind in (sftp.FXP_LSTAT, sftp.FXP_FSTAT):
            size = len(self.content) if self.size is None else self.size
            return packet(sftp.FXP_ATTRS, number, attrs(size=size))
        if kind == sftp.FXP_READ:
            offset, length = struct.unpack_from(">QI", body, 5)
            self.reads.append((offset, length))
            said = self.answer(kind, number, offset, length) if self.answer else None
            if said is not None:
                return said
            data = bytes(self.content[offset : offset + length])
            if not data:
                return status(number, sftp.FX_EOF)
            return packet(sftp.FXP_DATA, number, string(data))
        if kind == sftp.FXP_WRITE:
            offset, length = struct.unpack_from(">QI", body, 5)
            self.writes.append((offset, length))
            said = self.answer(kind, number, offset, length) if self.answer else None
            if said is not None:
                return said
            end = offset + length
            if end > len(self.content):
                self.content.extend(bytes(end - len(self.content)))
            self.content[offset:end] = body[17:]
        return status(number, sftp.FX_OK)


CONTENT = bytes(range(256)) * 1000


@pytest.mark.parametrize("step", [1000, 100_000, 1_000_000])
@pytest.mark.parametrize("timeout", [30 * 10**9, 0])
async def test_short_answers_are_asked_on(step: int, timeout: int) -> None:
    def short(kind: int, number: int, offset: int, length: int) -> bytes | None:
        data = CONTENT[offset : offset + max(1, length // 3)]
        return packet(sftp.FXP_DATA, number, string(data)) if data else None

    file = File(CONTENT, short)
    async with scripted(file, options=PsshfsOptions(cache_timeout_ns=timeout)) as (server, _):
        info = await look(server, b"f")
        assert await read_file(server, info.cookie, step) == CONTENT


async def test_a_read_error_is_no_end_of_file() -> None:
    broken = True

    def fail(kind: int, number: int, offset: int, length: int) -> bytes | None:
        if broken and offset <= 150_000 < offset + length:
            return status(number, sftp.FX_FAILURE)
        return None

    async with scripted(File(CONTENT, fail)) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        for _ in range(2):
            assert bytes(await server.read(info.cookie, 0, 50_000, 0, CRED)) == CONTENT[:50_000]
            for at in (100_000, 140_000, 0):
                reading = server.read(info.cookie, at, 200_000, 0, CRED)
                assert await errno_of(reading) == errno.EIO
        broken = False
        got = await server.read(info.cookie, 100_000, 200_000, 0, CRED)
        assert bytes(got) == CONTENT[100_000:300_000]


async def test_a_file_shorter_than_its_attributes_ends() -> None:
    async with scripted(File(CONTENT, size=10**6)) as (server, _):
        info = await look(server, b"f")
        assert await read_file(server, info.cookie, 50_000) == CONTENT


async def test_a_file_longer_than_its_attributes_is_read_to_its_end() -> None:
    options = PsshfsOptions(cache_timeout_ns=0)
    async with scripted(File(CONTENT, size=0), options=options) as (server, _):
        info = await look(server, b"f")
        assert await read_file(server, info.cookie, 50_000) == CONTENT


@pytest.mark.logs("SFTP connection lost")
@pytest.mark.parametrize("extra", [1, -(10**9)])
async def test_more_data_than_asked_for_or_none_is_a_breach(extra: int) -> None:
    def answer(kind: int, number: int, offset: int, length: int) -> bytes | None:
        return packet(sftp.FXP_DATA, number, string(bytes(max(0, length + extra))))

    async with scripted(File(CONTENT, answer)) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        reading = server.read(info.cookie, 0, 1000, 0, CRED)
        assert await errno_of(reading) == errno.EPROTO


async def test_reads_wait_for_writes_that_overlap() -> None:
    file = File(bytes(100))
    async with scripted(file) as (server, peer):
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD | FWRITE, CRED)
        file.is_holding = True
        await server.write(info.cookie, 10, b"x" * 10, 0, CRED)
        got: list[bytes] = []

        async def read(offset: int, length: int) -> None:
            got.append(bytes(await server.read(info.cookie, offset, length, 0, CRED)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 5, 10)
            nursery.start_soon(read, 50, 10)
            await wait_all_tasks_blocked(0.01)
            assert file.reads == [(50, 10)]
            file.is_holding = False
            await peer.stream.send_all(b"".join(file.held))
        assert sorted(got) == sorted([bytes(10), bytes(5) + b"x" * 5])


async def test_writes_that_overlap_keep_their_order() -> None:
    file = File(b"")
    async with scripted(file) as (server, peer):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        file.is_holding = True
        await server.write(info.cookie, 0, b"a" * 10, 0, CRED)
        await server.write(info.cookie, 10, b"b" * 10, 0, CRED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.write, info.cookie, 5, b"c" * 10, 0, CRED)
            await wait_all_tasks_blocked(0.01)
            assert file.writes == [(0, 10), (10, 10)]
            file.is_holding = False
            await peer.stream.send_all(b"".join(file.held))
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        assert bytes(file.content) == b"a" * 5 + b"c" * 10 + b"b" * 5


async def test_the_window_bounds_what_is_unacknowledged() -> None:
    file = File(b"")
    options = PsshfsOptions(write_behind=100_000)
    async with scripted(file, options=options) as (server, peer):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        file.is_holding = True
        written = 0

        async def writer() -> None:
            nonlocal written
            for at in range(20):
                await server.write(info.cookie, at * 20_000, bytes(20_000), 0, CRED)
                written += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            await wait_all_tasks_blocked(0.01)
            assert written == 5
            while written < 20:
                held, file.held = file.held, []
                await peer.stream.send_all(b"".join(held))
                await wait_all_tasks_blocked(0.01)
        file.is_holding = False
        await peer.stream.send_all(b"".join(file.held))
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        assert len(file.content) == 400_000


def _full(kind: int, number: int, offset: int, length: int) -> bytes | None:
    return status(number, sftp.FX_FAILURE) if offset >= 1000 else None


@pytest.mark.parametrize("flags", [FSYNC_CLOSE, FSYNC_WAIT])
async def test_a_late_write_error_is_told_to_who_asks_once(flags: int) -> None:
    async with scripted(File(b"", _full)) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, bytes(1000), 0, CRED)
        await server.fsync(info.cookie, flags, 0, 0, CRED)
        await server.write(info.cookie, 1000, bytes(1000), 0, CRED)
        assert await errno_of(server.fsync(info.cookie, flags, 0, 0, CRED)) == errno.EIO
        await server.fsync(info.cookie, flags, 0, 0, CRED)
        await server.fsync(info.cookie, flags, 0, 0, CRED)


async def test_a_late_write_error_stops_the_writer_and_is_told_at_close_still() -> None:
    async with scripted(File(b"", _full)) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 1000, bytes(1000), 0, CRED)
        await wait_all_tasks_blocked(0.01)
        writing = server.write(info.cookie, 0, b"x", 0, CRED)
        assert await errno_of(writing) == errno.EIO
        await server.write(info.cookie, 0, b"x", 0, CRED)
        assert await errno_of(server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)) == errno.EIO
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)


async def test_without_write_behind_the_write_itself_fails() -> None:
    options = PsshfsOptions(write_behind=0)
    async with scripted(File(b"", _full), options=options) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        writing = server.write(info.cookie, 1000, bytes(1000), 0, CRED)
        assert await errno_of(writing) == errno.EIO
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)


async def test_without_write_behind_each_writer_hears_of_its_own() -> None:
    options = PsshfsOptions(write_behind=0)
    file = File(b"", _full)
    async with scripted(file, options=options) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        ended: list[tuple[int, int]] = []

        async def write(offset: int) -> None:
            try:
                await server.write(info.cookie, offset, bytes(100), 0, CRED)
                ended.append((offset, 0))
            except VfsError as exc:
                ended.append((offset, exc.errno))

        async with trio.open_nursery() as nursery:
            for offset in (0, 1000, 200, 1200):
                nursery.start_soon(write, offset)
        assert sorted(ended) == [(0, 0), (200, 0), (1000, errno.EIO), (1200, errno.EIO)]
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)


@pytest.mark.logs("not saved")
async def test_unmount_tells_of_a_lost_write() -> None:
    async with scripted(File(b"", _full)) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 1000, bytes(1000), 0, CRED)
        assert await errno_of(server.unmount(0)) == errno.EIO
        await server.unmount(MNT_FORCE)


@pytest.mark.logs("SFTP connection lost")
async def test_a_lost_connection_is_a_lost_write() -> None:
    file = File(b"")
    async with scripted(file) as (server, peer):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        file.is_holding = True
        await server.write(info.cookie, 0, bytes(1000), 0, CRED)
        await wait_all_tasks_blocked(0.01)
        await peer.stream.aclose()
        flushing = server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        assert await errno_of(flushing) == errno.ENOTCONN
        server.close(info.cookie, FWRITE, CRED)


async def test_handles_are_closed_after_the_last_acknowledgement() -> None:
    file = File(b"")
    async with scripted(file) as (server, peer):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        file.is_holding = True
        await server.write(info.cookie, 0, bytes(1000), 0, CRED)
        server.close(info.cookie, FWRITE, CRED)
        await wait_all_tasks_blocked(0.01)
        assert sftp.FXP_CLOSE not in peer.seen
        file.is_holding = False
        await peer.stream.send_all(b"".join(file.held))
        await wait_all_tasks_blocked(0.01)
        assert sftp.FXP_CLOSE in peer.seen


async def test_an_answer_older_than_our_change_is_no_news() -> None:
    file = File(b"12345")
    async with scripted(file) as (server, peer):
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD | FWRITE, CRED)
        await server.forget()
        file.is_holding = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.getattr, info.cookie, CRED)
            await wait_all_tasks_blocked(0.01)
            await server.write(info.cookie, 5, b"67890", 0, CRED)
            await wait_all_tasks_blocked(0.01)
            # The attributes are from before the write, and come after its acknowledgement.
            old, acknowledgement = file.held
            file.held = []
            await peer.stream.send_all(acknowledgement + old)
        file.is_holding = False
        va, _ = await server.getattr(info.cookie, CRED)
        assert va.size == 10
        assert bytes(await server.read(info.cookie, 0, 100, 0, CRED)) == b"1234567890"


async def test_a_truncation_that_a_busy_server_shows_too_late_is_asked_for_again() -> None:
    file = File(b"x" * 100)
    turns = 0

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        nonlocal turns
        if kind == sftp.FXP_SETSTAT:
            turns = 1
            del file.content[10:]
            return status(number, sftp.FX_OK)
        if kind == sftp.FXP_LSTAT and turns == 1:
            turns = 2
            return packet(sftp.FXP_ATTRS, number, attrs(size=100))
        return file(kind, number, body)

    async with scripted(handler) as (server, _):
        info = await look(server, b"f")
        va, _ttl = await server.setattr(info.cookie, Vattr(size=10), CRED)
        assert va.size == 10
        assert turns == 2


async def test_attributes_without_a_type_are_a_regular_files() -> None:
    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        return packet(sftp.FXP_ATTRS, number, struct.pack(">IQ", 1, 42))

    async with scripted(handler) as (server, _):
        info = await look(server, b"f")
        assert (info.vtype, info.size) == (1, 42)
        assert info.va is not None
        assert info.va.mode == 0o600


@pytest.mark.parametrize("code", [*STATUS_TO_ERRNO, 77])
async def test_each_status_is_its_errno(code: int) -> None:
    if code == sftp.FX_NO_SUCH_FILE:
        return  # no error for a lookup

    async with scripted(lambda kind, number, body: status(number, code)) as (server, _):
        if STATUS_TO_ERRNO.get(code) == errno.ENOENT:
            assert (await look(server, b"f")).cookie == 0
        else:
            assert await errno_of(look(server, b"f")) == STATUS_TO_ERRNO.get(code, errno.EPROTO)


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (b"Directory not empty", errno.ENOTEMPTY),
        (b"mkdir /x: file exists", errno.EEXIST),
        (b"No space left on device", errno.ENOSPC),
        (b"Failure", errno.EIO),
        (b"\xff\xfe", errno.EIO),
        (b"", errno.EIO),
    ],
)
def test_what_a_failure_says(message: bytes, number: int) -> None:
    error = StatusError(sftp.FX_FAILURE, message)
    assert error.errno == number
    assert error.is_vague == (number == errno.EIO)
    assert StatusError(sftp.FX_NO_SUCH_FILE, message).errno == errno.ENOENT


@pytest.mark.parametrize(
    ("flag", "free", "number"), [(0, 0, errno.ENOSPC), (1, 10, errno.EROFS), (0, 10, errno.EIO)]
)
async def test_a_failed_write_is_explained_by_the_state_of_the_disk(
    flag: int, free: int, number: int
) -> None:
    file = File(b"", _full)
    extended = VERSION[:9] + string(sftp.EXT_STATVFS) + string(b"2")
    extended = struct.pack(">I", len(extended) - 4) + extended[4:]

    def handler(kind: int, id_: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_EXTENDED:
            state = (4096, 4096, 100, free, free, 100, 50, 50, 1, flag, 255)
            return packet(sftp.FXP_EXTENDED_REPLY, id_, struct.pack(">11Q", *state))
        return file(kind, id_, body)

    async with scripted(handler, version=extended) as (server, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 1000, b"x", 0, CRED)
        assert await errno_of(server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)) == number


async def test_operations_on_dead_cookies_are_stale() -> None:
    async with scripted(File(b"")) as (server, _):
        for operation in (
            server.read(Cookie(7), 0, 1, 0, CRED),
            server.write(Cookie(7), 0, b"x", 0, CRED),
            server.open(Cookie(7), FREAD, CRED),
            server.readlink(Cookie(7), CRED),
        ):
            with pytest.raises(VfsError) as caught:
                await operation
            assert caught.value.errno == errno.ESTALE
        server.close(Cookie(7), FREAD, CRED)
        server.reclaim(Cookie(7), 1)
        assert await server.inactive(Cookie(7)) == 0


@pytest.mark.parametrize("mode", [None, 0o755])
async def test_types_that_only_the_text_of_a_listing_shows(mode: int | None) -> None:
    flags = 1 if mode is None else 5
    short = struct.pack(">IQ", flags, 7) + (b"" if mode is None else struct.pack(">I", mode))
    lines = [(b"d", b"drwxr-xr-x 4 a b 7 Jan 1 d"), (b"f", b"-rw-r--r-- 2 a b 7 Jan 1 f")]
    lines += [(b"l", b"lrwxrwxrwx 1 a b 7 Jan 1 l"), (b"x", b"strange")]
    body = struct.pack(">I", len(lines))
    body += b"".join(string(name) + string(line) + short for name, line in lines)
    answers = [body]

    def handler(kind: int, number: int, said: bytes) -> bytes | None:
        if kind == sftp.FXP_OPENDIR:
            return packet(sftp.FXP_HANDLE, number, string(b"d"))
        if kind == sftp.FXP_READDIR and answers:
            return packet(sftp.FXP_NAME, number, answers.pop())
        if kind == sftp.FXP_READDIR:
            return status(number, sftp.FX_EOF)
        if kind == sftp.FXP_LSTAT:
            return packet(sftp.FXP_ATTRS, number, short)
        return status(number, sftp.FX_OK)

    async with scripted(handler) as (server, peer):
        entries, _ = await server.readdir(server.kargs.root.cookie, 0, 4096, READDIR_PLUS, CRED)
        types = {entry.name: entry.vtype for entry in entries[2:]}
        assert types == {b"d": 2, b"f": 1, b"l": 5, b"x": 1}
        info = entries[3].newinfo
        assert info is not None
        assert info.va is not None
        assert (info.va.nlink, info.va.mode) == (2, 0o600 if mode is None else mode)
        assert peer.seen.count(sftp.FXP_LSTAT) == 1
        # A later answer without a type leaves the type as it was.
        await server.forget()
        directory = entries[2].newinfo
        assert directory is not None
        va, _ = await server.getattr(directory.cookie, CRED)
        assert va.vtype == 2


async def test_a_server_that_trips_over_two_readdirs_at_once_is_asked_one_by_one() -> None:
    rest: list[bytes] = []
    asked = 0

    async def handler(kind: int, number: int, said: bytes) -> bytes | None:
        nonlocal asked
        if kind == sftp.FXP_OPENDIR:
            rest[:] = [b"one", b"two", b"three"]
            return packet(sftp.FXP_HANDLE, number, string(b"d"))
        if kind == sftp.FXP_READDIR:
            asked += 1
            if asked == 1:
                return None  # busy with the first when the second comes
            if asked == 2:
                return status(number - 1, sftp.FX_FAILURE) + status(number, sftp.FX_FAILURE)
            if not rest:
                return status(number, sftp.FX_EOF)
            return packet(sftp.FXP_NAME, number, names((rest.pop(0), attrs())))
        return status(number, sftp.FX_OK)

    async with scripted(handler) as (server, _):
        root = server.kargs.root.cookie
        for _ in range(2):
            entries, is_end = await server.readdir(root, 0, 4096, 0, CRED)
            assert [entry.name for entry in entries[2:]] == [b"one", b"two", b"three"]
            assert is_end
            await server.forget()
        assert asked == 2 + 4 + 4


async def test_a_sync_that_failed_is_made_up_for_by_the_next() -> None:
    """The second file's fsync was on its way when the first one's failed."""
    asked: list[bytes] = []
    file = File(b"")

    def answer(kind: int, number: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_OPEN:
            return packet(sftp.FXP_HANDLE, number, string(b"h"))
        if kind == sftp.FXP_EXTENDED:
            asked.append(body)
            return status(number, sftp.FX_FAILURE if len(asked) <= 2 else sftp.FX_OK)
        return file(kind, number, body)

    version = string(VERSION[4:] + string(sftp.EXT_FSYNC) + string(b"1"))
    async with scripted(answer, version=version) as (server, _):
        cookies = [(await look(server, name)).cookie for name in (b"f", b"g")]
        for cookie in cookies:
            await server.open(cookie, FWRITE, CRED)
            await server.write(cookie, 0, b"data", 0, CRED)
        assert await errno_of(server.sync(MNT_WAIT, CRED)) is not None
        await server.sync(MNT_WAIT, CRED)
        assert len(asked) == 4, "a file that was not synced is taken for one that was"
        await server.sync(MNT_WAIT, CRED)
        assert len(asked) == 4
