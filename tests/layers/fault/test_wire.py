"""Faults of messages: of frames between the halves of a puffs, and of packets of SFTP."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.layers.fault import Rule, Rules, faulty_wire
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.perfuse import fuse_pair, perfuse_on
from syspuffs.layers.psshfs import PsshfsOptions, mount_psshfs
from syspuffs.layers.puffs import puffs_over_socket, serve
from syspuffs.native.constants import MNT_FORCE, NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Cred, Newinfo, Vattr, lookup_cn

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
                puffs_over_socket(wire.socket, inner.kargs, unmount_wait=0.2) as fs,
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
                mount_psshfs(wire.socket, bytes(place), NOCACHE) as server,
            ):
                yield server
        finally:
            ours.close()
            with trio.CancelScope(shield=True), trio.fail_after(10):
                await process.wait()


@asynccontextmanager
async def fuse(rules: Rules, place: Path) -> AsyncIterator[FileServer]:
    """A real sshfs, with a faulty wire to what it takes for /dev/fuse."""
    ssh = place.parent / f"{place.name}.ssh"
    ssh.write_text(f"#!/bin/sh\nexec {find_sftp_server()}\n")
    ssh.chmod(0o700)
    ours, theirs = fuse_pair()
    with ours:
        with theirs:
            number = theirs.fileno()
            argv = ["sshfs", "-f", "-o", f"ssh_command={ssh}", f"host:{place}", f"/dev/fd/{number}"]
            process = await trio.lowlevel.open_process(argv, pass_fds=[number])
        try:
            async with (
                faulty_wire(ours, "fuse", rules) as wire,
                perfuse_on(wire.socket, peer_pid=lambda: wire.peer_pid) as server,
            ):
                await server.begin()
                assert server.peer_pid == process.pid
                yield server
        finally:
            process.kill()
            with trio.CancelScope(shield=True), trio.fail_after(10):
                await process.wait()


WIRES = {"frames": lambda rules, _: frames(rules), "sftp": sftp, "fuse": fuse}


@asynccontextmanager
async def over(place: str, rules: Rules, tmp_path: Path) -> AsyncIterator[FileServer]:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    with trio.fail_after(20):
        async with WIRES[place](rules, root) as server:
            yield server


async def make(server: FileServer, name: bytes = b"f") -> Newinfo:
    cn = lookup_cn(name, CRED, NameiOp.CREATE)
    return await server.create(server.kargs.root.cookie, cn, FILE)


async def write_out(server: FileServer, cookie: Cookie, data: bytes) -> None:
    """Write, and ask for durability: one of the two says what went wrong."""
    await server.write(cookie, 0, data, 0, CRED)
    await server.fsync(cookie, 1, 0, 0, CRED)


async def end(server: FileServer) -> None:
    """Unmount by force, whose result is ignored; a FUSE program has time for its last answers."""
    with trio.move_on_after(0.5), suppress(VfsError):
        await server.unmount(MNT_FORCE)


async def mkdir(server: FileServer, name: bytes = b"d") -> Newinfo:
    cn = lookup_cn(name, CRED, NameiOp.CREATE)
    return await server.mkdir(server.kargs.root.cookie, cn, Vattr(Vtype.VDIR, 0o755))


everywhere = pytest.mark.parametrize("place", ["frames", "sftp", "fuse"])


@everywhere
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


@everywhere
async def test_errno(place: str, tmp_path: Path) -> None:
    rule = Rule(place=place, op="mkdir", errno="EACCES", nth=1)  # type: ignore[arg-type]
    async with over(place, Rules([rule]), tmp_path) as server:
        with pytest.raises(VfsError) as caught:
            await mkdir(server)
        assert caught.value.errno == errno.EACCES
        assert (await mkdir(server)).vtype == Vtype.VDIR
        await server.unmount(0)


@everywhere
async def test_delay(place: str, tmp_path: Path) -> None:
    """A delay, and a failure after one."""
    rules = Rules(
        [
            Rule(place=place, op="mkdir", delay=0.1, errno="EACCES", nth=1),  # type: ignore[arg-type]
            Rule(place=place, op="mkdir", delay=0.1),  # type: ignore[arg-type]
        ]
    )
    async with over(place, rules, tmp_path) as server:
        before = trio.current_time()
        with pytest.raises(VfsError) as caught:
            await mkdir(server)
        assert caught.value.errno == errno.EACCES
        between = trio.current_time()
        assert between - before >= 0.1
        await mkdir(server)
        assert trio.current_time() - between >= 0.1
        await server.unmount(0)


@everywhere
async def test_hang(place: str, tmp_path: Path) -> None:
    """What is held aside lets others go by, until it is released."""
    rules = Rules([Rule(place=place, name="stuck", op="mkdir", hang=True, nth=1)])  # type: ignore[arg-type]
    async with over(place, rules, tmp_path) as server:
        await make(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mkdir, server)
            while not rules.statistics()[0].hanging:
                await trio.lowlevel.checkpoint()
            await server.statvfs()
            assert rules.release("stuck") == 1
        assert (await server.lookup(server.kargs.root.cookie, lookup_cn(b"d", CRED))).cookie
        await server.unmount(0)


@everywhere
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
        await end(server)


@everywhere
@pytest.mark.logs("")
async def test_flipped_bits_do_no_harm_to_others(place: str, tmp_path: Path) -> None:
    """A request of nonsense gets an answer or an end; nothing hangs, and nothing crashes."""
    for seed in range(4 if place == "fuse" else 12):
        rules = Rules([Rule(place=place, op="mkdir", flip=3)], seed)  # type: ignore[arg-type]
        here = tmp_path / str(seed)
        here.mkdir()
        async with over(place, rules, here) as server:
            with trio.move_on_after(0.3):  # a request whose number was changed has no answer
                try:
                    await mkdir(server)
                except VfsError:
                    pass
            await end(server)


@everywhere
async def test_lost(place: str, tmp_path: Path) -> None:
    """A request that never arrives is waited for as long as the asker likes."""
    rule = Rule(place=place, op="mkdir", lost=True, nth=1)  # type: ignore[arg-type]
    async with over(place, Rules([rule]), tmp_path) as server:
        with trio.move_on_after(0.1) as scope:
            await mkdir(server)
        assert scope.cancelled_caught
        assert (await mkdir(server, b"e")).cookie
        await end(server)


@everywhere
async def test_done_and_refused(place: str, tmp_path: Path) -> None:
    """`after`: the answer alone is another one."""
    rule = Rule(place=place, op="mkdir", errno="EACCES", after=True)  # type: ignore[arg-type]
    async with over(place, Rules([rule]), tmp_path) as server:
        with pytest.raises(VfsError) as caught:
            await mkdir(server)
        assert caught.value.errno == errno.EACCES
        assert (await server.lookup(server.kargs.root.cookie, lookup_cn(b"d", CRED))).cookie
        await server.unmount(0)


@everywhere
async def test_short(place: str, tmp_path: Path) -> None:
    """Who must ask again for the rest does; the others take it for the end. A write fails."""
    rules = Rules()
    async with over(place, rules, tmp_path) as server:
        made = await make(server)
        await server.open(made.cookie, 3, CRED)
        await write_out(server, made.cookie, b"0123456789")
        rules.add(Rule(place=place, op="read", short=4, nth=1))  # type: ignore[arg-type]
        expected = b"0123456789" if place == "sftp" else b"0123"
        assert bytes(await server.read(made.cookie, 0, 10, 0, CRED)) == expected
        assert bytes(await server.read(made.cookie, 0, 10, 0, CRED)) == b"0123456789"
        rules.add(Rule(place=place, op="write", short=3, nth=1))  # type: ignore[arg-type]
        with pytest.raises(VfsError) as caught:
            await write_out(server, made.cookie, b"abcdefghij")
        assert caught.value.errno == errno.EIO
        assert bytes(await server.read(made.cookie, 0, 10, 0, CRED)) == b"abc3456789"
        server.close(made.cookie, 3, CRED)
        await server.unmount(0)


@everywhere
async def test_a_reordered_reply(place: str, tmp_path: Path) -> None:
    """It is done at once, and its answer comes after two others."""
    others = 3 if place == "sftp" else 2  # psshfs asks for attributes in the same breath
    rules = Rules([Rule(place=place, op="mkdir", reorder=others, nth=1)])  # type: ignore[arg-type]
    order = []
    async with over(place, rules, tmp_path) as server, trio.open_nursery() as nursery:

        async def first() -> None:
            await mkdir(server)
            order.append("mkdir")

        nursery.start_soon(first)
        while not rules.statistics()[0].taken:
            await trio.lowlevel.checkpoint()
        for _ in range(2):
            assert "mkdir" not in order
            await server.statvfs()
            order.append("statvfs")
    assert order == ["statvfs", "statvfs", "mkdir"]


async def test_fuse_messages() -> None:
    """Each datagram is a message; refusals carry the number of the request."""
    rules = Rules(
        [
            Rule(place="fuse", op="getattr", reorder=2, nth=1),
            Rule(place="fuse", op="read", errno="EIO"),
        ]
    )
    kernel, program = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def message(opcode: int, unique: int) -> bytes:
        return struct.pack("<IIQQIIII", 40, opcode, unique, 1, 0, 0, 1, 0)

    def answer(unique: int) -> bytes:
        return struct.pack("<IiQ", 16, 0, unique)

    with kernel, program:
        async with faulty_wire(kernel, "fuse", rules) as wire:
            near, far = map(trio.socket.from_stdlib_socket, (wire.socket.dup(), program.dup()))
            with near, far:
                for opcode, unique in ((3, 1), (15, 2), (1, 3), (1, 4)):
                    await near.send(message(opcode, unique))
                for unique in (1, 3, 4):
                    assert await far.recv(100) == message(3 if unique == 1 else 1, unique)
                assert await near.recv(100) == struct.pack("<IiQ", 16, -errno.EIO, 2)
                for unique in (1, 3, 0, 4):  # 0: it says something unasked
                    await far.send(answer(unique))
                for unique in (3, 0, 4, 1):
                    assert await near.recv(100) == answer(unique)
                assert wire.peer_pid == os.getpid()
