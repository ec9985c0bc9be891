"""Replies of SFTP version 3: find packets in a stream, take one body apart by one call of C.

A `body` is what follows type and id (VERSION: the type). Trailing octets are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from struct import Struct
from struct import error as StructError
from typing import Any, Final, NoReturn

from ._codec import ffi, lib
from .errors import LocalProtocolError, RemoteProtocolError
from .records import Buffer, Statvfs
from .sftp_attrs import take_attrs
from .sftp_protocol import (
    ATTR_ACMODTIME,
    ATTR_ALL,
    ATTR_PERMISSIONS,
    ATTR_SIZE,
    ATTR_UIDGID,
    HANDLE_MAX,
    Attrs,
    Limits,
    Name,
)
from .table import CELLS, REASONS, SLOTS, TABLE, UNPACK, unpack_slots

_SPACE: Final = lib.CODEC_SPACE
_PACKETS_MAX: Final = (SLOTS - 1) // 4
_NAME_COLUMNS: Final = lib.SFTP_NAME_COLUMNS
_MODE: Final = Attrs._fields.index("mode")
_ATTR_BITS: Final = (
    *(ATTR_SIZE, ATTR_UIDGID, ATTR_UIDGID),
    *(ATTR_PERMISSIONS, ATTR_ACMODTIME, ATTR_ACMODTIME),
)
"""What in the mask tells of each field of `Attrs`."""
_new: Any = tuple.__new__
_from_buffer = ffi.from_buffer
_scan = lib.sftp_scan
_decode_attrs = lib.sftp_decode_attrs
_decode_status = lib.sftp_decode_status
_decode_name = lib.sftp_decode_name
_length: Final = Struct(">I").unpack_from
_14: Final = UNPACK[14]
_7: Final = UNPACK[7]
_5: Final = UNPACK[5]
_3: Final = UNPACK[3]


def _remote(code: int) -> NoReturn:
    raise RemoteProtocolError(f"SFTP reply: {REASONS[code]}")


def scan(
    buf: Buffer, start: int, end: int, max_packet: int
) -> tuple[int, list[tuple[int, int, int, int]]]:
    """Find all whole packets in `buf[start:end]`.

    Returns where the rest begins and, for each packet, type, id, and start and end of its body
    in `buf`. VERSION, which has no id, gets id 0. `max_packet` bounds the length that a packet
    says it has, octets; RemoteProtocolError above it and below 5.
    """
    src = _from_buffer(buf)
    n = _scan(src, len(buf), start, end, max_packet, TABLE, SLOTS)
    if n == 1:
        slots = _5(CELLS)
        return slots[0], [slots[1:]]  # type: ignore[list-item]
    if n == 0:
        return start, []
    packets: list[tuple[int, int, int, int]] = []
    while n >= 0:
        start, *rest = unpack_slots(1 + n * 4)
        packets += zip(*[iter(rest)] * 4, strict=True)
        if n < _PACKETS_MAX:
            return start, packets
        n = _scan(src, len(buf), start, end, max_packet, TABLE, SLOTS)
    del src  # see table.py: never in the traceback of what is raised
    if n == _SPACE:
        raise LocalProtocolError("SFTP scan outside its buffer")
    _remote(n)


def decode_version(body: Buffer) -> tuple[int, dict[bytes, bytes]]:
    """Return version and extensions (name -> data); at most 256 of them."""
    n = lib.sftp_decode_version(_from_buffer(body), len(body), TABLE, SLOTS)
    if n < 0:
        _remote(n)
    version, *spans = unpack_slots(n)
    octets = bytes(body)
    quads = zip(*[iter(spans)] * 4, strict=True)
    return version, {octets[a:b]: octets[c:d] for a, b, c, d in quads}


def decode_status(body: Buffer) -> tuple[int, bytes]:
    """Return code (FX_*) and message; an old server sends no message."""
    n = _decode_status(_from_buffer(body), len(body), TABLE, SLOTS)
    if n < 0:
        _remote(n)
    code, start, end = _3(CELLS)
    return code, bytes(body[start:end])


def _string_length(body: Buffer) -> int:
    """Return the length of the string that is the body; it begins at octet 4."""
    try:
        (n,) = _length(body)
    except StructError:
        _remote(lib.CODEC_SHORT)
    if n > len(body) - 4:
        _remote(lib.CODEC_SHORT)
    return n  # type: ignore[no-any-return]


def decode_handle(body: Buffer) -> bytes:
    """Return a handle; at most 256 octets."""
    n = _string_length(body)
    if n > HANDLE_MAX:
        _remote(lib.CODEC_LENGTH)
    return bytes(body[4 : 4 + n])


def decode_data(body: Buffer) -> memoryview:
    """Return what was read, as a view of `body`."""
    return memoryview(body)[4 : 4 + _string_length(body)]


def decode_attrs(body: Buffer) -> Attrs:
    """Return attributes; extended ones are skipped."""
    n = _decode_attrs(_from_buffer(body), len(body), TABLE, SLOTS)
    if n < 0:
        _remote(n)
    return take_attrs(_7(CELLS))


def decode_name(body: Buffer) -> list[Name]:
    """Return the entries as the server sent them: nothing is known about the names in them."""
    n = _decode_name(_from_buffer(body), len(body), TABLE, SLOTS)
    if n == 14:  # one entry, the answer to realpath and readlink
        slots = _14(CELLS)
        a, b, c, d = slots[3:7]
        return [Name(bytes(body[a:b]), bytes(body[c:d]), take_attrs(slots[7:]))]
    t = unpack_slots(n) if n >= 0 else _long(_decode_name, n, body, 3 + len(body) // 12 * 11)
    n, common, present = t[:3]
    octets = bytes(body)
    columns = [t[i * n + 3 : i * n + n + 3] for i in range(_NAME_COLUMNS)]
    starts, ends, long_starts, long_ends, *values, masks = columns
    # Owners, modes and times are mostly the same, and kept as long as the listing: one number each
    # for equal ones saves some 150 octets an entry.
    shared_numbers: dict[int, int] = {}
    for place in range(1, len(values)):
        values[place] = tuple(map(shared_numbers.setdefault, values[place], values[place]))
    attrs: Iterable[Attrs]
    if present & ~ATTR_PERMISSIONS:
        filled: Sequence[tuple[int | None, ...]] = values
        if common != ATTR_ALL:
            bits = zip(_ATTR_BITS, values, strict=True)
            filled = [_column(bit, common, present, masks, column) for bit, column in bits]
        attrs = map(_new, repeat(Attrs), zip(*filled, strict=True))
    else:  # types and permissions alone, or nothing: few are different, and those are shared
        modes = _column(ATTR_PERMISSIONS, common, present, masks, values[_MODE])
        shared = {mode: Attrs(mode=mode) for mode in set(modes)}
        attrs = map(shared.__getitem__, modes)
    longnames: Iterable[bytes]
    if long_starts == long_ends:  # servers that are no Unix send none
        longnames = (b"",) * n
    else:
        longnames = [octets[a:b] for a, b in zip(long_starts, long_ends, strict=True)]
    names = zip(
        [octets[a:b] for a, b in zip(starts, ends, strict=True)],
        longnames,
        attrs,
        strict=True,
    )
    return list(map(_new, repeat(Name), names))


def _column(
    bit: int, common: int, present: int, masks: tuple[int, ...], column: tuple[int, ...]
) -> tuple[int | None, ...]:
    """Put None where an entry has no such attribute."""
    if common & bit:
        return column
    if not present & bit:
        return (None,) * len(column)
    return tuple([v if mask & bit else None for v, mask in zip(column, masks, strict=True)])


_WORDS: Final = ffi.new("uint64_t[]", 11)
_WORD_CELLS: Final = ffi.buffer(_WORDS)
_11_WORDS: Final = Struct("=11Q").unpack_from
_4_WORDS: Final = Struct("=4Q").unpack_from


def decode_statvfs(body: Buffer) -> Statvfs:
    """Return the state of a file system; all fields are 64 bits without sign."""
    n = lib.sftp_decode_u64s(_from_buffer(body), len(body), _WORDS, 11)
    if n < 0:
        _remote(n)
    return _new(Statvfs, _11_WORDS(_WORD_CELLS))  # type: ignore[no-any-return]


def decode_limits(body: Buffer) -> Limits:
    """Return the server's limits."""
    n = lib.sftp_decode_u64s(_from_buffer(body), len(body), _WORDS, 4)
    if n < 0:
        _remote(n)
    return _new(Limits, _4_WORDS(_WORD_CELLS))  # type: ignore[no-any-return]


def _long(
    decode: Callable[[Any, int, Any, int], int], code: int, body: Buffer, slots: int
) -> tuple[int, ...]:
    """Decode what was too long for the common table; return all slots."""
    if code != _SPACE:
        _remote(code)
    table = ffi.new("int64_t[]", slots)
    n = decode(_from_buffer(body), len(body), table, slots)
    if n < 0:
        _remote(n)
    return unpack_slots(n, ffi.buffer(table))


def decode_users_groups(body: Buffer) -> tuple[list[bytes], list[bytes]]:
    """Return names of users and of groups in the order of the question, b"" for unknown ones."""
    decode = lib.sftp_decode_users_groups
    n = decode(_from_buffer(body), len(body), TABLE, SLOTS)
    t = unpack_slots(n) if n >= 0 else _long(decode, n, body, 2 + len(body) // 4 * 2)
    octets = bytes(body)
    names = [octets[a:b] for a, b in zip(t[2::2], t[3::2], strict=True)]
    return names[: t[0]], names[t[0] :]
