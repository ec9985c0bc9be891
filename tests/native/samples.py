"""Legal messages, one or more of each kind: what mutation tests and fuzzers start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from syspuffs.native import frames, sftp, sftp_server
from syspuffs.native.constants import ErrorNote, FlushOp, NameiOp, OpClass, VfsOp, VnOp
from syspuffs.native.records import (
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Flock,
    Newinfo,
    Statvfs,
    Vattr,
)

CRED = Cred(1000, 100, (), 4711)
MEMBER = Cred(1000, 100, (4, 24, 2**32 - 1), 4711)
CN = Componentname(NameiOp.CREATE, b"name", MEMBER, 0x8000)
CN2 = Componentname(NameiOp.RENAME, b"other name", CRED._replace(groups=(7,)), 0x8000)
FULL = Vattr(1, 0o644, 1, 1000, 100, 3, 4, 5, 4096, 10, -11, 12, 13, 14, 15, 16, 512)
PART = Vattr(vtype=2, mode=0o755, mtime=-1)
INFO = Newinfo(Cookie(99), 1, 5, 0, PART, 10**9, 2 * 10**9)
DIRENTS = (
    Dirent(2, 2, b".", 1),
    Dirent(2, 2, b"..", 2),
    Dirent(4, 1, b"name", 3, INFO),
    Dirent(5, 0, b"x" * 255, 4, Newinfo(Cookie(7), 5, 0, 259)),
)
VFS, VN = OpClass.VFS, OpClass.VN

REQUESTS: dict[tuple[int, int], tuple[Any, ...]] = {
    (VFS, VfsOp.UNMOUNT): (0x80000,),
    (VFS, VfsOp.STATVFS): (),
    (VFS, VfsOp.SYNC): (1, CRED),
    (VFS, VfsOp.FHTOVP): (b"a handle\0",),
    (VFS, VfsOp.VPTOFH): (),
    (VFS, VfsOp.EXTATTRCTL): (1, 2, b"user.a"),
    (VN, VnOp.LOOKUP): (CN,),
    (VN, VnOp.CREATE): (CN, PART),
    (VN, VnOp.MKNOD): (CN, FULL),
    (VN, VnOp.OPEN): (3, CRED),
    (VN, VnOp.CLOSE): (3, MEMBER),
    (VN, VnOp.ACCESS): (4, CRED),
    (VN, VnOp.GETATTR): (MEMBER,),
    (VN, VnOp.SETATTR): (Vattr(size=0), MEMBER),
    (VN, VnOp.READ): (2**33, 65536, 4, CRED),
    (VN, VnOp.WRITE): (2**33, b"file data", 0x20, MEMBER),
    (VN, VnOp.POLL): (1,),
    (VN, VnOp.MMAP): (5, CRED),
    (VN, VnOp.FSYNC): (1, 0, 4096, CRED),
    (VN, VnOp.SEEK): (0, 2**62, CRED),
    (VN, VnOp.REMOVE): (8, CN),
    (VN, VnOp.LINK): (8, CN),
    (VN, VnOp.RENAME): (8, CN, 9, 10, CN2),
    (VN, VnOp.MKDIR): (CN, PART),
    (VN, VnOp.RMDIR): (8, CN2),
    (VN, VnOp.SYMLINK): (CN, Vattr(5, 0o777), b"../target"),
    (VN, VnOp.READDIR): (3, 4096, 1, CRED),
    (VN, VnOp.READLINK): (CRED,),
    (VN, VnOp.ABORTOP): (CN2,),
    (VN, VnOp.INACTIVE): (),
    (VN, VnOp.RECLAIM): (3,),
    (VN, VnOp.PRINT): (),
    (VN, VnOp.PATHCONF): (4,),
    (VN, VnOp.ADVLOCK): (2**64 - 1, 6, Flock(1, 0, 100, 4711), 2),
    (VN, VnOp.GETEXTATTR): (1, b"user.mime/type", MEMBER),
    (VN, VnOp.LISTEXTATTR): (1, CRED),
    (VN, VnOp.DELETEEXTATTR): (1, b"user.a", CRED),
    (VN, VnOp.SETEXTATTR): (1, b"user.a", b"\0value", 2, MEMBER),
    (VN, VnOp.FALLOCATE): (0, 4096),
    (VN, VnOp.FDISCARD): (4096, 2**40),
    (VN, VnOp.SEEK_DATA): (2**40, 4, MEMBER),
    (VN, VnOp.COPY_FILE_RANGE): (2**33, 9, 0, 2**32, MEMBER),
    (VN, VnOp.RENAME_WITH): (8, CN, 9, None, CN2, 1),
    **{(OpClass.ERROR, kind): (71, b"bad vtype") for kind in ErrorNote},
    **{(OpClass.FLUSH, op): (0, 8192, b"name") for op in FlushOp},
    (OpClass.UNMOUNT, 0): (),
}
"""Arguments by operation."""

_VA_TTL = (FULL, 10**9)
REPLIES: dict[tuple[int, int], Any] = {
    (VFS, VfsOp.UNMOUNT): None,
    (VFS, VfsOp.STATVFS): Statvfs(4096, 4096, 2**40, 5, 6, 7, 8, 9, 2**64 - 1, 1, 255),
    (VFS, VfsOp.SYNC): None,
    (VFS, VfsOp.FHTOVP): INFO,
    (VFS, VfsOp.VPTOFH): b"a handle\0",
    (VFS, VfsOp.EXTATTRCTL): None,
    (VN, VnOp.LOOKUP): INFO,
    (VN, VnOp.CREATE): INFO._replace(va=None),
    (VN, VnOp.MKNOD): Newinfo(Cookie(3), 4, 0, 259, FULL),
    (VN, VnOp.OPEN): (1, 1),
    (VN, VnOp.ACCESS): None,
    (VN, VnOp.GETATTR): _VA_TTL,
    (VN, VnOp.SETATTR): (PART, 0),
    (VN, VnOp.READ): b"file data",
    (VN, VnOp.WRITE): None,
    (VN, VnOp.POLL): 1,
    (VN, VnOp.MMAP): 1,
    (VN, VnOp.FSYNC): None,
    (VN, VnOp.SEEK): None,
    (VN, VnOp.REMOVE): 10,
    (VN, VnOp.LINK): _VA_TTL,
    (VN, VnOp.RENAME): None,
    (VN, VnOp.MKDIR): INFO._replace(vtype=2),
    (VN, VnOp.RMDIR): 8,
    (VN, VnOp.SYMLINK): INFO._replace(vtype=5),
    (VN, VnOp.READDIR): (DIRENTS, True),
    (VN, VnOp.READLINK): b"../target",
    (VN, VnOp.INACTIVE): 4,
    (VN, VnOp.PRINT): b"a line",
    (VN, VnOp.PATHCONF): -1,
    (VN, VnOp.ADVLOCK): Flock(2, 0, 0, -1),
    (VN, VnOp.GETEXTATTR): b"\0value",
    (VN, VnOp.LISTEXTATTR): b"user.a\0user.b\0",
    (VN, VnOp.DELETEEXTATTR): None,
    (VN, VnOp.SETEXTATTR): None,
    (VN, VnOp.FALLOCATE): None,
    (VN, VnOp.FDISCARD): None,
    (VN, VnOp.SEEK_DATA): 2**41,
    (VN, VnOp.COPY_FILE_RANGE): 2**31,
    (VN, VnOp.RENAME_WITH): None,
    **{(OpClass.FLUSH, op): None for op in FlushOp},
    (OpClass.UNMOUNT, 0): None,
}
"""Results by operation."""


def request_frames() -> Iterator[bytes]:
    """One whole frame of each request."""
    for (opclass, optype), args in REQUESTS.items():
        data = args[1] if (opclass, optype) == (VN, VnOp.WRITE) else b""
        yield frames.encode_request(opclass, optype, 7, 11, args, buflen=4096) + data


def reply_frames() -> Iterator[bytes]:
    """One whole frame of each reply, some more directory listings, and an error."""
    for (opclass, optype), result in REPLIES.items():
        data = result if (opclass, optype) == (VN, VnOp.READ) else b""
        yield frames.encode_reply(opclass, optype, 7, 11, result) + data
    for listing in (((), True), (DIRENTS[:2], False)):
        yield frames.encode_reply(VN, VnOp.READDIR, 7, 11, listing)
    yield frames.encode_reply(VN, VnOp.LOOKUP, 7, 11, Newinfo(Cookie(0), 0, cn_ttl=5))
    yield frames.encode_error(VN, VnOp.LOOKUP, 7, 11, 5)
    yield frames.encode_error(VN, 60, 7, 11, 95)


def _string(octets: bytes) -> bytes:
    return len(octets).to_bytes(4, "big") + octets


def attributes(attrs: sftp.Attrs) -> bytes:
    """Attributes as they are on the wire."""
    return sftp.fsetstat(0, b"", attrs)[13:]


_ATTRS = sftp.Attrs(5, 1000, 100, 0o100644, 10, 2**32 - 1)
_EXTENDED = (
    b"\x80\0\0\5" + bytes(8) + b"\0\0\x81\xa4" + b"\0\0\0\1" + _string(b"a@b") + _string(b"v")
)
_ENTRIES = [
    _string(b".") + _string(b"drwxr-xr-x .") + attributes(_ATTRS),
    _string(b"name") + _string(b"") + attributes(sftp.Attrs(mode=0o100644)),
    _string(b"bare") + _string(b"") + attributes(sftp.Attrs()),
    _string(b"more") + _string(b"") + _EXTENDED,
]
BODIES: list[tuple[str, bytes]] = [
    ("version", b"\0\0\0\3"),
    ("version", b"\0\0\0\3" + _string(b"limits@openssh.com") + _string(b"1") + _string(b"x") * 2),
    ("status", b"\0\0\0\2" + _string(b"No such file") + _string(b"en")),
    ("status", b"\0\0\0\1"),
    ("handle", _string(b"\0\0\0\1")),
    ("data", _string(b"file data")),
    ("attrs", attributes(_ATTRS)),
    ("attrs", attributes(sftp.Attrs(size=0))),
    ("attrs", _EXTENDED),
    ("name", b"\0\0\0\0"),
    ("name", b"\0\0\0\1" + _ENTRIES[0]),
    ("name", b"\0\0\0\2" + _ENTRIES[0] * 2),
    ("name", b"\0\0\0\4" + b"".join(_ENTRIES)),
    ("statvfs", b"".join(v.to_bytes(8, "big") for v in REPLIES[VFS, VfsOp.STATVFS])),
    ("limits", b"".join(v.to_bytes(8, "big") for v in (262144, 261120, 261120, 1019))),
    ("users_groups", _string(_string(b"root") + _string(b"")) + _string(_string(b"wheel"))),
]
"""Bodies of SFTP replies with the name of what decodes them."""

_TYPES = {
    "version": sftp.FXP_VERSION,
    "status": sftp.FXP_STATUS,
    "handle": sftp.FXP_HANDLE,
    "data": sftp.FXP_DATA,
    "attrs": sftp.FXP_ATTRS,
    "name": sftp.FXP_NAME,
}


def packets() -> Iterator[bytes]:
    """The bodies as whole packets."""
    for name, body in BODIES:
        kind = _TYPES.get(name, sftp.FXP_EXTENDED_REPLY)
        id = b"" if kind == sftp.FXP_VERSION else b"\0\0\0\7"
        yield _string(bytes([kind]) + id + body)


SERVED: list[tuple[bytes, sftp_server.Request]] = [
    (sftp.init(), sftp_server.Init(3, {})),
    (
        _string(b"\1\0\0\0\3" + _string(b"a@b") + _string(b"1") + _string(b"x") + _string(b"")),
        sftp_server.Init(3, {b"a@b": b"1", b"x": b""}),
    ),
    (sftp.open_(7, b"/a", 27, _ATTRS), sftp_server.Open(7, b"/a", 27, _ATTRS)),
    (sftp.close(7, b"\0\1"), sftp_server.Close(7, b"\0\1")),
    (sftp.read(7, b"h", 2**40, 2**32 - 1), sftp_server.Read(7, b"h", 2**40, 2**32 - 1)),
    (sftp.write(7, b"h", 9, 4) + b"data", sftp_server.Write(7, b"h", 9, memoryview(b"data"))),
    (sftp.lstat(7, b"/a"), sftp_server.Lstat(7, b"/a")),
    (sftp.fstat(7, b"h"), sftp_server.Fstat(7, b"h")),
    (
        sftp.setstat(7, b"a", sftp.Attrs(mode=0o644)),
        sftp_server.Setstat(7, b"a", sftp.Attrs(mode=0o644)),
    ),
    (
        _string(b"\x09\0\0\0\7" + _string(b"a") + _EXTENDED),
        sftp_server.Setstat(7, b"a", sftp.Attrs(size=0, mode=0o100644)),
    ),
    (
        sftp.fsetstat(7, b"h", sftp.Attrs(size=0)),
        sftp_server.Fsetstat(7, b"h", sftp.Attrs(size=0)),
    ),
    (sftp.opendir(7, b"."), sftp_server.Opendir(7, b".")),
    (sftp.readdir(7, b"h"), sftp_server.Readdir(7, b"h")),
    (sftp.remove(7, b"a"), sftp_server.Remove(7, b"a")),
    (sftp.mkdir(7, b"a"), sftp_server.Mkdir(7, b"a", sftp.NO_ATTRS)),
    (sftp.rmdir(7, b"a"), sftp_server.Rmdir(7, b"a")),
    (sftp.realpath(7, b""), sftp_server.Realpath(7, b"")),
    (sftp.stat(7, b"a"), sftp_server.Stat(7, b"a")),
    (sftp.rename(7, b"a", b"bb"), sftp_server.Rename(7, b"a", b"bb")),
    (sftp.readlink(7, b"a"), sftp_server.Readlink(7, b"a")),
    (sftp.symlink(7, b"to", b"at"), sftp_server.Symlink(7, b"to", b"at")),
    (sftp.posix_rename(7, b"a", b"b"), sftp_server.PosixRename(7, b"a", b"b")),
    (sftp.hardlink(7, b"a", b"b"), sftp_server.Hardlink(7, b"a", b"b")),
    (sftp.statvfs(7, b"/"), sftp_server.StatvfsRequest(7, b"/")),
    (sftp.fstatvfs(7, b"h"), sftp_server.FstatvfsRequest(7, b"h")),
    (sftp.fsync(7, b"h"), sftp_server.Fsync(7, b"h")),
    (sftp.lsetstat(7, b"a", _ATTRS), sftp_server.Lsetstat(7, b"a", _ATTRS)),
    (sftp.limits(7), sftp_server.LimitsRequest(7)),
    (sftp.expand_path(7, b"~/a"), sftp_server.ExpandPath(7, b"~/a")),
    (
        sftp.copy_data(7, b"h", 1, 2**62, b"ii", 3),
        sftp_server.CopyData(7, b"h", 1, 2**62, b"ii", 3),
    ),
    (sftp.home_directory(7, b"user"), sftp_server.HomeDirectory(7, b"user")),
    (
        sftp.users_groups_by_id(7, [0, 2**32 - 1], [5]),
        sftp_server.UsersGroupsById(7, (0, 2**32 - 1), (5,)),
    ),
    (
        _string(b"\xc8\0\0\0\7" + _string(b"check-file") + b"anything"),
        sftp_server.Unsupported(7, 200, b"check-file"),
    ),
    (b"\0\0\0\5\x15\0\0\0\7", sftp_server.Unsupported(7, 21, b"")),
]
"""Packets of requests and what the server side makes of them."""
