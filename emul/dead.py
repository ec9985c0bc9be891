"""What a vnode that is dead answers.

NetBSD has one dead file system. Two are needed here, because a write which is
quietly dropped is right in one case and a lie in the other:

    RECYCLED   `inactive` said that no name is left. Its data have nowhere to go, and a late
               write-back of them must not fail: getattr, setattr, write, fsync and putpages
               succeed.
    REVOKED    the vnode was taken away from its users by a forced unmount or `vgone`, or left
               the free list: they fail. (putpages only if there still are pages to be written:
               they went with the vnode, and what was lost was counted then.)

Everything else is ENXIO in both ("the device has gone", as after the death of a puffs
server), but for close, abortop and inactive, which cannot fail. (NetBSD answers
lookup with ENOTDIR, read and write with EIO, and most of the rest with EBADF.)
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import ENXIO
from typing import TYPE_CHECKING, NoReturn

from ..native.errors import VfsError
from ..native.records import Buffer, Componentname, Cred, Flock, Statvfs, Vattr
from .bio import Buf, biodone
from .vfs import Entry, FileSystem, Lookup

if TYPE_CHECKING:
    from .vnode import Vnode


def _gone() -> NoReturn:
    raise VfsError(ENXIO, "the vnode is dead")


class DeadFs(FileSystem):
    """The file system of dead vnodes; belongs to no mount.

    `forgives`: getattr, setattr, write, fsync and putpages succeed and do nothing.
    """

    def __init__(self, *, forgives: bool) -> None:
        self._forgives = forgives

    @property
    def typename(self) -> str:
        """Name of the type."""
        return "dead"

    @property
    def mntfromname(self) -> bytes:
        """Nothing is mounted."""
        return b"none"

    async def root(self) -> Vnode:
        """Fail."""
        _gone()

    async def statvfs(self) -> Statvfs:
        """Fail."""
        _gone()

    async def lookup(self, dvp: Vnode, cn: Componentname) -> Lookup:
        """Fail."""
        _gone()

    async def create(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Fail."""
        _gone()

    async def mknod(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Fail."""
        _gone()

    async def mkdir(self, dvp: Vnode, cn: Componentname, va: Vattr) -> Lookup:
        """Fail."""
        _gone()

    async def symlink(self, dvp: Vnode, cn: Componentname, va: Vattr, target: bytes) -> Lookup:
        """Fail."""
        _gone()

    async def open(self, vp: Vnode, mode: int, cred: Cred) -> int:
        """Fail."""
        _gone()

    async def access(self, vp: Vnode, mode: int, cred: Cred) -> None:
        """Fail."""
        _gone()

    async def getattr(self, vp: Vnode, cred: Cred) -> tuple[Vattr, int]:
        """Return the attributes of a file that has no name any more, or fail."""
        if not self._forgives:
            _gone()
        return Vattr(
            vtype=vp.vtype, mode=0, nlink=0, uid=0, gid=0, size=vp.size, atime=0, mtime=0, ctime=0
        ), 0

    async def setattr(self, vp: Vnode, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Return the attributes, or fail."""
        return await self.getattr(vp, cred)

    async def read(self, vp: Vnode, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Fail."""
        _gone()

    async def write(self, vp: Vnode, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Drop the data of a file that has no name any more, or fail."""
        if not self._forgives:
            _gone()

    async def fsync(self, vp: Vnode, flags: int, offlo: int, offhi: int, cred: Cred) -> None:
        """Do nothing, or fail: what was written may be lost."""
        if not self._forgives:
            _gone()

    async def seek(self, vp: Vnode, old: int, new: int, cred: Cred) -> None:
        """Fail."""
        _gone()

    async def mmap(self, vp: Vnode, prot: int, cred: Cred) -> None:
        """Fail."""
        _gone()

    async def poll(self, vp: Vnode, events: int) -> int:
        """Fail."""
        _gone()

    async def remove(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Fail."""
        _gone()

    async def link(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> tuple[Vattr, int]:
        """Fail."""
        _gone()

    async def rename(
        self,
        fdvp: Vnode,
        fvp: Vnode,
        fcn: Componentname,
        tdvp: Vnode,
        tvp: Vnode | None,
        tcn: Componentname,
    ) -> None:
        """Fail."""
        _gone()

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
        """Fail."""
        _gone()

    async def rmdir(self, dvp: Vnode, vp: Vnode, cn: Componentname) -> None:
        """Fail."""
        _gone()

    async def readdir(
        self, vp: Vnode, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Entry], bool]:
        """Fail."""
        _gone()

    async def readlink(self, vp: Vnode, cred: Cred) -> bytes:
        """Fail."""
        _gone()

    async def inactive(self, vp: Vnode) -> bool:
        """Ask for nothing: it is recycled already."""
        return False

    def reclaim(self, vp: Vnode) -> None:
        """Do nothing: there is nothing left."""

    async def bmap(self, vp: Vnode, offset: int, length: int) -> tuple[int, int]:
        """Fail: nothing of it is on a device any more."""
        _gone()

    async def getpages(self, vp: Vnode, offset: int, length: int, flags: int) -> None:
        """Fail."""
        _gone()

    async def putpages(self, vp: Vnode, offlo: int, offhi: int, flags: int) -> None:
        """Do nothing, or fail if that would lose something."""
        if not self._forgives and vp.uobj is not None and not vp.uobj.is_clean:
            _gone()

    def strategy(self, vp: Vnode, bp: Buf) -> None:
        """Fail, as a device that has gone."""
        bp.error = ENXIO
        bp.resid = bp.bcount
        biodone(bp)

    async def pathconf(self, vp: Vnode, name: int) -> int:
        """Fail."""
        _gone()

    async def advlock(self, vp: Vnode, owner: int, op: int, flock: Flock, flags: int) -> Flock:
        """Fail."""
        _gone()

    async def getextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> bytes:
        """Fail."""
        _gone()

    async def setextattr(
        self, vp: Vnode, namespace: int, name: bytes, value: bytes, flags: int, cred: Cred
    ) -> None:
        """Fail."""
        _gone()

    async def listextattr(self, vp: Vnode, namespace: int, cred: Cred) -> bytes:
        """Fail."""
        _gone()

    async def deleteextattr(self, vp: Vnode, namespace: int, name: bytes, cred: Cred) -> None:
        """Fail."""
        _gone()

    async def fallocate(self, vp: Vnode, offset: int, length: int) -> None:
        """Fail."""
        _gone()

    async def fdiscard(self, vp: Vnode, offset: int, length: int) -> None:
        """Fail."""
        _gone()

    async def seek_data(self, vp: Vnode, offset: int, whence: int, cred: Cred) -> int:
        """Fail."""
        _gone()

    async def copy_file_range(
        self, vp: Vnode, offset: int, tvp: Vnode, toffset: int, length: int, cred: Cred
    ) -> int:
        """Fail."""
        _gone()


RECYCLED = DeadFs(forgives=True)
"""Answers for vnodes whose file has no name any more."""
REVOKED = DeadFs(forgives=False)
"""Answers for vnodes that were taken from their users."""
