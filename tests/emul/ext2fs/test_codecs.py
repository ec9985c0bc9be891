"""What stands on the medium: super blocks, groups and inodes, sane and hostile."""

from __future__ import annotations

import os
import struct
from errno import EINVAL, EUCLEAN

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syspuffs.emul.ext2fs.features import (
    INCOMPAT_NAMES,
    check_incompat,
    write_hindrances,
)
from syspuffs.emul.ext2fs.group import Groups
from syspuffs.emul.ext2fs.inode import Dinode, decode_inode, encode_inode
from syspuffs.emul.ext2fs.super import (
    GROUP_DESC_SIZE,
    SUPER_OFFSET,
    SUPER_SIZE,
    VALID_FS,
    Superblock,
)
from syspuffs.native.constants import Vtype
from syspuffs.native.errors import VfsError

from .volumes import MIB, make_image, may_fail

SIZE = 8 * MIB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("codecs") / "image"
    return make_image(path, SIZE, "-g", "1024", block=1024).read_bytes()


def raw_super(image: bytes) -> bytes:
    return image[SUPER_OFFSET : SUPER_OFFSET + SUPER_SIZE]


def table_of(image: bytes, sb: Superblock) -> bytes:
    start = (sb.first_data_block + 1) * sb.block_size
    return image[start : start + sb.groups_count * GROUP_DESC_SIZE]


# The super block.


def test_super_is_what_mke2fs_made(image: bytes) -> None:
    sb = Superblock(raw_super(image), SIZE)
    assert sb.block_size == 1024
    assert sb.blocks_count == 8192
    assert sb.groups_count == 8
    assert sb.first_ino == 11
    assert sb.state & VALID_FS
    assert sb.has_filetype
    assert not sb.has_journal
    assert [group for group in range(60) if sb.has_backup(group)] == [0, 1, 3, 5, 7, 9, 25, 27, 49]


def test_super_keeps_what_it_does_not_know(image: bytes) -> None:
    raw = bytearray(raw_super(image))
    raw[600:700] = bytes(range(100))
    sb = Superblock(bytes(raw), SIZE)
    assert sb.encode() == raw
    sb.free_blocks -= 7
    sb.mnt_count = 65_536 + 3
    changed = Superblock(sb.encode(), SIZE)
    assert changed.free_blocks == sb.free_blocks
    assert changed.mnt_count == 3
    assert changed.encode()[136:] == raw[136:]


@pytest.mark.parametrize(
    ("offset", "octets", "errno", "detail"),
    [
        (56, b"\0\0", EINVAL, "no ext2"),
        (76, b"\2\0\0\0", EINVAL, "revision 2"),
        (24, b"\3\0\0\0", EINVAL, "8192"),
        (24, b"\xff\xff\xff\xff", EINVAL, "blocks of"),
        (28, b"\1\0\0\0", EINVAL, "fragments"),
        (96, struct.pack("<I", 0x42), EINVAL, "extent"),
        (96, struct.pack("<I", 0x6), EINVAL, "needs_recovery"),
        (96, struct.pack("<I", 1 << 31), EINVAL, "FEATURE_I31"),
        (20, b"\0\0\0\0", EUCLEAN, "first data block"),
        (88, b"\x64\0", EUCLEAN, "inodes of 100"),
        (88, b"\0\0", EUCLEAN, "inodes of 0"),
        (32, b"\0\0\0\0" + b"\0\0\0\0", EUCLEAN, "0 blocks in a group"),
        (40, b"\0\0\0\0", EUCLEAN, "0 inodes in a group"),
        (40, b"\1\0\0\0", EUCLEAN, "1 inodes in a group"),
        (0, b"\xff\xff\xff\xff", EUCLEAN, "inodes in"),
        (4, b"\0\0\0\0", EUCLEAN, "0 blocks"),
        (8, b"\xff\xff\xff\xff", EUCLEAN, "reserved"),
        (84, b"\1\0\0\0", EUCLEAN, "first inode"),
    ],
)
def test_super_refused(image: bytes, offset: int, octets: bytes, errno: int, detail: str) -> None:
    raw = bytearray(raw_super(image))
    raw[offset : offset + len(octets)] = octets
    with pytest.raises(VfsError, match=detail) as caught:
        Superblock(bytes(raw), SIZE)
    assert caught.value.errno == errno


