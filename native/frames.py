"""puffs frames: one C call to build a message, one to take it apart.

A frame is a header of 48 octets, a body that depends on the operation, and a payload of raw file
data, little-endian, without padding. Header: framelen u32 (all of it, payload too), opclass u16,
optype u16, id u64, cookie u64, rv i32 (0 or a Linux errno), setbacks u32, pid i32, lid u32,
buflen u32 (longest reply wanted, 0: any), payload_len u32.

The payload is never copied here: it travels beside the head (`sendmsg([head, data])`), and what
is decoded refers to it. What a peer sends is checked to the last octet; `RemoteProtocolError`
says that it is nonsense, `LocalProtocolError` that we were asked to build nonsense.

File ids, sizes, offsets, device numbers and time-outs are 0 to 2**63 - 1, user and group ids 0
to 2**32 - 1, modes 0 to 0o7777, at most 64 groups in a credential. In attributes, -2**63 is
"not set", as None is. All credentials of one message share its pid.
"""

from __future__ import annotations

from struct import error as StructError
from typing import Any, Final, NamedTuple, NoReturn

from . import frame_replies as replies
from . import frame_requests as requests
from ._codec import ffi, lib
from .constants import OPCLASS_MASK, OpClass, VnOp
from .errors import LocalProtocolError, RemoteProtocolError
from .records import Buffer
from .table import CELLS, OUT, OUT_LEN, OUTPUT, REASONS, SLOTS, TABLE, UNPACK, pointer, unpack_slots

HEADER_LEN: Final = lib.FRAME_HEADER_LEN

_decode_request = lib.frame_decode_request
_decode_reply = lib.frame_decode_reply
_encode_request = lib.frame_encode_request
_encode_reply = lib.frame_encode_reply
_SPACE: Final = lib.CODEC_SPACE
_BAD_VALUE: Final = (StructError, TypeError, ValueError, OverflowError)
_READDIR: Final = OpClass.VN << 6 | VnOp.READDIR
_READ: Final = OpClass.VN << 6 | VnOp.READ
_WRITE: Final = OpClass.VN << 6 | VnOp.WRITE
_request_packers: Final = requests.PACK
_request_builders: Final = requests.BUILD
_reply_packers: Final = replies.PACK
_reply_builders: Final = replies.BUILD
_new: Any = tuple.__new__


class Header(NamedTuple):
    """The header of a frame; `opclass` with its flags."""

    framelen: int
    opclass: int
    optype: int
    id: int
    cookie: int
    rv: int = 0
    setbacks: int = 0
    pid: int = 0
    lid: int = 0
    buflen: int = 0
    payload_len: int = 0


def _remote(code: int) -> NoReturn:
    raise RemoteProtocolError(f"puffs frame: {REASONS[code]}")


def _local(code: int, opclass: int, optype: int) -> NoReturn:
    raise LocalProtocolError(f"puffs frame {int(opclass)}/{int(optype)}: {REASONS[code]}")


def _no_op(opclass: int, optype: int) -> LocalProtocolError:
    return LocalProtocolError(f"puffs frame {int(opclass)}/{int(optype)}: no such operation")


def frame_length(buf: Buffer, start: int, end: int) -> int:
    """Return the length of the frame that begins at `start`, 0 when fewer than 4 octets are there.

    RemoteProtocolError when no frame can be so short or so long.
    """
    if end - start < 4:
        return 0
    n = lib.frame_length(bytes(buf[start : start + 4]), 4)
    if n < 0:
        _remote(n)
    return n


def decode_header(buf: Buffer) -> Header:
    """Return the header of the frame that begins `buf`, of which 48 octets are enough."""
    n = lib.frame_header(pointer(buf), len(buf), TABLE, SLOTS)
    if n < 0:
        _remote(n)
    return _new(Header, UNPACK[11](CELLS))  # type: ignore[no-any-return]


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
    """Return the frame of a request without its payload.

    `args` are those of the FileServer method after the cookie. FLAG_FAF is set where the
    operation is always fire-and-forget, otherwise `opclass` may have it. The payload of a write
    is as long as its data (or `payload_len` with None for data); the header's pid is that of
    the credentials in `args`, and `pid` where there are none.
    """
    pack = _request_packers.get((opclass & OPCLASS_MASK) << 6 | optype)
    if pack is None:
        raise _no_op(opclass, optype)
    try:
        n, base, cred_pid = pack(args)
        n = _encode_request(
            OUT,
            OUT_LEN,
            opclass,
            optype,
            id,
            cookie,
            cred_pid or pid,
            buflen,
            payload_len,
            TABLE,
            n,
            base,
            len(base),
        )
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"puffs request {opclass}/{optype}: {exc}") from exc
    if n < 0:
        _local(n, opclass, optype)
    return OUTPUT[:n]


