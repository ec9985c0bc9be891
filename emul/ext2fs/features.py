"""Features of an ext2 family file system: their names, and what we can do with one that has them.

There are three sets. An unknown bit of the first (compat) hurts nobody; with one of the second
(incompat) nothing can be understood; with one of the third (ro_compat) everything can be read,
and nothing must be written.
"""

from __future__ import annotations

from errno import EINVAL
from typing import Final

from ...native.errors import VfsError

COMPAT_HAS_JOURNAL: Final = 0x004
INCOMPAT_FILETYPE: Final = 0x002
RO_COMPAT_SPARSE_SUPER: Final = 0x001
RO_COMPAT_LARGE_FILE: Final = 0x002
RO_COMPAT_EXTRA_ISIZE: Final = 0x040

# The names are those that mke2fs and tune2fs know.
INCOMPAT_NAMES: Final = {
    0x00001: "compression",
    0x00002: "filetype",
    0x00004: "needs_recovery",
    0x00008: "journal_dev",
    0x00010: "meta_bg",
    0x00040: "extent",
    0x00080: "64bit",
    0x00100: "mmp",
    0x00200: "flex_bg",
    0x00400: "ea_inode",
    0x01000: "dirdata",
    0x02000: "metadata_csum_seed",
    0x04000: "large_dir",
    0x08000: "inline_data",
    0x10000: "encrypt",
    0x20000: "casefold",
}
RO_COMPAT_NAMES: Final = {
    0x00001: "sparse_super",
    0x00002: "large_file",
    0x00004: "btree_dir",
    0x00008: "huge_file",
    0x00010: "uninit_bg",
    0x00020: "dir_nlink",
    0x00040: "extra_isize",
    0x00080: "snapshot",
    0x00100: "quota",
    0x00200: "bigalloc",
    0x00400: "metadata_csum",
    0x00800: "replica",
    0x01000: "read-only",
    0x02000: "project",
    0x04000: "shared_blocks",
    0x08000: "verity",
    0x10000: "orphan_present",
}

_INCOMPAT_KNOWN: Final = INCOMPAT_FILETYPE
_RO_COMPAT_KNOWN: Final = RO_COMPAT_SPARSE_SUPER | RO_COMPAT_LARGE_FILE | RO_COMPAT_EXTRA_ISIZE


def feature_names(bits: int, names: dict[int, str], letter: str) -> list[str]:
    """Return the names of the set bits; one without a name is called as e2fsprogs calls it."""
    return [names.get(1 << bit, f"FEATURE_{letter}{bit}") for bit in range(32) if bits & (1 << bit)]


def check_incompat(incompat: int) -> None:
    """Return if we understand a file system with this set. Errors: EINVAL, naming what we do not.

    `needs_recovery` comes first: after a journal was replayed the rest may be fine.
    """
    if incompat & 0x004:
        raise VfsError(
            EINVAL, "feature needs_recovery: its journal must be replayed first (e2fsck does that)"
        )
    unknown = feature_names(incompat & ~_INCOMPAT_KNOWN, INCOMPAT_NAMES, "I")
    if unknown:
        raise VfsError(EINVAL, "features that are not supported: " + " ".join(unknown))


def write_hindrances(ro_compat: int) -> list[str]:
    """Return the names of features for whose sake nothing must be written."""
    return feature_names(ro_compat & ~_RO_COMPAT_KNOWN, RO_COMPAT_NAMES, "R")
