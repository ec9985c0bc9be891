"""The host's end asked by messages as Linux sends them, over a socket in the device's place."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.gateway.host import interrupts
from syspuffs.gateway.host import service as service_module
from syspuffs.gateway.host.device import Device
from syspuffs.gateway.host.handlers import FuseEnd
from syspuffs.gateway.host.interrupts import is_to_end
from syspuffs.gateway.words.options import HostOptions
from syspuffs.native import fuse_replies, fuse_requests
from syspuffs.native.constants import F_FLOCK, VnOp
from syspuffs.native.errors import VfsError
from syspuffs.native.fuse_protocol import LK_FLOCK, MINOR, FopenFlag, InitFlag, Lock
from syspuffs.native.records import Cookie, Cred, Flock, Kargs

from ...layers.puffs.memserver import MemServer
from ...support.mounts import wait_until

NOBODY = Cred(os.getuid(), os.getgid(), (), 0)
"""Who cannot be looked at, as one in another name space of processes: any interrupt counts."""
PATIENT = NOBODY._replace(pid=os.getpid())
"""Who has no signal that would end it."""


class FailingServer(MemServer):
    """`errors` are raised once each, by name of the operation."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, Exception] = {}

    @property
    def kargs(self) -> Kargs:
        kargs = super().kargs
        return kargs._replace(ops=kargs.ops - {VnOp.ADVLOCK})

    async def _enter(self, name: str) -> None:
        await super()._enter(name)
        if name in self.errors:
            raise self.errors.pop(name)


class Kernel:
    """The kernel's side: requests go out, replies come in, by number."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._unique = 2
        self._replies: dict[int, tuple[int, bytes]] = {}

    async def send(
        self, make: Callable[..., bytes], nodeid: int, *args: Any, cred: Cred = NOBODY
    ) -> int:
        """Send a request; return its number."""
        self._unique += 2
        data = args[-1] if args and isinstance(args[-1], memoryview) else b""
        args = args[:-1] if isinstance(data, memoryview) else args
        message = make(self._unique, nodeid, cred, *args)
        await self._sock.send(message + bytes(data))
        return self._unique

    async def reply(self, unique: int) -> tuple[int, bytes]:
        """Return errno and body of the reply to a request."""
        while unique not in self._replies:
            with trio.fail_after(5):
                message = await self._sock.recv(2 << 20)
            error, number = fuse_replies.header(message[:16], len(message))
            self._replies[number] = -error, message[16:]
        return self._replies.pop(unique)

    async def ask(
        self, make: Callable[..., bytes], nodeid: int, *args: Any, cred: Cred = NOBODY
    ) -> tuple[int, bytes]:
        return await self.reply(await self.send(make, nodeid, *args, cred=cred))

    async def tell(self, make: Callable[..., bytes], nodeid: int, *args: Any) -> None:
        """Send what has no reply, and see that it has been taken."""
        await self.send(make, nodeid, *args)
        await self.ask(fuse_requests.statfs, 1)

    def hang_up(self) -> None:
        self._sock.close()

    async def lookup(self, name: bytes) -> int:
        error, body = await self.ask(fuse_requests.lookup, 1, name)
        assert not error
        return fuse_replies.entry(body).nodeid

    async def make(self, name: bytes, flags: int = os.O_RDWR) -> tuple[int, int]:
        """Make a file; return its node and the handle of it open."""
        error, body = await self.ask(fuse_requests.create, 1, name, flags, 0o644, 0)
        assert not error
        entry, opened = fuse_replies.created(body)
        return entry.nodeid, opened.fh


class Mount:
    def __init__(self, server: FailingServer, end: FuseEnd, kernel: Kernel) -> None:
        self.server = server
        self.end = end
        self.kernel = kernel


@asynccontextmanager
async def mounted(
    options: HostOptions = HostOptions(),  # noqa: B008
    server: FailingServer | None = None,
) -> AsyncIterator[Mount]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device = Device(theirs.detach())
    server = server or FailingServer()
    end = FuseEnd(server, options, device)
    with trio.socket.from_stdlib_socket(ours) as sock:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end.service.run)
                yield Mount(server, end, Kernel(sock))
                end.service.stop()
        finally:
            device.close()
    assert not end.service.waiting
    assert not end.service.workers


async def test_a_version_and_sizes_are_agreed_on() -> None:
    async with mounted() as mount:
        flags = 0xFFFFFFFF
        error, body = await mount.kernel.ask(fuse_requests.init, 0, 7, 99, 131072, flags)
        got = fuse_replies.init(body)
    assert not error
    assert (got.major, got.minor, got.max_readahead) == (7, MINOR, 131072)
    assert got.max_write == got.max_pages * os.sysconf("SC_PAGESIZE") == 1 << 20
    assert got.flags & InitFlag.PARALLEL_DIROPS
    assert not got.flags & (InitFlag.POSIX_LOCKS | InitFlag.NO_OPEN_SUPPORT | InitFlag.POSIX_ACL)


class LockingServer(FailingServer):
    """Has one lock of each kind, which is never free; notes what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.locks: list[tuple[int, int, Flock, int]] = []

    @property
    def kargs(self) -> Kargs:
        return super().kargs._replace(ops=frozenset(VnOp))

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        self.locks.append((owner, op, flock, flags))
        if op == fcntl.F_SETLKW:
            await trio.sleep_forever()
        return flock


