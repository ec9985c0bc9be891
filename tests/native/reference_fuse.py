"""FUSE messages in plain Python, from Linux' fuse.h: what the C codec must agree with.

Requests are made by format strings of `struct`, replies are taken apart the same way. As in
Linux' kernel, what is wrong in a reply makes it an error as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from syspuffs.native.errors import LocalProtocolError, RemoteProtocolError
from syspuffs.native.fuse_protocol import (
    Entry,
    FuseDirent,
    InitReply,
    InvalEntry,
    InvalInode,
    Lock,
    Opened,
    Retrieve,
    Store,
)
from syspuffs.native.records import VATTR_NULL, Cred, Statvfs, Vattr

DAY = 86_400 * 10**9
IFMT_TO_VTYPE = {1: 7, 2: 4, 4: 2, 6: 3, 8: 1, 10: 5, 12: 6}
I63 = 2**63 - 1

# opcode, format of what comes before the names; by name of the function.
HEADS = {
    "init": (26, "5I44x"),
    "destroy": (38, ""),
    "lookup": (1, ""),
    "forget": (2, "Q"),
    "getattr": (3, "I4xQ"),
    "setattr": (4, "I4xQq8xqq8xII4xI4xII4x"),
    "readlink": (5, ""),
    "symlink": (6, ""),
    "mknod": (8, "III4x"),
    "mkdir": (9, "II"),
    "unlink": (10, ""),
    "rmdir": (11, ""),
    "rename": (12, "Q"),
    "rename2": (45, "QI4x"),
    "link": (13, "Q"),
    "open_": (14, "I4x"),
    "opendir": (27, "I4x"),
    "create": (35, "III4x"),
    "read": (15, "QqI4x8xI4x"),
    "readdir": (28, "QqI4x8xI4x"),
    "readdirplus": (44, "QqI4x8xI4x"),
    "write": (16, "QqI4x8xI4x"),
    "statfs": (17, ""),
    "release": (18, "QI4x8x"),
    "releasedir": (29, "QI4x8x"),
    "flush": (25, "Q8xQ"),
    "fsync": (20, "QI4x"),
    "fsyncdir": (30, "QI4x"),
    "setxattr": (21, "II"),
    "getxattr": (22, "I4x"),
    "listxattr": (23, "I4x"),
    "removexattr": (24, ""),
    "access": (34, "I4x"),
    "getlk": (31, "QQqqII8x"),
    "setlk": (32, "QQqqII8x"),
    "setlkw": (33, "QQqqII8x"),
    "interrupt": (36, "Q"),
    "poll": (40, "QQII"),
    "notify_reply": (41, "8xqI4x16x"),
    "fallocate": (43, "QqqI4x"),
    "lseek": (46, "QqI4x"),
    "copy_file_range": (47, "QqQQqqq"),
    "syncfs": (50, "8x"),
}
SIZE_AT = {"write": 2, "setxattr": 0, "notify_reply": 1}


def _numbers(name: str, args: Sequence[Any]) -> tuple[list[Any], list[bytes]]:
    """Split arguments into numbers, in the order of the message, and names."""
    names = [arg for arg in args if isinstance(arg, bytes)]
    numbers: list[Any] = [arg for arg in args if not isinstance(arg, bytes)]
    if name == "init":
        flags = numbers.pop()
        numbers += [flags & 0xFFFFFFFF, flags >> 32]
    elif name == "setattr":
        valid, fh, size, atime, mtime, mode, uid, gid = numbers
        (asec, ans), (msec, mns) = divmod(atime, 10**9), divmod(mtime, 10**9)
        numbers = [valid, fh, size, asec, msec, ans, mns, mode, uid, gid]
    elif name in ("getlk", "setlk", "setlkw"):
        *numbers, lock = numbers
        numbers += lock
    return numbers, names


def request(name: str, unique: int, nodeid: int, cred: Cred, *args: Any) -> bytes:
    """Return the message that `fuse_requests.NAME` makes."""
    try:
        if name == "batch_forget":
            opcode, beside = 42, 0
            (counts,) = args
            body = struct.pack("=I4x", len(counts))
            body += b"".join(struct.pack("=QQ", *pair) for pair in counts)
        else:
            opcode, head = HEADS[name]
            numbers, names = _numbers(name, args)
            beside = numbers[SIZE_AT[name]] if name in SIZE_AT else 0
            body = struct.pack("=" + head, *numbers)
            for text in names:
                if b"\0" in text:
                    raise LocalProtocolError("NUL")
                body += text + b"\0"
        if beside > 2**20 or 40 + len(body) > 65536:
            raise LocalProtocolError("too long")
        total = 40 + len(body) + beside
        pid = max(cred.pid, 0)
        header = (total, opcode, unique, nodeid, cred.uid, cred.gid, pid, 0)
        return struct.pack("=IIQQIIII", *header) + body
    except struct.error as exc:
        raise LocalProtocolError(str(exc)) from exc


def _check(condition: bool) -> None:
    if not condition:
        raise RemoteProtocolError("nonsense")


class Reader:
    """Octets from the beginning on."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def take(self, form: str) -> Any:
        form = "=" + form
        _check(self.at + struct.calcsize(form) <= len(self.body))
        values = struct.unpack_from(form, self.body, self.at)
        self.at += struct.calcsize(form)
        return values

    def octets(self, n: int) -> bytes:
        _check(self.at + n <= len(self.body))
        self.at += n
        return self.body[self.at - n : self.at]

    def end(self) -> None:
        _check(self.at == len(self.body))


