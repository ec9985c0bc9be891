"""The super block: what is said of the file system as a whole, 1024 octets at octet 1024."""

from __future__ import annotations

import struct
from errno import EINVAL, EUCLEAN
from typing import Final

from ...native.errors import VfsError
from .features import (
    COMPAT_HAS_JOURNAL,
    INCOMPAT_FILETYPE,
    RO_COMPAT_LARGE_FILE,
    RO_COMPAT_SPARSE_SUPER,
    check_incompat,
)

SUPER_OFFSET: Final = 1024
"""Where it lies on the device, octets."""
SUPER_SIZE: Final = 1024
ROOT_INO: Final = 2
GOOD_OLD_REV: Final = 0
GOOD_OLD_FIRST_INO: Final = 11
GOOD_OLD_INODE_SIZE: Final = 128
GROUP_DESC_SIZE: Final = 32

VALID_FS: Final = 0x1
"""In `state`: was unmounted properly."""
ERROR_FS: Final = 0x2
"""In `state`: something in it was found to be wrong."""

ERRORS_CONTINUE: Final = 1
ERRORS_RO: Final = 2
ERRORS_PANIC: Final = 3

_GROUP_MIN: Final = 256
"""Fewest blocks that mke2fs lets a group have."""
_GROUPS_MAX: Final = 1 << 20
"""Twice as many as the largest file system has whose groups are as large as they can be."""
_MAGIC: Final = 0xEF53
_HEAD: Final = struct.Struct("<13I6H4I2HI2H3I16s16s")
assert _HEAD.size == 136

# Where the fields lie that change while the file system is mounted.
_FREE: Final = struct.Struct("<II")
_FREE_AT: Final = 12
_TIMES: Final = struct.Struct("<II")
_TIMES_AT: Final = 44
_MNT_COUNT_AT: Final = 52
_STATE_AT: Final = 58
_RO_COMPAT_AT: Final = 100
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")


def _corrupt(detail: str) -> VfsError:
    return VfsError(EUCLEAN, "super block: " + detail)


