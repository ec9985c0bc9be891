"""Inodes as they are on the medium: 128 octets, and more where there is room behind them."""

from __future__ import annotations

import os
import struct
from errno import EUCLEAN
from stat import S_IFMT, S_IMODE
from typing import Final, TypeVar

from ...native.constants import Vtype
from ...native.errors import VfsError
from ...native.records import IFMT_TO_VTYPE, VTYPE_TO_IFMT

NDIR_BLOCKS: Final = 12
"""How many blocks an inode names itself; then come three tables, see `bmap`."""
N_BLOCKS: Final = 15
FAST_SYMLINK_MAX: Final = 59
"""Longest target that is kept in the inode, octets; the 60th is NUL."""

IMMUTABLE_FL: Final = 0x00010
APPEND_FL: Final = 0x00020
NODUMP_FL: Final = 0x00040
NOATIME_FL: Final = 0x00080
INDEX_FL: Final = 0x01000
DIRSYNC_FL: Final = 0x10000
HUGE_FILE_FL: Final = 0x40000
_INHERITED: Final = 0x0001_C6CF
"""What a new inode has from its directory: secrm unrm compr sync nodump noatime and so on."""
_STRANGE: Final = {
    0x0000_0800: "encryption",
    0x0008_0000: "extents",
    0x0020_0000: "an attribute's value in place of data",
    0x1000_0000: "data inside",
}
"""Flags that change the meaning of an inode, all of features that we refuse."""

_BASE: Final = struct.Struct("<2H5I2H3I60s4I4H")
_EXTRA: Final = struct.Struct("<2H5I")
_EXTRA_AT: Final = _BASE.size + 4
_EXTRA_ISIZE: Final = 32
"""What a new inode reserves for fields behind the first 128 octets, as Linux does, octets."""
_POINTERS: Final = struct.Struct("<15I")
assert _EXTRA_AT == 128

_NS: Final = 1_000_000_000
_SECONDS_MIN: Final = -(1 << 31)
_SECONDS_MAX: Final = (1 << 31) - 1
_WIDE_MAX: Final = (1 << 34) + _SECONDS_MIN - 1


