"""A connection that is cut comes back: open files stay open, and nothing is done twice or lost."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions, mount_psshfs
from syspuffs.layers.psshfs.mount import saving
from syspuffs.layers.psshfs.recovery import link, roaming
from syspuffs.layers.psshfs.ssh.failure import Cause, ConnectError
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FSYNC_WAIT, FWRITE, IO_APPEND, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Vattr, lookup_cn

from .harness import CRED, SFTP_SERVER, list_all, look, make, mkdir, names_of, read_file, root_of
from .test_names import errno_of

pytestmark = pytest.mark.logs(
    "SFTP connection lost",
    "connected again",
    "cannot connect again yet",
    "cannot be opened again",
    "has no name any more",
)

OPTIONS = PsshfsOptions(patience=30.0)


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts come one after the other here, and nobody is spared by pauses."""
    monkeypatch.setattr(link, "PAUSES", (0.0, 0.01, 0.05))


class Line:
    """Connections to sftp-servers, one after the other, that a test may cut.

    Between client and server stands a relay. `mute` has it drop what the server says: then the
    server does what it was asked, and nobody hears of it.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.refuses = False
        self.mute = False
        self.deaf = False
        self._near: socket.socket | None = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[socket.socket]:
        if self.refuses:
            raise ConnectError(Cause.REFUSED, "nobody there")
        self.opened += 1
        self.mute = self.deaf = False
        near, ours = socket.socketpair()
        server, far = socket.socketpair()
        process = subprocess.Popen([SFTP_SERVER], stdin=far.fileno(), stdout=far.fileno())
        far.close()
        self._near = ours
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._relay, ours, server, "deaf")
                nursery.start_soon(self._relay, server, ours, "mute")
                failure: Exception | None = None
                try:
                    yield near
                except Exception as exc:
                    failure = exc
                nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
        finally:
            for end in (near, ours, server):
                end.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(process.wait)

    async def _relay(self, source: socket.socket, sink: socket.socket, flag: str) -> None:
        reader = trio.SocketStream(trio.socket.from_stdlib_socket(source.dup()))
        writer = trio.SocketStream(trio.socket.from_stdlib_socket(sink.dup()))
        async with reader, writer:
            with suppress(trio.BrokenResourceError):
                async for data in reader:
                    if not getattr(self, flag):
                        await writer.send_all(bytes(data))
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Cut the connection; the server gets to finish what it was told."""
        assert self._near is not None
        self._near.shutdown(socket.SHUT_RDWR)

    async def cut_after(self, call: Callable[[], object]) -> None:
        """Have `call` be made by the server, and cut before its answer comes through."""
        self.mute = True
        call()
        await wait_all_tasks_blocked(0.05)
        self.cut()


@asynccontextmanager
async def mounted(
    directory: Path, options: PsshfsOptions = OPTIONS
) -> AsyncIterator[tuple[Psshfs, Line, trio.Nursery]]:
    line = Line()
    async with trio.open_nursery() as nursery:
        async with (
            line.connect() as stream,
            mount_psshfs(stream, os.fsencode(directory), options, opener=line.connect) as server,
        ):
            yield server, line, nursery
        nursery.cancel_scope.cancel()


