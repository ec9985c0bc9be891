"""FUSE requests as the kernel makes them, by opcode, with what they say."""

from __future__ import annotations

import struct
from typing import Any, Final

from syspuffs.native.fuse_protocol import Opcode


def message(opcode: int, body: bytes = b"", nodeid: int = 7) -> bytes:
    return struct.pack("=IIQQIII4x", 40 + len(body), opcode, 3, nodeid, 1000, 100, 42) + body


_SETATTR = struct.pack("=I4xQQ8xQQ8xII4xI4xII4x", 73, 5, 4096, 2, 3, 4, 5, 0o100644, 1000, 100)
_READ = struct.pack("=QQIIQII", 5, 8192, 4, 0, 9, 0o100000, 0)
_LOCK = struct.pack("=4Q4I", 5, 9, 10, 19, 1, 42, 1, 0)
_COPY = struct.pack("=7Q", 5, 0, 8, 6, 4096, 100, 0)
_INIT = struct.pack("=5I44x", 7, 45, 131072, 0xF3FFFFFB | 1 << 30, 3)

REQUESTS: Final[list[tuple[int, bytes, tuple[Any, ...]]]] = [
    (opcode, message(opcode, body), args)
    for opcode, body, args in [
        (Opcode.LOOKUP, b"name\0", (b"name",)),
        (Opcode.FORGET, struct.pack("=Q", 2), (2,)),
        (Opcode.GETATTR, bytes(16), ()),
        (
            Opcode.SETATTR,
            _SETATTR,
            (73, 5, 4096, 2 * 10**9 + 4, 3 * 10**9 + 5, 0o100644, 1000, 100),
        ),
        (Opcode.READLINK, b"", ()),
        (Opcode.SYMLINK, b"name\0target\0", (b"name", b"target")),
        (Opcode.MKNOD, struct.pack("=4I", 0o20644, 5, 0o22, 0) + b"n\0", (0o20644, 5, b"n")),
        (Opcode.MKDIR, struct.pack("=2I", 0o755, 0o22) + b"n\0", (0o755, b"n")),
        (Opcode.UNLINK, b"name\0", (b"name",)),
        (Opcode.RMDIR, b"name\0", (b"name",)),
        (Opcode.RENAME, struct.pack("=Q", 8) + b"old\0new\0", (8, 0, b"old", b"new")),
        (Opcode.LINK, struct.pack("=Q", 9) + b"name\0", (9, b"name")),
        (Opcode.OPEN, struct.pack("=II", 0o100001, 0), (0o100001,)),
        (Opcode.READ, _READ, (5, 8192, 4)),
        (Opcode.WRITE, _READ + b"data", (5, 8192, b"data")),
        (Opcode.STATFS, b"", ()),
        (Opcode.RELEASE, struct.pack("=QIIQ", 5, 0, 2, 9), (5, 2, 9)),
        (Opcode.FSYNC, struct.pack("=QI4x", 5, 1), (5, 1)),
        (Opcode.SETXATTR, struct.pack("=II", 5, 1) + b"user.a\0value", (1, b"user.a", b"value")),
        (Opcode.GETXATTR, struct.pack("=I4x", 64) + b"user.a\0", (64, b"user.a")),
        (Opcode.LISTXATTR, struct.pack("=I4x", 64), (64,)),
        (Opcode.REMOVEXATTR, b"user.a\0", (b"user.a",)),
        (Opcode.FLUSH, struct.pack("=Q8xQ", 5, 9), (5, 9)),
        (Opcode.INIT, _INIT, (7, 45, 131072, 3 << 32 | 0xF3FFFFFB | 1 << 30)),
        (Opcode.INIT, _INIT[:16], (7, 45, 131072, 0xF3FFFFFB | 1 << 30)),
        (Opcode.OPENDIR, struct.pack("=II", 0o200000, 0), (0o200000,)),
        (Opcode.RELEASEDIR, struct.pack("=QIIQ", 5, 0, 0, 0), (5,)),
        (Opcode.FSYNCDIR, struct.pack("=QI4x", 5, 0), (5, 0)),
        (Opcode.GETLK, _LOCK, (5, 9, 10, 19, 1, 42, 1)),
        (Opcode.SETLK, _LOCK, (5, 9, 10, 19, 1, 42, 1)),
        (Opcode.SETLKW, _LOCK, (5, 9, 10, 19, 1, 42, 1)),
        (Opcode.FALLOCATE, struct.pack("=3QI4x", 5, 4096, 100, 3), (5, 4096, 100, 3)),
        (Opcode.ACCESS, struct.pack("=I4x", 4), (4,)),
        (Opcode.CREATE, struct.pack("=4I", 0o301, 0o644, 0o22, 0) + b"n\0", (0o301, 0o644, b"n")),
        (Opcode.INTERRUPT, struct.pack("=Q", 2), (2,)),
        (Opcode.DESTROY, b"", ()),
        (Opcode.BATCH_FORGET, struct.pack("=I4x4Q", 2, 7, 1, 8, 3), ([(7, 1), (8, 3)],)),
        (Opcode.READDIRPLUS, _READ, (5, 8192, 4)),
        (
            Opcode.RENAME2,
            struct.pack("=QI4x", 8, 1) + b"old\0new\0",
            (8, 1, b"old", b"new"),
        ),
        (Opcode.LSEEK, struct.pack("=QqI4x", 5, -1, 3), (5, -1, 3)),
        (Opcode.COPY_FILE_RANGE, _COPY, (5, 0, 8, 6, 4096, 100, 0)),
        (Opcode.POLL, bytes(24), ()),
    ]
]
