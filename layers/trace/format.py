"""The file format: chunks, and what is in them. Octets only; no file is touched here.

    chunk   "PTRC", version u8, kind u8, number of long data u16, length of the body u32,
            CRC-32 u32, writer u64 (little-endian), body
    body    MessagePack; in version 2 a table behind it: for each long data where they begin and
            their length, u32 both. The check sum is that of the body without long data
    LAYER   one map: who writes, what is below, clocks (`LayerInfo`); the first chunk of a writer
    RECORDS one array of records, in the order in which the operations ended
    record  [operation, id, parent, start, duration, outcome, arguments, result]

Operations are numbered by layers/operations.py. Ids are unique in one process; `parent` is the id
of the operation of a layer above that this one was made for, 0 for none. `start` is ns of
CLOCK_MONOTONIC, which all processes of a machine share; `duration` is ns. Arguments and result are
those of layers/ops.py, named tuples as arrays; file data is what `DataKept` says.

A record is encoded when its operation has ended (0.15 us). Long data do not go through the
encoder: they are a part of their own (`Held`), and the file gets them from where they are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from ...native.records import Buffer, Cookie
from ..operations import BY_NAME, OPERATIONS
from ..outcomes import Data, digest

_VERSION: Final = 1
_VERSION_LONG: Final = 2
"""What chunks with long data say; others are as they were before there was that."""
_MAGIC: Final = b"PTRC"
_HEAD: Final = struct.Struct("<4sBBHIIQ")
_PLACE: Final = struct.Struct("<II")
LAYER: Final = 1
RECORDS: Final = 2
BODY_MAX: Final = 16 * 1024 * 1024
"""Longest body that is believed, octets: a batch, and one record with all its data."""

CANCELLED: Final = -1
"""Outcome: whoever asked did not wait for the answer."""
UNFINISHED: Final = -2
"""Outcome: there was no answer yet when the trace ended."""
FAILED: Final = -3
"""Outcome: it ended as no operation may."""

_READ: Final = BY_NAME["read"].number
_WRITE: Final = BY_NAME["write"].number

RawRecord: TypeAlias = tuple[int, int, int, int, int, int, msgspec.Raw, msgspec.Raw]


class TraceError(Exception):
    """A file is no trace, is damaged, or is of a version that we do not know."""


class DataKept(Enum):
    """What a trace keeps of file data."""

    LENGTH = "length"
    DIGEST = "digest"
    FULL = "full"


class Held(NamedTuple):
    """File data that stand between two parts of a record; nobody changes them meanwhile."""

    data: Buffer


Part: TypeAlias = bytes | Held


class LayerInfo(msgspec.Struct, frozen=True):
    """Who writes. `typename` is the trace of elements from this layer on.

    `realtime` and `monotonic` are the two clocks at one moment, ns.
    """

    typename: str
    mntfromname: bytes
    root: int
    pid: int
    program: str
    realtime: int
    monotonic: int
    data: str


class Chunk(NamedTuple):
    """One chunk as it was read."""

    kind: int
    writer: int
    body: memoryview


def _plain(value: object) -> list[Any]:
    """Return what the encoder does not know as it does: a listing that is kept by columns."""
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"a trace cannot hold {value!r}")


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_plain)
_NO_DATA: Final = _encoder.encode(b"")
_layer_decoder: Final = msgspec.msgpack.Decoder(LayerInfo)
_records_decoder: Final = msgspec.msgpack.Decoder(list[RawRecord])


def _kept(kind: Any) -> Any:
    return Data if kind == Buffer else kind


_arguments: Final = tuple(
    msgspec.msgpack.Decoder(tuple[tuple(_kept(kind) for _, kind in op.parameters)])  # type: ignore[misc]
    for op in OPERATIONS
)
_results: Final = tuple(
    msgspec.msgpack.Decoder(_kept(op.result) if op.result is not type(None) else None)
    for op in OPERATIONS
)


encode: Final = _encoder.encode
"""Takes one record and returns its only part."""


def encode_around(record: tuple[Any, ...], data: Buffer) -> list[Part]:
    """Return the parts of the record of a read or write, with b"" where `data` belong."""
    whole = encode(record)
    if record[0] == _READ:
        return [whole[: -len(_NO_DATA)], Held(data)]
    args = record[6]
    tail = encode((*args[3:], record[7]))[1:]  # without the head of the array
    return [whole[: -len(_NO_DATA) - len(tail)], Held(data), tail]


def encode_layer(writer: int, info: LayerInfo) -> bytes:
    """Return the first chunk of a writer."""
    body = encode(info)
    return _head(LAYER, writer, 0, len(body), zlib.crc32(body)) + body


def encode_records(
    writer: int, records: int, parts: Iterable[Part], *, as_digest: bool = False
) -> list[Buffer]:
    """Return a chunk of so many records as pieces, to be written behind each other.

    Of held data there is the digest, or they are pieces as they are. For these no check sum is
    made, which would take as long as half of their way to the file: they are as safe as any file.
    """
    pieces: list[Buffer] = [b""]
    run = [_array_head(records)]
    places = []
    size = crc = 0
    for part in parts:
        if isinstance(part, bytes):
            run.append(part)
        elif as_digest:
            run.append(encode((len(part.data), digest(part.data))))
        else:
            length = len(part.data)
            run.append(_data_head(length))
            text = b"".join(run)
            pieces += (text, part.data)
            crc = zlib.crc32(text, crc)
            size += len(text)
            places.append(_PLACE.pack(size, length))
            size += length
            run = []
    text = b"".join((*run, *places))
    pieces.append(text)
    pieces[0] = _head(RECORDS, writer, len(places), size + len(text), zlib.crc32(text, crc))
    return pieces


def _array_head(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


def _data_head(length: int) -> bytes:
    return b"\xc6" + length.to_bytes(4, "big")


def _head(kind: int, writer: int, long: int, size: int, crc: int) -> bytes:
    version = _VERSION_LONG if long else _VERSION
    return _HEAD.pack(_MAGIC, version, kind, long, size, crc, writer)


def take_chunks(buffer: bytearray) -> Iterator[Chunk]:
    """Yield the whole chunks at the front of `buffer`, and take them out of it.

    What is left is the beginning of a chunk that is still being written. Errors: TraceError.
    """
    at = 0
    try:
        while len(buffer) - at >= _HEAD.size:
            magic, version, kind, long, size, crc, writer = _HEAD.unpack_from(buffer, at)
            if magic != _MAGIC:
                raise TraceError("this is no trace, or it is damaged here")
            if version not in (_VERSION, _VERSION_LONG):
                text = f"the trace is of version {version}, we know up to {_VERSION_LONG}"
                raise TraceError(text)
            if size > BODY_MAX:
                raise TraceError(f"a chunk of {size} octets: the trace is damaged here")
            end = at + _HEAD.size + size
            if end > len(buffer):
                return
            body = memoryview(bytes(memoryview(buffer)[at + _HEAD.size : end]))
            places = long * _PLACE.size if version == _VERSION_LONG else 0
            if places > size or _check_sum(body, size - places) != crc:
                raise TraceError("a chunk is damaged: its check sum is wrong")
            at = end
            yield Chunk(kind, writer, body[: size - places])
    finally:
        del buffer[:at]


def _check_sum(body: memoryview, end: int) -> int:
    """Return the check sum of a body with a table at `end`, -1 when that makes no sense."""
    at = crc = 0
    for start, length in _PLACE.iter_unpack(body[end:]):
        if not at <= start <= start + length <= end:
            return -1
        crc = zlib.crc32(body[at:start], crc)
        at = start + length
    return zlib.crc32(body[at:], crc)


def decode_layer(body: memoryview) -> LayerInfo:
    """Return who writes. Errors: TraceError."""
    try:
        return _layer_decoder.decode(body)
    except msgspec.DecodeError as exc:
        raise TraceError(f"the head of a layer makes no sense: {exc}") from None


def decode_records(body: memoryview) -> list[RawRecord]:
    """Return the records of a chunk, arguments and results as they are. Errors: TraceError."""
    try:
        return _records_decoder.decode(body)
    except msgspec.DecodeError as exc:
        raise TraceError(f"a chunk of records makes no sense: {exc}") from None


def decode_values(record: RawRecord) -> tuple[tuple[Any, ...], Any]:
    """Return arguments and result of a record; no result: None. Errors: TraceError."""
    number, outcome = record[0], record[5]
    try:
        args: tuple[Any, ...] = _arguments[number].decode(record[6])
        return args, None if outcome else _results[number].decode(record[7])
    except (msgspec.DecodeError, IndexError) as exc:
        raise TraceError(f"a record of operation {number} makes no sense: {exc}") from None


def checked_cookies(number: int, args: tuple[Any, ...]) -> None:
    """Return if no cookie is one that cannot be. Errors: TraceError."""
    for (name, kind), value in zip(OPERATIONS[number].parameters, args, strict=True):
        if kind is Cookie and not 0 < value < 1 << 63:
            raise TraceError(f"{value} as {name} is no cookie")