async def test_questions_wait_and_are_answered(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    async with mounted(tmp_path) as (server, line, _):
        line.cut()
        info = await look(server, b"f")
        assert info.vtype == Vtype.VREG
        line.cut()
        assert names_of(await list_all(server, root_of(server))) == [b"f"]
        assert line.opened == 3
        assert server.connection.losses == 2


async def test_an_open_file_is_read_on(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "f").write_bytes(content)
    async with mounted(tmp_path) as (server, line, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        got = b""
        for turn in range(48):
            if turn % 12 == 5:
                line.cut()
            got += bytes(await server.read(info.cookie, len(got), 65536, 0, CRED))
        assert got == content
        server.close(info.cookie, FREAD, CRED)
        assert not server.connection.handles


async def test_handles_of_two_connections_are_told_apart(tmp_path: Path) -> None:
    """Every connection numbers its handles from 0, and files are closed and opened between."""
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 1000)
    async with mounted(tmp_path) as (server, line, _):
        infos = {name: await look(server, name.encode()) for name in "abc"}
        await server.open(infos["a"].cookie, FREAD, CRED)
        await server.open(infos["b"].cookie, FREAD, CRED)
        server.close(infos["a"].cookie, FREAD, CRED)
        line.cut()
        await server.open(infos["c"].cookie, FREAD, CRED)
        await server.open(infos["a"].cookie, FREAD, CRED)
        for name, info in infos.items():
            data = await server.read(info.cookie, 10, 100, 0, CRED)
            assert bytes(data) == name.encode() * 100
            server.close(info.cookie, FREAD, CRED)
        assert not server.connection.handles


@pytest.mark.parametrize("is_heard", [False, True])
async def test_unacknowledged_writes_are_sent_again(tmp_path: Path, is_heard: bool) -> None:
    content = os.urandom(1 << 17)
    async with mounted(tmp_path) as (server, line, _):
        info = await make(server, b"f", b"begin")
        await server.open(info.cookie, FWRITE, CRED)
        if is_heard:
            line.mute = True
        else:
            line.deaf = True
        for at in range(0, len(content), 16384):
            await server.write(info.cookie, at, content[at : at + 16384], 0, CRED)
        await wait_all_tasks_blocked(0.02)
        assert server.statistics().octets_unacknowledged
        line.cut()
        await server.fsync(info.cookie, FSYNC_CLOSE | FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "f").read_bytes() == content
        server.close(info.cookie, FWRITE, CRED)


async def test_a_write_that_waits_for_its_turn_is_not_missed(tmp_path: Path) -> None:
    """The file is as long as programs know it only when what has not been sent was."""
    async with mounted(tmp_path) as (server, line, _):
        info = await make(server, b"f", b"abc")
        await server.open(info.cookie, FWRITE, CRED)
        file = server.table.node(info.cookie).file
        assert file is not None
        async with trio.open_nursery() as nursery, file.writes.still():
            for at in (3, 6):
                nursery.start_soon(server.write, info.cookie, at, b"def", 0, CRED)
            await wait_all_tasks_blocked()
            line.cut()
            await server.connection.lost.wait()
            await server.connection.resumed.wait()
        await server.fsync(info.cookie, FSYNC_WAIT, 0, 0, CRED)
        assert (tmp_path / "f").read_bytes() == b"abcdefdef"


@pytest.mark.parametrize("is_heard", [False, True])
async def test_an_append_is_made_once(tmp_path: Path, is_heard: bool) -> None:
    async with mounted(tmp_path) as (server, line, _):
        info = await make(server, b"f", b"begin")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, b"-first", IO_APPEND, CRED)
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        for turn in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.write, info.cookie, 0, b"+%d" % turn, IO_APPEND, CRED)
                if is_heard:
                    await line.cut_after(lambda: None)
                else:
                    line.cut()
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        assert (tmp_path / "f").read_bytes() == b"begin-first+0+1+2"


async def test_an_append_beside_another_is_not_written_over(tmp_path: Path) -> None:
    """Another host has appended while we were away: ours must not go over it, and is told."""
    async with mounted(tmp_path) as (server, line, _):
        info = await make(server, b"f", b"begin")
        await server.open(info.cookie, FWRITE, CRED)
        await server.write(info.cookie, 0, b".", IO_APPEND, CRED)
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        file = server.table.node(info.cookie).file
        assert file is not None
        line.deaf = True
        file.is_appended = True
        await server.write(info.cookie, 6, b"ours-ours", 0, CRED)
        with (tmp_path / "f").open("ab") as other:
            other.write(b"theirs")
        await wait_all_tasks_blocked(0.01)
        line.cut()
        assert await errno_of(server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)) == errno.ESTALE
        assert (tmp_path / "f").read_bytes() == b"begin.theirs"


