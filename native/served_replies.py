"""Replies of SFTP version 3 as a server sends them: each function returns one whole packet.

`data_head` is the head of a packet whose data travel beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from struct import Struct, pack_into
from struct import error as StructError
from typing import Any, Final, NoReturn

from ._codec import ffi, lib
from .errors import LocalProtocolError
from .records import Statvfs
from .sftp_attrs import mask_of, put_attrs
from .sftp_protocol import (
    ATTR_ALL,
    FXP_ATTRS,
    FXP_DATA,
    FXP_EXTENDED_REPLY,
    FXP_HANDLE,
    FXP_NAME,
    FXP_STATUS,
    FXP_VERSION,
    HANDLE_MAX,
    VERSION,
    Attrs,
    Limits,
    Name,
)
from .table import CELLS, OUT, OUT_LEN, OUTPUT, REASONS, SLOTS, TABLE

_BAD_VALUE: Final = (StructError, TypeError, ValueError, OverflowError)
_encode = lib.sftp_encode
_encode_name = lib.sftp_encode_name
_COLUMNS: Final = lib.SFTP_NAME_ENCODE_COLUMNS
_5: Final = Struct("=5q").pack_into
_4Q: Final = Struct("=4Q").pack_into
_11Q: Final = Struct("=11Q").pack_into
_DATA: Final = Struct(">IBII").pack
_HANDLE: Final = Struct(">IBII").pack


def _local(type: int, reason: object) -> NoReturn:
    raise LocalProtocolError(f"SFTP reply {type}: {reason}")


def _finish(type: int, id: int, form: bytes, n: int, base: bytes) -> bytes:
    """Return the packet whose fields are in the table."""
    n = _encode(OUT, OUT_LEN, type, id, b"", 0, form, TABLE, n, base, len(base))
    if n < 0:
        _local(type, REASONS[n])
    return OUTPUT[:n]


def version(extensions: Mapping[bytes, bytes], number: int = VERSION) -> bytes:
    """Answer INIT; extensions are name -> data, sent in their order."""
    try:
        strings = [*chain.from_iterable(extensions.items())]
        n = _put_spans(strings, 0)
        return _finish(FXP_VERSION, number, b"b" * len(strings), n, b"".join(strings))
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP version: {exc}") from exc


def status(id: int, code: int, message: bytes = b"", lang: bytes = b"") -> bytes:
    """Answer with a code (FX_*) and words for people, in UTF-8."""
    try:
        n = len(message)
        _5(CELLS, 0, code, 0, n, n, n + len(lang))
        return _finish(FXP_STATUS, id, b"ubb", 5, message + lang)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP status: {exc}") from exc


def handle(id: int, handle: bytes) -> bytes:
    """Answer OPEN or OPENDIR; at most 256 octets."""
    n = len(handle)
    if n > HANDLE_MAX:
        _local(FXP_HANDLE, "longer than 256 octets")
    try:
        return _HANDLE(9 + n, FXP_HANDLE, id, n) + handle
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP handle: {exc}") from exc


def data_head(id: int, length: int) -> bytes:
    """Return the head of an answer to READ; `length` octets must be sent right behind it."""
    try:
        return _DATA(9 + length, FXP_DATA, id, length)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP data: {exc}") from exc


def attrs(id: int, attrs: Attrs) -> bytes:
    """Answer STAT, LSTAT or FSTAT."""
    try:
        put_attrs(attrs, 0)
        return _finish(FXP_ATTRS, id, b"a", 7, b"")
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP attributes: {exc}") from exc


def name(id: int, entries: Sequence[Name]) -> bytes:
    """Answer READDIR, REALPATH, READLINK, ... with any number of entries.

    The packet is not bounded here: OpenSSH's client takes 256 KiB, hence some 100 entries of
    which any may be long, or as many as the caller has counted.
    """
    try:
        return _name(id, entries)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP name: {exc}") from exc


def _name(id: int, entries: Sequence[Name]) -> bytes:
    n = len(entries)
    names: Iterable[bytes]
    longnames: Iterable[bytes]
    records: Iterable[Attrs]
    names, longnames, records = zip(*entries, strict=True) if n else ((), (), ())
    columns: list[Any] = [*zip(*records, strict=True)]
    masks: Iterable[int] = (ATTR_ALL,) * n
    if any(None in column for column in columns):
        masks = map(mask_of, records)
        columns = [[v or 0 for v in column] for column in columns]
    slots = n * _COLUMNS
    table, cells = TABLE, CELLS
    if slots > SLOTS:
        table = ffi.new("int64_t[]", slots)
        cells = ffi.buffer(table)
    values = chain(map(len, names), map(len, longnames), *columns, masks)
    pack_into(f"={slots}q", cells, 0, *values)
    octets, longs = b"".join(names), b"".join(longnames)
    size = 13 + n * 40 + len(octets) + len(longs)
    out, output = OUT, OUTPUT
    if size > OUT_LEN:
        out = ffi.new("uint8_t[]", size)
        output = ffi.buffer(out)
    got = _encode_name(out, size, id, table, n, octets, len(octets), longs, len(longs))
    if got < 0:
        _local(FXP_NAME, REASONS[got])
    return output[:got]


def statvfs(id: int, state: Statvfs) -> bytes:
    """Answer STATVFS or FSTATVFS; all fields are 64 bits without sign."""
    try:
        _11Q(CELLS, 0, *state)
        return _finish(FXP_EXTENDED_REPLY, id, b"Q" * 11, 11, b"")
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP statvfs: {exc}") from exc


def limits(id: int, limits: Limits) -> bytes:
    """Answer LIMITS."""
    try:
        _4Q(CELLS, 0, *limits)
        return _finish(FXP_EXTENDED_REPLY, id, b"QQQQ", 4, b"")
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP limits: {exc}") from exc


def users_groups(id: int, users: Sequence[bytes], groups: Sequence[bytes]) -> bytes:
    """Answer USERS-GROUPS-BY-ID in the order of the question, b"" for who is unknown."""
    try:
        return _users_groups(id, users, groups)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP users and groups: {exc}") from exc


def _users_groups(id: int, users: Sequence[bytes], groups: Sequence[bytes]) -> bytes:
    strings = [*users, *groups]
    ends = [*accumulate(map(len, strings), initial=0)]
    spans = [*pairwise(ends)]
    k = len(users)
    values = [k, *chain.from_iterable(spans[:k]), len(groups), *chain.from_iterable(spans[k:])]
    base = b"".join(strings)
    table, out = ffi.new("int64_t[]", values), ffi.new("uint8_t[]", 17 + len(base) + 4 * len(ends))
    form, n = b"ll", len(values)
    got = _encode(
        *(out, 17 + len(base) + 4 * len(ends), FXP_EXTENDED_REPLY, id, b"", 0),
        *(form, table, n, base, len(base)),
    )
    if got < 0:
        _local(FXP_EXTENDED_REPLY, REASONS[got])
    return ffi.buffer(out)[:got]


def _put_spans(strings: Sequence[bytes], at: int) -> int:
    """Pack where each string lies in all of them joined; return the slot behind."""
    ends = [*accumulate(map(len, strings), initial=0)]
    spans = [*chain.from_iterable(pairwise(ends))]
    pack_into(f"={len(spans)}q", CELLS, at * 8, *spans)
    return at + len(spans)
