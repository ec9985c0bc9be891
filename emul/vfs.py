"""FileSystem: VFS operations on a mount and vnode operations, the second interface of the house.

Offered by tmpfs, by the kernel half of puffs and by disk file systems; called by
p2k and by the emulated system calls. One object is one mounted file system; vnodes
point to it (`vp.fs`).

Rules for all vnode operations
------------------------------
* The caller asks `vp.fs`, not a file system that he remembers: a vnode that has died
  answers for itself (`dead`).
* The caller holds a reference on each vnode that it passes and keeps it; a vnode
  that comes back carries one new reference, which the caller drops with `vrele`.
* The caller holds the locks that "Entry" names and keeps them; no operation locks
  or unlocks a vnode it was given, and what it returns is unlocked. (NetBSD drops
  locks and references inside; ours keeps both with the caller, so that every path
  out, cancellation too, is the same.) "Shared" is satisfied by an exclusive lock,
  too; "unlocked" says that the caller must not hold it, and that the operation may
  wait long, or for somebody who wants it.
* Buffers that come in (`data`, names, handles) are the caller's: unchanged until the
  operation returns, and not kept. Buffers that come back are the caller's to keep,
  and nobody else writes to them.
* Nothing is checked twice: p2k and the system calls check what is the same for all
  file systems (read-only mounts, "." and ".." for creation, names that are empty or
  have "/" or NUL in them, EXDEV, mount points), the file system checks permissions by
  `cred`, and its own limits, the length of names among them.
* Failure is `VfsError`, and leaves everything as it was unless the operation says
  otherwise. Errors stand in order of precedence: the first that applies is raised.
  EIO may come from every operation that needs a medium, ENXIO from every one whose
  file system has ended, and both are mentioned only where they mean more than that.
* Cancellation passes through. A cancelled operation has happened or it has not; only
  a write may have happened in part.
* An operation which does not have to wait does not yield.

In a kernel that debugs all this is checked at each call (`vopcheck`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from errno import EOPNOTSUPP
from typing import TYPE_CHECKING, NamedTuple

from ..native.constants import KERNEL_OPS, TTL_FOREVER, VnOp
from ..native.errors import VfsError
from ..native.records import Buffer, Componentname, Cred, Flock, Statvfs, Vattr

if TYPE_CHECKING:
    from .bio import Buf
    from .mount import Mount
    from .vnode import Vnode


class Lookup(NamedTuple):
    """The answer of lookup and of everything that makes a node.

    `vp` is None (from lookup only) where there is no such name; `cn_ttl` says for how many ns the
    name, or that there is none, may be believed. `va` is there when the file system has attributes
    at hand, and holds for `va_ttl` ns.
    """

    vp: Vnode | None
    cn_ttl: int = TTL_FOREVER
    va: Vattr | None = None
    va_ttl: int = 0


class Entry(NamedTuple):
    """One directory entry; `offset` is where to go on after it, 0 < offset < 2**63.

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
    devvp: Vnode | None = None
    """The device on which it lies; set by `start` of a file system that has one."""

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
        """The vnode operations it has (VnOp): those its class overrides; for puffs its server's.

        KERNEL_OPS are not among them: this is for who stands above p2k.
        """
        cls = type(self)
        return frozenset(
            op
            for op in VnOp
            if op not in KERNEL_OPS
            and (default := getattr(FileSystem, op.name.lower(), None)) is not None
            and (
                getattr(default, "__isabstractmethod__", False)
                or getattr(cls, op.name.lower()) is not default
            )
        )

    async def start(self) -> None:
        """Finish mounting: open the device, read what is needed; operations follow.

        May make the mount read-only (`mount.is_rdonly`) and start tasks of its own in the kernel.
        On failure it has ended by itself: nothing is called any more.
        Errors: EBUSY the device is in use; EINVAL, EUCLEAN nothing that it knows is there; EROFS.
        """

    @abstractmethod
    async def root(self) -> Vnode:
        """Return the root vnode with a new reference, unlocked; always the same one while mounted.

        Called by the kernel after `start`, and by everybody later.
        """

    @abstractmethod
    async def statvfs(self) -> Statvfs:
        """Return the state of the file system."""

    async def sync(self, waitfor: int, cred: Cred) -> None:
        """Write what belongs to the file system as a whole: super block, maps, metadata.

        With MNT_WAIT return when the medium has it; with MNT_NOWAIT and MNT_LAZY begin, and wait
        for nothing. Who wants everything calls `syncer.vfs_sync`, which has the dirty vnodes
        written before (FSYNC_VFS) and comes here after that. It writes nothing, and waits for
        nothing, that is another mount's. Errors: EIO, ENOSPC; what could not be written stays
        dirty.
        """

    async def unmount(self, flags: int) -> None:
        """End: close the device, stop the tasks. The vnodes are reclaimed afterwards.

        Without MNT_FORCE: everything has been written, no vnode is in use but the root, by the
        mount itself, and nobody can come in. Failure vetoes; the file system goes on as before.

        With MNT_FORCE vnodes may be in use, and operations may be waiting: they have to be shaken
        awake. What can be written is written, the rest is let go; if something was lost that only
        the file system knows of, EIO says so to the log. The kernel takes failure, and silence for
        UNMOUNT_GRACE seconds (it is cancelled then), for an end.
        Errors: EBUSY; EIO, ENOSPC.
        """

    async def vget(self, fileid: int) -> Vnode:
        """Return the vnode with this number, with a new reference, unlocked.

        Errors: EOPNOTSUPP it cannot find nodes by number; ESTALE there is none.
        """
        raise VfsError(EOPNOTSUPP)

    async def fhtovp(self, handle: bytes) -> Vnode:
        """Return the vnode of a file handle, with a new reference, unlocked.

        Errors: EOPNOTSUPP; EINVAL it is no handle of this file system; ESTALE the node has gone,
        also when its number is used by another one.
        """
        raise VfsError(EOPNOTSUPP)

    async def vptofh(self, vp: Vnode) -> bytes:
        """Return a handle, by which `fhtovp` finds the node as long as it has a name.

        Entry: any lock or none. Errors: EOPNOTSUPP.
        """
        raise VfsError(EOPNOTSUPP)

    async def extattrctl(self, cmd: int, vp: Vnode | None, namespace: int, name: bytes) -> None:
        """Control extended attributes. Entry: any lock or none. Errors: EOPNOTSUPP."""
        raise VfsError(EOPNOTSUPP)

    async def suspendctl(self, cmd: int) -> None:
        """Suspend or resume modifying operations. Errors: EOPNOTSUPP."""
        raise VfsError(EOPNOTSUPP)

    # Names.

    @abstractmethod
    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        """Find `cn.name` in `dvp`. ".." is asked for, "." is not; ".." of the root is the root.

        `cn.nameiop` says what for, and changes nothing of the answer: a name that is missing is no
        error, whatever is to be done with it. Permission to change `dvp` is checked by the
        operation that does.

        Entry: `dvp` shared. Exit: the result is unlocked.
        Errors:
            ENOTDIR       `dvp` is no directory
            ENAMETOOLONG  the name
            EACCES        `cn.cred` may not search `dvp`
            ENOENT        `dvp` itself was removed
        """

    @abstractmethod
    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make an empty regular file with `va.mode`; the owner is `cn.cred`.

        Its creator may open it once in any mode, whatever the mode says.

        Entry: `dvp` exclusive. Exit: the result is unlocked.
        Errors:
            ENOTDIR       `dvp` is no directory
            ENAMETOOLONG  the name
            EACCES        `cn.cred` may not search `dvp`
            EEXIST        the name is there
            ENOENT        `dvp` was removed
            EACCES        `cn.cred` may not write `dvp`
            ENOSPC EDQUOT no room
        """

    @abstractmethod
    async def mknod(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make a node of `va.vtype`: VREG, VBLK, VCHR (`va.rdev`), VSOCK or VFIFO.

        Entry: `dvp` exclusive. Exit: the result is unlocked.
        Errors: EINVAL any other type; EPERM a device, by other than root; then as `create`.
        """

    @abstractmethod
    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Make an empty directory with `va.mode`.

        Entry: `dvp` exclusive. Exit: the result is unlocked.
        Errors: as `create`, but before ENOSPC: EMLINK `dvp` has too many directories.
        """

    @abstractmethod
    async def symlink(self, dvp: Vnode, cn: Componentname, va: Vattr, target: bytes) -> Lookup:
        """Make a symbolic link to `target`, which is stored as it is.

        Entry: `dvp` exclusive. Exit: the result is unlocked.
        Errors: ENAMETOOLONG the target; then as `create`.
        """

    @abstractmethod
    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove the name `cn` of `vp`, no directory. The data stay until `inactive`.

        Entry: `dvp` and `vp` exclusive.
        Errors:
            ENOTDIR       `dvp` is no directory
            EACCES        `cn.cred` may not search `dvp`
            ENOENT        `vp` is not what the name stands for (any more)
            EACCES        `cn.cred` may not write `dvp`
            EPERM         a sticky directory, and neither it nor the node is theirs
            EISDIR        `vp` is a directory
        """

    @abstractmethod
    async def link(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> tuple[Vattr, int]:
        """Give `vp` one more name; return its attributes as `getattr` does.

        Entry: `dvp` and `vp` exclusive.
        Errors: as `create`, but before ENOSPC: EPERM `vp` is a directory; ENOENT `vp` has no name
        any more; EMLINK it has too many.
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

        `tvp` None: the caller has seen no such name. If there is one all the same, it is replaced.
        Nothing happens if both names are of one node.

        Entry: `fdvp`, `tdvp`, `fvp` and `tvp` exclusive (the caller sees to the lock order; some of
        them may be the same), and no other rename runs in this mount (`mount.renamelock`).
        Errors:
            ENOTDIR       `fdvp` or `tdvp` is no directory
            ENAMETOOLONG  the new name
            EACCES        search of `fdvp` or `tdvp`
            ENOENT        a name stands for something else (any more)
            EINVAL        a directory into itself or below
            ENOTEMPTY     onto a directory that `fdvp` is below of
            EACCES EPERM  as `remove`, for the old name
            ENOENT        `tdvp` was removed
            EACCES EPERM  as `create` or `remove`, for the new name
            ENOTDIR       a directory onto something else
            EISDIR        something else onto a directory
            EACCES        a directory that `cred` may not write, to another parent (".." changes)
            ENOTEMPTY     onto a directory with entries
            EMLINK        a directory into one with too many
            ENOSPC        no room for the new name
        """

    async def rename_with(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
        flags: int,
    ) -> None:
        """Move as `rename` does, by one of the flags of renameat2(2), all or nothing.

        RENAME_NOREPLACE: `tvp` is None, and what is there all the same is EEXIST; RENAME_EXCHANGE:
        `fvp` and `tvp` change their places. Entry: as `rename`. Errors: EOPNOTSUPP; EINVAL these
        flags; else as `rename`.
        """
        raise VfsError(EOPNOTSUPP)

    @abstractmethod
    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Remove the name `cn` of `vp`, an empty directory.

        Nothing can be made in it from then on, though users keep it. The caller has checked that
        `vp` is not `dvp`, not a root, and that nothing is mounted on it.

        Entry: `dvp` and `vp` exclusive.
        Errors: as `remove`, but in place of EISDIR: ENOTDIR `vp` is no directory; ENOTEMPTY.
        """

    @abstractmethod
    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        """Return entries from `offset` on (0, or that of an entry), and whether that is all.

        "." and ".." are among them. The sum of 24 octets and the name for each entry is at most
        `resid`, but one entry is returned unless there is none left. An offset stays good while
        entries come and go: no other entry is skipped or repeated.

        Entry: `vp` shared. That `cred` may read was checked by `open`.
        Errors: ENOTDIR; EINVAL a negative offset; ENOENT `vp` was removed.
        """

    @abstractmethod
    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        """Return the target of a symbolic link. Entry: `vp` shared. Errors: EINVAL no link."""

    def abortop(self, dvp: Vnode, cn: Componentname) -> None:
        """Hear that what `cn` was looked up for will not happen. Entry: any lock or none.

        Never waits, cannot fail.
        """

    # Files. Concurrency classes: read = shared lock, write = exclusive lock.

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """Prepare for FREAD and/or FWRITE; return OpenFlag. One `close` follows each success.

        Entry: `vp` exclusive.
        Errors: EISDIR FWRITE for a directory; ELOOP a link; EACCES; ENXIO nothing is behind it.
        """
        return 0

    def close(self, vp: Vnode, fflag: int, cred: Cred) -> None:
        """Hear that one open, with mode `fflag`, has ended.

        Entry: unlocked. Never waits, cannot fail (NetBSD: locked, may sleep).
        """

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """Return if `cred` may do all of VREAD, VWRITE, VEXEC in `mode`.

        Entry: `vp` shared. Errors: EROFS its medium cannot be written (a read-only mount is the
        caller's to know); EACCES.
        """

    @abstractmethod
    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """Return attributes, the type at least, and for how many ns they hold.

        Entry: `vp` shared.
        """

    @abstractmethod
    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Change what is not None, all of it or nothing; return as `getattr` afterwards.

        A new size cuts off, or extends with zeros; it sets `vp.size`. A mode beside an owner or a
        size is the last word on set-id bits.

        Entry: `vp` exclusive.
        Errors:
            EOPNOTSUPP    something that it does not keep
            EINVAL        something that cannot be set; a size below 0
            EPERM         owner, group, mode or times by whom they do not belong to
            EISDIR        the size of a directory
            EINVAL        the size of any other node that has none
            EFBIG         a size that is too large
            EACCES        the size, without permission to write
            ENOSPC        no room
        """

    @abstractmethod
    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Return `resid` octets from `offset`; fewer mean the end of the file and nothing else.

        Entry: `vp` shared. That `cred` may read was checked by `open`.
        Errors: EISDIR, EINVAL no regular file; EINVAL a negative offset or length; EIO.
        """

    @abstractmethod
    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Write all of `data` at `offset`, with IO_APPEND at the end, wherever that is now.

        Sets `vp.size`. With IO_SYNC the medium has it when it returns. Whoever reads afterwards
        reads it, also after an error of a later write-back.

        Entry: `vp` exclusive. That `cred` may write was checked by `open`; it counts for set-id
        bits and quota.
        Errors: EISDIR, EINVAL no regular file; EINVAL a negative offset; EFBIG; ENOSPC, EDQUOT; EIO
        (the file may have changed in part then).
        """

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Write what is dirty of a node: its data from `offlo` to `offhi` (0: the end), and itself.

        FSYNC_WAIT     return when the medium has it, and all that is needed to find it again
        FSYNC_CACHE    the same, in so many words: the device's own cache, too
        FSYNC_DATAONLY what is not needed to read the data may be left (times)
        FSYNC_LAZY     the syncer asks: begin, wait for nothing
        FSYNC_VFS      bring it so far that only `sync` is missing, or that the node may leave
                       memory: its data to the device, itself into the device's buffers; with
                       FSYNC_WAIT return when the device has the data. `is_clean(vp)` then
        FSYNC_CLOSE    a descriptor is being closed: hand over what close(2) promises to others,
                       and report errors of write-behind

        Entry: `vp` shared.
        Errors: EIO, ENOSPC, EDQUOT: something is not on the medium, now, and stays dirty.
        """

    async def seek(self, vp: Vnode, old: int, new: int, cred: Cred) -> None:
        """Return if one may seek from `old` to `new`. Entry: `vp` shared. Errors: EINVAL."""

    async def mmap(self, vp: Vnode, prot: int, cred: Cred) -> None:
        """Hear of a mapping. Entry: unlocked. Errors: EOPNOTSUPP its pages cannot be cached."""

    async def poll(self, vp: Vnode, events: int) -> int:
        """Return which of `events` (POLLIN, ...) are ready; does not wait for them to be.

        Entry: unlocked.
        """
        return events

    async def pathconf(self, vp: Vnode, name: int) -> int:
        """Return a limit (Linux' _PC_* numbers). Entry: any lock or none. Errors: EINVAL."""
        raise VfsError(EOPNOTSUPP)

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """Lock (F_SETLK, F_SETLKW), unlock (F_UNLCK) or test (F_GETLK) a range for `owner`.

        `op` and the type are fcntl's on this machine. Returns `flock`; for F_GETLK the lock that is
        in the way, or an F_UNLCK of the range. With F_FLOCK in `flags` it is one of flock(2).
        `lockf.lf_advlock` does all that.

        Entry: unlocked. Errors: EINVAL; EOVERFLOW; EAGAIN F_SETLK would have to wait; EDEADLK
        F_SETLKW would wait for ever; ENOLCK.
        """
        raise VfsError(EOPNOTSUPP)

    async def getextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> bytes:
        """Return an extended attribute.

        Entry: `vp` shared. Errors: EOPNOTSUPP; EACCES, EPERM; ENODATA there is none.
        """
        raise VfsError(EOPNOTSUPP)

    async def setextattr(
        self, vp: Vnode, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """Set an extended attribute (`flags`: XATTR_CREATE, XATTR_REPLACE).

        Entry: `vp` exclusive. Errors: EOPNOTSUPP; EACCES, EPERM; EEXIST; ENODATA; E2BIG, ERANGE;
        ENOSPC.
        """
        raise VfsError(EOPNOTSUPP)

    async def listextattr(self, vp: Vnode, namespace: int, cred: Cred) -> bytes:
        """Return the names of extended attributes, each followed by NUL.

        Entry: `vp` shared. Errors: EOPNOTSUPP; EACCES.
        """
        raise VfsError(EOPNOTSUPP)

    async def deleteextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> None:
        """Remove an extended attribute.

        Entry: `vp` exclusive. Errors: EOPNOTSUPP; EACCES, EPERM; ENODATA.
        """
        raise VfsError(EOPNOTSUPP)

    async def fallocate(self, vp: Vnode, offset: int, length: int) -> None:
        """Take space for a range, so that writing to it needs none; the file grows if it must.

        Entry: `vp` exclusive. Errors: EOPNOTSUPP; EISDIR, EINVAL no regular file; EINVAL the range;
        EFBIG; ENOSPC (some of it may have been taken then).
        """
        raise VfsError(EOPNOTSUPP)

    async def fdiscard(self, vp: Vnode, offset: int, length: int) -> None:
        """Make a range read as zeros and give its space back; the size stays.

        Entry: `vp` exclusive. Errors: EOPNOTSUPP; EISDIR, EINVAL no regular file; EINVAL the range.
        """
        raise VfsError(EOPNOTSUPP)

    async def seek_data(self, vp: Vnode, offset: int, whence: int, cred: Cred) -> int:
        """Return where the next data (os.SEEK_DATA) or hole (os.SEEK_HOLE) from `offset` begins.

        The end of the file is a hole. Entry: `vp` shared. Errors: EOPNOTSUPP; ENXIO `offset` is at
        the end or behind, or no data follow.
        """
        raise VfsError(EOPNOTSUPP)

    async def copy_file_range(
        self, vp: Vnode, offset: int, tvp: Vnode, toffset: int, length: int, cred: Cred
    ) -> int:
        """Copy from `vp` to `tvp`; return how many octets, fewer perhaps, 0 at the end of `vp`.

        Entry: `vp` and `tvp` exclusive; they may be the same. Errors: EOPNOTSUPP, EXDEV it cannot;
        else as `write`.
        """
        raise VfsError(EOPNOTSUPP)

    async def print(self, vp: Vnode) -> bytes:
        """Return a line for people. Entry: any lock or none."""
        return repr(vp).encode()

    # The life of a vnode.

    @abstractmethod
    async def inactive(self, vp: Vnode) -> bool:
        """Hear that the last reference is going; return whether to recycle `vp` at once.

        For a node without a name: what it occupies is freed here, where it may be waited for. Its
        number may be used again after `reclaim` only. Any other node stays in memory for a while,
        and what it knows better than its buffers is written into them here, or marked
        (`vp.is_modified`). It may be found again while this runs, and hears `inactive` again then.

        With other references (`vp.usecount` above one) only the answer counts, and nothing is
        freed: p2k asks so for a host that has closed a file and may come back.

        Entry: `vp` exclusive. Cannot fail; cancelled, it counts as a no.
        """

    @abstractmethod
    def reclaim(self, vp: Vnode) -> None:
        """Let go of `vp.data` and of its pages (`uvm_vnp_terminate`); `vp` is dead afterwards.

        Unless the unmount is a forced one, nothing of it was dirty, or `inactive` has asked for it.
        Never waits, cannot fail. Entry: nobody else uses it, or `vp` exclusive.
        """

    # Between a file and its device: for file systems that use the page cache or are a device.

    async def bmap(self, vp: Vnode, offset: int, length: int) -> tuple[int, int]:
        """Say where the octets from `offset` are on the device.

        Returns (blkno, run): `blkno` in units of DEV_BSIZE, -1 for a hole; `run` octets from
        `offset` on, at most `length` and at least one, lie there one after the other (or all
        belong to the hole). `offset` is a multiple of DEV_BSIZE.

        Entry: any lock or none, but nobody changes meanwhile where its blocks are. Not cancellable.
        Errors: EIO.
        """
        raise VfsError(EOPNOTSUPP)

    def strategy(self, vp: Vnode, bp: Buf) -> None:
        """Begin the transfer that `bp` describes; it ends with `biodone(bp)`, errors included.

        The memory is the device's until then. Never waits, cannot fail.
        Entry: `bp` busy, any lock or none on `vp`.
        """
        raise NotImplementedError("no device behind this file system")

    async def getpages(self, vp: Vnode, offset: int, length: int, flags: int) -> None:
        """Make the pages of a range valid (PGO_SYNCIO: before it returns).

        What lies in a hole or beyond the end is zero.

        Entry: `vp` shared, by the caller or by whom he works for.
        Errors: EIO; the pages that could not be read stay invalid.
        """
        raise VfsError(EOPNOTSUPP)

    async def putpages(self, vp: Vnode, offlo: int, offhi: int, flags: int) -> None:
        """Write (PGO_CLEANIT) and let go of (PGO_FREE) the pages in a range; `offhi` 0: the end.

        PGO_FREE takes clean pages only, and those that it writes when they have been written; none
        where the pages are all there is of the file. With PGO_SYNCIO it returns when the device has
        answered for all of them, also for writes that others began.

        Entry: any lock or none. Not cancellable.
        Errors: EIO, ENOSPC; what could not be written stays dirty.
        """
        raise VfsError(EOPNOTSUPP)
