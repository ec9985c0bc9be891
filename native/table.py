"""The table of numbers through which the faces and the C codec talk, and what its codes mean.

There is one of each, for one thread: a face fills it, calls C and empties it again without an
await in between. No other thread may use a face, and no finalizer may: it could run between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from struct import Struct, pack_into, unpack_from
from typing import Any, Final

from ._codec import ffi, lib
from .records import VATTR_NULL, Buffer, Vattr

SLOTS: Final = 8192
"""Length of `TABLE`. What needs more (a very long directory listing) gets a table of its own."""
OUT_LEN: Final = 128 * 1024
"""Length of `OUT`, octets."""

TABLE: Final = ffi.new("int64_t[]", SLOTS)
CELLS: Final = ffi.buffer(TABLE)
OUT: Final = ffi.new("uint8_t[]", OUT_LEN)
OUTPUT: Final = ffi.buffer(OUT)

UNPACK: Final[list[Callable[[Any], tuple[int, ...]]]] = [
    Struct(f"={n}q").unpack_from for n in range(256)
]
"""By number of slots: take them out of the table (any number: `unpack_slots`)."""

REASONS: Final = {
    lib.CODEC_SHORT: "the message is too short",
    lib.CODEC_LENGTH: "a length is over its limit or contradicts another",
    lib.CODEC_VALUE: "a number is outside its range",
    lib.CODEC_NAME: "a name is empty, too long, or has NUL or '/' in it",
    lib.CODEC_TRAILING: "octets are left over",
    lib.CODEC_OP: "no such operation, or not in this direction",
    lib.CODEC_COOKIE: "a cookie is out of range",
    lib.CODEC_SPACE: "the message is too long",
}
"""What the negative codes of C mean, for people."""


def unpack_slots(n: int, cells: Any = CELLS) -> tuple[int, ...]:
    """Return the first `n` slots of the table."""
    if n < 256:
        return UNPACK[n](cells)
    return unpack_from(f"={n}q", cells)


def pointer(buf: Buffer) -> Any:
    """Return what stands for `buf` in a call of C; good only while that call runs.

    It must be gone before an exception is raised: kept alive by a traceback beside the view that
    it holds on to, both can become garbage together, and the collector of CPython 3.11 may then
    clear the view first and crash (CPython issue 77894, met here when a peer sent garbage).
    """
    return buf if type(buf) is bytes else ffi.from_buffer(buf)


VNOVAL: Final = lib.FRAME_VNOVAL
VATTR_SLOTS: Final = len(Vattr._fields) + 1
"""Slots of attributes: the fields, then the mask of those that are not None."""
_VATTR_ALL: Final = (1 << len(Vattr._fields)) - 1
_NONE: Final = (None,)
_pickers: dict[int, Callable[[tuple[int | None, ...]], tuple[int | None, ...]]] = {}
_new: Any = tuple.__new__


def take_vattr(slots: tuple[int, ...], at: int) -> Vattr:
    """Build attributes from the slots at `at`."""
    mask = slots[at + 17]
    if mask == _VATTR_ALL:
        return _new(Vattr, slots[at : at + 17])  # type: ignore[no-any-return]
    pick = _pickers.get(mask)
    if pick is None:
        if mask == 0:
            return VATTR_NULL
        if len(_pickers) >= 256:  # a peer that shows all 2**17 masks must not fill our memory
            _pickers.clear()
        pick = itemgetter(*[i if mask >> i & 1 else 17 for i in range(17)])
        _pickers[mask] = pick
    return _new(Vattr, pick(slots[at : at + 17] + _NONE))  # type: ignore[no-any-return]


def put_groups(groups: Sequence[int], at: int) -> int:
    """Pack group numbers at slot `at`; return the slot behind them."""
    if len(groups) > 64:
        raise ValueError(f"{len(groups)} groups")
    pack_into(f"={len(groups)}q", CELLS, at * 8, *groups)
    return at + len(groups)