def header(buf: bytes, total: int) -> tuple[int, int]:
    length, error, unique = Reader(buf).take("IiQ")
    _check(length == total)
    _check(error > 0 if unique == 0 else -512 < error <= 0)
    return error, unique


def _ttl(s: int, ns: int) -> int:
    _check(ns < 10**9)
    return DAY if s >= 86_400 else s * 10**9 + ns


def _time(s: int, ns: int) -> int:
    _check(ns < 10**9 and -9223372034 <= s <= 9223372035)
    return int(s * 10**9 + ns)


def _attr(reader: Reader) -> Vattr:
    ino, size, blocks, *s = reader.take("QQQqqq")
    *ns, mode, nlink, uid, gid, rdev, blksize, _flags = reader.take("10I")
    _check(size <= I63)
    times = [_time(*pair) for pair in zip(s, ns, strict=True)]
    vtype = IFMT_TO_VTYPE.get(mode >> 12)
    _check(vtype is not None)
    return Vattr(
        vtype=vtype,
        mode=mode & 0o7777,
        nlink=nlink,
        uid=uid,
        gid=gid,
        fileid=ino & I63,
        size=size,
        blocksize=blksize,
        atime=times[0],
        mtime=times[1],
        ctime=times[2],
        rdev=rdev,
        bytes=blocks * 512 if blocks <= I63 // 512 else I63,
    )


def _entry(reader: Reader) -> Entry:
    nodeid, generation, entry_s, attr_s, entry_ns, attr_ns = reader.take("QQQQII")
    ttls = _ttl(entry_s, entry_ns), _ttl(attr_s, attr_ns)
    if nodeid:
        return Entry(nodeid, generation, *ttls, _attr(reader))
    reader.octets(88)
    return Entry(nodeid, generation, *ttls, VATTR_NULL)


def _opened(reader: Reader) -> Opened:
    return Opened(*reader.take("QI4x"))


def _name(reader: Reader, length: int) -> bytes:
    _check(1 <= length <= 255)
    name = reader.octets(length)
    _check(b"/" not in name and b"\0" not in name)
    return name


def _dirents(reader: Reader, plus: bool) -> list[FuseDirent]:
    found = []
    head = 152 if plus else 24
    while len(reader.body) - reader.at >= head:
        (length,) = struct.unpack_from("=I", reader.body, reader.at + head - 8)
        _check(1 <= length <= 255)
        size = (head + length + 7) // 8 * 8
        if size > len(reader.body) - reader.at:
            break
        entry = _entry(reader) if plus else None
        ino, offset, _, kind = reader.take("QQII")
        name = _name(reader, length)
        _check(0 < offset <= I63)
        vtype = IFMT_TO_VTYPE.get(kind, 0)
        found.append(FuseDirent(ino & I63, vtype, offset, name, entry))
        reader.octets(size - head - length)
    reader.at = len(reader.body)
    return found


def _init(reader: Reader) -> InitReply:
    values = list(reader.take("II"))
    if len(reader.body) != 8:
        values += reader.take("IIHHI")
        if len(reader.body) != 24:
            values += reader.take("IHHIIH22x")
    return InitReply(*values, *[0] * (13 - len(values)))


def _statfs(reader: Reader) -> Statvfs:
    *counts, bsize, namelen, frsize = reader.take("5QIII28x")
    blocks, bfree, bavail, files, ffree = [min(n, I63) for n in counts]
    numbers = (blocks, bfree, bavail, files, ffree, ffree)
    return Statvfs(bsize, frsize or bsize, *numbers, namemax=namelen)


def _lock(reader: Reader) -> Lock:
    start, end, kind, pid = reader.take("QQII")
    start, end = min(start, I63), min(end, I63)
    _check(kind <= 2 and (kind == 2 or start <= end))
    return Lock(start, end, kind, pid)


def body(name: str, octets: bytes) -> Any:
    """Return what `fuse_replies.NAME` does."""
    reader = Reader(octets)
    value: Any
    if name == "entry":
        value = _entry(reader)
    elif name == "attr":
        s, ns = reader.take("QI4x")
        ttl = _ttl(s, ns)
        value = _attr(reader), ttl
    elif name == "opened":
        value = _opened(reader)
    elif name == "created":
        value = _entry(reader), _opened(reader)
    elif name == "count":
        value = reader.take("I4x")[0]
    elif name == "offset":
        value = reader.take("Q")[0]
        _check(value <= I63)
    elif name == "statfs":
        value = _statfs(reader)
    elif name == "lock":
        value = _lock(reader)
    elif name == "init":
        value = _init(reader)
    else:
        value = _dirents(reader, name == "dirents_plus")
    reader.end()
    return value


def notification(octets: bytes, code: int) -> Any:
    """Return what a notification says."""
    reader = Reader(octets)
    value: Any = None
    _check(1 <= code <= 8)
    if code == 1:
        reader.take("Q")
    elif code == 2:
        value = InvalInode(*reader.take("Qqq"))
    elif code in (3, 6):
        form = "QII" if code == 3 else "Q8xI4x"
        parent, length = reader.take(form)[:2]
        value = InvalEntry(parent, _name(reader, length))
        _check(reader.octets(1) == b"\0")
    elif code == 4:
        nodeid, offset, size = reader.take("QQI4x")
        _check(offset <= I63)
        reader.octets(size)
        value = Store(nodeid, offset, size)
    elif code == 5:
        value = Retrieve(*reader.take("QQQI4x"))
        _check(value.offset <= I63)
    reader.end()
    return value
