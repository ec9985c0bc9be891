"""FileServer: the puffs operations, the one interface that elements of a stack offer each other.

Called by the host end (gateway), by the server half of puffs and by pass-through
servers; offered by psshfs, p2k and the like. Meanings are NetBSD's puffs(3);
deviations are marked "ours" and are what a FUSE host needs.

Rules for all operations
------------------------
* A *cookie* names a node. Cookies come out of lookup, create, mknod, mkdir,
  symlink, fhtonode and readdir with READDIR_PLUS only; each such answer counts as
  one lookup of that node. `reclaim` gives back a number of lookups; at zero the
  cookie is dead and the server may use it for another node. The root's cookie is
  given at mount and never reclaimed.
* Any number of operations may run at the same time, also on one node; a server
  takes care of itself. An operation that need not wait does not yield.
* Failure is `VfsError`; nothing else comes out of an operation but cancellation,
  which is always passed on. An operation that was cancelled may have happened.
* The caller keeps the memory of `data` unchanged until a `write` returns; a server
  that needs it longer copies it. What `read` returns belongs to the caller, and
  nobody changes it.
* Operations without `await` (close, abortop, reclaim) are fire-and-forget: they
  cannot fail and never wait. What they start goes on in a task of the server.
* Names never contain NUL or '/', are not empty, not "." and at most NAME_MAX
  octets; callers check that. ".." may be looked up.
* After `unmount` has returned nothing is called any more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from errno import EOPNOTSUPP
from typing import Protocol

from ..native.constants import FlushOp
from ..native.errors import VfsError
from ..native.records import (
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Flock,
    Kargs,
    Newinfo,
    Statvfs,
    Vattr,
)


class Upcalls(Protocol):
    """What a file server may ask of the kernel above it (puffs class FLUSH and UNMOUNT)."""

    async def flush(
        self, op: FlushOp, cookie: Cookie, start: int = 0, end: int = 0, name: bytes = b""
    ) -> None:
        """Drop or write back what the caches above hold; return when that is done.

        `start` and `end` (0: to the end of the file) are octets and count for the page-cache
        operations, `name` for INVAL_NAMECACHE_NAME only. Must be called from a task of the
        server's own, never from inside an operation: the host may be holding a lock for that
        one. Unknown cookies are ignored, for the kernel may have forgotten the node meanwhile.
        """
        ...

    def unmount(self) -> None:
        """Ask for an unmount; returns at once, `FileServer.unmount` follows."""
        ...


class FileServer(ABC):
    """A file system behind cookies. See the module's text for the rules."""

    @property
    @abstractmethod
    def kargs(self) -> Kargs:
        """What to tell the kernel above at mount; constant while the server lives."""

    def attach(self, upcalls: Upcalls) -> None:
        """Learn whom to send flushes to; called once, after the mount and before any operation."""

    def error_note(self, kind: int, errno: int, text: str, cookie: Cookie) -> None:
        """Hear from the kernel that an answer broke the protocol (`ErrorNote` in `kind`)."""

    def names_hold(self) -> bool:
        """Return whether names that may be remembered still hold (ours).

        False: some may not, since the last call, whatever their time-outs say; forget them. Who
        does not ask gets no shorter truth than time-outs promise. Does not wait.
        """
        return True

    # The whole file system.

    @abstractmethod
    async def statvfs(self) -> Statvfs:
        """Return the state of the file system."""

    async def statvfs_at(self, opc: Cookie) -> Statvfs:
        """Return the state of the file system in which a node lies (ours): there may be several.

        Who stands on one other file server hands this on as it does `getattr`.
        """
        return await self.statvfs()

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """Start (MNT_NOWAIT, MNT_LAZY) or finish (MNT_WAIT) writing everything out."""

    async def unmount(self, flags: int) -> None:
        """End: everything written is on its medium when this returns.

        An error vetoes and the mount stays, except with MNT_FORCE, whose result is ignored.
        """

    async def fhtonode(self, handle: bytes) -> Newinfo:
        """Return the node of a file handle. Errors: ESTALE, EINVAL, EOPNOTSUPP without handles."""
        raise VfsError(EOPNOTSUPP)

    async def nodetofh(self, opc: Cookie) -> bytes:
        """Return a handle that outlives the cookie. Errors: EOPNOTSUPP without handles."""
        raise VfsError(EOPNOTSUPP)

    async def extattrctl(self, cmd: int, opc: int, namespace: int, name: bytes) -> None:
        """Control extended attributes."""
        raise VfsError(EOPNOTSUPP)

    # Nodes.

    @abstractmethod
    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """Return the node that directory `opc` has under `cn.name`; counts as one lookup.

        A missing name is no error but a newinfo with cookie 0 (see there).
        Errors, first match wins: ENOENT `opc` itself is gone; ENOTDIR; ENAMETOOLONG; EACCES; EIO.
        """

    @abstractmethod
    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make an empty regular file and return it; it did not exist before (else EEXIST).

        `va` has at least vtype and mode. Errors: ENAMETOOLONG, EACCES, EEXIST, ENOSPC, EROFS.
        """

    @abstractmethod
    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make a node of type VREG, VBLK, VCHR, VSOCK or VFIFO (`va.rdev` for devices)."""

    @abstractmethod
    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Make an empty directory and return it."""

    @abstractmethod
    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """Make a symbolic link to `target`, which is stored as it is."""

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """Prepare for FREAD and/or FWRITE (FAPPEND beside it); return (OpenFlag, Setback).

        Each successful open is followed by one `close` with the same mode.
        """
        return 0, 0

    def close(self, opc: Cookie, fflag: int, cred: Cred) -> None:
        """Hear that one open (with `fflag`) has ended. What it wrote was flushed by `fsync`."""

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """Return if `cred` may do all of `mode` (VREAD, VWRITE, VEXEC). Errors: EACCES, EROFS."""

    @abstractmethod
    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """Return attributes, all that the server knows, and for how many ns they hold."""

    @abstractmethod
    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change what is not None in `va`; return attributes afterwards and their time-out (ns).

        A change of size truncates or extends with zeros.
        """

    @abstractmethod
    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Return `resid` octets from `offset`; fewer mean the end of the file and nothing else."""

    @abstractmethod
    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Write all of `data`, or fail. With IO_APPEND it goes to the end, wherever that is now."""

    async def fsync(self, opc: Cookie, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Make written data stable (FSYNC_*); report each write-behind error to each asker once."""

    async def seek(self, opc: Cookie, old: int, new: int, cred: Cred) -> None:
        """Check a seek."""

    async def mmap(self, opc: Cookie, prot: int, cred: Cred) -> int:
        """Hear of a mapping; return Setback."""
        return 0

    async def poll(self, opc: Cookie, events: int) -> int:
        """Return which of `events` are ready."""
        return events

    @abstractmethod
    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Remove the name of `targ`, no directory; its data stay until reclaim. Return Setback.

        Errors: ENOENT, EPERM or EISDIR for a directory, EACCES, EROFS.
        """

    @abstractmethod
    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """Give `targ` one more name in directory `opc`; return its attributes, time-out (ours)."""

    @abstractmethod
    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        """Move `src` from directory `opc` to `targ_dir`, replacing `targ` (if any) atomically.

        Errors: ENOENT, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL (into itself), EXDEV.
        """

    @abstractmethod
    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Remove an empty directory; return Setback. Errors: ENOENT, ENOTDIR, ENOTEMPTY."""

    @abstractmethod
    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """Return entries from `offset` (0, or the `offset` of an entry), and whether that is all.

        "." and ".." are among them. `resid` bounds the answer: the sum of (24 + length of name)
        of all entries, in octets; at least one entry is returned unless there is none left.
        An offset stays good while entries come and go: no other entry is skipped or repeated.
        """

    @abstractmethod
    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """Return the target of a symbolic link. Errors: EINVAL for any other node."""

    def abortop(self, opc: Cookie, cn: Componentname) -> None:
        """Hear that what `cn` was looked up for will not happen."""

    async def inactive(self, opc: Cookie) -> int:
        """Hear that nobody above uses the node now; return Setback (NOREF_N1: recycle it)."""
        return 0

    @abstractmethod
    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """Take back `nlookup` lookups; the cookie is dead when none is left."""

    async def print(self, opc: Cookie) -> bytes:
        """Return a line for people about the node."""
        return b""

    async def pathconf(self, opc: Cookie, name: int) -> int:
        """Return a limit (Linux' _PC_* numbers). Errors: EINVAL."""
        raise VfsError(EOPNOTSUPP)

    async def advlock(self, opc: Cookie, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """Lock (F_SETLK, F_SETLKW), unlock (F_UNLCK) or test (F_GETLK) a range for `owner`.

        `op` and the type are fcntl's. Returns `flock`, for F_GETLK the lock in the way or an
        F_UNLCK. F_FLOCK in `flags`: one of flock(2), which fcntl's do not see (without, where
        kflags have LOCAL_FLOCK, EOPNOTSUPP). Nothing is unlocked by a close: callers do that.
        Errors: EINVAL; EAGAIN F_SETLK would have to wait; EDEADLK; ENOLCK.
        """
        raise VfsError(EOPNOTSUPP)

    async def getextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> bytes:
        """Return the value of an extended attribute. Errors: ENODATA, EOPNOTSUPP."""
        raise VfsError(EOPNOTSUPP)

    async def setextattr(
        self, opc: Cookie, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """Set an extended attribute (`flags`: XATTR_CREATE, XATTR_REPLACE)."""
        raise VfsError(EOPNOTSUPP)

    async def listextattr(self, opc: Cookie, namespace: int, cred: Cred) -> bytes:
        """Return the names of extended attributes, each followed by NUL."""
        raise VfsError(EOPNOTSUPP)

    async def deleteextattr(self, opc: Cookie, namespace: int, name: bytes, cred: Cred) -> None:
        """Remove an extended attribute. Errors: ENODATA, EOPNOTSUPP."""
        raise VfsError(EOPNOTSUPP)

    async def fallocate(self, opc: Cookie, offset: int, length: int) -> None:
        """Reserve space."""
        raise VfsError(EOPNOTSUPP)

    async def fdiscard(self, opc: Cookie, offset: int, length: int) -> None:
        """Make a range read as zeros and give its space back."""
        raise VfsError(EOPNOTSUPP)

    # What NetBSD's puffs does not have (ours): EOPNOTSUPP has the kernel above do it otherwise.

    async def seek_data(self, opc: Cookie, offset: int, whence: int, cred: Cred) -> int:
        """Return where the next data (os.SEEK_DATA) or hole (os.SEEK_HOLE) from `offset` begins.

        The end of a file is a hole. Errors: ENXIO `offset` is at the end or behind, or no data
        follow; EOPNOTSUPP.
        """
        raise VfsError(EOPNOTSUPP)

    async def copy_file_range(
        self, opc: Cookie, offset: int, targ: Cookie, targ_offset: int, length: int, cred: Cred
    ) -> int:
        """Copy inside the server; return how many octets, fewer perhaps, 0 at the end of `opc`.

        Errors: EOPNOTSUPP, EXDEV: it cannot; others as write has them.
        """
        raise VfsError(EOPNOTSUPP)

    async def rename_with(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
        flags: int,
    ) -> None:
        """Move as `rename` does, with flags of renameat2(2), all or nothing.

        RENAME_NOREPLACE: `targ` is None, and what somebody else has made there meanwhile is EEXIST;
        RENAME_EXCHANGE: `src` and `targ` change their places.
        Errors: EOPNOTSUPP; EINVAL these flags; others as `rename` has them.
        """
        raise VfsError(EOPNOTSUPP)
