"""FUSE requests, as a kernel sends them: each function returns one message, made by one call of C.

`write`, `setxattr` and `notify_reply` return the head of a message whose data travel beside: they
must be sent right behind it, in the same datagram. `unique` is the number of the request, `nodeid`
whom it concerns, `cred` who asks. Handles, nodes and owners are 64 bits, as the server gave them.

LocalProtocolError: a number is out of range, a name has NUL in it, or there is too much of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from struct import Struct, pack
from struct import error as StructError
from typing import Any, Final

from ._codec import lib
from .errors import LocalProtocolError
from .fuse_protocol import Lock, Opcode
from .records import Cred
from .table import CELLS, OUT, OUT_LEN, OUTPUT, REASONS, TABLE

DATA_MAX: Final = lib.FUSE_DATA_MAX
_BAD_VALUE: Final = (StructError, TypeError, ValueError, OverflowError)
_encode = lib.fuse_encode
_PACK: Final[list[Any]] = [Struct(f"={n}q").pack_into for n in range(24)]
_U32: Final = 0xFFFFFFFF


def _bits(value: int) -> int:
    """Return the number of 64 bits as the signed one with the same bits."""
    if value >> 63 == 1:
        return value - (1 << 64)
    if value < 0:
        raise LocalProtocolError(f"FUSE request: {value} where a number of 64 bits belongs")
    return value


def _message(
    opcode: int,
    unique: int,
    nodeid: int,
    cred: Cred,
    form: bytes,
    slots: Sequence[int] = (),
    base: bytes = b"",
) -> bytes:
    try:
        _PACK[len(slots)](CELLS, 0, *slots)
        n = _encode(
            OUT,
            OUT_LEN,
            opcode,
            _bits(unique),
            _bits(nodeid),
            cred.uid,
            cred.gid,
            max(cred.pid, 0),
            form,
            TABLE,
            len(slots),
            base,
            len(base),
        )
    except _BAD_VALUE as exc:
        raise LocalProtocolError(f"FUSE request {opcode}: {exc}") from exc
    if n < 0:
        raise LocalProtocolError(f"FUSE request {opcode}: {REASONS[n]}")
    return OUTPUT[:n]


def _two(first: bytes, second: bytes) -> tuple[int, int, int, int, bytes]:
    n = len(first)
    return 0, n, n, n + len(second), first + second


def init(
    unique: int, nodeid: int, cred: Cred, major: int, minor: int, max_readahead: int, flags: int
) -> bytes:
    """Begin a session; the lower 32 bits of `flags` have the place of 7.12, the others of 7.36."""
    slots = (major, minor, max_readahead, flags & _U32, flags >> 32)
    return _message(Opcode.INIT, unique, nodeid, cred, b"uuuuu00000000000", slots)


def destroy(unique: int, nodeid: int, cred: Cred) -> bytes:
    """End the session."""
    return _message(Opcode.DESTROY, unique, nodeid, cred, b"")


def lookup(unique: int, nodeid: int, cred: Cred, name: bytes) -> bytes:
    """Look a name up."""
    return _message(Opcode.LOOKUP, unique, nodeid, cred, b"s", (0, len(name)), name)


def forget(unique: int, nodeid: int, cred: Cred, nlookup: int) -> bytes:
    """Give lookups back; there is no reply."""
    return _message(Opcode.FORGET, unique, nodeid, cred, b"q", (_bits(nlookup),))


def batch_forget(unique: int, nodeid: int, cred: Cred, counts: Sequence[tuple[int, int]]) -> bytes:
    """Give lookups of several nodes back, (node, number) each; there is no reply."""
    try:
        base = pack(f"={2 * len(counts)}Q", *chain.from_iterable(counts))
    except StructError as exc:
        raise LocalProtocolError(f"FUSE request {Opcode.BATCH_FORGET}: {exc}") from exc
    slots = (len(counts), 0, len(base))
    return _message(Opcode.BATCH_FORGET, unique, nodeid, cred, b"u0b", slots, base)


def getattr(unique: int, nodeid: int, cred: Cred, flags: int, fh: int) -> bytes:
    """Ask for attributes (GETATTR_FH: of an open file)."""
    return _message(Opcode.GETATTR, unique, nodeid, cred, b"u0q", (flags, _bits(fh)))


def setattr(
    unique: int,
    nodeid: int,
    cred: Cred,
    valid: int,
    fh: int,
    size: int,
    atime: int,
    mtime: int,
    mode: int,
    uid: int,
    gid: int,
) -> bytes:
    """Change what `valid` names; `mode` has the type in it, times are ns."""
    (asec, ans), (msec, mns) = divmod(atime, 10**9), divmod(mtime, 10**9)
    slots = (valid, _bits(fh), size, 0, asec, msec, 0, ans, mns, 0, mode, uid, gid)
    return _message(Opcode.SETATTR, unique, nodeid, cred, b"u0qqqqqquuuu0uu0", slots)


def readlink(unique: int, nodeid: int, cred: Cred) -> bytes:
    """Ask for the target of a symbolic link."""
    return _message(Opcode.READLINK, unique, nodeid, cred, b"")


def symlink(unique: int, nodeid: int, cred: Cred, name: bytes, target: bytes) -> bytes:
    """Make a symbolic link."""
    *slots, base = _two(name, target)
    return _message(Opcode.SYMLINK, unique, nodeid, cred, b"ss", slots, base)


def mknod(
    unique: int, nodeid: int, cred: Cred, name: bytes, mode: int, rdev: int, umask: int
) -> bytes:
    """Make a file, device, fifo or socket; `mode` has the type in it."""
    slots = (mode, rdev, umask, 0, len(name))
    return _message(Opcode.MKNOD, unique, nodeid, cred, b"uuu0s", slots, name)


def mkdir(unique: int, nodeid: int, cred: Cred, name: bytes, mode: int, umask: int) -> bytes:
    """Make a directory."""
    slots = (mode, umask, 0, len(name))
    return _message(Opcode.MKDIR, unique, nodeid, cred, b"uus", slots, name)


def unlink(unique: int, nodeid: int, cred: Cred, name: bytes) -> bytes:
    """Remove a name that is no directory."""
    return _message(Opcode.UNLINK, unique, nodeid, cred, b"s", (0, len(name)), name)


def rmdir(unique: int, nodeid: int, cred: Cred, name: bytes) -> bytes:
    """Remove an empty directory."""
    return _message(Opcode.RMDIR, unique, nodeid, cred, b"s", (0, len(name)), name)


def rename(unique: int, nodeid: int, cred: Cred, old: bytes, newdir: int, new: bytes) -> bytes:
    """Rename, replacing what is there."""
    *slots, base = _two(old, new)
    return _message(Opcode.RENAME, unique, nodeid, cred, b"qss", (_bits(newdir), *slots), base)


def rename2(
    unique: int, nodeid: int, cred: Cred, old: bytes, newdir: int, new: bytes, flags: int
) -> bytes:
    """Rename with flags of renameat2 (7.23)."""
    *slots, base = _two(old, new)
    slots = [_bits(newdir), flags, *slots]
    return _message(Opcode.RENAME2, unique, nodeid, cred, b"qu0ss", slots, base)


def link(unique: int, nodeid: int, cred: Cred, oldnode: int, name: bytes) -> bytes:
    """Give `oldnode` one more name in the directory `nodeid`."""
    slots = (_bits(oldnode), 0, len(name))
    return _message(Opcode.LINK, unique, nodeid, cred, b"qs", slots, name)


def open_(unique: int, nodeid: int, cred: Cred, flags: int) -> bytes:
    """Open a file."""
    return _message(Opcode.OPEN, unique, nodeid, cred, b"u0", (flags,))


def opendir(unique: int, nodeid: int, cred: Cred, flags: int) -> bytes:
    """Open a directory."""
    return _message(Opcode.OPENDIR, unique, nodeid, cred, b"u0", (flags,))


def create(
    unique: int, nodeid: int, cred: Cred, name: bytes, flags: int, mode: int, umask: int
) -> bytes:
    """Make a file and open it."""
    slots = (flags, mode, umask, 0, len(name))
    return _message(Opcode.CREATE, unique, nodeid, cred, b"uuu0s", slots, name)


def _read(
    opcode: int, unique: int, nodeid: int, cred: Cred, fh: int, offset: int, size: int, flags: int
) -> bytes:
    slots = (_bits(fh), offset, size, 0, 0, flags)
    return _message(opcode, unique, nodeid, cred, b"qquuqu0", slots)


def read(
    unique: int, nodeid: int, cred: Cred, fh: int, offset: int, size: int, flags: int
) -> bytes:
    """Read up to `size` octets; `flags` are those of the open."""
    return _read(Opcode.READ, unique, nodeid, cred, fh, offset, size, flags)


def readdir(
    unique: int, nodeid: int, cred: Cred, fh: int, offset: int, size: int, flags: int
) -> bytes:
    """Read entries."""
    return _read(Opcode.READDIR, unique, nodeid, cred, fh, offset, size, flags)


def readdirplus(
    unique: int, nodeid: int, cred: Cred, fh: int, offset: int, size: int, flags: int
) -> bytes:
    """Read entries with their nodes (7.21)."""
    return _read(Opcode.READDIRPLUS, unique, nodeid, cred, fh, offset, size, flags)


def write(
    unique: int, nodeid: int, cred: Cred, fh: int, offset: int, size: int, flags: int
) -> bytes:
    """Return the head of a write of `size` octets; `flags` are those of the open."""
    slots = (_bits(fh), offset, size, 0, 0, flags, size)
    return _message(Opcode.WRITE, unique, nodeid, cred, b"qquuqu0d", slots)


def statfs(unique: int, nodeid: int, cred: Cred) -> bytes:
    """Ask for the state of the file system."""
    return _message(Opcode.STATFS, unique, nodeid, cred, b"")


def release(unique: int, nodeid: int, cred: Cred, fh: int, flags: int) -> bytes:
    """End one open."""
    slots = (_bits(fh), flags, 0, 0)
    return _message(Opcode.RELEASE, unique, nodeid, cred, b"quuq", slots)


def releasedir(unique: int, nodeid: int, cred: Cred, fh: int, flags: int) -> bytes:
    """End one open of a directory."""
    slots = (_bits(fh), flags, 0, 0)
    return _message(Opcode.RELEASEDIR, unique, nodeid, cred, b"quuq", slots)


def flush(unique: int, nodeid: int, cred: Cred, fh: int, owner: int) -> bytes:
    """Hear of a close(2)."""
    slots = (_bits(fh), _bits(owner))
    return _message(Opcode.FLUSH, unique, nodeid, cred, b"q00q", slots)


def fsync(unique: int, nodeid: int, cred: Cred, fh: int, flags: int) -> bytes:
    """Make a file stable (FSYNC_FDATASYNC: its data)."""
    return _message(Opcode.FSYNC, unique, nodeid, cred, b"qu0", (_bits(fh), flags))


def fsyncdir(unique: int, nodeid: int, cred: Cred, fh: int, flags: int) -> bytes:
    """Make a directory stable."""
    return _message(Opcode.FSYNCDIR, unique, nodeid, cred, b"qu0", (_bits(fh), flags))


def setxattr(unique: int, nodeid: int, cred: Cred, name: bytes, size: int, flags: int) -> bytes:
    """Return the head of a request that sets an attribute to `size` octets."""
    slots = (size, flags, 0, len(name), size)
    return _message(Opcode.SETXATTR, unique, nodeid, cred, b"uusd", slots, name)


def getxattr(unique: int, nodeid: int, cred: Cred, name: bytes, size: int) -> bytes:
    """Ask for the value of an attribute, up to `size` octets (0: for its length)."""
    slots = (size, 0, len(name))
    return _message(Opcode.GETXATTR, unique, nodeid, cred, b"u0s", slots, name)


def listxattr(unique: int, nodeid: int, cred: Cred, size: int) -> bytes:
    """Ask for the names of attributes, up to `size` octets (0: for their length)."""
    return _message(Opcode.LISTXATTR, unique, nodeid, cred, b"u0", (size,))


def removexattr(unique: int, nodeid: int, cred: Cred, name: bytes) -> bytes:
    """Remove an attribute."""
    return _message(Opcode.REMOVEXATTR, unique, nodeid, cred, b"s", (0, len(name)), name)


def access(unique: int, nodeid: int, cred: Cred, mask: int) -> bytes:
    """Ask whether `cred` may do all of `mask`."""
    return _message(Opcode.ACCESS, unique, nodeid, cred, b"u0", (mask,))


def _lock(
    opcode: int, unique: int, nodeid: int, cred: Cred, fh: int, owner: int, lock: Lock, flags: int
) -> bytes:
    slots = (_bits(fh), _bits(owner), lock.start, lock.end, lock.type, lock.pid, flags)
    return _message(opcode, unique, nodeid, cred, b"qqqquuu0", slots)


def getlk(
    unique: int, nodeid: int, cred: Cred, fh: int, owner: int, lock: Lock, flags: int = 0
) -> bytes:
    """Ask for a lock that is in the way of `lock`; `flags` may be LK_FLOCK, here and below."""
    return _lock(Opcode.GETLK, unique, nodeid, cred, fh, owner, lock, flags)


def setlk(
    unique: int, nodeid: int, cred: Cred, fh: int, owner: int, lock: Lock, flags: int = 0
) -> bytes:
    """Lock or unlock, or fail at once."""
    return _lock(Opcode.SETLK, unique, nodeid, cred, fh, owner, lock, flags)


def setlkw(
    unique: int, nodeid: int, cred: Cred, fh: int, owner: int, lock: Lock, flags: int = 0
) -> bytes:
    """Lock, as soon as that can be."""
    return _lock(Opcode.SETLKW, unique, nodeid, cred, fh, owner, lock, flags)


def interrupt(unique: int, nodeid: int, cred: Cred, request: int) -> bytes:
    """Say that nobody waits for the answer to the request with number `request`."""
    return _message(Opcode.INTERRUPT, unique, nodeid, cred, b"q", (_bits(request),))


def poll(unique: int, nodeid: int, cred: Cred, fh: int, kh: int, flags: int, events: int) -> bytes:
    """Ask which of `events` are ready (7.21)."""
    slots = (_bits(fh), _bits(kh), flags, events)
    return _message(Opcode.POLL, unique, nodeid, cred, b"qquu", slots)


def notify_reply(unique: int, nodeid: int, cred: Cred, offset: int, size: int) -> bytes:
    """Return the head of an answer to RETRIEVE with `size` octets."""
    slots = (0, offset, size, 0, 0, size)
    return _message(Opcode.NOTIFY_REPLY, unique, nodeid, cred, b"qqu0qqd", slots)


def fallocate(
    unique: int, nodeid: int, cred: Cred, fh: int, offset: int, length: int, mode: int
) -> bytes:
    """Reserve space or punch a hole (7.19)."""
    slots = (_bits(fh), offset, length, mode)
    return _message(Opcode.FALLOCATE, unique, nodeid, cred, b"qqqu0", slots)


def lseek(unique: int, nodeid: int, cred: Cred, fh: int, offset: int, whence: int) -> bytes:
    """Ask for the next data or hole (7.24)."""
    slots = (_bits(fh), offset, whence)
    return _message(Opcode.LSEEK, unique, nodeid, cred, b"qqu0", slots)


def copy_file_range(
    unique: int,
    nodeid: int,
    cred: Cred,
    fh_in: int,
    off_in: int,
    node_out: int,
    fh_out: int,
    off_out: int,
    length: int,
    flags: int,
) -> bytes:
    """Copy inside the server (7.28)."""
    slots = (_bits(fh_in), off_in, _bits(node_out), _bits(fh_out), off_out, length, flags)
    return _message(Opcode.COPY_FILE_RANGE, unique, nodeid, cred, b"qqqqqqq", slots)


def syncfs(unique: int, nodeid: int, cred: Cred) -> bytes:
    """Write everything out (7.34)."""
    return _message(Opcode.SYNCFS, unique, nodeid, cred, b"00")
