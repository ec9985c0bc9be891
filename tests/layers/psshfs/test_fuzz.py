"""A server whose answers are damaged at random: errors may come of it, and nothing else."""

from __future__ import annotations

import random
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from syspuffs.layers.psshfs import Psshfs, PsshfsOptions
from syspuffs.native import sftp
from syspuffs.native.constants import FREAD, FSYNC_CLOSE, FSYNC_WAIT, FWRITE, READDIR_PLUS
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cookie, Vattr, lookup_cn

from .harness import CRED, VERSION, attrs, names, packet, root_of, scripted, status, string

EXTENSIONS = VERSION[:9] + b"".join(
    string(name) + string(revision)
    for name, revision in (
        (sftp.EXT_STATVFS, b"2"),
        (sftp.EXT_HARDLINK, b"1"),
        (sftp.EXT_FSYNC, b"1"),
        (sftp.EXT_POSIX_RENAME, b"1"),
        (sftp.EXT_LSETSTAT, b"1"),
    )
)
EXTENSIONS = struct.pack(">I", len(EXTENSIONS) - 4) + EXTENSIONS[4:]
MODES = (0o100644, 0o40755, 0o120777, 0o10644, 0o644, 0, 0xFFFFFFFF)


class Liar:
    """Answers of the right form with values at random; some of them damaged."""

    def __init__(self, rng: random.Random, damage: float) -> None:
        self.rng = rng
        self.damage = damage

    def __call__(self, kind: int, number: int, body: bytes) -> bytes | None:
        rng = self.rng
        said = self._say(kind, number, body)
        if rng.random() >= self.damage:
            return said
        what = rng.randrange(6)
        if what == 0:
            return None
        if what == 1:
            return said + said
        if what == 2:
            return said[: rng.randrange(len(said))]
        if what == 3:
            return packet(rng.choice((101, 102, 103, 104, 105, 201, 7)), number, said[9:])
        damaged = bytearray(said)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return bytes(damaged)

    def _attrs(self) -> bytes:
        rng = self.rng
        size = rng.choice((0, 1, 5000, 1 << 31, (1 << 63) - 1))
        if rng.random() < self.damage:
            size = rng.choice((1 << 63, (1 << 64) - 1))
        return attrs(size, rng.choice(MODES), rng.choice((0, 1, 0xFFFFFFFF)))

    def _name(self) -> bytes:
        return self.rng.choice((b"a", b"b", b"c", b".", b"..", b"x/y", b"", b"\0", b"n" * 300))

    def _say(self, kind: int, number: int, body: bytes) -> bytes:
        rng = self.rng
        if rng.random() < self.damage:
            return status(number, rng.choice((sftp.FX_OK, sftp.FX_EOF)))
        if rng.random() < 0.15:
            return status(number, rng.choice((2, 3, 4, 4, 4, 5, 8, 11, 99)))
        if kind in (sftp.FXP_LSTAT, sftp.FXP_FSTAT):
            return packet(sftp.FXP_ATTRS, number, self._attrs())
        if kind in (sftp.FXP_OPEN, sftp.FXP_OPENDIR):
            return packet(sftp.FXP_HANDLE, number, string(b"h" * rng.choice((0, 1, 4, 256))))
        if kind == sftp.FXP_READ:
            length = struct.unpack(">I", body[-4:])[0]
            return packet(
                sftp.FXP_DATA, number, string(bytes(rng.choice((length, min(length, 7)))))
            )
        if kind in (sftp.FXP_READDIR, sftp.FXP_READLINK):
            count = 1 if kind == sftp.FXP_READLINK else rng.randrange(5)
            listed = [(self._name(), self._attrs()) for _ in range(count)]
            return packet(sftp.FXP_NAME, number, names(*listed))
        if kind == sftp.FXP_EXTENDED and sftp.EXT_STATVFS in body:
            values = (rng.choice((0, 1, 4096, (1 << 63) - 1)) for _ in range(11))
            return packet(sftp.FXP_EXTENDED_REPLY, number, struct.pack(">11Q", *values))
        return status(number, sftp.FX_OK)


class Host:
    """Does operations at random as a kernel may."""

    def __init__(self, server: Psshfs, rng: random.Random) -> None:
        self.server = server
        self.rng = rng
        self.known: list[Cookie] = [root_of(server)]

    def some(self) -> Cookie:
        return self.rng.choice(self.known)

    async def act(self) -> None:
        rng, server = self.rng, self.server
        node, other = self.some(), self.some()
        cn = lookup_cn(rng.choice((b"a", b"b", b"c")), CRED)
        cn2 = lookup_cn(rng.choice((b"a", b"b", b"c")), CRED)
        makers: list[Callable[[], Awaitable[object]]] = [
            lambda: server.lookup(node, cn),
            lambda: server.create(node, cn, Vattr(vtype=1, mode=0o644)),
            lambda: server.mkdir(node, cn, Vattr(vtype=2, mode=0o755)),
            lambda: server.symlink(node, cn, Vattr(vtype=5, mode=0o777), b"t"),
            lambda: server.getattr(node, CRED),
            lambda: server.setattr(node, Vattr(mode=0o600, mtime=5), CRED),
            lambda: server.setattr(node, Vattr(size=10), CRED),
            lambda: server.open(node, rng.choice((FREAD, FWRITE, FREAD | FWRITE)), CRED),
            lambda: server.read(node, rng.randrange(10**6), rng.randrange(300_000), 0, CRED),
            lambda: server.read(node, 0, 100_000, 0, CRED),
            lambda: server.write(node, rng.randrange(10**6), bytes(rng.randrange(9000)), 0, CRED),
            lambda: server.write(node, 0, b"x", 0x20, CRED),
            lambda: server.fsync(node, rng.choice((FSYNC_CLOSE, FSYNC_WAIT)), 0, 0, CRED),
            lambda: server.readdir(node, 0, 4096, rng.choice((0, READDIR_PLUS)), CRED),
            lambda: server.readlink(node, CRED),
            lambda: server.remove(node, other, cn),
            lambda: server.rmdir(node, other, cn),
            lambda: server.link(node, other, cn),
            lambda: server.rename(node, other, cn, self.some(), None, cn2),
            lambda: server.statvfs(),
            lambda: server.inactive(node),
        ]
        with suppress(VfsError), trio.move_on_after(rng.choice((1, 1000))):
            result = await rng.choice(makers)()
            if hasattr(result, "cookie") and result.cookie:
                self.known.append(result.cookie)
        if rng.random() < 0.2:
            server.close(node, FREAD | FWRITE, CRED)
        if rng.random() < 0.1 and len(self.known) > 1:
            server.reclaim(self.known.pop(rng.randrange(1, len(self.known))), 1)


@pytest.mark.logs("SFTP connection lost", "names that no file can have", "replaced file stays")
@pytest.mark.logs("a write failed and nobody asked", "not saved")
@pytest.mark.parametrize("damage", [0.0, 0.02, 0.2])
async def test_a_lying_server(damage: float, autojump_clock: MockClock) -> None:
    for seed in range(40):
        rng = random.Random(f"{seed} {damage}")
        options = PsshfsOptions(cache_timeout_ns=rng.choice((0, 30 * 10**9)), request_timeout=20)
        liar = Liar(rng, damage)
        async with scripted(liar, options=options, version=EXTENSIONS) as (server, _):
            host = Host(server, rng)

            async def work(host: Host = host) -> None:
                for _ in range(25):
                    await host.act()

            with trio.fail_after(10_000):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(work)
            with suppress(VfsError):
                await server.unmount(0)
            server.statistics()
