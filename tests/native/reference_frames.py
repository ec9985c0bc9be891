"""puffs frames in plain Python: what the C codec must do, octet for octet.

Written from the layout in native/frames.py and frame_ops.c, field by field, with `struct`; it has
the same functions, so that a test can put one beside the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from syspuffs.native.constants import (
    FLAG_FAF,
    FLAG_RESPONSE,
    MAXMSGLEN_MAX,
    ErrorNote,
    FlushOp,
    OpClass,
    VfsOp,
    VnOp,
)
from syspuffs.native.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from syspuffs.native.frames import Header
from syspuffs.native.records import (
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Flock,
    Newinfo,
    Statvfs,
    Vattr,
)

VNOVAL = -(2**63)
"""Not set, like None."""
HEADER = struct.Struct("<IHHQQiIiIII")


class Writer:
    """Puts a frame together; every complaint is about us."""

    error: type[ProtocolError] = LocalProtocolError

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.pid = 0
        self.payload_len = 0
        self.setbacks = 0

    def check(self, good: bool, text: str) -> None:
        if not good:
            raise self.error(text)

    def u32(self, v: int) -> None:
        self.check(0 <= v < 2**32, "u32")
        self.parts.append(struct.pack("<I", v))

    def u64(self, v: int) -> None:
        self.check(0 <= v < 2**64, "u64")
        self.parts.append(struct.pack("<Q", v))

    def i64(self, v: int) -> None:
        self.check(-(2**63) <= v < 2**63, "i64")
        self.parts.append(struct.pack("<q", v))

    def string(self, v: bytes) -> None:
        self.u32(len(v))
        self.parts.append(bytes(v))


class Reader:
    """Takes a frame apart; every complaint is about the peer."""

    error: type[ProtocolError] = RemoteProtocolError

    def __init__(self, header: Header, body: bytes, payload: Buffer) -> None:
        self.header = header
        self.body = body
        self.payload = payload
        self.at = 0

    def check(self, good: bool, text: str) -> None:
        if not good:
            raise self.error(text)

    def octets(self, n: int) -> bytes:
        self.check(n <= len(self.body) - self.at, "short")
        self.at += n
        return self.body[self.at - n : self.at]

    def u32(self) -> int:
        (v,) = struct.unpack("<I", self.octets(4))
        return int(v)

    def u64(self) -> int:
        (v,) = struct.unpack("<Q", self.octets(8))
        return int(v)

    def i64(self) -> int:
        (v,) = struct.unpack("<q", self.octets(8))
        return int(v)

    def string(self) -> bytes:
        return self.octets(self.u32())


Side = Writer | Reader
Field = tuple[Callable[[Writer, Any], None], Callable[[Reader], Any]]


def checked(put: Any, get: Any, good: Callable[[Any], bool]) -> Field:
    def put_checked(w: Writer, v: Any) -> None:
        w.check(good(v), "value")
        put(w, v)

    def get_checked(r: Reader) -> Any:
        v = get(r)
        r.check(good(v), "value")
        return v

    return put_checked, get_checked


U32: Field = (Writer.u32, Reader.u32)
U64: Field = (Writer.u64, Reader.u64)
I64: Field = (Writer.i64, Reader.i64)
OFFSET = checked(Writer.i64, Reader.i64, lambda v: v >= 0)
RESID = checked(Writer.u32, Reader.u32, lambda v: v <= MAXMSGLEN_MAX)
COOKIE = checked(Writer.i64, Reader.i64, lambda v: v > 0)


def put_cookie_or_none(w: Writer, v: int | None) -> None:
    OFFSET[0](w, v or 0)


def get_cookie_or_none(r: Reader) -> int | None:
    return OFFSET[1](r) or None


COOKIE_OR_NONE: Field = (put_cookie_or_none, get_cookie_or_none)

NAME = checked(
    Writer.string, Reader.string, lambda v: 1 <= len(v) <= 255 and b"/" not in v and b"\0" not in v
)
NAME_OR_EMPTY = checked(
    Writer.string, Reader.string, lambda v: len(v) <= 255 and b"/" not in v and b"\0" not in v
)
XATTR = checked(Writer.string, Reader.string, lambda v: 1 <= len(v) <= 255 and b"\0" not in v)
XATTR_OR_EMPTY = checked(Writer.string, Reader.string, lambda v: len(v) <= 255 and b"\0" not in v)
TARGET = checked(Writer.string, Reader.string, lambda v: 1 <= len(v) <= 4095 and b"\0" not in v)
LINK = checked(Writer.string, Reader.string, lambda v: len(v) <= 4095 and b"\0" not in v)
BLOB = checked(Writer.string, Reader.string, lambda v: len(v) <= 65536)
HANDLE = checked(Writer.string, Reader.string, lambda v: 1 <= len(v) <= 1020)
TEXT: Field = (
    lambda w, v: w.string(v[:255]),
    checked(Writer.string, Reader.string, lambda v: len(v) <= 255)[1],
)


def put_cred(w: Writer, cred: Cred) -> None:
    w.pid = w.pid or cred.pid
    w.u32(cred.uid)
    w.u32(cred.gid)
    w.check(len(cred.groups) <= 64, "groups")
    w.u32(len(cred.groups))
    for group in cred.groups:
        w.u32(group)


def get_cred(r: Reader) -> Cred:
    uid, gid, n = r.u32(), r.u32(), r.u32()
    r.check(n <= 64, "groups")
    return Cred(uid, gid, tuple(r.u32() for _ in range(n)), r.header.pid)


CRED: Field = (put_cred, get_cred)


def put_cn(w: Writer, cn: Componentname) -> None:
    w.check(0 <= cn.nameiop <= 3, "nameiop")
    w.u32(cn.nameiop)
    w.u32(cn.flags)
    NAME[0](w, cn.name)
    put_cred(w, cn.cred)


def get_cn(r: Reader) -> Componentname:
    nameiop, flags = r.u32(), r.u32()
    r.check(nameiop <= 3, "nameiop")
    name = NAME[1](r)
    return Componentname(nameiop, name, get_cred(r), flags)


CN: Field = (put_cn, get_cn)


def check_vattr(side: Side, field: str, v: int) -> None:
    if field == "vtype":
        side.check(1 <= v <= 7, field)
    elif field == "mode":
        side.check(0 <= v <= 0o7777, field)
    elif field in ("uid", "gid"):
        side.check(0 <= v < 2**32, field)
    elif field in ("atime", "mtime", "ctime", "birthtime"):
        side.check(v != -(2**63), field)
    else:
        side.check(v >= 0, field)


def put_vattr(w: Writer, va: Vattr) -> None:
    va = Vattr(*(None if v == VNOVAL else v for v in va))
    w.u32(sum(1 << i for i, v in enumerate(va) if v is not None))
    for field, v in zip(Vattr._fields, va, strict=True):
        if v is not None:
            check_vattr(w, field, v)
            w.i64(v)


def get_vattr(r: Reader) -> Vattr:
    mask = r.u32()
    r.check(mask < 1 << len(Vattr._fields), "mask")
    values: list[int | None] = []
    for i, field in enumerate(Vattr._fields):
        if mask & 1 << i:
            v = r.i64()
            check_vattr(r, field, v)
            values.append(v)
        else:
            values.append(None)
    return Vattr(*values)


VATTR: Field = (put_vattr, get_vattr)


def put_vattr_ttl(w: Writer, result: tuple[Vattr, int]) -> None:
    put_vattr(w, result[0])
    OFFSET[0](w, result[1])


VATTR_TTL: Field = (put_vattr_ttl, lambda r: (get_vattr(r), OFFSET[1](r)))


def put_newinfo(w: Writer, info: Newinfo) -> None:
    w.check(0 <= info.vtype <= 7 and (info.vtype != 0 or info.cookie == 0), "vtype")
    OFFSET[0](w, info.cookie)
    w.u32(info.vtype)
    w.u32(info.va is not None)
    for v in (info.size, info.rdev, info.va_ttl, info.cn_ttl):
        OFFSET[0](w, v)
    if info.va is not None:
        put_vattr(w, info.va)


def get_newinfo(r: Reader) -> Newinfo:
    cookie, vtype, has_va = OFFSET[1](r), r.u32(), r.u32()
    r.check(vtype <= 7 and (vtype != 0 or cookie == 0) and has_va <= 1, "newinfo")
    size, rdev, va_ttl, cn_ttl = (OFFSET[1](r) for _ in range(4))
    va = get_vattr(r) if has_va else None
    return Newinfo(Cookie(cookie), vtype, size, rdev, va, va_ttl, cn_ttl)


NEWINFO: Field = (put_newinfo, get_newinfo)


def put_flock(w: Writer, lock: Flock) -> None:
    w.check(0 <= lock.type <= 2, "lock")
    w.u32(lock.type)
    OFFSET[0](w, lock.start)
    OFFSET[0](w, lock.len)
    w.i64(lock.pid)


def get_flock(r: Reader) -> Flock:
    kind = r.u32()
    r.check(kind <= 2, "lock")
    return Flock(kind, OFFSET[1](r), OFFSET[1](r), r.i64())


FLOCK: Field = (put_flock, get_flock)


def put_statvfs(w: Writer, state: Statvfs) -> None:
    for v in state:
        w.u64(v)


STATVFS: Field = (put_statvfs, lambda r: Statvfs(*(r.u64() for _ in Statvfs._fields)))


def put_dirents(w: Writer, result: tuple[list[Dirent], bool]) -> None:
    entries, eof = result
    w.u32(len(entries))
    w.u32(bool(eof))
    for e in entries:
        OFFSET[0](w, e.fileid)
        OFFSET[0](w, e.offset)
        w.check(0 <= e.vtype <= 7, "vtype")
        w.u32(e.vtype | (0x100 if e.newinfo is not None else 0))
        NAME[0](w, e.name)
        if e.newinfo is not None:
            put_newinfo(w, e.newinfo)


def get_dirents(r: Reader) -> tuple[tuple[Dirent, ...], bool]:
    n, eof = r.u32(), r.u32()
    r.check(eof <= 1, "eof")
    entries = []
    for _ in range(n):
        fileid, offset, vtype = OFFSET[1](r), OFFSET[1](r), r.u32()
        name = NAME[1](r)
        r.check(vtype & ~0x100 <= 7, "vtype")
        newinfo = get_newinfo(r) if vtype & 0x100 else None
        entries.append(Dirent(fileid, vtype & 7, name, offset, newinfo))
    return tuple(entries), bool(eof)


DIRENTS: Field = (put_dirents, get_dirents)


def put_payload(w: Writer, data: Buffer | None) -> None:
    if data is not None:
        w.check(w.payload_len in (0, len(data)), "payload")
        w.payload_len = len(data)


PAYLOAD: Field = (put_payload, lambda r: r.payload)


def put_setbacks(w: Writer, setbacks: int) -> None:
    w.setbacks |= setbacks


SETBACKS: Field = (put_setbacks, lambda r: r.header.setbacks)
NOTHING: Field = (lambda w, v: w.check(v is None, "result"), lambda r: None)


def put_open(w: Writer, result: tuple[int, int]) -> None:
    w.u32(result[0])
    put_setbacks(w, result[1])


OPEN: Field = (put_open, lambda r: (r.u32(), r.header.setbacks))

VFS, VN = OpClass.VFS, OpClass.VN

REQUESTS: dict[tuple[int, int], tuple[Field, ...]] = {
    (VFS, VfsOp.UNMOUNT): (U32,),
    (VFS, VfsOp.STATVFS): (),
    (VFS, VfsOp.SYNC): (U32, CRED),
    (VFS, VfsOp.FHTOVP): (HANDLE,),
    (VFS, VfsOp.VPTOFH): (),
    (VFS, VfsOp.EXTATTRCTL): (U32, U32, XATTR_OR_EMPTY),
    (VN, VnOp.LOOKUP): (CN,),
    (VN, VnOp.CREATE): (CN, VATTR),
    (VN, VnOp.MKNOD): (CN, VATTR),
    (VN, VnOp.OPEN): (U32, CRED),
    (VN, VnOp.CLOSE): (U32, CRED),
    (VN, VnOp.ACCESS): (U32, CRED),
    (VN, VnOp.GETATTR): (CRED,),
    (VN, VnOp.SETATTR): (VATTR, CRED),
    (VN, VnOp.READ): (OFFSET, RESID, U32, CRED),
    (VN, VnOp.WRITE): (OFFSET, PAYLOAD, U32, CRED),
    (VN, VnOp.POLL): (U32,),
    (VN, VnOp.MMAP): (U32, CRED),
    (VN, VnOp.FSYNC): (U32, OFFSET, OFFSET, CRED),
    (VN, VnOp.SEEK): (OFFSET, OFFSET, CRED),
    (VN, VnOp.REMOVE): (COOKIE, CN),
    (VN, VnOp.LINK): (COOKIE, CN),
    (VN, VnOp.RENAME): (COOKIE, CN, COOKIE, COOKIE_OR_NONE, CN),
    (VN, VnOp.MKDIR): (CN, VATTR),
    (VN, VnOp.RMDIR): (COOKIE, CN),
    (VN, VnOp.SYMLINK): (CN, VATTR, TARGET),
    (VN, VnOp.READDIR): (OFFSET, RESID, U32, CRED),
    (VN, VnOp.READLINK): (CRED,),
    (VN, VnOp.ABORTOP): (CN,),
    (VN, VnOp.INACTIVE): (),
    (VN, VnOp.RECLAIM): (OFFSET,),
    (VN, VnOp.PRINT): (),
    (VN, VnOp.PATHCONF): (U32,),
    (VN, VnOp.ADVLOCK): (U64, U32, FLOCK, U32),
    (VN, VnOp.GETEXTATTR): (U32, XATTR, CRED),
    (VN, VnOp.LISTEXTATTR): (U32, CRED),
    (VN, VnOp.DELETEEXTATTR): (U32, XATTR, CRED),
    (VN, VnOp.SETEXTATTR): (U32, XATTR, BLOB, U32, CRED),
    (VN, VnOp.FALLOCATE): (OFFSET, OFFSET),
    (VN, VnOp.FDISCARD): (OFFSET, OFFSET),
    (VN, VnOp.SEEK_DATA): (OFFSET, U32, CRED),
    (VN, VnOp.COPY_FILE_RANGE): (OFFSET, COOKIE, OFFSET, OFFSET, CRED),
    (VN, VnOp.RENAME_WITH): (COOKIE, CN, COOKIE, COOKIE_OR_NONE, CN, U32),
    **{(OpClass.ERROR, kind): (U32, TEXT) for kind in ErrorNote},
    **{(OpClass.FLUSH, op): (OFFSET, OFFSET, NAME_OR_EMPTY) for op in FlushOp},
    (OpClass.UNMOUNT, 0): (),
}

REPLIES: dict[tuple[int, int], Field] = {
    **dict.fromkeys(REQUESTS, NOTHING),
    (VFS, VfsOp.STATVFS): STATVFS,
    (VFS, VfsOp.FHTOVP): NEWINFO,
    (VFS, VfsOp.VPTOFH): HANDLE,
    (VN, VnOp.LOOKUP): NEWINFO,
    (VN, VnOp.CREATE): NEWINFO,
    (VN, VnOp.MKNOD): NEWINFO,
    (VN, VnOp.OPEN): OPEN,
    (VN, VnOp.GETATTR): VATTR_TTL,
    (VN, VnOp.SETATTR): VATTR_TTL,
    (VN, VnOp.READ): PAYLOAD,
    (VN, VnOp.POLL): U32,
    (VN, VnOp.MMAP): SETBACKS,
    (VN, VnOp.REMOVE): SETBACKS,
    (VN, VnOp.LINK): VATTR_TTL,
    (VN, VnOp.MKDIR): NEWINFO,
    (VN, VnOp.RMDIR): SETBACKS,
    (VN, VnOp.SYMLINK): NEWINFO,
    (VN, VnOp.READDIR): DIRENTS,
    (VN, VnOp.READLINK): LINK,
    (VN, VnOp.INACTIVE): SETBACKS,
    (VN, VnOp.PRINT): BLOB,
    (VN, VnOp.PATHCONF): I64,
    (VN, VnOp.SEEK_DATA): OFFSET,
    (VN, VnOp.COPY_FILE_RANGE): OFFSET,
    (VN, VnOp.ADVLOCK): FLOCK,
    (VN, VnOp.GETEXTATTR): BLOB,
    (VN, VnOp.LISTEXTATTR): BLOB,
}

ALWAYS_FAF = {
    (VN, VnOp.CLOSE),
    (VN, VnOp.ABORTOP),
    (VN, VnOp.RECLAIM),
    *((OpClass.ERROR, kind) for kind in ErrorNote),
}
for faf in ALWAYS_FAF:
    del REPLIES[faf]
WITHOUT_COOKIE = {
    (VFS, VfsOp.UNMOUNT),
    (VFS, VfsOp.STATVFS),
    (VFS, VfsOp.SYNC),
    (VFS, VfsOp.FHTOVP),
    (VFS, VfsOp.EXTATTRCTL),
    *(key for key in REQUESTS if key[0] not in (VFS, VN)),
}
WITH_SETBACKS = {(VN, op) for op in (VnOp.OPEN, VnOp.MMAP, VnOp.REMOVE, VnOp.RMDIR, VnOp.INACTIVE)}
WITH_PAYLOAD = {(VN, VnOp.READ), (VN, VnOp.WRITE)}


def frame_length(buf: Buffer, start: int, end: int) -> int:
    if end - start < 4:
        return 0
    n = int.from_bytes(buf[start : start + 4], "little")
    if not 48 <= n <= MAXMSGLEN_MAX:
        raise RemoteProtocolError("framelen")
    return n


def decode_header(buf: Buffer) -> Header:
    if len(buf) < HEADER.size:
        raise RemoteProtocolError("short")
    header = Header(*HEADER.unpack_from(buf))
    if not 48 <= header.framelen <= MAXMSGLEN_MAX:
        raise RemoteProtocolError("framelen")
    if header.payload_len > header.framelen - 48:
        raise RemoteProtocolError("payload_len")
    if header.id >= 2**63 or header.cookie >= 2**63:
        raise RemoteProtocolError("id or cookie")
    if not 0 <= header.rv <= 4095 or header.setbacks > 15:
        raise RemoteProtocolError("rv or setbacks")
    return header


def encode(
    w: Writer, opclass: int, optype: int, id: int, cookie: int, rv: int, buflen: int
) -> bytes:
    body = b"".join(w.parts)
    w.check(0 <= id < 2**63 and 0 <= cookie < 2**63, "id or cookie")
    w.check(0 <= rv <= 4095 and 0 <= w.setbacks <= 15, "rv or setbacks")
    w.check(0 <= optype < 2**16, "optype")
    w.check(-(2**31) <= w.pid < 2**31 and 0 <= buflen < 2**32, "pid or buflen")
    framelen = HEADER.size + len(body) + w.payload_len
    w.check(w.payload_len >= 0 and framelen <= MAXMSGLEN_MAX, "framelen")
    return (
        HEADER.pack(
            framelen,
            opclass,
            optype,
            id,
            cookie,
            rv,
            w.setbacks,
            w.pid,
            0,
            buflen,
            w.payload_len,
        )
        + body
    )


def encode_request(
    opclass: int,
    optype: int,
    id: int,
    cookie: int,
    args: tuple[Any, ...],
    *,
    payload_len: int = 0,
    buflen: int = 0,
    pid: int = 0,
) -> bytes:
    key = (opclass & 7, optype)
    if key not in REQUESTS or opclass & ~(7 | FLAG_FAF):
        raise LocalProtocolError("no such operation")
    w = Writer()
    w.payload_len = payload_len
    w.check(payload_len == 0 or key == (VN, VnOp.WRITE), "payload")
    for (put, _), arg in zip(REQUESTS[key], args, strict=True):
        put(w, arg)
    w.pid = w.pid or pid
    w.check(cookie > 0 or key in WITHOUT_COOKIE, "cookie")
    if key in ALWAYS_FAF:
        opclass |= FLAG_FAF
    return encode(w, opclass, optype, id, cookie, 0, buflen)


def encode_reply(
    opclass: int,
    optype: int,
    id: int,
    cookie: int,
    result: Any,
    *,
    setbacks: int = 0,
    payload_len: int = 0,
) -> bytes:
    key = (opclass, optype)
    if key not in REPLIES:
        raise LocalProtocolError("no such operation")
    w = Writer()
    w.payload_len = payload_len
    w.setbacks = setbacks
    w.check(payload_len == 0 or key == (VN, VnOp.READ), "payload")
    REPLIES[key][0](w, result)
    w.check(w.setbacks == 0 or key in WITH_SETBACKS, "setbacks")
    return encode(w, opclass | FLAG_RESPONSE, optype, id, cookie, 0, 0)


def encode_error(opclass: int, optype: int, id: int, cookie: int, errno: int) -> bytes:
    if errno == 0 or opclass & ~7:
        raise LocalProtocolError("no error")
    return encode(Writer(), opclass | FLAG_RESPONSE, optype, id, cookie, errno, 0)


def open_frame(buf: Buffer) -> tuple[Header, Reader]:
    header = decode_header(buf)
    if len(buf) != header.framelen:
        raise RemoteProtocolError("length")
    end = header.framelen - header.payload_len
    return header, Reader(header, bytes(buf[48:end]), memoryview(buf)[end:])


def decode_request(buf: Buffer) -> tuple[Header, tuple[Any, ...]]:
    header, r = open_frame(buf)
    key = (header.opclass & 7, header.optype)
    r.check(key in REQUESTS and not header.opclass & ~(7 | FLAG_FAF), "operation")
    r.check(bool(header.opclass & FLAG_FAF) or key not in ALWAYS_FAF, "flag")
    r.check(header.cookie > 0 or key in WITHOUT_COOKIE, "cookie")
    r.check(header.rv == 0 and header.setbacks == 0, "rv or setbacks")
    r.check(header.payload_len == 0 or key == (VN, VnOp.WRITE), "payload")
    args = tuple(get(r) for _, get in REQUESTS[key])
    r.check(r.at == len(r.body), "trailing octets")
    return header, args


def decode_reply(buf: Buffer) -> tuple[Header, Any]:
    header, r = open_frame(buf)
    key = (header.opclass & 7, header.optype)
    r.check(header.opclass & ~7 == FLAG_RESPONSE, "flags")
    get = NOTHING[1]
    if header.rv == 0:
        r.check(key in REPLIES, "operation")
        get = REPLIES[key][1]
    r.check(header.setbacks == 0 or (header.rv == 0 and key in WITH_SETBACKS), "setbacks")
    r.check(header.payload_len == 0 or (header.rv == 0 and key == (VN, VnOp.READ)), "payload")
    result = get(r)
    r.check(r.at == len(r.body), "trailing octets")
    return header, result