async def test_who_waits_for_a_lock_keeps_nobody_out() -> None:
    """More wait than requests may; the others go on, and a signal ends a wait, and only that."""
    wish = Lock(0, 2**63 - 1, fcntl.F_WRLCK, 1)
    async with mounted(server=LockingServer()) as mount:
        kernel = mount.kernel
        _, body = await kernel.ask(fuse_requests.init, 0, 7, 45, 65536, 0xFFFFFFFF)
        both = InitFlag.POSIX_LOCKS | InitFlag.FLOCK_LOCKS
        assert fuse_replies.init(body).flags & both == both
        _, body = await kernel.ask(fuse_requests.create, 1, b"f", os.O_RDWR, 0o100644, 0)
        entry, opened = fuse_replies.created(body)
        fh, many = opened.fh, service_module.WAITING_MAX + 10
        waits = [
            await kernel.send(fuse_requests.setlkw, entry.nodeid, fh, owner, wish)
            for owner in range(many)
        ]
        error, _ = await kernel.ask(fuse_requests.getattr, entry.nodeid, 0, 0)
        assert not error
        for unique in waits:
            await kernel.send(fuse_requests.interrupt, 0, unique)
            assert await kernel.reply(unique) == (errno.EINTR, b"")
        assert not mount.end.service.waiting


async def test_locks_end_with_the_file() -> None:
    """fcntl's with a FLUSH of their owner, flock's and what is left with the RELEASE."""
    server = LockingServer()
    wish = Lock(0, 9, fcntl.F_RDLCK, 1)
    gone = Flock(fcntl.F_UNLCK, 0, 0, 0)
    async with mounted(server=server) as mount:
        ask = mount.kernel.ask
        _, body = await ask(fuse_requests.create, 1, b"f", os.O_RDWR, 0o100644, 0)
        entry, opened = fuse_replies.created(body)
        node, fh = entry.nodeid, opened.fh
        for owner, flags in ((2**64 - 5, 0), (6, 0), (7, LK_FLOCK)):
            assert await ask(fuse_requests.setlk, node, fh, owner, wish, flags) == (0, b"")
        _, body = await ask(fuse_requests.getlk, node, fh, 8, wish)
        assert fuse_replies.lock(body) == wish
        assert server.locks[-1] == (8, fcntl.F_GETLK, Flock(fcntl.F_RDLCK, 0, 10, 1), 0)
        server.locks.clear()
        await ask(fuse_requests.flush, node, fh, 5)
        assert not server.locks
        await ask(fuse_requests.flush, node, fh, 2**64 - 5)
        assert server.locks == [(2**64 - 5, fcntl.F_SETLK, gone, 0)]
        server.locks.clear()
        await ask(fuse_requests.release, node, fh, 0)
        assert server.locks == [
            (7, fcntl.F_SETLK, gone, F_FLOCK),
            (6, fcntl.F_SETLK, gone, 0),
        ]