def test_super_larger_than_its_device(image: bytes) -> None:
    with pytest.raises(VfsError, match="its device") as caught:
        Superblock(raw_super(image), SIZE - 1024)
    assert caught.value.errno == EINVAL


@given(st.lists(st.tuples(st.integers(0, 263), st.binary(min_size=1, max_size=4)), max_size=4))
@settings(max_examples=400)
def test_super_never_surprises(image: bytes, changes: list[tuple[int, bytes]]) -> None:
    raw = bytearray(raw_super(image))
    for offset, octets in changes:
        raw[offset : offset + len(octets)] = octets
    with may_fail(EINVAL, EUCLEAN):
        sb = Superblock(bytes(raw), SIZE)
        assert sb.blocks_count * sb.block_size <= SIZE
        table = table_of(image, sb)
        Groups(sb, table.ljust(sb.groups_count * GROUP_DESC_SIZE, b"\0"))


def test_features_are_named() -> None:
    for bit, name in INCOMPAT_NAMES.items():
        if name != "filetype":
            with pytest.raises(VfsError, match=name):
                check_incompat(bit | 2)
    check_incompat(2)
    assert write_hindrances(0x43) == []
    assert write_hindrances(0x6B) == ["huge_file", "dir_nlink"]
    assert write_hindrances(1 << 20) == ["FEATURE_R20"]


# Groups.


def test_groups(image: bytes) -> None:
    sb = Superblock(raw_super(image), SIZE)
    groups = Groups(sb, table_of(image, sb))
    assert len(groups) == 8
    assert sum(groups[number].free_blocks for number in range(8)) == sb.free_blocks
    for number in range(8):
        group = groups[number]
        assert groups.of_block(group.first) is group
        assert groups.of_block(group.first + group.blocks - 1) is group
        assert groups.of_inode(number * sb.inodes_per_group + 1) is group
        for start, end in groups.zones(group):
            for block in (start, end - 1):
                assert not groups.is_data(block)
            assert not groups.is_data(start - 1, 2)
            assert not groups.is_data(end - 1, 2)
    assert not groups.is_data(0)
    assert not groups.is_data(-1)
    assert groups.is_data(8191)
    assert not groups.is_data(8191, 2)
    assert not groups.is_data(8192)
    assert groups.inode_place(1) == (groups[0].inode_table, 0)
    per_block = 1024 // sb.inode_size
    assert groups.inode_place(per_block + 2) == (groups[0].inode_table + 1, sb.inode_size)


def test_group_counts_round_trip(image: bytes) -> None:
    sb = Superblock(raw_super(image), SIZE)
    table = bytearray(table_of(image, sb))
    group = Groups(sb, bytes(table))[3]
    group.free_blocks, group.free_inodes, group.used_dirs = 17, 18, 19
    group.encode_into(table, 3 * GROUP_DESC_SIZE)
    again = Groups(sb, bytes(table))[3]
    assert (again.free_blocks, again.free_inodes, again.used_dirs) == (17, 18, 19)
    assert again.inode_table == group.inode_table


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 0), (0, 5000), (4, 1 << 31), (8, 1023), (8, 2), (0, 2), (12, 0xFFFF_FFFF)],
)
def test_groups_refused(image: bytes, field: int, value: int) -> None:
    sb = Superblock(raw_super(image), SIZE)
    table = bytearray(table_of(image, sb))
    struct.pack_into("<I", table, field, value)
    with pytest.raises(VfsError) as caught:
        Groups(sb, bytes(table))
    assert caught.value.errno == EUCLEAN


# Inodes.

SECOND = 10**9
wide_times = st.integers(-(1 << 31) * SECOND, ((1 << 34) - (1 << 31)) * SECOND - 1)
numbers = st.integers(0, (1 << 32) - 1)