class Superblock:
    """A super block that was found to make sense; what makes none was refused.

    Counts are of blocks and inodes, sizes octets, times seconds. `free_blocks`, `free_inodes`,
    `state`, `mnt_count`, `mtime`, `wtime` and `ro_compat` may be changed and reach the medium
    by `encode`; everything that is not known here is kept as it was.
    """

    inodes_count: int
    block_size: int
    blocks_count: int
    reserved_blocks: int
    free_blocks: int
    free_inodes: int
    first_data_block: int
    blocks_per_group: int
    inodes_per_group: int
    mtime: int
    wtime: int
    mnt_count: int
    state: int
    errors: int
    rev_level: int
    def_resuid: int
    def_resgid: int
    first_ino: int
    inode_size: int
    compat: int
    incompat: int
    ro_compat: int
    volume_name: bytes

    def __init__(self, raw: bytes, device_size: int) -> None:
        """Take `raw`, SUPER_SIZE octets of a device of `device_size` octets.

        Errors, first match wins:
            EINVAL   no ext2 file system; a revision, block size or feature that is not supported
            EUCLEAN  it contradicts itself
            EINVAL   it is larger than its device
        """
        self._raw = bytearray(raw)
        (
            self.inodes_count,
            self.blocks_count,
            self.reserved_blocks,
            self.free_blocks,
            self.free_inodes,
            self.first_data_block,
            log_block_size,
            log_frag_size,
            self.blocks_per_group,
            frags_per_group,
            self.inodes_per_group,
            self.mtime,
            self.wtime,
            self.mnt_count,
            _max_mnt_count,
            magic,
            self.state,
            self.errors,
            _minor_rev,
            _lastcheck,
            _checkinterval,
            _creator_os,
            self.rev_level,
            self.def_resuid,
            self.def_resgid,
            self.first_ino,
            self.inode_size,
            _block_group_nr,
            self.compat,
            self.incompat,
            self.ro_compat,
            _uuid,
            self.volume_name,
        ) = _HEAD.unpack_from(self._raw)
        if magic != _MAGIC:
            raise VfsError(EINVAL, f"no ext2 file system (magic number {magic:#06x})")
        if self.rev_level > 1:
            raise VfsError(EINVAL, f"revision {self.rev_level} is not supported")
        if self.rev_level == GOOD_OLD_REV:
            self.first_ino, self.inode_size = GOOD_OLD_FIRST_INO, GOOD_OLD_INODE_SIZE
            self.compat = self.incompat = self.ro_compat = 0
        check_incompat(self.incompat)
        if log_block_size > 2:
            raise VfsError(EINVAL, f"blocks of {1024 << min(log_block_size, 60)} octets")
        if log_frag_size != log_block_size or frags_per_group != self.blocks_per_group:
            raise VfsError(EINVAL, "fragments are not supported")
        self.block_size = 1024 << log_block_size
        self._check(device_size)

    def _check(self, device_size: int) -> None:
        size = self.block_size
        if self.first_data_block != (1 if size == 1024 else 0):
            raise _corrupt(f"first data block {self.first_data_block}")
        inode_size = self.inode_size
        if not 128 <= inode_size <= size or inode_size & (inode_size - 1):
            raise _corrupt(f"inodes of {inode_size} octets")
        if not _GROUP_MIN <= self.blocks_per_group <= 8 * size:
            raise _corrupt(f"{self.blocks_per_group} blocks in a group")
        if not 0 < self.inodes_per_group <= 8 * size or self.inodes_per_group % (
            size // inode_size
        ):
            raise _corrupt(f"{self.inodes_per_group} inodes in a group")
        if self.blocks_count <= self.first_data_block:
            raise _corrupt(f"{self.blocks_count} blocks")
        if self.groups_count > _GROUPS_MAX:
            raise _corrupt(f"{self.groups_count} groups")
        if self.inodes_count != self.inodes_per_group * self.groups_count:
            raise _corrupt(f"{self.inodes_count} inodes in {self.groups_count} groups")
        if not GOOD_OLD_FIRST_INO <= self.first_ino <= self.inodes_count:
            raise _corrupt(f"first inode {self.first_ino}")
        if self.reserved_blocks > self.blocks_count:
            raise _corrupt(f"{self.reserved_blocks} reserved blocks")
        if self.blocks_count * size > device_size:
            raise VfsError(
                EINVAL,
                f"the file system has {self.blocks_count * size} octets, its device {device_size}",
            )

    # What follows from the numbers.

    @property
    def groups_count(self) -> int:
        """Number of groups."""
        return -(-(self.blocks_count - self.first_data_block) // self.blocks_per_group)

    @property
    def desc_blocks(self) -> int:
        """Blocks that the group descriptors take."""
        return -(-self.groups_count * GROUP_DESC_SIZE // self.block_size)

    @property
    def inode_table_blocks(self) -> int:
        """Blocks that the inodes of one group take."""
        return self.inodes_per_group * self.inode_size // self.block_size

    @property
    def has_filetype(self) -> bool:
        """Whether directory entries say what type a file has."""
        return bool(self.incompat & INCOMPAT_FILETYPE)

    @property
    def has_journal(self) -> bool:
        """Whether there is a journal, which we leave alone."""
        return bool(self.compat & COMPAT_HAS_JOURNAL)

    @property
    def has_large_file(self) -> bool:
        """Whether a file may be larger than 2 GiB - 1; `ro_compat` is to be set before one is."""
        return bool(self.ro_compat & RO_COMPAT_LARGE_FILE)

    @property
    def label(self) -> str:
        """The name of the volume, for people."""
        return bytes(self.volume_name).split(b"\0")[0].decode(errors="replace")

    def has_backup(self, group: int) -> bool:
        """Whether a group begins with a copy of the super block and the descriptors."""
        if not self.ro_compat & RO_COMPAT_SPARSE_SUPER or group <= 1:
            return True
        if group % 2 == 0:
            return False
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False

    def encode(self) -> bytes:
        """Return the octets for the medium."""
        raw = self._raw
        _FREE.pack_into(raw, _FREE_AT, self.free_blocks, self.free_inodes)
        _TIMES.pack_into(raw, _TIMES_AT, self.mtime, self.wtime)
        _U16.pack_into(raw, _MNT_COUNT_AT, self.mnt_count & 0xFFFF)
        _U16.pack_into(raw, _STATE_AT, self.state)
        _U32.pack_into(raw, _RO_COMPAT_AT, self.ro_compat)
        return bytes(raw)
