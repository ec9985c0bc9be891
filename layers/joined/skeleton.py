"""The directories that lead to trees: a file server that nobody can change."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EINVAL, EISDIR, EROFS
from time import time_ns
from typing import Final

from ...native.constants import (
    FWRITE,
    MAXMSGLEN_MAX,
    TTL_FOREVER,
    VWRITE,
    KFlag,
    VnOp,
    Vtype,
)
from ...native.errors import VfsError
from ...native.records import (
    Buffer,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Kargs,
    Newinfo,
    Statvfs,
    Vattr,
)
from ..ops import FileServer

_FILEID: Final = 1 << 48
"""Numbers from here on are the skeleton's: inodes of file systems on disks seldom are so large."""
_DIRENT_HEAD: Final = 24
_MISSING: Final = Newinfo(Cookie(0), Vtype.VNON, cn_ttl=TTL_FOREVER)


class Skeleton(FileServer):
    """A directory for each of `children`, which says how many it has; cookies count from 1.

    The names of those are the business of who joins: here every directory is empty.
    """

    def __init__(self, children: Sequence[int]) -> None:
        now = time_ns()
        self._attributes = [
            Vattr(
                vtype=Vtype.VDIR,
                mode=0o755,
                nlink=2 + count,
                uid=0,
                gid=0,
                fileid=_FILEID + index,
                size=0,
                blocksize=4096,
                atime=now,
                mtime=now,
                ctime=now,
                bytes=0,
            )
            for index, count in enumerate(children)
        ]
        self._kargs = Kargs(
            typename="",
            mntfromname=b"",
            root=Newinfo(Cookie(1), Vtype.VDIR),
            kflags=KFlag.IAONDEMAND | KFlag.CACHE_FS_TTL,
            ops=frozenset({VnOp.LOOKUP, VnOp.OPEN, VnOp.ACCESS, VnOp.GETATTR, VnOp.READDIR}),
            maxmsglen=MAXMSGLEN_MAX,
        )

    @property
    def kargs(self) -> Kargs:
        """See FileServer."""
        return self._kargs

    async def statvfs(self) -> Statvfs:
        """See FileServer."""
        return Statvfs()

    async def lookup(self, opc: Cookie, cn: Componentname) -> Newinfo:
        """See FileServer. There is nothing, and never will be."""
        return _MISSING

    async def create(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def mknod(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def mkdir(self, opc: Cookie, cn: Componentname, va: Vattr) -> Newinfo:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def symlink(self, opc: Cookie, cn: Componentname, va: Vattr, target: bytes) -> Newinfo:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def open(self, opc: Cookie, mode: int, cred: Cred) -> tuple[int, int]:
        """See FileServer. Errors: EISDIR for writing."""
        if mode & FWRITE:
            raise VfsError(EISDIR)
        return 0, 0

    async def access(self, opc: Cookie, mode: int, cred: Cred) -> None:
        """See FileServer. Everybody may read and search."""
        if mode & VWRITE:
            raise VfsError(EROFS)

    async def getattr(self, opc: Cookie, cred: Cred) -> tuple[Vattr, int]:
        """See FileServer."""
        return self._attributes[opc - 1], TTL_FOREVER

    async def setattr(self, opc: Cookie, va: Vattr, cred: Cred) -> tuple[Vattr, int]:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def read(self, opc: Cookie, offset: int, resid: int, ioflag: int, cred: Cred) -> Buffer:
        """Refuse: EISDIR."""
        raise VfsError(EISDIR)

    async def write(self, opc: Cookie, offset: int, data: Buffer, ioflag: int, cred: Cred) -> None:
        """Refuse: EISDIR."""
        raise VfsError(EISDIR)

    async def remove(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def link(self, opc: Cookie, targ: Cookie, cn: Componentname) -> tuple[Vattr, int]:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def rename(
        self,
        opc: Cookie,
        src: Cookie,
        cn_src: Componentname,
        targ_dir: Cookie,
        targ: Cookie | None,
        cn_targ: Componentname,
    ) -> None:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def rmdir(self, opc: Cookie, targ: Cookie, cn: Componentname) -> int:
        """Refuse: EROFS."""
        raise VfsError(EROFS)

    async def readdir(
        self, opc: Cookie, offset: int, resid: int, flags: int, cred: Cred
    ) -> tuple[Sequence[Dirent], bool]:
        """See FileServer. Only "." and ".."; the number of the latter is not known here."""
        fileid = self._attributes[opc - 1].fileid or 0
        dots = [
            Dirent(fileid, Vtype.VDIR, b".", 1),
            Dirent(fileid, Vtype.VDIR, b"..", 2),
        ][offset:]
        room = max(1, resid // (_DIRENT_HEAD + 2))
        return dots[:room], len(dots) <= room

    async def readlink(self, opc: Cookie, cred: Cred) -> bytes:
        """Refuse: EINVAL."""
        raise VfsError(EINVAL)

    def reclaim(self, opc: Cookie, nlookup: int) -> None:
        """See FileServer. The directories live as long as their server."""

    async def print(self, opc: Cookie) -> bytes:
        """See FileServer."""
        return b"directory %d that leads to trees" % opc