async def test_an_older_host_gets_less() -> None:
    async with mounted() as mount:
        flags = InitFlag.DO_READDIRPLUS | InitFlag.BIG_WRITES
        _, body = await mount.kernel.ask(fuse_requests.init, 0, 7, 31, 65536, flags)
        got = fuse_replies.init(body)
    assert (got.minor, got.flags, got.max_pages) == (31, flags, 32)


@pytest.mark.logs("the host speaks FUSE 7.12")
async def test_a_host_that_is_too_old_is_refused() -> None:
    async with mounted() as mount:
        error, _ = await mount.kernel.ask(fuse_requests.init, 0, 7, 12, 65536, 0)
    assert error == errno.EPROTO


async def test_what_we_do_not_know_is_enosys() -> None:
    async with mounted() as mount:
        error, _ = await mount.kernel.ask(fuse_requests.poll, 1, 5, 0, 0, 0)
        assert error == errno.ENOSYS
        error, _ = await mount.kernel.ask(fuse_requests.getattr, 1, 0, 0)
        assert not error


@pytest.mark.logs("are no request")
async def test_nonsense_is_answered_and_the_next_request_is_served() -> None:
    async with mounted() as mount:
        number = await mount.kernel.send(lambda *_: struct.pack("=IIQ40x", 99, 1, 4), 1)
        assert await mount.kernel.reply(number) == (errno.EIO, b"")
        assert await mount.kernel.ask(fuse_requests.access, 1, 4) == (0, b"")
        assert mount.end.statistics()["failures"] == 1


@pytest.mark.logs("getattr failed in a way that it must not")
async def test_a_bug_below_is_eio() -> None:
    async with mounted() as mount:
        mount.server.errors["getattr"] = ZeroDivisionError()
        error, _ = await mount.kernel.ask(fuse_requests.getattr, 1, 0, 0)
        assert error == errno.EIO


async def test_numbers_that_the_host_made_up() -> None:
    async with mounted() as mount:
        assert (await mount.kernel.ask(fuse_requests.getattr, 77, 0, 0))[0] == errno.ESTALE
        long = await mount.kernel.ask(fuse_requests.mkdir, 1, b"n" * 256, 0o755, 0)
        assert long[0] == errno.ENAMETOOLONG


async def test_who_waits_holds_nobody_up_and_is_seen() -> None:
    async with mounted() as mount:
        gate = mount.server.gate("lookup")
        slow = await mount.kernel.send(fuse_requests.lookup, 1, b"name", cred=PATIENT)
        assert not (await mount.kernel.ask(fuse_requests.getattr, 1, 0, 0))[0]
        (seen,) = mount.end.requests()
        assert (seen.name, seen.path) == ("lookup", b"/name")
        assert seen.who is not None
        assert seen.who.pid == os.getpid()
        gate.set()
        assert (await mount.kernel.reply(slow))[0] in (0, errno.ENOENT)
        assert not mount.end.requests()


async def test_data_go_where_they_belong() -> None:
    async with mounted() as mount:
        node, fh = await mount.kernel.make(b"file")
        gate = mount.server.gate("write")
        first = bytes(range(256)) * 16
        # Each waits with data in a buffer of its own.
        numbers = [
            await mount.kernel.send(
                fuse_requests.write, node, fh, 4096 * i, 4096, 0, memoryview(bytes([i]) * 4096)
            )
            for i in range(3)
        ]
        numbers.append(
            await mount.kernel.send(
                fuse_requests.write, node, fh, 12288, 4096, 0, memoryview(first)
            )
        )
        await wait_all_tasks_blocked()
        gate.set()
        for number in numbers:
            error, body = await mount.kernel.reply(number)
            assert (error, fuse_replies.count(body)) == (0, 4096)
        error, data = await mount.kernel.ask(fuse_requests.read, node, fh, 0, 1 << 20, 0)
        assert data == b"".join(bytes([i]) * 4096 for i in range(3)) + first


