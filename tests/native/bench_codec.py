"""Measure the codecs: each message by the C face and by the reference in plain Python.

Run it as a program: `python tests/native/bench_codec.py`. Microseconds, the best of several
rounds; "both" is marshal and unmarshal of one frame, for which the budget is 5.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from syspuffs.native import frames, sftp, sftp_server
from syspuffs.native.constants import ISLASTCN, OpClass, VnOp
from syspuffs.native.records import (
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Newinfo,
    Statvfs,
    Vattr,
)
from tests.native import reference_frames, reference_sftp, reference_sftp_server

ROUNDS = 25
ROUND = 0.0005

NOW = 1_700_000_000 * 10**9
CRED = Cred(1000, 1000, (), 4711)
MEMBER = Cred(1000, 1000, (4, 24, 27, 30, 46, 100, 1000), 4711)
CN = Componentname(0, b"report-2026.txt", CRED, ISLASTCN)
VA = Vattr(1, 0o644, 1, 1000, 1000, 1, 1234567, 99999, 4096, NOW, NOW, NOW, NOW, 0, 0, 0, 102400)
SFTP_VA = VA._replace(fsid=None, birthtime=None, gen=None, flags=None, rdev=None)
SETTIMES = Vattr(atime=NOW, mtime=NOW)
INFO = Newinfo(Cookie(77), 1, 99999, 0, SFTP_VA, 10**9, 10**9)
ENTRIES = tuple(Dirent(i + 10, 1, b"report-%05d.txt" % i, i + 1, None) for i in range(100))
PLUS = tuple(e._replace(newinfo=INFO) for e in ENTRIES)
DATA = bytes(65536)

FRAMES: list[tuple[str, int, tuple[Any, ...], Any]] = [
    ("getattr", VnOp.GETATTR, (CRED,), (SFTP_VA, 10**9)),
    ("getattr, all fields", VnOp.GETATTR, (CRED,), (VA, 10**9)),
    ("getattr, 7 groups", VnOp.GETATTR, (MEMBER,), (SFTP_VA, 10**9)),
    ("lookup", VnOp.LOOKUP, (CN,), INFO),
    ("lookup, missing", VnOp.LOOKUP, (CN,), Newinfo(Cookie(0), 0)),
    ("read 64 KiB", VnOp.READ, (0, 65536, 0, CRED), DATA),
    ("write 64 KiB", VnOp.WRITE, (0, DATA, 0, CRED), None),
    ("open", VnOp.OPEN, (1, CRED), (0, 0)),
    ("access", VnOp.ACCESS, (4, CRED), None),
    ("create", VnOp.CREATE, (CN, Vattr(1, 0o644)), INFO),
    ("setattr", VnOp.SETATTR, (SETTIMES, CRED), (SFTP_VA, 10**9)),
    ("rename", VnOp.RENAME, (5, CN, 6, None, CN), None),
    ("remove", VnOp.REMOVE, (5, CN), 0),
    ("fsync", VnOp.FSYNC, (1, 0, 0, CRED), None),
    ("readlink", VnOp.READLINK, (CRED,), b"../target"),
    ("inactive", VnOp.INACTIVE, (), 0),
    ("readdir, 100 entries", VnOp.READDIR, (0, 32768, 0, CRED), (ENTRIES, True)),
    ("readdir, 100 with newinfo", VnOp.READDIR, (0, 32768, 1, CRED), (PLUS, True)),
]

ATTRS = sftp.Attrs(99999, 1000, 1000, 0o100644, 1_700_000_000, 1_700_000_000)
PATH = b"/home/user/projects/report-2026.txt"
HANDLE = b"\0\0\0\7"

REQUESTS: list[tuple[str, tuple[Any, ...]]] = [
    ("lstat", (7, PATH)),
    ("open_", (7, PATH, 1)),
    ("close", (7, HANDLE)),
    ("read", (7, HANDLE, 2**33, 261120)),
    ("write", (7, HANDLE, 2**33, 261120)),
    ("readdir", (7, HANDLE)),
    ("setstat", (7, PATH, sftp.Attrs(mode=0o644))),
    ("fsetstat", (7, HANDLE, ATTRS)),
    ("rename", (7, PATH, PATH)),
    ("posix_rename", (7, PATH, PATH)),
    ("statvfs", (7, PATH)),
    ("fsync", (7, HANDLE)),
    ("limits", (7,)),
    ("copy_data", (7, HANDLE, 0, 0, HANDLE, 0)),
    ("users_groups_by_id", (7, (0, 1000), (0, 1000))),
]


def string(v: bytes) -> bytes:
    return len(v).to_bytes(4, "big") + v


def attributes(attrs: sftp.Attrs) -> bytes:
    return sftp.fsetstat(0, b"", attrs)[13:]


LONG = b"-rw-r--r--    1 user     group       99999 Nov 14  2023 report-2026.txt"
ENTRY = string(b"report-2026.txt") + string(LONG) + attributes(ATTRS)
BARE = string(b"report-2026.txt") + string(b"") + attributes(sftp.Attrs(mode=0o100644))
VERSION = b"\0\0\0\3" + b"".join(
    string(name) + string(b"1") for name in (sftp.EXT_FSYNC, sftp.EXT_LIMITS, sftp.EXT_STATVFS) * 4
)

REPLIES: list[tuple[str, bytes]] = [
    ("version", VERSION),
    ("status", b"\0\0\0\2" + string(b"No such file") + string(b"")),
    ("handle", string(HANDLE)),
    ("data", string(DATA)),
    ("attrs", attributes(ATTRS)),
    ("attrs", attributes(sftp.Attrs(size=5, mode=0o100644))),
    ("name", (1).to_bytes(4, "big") + ENTRY),
    ("name", (100).to_bytes(4, "big") + ENTRY * 100),
    ("name", (100).to_bytes(4, "big") + BARE * 100),
    ("statvfs", b"".join(v.to_bytes(8, "big") for v in Statvfs())),
    ("limits", bytes(32)),
    ("users_groups", string(string(b"root") + string(b"user")) * 2),
]

NAMES = [sftp.Name(b"report-%05d.txt" % i, LONG, ATTRS._replace(size=i)) for i in range(100)]
MODES = [sftp.Name(b"report-%05d.txt" % i, b"", sftp.Attrs(mode=0o100644)) for i in range(100)]

ANSWERS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("version", "version", ({name: b"1" for name in (sftp.EXT_FSYNC, sftp.EXT_LIMITS)},)),
    ("status", "status", (7, 0, b"Success")),
    ("handle", "handle", (7, HANDLE)),
    ("data head", "data_head", (7, 261120)),
    ("attrs", "attrs", (7, ATTRS)),
    ("attrs, mode alone", "attrs", (7, sftp.Attrs(mode=0o100644))),
    ("path", "path", (7, PATH)),
    ("name, 1 entry", "name", (7, NAMES[:1])),
    ("name, 100 entries", "name", (7, NAMES)),
    ("name, 100 with mode alone", "name", (7, MODES)),
    ("statvfs", "statvfs", (7, Statvfs())),
    ("limits", "limits", (7, sftp.Limits(262144, 261120, 261120, 1019))),
    ("users and groups", "users_groups", (7, [b"root", b"user"], [b"root", b"user"])),
]


def once(function: Callable[..., Any], arguments: tuple[Any, ...], number: int) -> float:
    """Seconds of `number` calls."""
    repeats = repeat(None, number)
    start = perf_counter()
    for _ in repeats:
        function(*arguments)
    return perf_counter() - start


def measure(
    ours: Callable[..., Any], theirs: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[float, float]:
    """Microseconds of one call of each, the best of many short rounds taken in turn.

    Short, so that some rounds fall between the interruptions of a machine that is not ours.
    """
    number = 1
    while once(ours, arguments, number) < ROUND:
        number *= 2
    best, best_theirs = float("inf"), float("inf")
    for _ in range(ROUNDS):
        best = min(best, once(ours, arguments, number))
        best_theirs = min(best_theirs, once(theirs, arguments, number))
    return best / number * 1e6, best_theirs / number * 1e6


def rows() -> Iterator[tuple[str, float, float]]:
    """Name of each message, microseconds by C, microseconds by the reference."""
    ours, theirs = frames, reference_frames
    for name, op, args, result in FRAMES:
        request = ours.encode_request(OpClass.VN, op, 5, 6, args)
        reply = ours.encode_reply(OpClass.VN, op, 5, 6, result)
        if op == VnOp.WRITE:
            request += DATA
        if op == VnOp.READ:
            reply += DATA
        calls: list[tuple[str, str, tuple[Any, ...]]] = [
            ("encode request", "encode_request", (OpClass.VN, op, 5, 6, args)),
            ("decode request", "decode_request", (request,)),
            ("encode reply", "encode_reply", (OpClass.VN, op, 5, 6, result)),
            ("decode reply", "decode_reply", (reply,)),
        ]
        both = [measure(getattr(ours, f), getattr(theirs, f), given) for _, f, given in calls]
        a, b = zip(*both, strict=True)
        for i, (what, _, _) in enumerate(calls):
            yield f"{name}: {what}", a[i], b[i]
        yield f"{name}: request, both", a[0] + a[1], b[0] + b[1]
        yield f"{name}: reply, both", a[2] + a[3], b[2] + b[3]
        yield f"{name}: all four", sum(a), sum(b)
    for name, arguments in REQUESTS:
        functions = getattr(sftp, name), getattr(reference_sftp, name)
        yield f"sftp {name}: encode", *measure(*functions, arguments)
    for name, body in REPLIES:
        view = memoryview(bytearray(body))
        decode = f"decode_{name}"
        functions = getattr(sftp, decode), getattr(reference_sftp, decode)
        yield f"sftp {name}, {len(body)} octets: decode", *measure(*functions, (view,))
    for name, arguments in REQUESTS:
        packet = getattr(sftp, name)(*arguments)
        if name == "write":
            packet += bytes(arguments[3])
        view = memoryview(bytearray(packet))
        _, (found,) = sftp.scan(view, 0, len(view), len(view))
        functions = sftp_server.decode_request, reference_sftp_server.decode_request
        yield f"sftp server, {name}: decode", *measure(*functions, (view, *found))
    for name, function, arguments in ANSWERS:
        functions = getattr(sftp_server, function), getattr(reference_sftp_server, function)
        yield f"sftp server, {name}: encode", *measure(*functions, arguments)
    for count in (1, 32):
        stream = bytearray(string(b"\x65" + bytes(20)) * count)
        given = (stream, 0, len(stream), 262144)
        yield f"sftp scan, {count} packets", *measure(sftp.scan, reference_sftp.scan, given)


def main() -> int:
    """Print the table; exit status 1 when C is slower than the reference somewhere."""
    gc.disable()
    once(frames.encode_request, (OpClass.VN, VnOp.GETATTR, 5, 6, (CRED,)), 300_000)  # wake up
    slower = 0
    print(f"{'message':58}{'C, us':>9}{'Python':>9}{'ratio':>8}")
    for name, ours, theirs in rows():
        mark = "" if theirs >= ours else "  slower"
        slower += theirs < ours
        print(f"{name:58}{ours:9.2f}{theirs:9.2f}{theirs / ours:8.1f}{mark}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
