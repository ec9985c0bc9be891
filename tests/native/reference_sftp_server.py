"""The server side of SFTP version 3 in plain Python: what the C codec and its faces must do.

Written from draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL, field by field; it has the same
functions as native/sftp_server.py, so that a test can put one beside the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from syspuffs.native import sftp_server as records
from syspuffs.native.errors import LocalProtocolError, RemoteProtocolError
from syspuffs.native.records import Buffer, Statvfs
from syspuffs.native.sftp_server import Attrs, Limits, Name, Request

from .reference_sftp import Reader, scan

__all__ = ["decode_request", "scan"]


class Body(Reader):
    """A request's body; every complaint is about the client."""

    def u63(self) -> int:
        v = self.u64()
        if v >= 2**63:
            raise RemoteProtocolError("63 bits")
        return v

    def path(self) -> bytes:
        v = self.octets()
        if b"\0" in v:
            raise RemoteProtocolError("NUL")
        return v

    def handle(self) -> bytes:
        v = self.octets()
        if len(v) > 256:
            raise RemoteProtocolError("handle")
        return v

    def attrs(self) -> Attrs:
        flags = int.from_bytes(self.body[self.at : self.at + 4], "big")
        if flags & ~0x8000000F:
            raise RemoteProtocolError("flags")
        return super().attrs()

    def numbers(self) -> tuple[int, ...]:
        v = self.octets()
        if len(v) % 4:
            raise RemoteProtocolError("numbers")
        return tuple(n for (n,) in struct.iter_unpack(">I", v))

    def data(self) -> memoryview:
        return memoryview(self.octets())

    def extensions(self) -> dict[bytes, bytes]:
        pairs = []
        while self.left:
            pairs.append((self.octets(), self.octets()))
        if len(pairs) > 256:
            raise RemoteProtocolError("extensions")
        return dict(pairs)


Field = Callable[[Body], Any]
Shape = tuple[Callable[..., Any], tuple[Field, ...]]

PATH: tuple[Field, ...] = (Body.path,)
HANDLE: tuple[Field, ...] = (Body.handle,)
PATHS: tuple[Field, ...] = (Body.path, Body.path)
PATH_ATTRS: tuple[Field, ...] = (Body.path, Body.attrs)

TYPES: dict[int, Shape] = {
    3: (records.Open, (Body.path, Body.u32, Body.attrs)),
    4: (records.Close, HANDLE),
    5: (records.Read, (Body.handle, Body.u63, Body.u32)),
    6: (records.Write, (Body.handle, Body.u63, Body.data)),
    7: (records.Lstat, PATH),
    8: (records.Fstat, HANDLE),
    9: (records.Setstat, PATH_ATTRS),
    10: (records.Fsetstat, (Body.handle, Body.attrs)),
    11: (records.Opendir, PATH),
    12: (records.Readdir, HANDLE),
    13: (records.Remove, PATH),
    14: (records.Mkdir, PATH_ATTRS),
    15: (records.Rmdir, PATH),
    16: (records.Realpath, PATH),
    17: (records.Stat, PATH),
    18: (records.Rename, PATHS),
    19: (records.Readlink, PATH),
    20: (records.Symlink, PATHS),
}

EXTENSIONS: dict[bytes, Shape] = {
    b"posix-rename@openssh.com": (records.PosixRename, PATHS),
    b"hardlink@openssh.com": (records.Hardlink, PATHS),
    b"statvfs@openssh.com": (records.StatvfsRequest, PATH),
    b"fstatvfs@openssh.com": (records.FstatvfsRequest, HANDLE),
    b"fsync@openssh.com": (records.Fsync, HANDLE),
    b"lsetstat@openssh.com": (records.Lsetstat, PATH_ATTRS),
    b"limits@openssh.com": (records.LimitsRequest, ()),
    b"expand-path@openssh.com": (records.ExpandPath, PATH),
    b"copy-data": (records.CopyData, (Body.handle, Body.u63, Body.u64, Body.handle, Body.u63)),
    b"home-directory": (records.HomeDirectory, PATH),
    b"users-groups-by-id@openssh.com": (records.UsersGroupsById, (Body.numbers, Body.numbers)),
}


