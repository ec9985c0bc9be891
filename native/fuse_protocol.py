"""Numbers of the FUSE protocol and plain records of what its replies say.

Names and values are those of Linux' include/uapi/linux/fuse.h, 7.45.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from .records import Flock, Vattr

MAJOR: Final = 7
MINOR: Final = 45
MINOR_MIN: Final = 12
"""What we say that we speak, and the least that a server may."""

ROOT_ID: Final = 1
"""The node of the root; nobody looks it up, nobody forgets it."""


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50


class Notify(IntEnum):
    """What a server tells of its own accord."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7
    INC_EPOCH = 8


class InitFlag(IntFlag):
    """What both sides can do; those of them that concern us."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    NO_OPEN_SUPPORT = 1 << 17
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25


class Valid(IntFlag):
    """Which fields of SETATTR count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6


class FopenFlag(IntFlag):
    """What OPEN answers."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NOFLUSH = 1 << 5


GETATTR_FH: Final = 1
LK_FLOCK: Final = 1
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
FSYNC_FDATASYNC: Final = 1


class Entry(NamedTuple):
    """A node as a directory has it; each one that is no 0 counts as one lookup."""

    nodeid: int
    generation: int
    entry_ttl: int
    attr_ttl: int
    va: Vattr


class Opened(NamedTuple):
    """An open file or directory."""

    fh: int
    flags: int


class FuseDirent(NamedTuple):
    """An entry of a directory; `entry` is there for READDIRPLUS, with node 0 where none is told."""

    fileid: int
    vtype: int
    offset: int
    name: bytes
    entry: Entry | None


class InitReply(NamedTuple):
    """What a server says of itself."""

    major: int
    minor: int
    max_readahead: int
    flags: int
    max_background: int
    congestion_threshold: int
    max_write: int
    time_gran: int
    max_pages: int
    map_alignment: int
    flags2: int
    max_stack_depth: int
    request_timeout: int


OFFSET_MAX: Final = 2**63 - 1
"""The last octet that a file can have."""


class Lock(NamedTuple):
    """A byte-range lock: octets `start` to `end`, the last one included, OFFSET_MAX for all."""

    start: int
    end: int
    type: int
    pid: int

    @classmethod
    def of(cls, flock: Flock) -> Lock:
        """Return what says the same as a Flock that is within a file's bounds."""
        end = flock.start + flock.len - 1 if flock.len else OFFSET_MAX
        return cls(flock.start, end, flock.type, flock.pid)

    def flock(self) -> Flock:
        """Return the same as a Flock."""
        length = 0 if self.end == OFFSET_MAX else self.end - self.start + 1
        return Flock(self.type, self.start, length, self.pid)


class InvalInode(NamedTuple):
    """Drop attributes and, unless `offset` is negative, pages (`length` up to 0: all behind it)."""

    nodeid: int
    offset: int
    length: int


class InvalEntry(NamedTuple):
    """Drop a name of a directory; DELETE says the same of a name that is no more."""

    parent: int
    name: bytes


class Store(NamedTuple):
    """Data for the page cache; `length` octets of them."""

    nodeid: int
    offset: int
    length: int


class Retrieve(NamedTuple):
    """Give back what the page cache has, by NOTIFY_REPLY with number `unique`."""

    unique: int
    nodeid: int
    offset: int
    length: int
