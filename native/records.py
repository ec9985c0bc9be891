"""What operations take and give.

All are immutable named tuples: cheap to make from what the codec unpacks, safe
to keep, equal by value. Sizes and offsets are octets, times are nanoseconds
since 1970 (negative before), `None` means "not set" (NetBSD: VNOVAL). Names are
octets as the host kernel gives them, without NUL and without '/'.
"""

from __future__ import annotations

import stat as _stat
from typing import Final, NamedTuple, NewType, TypeAlias

from .constants import ISLASTCN, NameiOp, Vtype

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Octets that somebody else may own; who may keep them is said where they are passed."""

Cookie = NewType("Cookie", int)
"""Names a node between one kernel half and one server: opaque, 0 < cookie < 2**63, and never
reused while the node lives."""


class Cred(NamedTuple):
    """Who asks: effective user and group, further groups, and the process for locks and traces."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    pid: int = 0


FSCRED: Final = Cred(0, 0, (), -1)
"""The file system asks on its own behalf (write-back, unmount)."""
NOCRED: Final = Cred(0, 0, (), -2)
"""Nobody in particular; never checked."""


class Vattr(NamedTuple):
    """Attributes of a node. `mode` is the permission part (0o7777); the type is `vtype`.

    `bytes` is what the node occupies on its medium.
    """

    vtype: int | None = None
    mode: int | None = None
    nlink: int | None = None
    uid: int | None = None
    gid: int | None = None
    fsid: int | None = None
    fileid: int | None = None
    size: int | None = None
    blocksize: int | None = None
    atime: int | None = None
    mtime: int | None = None
    ctime: int | None = None
    birthtime: int | None = None
    gen: int | None = None
    flags: int | None = None
    rdev: int | None = None
    bytes: int | None = None


VATTR_NULL: Final = Vattr()


class Componentname(NamedTuple):
    """One path component and what it is looked up for."""

    nameiop: int
    name: bytes
    cred: Cred
    flags: int = 0


class Newinfo(NamedTuple):
    """The answer of lookup and of everything that makes a node.

    `cookie` 0 (from lookup only) says that there is no such name, and that this may be
    remembered for `cn_ttl` ns. `va` is None where the server would have to ask for it;
    `va_ttl` says for how many ns it may be believed. Both time-outs are 0 for "not at all".
    """

    cookie: Cookie
    vtype: int
    size: int = 0
    rdev: int = 0
    va: Vattr | None = None
    va_ttl: int = 0
    cn_ttl: int = 0


class Dirent(NamedTuple):
    """One directory entry. `offset` is where to go on *after* it (as NFS cookies are).

    `newinfo` is there for READDIR_PLUS, except for "." and "..", and counts as a lookup.
    """

    fileid: int
    vtype: int
    name: bytes
    offset: int
    newinfo: Newinfo | None = None


class Statvfs(NamedTuple):
    """State of a file system; fields as statvfs(3) has them."""

    bsize: int = 4096
    frsize: int = 4096
    blocks: int = 0
    bfree: int = 0
    bavail: int = 0
    files: int = 0
    ffree: int = 0
    favail: int = 0
    fsid: int = 0
    flag: int = 0
    namemax: int = 255


class Flock(NamedTuple):
    """A byte-range lock: `type` is F_RDLCK, F_WRLCK or F_UNLCK; `len` 0 means to the end."""

    type: int
    start: int
    len: int
    pid: int


class Kargs(NamedTuple):
    """What a server tells the kernel half when it is mounted.

    `typename` is the trace of elements below ("psshfs", "p2k|tmpfs"); `mntfromname` is what
    `mount` shows first. `ops` are the operations the server has (VnOp numbers); the kernel half
    answers for the others. `maxmsglen` is the longest frame that the server takes, octets.
    """

    typename: str
    mntfromname: bytes
    root: Newinfo
    kflags: int
    ops: frozenset[int]
    maxmsglen: int


VTYPE_TO_IFMT: Final = {
    Vtype.VREG: _stat.S_IFREG,
    Vtype.VDIR: _stat.S_IFDIR,
    Vtype.VBLK: _stat.S_IFBLK,
    Vtype.VCHR: _stat.S_IFCHR,
    Vtype.VLNK: _stat.S_IFLNK,
    Vtype.VSOCK: _stat.S_IFSOCK,
    Vtype.VFIFO: _stat.S_IFIFO,
}
"""Type of a vnode -> the type bits of a mode."""

IFMT_TO_VTYPE: Final = {ifmt: vtype for vtype, ifmt in VTYPE_TO_IFMT.items()}
"""The type bits of a mode -> type of a vnode; what is missing here is VNON."""


def lookup_cn(name: bytes, cred: Cred, nameiop: int = NameiOp.LOOKUP) -> Componentname:
    """Return the componentname of `name` as a last component."""
    return Componentname(nameiop, name, cred, ISLASTCN)
