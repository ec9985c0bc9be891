"""Bitmaps, beside a list of booleans that does the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syspuffs.emul.ext2fs.bitmap import (
    clear_bits,
    count_free,
    find_free,
    find_free_octet,
    free_run,
    is_set,
    set_bits,
)

maps = st.lists(st.sampled_from([0, 0xFF, 0xFF, 1, 0x80, 0x55, 0xFE]), min_size=1, max_size=20)


def used(bits: bytearray) -> list[bool]:
    return [bool(octet >> bit & 1) for octet in bits for bit in range(8)]


@given(maps, st.data())
def test_searches(octets: list[int], data: st.DataObject) -> None:
    bits = bytearray(octets)
    flags = used(bits)
    end = data.draw(st.integers(1, len(flags)))
    start = data.draw(st.integers(0, end))
    free = [at for at in range(start, end) if not flags[at]]
    assert find_free(bits, start, end) == (free[0] if free else -1)
    assert is_set(bits, start, end) == (not free)
    assert count_free(bits, end) == flags[:end].count(False)
    octet = find_free_octet(bits, start, end)
    whole = [at for at in range(-(-start // 8) * 8, end - 7, 8) if not any(flags[at : at + 8])]
    assert octet == (whole[0] if whole else -1)
    if free:
        first = free[0]
        stop = first
        while stop < end and not flags[stop]:
            stop += 1
        assert free_run(bits, first, end) == stop


@given(maps, st.data())
def test_changes(octets: list[int], data: st.DataObject) -> None:
    bits = bytearray(octets)
    flags = used(bits)
    start = data.draw(st.integers(0, len(flags) - 1))
    end = data.draw(st.integers(start + 1, len(flags)))
    assert clear_bits(bits, start, end) == flags[start:end].count(True)
    assert used(bits) == flags[:start] + [False] * (end - start) + flags[end:]
    set_bits(bits, start, end)
    assert used(bits) == flags[:start] + [True] * (end - start) + flags[end:]
