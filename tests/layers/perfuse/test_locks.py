"""Locks that a FUSE server has itself, and which it does not have."""

from __future__ import annotations

import struct
from contextlib import nullcontext
from errno import EOPNOTSUPP
from fcntl import F_GETLK, F_SETLK, F_UNLCK, F_WRLCK

import pytest

from syspuffs.native.constants import F_FLOCK, FREAD, FWRITE, KFlag, VnOp
from syspuffs.native.errors import VfsError
from syspuffs.native.fuse_protocol import LK_FLOCK, InitFlag, Opcode
from syspuffs.native.records import Flock, lookup_cn

from .harness import CRED, ROOT, Server, both, entry

WHOLE = Flock(F_WRLCK, 0, 0, 77)
UNLOCK = Flock(F_UNLCK, 0, 0, 77)


def locking(server: Server, flags: int) -> None:
    fixed = struct.pack("=4IHHIIHH32x", 7, 31, 65536, flags, 12, 9, 65536, 1, 0, 0)
    handles = iter(range(100, 200))
    server.answers |= {
        Opcode.INIT: lambda *_: fixed,
        Opcode.LOOKUP: lambda *_: entry(9),
        Opcode.OPEN: lambda *_: struct.pack("=QII", next(handles), 0, 0),
        Opcode.RELEASE: lambda *_: b"",
        Opcode.SETLK: lambda *_: b"",
        Opcode.GETLK: lambda *_: struct.pack("=QQII", 5, 2**63 - 1, F_WRLCK, 42),
    }


def asked(server: Server) -> list[tuple[int, ...]]:
    """Handle, owner, type and flags of each SETLK."""
    found = [struct.unpack("=4Q4I", body) for _, body in server.bodies(Opcode.SETLK)]
    return [(fh, owner, kind, flags) for fh, owner, _, _, kind, _, flags, _ in found]


async def test_each_owner_has_a_handle_of_his_own() -> None:
    """flock(2) of two opens excludes, also where the server does it to the files behind."""
    every = InitFlag.POSIX_LOCKS | InitFlag.FLOCK_LOCKS
    async with both(lambda server: locking(server, every)) as (perfuse, server):
        assert VnOp.ADVLOCK in perfuse.kargs.ops
        cookie = (await perfuse.lookup(ROOT, lookup_cn(b"f", CRED))).cookie
        await perfuse.open(cookie, FREAD | FWRITE, CRED)
        await perfuse.open(cookie, FREAD | FWRITE, CRED)
        for owner in (1, 2, 3):
            await perfuse.advlock(cookie, owner, F_SETLK, WHOLE, F_FLOCK)
        await perfuse.advlock(cookie, 2, F_SETLK, UNLOCK, F_FLOCK)
        assert asked(server) == [
            (100, 1, F_WRLCK, LK_FLOCK),
            (101, 2, F_WRLCK, LK_FLOCK),
            (102, 3, F_WRLCK, LK_FLOCK),
            (101, 2, F_UNLCK, LK_FLOCK),
        ]
        perfuse.close(cookie, FREAD | FWRITE, CRED)
        await server.seen(Opcode.RELEASE)
        ((_, body),) = server.bodies(Opcode.RELEASE)
        assert struct.unpack_from("=Q", body) == (101,)
        found = await perfuse.advlock(cookie, 2, F_GETLK, WHOLE, 0)
        assert found == Flock(F_WRLCK, 5, 0, 42)
        await perfuse.unmount(0)


@pytest.mark.parametrize(
    ("flags", "posix", "flock"),
    [(0, False, False), (InitFlag.POSIX_LOCKS, True, False), (InitFlag.FLOCK_LOCKS, False, True)],
)
async def test_what_a_server_lacks_is_said(flags: int, posix: bool, flock: bool) -> None:
    async with both(lambda server: locking(server, flags)) as (perfuse, _):
        assert (VnOp.ADVLOCK in perfuse.kargs.ops) == posix
        assert bool(perfuse.kargs.kflags & KFlag.LOCAL_FLOCK) == posix
        cookie = (await perfuse.lookup(ROOT, lookup_cn(b"f", CRED))).cookie
        for has, kind in ((posix, 0), (flock, F_FLOCK)):
            with nullcontext() if has else pytest.raises(VfsError) as caught:
                await perfuse.advlock(cookie, 1, F_SETLK, WHOLE, kind)
            assert caught is None or caught.value.errno == EOPNOTSUPP
        await perfuse.unmount(0)