@st.composite
def dinodes(draw: st.DrawFn, inode_size: int) -> Dinode:
    vtype = draw(st.sampled_from([vtype for vtype in Vtype if Vtype.VNON < vtype < Vtype.VBAD]))
    node = Dinode(vtype, draw(st.integers(0, 0o7777)), draw(numbers), draw(numbers), 0, inode_size)
    node.nlink = draw(st.integers(1, 65_535))
    node.size = draw(st.integers(0, (1 << 63) - 1 if vtype == Vtype.VREG else (1 << 32) - 1))
    node.sectors = draw(st.integers(0, (1 << 48) - 1))
    node.generation = draw(numbers)
    node.file_acl = draw(numbers)
    node.flags = draw(st.sampled_from([0, 0x1000, 0x10, 0xC0]))
    node.block = draw(st.lists(numbers, min_size=15, max_size=15))
    node.atime, node.mtime, node.ctime = (node.rounded(draw(wide_times)) for _ in range(3))
    if node.has_birthtime:
        node.birthtime = node.rounded(draw(wide_times))
    return node


def fields(node: Dinode) -> dict[str, object]:
    return {name: getattr(node, name) for name in Dinode.__slots__}


@pytest.mark.parametrize("inode_size", [128, 256, 1024])
@given(data=st.data())
def test_inode_round_trip(inode_size: int, data: st.DataObject) -> None:
    node = data.draw(dinodes(inode_size))
    raw = bytearray(b"\xaa" * 3 * inode_size)
    encode_inode(node, raw, inode_size, fresh=inode_size)
    assert raw[:inode_size] == raw[2 * inode_size :] == b"\xaa" * inode_size
    again = decode_inode(Dinode, raw, inode_size, inode_size)
    assert again is not None
    assert fields(again) == fields(node)
    before = bytes(raw)
    encode_inode(again, raw, inode_size)
    assert raw == before


@pytest.mark.parametrize("inode_size", [128, 256])
@given(raw=st.binary(min_size=256, max_size=256))
def test_inode_never_surprises(inode_size: int, raw: bytes) -> None:
    node = None
    with may_fail(EUCLEAN):
        node = decode_inode(Dinode, raw, 0, inode_size)
    if node is not None:
        again = bytearray(raw)
        encode_inode(node, again, 0)
        decoded = decode_inode(Dinode, again, 0, inode_size)
        assert decoded is not None
        assert fields(decoded) == fields(node)


def test_inode_keeps_attributes_behind_it() -> None:
    raw = bytearray(b"\xee" * 256)
    node = Dinode(Vtype.VREG, 0o644, 1, 2, 0, 256)
    encode_inode(node, raw, 0, fresh=256)
    raw[160:] = b"\xdd" * 96
    encode_inode(node, raw, 0)
    assert raw[160:] == b"\xdd" * 96


def test_times_without_room_are_seconds_until_2038() -> None:
    node = Dinode(Vtype.VREG, 0o644, 0, 0, 0, 128)
    assert not node.has_ns
    assert node.rounded(1_999_999_999) == SECOND
    assert node.rounded(-1) == -SECOND
    assert node.rounded(1 << 62) == ((1 << 31) - 1) * SECOND
    assert node.rounded(-(1 << 62)) == -(1 << 31) * SECOND


@pytest.mark.parametrize("room", [34, 132, 3])
def test_inode_with_too_much_room(room: int) -> None:
    raw = bytearray(256)
    encode_inode(Dinode(Vtype.VREG, 0, 0, 0, 0, 256), raw, 0)
    struct.pack_into("<H", raw, 128, room)
    with pytest.raises(VfsError):
        decode_inode(Dinode, raw, 0, 256)


@given(st.integers(0, 0xFFF), st.integers(0, 0xF_FFFF))
def test_rdev(major: int, minor: int) -> None:
    node = Dinode(Vtype.VCHR, 0, 0, 0, 0, 256)
    node.rdev = os.makedev(major, minor)
    assert node.rdev == os.makedev(major, minor)
    assert bool(node.block[0]) == (0 < major * 256 + minor and major < 256 and minor < 256)
    assert node.block[2:] == [0] * 13


@given(st.binary(min_size=1, max_size=59))
def test_fast_target(target: bytes) -> None:
    node = Dinode(Vtype.VLNK, 0o777, 0, 0, 0, 128)
    node.fast_target = target
    node.size = len(target)
    assert node.fast_target == target
