"""Listings of SFTP version 3: what comes with READDIR, and the numbers of files by their names."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from ._codec import ffi, lib
from .errors import LocalProtocolError, RemoteProtocolError
from .records import Buffer
from .table import CELLS, OUT, OUT_LEN, OUTPUT, REASONS, SLOTS, TABLE, UNPACK, unpack_slots

_LEN: Final = lib.PACKED_LEN
_decode = lib.sftp_decode_listing
_numbers = lib.sftp_name_numbers
_from_buffer = ffi.from_buffer
_one: Final = Struct("=q").pack_into
_1: Final = UNPACK[1]


class Listed(NamedTuple):
    """What one READDIR has brought: names that a file can have, without "." and "..", and their
    packed attributes, None where the type is not known.

    `own` are the attributes of "." if that was there; `dropped` counts names that no file can
    have: a server could aim them at other directories.
    """

    names: list[bytes]
    packed: list[bytes | None]
    own: bytes | None
    dropped: int


def decode_listing(body: Buffer) -> Listed:
    """Return the entries in the body of a NAME reply. RemoteProtocolError: it is none."""
    cells, output = CELLS, OUTPUT
    n = _decode(_from_buffer(body), len(body), TABLE, SLOTS, OUT, OUT_LEN)
    if n == lib.CODEC_SPACE:
        most = len(body) // 12
        table, packed = ffi.new("int64_t[]", 4 + 2 * most), ffi.new("uint8_t[]", (most + 1) * _LEN)
        cells, output = ffi.buffer(table), ffi.buffer(packed)
        n = _decode(_from_buffer(body), len(body), table, 4 + 2 * most, packed, (most + 1) * _LEN)
    if n < 0:
        raise RemoteProtocolError(f"SFTP reply: {REASONS[n]}")
    slots = unpack_slots(n, cells)
    n, count, dropped, has_own = slots[:4]
    octets = bytes(body)
    names = [
        octets[a:b] for a, b in zip(slots[4 : 4 + n], slots[4 + count : 4 + count + n], strict=True)
    ]
    records = output[: n * _LEN]
    files: list[bytes | None] = [records[at : at + _LEN] for at in range(0, n * _LEN, _LEN)]
    kinds = records[_LEN - 1 :: _LEN]
    if 0 in kinds or lib.PACKED_NO_OWNER in kinds:
        files = [None if kind & 15 == 0 else one for kind, one in zip(kinds, files, strict=True)]
    own = output[count * _LEN : (count + 1) * _LEN] if has_own else None
    return Listed(names, files, own, dropped)


def name_numbers(directory: int, names: Sequence[bytes]) -> Sequence[int]:
    """Return a number of 60 bits for each of `names` in a directory of that number: always the
    same. By chance two of 1,000,000 names have the same one once in two million trees."""
    if len(names) == 1:
        (name,) = names
        _one(CELLS, 0, len(name))
        n = _numbers(directory, name, len(name), TABLE, 1)
        if n == 1:
            return _1(CELLS)
    else:
        if len(names) > SLOTS:
            return [
                number
                for at in range(0, len(names), SLOTS)
                for number in name_numbers(directory, names[at : at + SLOTS])
            ]
        octets = b"".join(names)
        Struct(f"={len(names)}q").pack_into(CELLS, 0, *map(len, names))
        n = _numbers(directory, octets, len(octets), TABLE, len(names))
        if n == len(names):
            return unpack_slots(n)
    raise LocalProtocolError(f"names: {REASONS[n]}")