async def test_close_asks_nobody_where_nothing_can_have_been_written() -> None:
    async with mounted() as mount:
        node, fh = await mount.kernel.make(b"file")
        for flags, told in (
            (os.O_RDONLY, True),
            (os.O_RDONLY | os.O_TRUNC, False),
            (os.O_WRONLY, False),
            (os.O_RDWR, False),
        ):
            _, body = await mount.kernel.ask(fuse_requests.open_, node, flags)
            opened = fuse_replies.opened(body)
            assert bool(opened.flags & FopenFlag.NOFLUSH) == told, flags
            assert await mount.kernel.ask(fuse_requests.release, node, opened.fh, 0) == (0, b"")
        await mount.kernel.ask(fuse_requests.release, node, fh, 0)
        mount.server.check_opens()


async def test_extended_attributes() -> None:
    async with mounted() as mount:
        kernel = mount.kernel
        await kernel.ask(fuse_requests.setxattr, 1, b"user.a", 5, 0, memoryview(b"value"))
        error, body = await kernel.ask(fuse_requests.getxattr, 1, b"user.a", 0)
        assert (error, fuse_replies.count(body)) == (0, 5)
        assert await kernel.ask(fuse_requests.getxattr, 1, b"user.a", 64) == (0, b"value")
        assert (await kernel.ask(fuse_requests.getxattr, 1, b"user.a", 4))[0] == errno.ERANGE
        assert await kernel.ask(fuse_requests.listxattr, 1, 64) == (0, b"user.a\0")
        await kernel.ask(fuse_requests.removexattr, 1, b"user.a")
        assert (await kernel.ask(fuse_requests.getxattr, 1, b"user.a", 64))[0] == errno.ENODATA


async def test_lookups_are_given_back() -> None:
    async with mounted() as mount:
        node, fh = await mount.kernel.make(b"file")
        assert await mount.kernel.lookup(b"file") == node
        await mount.kernel.ask(fuse_requests.release, node, fh, 0)
        await mount.kernel.tell(fuse_requests.forget, node, 1)
        assert len(mount.end.nodes) == 2
        await mount.kernel.tell(fuse_requests.batch_forget, 0, [(node, 1), (999, 1)])
        assert len(mount.end.nodes) == 1
        mount.server.check_given_back()