def decode_request(buf: Buffer, type: int, id: int, start: int, end: int) -> Request:
    r = Body(buf[start:end])
    try:
        if type == 1:
            return records.Init(r.u32(), r.extensions())
        if type == 200:
            name = r.octets()
            if name not in EXTENSIONS:
                return records.Unsupported(id, type, name)
            record, fields = EXTENSIONS[name]
        elif type in TYPES:
            record, fields = TYPES[type]
        else:
            return records.Unsupported(id, type, b"")
        request: Request = record(id, *[field(r) for field in fields])
        return request
    except RemoteProtocolError as exc:
        return records.Malformed(id, type, str(exc))


class Reply:
    """Puts a reply together; every complaint is about us."""

    def __init__(self, type: int, id: int) -> None:
        self.parts = [bytes([type])]
        self.number(id, 4)

    def number(self, v: int, size: int) -> None:
        try:
            self.parts.append(v.to_bytes(size, "big"))
        except OverflowError:
            raise LocalProtocolError("number") from None

    def octets(self, v: bytes) -> None:
        self.number(len(v), 4)
        self.parts.append(v)

    def attrs(self, attrs: Attrs) -> None:
        size, uid, gid, mode, atime, mtime = attrs
        if (uid is None) != (gid is None) or (atime is None) != (mtime is None):
            raise LocalProtocolError("half a pair")
        fields = [(1, size, 8), (2, uid, 4), (0, gid, 4), (4, mode, 4), (8, atime, 4)]
        fields.append((0, mtime, 4))
        self.number(sum(bit for bit, v, _ in fields if v is not None), 4)
        for _, v, width in fields:
            if v is not None:
                if v >= 2**63:
                    raise LocalProtocolError("63 bits")
                self.number(v, width)

    def packet(self, beside: int = 0) -> bytes:
        body = b"".join(self.parts)
        length = len(body) + beside
        if length >= 2**32:
            raise LocalProtocolError("too long")
        return length.to_bytes(4, "big") + body


def version(extensions: Mapping[bytes, bytes], number: int = 3) -> bytes:
    r = Reply(2, number)
    for key, value in extensions.items():
        r.octets(key)
        r.octets(value)
    return r.packet()


def status(id: int, code: int, message: bytes = b"", lang: bytes = b"") -> bytes:
    r = Reply(101, id)
    r.number(code, 4)
    r.octets(message)
    r.octets(lang)
    return r.packet()


def handle(id: int, handle: bytes) -> bytes:
    if len(handle) > 256:
        raise LocalProtocolError("handle")
    r = Reply(102, id)
    r.octets(handle)
    return r.packet()


def data_head(id: int, length: int) -> bytes:
    r = Reply(103, id)
    r.number(length, 4)
    return r.packet(length)


def name(id: int, entries: Sequence[Name]) -> bytes:
    r = Reply(104, id)
    r.number(len(entries), 4)
    for entry, longname, attributes in entries:
        r.octets(entry)
        r.octets(longname)
        r.attrs(attributes)
    return r.packet()


def path(id: int, path: bytes) -> bytes:
    return name(id, [Name(path, path, Attrs())])


def attrs(id: int, attrs: Attrs) -> bytes:
    r = Reply(105, id)
    r.attrs(attrs)
    return r.packet()


def statvfs(id: int, state: Statvfs) -> bytes:
    r = Reply(201, id)
    for v in state:
        r.number(v, 8)
    return r.packet()


def limits(id: int, limits: Limits) -> bytes:
    r = Reply(201, id)
    for v in limits:
        r.number(v, 8)
    return r.packet()


def users_groups(id: int, users: Sequence[bytes], groups: Sequence[bytes]) -> bytes:
    r = Reply(201, id)
    for names in (users, groups):
        r.octets(b"".join(len(v).to_bytes(4, "big") + v for v in names))
    return r.packet()
