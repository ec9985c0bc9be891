"""Clients that do what no client should: a right error, or the end of that session and no other."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from syspuffs.native import sftp

from .harness import BOTH, Served, StatusReply, Wire, code_of, packet, string

BAD = sftp.FX_BAD_MESSAGE


async def ends(wire: Wire) -> None:
    """Check that the session ends now, without a further answer."""
    with pytest.raises((EOFError, trio.BrokenResourceError)):
        await wire.reply()


@pytest.mark.logs("the client broke the protocol")
@pytest.mark.parametrize(
    "octets",
    [
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff\x05",
        struct.pack(">I", 256 * 1024 + 1) + b"\x05",
        b"\0\0\0\0",
        b"\0\0\0\x04\x01\0\0\0",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_lengths_that_no_packet_has_end_the_session(tree: Served, octets: bytes) -> None:
    async with tree.client() as other:
        async with tree.raw() as (wire, session):
            await wire.greet()
            handle = await wire.open(b"/f", BOTH)
            await wire.write(handle, 0, b"kept")
            await wire.send(octets)
            await ends(wire)
        assert session.is_broken
        assert await other.get(b"/f") == b"kept"


@pytest.mark.logs("the client broke the protocol")
@pytest.mark.parametrize("octets", [sftp.lstat(1, b"/"), packet(200, 1, string(b"limits"))])
async def test_nothing_goes_before_init(tree: Served, octets: bytes) -> None:
    async with tree.raw() as (wire, session):
        await wire.send(octets)
        await ends(wire)
    assert session.is_broken


async def test_the_longest_packet_is_taken(tree: Served) -> None:
    async with tree.client() as wire:
        handle = await wire.open(b"/f", BOTH)
        head = 9 + len(handle) + 4 + 8 + 4 - 4
        length = 256 * 1024 - head
        await wire.write(handle, 0, bytes(length))
        assert (await wire.ask(sftp.fstat, handle)).size == length
        await wire.ask(sftp.close, handle)


async def test_a_path_of_a_megabyte(tree: Served) -> None:
    """As long as a packet can be: longer ones end the session, as any packet does."""
    async with tree.client() as wire:
        for path in (b"/x" * 100_000, b"/" * 200_000, b"n" * 200_000, b"/.." * 70_000):
            for kind in (sftp.FXP_STAT, sftp.FXP_OPENDIR, sftp.FXP_REALPATH, sftp.FXP_MKDIR):
                body = string(path) + bytes(4)
                await wire.send(packet(kind, 5, body))
                got, number, answer = await wire.reply()
                assert (number, code_of(got, answer)) == (5, BAD)


async def test_bodies_that_end_too_early_or_make_no_sense(tree: Served) -> None:
    """The frame is right, so the session goes on: BAD_MESSAGE with the right id."""
    async with tree.client() as wire:
        bodies = {
            sftp.FXP_OPEN: string(b"/f") + struct.pack(">II", 1, 0),
            sftp.FXP_CLOSE: string(b"handle"),
            sftp.FXP_READ: string(b"handle") + struct.pack(">QI", 0, 1),
            sftp.FXP_WRITE: string(b"handle") + struct.pack(">Q", 0) + string(b"data"),
            sftp.FXP_SETSTAT: string(b"/f") + struct.pack(">IQ", 1, 0),
            sftp.FXP_RENAME: string(b"/a") + string(b"/b"),
            sftp.FXP_EXTENDED: string(b"hardlink@openssh.com") + string(b"/a") + string(b"/b"),
        }
        for kind, body in bodies.items():
            for length in range(len(body)):
                await wire.send(packet(kind, length, body[:length]))
                got, number, answer = await wire.reply()
                assert number == length
                assert code_of(got, answer) in (BAD, sftp.FX_OP_UNSUPPORTED), (kind, length)
        for kind, body in (
            (sftp.FXP_STAT, string(b"/a\0b")),
            (sftp.FXP_MKDIR, string(b"/d") + struct.pack(">I", 0x7FFFFFF0)),
            (sftp.FXP_READ, string(b"h") + struct.pack(">QI", 2**63, 1)),
            (sftp.FXP_SETSTAT, string(b"/") + struct.pack(">IQ", 1, 2**64 - 1)),
            (sftp.FXP_CLOSE, string(bytes(257))),
            (sftp.FXP_SETSTAT, string(b"/") + struct.pack(">III", 0x80000000, 2**32 - 1, 0)),
        ):
            await wire.send(packet(kind, 9, body))
            got, number, answer = await wire.reply()
            assert (number, code_of(got, answer)) == (9, BAD), kind
        assert await wire.names(b"/") == [b".", b".."]


async def test_unknown_requests_and_extensions(tree: Served) -> None:
    async with tree.client() as wire:
        for kind in (0, 21, 101, 104, 201, 255):
            await wire.send(packet(kind, 7))
            got, number, answer = await wire.reply()
            assert (number, code_of(got, answer)) == (7, sftp.FX_OP_UNSUPPORTED)
        await wire.send(packet(sftp.FXP_EXTENDED, 8, string(b"nobody@example.org") + b"rest"))
        got, number, answer = await wire.reply()
        assert (number, code_of(got, answer)) == (8, sftp.FX_OP_UNSUPPORTED)
        await wire.send(sftp.init())  # again: OpenSSH answers it, too
        assert (await wire.reply())[0] == sftp.FXP_VERSION


async def test_handles_of_others_and_handles_that_never_were(tree: Served) -> None:
    async with tree.client() as mine, tree.client() as theirs:
        await mine.put(b"/f", b"secret")
        file, directory = await mine.open(b"/f", BOTH), await mine.ask(sftp.opendir, b"/")
        own = await theirs.ask(sftp.opendir, b"/")
        await theirs.ask(sftp.close, own)
        for handle in (file, directory, own, b"", b"\0\0\0\0", bytes(256), file[:-1], file + b"x"):
            for ask, args, code in (
                (sftp.read, (0, 10), sftp.FX_FAILURE),
                (sftp.write, (0, 0), sftp.FX_FAILURE),
                (sftp.fstat, (), sftp.FX_FAILURE),
                (sftp.fsetstat, (sftp.Attrs(size=0),), sftp.FX_FAILURE),
                (sftp.readdir, (), sftp.FX_FAILURE),
                (sftp.fstatvfs, (), sftp.FX_FAILURE),
                (sftp.fsync, (), sftp.FX_NO_SUCH_FILE),
                (sftp.close, (), sftp.FX_NO_SUCH_FILE),
            ):
                assert await theirs.code(ask, handle, *args) == code
        assert await mine.read(file, 0, 10) == b"secret"
        for handle in (file, directory):
            await mine.ask(sftp.close, handle)
            assert await mine.code(sftp.close, handle) == sftp.FX_NO_SUCH_FILE


async def test_ten_thousand_open_directories(tree: Served) -> None:
    async with tree.client() as other, tree.client() as wire:
        limit = sftp.decode_limits(await wire.ask(sftp.limits)).max_handles
        opened = [await wire.ask(sftp.opendir, b"/") for _ in range(limit)]
        for _ in range(10_000 - limit):
            with pytest.raises(StatusReply) as caught:
                await wire.ask(sftp.opendir, b"/")
            assert caught.value.code == sftp.FX_FAILURE
            assert caught.value.text == b"Too many open files"
        assert await wire.code(sftp.open_, b"/f", BOTH) == sftp.FX_FAILURE
        assert await wire.code(sftp.stat, b"/f") == sftp.FX_NO_SUCH_FILE  # and was not made
        await other.put(b"/g", b"others notice nothing")
        await wire.ask(sftp.close, opened.pop())
        opened.append(await wire.ask(sftp.opendir, b"/"))
    # None of them was closed by the client, but all are.


async def test_opens_in_flight_count_as_open(tree: Served) -> None:
    async with tree.client(handles_max=3) as wire:
        released = trio.Event()

        async def hold(op: str, args: object) -> None:
            if op == "open":
                await released.wait()

        tree.counting.before = hold
        await wire.send(*(sftp.opendir(number, b"/") for number in range(5)))
        refused = await wire.replies(2)
        assert {code_of(*answer) for answer in refused.values()} == {sftp.FX_FAILURE}
        released.set()
        await wire.replies(3)


async def test_duplicate_ids_are_the_clients_business(tree: Served) -> None:
    async with tree.client() as wire:
        await wire.send(*(sftp.lstat(7, b"/") for _ in range(50)))
        for _ in range(50):
            kind, number, _ = await wire.reply()
            assert (kind, number) == (sftp.FXP_ATTRS, 7)


async def test_octets_that_come_one_by_one(tree: Served) -> None:
    async with tree.client() as wire:
        for octet in sftp.mkdir(1, b"/d") + sftp.lstat(2, b"/d") + sftp.lstat(3, b"/none"):
            await wire.send(bytes([octet]))
            await trio.testing.wait_all_tasks_blocked()
        replies = await wire.replies(3)
        assert [code_of(*replies[number]) for number in (1, 2, 3)] == [0, 0, 2]


@pytest.mark.slow
def test_whole_sessions_under_sanitizers() -> None:
    """fuzz.py goes on for as long as one likes; this is its beginning."""
    program = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, program, "--sessions", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout == "clean after 60 seeds from 1 on\n"
