"""A client that says exactly what it is told to, and a file server that counts and can be slow."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.sftp import Export, Session, exported
from syspuffs.layers.ops import FileServer
from syspuffs.layers.p2k import p2k_over
from syspuffs.native import sftp
from syspuffs.native.records import (
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Kargs,
    Newinfo,
    Statvfs,
    Vattr,
)

from ...support.sftp_end import sftp_session

PACKET_MAX = 300_000
Hook = Callable[[str, tuple[Any, ...]], Awaitable[None]]


def packet(kind: int, number: int, body: bytes = b"") -> bytes:
    """Return a packet, right or wrong."""
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


def string(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


class StatusReply(Exception):
    """The answer was a status other than OK."""

    def __init__(self, code: int, text: bytes) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


def _end_of_file(reply: StatusReply) -> None:
    if reply.code != sftp.FX_EOF:
        raise reply


class Wire:
    """A client. `ask` does one thing after the other, `send` and `reply` whatever a test wants."""

    def __init__(self, near: socket.socket) -> None:
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        self._received = b""
        self._replies: list[tuple[int, int, bytes]] = []
        self._number = 0
        self.extensions: dict[bytes, bytes] = {}

    async def greet(self) -> None:
        await self.stream.send_all(sftp.init())
        kind, _, body = await self.reply()
        assert kind == sftp.FXP_VERSION
        version, self.extensions = sftp.decode_version(body)
        assert version == 3

    def number(self) -> int:
        self._number += 1
        return self._number

    async def send(self, *packets: Buffer) -> None:
        await self.stream.send_all(b"".join(packets))

    async def reply(self) -> tuple[int, int, bytes]:
        """Return type, id and body of the next packet. EOFError at the end."""
        while not self._replies:
            octets = await self.stream.receive_some(1 << 20)
            if not octets:
                raise EOFError
            self._received += octets
            rest, found = sftp.scan(self._received, 0, len(self._received), PACKET_MAX)
            self._replies = [(k, n, self._received[a:b]) for k, n, a, b in found]
            self._received = self._received[rest:]
        return self._replies.pop(0)

    async def replies(self, count: int) -> dict[int, tuple[int, bytes]]:
        """Return the next answers by their ids."""
        found = {}
        for _ in range(count):
            kind, number, body = await self.reply()
            assert number not in found, "answered twice"
            found[number] = kind, body
        return found

    async def ask(self, encode: Callable[..., bytes], *args: Any, payload: Buffer = b"") -> Any:
        """Make a request and return its answer, decoded. Errors: StatusReply."""
        number = self.number()
        await self.send(encode(number, *args), payload)
        kind, answered, body = await self.reply()
        assert answered == number
        return decoded(kind, body)

    async def code(self, encode: Callable[..., bytes], *args: Any, payload: Buffer = b"") -> int:
        """Make a request and return the status code of its answer; OK for other answers."""
        try:
            await self.ask(encode, *args, payload=payload)
        except StatusReply as reply:
            return reply.code
        return sftp.FX_OK

    # What tests do all the time.

    async def open(
        self, path: bytes, pflags: int = sftp.FXF_READ, mode: int | None = None
    ) -> bytes:
        handle = await self.ask(sftp.open_, path, pflags, sftp.Attrs(mode=mode))
        assert isinstance(handle, bytes)
        return handle

    async def write(self, handle: bytes, offset: int, data: bytes) -> None:
        await self.ask(sftp.write, handle, offset, len(data), payload=data)

    async def read(self, handle: bytes, offset: int, length: int) -> bytes:
        return bytes(await self.ask(sftp.read, handle, offset, length))

    async def put(self, path: bytes, data: bytes, mode: int | None = None) -> None:
        handle = await self.open(path, MAKE, mode)
        for at in range(0, len(data), 200_000):
            await self.write(handle, at, data[at : at + 200_000])
        await self.ask(sftp.close, handle)

    async def get(self, path: bytes) -> bytes:
        handle = await self.open(path)
        data = b""
        try:
            while True:
                data += await self.read(handle, len(data), 200_000)
        except StatusReply as reply:
            _end_of_file(reply)
        await self.ask(sftp.close, handle)
        return data

    async def entries(self, path: bytes) -> list[sftp.Name]:
        handle = await self.ask(sftp.opendir, path)
        names: list[sftp.Name] = []
        try:
            while True:
                names += await self.ask(sftp.readdir, handle)
        except StatusReply as reply:
            _end_of_file(reply)
        await self.ask(sftp.close, handle)
        return names

    async def names(self, path: bytes) -> list[bytes]:
        return sorted(entry.name for entry in await self.entries(path))


MAKE = sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_TRUNC
"""Flags of what makes or replaces a file."""
BOTH = sftp.FXF_READ | sftp.FXF_WRITE | sftp.FXF_CREAT


def decoded(kind: int, body: bytes) -> Any:
    """Return what an answer says. Errors: StatusReply for a status other than OK."""
    if kind == sftp.FXP_STATUS:
        code, text = sftp.decode_status(body)
        if code != sftp.FX_OK:
            raise StatusReply(code, text)
        return None
    decode: dict[int, Callable[[bytes], Any]] = {
        sftp.FXP_HANDLE: sftp.decode_handle,
        sftp.FXP_DATA: sftp.decode_data,
        sftp.FXP_NAME: sftp.decode_name,
        sftp.FXP_ATTRS: sftp.decode_attrs,
        sftp.FXP_EXTENDED_REPLY: bytes,
    }
    return decode[kind](body)


def code_of(kind: int, body: bytes) -> int:
    """Return the status of an answer; OK for one that is no status."""
    return sftp.decode_status(body)[0] if kind == sftp.FXP_STATUS else sftp.FX_OK


class Counting(FileServer):
    """Passes everything on, keeps the books, and checks the rules of layers/ops.py.

    `before` is awaited before each operation that may wait: to make it slow, or to fail it.
    `calls` counts operations by name.
    """

    def __init__(self, below: FileServer) -> None:
        self.below = below
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.calls: Counter[str] = Counter()
        self.lookups: Counter[int] = Counter()
        self.opens: Counter[tuple[int, int]] = Counter()
        self.in_flight = 0
        self.in_flight_max = 0

    @property
    def kargs(self) -> Kargs:
        return self.below.kargs

    def attach(self, upcalls: Any) -> None:
        self.below.attach(upcalls)

    def settled(self) -> None:
        """Check that everything was given back. AssertionError names what was not."""
        left = {cookie: count for cookie, count in self.lookups.items() if count}
        assert not left, f"lookups that were not reclaimed: {left}"
        opened = {key: count for key, count in self.opens.items() if count}
        assert not opened, f"(cookie, mode) of what was not closed: {opened}"
        assert not self.in_flight

    def _known(self, cookie: int) -> None:
        assert cookie == self.kargs.root.cookie or self.lookups[cookie] > 0, f"dead cookie {cookie}"

    def _found(self, info: Newinfo) -> Newinfo:
        if info.cookie and info.cookie != self.kargs.root.cookie:
            self.lookups[info.cookie] += 1
        return info

    async def _do(self, op: str, opc: int, *args: Any) -> Any:
        self._known(opc)
        self.calls[op] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            if self.before is not None:
                await self.before(op, (opc, *args))
            answer = await getattr(self.below, op)(opc, *args)
            if self.after is not None:
                await self.after(op, (opc, *args))
            return answer
        finally:
            self.in_flight -= 1

    async def statvfs(self) -> Statvfs:
        self.calls["statvfs"] += 1
        return await self.below.statvfs()

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        assert 0 < len(cn.name) <= 255
        assert cn.name not in (b".", b"..")
        assert b"/" not in cn.name
        return self._found(await self._do("lookup", opc, cn))

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        return self._found(await self._do("create", opc, cn, va))

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        return self._found(await self._do("mknod", opc, cn, va))

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        return self._found(await self._do("mkdir", opc, cn, va))

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        return self._found(await self._do("symlink", opc, cn, va, target))

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        answer: tuple[int, int] = await self._do("open", opc, mode, cred)
        self.opens[opc, mode] += 1
        return answer

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        assert self.opens[opc, fflag] > 0, f"closed more often than opened: {opc} {fflag}"
        self.opens[opc, fflag] -= 1
        self.below.close(opc, fflag, cred)

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        await self._do("access", opc, mode, cred)

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        return await self._do("getattr", opc, cred)  # type: ignore[no-any-return]

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        return await self._do("setattr", opc, va, cred)  # type: ignore[no-any-return]

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        return await self._do("read", opc, offset, resid, ioflag, cred)  # type: ignore[no-any-return]

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        before = bytes(data)
        await self._do("write", opc, offset, data, ioflag, cred)
        assert bytes(data) == before, "data changed while they were written"

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        await self._do("fsync", opc, flags, offlo, offhi, cred)

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        self._known(targ)
        return await self._do("remove", opc, targ, cn)  # type: ignore[no-any-return]

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        self._known(targ)
        return await self._do("link", opc, targ, cn)  # type: ignore[no-any-return]

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        for cookie in (src, targ_dir, targ):
            if cookie is not None:
                self._known(cookie)
        await self._do("rename", opc, src, cn_src, targ_dir, targ, cn_targ)

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        self._known(targ)
        return await self._do("rmdir", opc, targ, cn)  # type: ignore[no-any-return]

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        entries, is_end = await self._do("readdir", opc, offset, resid, flags, cred)
        for entry in entries:
            if entry.newinfo is not None:
                self._found(entry.newinfo)
        return entries, is_end

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        return await self._do("readlink", opc, cred)  # type: ignore[no-any-return]

    async def inactive(self, opc: Cookie) -> int:
        return await self._do("inactive", opc)  # type: ignore[no-any-return]

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        assert 0 < nlookup <= self.lookups[opc], f"{opc}: gave back {nlookup}, too many"
        self.lookups[opc] -= nlookup
        self.below.reclaim(opc, nlookup)


class Served:
    """An export of files in memory behind a `Counting`, and the way to new sessions of it."""

    def __init__(self, counting: Counting, export: Export) -> None:
        self.counting = counting
        self.export = export

    @asynccontextmanager
    async def raw(self, **options: Any) -> AsyncIterator[tuple[Wire, Session]]:
        """A session that has not been greeted yet."""
        async with sftp_session(self.export, **options) as (near, session):
            yield Wire(near), session

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Wire]:
        """A greeted client, whose session must have ended well."""
        async with self.raw(**options) as (wire, session):
            await wire.greet()
            yield wire
            await wire.stream.aclose()
        assert session.failures == 0
        assert session.cause == "", session.cause


@asynccontextmanager
async def served(
    fs: TmpFs | None = None, *, rdonly: bool = False, seconds: float = 30
) -> AsyncIterator[Served]:
    """Serve files in memory; at the end everything must have been given back."""
    fs = TmpFs(mntfromname=b"none", mode=0o755) if fs is None else fs
    with trio.fail_after(seconds):
        async with p2k_over(fs, rdonly=rdonly) as server:
            counting = Counting(server)
            async with exported(counting) as export:
                yield Served(counting, export)
                export.names_changed()
                assert export.nodes.in_use == []
            counting.settled()
            await server.unmount(0)


ROOT = os.geteuid() == 0