class Dinode:
    """What an inode says. Times are ns, `size` octets, `dtime` seconds.

    `mode` is the permission part, `sectors` counts 512 octets, of tables and attributes too,
    `block` are the N_BLOCKS numbers as they stand there, whatever they mean for this type of file.
    `room` is how many octets behind the first 128 have fields: times have ns if theirs are there.
    """

    __slots__ = (
        "atime",
        "birthtime",
        "block",
        "ctime",
        "dtime",
        "file_acl",
        "flags",
        "generation",
        "gid",
        "mode",
        "mtime",
        "nlink",
        "room",
        "sectors",
        "size",
        "uid",
        "vtype",
    )

    def __init__(
        self, vtype: int, mode: int, uid: int, gid: int, now: int, inode_size: int
    ) -> None:
        """Make a new one, with one name; inodes of the file system have `inode_size` octets."""
        self.vtype = vtype
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.size = 0
        self.sectors = 0
        self.flags = 0
        self.generation = 0
        self.file_acl = 0
        self.dtime = 0
        self.block = [0] * N_BLOCKS
        self.room = min(_EXTRA_ISIZE, inode_size - _EXTRA_AT)
        self.birthtime: int | None = None
        self.atime = self.mtime = self.ctime = self.rounded(now)
        if self.has_birthtime:
            self.birthtime = self.ctime

    # Times, which exist as far as there is room.

    @property
    def has_ns(self) -> bool:
        """Whether times have nanoseconds, and reach beyond 2038."""
        return self.room >= 16

    @property
    def has_birthtime(self) -> bool:
        """Whether there is room for the time of its making."""
        return self.room >= 24

    def rounded(self, time: int) -> int:
        """Return a time (ns) as it will be read again: the nearest that can be kept before it."""
        seconds, ns = divmod(time, _NS)
        if self.has_ns:
            limit = _WIDE_MAX
        else:
            limit, ns = _SECONDS_MAX, 0
        if seconds < _SECONDS_MIN:
            return _SECONDS_MIN * _NS
        return limit * _NS if seconds > limit else seconds * _NS + ns

    def inherit(self, flags: int) -> None:
        """Take from the flags of its directory what a new inode of this type takes, as in Linux."""
        if self.vtype == Vtype.VDIR:
            self.flags = flags & _INHERITED
        elif self.vtype == Vtype.VREG:
            self.flags = flags & _INHERITED & ~DIRSYNC_FL
        else:
            self.flags = flags & (NODUMP_FL | NOATIME_FL)

    # The number of a device, in one of two encodings in place of the first two blocks.

    @property
    def rdev(self) -> int:
        """The device of a device node, 0 for what is none."""
        if self.vtype != Vtype.VBLK and self.vtype != Vtype.VCHR:
            return 0
        old, new = self.block[0], self.block[1]
        if old:
            return os.makedev((old >> 8) & 0xFF, old & 0xFF)
        return os.makedev((new >> 8) & 0xFFF, (new & 0xFF) | ((new >> 12) & 0xFFF00))

    @rdev.setter
    def rdev(self, rdev: int) -> None:
        major, minor = os.major(rdev), os.minor(rdev)
        self.block[0] = self.block[1] = 0
        if major < 256 and minor < 256:
            self.block[0] = major << 8 | minor
        else:
            self.block[1] = (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12

    # The target of a short link, in place of all blocks.

    @property
    def fast_target(self) -> bytes:
        """The first FAST_SYMLINK_MAX octets of where a target would be kept, up to `size`."""
        return _POINTERS.pack(*self.block)[: min(self.size, FAST_SYMLINK_MAX)]

    @fast_target.setter
    def fast_target(self, target: bytes) -> None:
        self.block[:] = _POINTERS.unpack(target.ljust(_POINTERS.size, b"\0"))


D = TypeVar("D", bound=Dinode)


def decode_inode(cls: type[D], raw: bytes | bytearray, offset: int, inode_size: int) -> D | None:
    """Return the inode that begins at `offset` as a `cls`; None for one that is in no use.

    Errors: EUCLEAN, no type, flags of a feature that the file system has not, a size beyond
    all limits.
    """
    (
        mode,
        uid,
        size,
        atime,
        ctime,
        mtime,
        dtime,
        gid,
        nlink,
        sectors,
        flags,
        _osd1,
        block,
        generation,
        file_acl,
        size_high,
        _faddr,
        sectors_high,
        _file_acl_high,
        uid_high,
        gid_high,
    ) = _BASE.unpack_from(raw, offset)
    if not nlink:
        return None
    vtype = IFMT_TO_VTYPE.get(S_IFMT(mode))
    if vtype is None:
        raise VfsError(EUCLEAN, f"a file of type {S_IFMT(mode):#o}")
    for bit, meaning in _STRANGE.items():
        if flags & bit:
            raise VfsError(EUCLEAN, f"a file with {meaning}")
    node = cls.__new__(cls)
    node.vtype = vtype
    node.mode = S_IMODE(mode)
    node.uid = uid_high << 16 | uid
    node.gid = gid_high << 16 | gid
    node.nlink = nlink
    node.size = size_high << 32 | size if vtype == Vtype.VREG else size
    node.sectors = sectors_high << 32 | sectors
    node.flags = flags
    node.generation = generation
    node.file_acl = file_acl
    node.dtime = dtime
    node.block = list(_POINTERS.unpack(block))
    node.room = 0
    node.birthtime = None
    extra = [0] * 5
    if inode_size > _EXTRA_AT:
        node.room, _, *extra = _EXTRA.unpack_from(raw, offset + _EXTRA_AT)
        if node.room > inode_size - _EXTRA_AT or node.room % 4:
            raise VfsError(EUCLEAN, f"{node.room} octets of further fields in an inode")
    if not node.has_ns:
        extra = [0] * 5
    ctime_extra, mtime_extra, atime_extra, birthtime, birthtime_extra = extra
    node.atime = _time(atime, atime_extra)
    node.mtime = _time(mtime, mtime_extra)
    node.ctime = _time(ctime, ctime_extra)
    if node.has_birthtime:
        node.birthtime = _time(birthtime, birthtime_extra)
    return node


def _time(seconds: int, extra: int) -> int:
    """Return ns for the low 32 bits, with their sign, and the rest: 2 high bits, 30 of ns."""
    seconds = (seconds ^ 0x8000_0000) - 0x8000_0000 + ((extra & 3) << 32)
    ns = extra >> 2
    return seconds * _NS + (ns if ns < _NS else 0)


def _fields(time: int) -> tuple[int, int]:
    """Return the two numbers for ns that `rounded` has passed."""
    seconds, ns = divmod(time, _NS)
    epoch = ((seconds - _SECONDS_MIN) >> 32) & 3
    return seconds & 0xFFFF_FFFF, ns << 2 | epoch


def encode_inode(node: Dinode, raw: bytearray, offset: int, *, fresh: int = 0) -> None:
    """Put an inode to `offset` of `raw`; what it does not know there stays.

    `fresh` is the size of the inode if it is a new one: what was there before is cleared.
    """
    if fresh:
        raw[offset : offset + fresh] = bytes(fresh)
    atime, atime_extra = _fields(node.atime)
    mtime, mtime_extra = _fields(node.mtime)
    ctime, ctime_extra = _fields(node.ctime)
    old = _BASE.unpack_from(raw, offset)
    is_regular = node.vtype == Vtype.VREG
    _BASE.pack_into(
        raw,
        offset,
        VTYPE_TO_IFMT[Vtype(node.vtype)] | node.mode,
        node.uid & 0xFFFF,
        node.size & 0xFFFF_FFFF,
        atime,
        ctime,
        mtime,
        node.dtime,
        node.gid & 0xFFFF,
        node.nlink,
        node.sectors & 0xFFFF_FFFF,
        node.flags,
        old[11],
        _POINTERS.pack(*node.block),
        node.generation,
        node.file_acl,
        node.size >> 32 if is_regular else old[15],
        old[16],
        node.sectors >> 32,
        old[18],
        node.uid >> 16 & 0xFFFF,
        node.gid >> 16 & 0xFFFF,
    )
    if node.room:
        more = list(_EXTRA.unpack_from(raw, offset + _EXTRA_AT))
        more[0] = node.room
        if node.has_ns:
            more[2:5] = ctime_extra, mtime_extra, atime_extra
        if node.birthtime is not None:
            more[5:7] = _fields(node.birthtime)
        _EXTRA.pack_into(raw, offset + _EXTRA_AT, *more)
