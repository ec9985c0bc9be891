"""Bitmaps of a group: bit n of the block is bit n % 8 of octet n // 8; 1 is in use.

Searches run over octets in C where they can: a bitmap of 32,768 blocks is a Python loop's
millisecond.
"""

from __future__ import annotations

import re
from typing import Final

_NOT_FULL: Final = re.compile(rb"[^\xff]")
_NOT_EMPTY: Final = re.compile(rb"[^\x00]")


def find_free(bits: bytearray, start: int, end: int) -> int:
    """Return the first free bit from `start` to before `end`, -1 if there is none."""
    if start >= end:
        return -1
    octet, shift = start >> 3, start & 7
    free = ~bits[octet] & 0xFF & 0xFF << shift
    if not free:
        match = _NOT_FULL.search(bits, octet + 1, (end + 7) >> 3)
        if match is None:
            return -1
        octet = match.start()
        free = ~bits[octet] & 0xFF
    bit = octet << 3 | (free & -free).bit_length() - 1
    return bit if bit < end else -1


def free_run(bits: bytearray, start: int, end: int) -> int:
    """Return where the run of free bits that begins at `start` ends, `end` at most."""
    octet, shift = start >> 3, start & 7
    used = bits[octet] & 0xFF << shift
    if not used:
        match = _NOT_EMPTY.search(bits, octet + 1, (end + 7) >> 3)
        if match is None:
            return end
        octet = match.start()
        used = bits[octet]
    return min(octet << 3 | (used & -used).bit_length() - 1, end)


def find_free_octet(bits: bytearray, start: int, end: int) -> int:
    """Return the first of eight free bits that fill an octet, from `start` on, or -1."""
    octet = bits.find(b"\0", (start + 7) >> 3, end >> 3)
    return octet << 3 if octet >= 0 else -1


def set_bits(bits: bytearray, start: int, end: int) -> None:
    """Set the bits from `start` to before `end`, which are free."""
    first, last = start >> 3, end >> 3
    if first == last:
        bits[first] |= (1 << end - start) - 1 << (start & 7)
        return
    if start & 7:
        bits[first] |= 0xFF << (start & 7) & 0xFF
        first += 1
    bits[first:last] = b"\xff" * (last - first)
    if end & 7:
        bits[last] |= (1 << (end & 7)) - 1


def clear_bits(bits: bytearray, start: int, end: int) -> int:
    """Clear the bits from `start` to before `end`; return how many of them were set."""
    cleared = 0
    first, last = start >> 3, (end + 7) >> 3
    for octet in range(first, last):
        mask = 0xFF
        if octet == first:
            mask &= 0xFF << (start & 7)
        if octet == end >> 3:
            mask &= (1 << (end & 7)) - 1
        cleared += (bits[octet] & mask).bit_count()
        bits[octet] &= ~mask
    return cleared


def count_free(bits: bytearray, end: int) -> int:
    """Return how many of the first `end` bits are free."""
    whole = int.from_bytes(bits[: (end + 7) >> 3], "little") & (1 << end) - 1
    return end - whole.bit_count()


def is_set(bits: bytearray, start: int, end: int) -> bool:
    """Whether all bits from `start` to before `end` are set."""
    return find_free(bits, start, end) < 0
