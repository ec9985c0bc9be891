"""One directory block: against a set of names, against nonsense, and against power cuts."""

from __future__ import annotations

import random
import struct
from errno import EUCLEAN

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.emul.ext2fs.dirblock import (
    empty_block,
    find_room,
    first_block,
    insert,
    is_entry,
    parse_block,
    rec_size,
    remove,
    replace,
)
from syspuffs.native.errors import VfsError

from .volumes import may_fail

names = st.binary(min_size=1, max_size=255).filter(lambda name: not set(name) & {0, 0x2F})
INODES = 1000


def live(data: bytes | bytearray) -> dict[bytes, tuple[int, int]]:
    """Return name -> (inode, type) of what stands in a block."""
    return {
        entry.name: (entry.ino, entry.ftype)
        for entry in parse_block(data, INODES, has_filetype=True)
        if entry.ino
    }


def where(data: bytearray, name: bytes) -> int:
    (pos,) = [
        entry.pos
        for entry in parse_block(data, INODES, has_filetype=True)
        if entry.ino and entry.name == name
    ]
    return pos


@pytest.mark.parametrize("size", [1024, 2048, 4096])
@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=40)
def test_against_a_model(size: int, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(first_block(size, 12, 2, 2))
    model: dict[bytes, tuple[int, int]] = {b".": (12, 2), b"..": (2, 2)}
    for _ in range(60):
        name = b"%d" % rng.randrange(40) + b"x" * rng.choice([0, 1, 8, 60, 250])
        if name not in model:
            pos, room = find_room(data, 0, rec_size(name))
            if pos < 0:
                assert room < rec_size(name)
                continue
            ino, ftype = rng.randint(1, INODES), rng.randint(1, 7)
            at = insert(data, pos, ino, ftype, name)
            assert is_entry(data, at, name)
            model[name] = ino, ftype
        elif rng.random() < 0.3:
            replace(data, where(data, name), 77, 5)
            model[name] = 77, 5
        else:
            at = where(data, name)
            remove(data, at)
            assert not is_entry(data, at, name)
            del model[name]
        assert live(data) == model


def test_a_block_can_be_filled_to_the_last_octet() -> None:
    data = bytearray(empty_block(1024))
    for number in range(1024 // 12):
        pos, _ = find_room(data, 0, 12)
        insert(data, pos, 1, 1, b"%04d" % number)
    assert find_room(data, 0, 12) == (-1, 1024 - 1024 // 12 * 12)
    assert len(live(data)) == 85


NONSENSE = [
    ("empty", bytes(1024)),
    ("too short", struct.pack("<IHBB", 1, 8, 1, 1)),
    ("no multiple of four", struct.pack("<IHBB", 1, 13, 1, 1) + b"a"),
    ("beyond the end", struct.pack("<IHBB", 1, 1028, 1, 1) + b"a"),
    ("name longer than the entry", struct.pack("<IHBB", 1, 12, 5, 1) + b"abcde"),
    ("no name", struct.pack("<IHBB", 1, 1024, 0, 1)),
    ("slash", struct.pack("<IHBB", 1, 1024, 3, 1) + b"a/b"),
    ("NUL", struct.pack("<IHBB", 1, 1024, 3, 1) + b"a\0b"),
    ("inode", struct.pack("<IHBB", INODES + 1, 1024, 1, 1) + b"a"),
    ("rest too short", struct.pack("<IHBB", 0, 1016, 0, 0)),
]


@pytest.mark.parametrize(("what", "octets"), NONSENSE, ids=[what for what, _ in NONSENSE])
def test_nonsense(what: str, octets: bytes) -> None:
    with pytest.raises(VfsError) as caught:
        parse_block(octets.ljust(1024, b"\0"), INODES, has_filetype=True)
    assert caught.value.errno == EUCLEAN
    assert caught.value.detail


def test_without_filetype_the_octet_belongs_to_the_length() -> None:
    data = bytearray(first_block(1024, 12, 2, 0))
    assert [entry.name for entry in parse_block(data, INODES, has_filetype=False)] == [b".", b".."]
    data[7] = 1
    with pytest.raises(VfsError):
        parse_block(data, INODES, has_filetype=False)


@given(
    st.binary(min_size=1024, max_size=1024),
    st.lists(st.tuples(st.integers(0, 1020), st.integers(0, 0xFFFF)), max_size=20),
)
@settings(max_examples=300)
def test_never_surprises(noise: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(first_block(1024, 12, 2, 2)[:24] + noise[24:])
    struct.pack_into("<H", data, 16, 1012)
    for at, value in changes:
        struct.pack_into("<H", data, at & -4, value)
    for work in (
        lambda: parse_block(data, INODES, has_filetype=True),
        lambda: find_room(data, 0, 40),
        lambda: remove(bytearray(data), 12),
    ):
        with may_fail(EUCLEAN):
            work()


@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=150)
def test_no_mixture_of_sectors_loses_an_old_name(seed: int) -> None:
    """Whatever sectors of a changed block reach the medium, what both states have is there.

    What breaks the chain is cut off by e2fsck, together with everything behind it.
    """
    rng = random.Random(seed)
    size = rng.choice([1024, 4096])
    data = bytearray(first_block(size, 12, 2, 2))
    model: set[bytes] = set()

    def work(count: int) -> None:
        for _ in range(count):
            name = b"%d-" % rng.randrange(200) + b"n" * rng.choice([0, 3, 30, 200])
            if name in model:
                remove(data, where(data, name))
                model.discard(name)
            else:
                pos, _ = find_room(data, 0, rec_size(name))
                if pos >= 0:
                    insert(data, pos, 5, 1, name)
                    model.add(name)

    work(rng.randrange(120))
    states = [bytes(data)]
    kept = set(model)
    for _ in range(rng.randint(1, 3)):  # written more than once before the cache was flushed
        work(rng.randrange(12))
        kept &= model
        states.append(bytes(data))
    mixture = b"".join(rng.choice(states)[at : at + 512] for at in range(0, size, 512))
    assert kept <= readable(mixture)


def readable(data: bytes) -> set[bytes]:
    """Return the names that can be read before the chain breaks."""
    found, pos = set(), 0
    while pos + 12 <= len(data):
        ino, reclen, namelen, _ = struct.unpack_from("<IHBB", data, pos)
        if reclen < 12 or reclen & 3 or pos + reclen > len(data):
            break
        if ino:
            found.add(data[pos + 8 : pos + 8 + namelen])
        pos += reclen
    return found
