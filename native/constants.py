"""Numbers of the puffs protocol and of the virtual file system.

Names and, where they exist, values are NetBSD's (puffs_msgif.h 1.84, vnode.h);
what a FUSE host needs beyond them is marked "ours". Error numbers, open flags
and permission bits are Linux's and come from `errno`, `os` and `stat`.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

PROTOCOL_VERSION: Final = 1
"""Version of our frames and of the COMFD preamble (not NetBSD's PUFFSVERSION)."""

NAME_MAX: Final = 255
"""Longest name of one path component, octets."""

PATH_MAX: Final = 4096
"""Longest symbolic link target, octets, as the host kernel has it (with its NUL)."""

MAXMSGLEN_MIN: Final = 8192
MAXMSGLEN_MAX: Final = 2 * 1024 * 1024
MAXMSGLEN_DEFAULT: Final = 1024 * 1024 + 65536
"""Longest frame, octets: a request of 1 MiB of data with room for its head."""

DEV_BSHIFT: Final = 9
DEV_BSIZE: Final = 1 << DEV_BSHIFT
"""Unit of a device address (`blkno`) inside the emulated kernel, octets."""

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
"""Unit in which the page cache knows what is valid and what is dirty, octets."""

MAXPHYS: Final = 1024 * 1024
"""Longest transfer to or from a device, octets."""

TTL_FOREVER: Final = 86_400 * 10**9
"""A time-out for what cannot change behind our back, ns. One day: FUSE wants a finite one."""


class Vtype(IntEnum):
    """Type of a vnode. A valid answer lies strictly between VNON and VBAD."""

    VNON = 0
    VREG = 1
    VDIR = 2
    VBLK = 3
    VCHR = 4
    VLNK = 5
    VSOCK = 6
    VFIFO = 7
    VBAD = 8


class OpClass(IntEnum):
    """Class of a message, the low three bits of the header's `opclass`."""

    VFS = 1
    VN = 2
    ERROR = 4
    FLUSH = 5
    UNMOUNT = 7


OPCLASS_MASK: Final = 0x07
FLAG_FAF: Final = 0x10
"""Fire and forget: no reply is expected."""
FLAG_RESPONSE: Final = 0x20
"""This frame answers the request with the same id."""
ID_FROM_SERVER: Final = 1 << 62
"""Ids of requests that the server starts have this bit (NetBSD: bit 63; ours stay positive)."""


class VfsOp(IntEnum):
    """Operations on the whole file system (class VFS)."""

    MOUNT = 0
    START = 1
    UNMOUNT = 2
    ROOT = 3
    QUOTACTL = 4
    STATVFS = 5
    SYNC = 6
    VGET = 7
    FHTOVP = 8
    VPTOFH = 9
    INIT = 10
    DONE = 11
    SNAPSHOT = 12
    EXTATTRCTL = 13
    SUSPEND = 14


class VnOp(IntEnum):
    """Operations on a node (class VN), in NetBSD's order; those of Linux behind them are ours."""

    LOOKUP = 0
    CREATE = 1
    MKNOD = 2
    OPEN = 3
    CLOSE = 4
    ACCESS = 5
    GETATTR = 6
    SETATTR = 7
    READ = 8
    WRITE = 9
    IOCTL = 10
    FCNTL = 11
    POLL = 12
    KQFILTER = 13
    REVOKE = 14
    MMAP = 15
    FSYNC = 16
    SEEK = 17
    REMOVE = 18
    LINK = 19
    RENAME = 20
    MKDIR = 21
    RMDIR = 22
    SYMLINK = 23
    READDIR = 24
    READLINK = 25
    ABORTOP = 26
    INACTIVE = 27
    RECLAIM = 28
    LOCK = 29
    UNLOCK = 30
    BMAP = 31
    STRATEGY = 32
    PRINT = 33
    ISLOCKED = 34
    PATHCONF = 35
    ADVLOCK = 36
    LEASE = 37
    WHITEOUT = 38
    GETPAGES = 39
    PUTPAGES = 40
    GETEXTATTR = 41
    LISTEXTATTR = 42
    OPENEXTATTR = 43
    DELETEEXTATTR = 44
    SETEXTATTR = 45
    CLOSEEXTATTR = 46
    FALLOCATE = 47
    FDISCARD = 48
    SEEK_DATA = 49
    COPY_FILE_RANGE = 50
    RENAME_WITH = 51


KERNEL_OPS: Final = frozenset({VnOp.BMAP, VnOp.STRATEGY, VnOp.GETPAGES, VnOp.PUTPAGES})
"""Operations that stay inside a kernel: no server is ever asked for them."""


class FlushOp(IntEnum):
    """What a server asks of the caches above it (class FLUSH)."""

    INVAL_NAMECACHE_NODE = 0
    INVAL_NAMECACHE_DIR = 1
    INVAL_NAMECACHE_ALL = 2
    INVAL_PAGECACHE_NODE_RANGE = 3
    FLUSH_PAGECACHE_NODE_RANGE = 4
    INVAL_NAMECACHE_NAME = 5
    """Ours: one name of a directory; FUSE hosts drop names one by one."""
    INVAL_ATTR_NODE = 6
    """Ours: attributes of a node, its pages stay."""


class ErrorNote(IntEnum):
    """Kinds of error notes (class ERROR), kernel to server."""

    ERROR = 0
    MAKENODE = 1
    LOOKUP = 2
    READDIR = 3
    READLINK = 4
    READ = 5
    WRITE = 6
    VPTOFH = 7
    GETEXTATTR = 8
    LISTEXTATTR = 9


class Setback(IntFlag):
    """Hints in the reply of OPEN, MMAP, REMOVE, RMDIR and INACTIVE."""

    INACT_N1 = 0x1
    """Call inactive on the operation's own node when it becomes unused."""
    INACT_N2 = 0x2
    """The same for the second node (the victim of remove and rmdir)."""
    NOREF_N1 = 0x4
    """No name refers to the operation's node any more: recycle it at once."""
    NOREF_N2 = 0x8


class KFlag(IntFlag):
    """How the kernel half is to treat a server, fixed at mount."""

    NOCACHE_NAME = 0x1
    NOCACHE_PAGE = 0x2
    ALLOPS = 0x4
    WTCACHE = 0x8
    IAONDEMAND = 0x10
    """Send INACTIVE only for nodes that got an INACT setback."""
    NOCACHE_ATTR = 0x40
    CACHE_FS_TTL = 0x80
    """The server gives time-outs for names and attributes."""
    LOCAL_FLOCK = 0x100
    """Ours: the server has fcntl's locks, but none of flock(2)."""


NOCACHE: Final = KFlag.NOCACHE_NAME | KFlag.NOCACHE_PAGE | KFlag.NOCACHE_ATTR


FALLOC_FL_KEEP_SIZE: Final = 0x1
FALLOC_FL_PUNCH_HOLE: Final = 0x2
"""Flags of Linux' fallocate(2)."""

F_FLOCK: Final = 0x020
"""Flag of ADVLOCK: a lock of flock(2), which has nothing to do with those of fcntl(2)."""


class OpenFlag(IntFlag):
    """What OPEN answers about the pages that the host may hold of the node."""

    IO_DIRECT = 0x1
    """Bypass the page cache."""
    IO_KEEP = 0x2
    """Ours: pages cached by an earlier open are still right."""


class NameiOp(IntEnum):
    """Why a component is looked up."""

    LOOKUP = 0
    CREATE = 1
    DELETE = 2
    RENAME = 3


ISLASTCN: Final = 0x8000
ISDOTDOT: Final = 0x2000

# Access modes of open and access (NetBSD's FREAD/FWRITE and VREAD/VWRITE/VEXEC).
FREAD: Final = 0x1
FWRITE: Final = 0x2
FAPPEND: Final = 0x8
VEXEC: Final = 0o1
VWRITE: Final = 0o2
VREAD: Final = 0o4

# Flags of read and write.
IO_SYNC: Final = 0x04
IO_APPEND: Final = 0x20

# Flags of fsync.
FSYNC_WAIT: Final = 0x1
FSYNC_DATAONLY: Final = 0x2
FSYNC_LAZY: Final = 0x4
FSYNC_VFS: Final = 0x10
"""Ours: on the way to VFS_SYNC, or out of memory. Write the data and bring the node into the
buffers of the device; what else the node depends on, and the device's cache, are not wanted."""
FSYNC_CACHE: Final = 0x100
"""The device's own cache, too."""
FSYNC_CLOSE: Final = 0x200
"""Ours: one descriptor is being closed. Hand data to where close(2) promises it is and report
errors of write-behind; the device need not have it. The caller waits, FSYNC_WAIT or not."""

# `waitfor` of sync.
MNT_WAIT: Final = 1
MNT_NOWAIT: Final = 2
MNT_LAZY: Final = 3

MNT_FORCE: Final = 0x80000
"""Unmount although nodes are in use; the server cannot veto."""

# Flags of getpages and putpages.
PGO_SYNCIO: Final = 0x002
"""Return when the device has answered, not when it was asked."""
PGO_CLEANIT: Final = 0x001
"""Write what is dirty."""
PGO_FREE: Final = 0x008
"""Let go of the pages afterwards."""
PGO_DEACTIVATE: Final = 0x004
"""They will not be wanted soon: first to go when memory is short."""
PGO_ALLPAGES: Final = 0x010
"""The whole object, whatever the range says."""
PGO_OVERWRITE: Final = 0x400
"""All of the range is about to be written: do not read it."""

# Flags of readdir.
READDIR_PLUS: Final = 0x1
"""Ours: give a newinfo with each entry that can be looked up; each counts as one lookup."""

# Operations on a FileServer that a mask in the mount arguments can switch off, and what the
# kernel half answers for an absent one: an error, or success without asking.
ABSENT_SUCCEEDS: Final = frozenset(
    {
        VnOp.ACCESS,
        VnOp.CLOSE,
        VnOp.SEEK,
        VnOp.OPEN,
        VnOp.MMAP,
        VnOp.ABORTOP,
        VnOp.FSYNC,
        VnOp.INACTIVE,
        VnOp.RECLAIM,
    }
)
