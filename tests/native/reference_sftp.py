"""SFTP version 3 in plain Python: what the C codec must do, octet for octet.

Written from draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL, field by field, with `struct`;
it has the same functions as native/sftp.py, so that a test can put one beside the other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from syspuffs.native.errors import LocalProtocolError, RemoteProtocolError
from syspuffs.native.records import Buffer, Statvfs
from syspuffs.native.sftp import NO_ATTRS, Attrs, Limits, Listed, Name

REQUEST_MAX = 34000


class Writer:
    """Puts a packet together; every complaint is about us."""

    def __init__(self, type: int, id: int, extension: bytes | None = None) -> None:
        self.parts = [bytes([type])]
        self.u32(id)
        if extension is not None:
            self.octets(extension)

    def u32(self, v: int) -> None:
        if not 0 <= v < 2**32:
            raise LocalProtocolError("u32")
        self.parts.append(struct.pack(">I", v))

    def u64(self, v: int) -> None:
        if not 0 <= v < 2**63:
            raise LocalProtocolError("u64")
        self.parts.append(struct.pack(">Q", v))

    def octets(self, v: bytes) -> None:
        self.u32(len(v))
        self.parts.append(v)

    def path(self, v: bytes) -> None:
        if b"\0" in v:
            raise LocalProtocolError("NUL")
        self.octets(v)

    def attrs(self, attrs: Attrs) -> None:
        flags = 0
        if attrs.size is not None:
            flags |= 1
        if attrs.uid is not None or attrs.gid is not None:
            flags |= 2
        if attrs.mode is not None:
            flags |= 4
        if attrs.atime is not None or attrs.mtime is not None:
            flags |= 8
        self.u32(flags)
        if attrs.size is not None:
            self.u64(attrs.size)
        if flags & 2:
            if attrs.uid is None or attrs.gid is None:
                raise LocalProtocolError("half of uid and gid")
            self.u32(attrs.uid)
            self.u32(attrs.gid)
        if attrs.mode is not None:
            self.u32(attrs.mode)
        if flags & 8:
            if attrs.atime is None or attrs.mtime is None:
                raise LocalProtocolError("half of atime and mtime")
            self.u32(attrs.atime)
            self.u32(attrs.mtime)

    def packet(self, beside: int = 0) -> bytes:
        body = b"".join(self.parts)
        if len(body) > REQUEST_MAX or len(body) + beside >= 2**32:
            raise LocalProtocolError("too long")
        return struct.pack(">I", len(body) + beside) + body


def init() -> bytes:
    return struct.pack(">IBI", 5, 1, 3)


def one_path(type: int, id: int, path: bytes, extension: bytes | None = None) -> bytes:
    w = Writer(type, id, extension)
    w.path(path)
    return w.packet()


def one_handle(type: int, id: int, handle: bytes, extension: bytes | None = None) -> bytes:
    w = Writer(type, id, extension)
    w.octets(handle)
    return w.packet()


def two_paths(
    type: int, id: int, first: bytes, second: bytes, extension: bytes | None = None
) -> bytes:
    w = Writer(type, id, extension)
    w.path(first)
    w.path(second)
    return w.packet()


def path_attrs(
    type: int, id: int, path: bytes, attrs: Attrs, extension: bytes | None = None
) -> bytes:
    w = Writer(type, id, extension)
    w.path(path)
    w.attrs(attrs)
    return w.packet()


def open_(id: int, path: bytes, pflags: int, attrs: Attrs = NO_ATTRS) -> bytes:
    w = Writer(3, id)
    w.path(path)
    w.u32(pflags)
    w.attrs(attrs)
    return w.packet()


def close(id: int, handle: bytes) -> bytes:
    return one_handle(4, id, handle)


def read(id: int, handle: bytes, offset: int, length: int) -> bytes:
    w = Writer(5, id)
    w.octets(handle)
    w.u64(offset)
    w.u32(length)
    return w.packet()


def write(id: int, handle: bytes, offset: int, length: int) -> bytes:
    w = Writer(6, id)
    w.octets(handle)
    w.u64(offset)
    w.u32(length)
    return w.packet(length)


def lstat(id: int, path: bytes) -> bytes:
    return one_path(7, id, path)


def fstat(id: int, handle: bytes) -> bytes:
    return one_handle(8, id, handle)


def setstat(id: int, path: bytes, attrs: Attrs) -> bytes:
    return path_attrs(9, id, path, attrs)


def fsetstat(id: int, handle: bytes, attrs: Attrs) -> bytes:
    w = Writer(10, id)
    w.octets(handle)
    w.attrs(attrs)
    return w.packet()


def opendir(id: int, path: bytes) -> bytes:
    return one_path(11, id, path)


def readdir(id: int, handle: bytes) -> bytes:
    return one_handle(12, id, handle)


def remove(id: int, path: bytes) -> bytes:
    return one_path(13, id, path)


def mkdir(id: int, path: bytes, attrs: Attrs = NO_ATTRS) -> bytes:
    return path_attrs(14, id, path, attrs)


def rmdir(id: int, path: bytes) -> bytes:
    return one_path(15, id, path)


def realpath(id: int, path: bytes) -> bytes:
    return one_path(16, id, path)


def stat(id: int, path: bytes) -> bytes:
    return one_path(17, id, path)


def rename(id: int, old: bytes, new: bytes) -> bytes:
    return two_paths(18, id, old, new)


def readlink(id: int, path: bytes) -> bytes:
    return one_path(19, id, path)


def symlink(id: int, target: bytes, linkpath: bytes) -> bytes:
    return two_paths(20, id, target, linkpath)


def posix_rename(id: int, old: bytes, new: bytes) -> bytes:
    return two_paths(200, id, old, new, b"posix-rename@openssh.com")


def hardlink(id: int, old: bytes, new: bytes) -> bytes:
    return two_paths(200, id, old, new, b"hardlink@openssh.com")


def statvfs(id: int, path: bytes) -> bytes:
    return one_path(200, id, path, b"statvfs@openssh.com")


def fstatvfs(id: int, handle: bytes) -> bytes:
    return one_handle(200, id, handle, b"fstatvfs@openssh.com")


def fsync(id: int, handle: bytes) -> bytes:
    return one_handle(200, id, handle, b"fsync@openssh.com")


def lsetstat(id: int, path: bytes, attrs: Attrs) -> bytes:
    return path_attrs(200, id, path, attrs, b"lsetstat@openssh.com")


def limits(id: int) -> bytes:
    return Writer(200, id, b"limits@openssh.com").packet()


def expand_path(id: int, path: bytes) -> bytes:
    return one_path(200, id, path, b"expand-path@openssh.com")


def copy_data(
    id: int, read_handle: bytes, roff: int, length: int, write_handle: bytes, woff: int
) -> bytes:
    w = Writer(200, id, b"copy-data")
    w.octets(read_handle)
    w.u64(roff)
    w.u64(length)
    w.octets(write_handle)
    w.u64(woff)
    return w.packet()


def home_directory(id: int, user: bytes) -> bytes:
    return one_path(200, id, user, b"home-directory")


def users_groups_by_id(id: int, uids: Sequence[int], gids: Sequence[int]) -> bytes:
    w = Writer(200, id, b"users-groups-by-id@openssh.com")
    for numbers in (uids, gids):
        if not all(0 <= v < 2**32 for v in numbers):
            raise LocalProtocolError("id")
        w.octets(b"".join(struct.pack(">I", v) for v in numbers))
    return w.packet()


class Reader:
    """Takes a body apart; every complaint is about the peer."""

    def __init__(self, body: Buffer) -> None:
        self.body = bytes(body)
        self.at = 0

    def take(self, n: int) -> bytes:
        if n > len(self.body) - self.at:
            raise RemoteProtocolError("short")
        self.at += n
        return self.body[self.at - n : self.at]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def octets(self) -> bytes:
        return self.take(self.u32())

    @property
    def left(self) -> int:
        return len(self.body) - self.at

    def attrs(self) -> Attrs:
        flags = self.u32()
        size = uid = gid = mode = atime = mtime = None
        if flags & 1:
            size = self.u64()
            if size >= 2**63:
                raise RemoteProtocolError("size")
        if flags & 2:
            uid, gid = self.u32(), self.u32()
        if flags & 4:
            mode = self.u32()
        if flags & 8:
            atime, mtime = self.u32(), self.u32()
        if flags & 0x80000000:
            for _ in range(self.u32()):
                self.octets()
                self.octets()
        return Attrs(size, uid, gid, mode, atime, mtime)


def scan(
    buf: Buffer, start: int, end: int, max_packet: int
) -> tuple[int, list[tuple[int, int, int, int]]]:
    packets = []
    while end - start >= 4:
        length = int.from_bytes(buf[start : start + 4], "big")
        if not 5 <= length <= max_packet:
            raise RemoteProtocolError("length")
        if length > end - start - 4:
            break
        body = start + 4
        start = body + length
        if buf[body] in (1, 2):  # INIT and VERSION have no id
            packets.append((buf[body], 0, body + 1, start))
        else:
            id = int.from_bytes(buf[body + 1 : body + 5], "big")
            packets.append((buf[body], id, body + 5, start))
    return start, packets


def decode_version(body: Buffer) -> tuple[int, dict[bytes, bytes]]:
    r = Reader(body)
    version = r.u32()
    extensions = []
    while r.left:
        extensions.append((r.octets(), r.octets()))
        if len(extensions) > 256:
            raise RemoteProtocolError("extensions")
    return version, dict(extensions)


def decode_status(body: Buffer) -> tuple[int, bytes]:
    r = Reader(body)
    code = r.u32()
    return code, r.octets() if r.left else b""


def decode_handle(body: Buffer) -> bytes:
    handle = Reader(body).octets()
    if len(handle) > 256:
        raise RemoteProtocolError("handle")
    return handle


def decode_data(body: Buffer) -> memoryview:
    n = int.from_bytes(body[:4], "big")
    if len(body) < 4 or n > len(body) - 4:
        raise RemoteProtocolError("short")
    return memoryview(body)[4 : 4 + n]


def decode_name(body: Buffer) -> list[Name]:
    r = Reader(body)
    return [Name(r.octets(), r.octets(), r.attrs()) for _ in range(r.u32())]


def decode_listing(body: Buffer) -> Listed:
    entries = decode_name(body)
    own = [entry for entry in entries if entry.name == b"."]
    names = [entry for entry in entries if entry.name not in (b".", b"..")]
    good = [entry for entry in names if _is_name(entry.name)]
    return Listed(
        [entry.name for entry in good],
        [_packed(entry) if _kind(entry) else None for entry in good],
        _packed(own[-1]) if own else None,
        len(names) - len(good),
    )


def _is_name(name: bytes) -> bool:
    return 0 < len(name) < 256 and b"/" not in name and b"\0" not in name


FORMATS = {8: (1, b"-"), 4: (2, b"d"), 6: (3, b"b"), 2: (4, b"c"), 10: (5, b"l"), 12: (6, b"s")} | {
    1: (7, b"p")
}
"""Type bits of a mode -> type of a vnode, and the letter of `ls -l`."""


def _kind(entry: Name) -> int:
    """The type bits of the mode, by the mode or by the text; 0 where neither tells."""
    kind = (entry.attrs.mode or 0) >> 12 & 15
    if kind:
        return kind
    shown = {letter: kind for kind, (_, letter) in FORMATS.items()}
    return shown.get(entry.longname[:1], 0) if entry.longname[1:2] in (b"r", b"-") else 0


def _packed(entry: Name) -> bytes:
    kind, attrs = _kind(entry), entry.attrs
    vtype = FORMATS.get(kind, (1, b""))[0] if kind else 0
    mode = attrs.mode
    if mode is None:
        mode = 0o700 if vtype == 2 else 0o600
    mode = mode & 0o7777 | (kind if kind in FORMATS or not kind else 8) << 12
    words = entry.longname.split(None, 2)
    is_count = len(words) == 3 and words[1].isdigit() and len(words[1]) < 10
    links = (int(words[1]) or 1) if is_count else 1
    owner = (65534, 65534) if attrs.uid is None else (attrs.uid, attrs.gid)
    times = (attrs.atime or 0, attrs.mtime or 0)
    what = vtype | (16 if attrs.uid is None else 0)
    return struct.pack("<Q5IHB", attrs.size or 0, *owner, *times, links, mode, what)


def name_number(directory: int, name: bytes) -> int:
    """60 bits of SipHash-2-4 with the key (directory, 0)."""
    mask = 2**64 - 1
    state = [
        directory ^ 0x736F6D6570736575,
        0x646F72616E646F6D,
        directory ^ 0x6C7967656E657261,
        0x7465646279746573,
    ]

    def rotated(x: int, by: int) -> int:
        return (x << by | x >> 64 - by) & mask

    def turn(times: int) -> None:
        a, b, c, d = state
        for _ in range(times):
            a = a + b & mask
            b = rotated(b, 13) ^ a
            a = rotated(a, 32)
            c = c + d & mask
            d = rotated(d, 16) ^ c
            a = a + d & mask
            d = rotated(d, 21) ^ a
            c = c + b & mask
            b = rotated(b, 17) ^ c
            c = rotated(c, 32)
        state[:] = a, b, c, d

    padded = name + bytes(7 - len(name) % 8) + bytes([len(name) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        state[3] ^= word
        turn(2)
        state[0] ^= word
    state[2] ^= 0xFF
    turn(4)
    return (state[0] ^ state[1] ^ state[2] ^ state[3]) >> 4


def decode_attrs(body: Buffer) -> Attrs:
    return Reader(body).attrs()


def decode_statvfs(body: Buffer) -> Statvfs:
    r = Reader(body)
    return Statvfs(*(r.u64() for _ in range(11)))


def decode_limits(body: Buffer) -> Limits:
    r = Reader(body)
    return Limits(r.u64(), r.u64(), r.u64(), r.u64())


def decode_users_groups(body: Buffer) -> tuple[list[bytes], list[bytes]]:
    r = Reader(body)
    lists: tuple[list[bytes], list[bytes]] = ([], [])
    for names in lists:
        inner = Reader(r.octets())
        while inner.left:
            names.append(inner.octets())
    return lists
