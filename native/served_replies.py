"""Replies of SFTP version 3 as a server sends them: each function returns one whole packet.

Those that are a few fields in fixed places are made by `struct`: a call of C through cffi with
all that `sftp_encode` needs takes longer (STATUS 0.9 us, so 0.4). Listings, of which nearly all
octets of replies are beside file data, and attributes that are not complete are made by C.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from struct import Struct, pack_into
from struct import error as StructError
from typing import Final, NoReturn

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
_NAME_SLOTS: Final = lib.SFTP_NAME_ENCODE_SLOTS
_U32: Final = Struct(">I").pack
_HEAD: Final = Struct(">IBI").pack
_HEAD_U32: Final = Struct(">IBII").pack
_HEAD_2U32: Final = Struct(">IBIII").pack
_HEAD_ATTRS: Final = Struct(">IBIIQIIIII").pack
_HEAD_4U64: Final = Struct(">IBI4Q").pack
_HEAD_11U64: Final = Struct(">IBI11Q").pack


def _local(type: int, reason: object) -> NoReturn:
    raise LocalProtocolError(f"SFTP reply {type}: {reason}")


def _row(strings: Iterable[bytes]) -> bytes:
    """Return strings one behind the other, each with its length."""
    return b"".join([octets for s in strings for octets in (_U32(len(s)), s)])


def version(extensions: Mapping[bytes, bytes], number: int = VERSION) -> bytes:
    """Answer INIT; extensions are name -> data, sent in their order."""
    try:
        row = _row(chain.from_iterable(extensions.items()))
        return _HEAD(5 + len(row), FXP_VERSION, number) + row
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP version: {exc}") from exc


def status(id: int, code: int, message: bytes = b"", lang: bytes = b"") -> bytes:
    """Answer with a code (FX_*) and words for people, in UTF-8."""
    try:
        n, m = len(message), len(lang)
        head = _HEAD_2U32(17 + n + m, FXP_STATUS, id, code, n)
        return b"".join((head, message, _U32(m), lang))
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP status: {exc}") from exc


def handle(id: int, handle: bytes) -> bytes:
    """Answer OPEN or OPENDIR; a handle has at most 256 octets."""
    try:
        n = len(handle)
        if n > HANDLE_MAX:
            raise ValueError("more than 256 octets")
        return _HEAD_U32(9 + n, FXP_HANDLE, id, n) + handle
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP handle: {exc}") from exc


def data_head(id: int, length: int) -> bytes:
    """Return the head of an answer to READ; `length` octets must be sent right behind it."""
    try:
        return _HEAD_U32(9 + length, FXP_DATA, id, length)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP data: {exc}") from exc


def attrs(id: int, attrs: Attrs) -> bytes:
    """Answer STAT, LSTAT or FSTAT; complete attributes are the fast case."""
    try:
        if attrs[0] is not None and attrs[0] < 2**63:
            return _HEAD_ATTRS(37, FXP_ATTRS, id, ATTR_ALL, *attrs)
    except _BAD_VALUE:  # something else is missing, or wrong
        pass
    try:
        put_attrs(attrs, 0)
        n = _encode(OUT, OUT_LEN, FXP_ATTRS, id, b"", 0, b"a", TABLE, 7, b"", 0)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP attributes: {exc}") from exc
    if n < 0:
        _local(FXP_ATTRS, REASONS[n])
    return OUTPUT[:n]


def path(id: int, path: bytes) -> bytes:
    """Answer REALPATH, READLINK, EXPAND-PATH or HOME-DIRECTORY: a NAME with one bare entry."""
    try:
        n = len(path)
        head = _HEAD_2U32(21 + 2 * n, FXP_NAME, id, 1, n)
        return b"".join((head, path, _U32(n), path, b"\0\0\0\0"))
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP path: {exc}") from exc


def name(id: int, entries: Sequence[Name]) -> bytes:
    """Answer READDIR with any number of entries, in one call of C.

    The length of the packet is the caller's to bound: OpenSSH's client takes 256 KiB.
    """
    try:
        return _name(id, entries)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP name: {exc}") from exc


def _name(id: int, entries: Sequence[Name]) -> bytes:
    n = len(entries)
    names, longnames, records = zip(*entries, strict=True) if n else ((), (), ())
    octets, longs = b"".join(names), b"".join(longnames)
    slots = n * _NAME_SLOTS
    table, cells = TABLE, CELLS
    if slots > SLOTS:
        table = ffi.new("int64_t[]", slots)
        cells = ffi.buffer(table)
    lengths = [*map(len, names), *map(len, longnames)]
    try:
        complete = chain(lengths, repeat(ATTR_ALL, n), chain.from_iterable(records))
        pack_into(f"={slots}q", cells, 0, *complete)
    except StructError:  # None is among the attributes: looking for it beforehand costs a third
        fields = [v or 0 for record in records for v in record]
        pack_into(f"={slots}q", cells, 0, *lengths, *map(mask_of, records), *fields)
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
        return _HEAD_11U64(93, FXP_EXTENDED_REPLY, id, *state)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP statvfs: {exc}") from exc


def limits(id: int, limits: Limits) -> bytes:
    """Answer LIMITS."""
    try:
        return _HEAD_4U64(37, FXP_EXTENDED_REPLY, id, *limits)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP limits: {exc}") from exc


def users_groups(id: int, users: Sequence[bytes], groups: Sequence[bytes]) -> bytes:
    """Answer USERS-GROUPS-BY-ID in the order of the question, b"" for who is unknown."""
    try:
        row = _row((_row(users), _row(groups)))
        return _HEAD(5 + len(row), FXP_EXTENDED_REPLY, id) + row
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"SFTP users and groups: {exc}") from exc
