"""FUSE messages of a daemon in plain Python, from fuse.h: what the C codec must agree with."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from syspuffs.native.device_requests import Request
from syspuffs.native.errors import RemoteProtocolError

I63 = 2**63 - 1
U32 = 2**32 - 1
NS = 10**9

# By opcode: the format of what comes before names, and the places of the numbers that matter.
HEADS: dict[int, tuple[str, tuple[int, ...]]] = {
    1: ("", ()),
    2: ("q", (0,)),
    3: ("16x", ()),
    4: ("IIqqqqqqIIIIIIII", ()),
    5: ("", ()),
    6: ("", ()),
    8: ("IIII", (0, 1)),
    9: ("II", (0,)),
    10: ("", ()),
    11: ("", ()),
    12: ("q", (0,)),
    13: ("q", (0,)),
    14: ("II", (0,)),
    15: ("qqI20x", (0, 1, 2)),
    16: ("qqI20x", (0, 1)),
    17: ("", ()),
    18: ("q4xIq", (0, 1, 2)),
    20: ("qI4x", (0, 1)),
    21: ("II", (1,)),
    22: ("II", (0,)),
    23: ("II", (0,)),
    24: ("", ()),
    25: ("q8xq", (0, 1)),
    27: ("II", (0,)),
    29: ("q16x", (0,)),
    30: ("qI4x", (0, 1)),
    31: ("4q4I", (0, 1, 2, 3, 4, 5, 6)),
    32: ("4q4I", (0, 1, 2, 3, 4, 5, 6)),
    33: ("4q4I", (0, 1, 2, 3, 4, 5, 6)),
    34: ("II", (0,)),
    35: ("IIII", (0, 1)),
    36: ("q", (0,)),
    38: ("", ()),
    42: ("II", ()),
    43: ("3qI4x", (0, 1, 2, 3)),
    44: ("qqI20x", (0, 1, 2)),
    45: ("qII", (0, 1)),
    46: ("qqI4x", (0, 1, 2)),
    47: ("7q", (0, 1, 2, 3, 4, 5, 6)),
}
NAMES = {1: 1, 6: 2, 8: 1, 9: 1, 10: 1, 11: 1, 12: 2, 13: 1, 21: 1, 22: 1, 24: 1, 35: 1, 45: 2}
OFFSETS = {4: (3,), 15: (1,), 16: (1,), 44: (1,), 43: (1, 2), 47: (1, 4, 5)}
OFFSETS |= dict.fromkeys((31, 32, 33), (2, 3))
"""Where numbers lie of which the highest bit must be 0."""


def _check(condition: bool) -> None:
    if not condition:
        raise RemoteProtocolError("nonsense")


def _time(s: int, ns: int) -> int:
    limit = I63 // NS - 1
    return min(max(s, -limit), limit) * NS + min(ns, NS - 1)


def _request(head: tuple[Any, ...], args: tuple[Any, ...]) -> Request:
    opcode, unique, nodeid, uid, gid, pid = head
    return Request(opcode, unique, nodeid, uid, gid, pid, args)


def take(message: bytes) -> Request:
    """Return what `device_requests.take` does."""
    _check(len(message) >= 40)
    values = struct.unpack_from("=IIqqIII4x", message)
    length, head = values[0], values[1:]
    _check(length == len(message))
    opcode = head[0]
    body = message[40:]
    if opcode == 26:
        return _request(head, _init(body))
    if opcode not in HEADS:
        return _request(head, ())
    form, wanted = HEADS[opcode]
    size = struct.calcsize("=" + form)
    _check(len(body) >= size)
    numbers = struct.unpack_from("=" + form, body)
    rest = body[size:]
    _check(all(numbers[i] >= 0 for i in OFFSETS.get(opcode, ())))
    names = []
    for _ in range(NAMES.get(opcode, 0)):
        name, nul, rest = rest.partition(b"\0")
        _check(nul == b"\0")
        names.append(name)
    args: tuple[Any, ...] = (*(numbers[i] for i in wanted), *names)
    if opcode == 4:
        valid, _, fh, size_, _, atime, mtime, _, ans, mns, _, mode, _, uid, gid, _ = numbers
        args = (valid, fh, size_, _time(atime, ans), _time(mtime, mns), mode, uid, gid)
    elif opcode == 12:
        args = (numbers[0], 0, *names)
    elif opcode in (16, 21):
        data = rest[: numbers[2 if opcode == 16 else 0]]
        _check(len(data) == numbers[2 if opcode == 16 else 0])
        rest = rest[len(data) :]
        args = (*args, data)
    elif opcode == 42:
        _check(len(rest) >= 16 * numbers[0])
        args = (list(struct.iter_unpack("=qq", rest[: 16 * numbers[0]])),)
        rest = rest[16 * numbers[0] :]
    _check(not rest)
    return _request(head, args)


def _init(body: bytes) -> tuple[int, ...]:
    _check(len(body) in (16, 64))
    major, minor, readahead, flags = struct.unpack_from("=4I", body)
    if len(body) == 64:
        flags |= (struct.unpack_from("=I", body, 16)[0] & (2**31 - 1)) << 32
    return major, minor, readahead, flags


def _u32(number: int) -> int:
    return min(max(number, 0), U32)


def _attr(attr: Sequence[int]) -> bytes:
    ino, size, blocks, *times = attr[:6]
    split = [divmod(time, NS) for time in times]
    return struct.pack(
        "=qQQ3q10I",
        ino,
        max(size, 0),
        max(blocks, 0),
        *[s for s, _ in split],
        *[ns for _, ns in split],
        *map(_u32, attr[6:]),
        0,
    )


def _entry(nodeid: int, entry_ttl: int, attr_ttl: int, attr: Sequence[int]) -> bytes:
    split = [divmod(max(ttl, 0), NS) for ttl in (entry_ttl, attr_ttl)]
    head = struct.pack("=qQ2Q2I", nodeid, 0, *[s for s, _ in split], *[ns for _, ns in split])
    return head + _attr(attr)


def _reply(unique: int, body: bytes) -> bytes:
    return struct.pack("=IiQ", 16 + len(body), 0, unique % 2**64) + body


def reply(name: str, unique: int, *args: Any) -> bytes:
    """Return what `device_replies.NAME` does."""
    if name == "error":
        return struct.pack("=IiQ", 16, -args[0], unique % 2**64)
    if name == "data_head":
        return struct.pack("=IiQ", 16 + args[0], 0, unique % 2**64)
    if name == "entry":
        return _reply(unique, _entry(*args))
    if name == "created":
        opened = struct.pack("=qII", args[4], _u32(args[5]), 0)
        return _reply(unique, _entry(*args[:4]) + opened)
    if name == "attributes":
        ttl, attr = args
        return _reply(unique, struct.pack("=QI4x", *divmod(max(ttl, 0), NS)) + _attr(attr))
    if name == "opened":
        return _reply(unique, struct.pack("=QI4x", *args))
    if name == "count":
        return _reply(unique, struct.pack("=I4x", *args))
    if name == "offset":
        return _reply(unique, struct.pack("=Q", *args))
    if name == "lock":
        return _reply(unique, struct.pack("=QQII", *args))
    if name == "statfs":
        (state,) = args
        numbers = (state.blocks, state.bfree, state.bavail, state.files, state.ffree)
        sizes = (state.bsize, state.namemax, state.frsize)
        return _reply(
            unique,
            struct.pack("=5Q3I28x", *[n % 2**64 for n in numbers], *map(_u32, sizes)),
        )
    if name == "init":
        minor, readahead, flags, write, pages = args
        return _reply(
            unique,
            struct.pack("=4IHHIIHH32x", 7, minor, readahead, flags, 0, 0, write, 1, pages, 0),
        )
    assert name == "dirents"
    rows, names = args
    body, at = b"", 0
    for length, kind, offset, nodeid, entry_ttl, attr_ttl, *attr in rows:
        entry = _entry(nodeid, entry_ttl, attr_ttl, attr)
        entry += struct.pack("=qQII", attr[0], max(offset, 0), length, _u32(kind))
        entry += names[at : at + length]
        at += length
        body += entry.ljust(-(-len(entry) // 8) * 8, b"\0")
    return _reply(unique, body)
