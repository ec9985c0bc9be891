"""FileSystem: VFS operations on a mount and vnode operations, the second interface of the house.

Offered by tmpfs, by the kernel half of puffs and by disk file systems; called by
p2k and by the emulated system calls. One object is one mounted file system; vnodes
point to it (`vp.fs`).

Rules for all vnode operations
------------------------------
* The caller holds a reference on each vnode that it passes and keeps it; a vnode
  that comes back carries one new reference, which the caller drops with `vrele`.
* The caller holds the locks that "Entry" names and keeps them; no operation locks
  or unlocks a vnode it was given, and what it returns is unlocked. (NetBSD drops
  locks and references inside; ours keeps both with the caller, so that every path
  out, cancellation too, is the same.)
* Nothing is checked twice: p2k and the system calls check what is the same for all
  file systems (name length, "." and ".." for creation, EXDEV, read-only mounts),
  the file system checks permissions by `cred` and its own limits.
* Failure is `VfsError`. An operation which does not have to wait does not yield.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from errno import EOPNOTSUPP
from typing import TYPE_CHECKING, NamedTuple

from ..native.constants import TTL_FOREVER, VnOp
from ..native.errors import VfsError
from ..native.records import Buffer, Componentname, Cred, Flock, Statvfs, Vattr

if TYPE_CHECKING:
    from .mount import Mount
    from .vnode import Vnode


class Lookup(NamedTuple):
    """The answer of lookup and of everything that makes a node.

    `vp` is None (from lookup only) where there is no such name. `va` is there when the file
    system has attributes at hand; times are ns.
    """

    vp: Vnode | None
    cn_ttl: int = TTL_FOREVER
    va: Vattr | None = None
    va_ttl: int = 0


class Entry(NamedTuple):
    """One directory entry; `offset` is where to go on after it.

    `found` is there for READDIR_PLUS, "." and ".." excepted: a lookup's answer, with a
    reference on its vnode.
    """

    fileid: int
    vtype: int
    name: bytes
    offset: int
    found: Lookup | None = None


class FileSystem(ABC):
    """One mounted file system. See the module's text for the rules."""

    mount: Mount
    """Set by the kernel before `start`."""

    # The whole file system.

    @property
    @abstractmethod
    def typename(self) -> str:
        """Name of the type; for puffs the trace of what is below it, its own name in front."""

    @property
    @abstractmethod
    def mntfromname(self) -> bytes:
        """What is mounted, for the first column of `mount`."""

    @property
    def ops(self) -> frozenset[int]:
        """The vnode operations it has (VnOp): those its class overrides; for puffs its server's."""
        cls = type(self)
        return frozenset(
            op
            for op in VnOp
            if (default := getattr(FileSystem, op.name.lower(), None)) is not None
            and (
                getattr(default, "__isabstractmethod__", False)
                or getattr(cls, op.name.lower()) is not default
            )
        )

    async def start(self) -> None:
        """Finish mounting; operations may follow."""

    @abstractmethod
    async def root(self) -> Vnode:
        """Return the root vnode with a new reference, unlocked."""

    @abstractmethod
    async def statvfs(self) -> Statvfs:
        """Return the state of the file system."""

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """Start or finish (MNT_WAIT) writing everything of this mount."""

    async def unmount(self, flags: int) -> None:
        """End; called when no vnode but the root is in use, or with MNT_FORCE."""

    async def vget(self, fileid: int) -> Vnode:
        """Return the vnode with this number, with a new reference. Errors: EOPNOTSUPP, ESTALE."""
        raise VfsError(EOPNOTSUPP)

    async def fhtovp(self, handle: bytes) -> Vnode:
        """Return the vnode of a file handle, with a new reference. Errors: ESTALE, EINVAL."""
        raise VfsError(EOPNOTSUPP)

    async def vptofh(self, vp: Vnode) -> bytes:
        """Return a file handle. Errors: EOPNOTSUPP."""
        raise VfsError(EOPNOTSUPP)

    async def extattrctl(self, cmd: int, vp: Vnode | None, namespace: int, name: bytes) -> None:
        """Control extended attributes."""
        raise VfsError(EOPNOTSUPP)

    async def suspendctl(self, cmd: int) -> None:
        """Suspend or resume modifying operations."""
        raise VfsError(EOPNOTSUPP)

    # Vnode operations. Concurrency classes: read = shared lock, write = exclusive lock.

    @abstractmethod
    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        """Find `cn.name` in `dvp`. ".." is asked for, "." is not.

        Entry: `dvp` locked shared or exclusive, type VDIR.
        Errors, first match wins: ENOTDIR; ENAMETOOLONG; EACCES (no VEXEC on `dvp`); ENOENT `dvp`
        itself was removed.
        """

    @abstractmethod
    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a regular file. Entry: `dvp` exclusive. Errors: EACCES, EEXIST, ENOSPC, ENOENT."""

    @abstractmethod
    async def mknod(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a device, fifo, socket or regular file. Entry: `dvp` exclusive."""

    @abstractmethod
    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a directory. Entry: `dvp` exclusive. Errors: as create, EMLINK."""

    @abstractmethod
    async def symlink(self, dvp: Vnode, cn: Componentname, va: Vattr, target: bytes) -> Lookup:
        """Make a symbolic link. Entry: `dvp` exclusive."""

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """Prepare for FREAD/FWRITE; return OpenFlag. Entry: `vp` exclusive. Errors: EACCES."""
        return 0

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        """End one open. Entry: unlocked. Never waits, cannot fail (NetBSD: locked, may sleep)."""

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """Check VREAD, VWRITE, VEXEC. Entry: `vp` shared. Errors: EACCES, EROFS."""

    @abstractmethod
    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """Return attributes and for how many ns they hold. Entry: `vp` shared."""

    @abstractmethod
    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change what is not None; return as getattr. Entry: `vp` exclusive.

        Errors: EPERM (not the owner), EACCES, EISDIR or EINVAL (size of no regular file), EFBIG.
        """

    @abstractmethod
    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Return up to `resid` octets; fewer only at the end. Entry: `vp` shared.

        The caller may keep the buffer. Errors: EISDIR, EINVAL (negative offset), EIO.
        """

    @abstractmethod
    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Write all of `data`; the file system does not keep it. Entry: `vp` exclusive."""

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Make data stable. Entry: `vp` shared."""

    async def seek(self, vp: Vnode, old: int, new: int, cred: Cred) -> None:
        """Check a seek. Entry: `vp` shared."""

    async def mmap(self, vp: Vnode, prot: int, cred: Cred) -> None:
        """Hear of a mapping. Entry: unlocked."""

    async def poll(self, vp: Vnode, events: int) -> int:
        """Return which of `events` are ready. Entry: unlocked."""
        return events

    @abstractmethod
    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove the name. Entry: `dvp` and `vp` exclusive. Errors: EPERM, EACCES, ENOENT."""

    @abstractmethod
    async def link(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> tuple[Vattr, int]:
        """Add a name; return `vp`'s attributes. Entry: `dvp` and `vp` exclusive.

        Errors: EPERM (directory), EEXIST, EMLINK, EACCES, ENOENT (`vp` has no name any more).
        """

    @abstractmethod
    async def rename(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
    ) -> None:
        """Move `fvp` to `tdvp` in place of `tvp`, in one step.

        Entry: `fdvp`, `tdvp`, `fvp` and `tvp` exclusive (the caller sees to the lock order), and no
        other rename runs in this mount. Errors: ENOENT (a name is not there any more), EINVAL (into
        its own subtree), EISDIR, ENOTDIR, ENOTEMPTY, EACCES, EPERM.
        """

    @abstractmethod
    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove an empty directory. Entry: `dvp` and `vp` exclusive. Errors: ENOTEMPTY, EACCES."""

    @abstractmethod
    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        """Return entries and whether that is all; see `FileServer.readdir`. Entry: `vp` shared."""

    @abstractmethod
    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        """Return the target. Entry: `vp` shared. Errors: EINVAL."""

    def abortop(self, dvp: Vnode, cn: Componentname) -> None:
        """Undo what lookup prepared."""

    @abstractmethod
    async def inactive(self, vp: Vnode) -> bool:
        """Hear that the last reference has gone; return whether to recycle `vp` at once.

        Entry: `vp` exclusive. Cannot fail.
        """

    @abstractmethod
    def reclaim(self, vp: Vnode) -> None:
        """Let go of `vp.data`; the vnode is dead afterwards. Never waits, cannot fail."""

    async def print(self, vp: Vnode) -> bytes:
        """Return a line for people."""
        return repr(vp).encode()

    async def pathconf(self, vp: Vnode, name: int) -> int:
        """Return a limit. Errors: EINVAL."""
        raise VfsError(EOPNOTSUPP)

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """Lock a range."""
        raise VfsError(EOPNOTSUPP)

    async def getextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> bytes:
        """Return an extended attribute. Entry: `vp` shared."""
        raise VfsError(EOPNOTSUPP)

    async def setextattr(
        self, vp: Vnode, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """Set an extended attribute. Entry: `vp` exclusive."""
        raise VfsError(EOPNOTSUPP)

    async def listextattr(self, vp: Vnode, namespace: int, cred: Cred) -> bytes:
        """Return names, each followed by NUL. Entry: `vp` shared."""
        raise VfsError(EOPNOTSUPP)

    async def deleteextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> None:
        """Remove an extended attribute. Entry: `vp` exclusive."""
        raise VfsError(EOPNOTSUPP)

    async def fallocate(self, vp: Vnode, offset: int, length: int) -> None:
        """Reserve space. Entry: `vp` exclusive."""
        raise VfsError(EOPNOTSUPP)

    async def fdiscard(self, vp: Vnode, offset: int, length: int) -> None:
        """Make a range read as zeros. Entry: `vp` exclusive."""
        raise VfsError(EOPNOTSUPP)
