"""VnodeDisk: a disk that is a file of another mounted file system (vnd).

So an image on an SFTP server is a device without having been fetched.
"""

from __future__ import annotations

import os
from collections import deque
from errno import EINVAL, EIO, EISDIR, EROFS
from typing import TYPE_CHECKING, Final

import trio

from ...native.constants import FREAD, FSYNC_CACHE, FSYNC_WAIT, FWRITE, NameiOp, Vtype
from ...native.errors import VfsError
from ...native.records import FSCRED
from ..bio.buf import B_READ, Buf
from ..namei import namei
from ..nameidata import FOLLOW
from ..vnode import Vnode, vrele
from ..vnops import vn_fsync, vn_getattr, vn_open, vn_read
from .disk import Disk

if TYPE_CHECKING:
    from ..mount import Mount
    from ..vfs import FileSystem

IO_TASKS: Final = 8
"""Transfers of one disk under way in the file system below: what hides a network's latency."""


class VnodeDisk(Disk):
    """A disk over the file `vp`; see `open_vnd`. Owns a reference on `vp` and an open of it.

    Each transfer is a read or write of the file by a task of the kernel that `vp` lives in. When
    that kernel ends first, what is under way ends with EIO.
    """

    def __init__(self, vp: Vnode, name: str, size: int, *, rdonly: bool) -> None:
        super().__init__(name, size, rdonly=rdonly)
        self.typename = f"vnd|{vp.mount.fs.typename}"
        self._vp = vp
        self._queue: deque[tuple[Buf, int]] = deque()
        self._tasks = 0

    @property
    def mount(self) -> Mount:
        """The mount in which the file lies."""
        return self._vp.mount

    @property
    def below(self) -> FileSystem:
        """The file system in which the file lies."""
        return self._vp.mount.fs

    def _start(self, bp: Buf, offset: int) -> None:
        self._queue.append((bp, offset))
        if self._tasks < IO_TASKS:
            try:
                self._vp.mount.kernel.nursery.start_soon(self._work)
            except RuntimeError:  # the nursery is closed
                self._fail_all()
            else:
                self._tasks += 1

    def _fail_all(self) -> None:
        while self._queue:
            bp, _ = self._queue.popleft()
            self._done(bp, bp.bcount, EIO)

    async def _work(self) -> None:
        """Do transfers while there are any (a task)."""
        try:
            while self._queue:
                bp, offset = self._queue.popleft()
                resid, error = bp.bcount, EIO  # if we are cancelled
                try:
                    resid, error = await self._transfer(bp, offset)
                finally:
                    self._done(bp, resid, error)
        except trio.Cancelled:
            self._fail_all()
            raise
        finally:
            self._tasks -= 1

    async def _transfer(self, bp: Buf, offset: int) -> tuple[int, int]:
        """Return the octets that were not moved, and an errno."""
        vp = self._vp
        try:
            if bp.flags & B_READ:
                data = await vn_read(vp, offset, bp.bcount, FSCRED)
                rest = memoryview(data)
                for view in bp.iov:
                    piece = rest[: len(view)]
                    memoryview(view)[: len(piece)] = piece
                    rest = rest[len(piece) :]
                missing = bp.bcount - len(data)
                return missing, EIO if missing else 0  # somebody has cut the file
            data = bp.iov[0] if len(bp.iov) == 1 else b"".join(bp.iov)
            await vp.lock.exclusive()
            try:
                await vp.fs.write(vp, offset, data, 0, FSCRED)
            finally:
                vp.lock.release()
        except VfsError as exc:
            return bp.bcount, exc.errno
        return 0, 0

    async def _flush(self) -> None:
        """Have the file system below bring the file to its medium."""
        await vn_fsync(self._vp, FSYNC_WAIT | FSYNC_CACHE, 0, 0, FSCRED)

    async def _close(self) -> None:
        vp = self._vp
        vp.fs.close(vp, FREAD if self.is_rdonly else FREAD | FWRITE, FSCRED)
        await vrele(vp)


async def open_vnd(mount: Mount, path: bytes, *, rdonly: bool = False) -> VnodeDisk:
    """Open the regular file `path` of `mount`, found from its root, as a disk.

    Nobody is kept from using the file otherwise: the file system below knows no lock that
    would do that. The disk lives in the kernel of `mount` and is closed before that is unmounted.

    Errors, first match wins:
        other   what the walk says (ENOENT, ENOTDIR)
        EROFS   to be written, on a mount that is read-only
        EISDIR, EINVAL  no regular file
        other   what opening it says (EACCES)
    """
    async with await namei(
        path, NameiOp.LOOKUP, FOLLOW, FSCRED, atdir=mount.root, rdir=mount.root
    ) as nd:
        vp = nd.vp
        if vp.mount.is_rdonly and not rdonly:
            raise VfsError(EROFS, "the file is on a mount that is read-only")
        if vp.vtype != Vtype.VREG:
            raise VfsError(EISDIR if vp.vtype == Vtype.VDIR else EINVAL, "no regular file")
        va = await vn_getattr(vp, FSCRED)
        await vn_open(vp, FREAD if rdonly else FREAD | FWRITE, FSCRED)
        nd.take()
    size = vp.size if va.size is None else va.size
    return VnodeDisk(vp, os.fsdecode(path), size, rdonly=rdonly)