@pytest.mark.parametrize("end_is_told", [True, False])
async def test_a_listing_counts_what_it_tells(
    end_is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only an empty answer says that there is no more, as a FUSE program's does."""
    if not end_is_told:
        readdir = FailingServer.readdir

        async def without_end(self: FailingServer, *args: Any) -> Any:
            entries, _ = await readdir(self, *args)
            return entries, not entries

        monkeypatch.setattr(FailingServer, "readdir", without_end)
    async with mounted() as mount:
        kernel = mount.kernel
        for i in range(30):
            node, fh = await kernel.make(b"f%d" % i)
            await kernel.ask(fuse_requests.release, node, fh, 0)
            await kernel.tell(fuse_requests.forget, node, 1)
        _, body = await kernel.ask(fuse_requests.opendir, 1, 0)
        fh = fuse_replies.opened(body).fh
        names, told, offset = [], [], 0
        while True:
            error, body = await kernel.ask(fuse_requests.readdirplus, 1, fh, offset, 1000, 0)
            assert not error
            assert len(body) <= 1000
            entries = fuse_replies.dirents_plus(body)
            if not entries:
                break
            offset = entries[-1].offset
            names += [entry.name for entry in entries]
            told += [e.entry.nodeid for e in entries if e.entry is not None and e.entry.nodeid]
        assert sorted(names) == sorted([b".", b"..", *(b"f%d" % i for i in range(30))])
        assert len(told) == 30
        await kernel.ask(fuse_requests.releasedir, 1, fh, 0)
        await kernel.tell(fuse_requests.batch_forget, 0, [(node, 1) for node in told])
        assert len(mount.end.nodes) == 1
        mount.server.check_given_back()


# Interrupts.


async def interrupted(mount: Mount, number: int) -> None:
    """Interrupt a request; it must end with EINTR, and soon."""
    await mount.kernel.send(fuse_requests.interrupt, 0, number)
    with trio.fail_after(2):
        assert await mount.kernel.reply(number) == (errno.EINTR, b"")


async def test_who_asks_is_cancelled() -> None:
    async with mounted() as mount:
        gate = mount.server.gate("getattr")
        number = await mount.kernel.send(fuse_requests.getattr, 1, 0, 0)
        await interrupted(mount, number)
        await wait_all_tasks_blocked()
        assert not mount.end.service.waiting
        gate.set()
        assert not (await mount.kernel.ask(fuse_requests.getattr, 1, 0, 0))[0]


async def test_a_change_goes_on_and_its_answer_is_taken_back() -> None:
    async with mounted() as mount:
        kernel = mount.kernel
        gates = [mount.server.gate("mkdir"), mount.server.gate("create")]
        one = await kernel.send(fuse_requests.mkdir, 1, b"directory", 0o755, 0)
        await interrupted(mount, one)
        two = await kernel.send(fuse_requests.create, 1, b"file", os.O_RDWR, 0o644, 0)
        await interrupted(mount, two)
        await wait_all_tasks_blocked()
        assert len(mount.end.service.waiting) == 2
        for gate in gates:
            gate.set()
        await wait_all_tasks_blocked()
        assert not mount.end.service.waiting
        assert set(mount.server.root.names) == {b"directory", b"file"}
        assert len(mount.end.nodes) == 1
        mount.server.check_given_back()
        mount.server.check_opens()


async def test_an_open_that_nobody_got_is_closed() -> None:
    async with mounted() as mount:
        node, fh = await mount.kernel.make(b"file")
        gate = mount.server.gate("open")
        number = await mount.kernel.send(fuse_requests.open_, node, os.O_RDONLY)
        directory = await mount.kernel.send(fuse_requests.opendir, 1, 0)
        await interrupted(mount, number)
        await interrupted(mount, directory)
        gate.set()
        await wait_all_tasks_blocked()
        await mount.kernel.ask(fuse_requests.release, node, fh, 0)
        mount.server.check_opens()


@pytest.mark.parametrize("operation", ["write", "fsync"])
async def test_an_error_that_nobody_was_told_is_told_to_the_next(operation: str) -> None:
    async with mounted() as mount:
        kernel = mount.kernel
        node, fh = await kernel.make(b"file")
        gate = mount.server.gate(operation)
        if operation == "write":
            number = await kernel.send(fuse_requests.write, node, fh, 0, 4, 0, memoryview(b"data"))
        else:
            number = await kernel.send(fuse_requests.fsync, node, fh, 0)
        await interrupted(mount, number)
        mount.server.errors[operation] = VfsError(errno.ENOSPC)
        gate.set()
        await wait_all_tasks_blocked()
        assert (await kernel.ask(fuse_requests.flush, node, fh, 0))[0] == errno.ENOSPC
        assert not (await kernel.ask(fuse_requests.flush, node, fh, 0))[0]


async def test_who_is_not_to_end_waits_on() -> None:
    async with mounted() as mount:
        gate = mount.server.gate("getattr")
        number = await mount.kernel.send(fuse_requests.getattr, 1, 0, 0, cred=PATIENT)
        await mount.kernel.send(fuse_requests.interrupt, 0, number)
        with trio.move_on_after(0.7) as scope:  # two looks at it
            await mount.kernel.reply(number)
        assert scope.cancelled_caught
        gate.set()
        assert not (await mount.kernel.reply(number))[0]


async def test_interrupts_that_come_too_late_are_for_nobody() -> None:
    async with mounted() as mount:
        number = await mount.kernel.send(fuse_requests.getattr, 1, 0, 0)
        assert not (await mount.kernel.reply(number))[0]
        await mount.kernel.tell(fuse_requests.interrupt, 0, number)


async def test_only_so_many_go_on_without_a_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_ORPHANS_MAX", 2)
    async with mounted() as mount:
        gate = mount.server.gate("mkdir")
        for i in range(3):
            number = await mount.kernel.send(fuse_requests.mkdir, 1, b"d%d" % i, 0o755, 0)
            await interrupted(mount, number)
        await wait_all_tasks_blocked()
        assert len(mount.end.service.waiting) == 2
        gate.set()


def test_signals_that_end() -> None:
    """A thread that has SIGTERM pending and held back is not to end; one that has gone is."""
    ready, done = threading.Event(), threading.Event()
    thread: list[int] = []

    def wait() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        thread.append(threading.get_native_id())
        ready.set()
        done.wait()
        signal.sigtimedwait({signal.SIGTERM}, 0)

    waiting = threading.Thread(target=wait)
    waiting.start()
    ready.wait()
    assert waiting.ident is not None
    signal.pthread_kill(waiting.ident, signal.SIGTERM)
    assert not is_to_end(thread[0])
    done.set()
    waiting.join()  # the host's thread may outlive Python's by a moment
    assert wait_until(lambda: is_to_end(thread[0]))


# Bounds and the end.


async def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "WAITING_MAX", 3)
    async with mounted() as mount:
        gate = mount.server.gate("getattr")
        numbers = [await mount.kernel.send(fuse_requests.getattr, 1, 0, 0) for _ in range(5)]
        await wait_all_tasks_blocked()
        assert len(mount.end.service.waiting) == 3
        gate.set()
        for number in numbers:
            assert not (await mount.kernel.reply(number))[0]


