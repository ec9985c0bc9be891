"""What a hostile, dying or silent peer can do to a connection: end it, and nothing worse."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from syspuffs.layers.psshfs import PsshfsOptions, mount_psshfs
from syspuffs.layers.psshfs.wire.connection import open_connection
from syspuffs.layers.psshfs.wire.slot import ATTRS, HANDLE, STATUS, Slot
from syspuffs.native import sftp
from syspuffs.native.constants import FREAD
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Vattr, lookup_cn

from .harness import (
    CRED,
    attrs,
    look,
    names,
    packet,
    root_of,
    scripted,
    status,
    string,
)

pytestmark = pytest.mark.logs("SFTP connection lost")


async def fails(number: int, operation: Callable[[], object]) -> VfsError:
    with pytest.raises(VfsError) as caught:
        await operation()  # type: ignore[misc]
    assert caught.value.errno == number, caught.value
    return caught.value


GARBAGE = {
    "absurd length": lambda number: b"\xff\xff\xff\xff" + b"x" * 64,
    "no length": lambda number: bytes(64),
    "unknown id": lambda number: packet(sftp.FXP_ATTRS, number + 77, attrs()),
    "wrong type": lambda number: packet(sftp.FXP_HANDLE, number, string(b"h")),
    "success without attributes": lambda number: status(number, sftp.FX_OK),
    "truncated body": lambda number: packet(sftp.FXP_ATTRS, number, attrs()[:7]),
    "request type": lambda number: packet(sftp.FXP_LSTAT, number, string(b"/x")),
    "text": lambda number: b"Welcome to example.org!\r\n" * 4,
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_ends_the_connection_with_eproto(kind: str) -> None:
    async with scripted(lambda kind_, number, body: GARBAGE[kind](number)) as (server, _):
        await fails(errno.EPROTO, lambda: look(server, b"x"))
        assert server.connection.is_broken
        await fails(errno.ENOTCONN, lambda: look(server, b"x"))
        assert "protocol" in await server.wait_broken()


async def test_others_in_flight_get_enotconn() -> None:
    pending: list[int] = []

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        pending.append(number)
        if len(pending) < 3:
            return None
        return packet(sftp.FXP_HANDLE, number, string(b"h"))

    errors: list[int] = []

    async with scripted(handler) as (server, _):

        async def one(name: bytes) -> None:
            try:
                await look(server, name)
            except VfsError as exc:
                errors.append(exc.errno)

        async with trio.open_nursery() as nursery:
            for name in (b"a", b"b", b"c"):
                nursery.start_soon(one, name)
    assert sorted(errors) == sorted([errno.ENOTCONN, errno.ENOTCONN, errno.EPROTO])


@pytest.mark.parametrize("octets", [0, 3, 4, 8, 12, 30])
async def test_end_of_stream_in_mid_reply(octets: int) -> None:
    async def handler(kind: int, number: int, body: bytes) -> bytes | None:
        await peer.stream.send_all(packet(sftp.FXP_ATTRS, number, attrs())[:octets])
        await peer.stream.aclose()
        return None

    async with scripted(handler) as (server, peer):
        await fails(errno.ENOTCONN, lambda: look(server, b"x"))
        await fails(errno.ENOTCONN, lambda: look(server, b"x"))


async def test_silence_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    options = PsshfsOptions(request_timeout=50)
    async with scripted(lambda kind, number, body: None, options=options) as (server, _):
        await trio.sleep(1000)  # nothing is owed, so nothing is waited for
        before = trio.current_time()
        await fails(errno.ETIMEDOUT, lambda: look(server, b"x"))
        assert 50 <= trio.current_time() - before <= 60
        await fails(errno.ENOTCONN, lambda: look(server, b"x"))


async def test_silence_at_the_greeting(autojump_clock: trio.testing.MockClock) -> None:
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(VfsError) as caught:
            async with mount_psshfs(near):
                raise AssertionError
        assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (struct.pack(">IBI", 5, sftp.FXP_VERSION, 6), errno.EPROTO),
        (struct.pack(">IBI", 5, sftp.FXP_VERSION, 2), errno.EPROTO),
        (b"This account is currently not available.\n", errno.EPROTO),
        (status(0, sftp.FX_FAILURE), errno.EIO),
    ],
)
async def test_strange_greetings(said: bytes, number: int) -> None:
    with pytest.raises(VfsError) as caught:
        async with scripted(lambda kind, number, body: None, version=said):
            raise AssertionError
    assert caught.value.errno == number


async def test_a_late_handle_of_a_cancelled_open_is_closed() -> None:
    held: list[int] = []

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_OPEN:
            held.append(number)
            return None
        if kind == sftp.FXP_CLOSE:
            assert body == string(b"late")
            return status(number, sftp.FX_OK)
        return packet(sftp.FXP_ATTRS, number, attrs())

    async with scripted(handler) as (server, peer):
        info = await look(server, b"f")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.open, info.cookie, FREAD, CRED)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert held
        await peer.stream.send_all(packet(sftp.FXP_HANDLE, held[0], string(b"late")))
        with trio.fail_after(5):
            while sftp.FXP_CLOSE not in peer.seen:
                await wait_all_tasks_blocked()
        assert not server.connection.is_broken
        assert server.statistics().open_files == 0


async def test_what_may_wait_leaves_with_the_next_request_or_when_all_is_done() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        async with open_connection(ours) as connection:
            await wait_all_tasks_blocked()
            connection.close_handle(b"one")
            with pytest.raises(BlockingIOError):
                theirs.recv(65536)
            connection.submit(STATUS, sftp.remove, b"/x")
            assert theirs.recv(65536) == sftp.close(1, b"one") + sftp.remove(2, b"/x")
            connection.close_handle(b"two")
            await wait_all_tasks_blocked()
            assert theirs.recv(65536) == sftp.close(3, b"two")
            connection.close_handle(b"three")
            with connection.batch:
                connection.submit(STATUS, sftp.remove, b"/y")
                with pytest.raises(BlockingIOError):
                    theirs.recv(65536)
            assert theirs.recv(65536) == sftp.close(4, b"three") + sftp.remove(5, b"/y")


async def test_a_batch_leaves_in_one_piece_and_answers_come_in_any_order() -> None:
    near, far = socket.socketpair()
    with near, far:
        async with open_connection(near) as connection:
            with connection.batch:
                first = connection.submit(ATTRS, sftp.lstat, b"/a")
                with connection.batch:
                    second = connection.submit(HANDLE, sftp.opendir, b"/b")
                third = connection.submit(STATUS, sftp.remove, b"/c")
            asked = far.recv(65536)
            assert len(asked) == 3 * (4 + 5 + 4 + 2)
            far.sendall(
                status(3, sftp.FX_OK)
                + packet(sftp.FXP_HANDLE, 2, string(b"h"))
                + packet(sftp.FXP_ATTRS, 1, attrs(size=9))
            )
            assert (await first).size == 9
            assert bytes(await second) == b"h"
            await third
            assert connection.statistics().requests == 3
            assert connection.statistics().in_flight == 0


async def test_what_the_socket_does_not_take_follows_in_order() -> None:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with near, far:
        async with open_connection(near) as connection:
            payload = bytes(range(256)) * 1024
            slots = []
            for at in range(4):
                slot = Slot(connection, STATUS)
                connection.submit_slot(
                    slot, sftp.write, b"h", at * len(payload), len(payload), payload=payload
                )
                slots.append(slot)
            assert connection.statistics().octets_queued > 0
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(far))
            got = b""
            whole = 4 * (len(payload) + 4 + 1 + 4 + 5 + 8 + 4)
            while len(got) < whole:
                got += await stream.receive_some()
            assert got.count(payload) == 4
            assert connection.statistics().octets_queued == 0
            await stream.send_all(b"".join(status(n, sftp.FX_OK) for n in (4, 3, 2, 1)))
            for slot in slots:
                await slot


async def test_room_waits_when_too_much_is_in_flight() -> None:
    numbers: list[int] = []

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        numbers.append(number)
        return None

    done = 0
    # Without prefetch: after some names that it was asked for one by one it would list them all.
    async with scripted(handler, options=PsshfsOptions(prefetch=0)) as (server, peer):

        async def one(n: int) -> None:
            nonlocal done
            await look(server, b"n%d" % n)
            done += 1

        async with trio.open_nursery() as nursery:
            for n in range(400):
                nursery.start_soon(one, n)
            await wait_all_tasks_blocked(0.01)
            assert 256 <= len(numbers) < 400
            assert server.connection.is_congested
            while done < 400:
                answer = b"".join(packet(sftp.FXP_ATTRS, n, attrs()) for n in numbers)
                numbers.clear()
                await peer.stream.send_all(answer)
                await wait_all_tasks_blocked(0.01)


async def test_packets_cut_anywhere_are_put_together() -> None:
    async def handler(kind: int, number: int, body: bytes) -> bytes | None:
        whole = packet(sftp.FXP_ATTRS, number, attrs(size=5))
        for at in range(len(whole)):
            await peer.stream.send_all(whole[at : at + 1])
            await trio.lowlevel.checkpoint()
        return None

    async with scripted(handler) as (server, peer):
        assert (await look(server, b"x")).size == 5


async def test_hostile_names_are_dropped(log_watch: object) -> None:
    listed = names(
        (b".", attrs(mode=0o40755)),
        (b"..", attrs(mode=0o40755)),
        (b"good", attrs()),
        (b"../../etc/passwd", attrs()),
        (b"a/b", attrs()),
        (b"nul\0nul", attrs()),
        (b"", attrs()),
        (b"l" * 256, attrs()),
        (b"fine too", attrs()),
    )
    state = {"sent": False}

    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_OPENDIR:
            return packet(sftp.FXP_HANDLE, number, string(b"d"))
        if kind == sftp.FXP_READDIR and not state["sent"]:
            state["sent"] = True
            return packet(sftp.FXP_NAME, number, listed)
        if kind == sftp.FXP_READDIR:
            return status(number, sftp.FX_EOF)
        return status(number, sftp.FX_OK)

    log_watch.expect("names that no file can have, 5 in one")  # type: ignore[attr-defined]
    async with scripted(handler) as (server, _):
        entries, is_end = await server.readdir(root_of(server), 0, 65536, 0, CRED)
        assert is_end
        assert [entry.name for entry in entries] == [b".", b"..", b"good", b"fine too"]


async def test_a_listing_without_end_is_an_error() -> None:
    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_OPENDIR:
            return packet(sftp.FXP_HANDLE, number, string(b"d"))
        if kind == sftp.FXP_READDIR:
            return packet(sftp.FXP_NAME, number, names())
        return status(number, sftp.FX_OK)

    async with scripted(handler) as (server, _):
        await fails(errno.EIO, lambda: server.readdir(root_of(server), 0, 4096, 0, CRED))
        assert not server.connection.is_broken


@pytest.mark.parametrize("count", [0, 2])
async def test_readlink_must_have_one_name(count: int) -> None:
    def handler(kind: int, number: int, body: bytes) -> bytes | None:
        if kind == sftp.FXP_READLINK:
            return packet(sftp.FXP_NAME, number, names(*[(b"t", attrs())] * count))
        return packet(sftp.FXP_ATTRS, number, attrs(mode=0o120777))

    async with scripted(handler) as (server, _):
        info = await look(server, b"link")
        await fails(errno.EPROTO, lambda: server.readlink(info.cookie, CRED))


async def test_close_wakes_all_waiters() -> None:
    near, far = socket.socketpair()
    with near, far:
        async with open_connection(near) as connection:
            slot = connection.submit(ATTRS, sftp.lstat, b"/x")
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    with pytest.raises(VfsError):
                        await slot

                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                connection.close()
            with pytest.raises(VfsError):
                connection.submit(ATTRS, sftp.lstat, b"/x")
            await connection.room()
            connection.close_handle(b"h")


async def test_create_without_reply_then_death(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(kind: int, number: int, body: bytes) -> bytes | None:
        await trio.sleep(5)
        await peer.stream.aclose()
        return None

    async with scripted(handler) as (server, peer):
        await fails(
            errno.ENOTCONN,
            lambda: server.create(
                root_of(server), lookup_cn(b"x", CRED), Vattr(vtype=1, mode=0o644)
            ),
        )