@pytest.mark.parametrize("is_heard", [False, True])
@pytest.mark.parametrize(
    "kind", ["mkdir", "create", "symlink", "link", "remove", "rmdir", "rename"]
)
async def test_a_change_is_made_once(tmp_path: Path, kind: str, is_heard: bool) -> None:
    """Whether the server had made it before the cut or not: it is there, and no error is told."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "dir").mkdir()
    async with mounted(tmp_path) as (server, line, _):
        root = root_of(server)
        file = await look(server, b"file")
        directory = await look(server, b"dir")
        new = lookup_cn(b"new", CRED)
        va = Vattr(mode=0o644, vtype=Vtype.VREG)

        async def change() -> None:
            match kind:
                case "mkdir":
                    await server.mkdir(root, new, Vattr(mode=0o755, vtype=Vtype.VDIR))
                case "create":
                    info = await server.create(root, new, va)
                    await server.open(info.cookie, FWRITE, CRED)
                    await server.write(info.cookie, 0, b"text", 0, CRED)
                    await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
                    server.close(info.cookie, FWRITE, CRED)
                case "symlink":
                    await server.symlink(root, new, Vattr(), b"target")
                case "link":
                    await server.link(root, file.cookie, new)
                case "remove":
                    await server.remove(root, file.cookie, lookup_cn(b"file", CRED))
                case "rmdir":
                    await server.rmdir(root, directory.cookie, lookup_cn(b"dir", CRED))
                case "rename":
                    await server.rename(
                        root, file.cookie, lookup_cn(b"file", CRED), root, None, new
                    )

        async with trio.open_nursery() as nursery:
            line.mute = is_heard
            line.deaf = not is_heard
            nursery.start_soon(change)
            await wait_all_tasks_blocked(0.05)
            if is_heard and kind == "mkdir":
                assert (tmp_path / "new").is_dir()
            line.cut()
        there = sorted(os.listdir(tmp_path))
        match kind:
            case "remove":
                assert there == ["dir"]
            case "rmdir":
                assert there == ["file"]
            case "rename":
                assert there == ["dir", "new"]
                assert (tmp_path / "new").read_bytes() == b"content"
            case _:
                assert there == ["dir", "file", "new"]
        if kind == "create":
            assert (tmp_path / "new").read_bytes() == b"text"
        if kind == "symlink":
            assert os.readlink(tmp_path / "new") == "target"
        assert not server.connection.handles


@pytest.mark.parametrize("kind", ["mkdir", "create"])
async def test_what_was_there_before_is_told(tmp_path: Path, kind: str) -> None:
    async with mounted(tmp_path) as (server, line, _):
        root = root_of(server)
        if kind == "mkdir":
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "in it").mkdir()
        else:
            (tmp_path / "new").write_bytes(b"somebody's")
        new = lookup_cn(b"new", CRED)
        line.mute = True
        errors: list[int] = []

        async def change() -> None:
            call = (
                server.mkdir(root, new, Vattr(mode=0o755, vtype=Vtype.VDIR))
                if kind == "mkdir"
                else server.create(root, new, Vattr(mode=0o644, vtype=Vtype.VREG))
            )
            errors.append(await errno_of(call))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            await wait_all_tasks_blocked(0.05)
            line.cut()
        assert errors == [errno.EEXIST]


@pytest.mark.parametrize("kind", ["replaced", "removed", "fifo", "directory"])
async def test_another_file_is_not_taken_for_ours(tmp_path: Path, kind: str) -> None:
    (tmp_path / "f").write_bytes(b"old" * 100_000)
    async with mounted(tmp_path, replace(OPTIONS, read_ahead=0)) as (server, line, _):
        info = await look(server, b"f")
        await server.open(info.cookie, FREAD, CRED)
        assert bytes(await server.read(info.cookie, 0, 3, 0, CRED)) == b"old"
        line.refuses = True
        line.cut()
        await wait_all_tasks_blocked()
        (tmp_path / "f").unlink()
        if kind == "replaced":
            (tmp_path / "f").write_bytes(b"new" * 100_001)
        elif kind == "fifo":
            os.mkfifo(tmp_path / "f")
        elif kind == "directory":
            (tmp_path / "f").mkdir()
        line.refuses = False
        for offset in (0, 3000):
            error = await errno_of(server.read(info.cookie, offset, 3, 0, CRED))
            assert error == errno.ESTALE
        line.cut()
        assert await errno_of(server.read(info.cookie, 6, 3, 0, CRED)) == errno.ESTALE
        server.close(info.cookie, FREAD, CRED)
        if kind == "replaced":
            again = await look(server, b"f")
            assert await read_file(server, again.cookie) == b"new" * 100_001


@pytest.mark.parametrize(
    "kind", ["grown", "not seen", "rotated", "older", "written", "shorter", "as long"]
)
async def test_a_log_that_grows_is_followed(tmp_path: Path, kind: str) -> None:
    """`tail -f` goes on, where the end that it saw is still there and nothing speaks against it."""
    log = tmp_path / "log"
    log.write_bytes(b"00:01 one\n" * 500)
    os.utime(log, (2000, 2000))
    async with mounted(tmp_path, replace(OPTIONS, read_ahead=0)) as (server, line, _):
        info = await look(server, b"log")
        mode = FREAD | FWRITE if kind == "written" else FREAD
        await server.open(info.cookie, mode, CRED)
        await server.read(info.cookie, 0, 4096, 0, CRED)
        if kind != "not seen":
            assert len(await server.read(info.cookie, 4096, 4096, 0, CRED)) == 904
        line.refuses = True
        line.cut()
        await wait_all_tasks_blocked()
        if kind in ("rotated", "as long"):
            log.rename(tmp_path / "log.1")
            log.write_bytes(b"00:02 two\n" * (501 if kind == "rotated" else 500))
        elif kind == "shorter":
            os.truncate(log, 4000)
        else:
            with log.open("ab") as file:
                file.write(b"00:02 two\n")
        if kind == "older":
            os.utime(log, (1000, 1000))
        line.refuses = False
        if kind == "grown":
            assert bytes(await server.read(info.cookie, 5000, 4096, 0, CRED)) == b"00:02 two\n"
            line.cut()  # and once more, by what was seen now
            assert bytes(await server.read(info.cookie, 4990, 4096, 0, CRED))[10:] == b"00:02 two\n"
        else:
            read = server.read(info.cookie, 5000, 4096, 0, CRED)
            assert await errno_of(read) == errno.ESTALE


async def test_an_open_file_without_a_name_is_lost(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (server, line, _):
        info = await make(server, b"f", b"content")
        await server.open(info.cookie, FREAD, CRED)
        await server.remove(root_of(server), info.cookie, lookup_cn(b"f", CRED))
        line.cut()
        assert await errno_of(server.read(info.cookie, 0, 3, 0, CRED)) == errno.ESTALE


async def test_a_file_is_followed_to_its_new_name(tmp_path: Path) -> None:
    """A rename whose answer is lost, of a file with unacknowledged writes."""
    async with mounted(tmp_path) as (server, line, nursery):
        root = root_of(server)
        info = await make(server, b"f", b"12345")
        await server.open(info.cookie, FWRITE, CRED)
        line.mute = True
        await server.write(info.cookie, 5, b"67890", 0, CRED)
        nursery.start_soon(
            server.rename,
            root,
            info.cookie,
            lookup_cn(b"f", CRED),
            root,
            None,
            lookup_cn(b"g", CRED),
        )
        await wait_all_tasks_blocked(0.05)
        line.cut()
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        await server.write(info.cookie, 10, b"abc", 0, CRED)
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)
        assert (tmp_path / "g").read_bytes() == b"1234567890abc"
        server.close(info.cookie, FWRITE, CRED)


async def test_patience_ends(tmp_path: Path) -> None:
    options = replace(OPTIONS, patience=0.3)
    async with mounted(tmp_path, options) as (server, line, _):
        line.refuses = True
        line.cut()
        start = trio.current_time()
        assert await errno_of(look(server, b"f")) == errno.ETIMEDOUT
        assert 0.2 < trio.current_time() - start < 1.5
        assert await errno_of(look(server, b"f")) == errno.ETIMEDOUT
        found = server.statistics().connection
        assert (found.is_up, found.losses, bool(found.loss)) == (False, 1, True)
        line.refuses = False
        await server.connection.resumed.wait()
        assert server.statistics().connection.is_up
        await mkdir(server, b"new")
        assert (tmp_path / "new").is_dir()


async def test_no_patience_at_all(tmp_path: Path) -> None:
    async with mounted(tmp_path, replace(OPTIONS, patience=0.0)) as (server, line, _):
        line.refuses = True
        info = await make(server, b"f", b"12345")
        await server.open(info.cookie, FWRITE, CRED)
        line.deaf = True
        await server.write(info.cookie, 5, b"67890", 0, CRED)
        await wait_all_tasks_blocked(0.01)
        line.cut()
        assert await errno_of(look(server, b"g")) == errno.EIO
        assert await errno_of(server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)) == errno.EIO
        await server.fsync(info.cookie, FSYNC_CLOSE, 0, 0, CRED)  # told once
        assert (tmp_path / "f").read_bytes() == b"12345"


async def test_silence_ends_a_connection_and_not_the_request(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    options = replace(OPTIONS, request_timeout=0.3)
    async with mounted(tmp_path, options) as (server, line, nursery):
        line.deaf = True

        async def hear() -> None:
            await server.connection.lost.wait()
            line.deaf = False

        nursery.start_soon(hear)
        assert (await look(server, b"f")).vtype == Vtype.VREG
        assert line.opened == 2


async def test_a_connection_is_tried_when_the_machine_wakes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been given up by the other side, and nobody was awake to hear it."""
    slept = [0]
    monkeypatch.setattr(link, "Roaming", partial(roaming.Roaming, slept=lambda: slept[0]))
    monkeypatch.setattr(roaming, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(link, "PROBE", 0.1)
    (tmp_path / "f").write_text("contents")
    async with mounted(tmp_path) as (server, line, _):
        slept[0] += 3600 * 10**9
        with trio.move_on_after(0.5):
            await server.connection.lost.wait()
        assert server.connection.losses == 0, "it was well"
        line.mute = True
        slept[0] += 3600 * 10**9
        with trio.fail_after(5):
            await server.connection.lost.wait()
        assert (await look(server, b"f")).size == 8
        assert line.opened == 2


@pytest.mark.logs("not saved")
@pytest.mark.parametrize("is_heard", [True, False])
async def test_an_unmount_waits_while_there_is_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_heard: bool
) -> None:
    """A slow server gets all the time that it needs, and one that says nothing gets 45 s."""
    monkeypatch.setattr(saving, "STALL_MAX", 0.6)
    monkeypatch.setattr(saving, "_LOOK_EVERY", 0.05)
    told: list[saving.Unsaved] = []
    async with mounted(tmp_path) as (server, line, nursery):
        monkeypatch.setattr(server, "_tell_unsaved", told.append)
        info = await make(server, b"f")
        await server.open(info.cookie, FWRITE, CRED)
        line.deaf = True
        line.cut()
        line.refuses = True
        for at in range(0, 50, 10):
            await server.write(info.cookie, at, bytes(10), 0, CRED)
        writes = server.table.node(info.cookie).file
        assert writes is not None

        async def answer() -> None:
            for slot in list(server.connection.retained):
                await trio.sleep(0.2)
                server.connection.retained.pop(slot)
                slot.complete(None)

        if is_heard:
            nursery.start_soon(answer)
            await server.unmount(0)
        else:
            assert await errno_of(server.unmount(0)) == errno.ETIMEDOUT
        assert told[0] == (1, 50)
        assert told[-1] == (0, 0)


async def test_the_root_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    """A file system of the server that is not mounted yet is no empty directory."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_bytes(b"x")
    async with mounted(root) as (server, line, nursery):
        root.rename(tmp_path / "away")
        line.cut()
        await server.connection.lost.wait()

        async def bring_back() -> None:
            while line.opened < 2:
                await trio.lowlevel.checkpoint()
            (tmp_path / "away").rename(root)

        nursery.start_soon(bring_back)
        assert (await look(server, b"f")).vtype == Vtype.VREG


async def test_without_an_opener_a_loss_is_the_end(tmp_path: Path) -> None:
    line = Line()
    (tmp_path / "f").touch()
    async with line.connect() as stream, mount_psshfs(stream, os.fsencode(tmp_path)) as server:
        await look(server, b"f")  # remembered, and so is what else there is
        await list_all(server, root_of(server))
        line.cut()
        assert re.search("closed|Broken pipe", await server.wait_broken())
        await wait_all_tasks_blocked()
        for name in (b"f", b"g"):
            with pytest.raises(VfsError) as caught:
                await look(server, name)
            assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(VfsError) as caught:
            await list_all(server, root_of(server))
        assert caught.value.errno == errno.ENOTCONN