async def test_only_so_many_buffers_are_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_LENT_MAX", 2)
    async with mounted() as mount:
        kernel = mount.kernel
        node, fh = await kernel.make(b"file")
        gates = [mount.server.gate("getattr"), mount.server.gate("write")]
        other = await kernel.send(fuse_requests.getattr, 1, 0, 0)
        numbers = [
            await kernel.send(fuse_requests.write, node, fh, 0, 4, 0, memoryview(b"data"))
            for _ in range(4)
        ]
        await wait_all_tasks_blocked()
        assert len(mount.end.service.waiting) == 3
        gates[0].set()  # its worker has no buffer to give back
        assert not (await kernel.reply(other))[0]
        await wait_all_tasks_blocked()
        assert len(mount.end.service.waiting) == 2
        gates[1].set()
        for number in numbers:
            assert not (await kernel.reply(number))[0]


async def test_the_end_waits_for_what_is_under_way() -> None:
    async with mounted() as mount:
        gate = mount.server.gate("mkdir")
        number = await mount.kernel.send(fuse_requests.mkdir, 1, b"d", 0o755, 0)
        await wait_all_tasks_blocked()
        mount.end.service.stop()
        mount.end.service.stop()
        await wait_all_tasks_blocked()
        gate.set()
        assert not (await mount.kernel.reply(number))[0]


async def test_the_end_of_the_mount_ends_who_only_asks() -> None:
    async with mounted() as mount:
        mount.server.gate("getattr")
        gate = mount.server.gate("mkdir")
        await mount.kernel.send(fuse_requests.getattr, 1, 0, 0)
        await mount.kernel.send(fuse_requests.mkdir, 1, b"d", 0o755, 0)
        await wait_all_tasks_blocked()
        mount.kernel.hang_up()
        await wait_all_tasks_blocked()
        assert len(mount.end.service.waiting) == 1
        gate.set()


async def test_others_than_root_are_kept_out() -> None:
    async with mounted(HostOptions(allow_root=True)) as mount:
        stranger = NOBODY._replace(uid=os.getuid() + 4711)
        ask = mount.kernel.ask
        assert (await ask(fuse_requests.getattr, 1, 0, 0, cred=stranger))[0] == errno.EACCES
        assert not (await ask(fuse_requests.getattr, 1, 0, 0, cred=NOBODY))[0]
        node, fh = await mount.kernel.make(b"file")
        # With a descriptor that he was given he may read.
        assert await ask(fuse_requests.read, node, fh, 0, 4, 0, cred=stranger) == (0, b"")


async def test_each_request_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    async with mounted(HostOptions(debug=True)) as mount:
        await mount.kernel.ask(fuse_requests.lookup, 1, b"name")
    assert "lookup node 1 pid 0 b'name'" in capsys.readouterr().err
