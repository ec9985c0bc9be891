"""Holes, copies and renames with flags, as a FUSE server is asked for them."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from errno import EEXIST, EIO, EOPNOTSUPP

import pytest

from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.puffs import puffs_over
from syspuffs.native.constants import FREAD, FWRITE
from syspuffs.native.errors import VfsError
from syspuffs.native.fuse_protocol import RENAME_EXCHANGE, RENAME_NOREPLACE, Opcode
from syspuffs.native.records import Cookie, lookup_cn

from .harness import CRED, Server, both, entry


def files(server: Server) -> None:
    nodes, handles = iter((8, 9)), iter(range(100, 200))
    server.answers |= {
        Opcode.LOOKUP: lambda *_: entry(next(nodes)),
        Opcode.OPEN: lambda *_: struct.pack("=QII", next(handles), 0, 0),
        Opcode.RELEASE: lambda *_: b"",
    }


@asynccontextmanager
async def stack(pairs: int) -> AsyncIterator[tuple[FileServer, Server]]:
    """A file server of which all reaches the FUSE server, and that one."""
    async with both(files) as (perfuse, server), AsyncExitStack() as kernels:
        top: FileServer = perfuse
        for _ in range(pairs):
            fs = await kernels.enter_async_context(puffs_over(top))
            top = await kernels.enter_async_context(p2k_over(fs))
        yield top, server
        await top.unmount(0)


@pytest.mark.parametrize("pairs", [0, 1, 2])
async def test_data_and_copies_go_through_what_is_open(pairs: int) -> None:
    async with stack(pairs) as (perfuse, server):
        root = perfuse.kargs.root.cookie
        one = (await perfuse.lookup(root, lookup_cn(b"one", CRED))).cookie
        two = (await perfuse.lookup(root, lookup_cn(b"two", CRED))).cookie
        await perfuse.open(one, FREAD, CRED)
        await perfuse.open(two, FREAD | FWRITE, CRED)
        server.answers[Opcode.LSEEK] = lambda *_: struct.pack("=Q", 2**40)
        assert await perfuse.seek_data(one, 5, os.SEEK_HOLE, CRED) == 2**40
        assert server.bodies(Opcode.LSEEK) == [(8, struct.pack("=QQI4x", 100, 5, os.SEEK_HOLE))]
        server.answers[Opcode.COPY_FILE_RANGE] = lambda *_: struct.pack("=I4x", 300)
        assert await perfuse.copy_file_range(one, 1, two, 2, 300, CRED) == 300
        wanted = struct.pack("=7Q", 100, 1, 9, 101, 2, 300, 0)
        assert server.bodies(Opcode.COPY_FILE_RANGE) == [(8, wanted)]
        with pytest.raises(VfsError) as caught:
            await perfuse.copy_file_range(one, 1, two, 2, 299, CRED)
        assert caught.value.errno == EIO
        del server.answers[Opcode.COPY_FILE_RANGE]
        for _ in range(2):
            with pytest.raises(VfsError) as caught:
                await perfuse.copy_file_range(one, 1, two, 2, 300, CRED)
            assert caught.value.errno == EOPNOTSUPP
        assert len(server.bodies(Opcode.COPY_FILE_RANGE)) == 3  # not asked again


@pytest.mark.parametrize("pairs", [0, 1, 2])
async def test_renames_with_flags(pairs: int) -> None:
    async with stack(pairs) as (perfuse, server):
        root = perfuse.kargs.root.cookie
        one = (await perfuse.lookup(root, lookup_cn(b"one", CRED))).cookie
        two = (await perfuse.lookup(root, lookup_cn(b"two", CRED))).cookie

        async def rename(targ: Cookie | None, flags: int) -> int:
            names = lookup_cn(b"one", CRED), lookup_cn(b"two", CRED)
            try:
                await perfuse.rename_with(root, one, names[0], root, targ, names[1], flags)
            except VfsError as exc:
                return exc.errno
            return 0

        server.answers[Opcode.RENAME2] = lambda *_: b""
        assert await rename(two, RENAME_EXCHANGE) == 0
        server.answers[Opcode.RENAME2] = lambda *_: -EEXIST
        assert await rename(None, RENAME_NOREPLACE) == EEXIST
        del server.answers[Opcode.RENAME2]
        assert await rename(None, RENAME_NOREPLACE) == EOPNOTSUPP
        assert [body for _, body in server.bodies(Opcode.RENAME2)][:2] == [
            struct.pack("=QI4x", 1, flags) + b"one\0two\0"
            for flags in (RENAME_EXCHANGE, RENAME_NOREPLACE)
        ]
        assert not server.bodies(Opcode.RENAME)
