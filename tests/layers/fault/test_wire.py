"""Faults of messages: of frames between the halves of a puffs, and of packets of SFTP."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.fault import Rule, Rules, faulty_wire
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.psshfs import PsshfsOptions, mount_psshfs
from syspuffs.layers.puffs import puffs_over_socket, serve
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred, Newinfo, Vattr, lookup_cn

from ...support.sshd import find_sftp_server

CRED = Cred(0, 0, (), 1)
FILE = Vattr(Vtype.VREG, 0o644)
NOCACHE = PsshfsOptions(write_behind=0, cache_timeout_ns=0)


@asynccontextmanager
async def frames(rules: Rules) -> AsyncIterator[FileServer]:
    """`p2k|puffs|p2k|tmpfs`, with a faulty wire between the halves of the puffs."""
    ours, theirs = socket.socketpair()
    async with p2k_over(TmpFs(mntfromname=b"none")) as inner, trio.open_nursery() as nursery:
        nursery.start_soon(serve, inner, theirs)
        with ours:
            async with (
                faulty_wire(ours, "frames", rules) as wire,
                puffs_over_socket(wire, inner.kargs, unmount_wait=0.2) as fs,
                p2k_over(fs) as outer,
            ):
                yield outer


@asynccontextmanager
async def sftp(rules: Rules, place: Path) -> AsyncIterator[FileServer]:
    """psshfs on a real sftp-server, with a faulty wire to it."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await trio.lowlevel.open_process(
                [find_sftp_server()], stdin=theirs, stdout=theirs
            )
        try:
            async with (
                faulty_wire(ours, "sftp", rules) as wire,
                mount_psshfs(wire, bytes(place), NOCACHE) as server,
            ):
                yield server
        finally:
            ours.close()
            with trio.CancelScope(shield=True), trio.fail_after(10):
                await process.wait()


@asynccontextmanager
async def over(place: str, rules: Rules, tmp_path: Path) -> AsyncIterator[FileServer]:
    with trio.fail_after(20):
        made = frames(rules) if place == "frames" else sftp(rules, tmp_path)
        async with made as server:
            yield server


async def make(server: FileServer, name: bytes = b"f") -> Newinfo:
    cn = lookup_cn(name, CRED, NameiOp.CREATE)
    return await server.create(server.kargs.root.cookie, cn, FILE)


async def mkdir(server: FileServer, name: bytes = b"d") -> Newinfo:
    cn = lookup_cn(name, CRED, NameiOp.CREATE)
    return await server.mkdir(server.kargs.root.cookie, cn, Vattr(Vtype.VDIR, 0o755))


both = pytest.mark.parametrize("place", ["frames", "sftp"])


@both
async def test_nothing(place: str, tmp_path: Path) -> None:
    """A wire without rules changes nothing, whatever the size of messages."""
    async with over(place, Rules(), tmp_path) as server:
        made = await make(server)
        data = bytes(range(256)) * 8192
        await server.open(made.cookie, 3, CRED)
        for at in range(0, len(data), 1 << 20):
            await server.write(made.cookie, at, data[at : at + (1 << 20)], 0, CRED)
        await server.fsync(made.cookie, 1, 0, 0, CRED)
        assert bytes(await server.read(made.cookie, 0, len(data), 0, CRED)) == data
        server.close(made.cookie, 3, CRED)
        await server.unmount(0)


@both
async def test_errno(place: str, tmp_path: Path) -> None:
    rule = Rule(place=place, op="mkdir", errno="EACCES", nth=1)  # type: ignore[arg-type]
    async with over(place, Rules([rule]), tmp_path) as server:
        with pytest.raises(VfsError) as caught:
            await mkdir(server)
        assert caught.value.errno == errno.EACCES
        assert (await mkdir(server)).vtype == Vtype.VDIR
        await server.unmount(0)


@both
async def test_delay_and_hang(place: str, tmp_path: Path) -> None:
    """What is held aside lets others go by."""
    rules = Rules([Rule(place=place, name="stuck", op="mkdir", hang=True, nth=1)])  # type: ignore[arg-type]
    async with over(place, rules, tmp_path) as server:
        await make(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mkdir, server)
            while not rules.statistics()[0][3]:
                await trio.lowlevel.checkpoint()
            await server.statvfs()
            assert rules.release("stuck") == 1
        assert (await server.lookup(server.kargs.root.cookie, lookup_cn(b"d", CRED))).cookie
        await server.unmount(0)


@both
@pytest.mark.logs("")
@pytest.mark.parametrize("kind", ["death", "torn"])
async def test_the_end_of_the_stream(place: str, kind: str, tmp_path: Path) -> None:
    """A dead server, or one that died inside of a message: an error, at once, for each request."""
    fault = {"death": {"death": True}, "torn": {"torn": 7}}[kind]
    rule = Rule(place=place, op="mkdir", **fault)  # type: ignore[arg-type]
    async with over(place, Rules([rule]), tmp_path) as server:
        for _ in range(3):
            with trio.fail_after(5), pytest.raises(VfsError) as caught:
                await mkdir(server)
            assert caught.value.errno in (errno.ENXIO, errno.EIO, errno.ENOTCONN, errno.ECONNRESET)
        await server.unmount(0x80000)


@both
@pytest.mark.logs("")
async def test_flipped_bits_do_no_harm_to_others(place: str, tmp_path: Path) -> None:
    """A request of nonsense gets an answer or an end; nothing hangs, and nothing crashes."""
    for seed in range(12):
        rules = Rules([Rule(place=place, op="mkdir", flip=3)], seed)  # type: ignore[arg-type]
        here = tmp_path / str(seed)
        here.mkdir()
        async with over(place, rules, here) as server:
            with trio.move_on_after(0.3):  # a request whose number was changed has no answer
                try:
                    await mkdir(server)
                except VfsError:
                    pass
            with trio.move_on_after(1):
                await server.unmount(0x80000)


@both
async def test_lost(place: str, tmp_path: Path) -> None:
    """A request that never arrives is waited for as long as the asker likes."""
    rule = Rule(place=place, op="mkdir", lost=True, nth=1)  # type: ignore[arg-type]
    async with over(place, Rules([rule]), tmp_path) as server:
        with trio.move_on_after(0.1) as scope:
            await mkdir(server)
        assert scope.cancelled_caught
        assert (await mkdir(server, b"e")).cookie
        await server.unmount(0x80000)


async def test_reordered_fuse_messages() -> None:
    """FUSE: each datagram is a message; refusals carry the number of the request."""
    rules = Rules(
        [
            Rule(place="fuse", op="getattr", reorder=2, nth=1),
            Rule(place="fuse", op="read", errno="EIO"),
        ]
    )
    kernel, program = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def message(opcode: int, unique: int) -> bytes:
        return struct.pack("<IIQQIIII", 40, opcode, unique, 1, 0, 0, 1, 0)

    with kernel, program:
        async with faulty_wire(kernel, "fuse", rules) as wire:
            near, far = map(trio.socket.from_stdlib_socket, (wire.dup(), program.dup()))
            with near, far:
                for opcode, unique in ((3, 1), (15, 2), (1, 3), (1, 4)):
                    await near.send(message(opcode, unique))
                got = [struct.unpack("<IIQ", (await far.recv(100))[:16])[2] for _ in range(3)]
                assert got == [3, 4, 1]
                assert await near.recv(100) == struct.pack("<IiQ", 16, -errno.EIO, 2)
                await far.send(b"answer")
                assert await near.recv(100) == b"answer"