def decode_request(buf: Buffer, payload: Buffer | None = None) -> tuple[Header, tuple[Any, ...]]:
    """Return header and arguments of the one frame in `buf`.

    The data of a write are a view of `buf`, or `payload` itself when the frame's payload was
    received elsewhere and `buf` ends before it.
    """
    beside = -1 if payload is None else len(payload)
    n = _decode_request(
        buf if type(buf) is bytes else ffi.from_buffer(buf), len(buf), beside, TABLE, SLOTS
    )
    if n < 0:
        _remote(n)
    slots = UNPACK[n](CELLS)
    header = _new(Header, slots[:11])
    key = (slots[1] & 7) << 6 | slots[2]
    args = _request_builders[key](slots, buf)
    if payload is not None and key == _WRITE:
        args = (args[0], payload, args[2], args[3])
    return header, args


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
    """Return the frame of the reply that carries `result`, without its payload.

    `opclass` comes without flags. `result` is what the FileServer method returned; setbacks in
    it are joined with `setbacks`. The payload of a read is as long as the result (or
    `payload_len` with None for the result).
    """
    key = opclass << 6 | optype
    pack = _reply_packers.get(key)
    if pack is None:
        raise _no_op(opclass, optype)
    try:
        if key == _READDIR:
            return _encode_listing(id, cookie, result, setbacks, payload_len)
        n, base, more = pack(result)
        n = _encode_reply(
            OUT,
            OUT_LEN,
            opclass,
            optype,
            id,
            cookie,
            0,
            setbacks | more,
            payload_len,
            TABLE,
            n,
            base,
            len(base),
        )
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"puffs reply {opclass}/{optype}: {exc}") from exc
    if n < 0:
        _local(n, opclass, optype)
    return OUTPUT[:n]


def _encode_listing(id: int, cookie: int, result: Any, setbacks: int, payload_len: int) -> bytes:
    """Return the reply to READDIR, whose length has no small bound."""
    slots, base, table = replies.pack_dirents(result)
    # No entry takes more octets in the frame than its slots do in the table, but for its name.
    length = HEADER_LEN + slots * 8 + len(base)
    out, out_len, output = OUT, OUT_LEN, OUTPUT
    if length > OUT_LEN:
        out, out_len = ffi.new("uint8_t[]", length), length
        output = ffi.buffer(out)
    n = _encode_reply(
        out,
        out_len,
        OpClass.VN,
        VnOp.READDIR,
        id,
        cookie,
        0,
        setbacks,
        payload_len,
        table,
        slots,
        base,
        len(base),
    )
    if n < 0:
        _local(n, OpClass.VN, VnOp.READDIR)
    return output[:n]


def encode_error(opclass: int, optype: int, id: int, cookie: int, errno: int) -> bytes:
    """Return the frame of the reply that says that the operation failed with `errno`.

    Also for operations that we do not know, which may be asked of us by a newer peer.
    """
    if errno == 0:
        raise LocalProtocolError("puffs error reply without an error")
    try:
        n = _encode_reply(OUT, OUT_LEN, opclass, optype, id, cookie, errno, 0, 0, TABLE, 0, b"", 0)
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"puffs reply {opclass}/{optype}: {exc}") from exc
    if n < 0:
        _local(n, opclass, optype)
    return OUTPUT[:n]


def decode_reply(buf: Buffer, payload: Buffer | None = None) -> tuple[Header, Any]:
    """Return header and result of the one frame in `buf`; the result is None for an error.

    What was read is a view of `buf`, or `payload` itself when the frame's payload was received
    elsewhere and `buf` ends before it.
    """
    src = buf if type(buf) is bytes else ffi.from_buffer(buf)
    beside = -1 if payload is None else len(payload)
    n = _decode_reply(src, len(buf), beside, TABLE, SLOTS)
    if n >= 0:
        slots = unpack_slots(n)
    elif n == _SPACE:
        n, table = _decode_long(src, len(buf), beside)
        del src
        if n < 0:
            _remote(n)
        slots = unpack_slots(n, ffi.buffer(table))
    else:
        del src  # see table.py: never in the traceback of what is raised
        _remote(n)
    header = _new(Header, slots[:11])
    if slots[5]:
        return header, None
    key = (slots[1] & 7) << 6 | slots[2]
    if payload is not None and key == _READ:
        return header, payload
    return header, _reply_builders[key](slots, buf)


def _decode_long(src: Any, length: int, beside: int) -> tuple[int, Any]:
    """Decode a directory listing into a table of its own: at most 30 slots for 25 octets."""
    slots = 64 + length // 25 * (lib.FRAME_DIRENT_COLUMNS + lib.FRAME_NEWINFO_SLOTS)
    table = ffi.new("int64_t[]", slots)
    return _decode_reply(src, length, beside, table, slots), table
